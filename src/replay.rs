//! A replay run from start to result: what was stored while the app was away is sent once it is back.
//!
//! `trigger` says when a run starts, `pace` how much at once, `order` what must wait, `delivery` sends one entry,
//! `policy` whether it may go, `classes` and `verdict` say what its answer means. Starting the same scope twice returns the running run.

mod backoff;
mod begin;
mod classes;
mod closing;
mod delivery;
mod expired;
mod lane;
mod live;
mod load;
mod order;
mod orphans;
mod pace;
mod policy;
mod replayer;
mod request;
#[cfg(test)]
mod rig;
mod runs;
mod standing;
#[cfg(test)]
mod tests;
mod trigger;
mod verdict;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

pub(crate) use self::closing::{Live, late_outcome, live_outcome};
pub use self::replayer::Replayer;
use self::runs::{Book, Run, Wish};
use crate::{
    config::SigningKey,
    mode::Modes,
    router::LiveRoutes,
    store::{Hook, Scope, Store},
    telemetry::Counters,
    time::UnixMillis,
};

/// What the replayer works with.
#[derive(Clone, Debug)]
pub struct Parts {
    pub store: Store,
    pub routes: LiveRoutes,
    pub modes: Modes,
    /// How live requests fare: they come first.
    pub counters: Counters,
    /// Header that carries the request id.
    pub request_id_header: http::HeaderName,
    /// Signs replays, so that the app can tell them from what a client made up.
    pub signing_key: Option<SigningKey>,
    /// Called at `after_app_applied`: the app has answered, nothing is written yet.
    pub hook: Hook,
}

/// One run as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    pub id: String,
    /// Scope in words: `all`, `route checkout`, `entry 7K3M-Q2XD`.
    pub scope: String,
    /// `recovery`, or a person's name.
    pub who: String,
    pub why: String,
    pub state: RunState,
    pub started_at: UnixMillis,
    pub ended_at: Option<UnixMillis>,
    /// Entries of the scope that were open at start, plus those that came later.
    pub total: u64,
    /// Attempts made.
    pub sent: u64,
    pub completed: u64,
    pub already_applied: u64,
    pub declined: u64,
    pub held: u64,
    /// Attempts that will be tried again.
    pub again: u64,
    pub in_flight: u64,
    /// Replays in flight that the pace allows now.
    pub pace: u64,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum RunState {
    Running,
    /// Waits: the app is down, `Retry-After`, mode `forced`, the next entry is not due yet.
    Waiting(String),
    Done,
    /// By a person, or because standin ended: a run does not go on after a restart (automatic ones start anew).
    Stopped(String),
}

/// What all deliveries since start came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayCounters {
    pub completed: u64,
    pub already_applied: u64,
    pub declined: u64,
    pub held: u64,
    /// To be tried again.
    pub again: u64,
    /// Somebody else had decided over the entry when the answer came.
    pub moved: u64,
    /// The store could not be read or written, so nothing was sent.
    pub store_trouble: u64,
}

/// Handle of the replayer; cheap to clone, usable from every thread.
#[derive(Clone, Debug)]
pub struct Replay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    book: Mutex<Book>,
    /// Wakes the replayer.
    wake: Notify,
    changed: watch::Sender<u64>,
}

impl Replay {
    /// A replayer, and the handle by which people and programs reach it. Nothing is sent before [`Replayer::run`].
    pub fn new(parts: Parts) -> (Self, Replayer) {
        let shared = Arc::new(Shared {
            parts,
            book: Mutex::default(),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
        });
        (Self { shared: Arc::clone(&shared) }, Replayer { shared })
    }

    /// Starts a run, or returns the running one of the same scope. A single entry joins a running run that covers it.
    /// For manual routes this is the only way. At most 100 run at once: one more is `Stopped` from the start.
    pub fn start(&self, scope: Scope, who: &str, why: &str) -> RunView {
        let total = self.shared.parts.store.open_in(&scope);
        let receipt = scope.seq.map(|seq| self.shared.parts.store.receipt(seq));
        let wish = Wish { scope: scope.clone(), receipt, who, why, by_person: true };
        let view = {
            let mut book = self.shared.book();
            let view = book.start(wish, |run| self.shared.covers(run, &scope));
            match book.run_mut(&view.id) {
                Some(run) if run.view.total == 0 => {
                    run.view.total = total;
                    run.view.clone()
                }
                _ => view,
            }
        };
        self.shared.wake_all();
        view
    }

    /// Ends a run: sends in flight finish, leases go back. Its routes do not start by themselves again before the app
    /// was down and is back, or somebody starts a run. False if there is no such running run.
    pub fn stop(&self, run: &str, who: &str, why: &str) -> bool {
        let stopped = self.shared.book().stop(run, who, why);
        self.shared.wake_all();
        stopped
    }

    /// Running and recent runs, newest first.
    pub fn runs(&self) -> Vec<RunView> {
        self.shared.book().views()
    }

    /// Changes whenever a run's view changes (at most some ten times a second).
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    pub fn counters(&self) -> ReplayCounters {
        self.shared.book().counters
    }
}

impl Shared {
    /// Never held over an await, nor while the store is asked for more than its memory.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        self.wake.notify_one();
        self.changed.send_modify(|version| *version += 1);
    }

    /// Whether a running run would send the entry of `one`.
    fn covers(&self, run: &Run, one: &Scope) -> bool {
        let within = |route: Option<Arc<str>>| {
            let upstream = run.scope.upstream.clone();
            let scope = Scope { route: route.or(run.scope.route.clone()), upstream, seq: one.seq };
            self.parts.store.open_in(&scope) > 0
        };
        if run.by_person {
            return within(None);
        }
        let plays = |route: &&Arc<crate::router::Route>| {
            let mode = self.parts.modes.of(&route.name);
            trigger::plays_by_itself(route.config.replay.trigger, mode, false)
        };
        self.parts
            .routes
            .now()
            .all
            .iter()
            .filter(plays)
            .any(|route| within(Some(route.name.clone())))
    }
}
