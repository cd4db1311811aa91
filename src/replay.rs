//! A replay run from start to result. Starting the same scope twice returns the running one.

use serde::Serialize;

use crate::{store::Scope, time::UnixMillis};

/// One run as it is shown.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum RunState {
    Running,
    /// Waits: the app is down, `Retry-After`, mode `forced`.
    Waiting(String),
    Done,
    Stopped(String),
}

/// Handle of the replayer; cheap to clone, usable from every thread.
#[derive(Clone, Debug)]
pub struct Replay;

impl Replay {
    /// Starts a run, or returns the running one of the same scope. A single entry joins a running run that covers it.
    pub fn start(&self, _scope: Scope, _who: &str, _why: &str) -> RunView {
        unimplemented!()
    }

    /// Ends a run: sends in flight finish, leases go back. False if there is no such running run.
    pub fn stop(&self, _run: &str, _who: &str, _why: &str) -> bool {
        false
    }

    /// Running and recent runs, newest first.
    pub fn runs(&self) -> Vec<RunView> {
        Vec::new()
    }

    /// Changes whenever a run's view changes (at most some ten times a second).
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }
}
