//! Which route a request takes: the most specific match on the canonical path.

use std::{sync::Arc, time::Duration};

use crate::{config::RouteConfig, upstream::Upstream};

/// One route, ready for use; shared by all threads.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// Position among all routes: its place in counters.
    pub index: usize,
    pub upstream: Arc<Upstream>,
    /// From the request fully sent to the head of the answer.
    pub timeout: Duration,
    pub config: RouteConfig,
}

/// All routes, most specific first, and where the rest goes.
#[derive(Debug, Default)]
pub struct Routes {
    pub all: Vec<Arc<Route>>,
    pub upstreams: Vec<Arc<Upstream>>,
}

impl Routes {
    /// The route of that name (for entries: policy comes from today's route).
    pub fn by_name(&self, name: &str) -> Option<&Arc<Route>> {
        self.all.iter().find(|route| &*route.name == name)
    }
}
