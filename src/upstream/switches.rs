//! The last switches of an app's breakers, each with the signals that led to it. Bounded, in memory; nothing is decided by
//! them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::breaker::Change;
use crate::time::UnixMillis;

/// One switch of one breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    pub at: UnixMillis,
    pub upstream: Arc<str>,
    /// None: the breaker of the whole app. Empty: that of requests without a route.
    pub route: Option<Arc<str>>,
    pub change: Change,
    /// The signals, with their limits and counts.
    pub why: String,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Switches(Arc<Mutex<VecDeque<Switch>>>);

/// Switches that are kept, per upstream.
pub const MOST_SWITCHES: usize = 100;

impl Switches {
    pub(super) fn push(&self, switch: Switch) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_SWITCHES {
            all.pop_front();
        }
        all.push_back(switch);
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<Switch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
