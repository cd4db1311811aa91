//! Counts one request, also one whose client leaves before its answer.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    telemetry::{Answered, WorkerCounters, add, subtract},
    turn,
};

/// See the module.
pub(super) struct Counting {
    counters: Arc<WorkerCounters>,
    place: usize,
    pub(super) started: Instant,
    done: bool,
}

impl Counting {
    pub(super) fn begin(counters: &Arc<WorkerCounters>, place: usize) -> Self {
        add(&counters.requests_in_flight, 1);
        Self { counters: Arc::clone(counters), place, started: turn::now(), done: false }
    }

    pub(super) fn done(mut self, answered: Answered) {
        self.done = true;
        let now = match answered {
            Answered::ByApp => turn::now(),
            // Whoever stands in may have computed for long.
            _ => Instant::now(),
        };
        let took = now.saturating_duration_since(self.started);
        self.counters.route(self.place).count(answered, took);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        subtract(&self.counters.requests_in_flight, 1);
        if !self.done {
            add(&self.counters.route(self.place).answered[Answered::ClientGone as usize], 1);
        }
    }
}
