//! Says where the running runs stand, ends those that have nothing left, and writes them down.

use std::time::Duration;

use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::time::Instant;

use super::{
    Parts, RunState,
    begin::{Active, covers, narrowed},
    replayer::{Chore, HEARTBEAT, REMEMBERED, Work},
    runs::Run,
};
use crate::{mode::Mode, store::Scope, time::UnixMillis};

impl Work {
    /// Ends runs that have nothing left, says of the others where they stand. Gives the time of the next thing to do.
    pub(super) fn settle_runs(&mut self, active: &[Active], now: Instant) -> Instant {
        let mut wake = now + HEARTBEAT;
        for run in active {
            let state = if run.in_flight > 0 {
                self.idle.remove(&run.id);
                RunState::Running
            } else if let Some(why) = &run.stopped {
                RunState::Stopped(why.clone())
            } else {
                let (state, at) = self.without_sends(run, now);
                wake = wake.min(at);
                state
            };
            self.write_state(run, state, now);
        }
        let due = self.next_due_by_itself(now);
        wake.min(due)
    }

    /// Where a run stands that has nothing in flight.
    fn without_sends(&mut self, run: &Active, now: Instant) -> (RunState, Instant) {
        let (due, next) = self.left(run);
        if due || (next.is_some() && run.waits.is_some()) {
            self.idle.remove(&run.id);
            let Some(closed) = &run.waits else { return (RunState::Running, now + SOON) };
            return (
                RunState::Waiting(closed.why.clone()),
                closed.until.unwrap_or(now + HEARTBEAT),
            );
        }
        if let Some(next) = next {
            self.idle.remove(&run.id);
            let at = now + next.since(UnixMillis::now());
            return (RunState::Waiting(format!("the next entry is due at {next}")), at);
        }
        let idle = *self.idle.entry(run.id.clone()).or_insert(now);
        if !run.by_person && now < idle + LINGER {
            return (RunState::Waiting("nothing is due".to_owned()), idle + LINGER);
        }
        self.idle.remove(&run.id);
        let blocked = run.scope.seq.is_some() && self.parts.store.open_in(&run.scope) > 0;
        if blocked {
            let why = "an earlier entry of its sequence is held or under way";
            return (RunState::Stopped(why.to_owned()), now);
        }
        (RunState::Done, now)
    }

    /// Whether an entry of the run is due, and when the next one falls due.
    fn left(&self, run: &Active) -> (bool, Option<UnixMillis>) {
        let wall = UnixMillis::now();
        let mut next: Option<UnixMillis> = None;
        for lane in &self.lanes {
            for place in 0..lane.routes.len() {
                let forced = self.parts.modes.of(&lane.routes[place].route.name) == Mode::Forced;
                let plays = run.by_person || self.plays_by_itself(lane, place) || forced;
                if !covers(&run.scope, lane, place) || !plays {
                    continue;
                }
                let scope = narrowed(&run.scope, lane, place);
                if !self.parts.store.due(&scope, wall, 1).is_empty() {
                    return (true, None);
                }
                let at = self.parts.store.next_due(&scope, wall);
                next = [next, at].into_iter().flatten().min();
            }
        }
        (false, next)
    }

    fn next_due_by_itself(&self, now: Instant) -> Instant {
        let wall = UnixMillis::now();
        let next = self.parts.store.next_due(&Scope::default(), wall);
        // What is due already was begun, or waits for something else than time.
        next.filter(|at| *at > wall).map_or(now + HEARTBEAT, |at| now + at.since(wall))
    }

    fn write_state(&mut self, run: &Active, state: RunState, now: Instant) {
        let over = matches!(state, RunState::Done | RunState::Stopped(_));
        let (mut open, mut pace) = (0, 0);
        for lane in &self.lanes {
            let mut concerned = false;
            for place in (0..lane.routes.len()).filter(|place| covers(&run.scope, lane, *place)) {
                if run.by_person || self.plays_by_itself(lane, place) {
                    open += self.parts.store.open_in(&narrowed(&run.scope, lane, place));
                    concerned = true;
                }
            }
            pace += if concerned { u64::from(lane.allowed(now)) } else { 0 };
        }
        let mut book = self.shared.book();
        let Some(kept) = book.run_mut(&run.id) else { return };
        let before = kept.view.clone();
        kept.view.total = kept.view.settled() + open;
        kept.view.pace = if over { 0 } else { pace };
        if over {
            kept.end(state);
            tracing::info!(run = kept.view.id, scope = kept.view.scope, "a replay run ended");
            self.chores.push(remember(&self.parts, kept));
        } else {
            kept.view.state = state;
        }
        self.dirty |= kept.view != before;
    }
}

/// Writes a run down, in its place.
pub(super) fn remember(parts: &Parts, run: &Run) -> LocalBoxFuture<'static, Chore> {
    let (store, name) = (parts.store.clone(), format!("{REMEMBERED}{:02}", run.slot));
    let json = serde_json::to_string(&run.view).expect("a view is plain data");
    async move {
        if let Err(error) = store.remember(&name, &json).await {
            tracing::warn!(%error, "a replay run is not written down");
        }
        Chore::Remembered
    }
    .boxed_local()
}

const SOON: Duration = Duration::from_millis(50);
/// How long an automatic run stays without work, so that a trickle of entries is one run.
const LINGER: Duration = Duration::from_secs(1);
