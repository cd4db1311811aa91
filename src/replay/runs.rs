//! The book of runs: running ones and the last finished ones. Starting the same scope twice gives the running one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{ReplayCounters, RunState, RunView, delivery::CameTo};
use crate::{
    store::{Outcome, Receipt, Scope},
    time::UnixMillis,
};

/// Most runs that are shown, running and finished.
pub(super) const MOST_RUNS: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Oldest first.
    runs: VecDeque<Run>,
    pub counters: ReplayCounters,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub view: RunView,
    pub scope: Scope,
    /// A person asked for it: takes manual routes too, and `forced` does not pause it.
    pub by_person: bool,
    /// Who stopped it and why.
    pub stopped: Option<String>,
    /// False from the moment it is stopped: what has not left yet stays.
    pub go: Arc<AtomicBool>,
    /// Its place among the runs that the store remembers.
    pub slot: usize,
    /// The replayer has seen that a person asked for it.
    pub noticed: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    pub scope: Scope,
    /// Of the one entry, if the scope is one.
    pub receipt: Option<Receipt>,
    pub who: &'a str,
    pub why: &'a str,
    pub by_person: bool,
}

impl Book {
    /// Starts a run, or joins one: of the same scope, or, for one entry, one that `covers` it. A person who joins an
    /// automatic run of the same scope makes it theirs.
    pub(super) fn start(&mut self, wish: Wish<'_>, covers: impl Fn(&Run) -> bool) -> RunView {
        let single = wish.scope.seq.is_some();
        let running = self.runs.iter_mut().filter(|run| run.is_running() && run.stopped.is_none());
        for run in running {
            if run.scope == wish.scope {
                run.by_person |= wish.by_person;
                return run.view.clone();
            }
            if single && covers(run) {
                return run.view.clone();
            }
        }
        let mut run = Run::new(wish);
        match self.free_slot() {
            Some(slot) => {
                run.slot = slot;
                let view = run.view.clone();
                self.runs.push_back(run);
                view
            }
            None => {
                run.end(RunState::Stopped(format!("{MOST_RUNS} runs are running already")));
                run.view
            }
        }
    }

    /// Stops a running run; false if there is none of that id.
    pub(super) fn stop(&mut self, id: &str, who: &str, why: &str) -> bool {
        let Some(run) = self.running_mut().find(|run| run.view.id == id) else { return false };
        if run.stopped.is_none() {
            run.stopped = Some(format!("by {who}: {why}"));
            run.go.store(false, Ordering::Relaxed);
        }
        true
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.is_running())
    }

    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.runs.iter_mut().filter(|run| run.is_running())
    }

    pub(super) fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.view.id == id)
    }

    /// Newest first.
    pub(super) fn views(&self) -> Vec<RunView> {
        self.runs.iter().rev().map(|run| run.view.clone()).collect()
    }

    /// A delivery of the run ended.
    pub(super) fn settle(&mut self, id: &str, came_to: CameTo) {
        self.counters.count(came_to);
        let Some(run) = self.run_mut(id) else { return };
        run.view.in_flight = run.view.in_flight.saturating_sub(1);
        run.view.count(came_to);
    }

    /// Puts back what the store remembers: newest `at` last. A run that was running when standin ended does not go on.
    pub(super) fn recall(&mut self, mut remembered: Vec<(usize, RunView)>) {
        remembered.sort_by_key(|(_, view)| view.started_at);
        for (slot, mut view) in remembered {
            if self.runs.len() >= MOST_RUNS || self.runs.iter().any(|run| run.slot == slot) {
                continue;
            }
            if view.ended_at.is_none() {
                let why = "standin ended meanwhile; start it again to go on";
                view.state = RunState::Stopped(why.to_owned());
                view.ended_at = Some(view.started_at);
                view.in_flight = 0;
            }
            let go = Arc::new(AtomicBool::new(false));
            let scope = Scope::default();
            self.runs.push_back(Run {
                view,
                scope,
                by_person: false,
                stopped: None,
                go,
                slot,
                noticed: true,
            });
        }
        self.runs.make_contiguous().sort_by_key(|run| run.view.started_at);
    }

    /// A slot that nobody uses, by forgetting the oldest finished run if there must be.
    fn free_slot(&mut self) -> Option<usize> {
        if self.runs.len() >= MOST_RUNS {
            let oldest = self.runs.iter().position(|run| !run.is_running())?;
            return self.runs.remove(oldest).map(|run| run.slot);
        }
        (0..MOST_RUNS).find(|slot| self.runs.iter().all(|run| run.slot != *slot))
    }
}

