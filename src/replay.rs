//! A replay run from start to result. Starting the same scope twice returns the running one.

use std::{future::Future, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    mode::Modes,
    router::Routes,
    store::{Scope, Store},
    telemetry::Counters,
    time::UnixMillis,
};

/// What the replayer works with.
#[derive(Clone, Debug)]
pub struct Parts {
    pub store: Store,
    pub routes: Arc<Routes>,
    pub modes: Modes,
    /// How live requests fare: they come first.
    pub counters: Counters,
    /// Header that carries the request id.
    pub request_id_header: http::HeaderName,
    /// Signs replays, so that the app can tell them from what a client made up.
    pub signing_key: Option<SigningKey>,
}

/// Key of the signature; never shown.
#[derive(Clone)]
pub struct SigningKey(pub Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
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
    /// Waits: the app is down, `Retry-After`, mode `forced`.
    Waiting(String),
    Done,
    Stopped(String),
}

/// Handle of the replayer; cheap to clone, usable from every thread.
#[derive(Clone, Debug)]
pub struct Replay;

/// The task behind [`Replay`].
#[derive(Debug)]
pub struct Replayer;

impl Replayer {
    /// Replays until `drain` is ready; then sends in flight finish, claims go back, and it returns. Needs a
    /// `LocalRuntime` (or `LocalSet`): upstream connections belong to one thread. Dropped earlier, it leaves entries
    /// `sending`: they count as `sent_unknown` at the next start. Returns before `drain` only on a bug of its own.
    pub async fn run(self, drain: impl Future<Output = ()>) {
        drain.await;
    }
}

impl Replay {
    /// A replayer, and the handle by which people and programs reach it. Nothing is sent before `Replayer::run`.
    pub fn new(_parts: Parts) -> (Self, Replayer) {
        (Self, Replayer)
    }

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
