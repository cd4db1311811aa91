//! One worker's failover as it is now. A request takes it once and keeps it; a reload puts another one in its place.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::{Failover, Shared};
use crate::{listener::Drain, telemetry::WorkerCounters};

/// Cheap to clone; belongs to its worker's thread.
#[derive(Clone)]
pub struct Current(Rc<RefCell<Failover>>);

impl Current {
    pub fn new(shared: Arc<Shared>, counters: Arc<WorkerCounters>, drain: Rc<Drain>) -> Self {
        Self(Rc::new(RefCell::new(Failover::new(shared, counters, drain))))
    }

    /// For one request.
    pub fn now(&self) -> Failover {
        self.0.borrow().clone()
    }

    /// From the next request on.
    pub fn replace(&self, shared: Arc<Shared>) {
        let next = self.0.borrow().changed(shared);
        self.0.replace(next);
    }
}