impl Run {
    fn new(wish: Wish<'_>) -> Self {
        let view = RunView {
            id: uuid::Uuid::now_v7().to_string(),
            scope: in_words(&wish.scope, wish.receipt),
            who: wish.who.to_owned(),
            why: wish.why.to_owned(),
            state: RunState::Running,
            started_at: UnixMillis::now(),
            ended_at: None,
            total: 0,
            sent: 0,
            completed: 0,
            already_applied: 0,
            declined: 0,
            held: 0,
            again: 0,
            in_flight: 0,
            pace: 0,
        };
        Self {
            view,
            scope: wish.scope,
            by_person: wish.by_person,
            stopped: None,
            go: Arc::new(AtomicBool::new(true)),
            slot: 0,
            noticed: false,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.view.ended_at.is_none()
    }

    pub(super) fn end(&mut self, state: RunState) {
        self.view.state = state;
        self.view.ended_at = Some(UnixMillis::now());
        self.go.store(false, Ordering::Relaxed);
    }
}

impl RunView {
    /// Entries that are closed or held by this run.
    pub(super) fn settled(&self) -> u64 {
        self.completed + self.already_applied + self.declined + self.held
    }

    fn count(&mut self, came_to: CameTo) {
        let place = match came_to {
            CameTo::Unsent | CameTo::StoreTrouble => return,
            CameTo::HeldUnsent => {
                self.held += 1;
                return;
            }
            CameTo::Closed(Outcome::Completed) => &mut self.completed,
            CameTo::Closed(Outcome::AlreadyApplied) => &mut self.already_applied,
            CameTo::Closed(Outcome::Declined | Outcome::WrittenOff) => &mut self.declined,
            CameTo::Held => &mut self.held,
            CameTo::Again => &mut self.again,
            CameTo::Moved => {
                self.sent += 1;
                return;
            }
        };
        *place += 1;
        self.sent += 1;
    }
}

impl ReplayCounters {
    fn count(&mut self, came_to: CameTo) {
        let place = match came_to {
            CameTo::Unsent => return,
            CameTo::StoreTrouble => &mut self.store_trouble,
            CameTo::HeldUnsent | CameTo::Held => &mut self.held,
            CameTo::Closed(Outcome::Completed) => &mut self.completed,
            CameTo::Closed(Outcome::AlreadyApplied) => &mut self.already_applied,
            CameTo::Closed(Outcome::Declined | Outcome::WrittenOff) => &mut self.declined,
            CameTo::Again => &mut self.again,
            CameTo::Moved => &mut self.moved,
        };
        *place += 1;
    }
}

/// A scope as people say it.
fn in_words(scope: &Scope, receipt: Option<Receipt>) -> String {
    let route = scope.route.as_ref().map(|route| format!("route {route}"));
    let upstream = scope.upstream.as_ref().map(|upstream| format!("upstream {upstream}"));
    let entry = receipt.map(|receipt| format!("entry {receipt}"));
    let parts: Vec<String> = [route, upstream, entry].into_iter().flatten().collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Seq;

    fn route(name: &str) -> Scope {
        Scope { route: Some(name.into()), ..Scope::default() }
    }

    fn wish(scope: Scope, by_person: bool) -> Wish<'static> {
        Wish { receipt: scope.seq.map(|_| Receipt(7)), scope, who: "ann", why: "asked", by_person }
    }

    fn start(book: &mut Book, scope: Scope) -> RunView {
        book.start(wish(scope, true), |_| false)
    }

    #[test]
    fn the_same_scope_is_the_running_run_and_another_is_not() {
        let mut book = Book::default();
        let first = start(&mut book, route("checkout"));
        assert_eq!(start(&mut book, route("checkout")).id, first.id);
        assert_ne!(start(&mut book, route("carts")).id, first.id);
        assert_ne!(start(&mut book, Scope::default()).id, first.id);

        book.run_mut(&first.id).unwrap().end(RunState::Done);
        assert_ne!(start(&mut book, route("checkout")).id, first.id, "that one is over");
    }

