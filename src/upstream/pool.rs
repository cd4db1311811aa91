//! The connections of one thread to one upstream that wait for their next exchange.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use super::connection::Connection;
use crate::egress::Through;

/// The idle connections of one thread to one upstream, per endpoint; the one used last is taken first.
#[derive(Default)]
pub(super) struct Idle {
    endpoints: Vec<RefCell<VecDeque<Connection>>>,
}

impl Idle {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { endpoints: (0..endpoints).map(|_| RefCell::default()).collect() }
    }

    /// A connection that is still open, if one was kept.
    pub(super) fn take(&self, endpoint: usize, idle_time: Duration) -> Option<Connection> {
        loop {
            let mut connection = self.endpoints[endpoint].borrow_mut().pop_back()?;
            if connection.idle_for() < idle_time && connection.is_alive() {
                return Some(connection);
            }
        }
    }

    /// A tunnel through this egress proxy.
    pub(super) fn take_through(
        &self,
        endpoint: usize,
        way: Through,
        idle_time: Duration,
    ) -> Option<Connection> {
        let mut idle = self.endpoints[endpoint].borrow_mut();
        while let Some(at) = idle.iter().rposition(|connection| connection.way() == Some(way)) {
            let mut connection = idle.remove(at)?;
            if connection.idle_for() < idle_time && connection.is_alive() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, if another can follow on it.
    pub(super) fn put(&self, mut connection: Connection, at_most: usize) {
        if !connection.rest() || at_most == 0 {
            return;
        }
        let mut idle = self.endpoints[connection.endpoint()].borrow_mut();
        if idle.len() >= at_most {
            idle.pop_front();
        }
        idle.push_back(connection);
    }

    /// Closes what was idle for too long.
    pub(super) fn reap(&self, idle_time: Duration) {
        for endpoint in &self.endpoints {
            let mut idle = endpoint.borrow_mut();
            while idle.front().is_some_and(|connection| connection.idle_for() >= idle_time) {
                idle.pop_front();
            }
        }
    }
}