    #[test]
    fn an_entry_joins_a_run_that_covers_it() {
        let mut book = Book::default();
        let all = start(&mut book, Scope::default());
        let one = Scope { seq: Some(Seq(3)), ..Scope::default() };
        assert_eq!(book.start(wish(one.clone(), true), |_| true).id, all.id);
        let own = book.start(wish(one, true), |_| false);
        assert_ne!(own.id, all.id);
        assert_eq!(own.scope, format!("entry {}", Receipt(7)));
    }

    #[test]
    fn a_person_takes_over_an_automatic_run() {
        let mut book = Book::default();
        let automatic = book.start(wish(route("a"), false), |_| false);
        assert!(!book.run_mut(&automatic.id).unwrap().by_person);
        assert_eq!(start(&mut book, route("a")).id, automatic.id);
        assert!(book.run_mut(&automatic.id).unwrap().by_person);
    }

    #[test]
    fn a_stopped_run_is_not_joined_and_stops_once() {
        let mut book = Book::default();
        let run = start(&mut book, route("a"));
        assert!(!book.stop("no such run", "ann", "why not"));
        assert!(book.stop(&run.id, "ann", "wrong prices"));
        let stopped = book.run_mut(&run.id).unwrap();
        assert_eq!(stopped.stopped.as_deref(), Some("by ann: wrong prices"));
        assert!(!stopped.go.load(Ordering::Relaxed));
        assert_ne!(start(&mut book, route("a")).id, run.id);
        book.run_mut(&run.id).unwrap().end(RunState::Done);
        assert!(!book.stop(&run.id, "ann", "again"));
    }

    #[test]
    fn the_oldest_finished_run_makes_room_and_a_running_one_never_does() {
        let mut book = Book::default();
        let ids: Vec<String> =
            (0..MOST_RUNS).map(|number| start(&mut book, route(&number.to_string())).id).collect();
        let refused = start(&mut book, route("one too many"));
        assert!(matches!(refused.state, RunState::Stopped(_)));
        assert!(book.views().iter().all(|view| view.id != refused.id));

        book.run_mut(&ids[7]).unwrap().end(RunState::Done);
        let slot = book.run_mut(&ids[7]).unwrap().slot;
        let next = start(&mut book, route("next"));
        assert_eq!(book.run_mut(&next.id).unwrap().slot, slot);
        let views = book.views();
        assert_eq!((views.len(), &views[0].id), (MOST_RUNS, &next.id));
        assert!(views.iter().all(|view| view.id != ids[7]));
    }

    #[test]
    fn what_is_remembered_comes_back_and_does_not_go_on() {
        let mut book = Book::default();
        let first = start(&mut book, route("a"));
        book.run_mut(&first.id).unwrap().end(RunState::Done);
        let second = start(&mut book, route("b"));
        let mut remembered: Vec<_> = book.views().into_iter().enumerate().collect();
        remembered.reverse();

        let mut after = Book::default();
        after.recall(remembered);
        let views = after.views();
        assert_eq!(views.len(), 2);
        let of = |id: &str| views.iter().find(|view| view.id == id).unwrap().clone();
        assert_eq!(of(&first.id).state, RunState::Done);
        assert!(matches!(of(&second.id).state, RunState::Stopped(_)));
        assert_eq!(after.running().count(), 0);
    }

    #[test]
    fn counts_add_up() {
        let mut book = Book::default();
        let id = start(&mut book, Scope::default()).id;
        for came_to in [
            CameTo::Closed(Outcome::Completed),
            CameTo::Closed(Outcome::Completed),
            CameTo::Closed(Outcome::AlreadyApplied),
            CameTo::Closed(Outcome::Declined),
            CameTo::Held,
            CameTo::HeldUnsent,
            CameTo::Again,
            CameTo::Moved,
            CameTo::Unsent,
            CameTo::StoreTrouble,
        ] {
            book.run_mut(&id).unwrap().view.in_flight += 1;
            book.settle(&id, came_to);
        }
        let view = book.views().remove(0);
        assert_eq!((view.sent, view.completed, view.already_applied), (7, 2, 1));
        assert_eq!((view.declined, view.held, view.again, view.in_flight), (1, 2, 1, 0));
        assert_eq!(view.settled(), 6);
    }
}
