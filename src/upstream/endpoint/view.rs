//! What can be said of an endpoint: for page, API and metrics.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Endpoint, Endpoints, FULL, Standing};
use crate::{config::UpstreamConfig, time::UnixMillis};

/// See the module.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// `HOST:PORT`.
    pub authority: String,
    /// Where that is now.
    pub addresses: Arc<[SocketAddr]>,
    /// One of [`EndpointView::STATES`].
    pub state: &'static str,
    /// Since when, if it was ever otherwise.
    pub since: Option<UnixMillis>,
    /// What it last failed of.
    pub cause: Option<String>,
    pub failures: u64,
    pub ejections: u64,
    /// Connections opened so far.
    pub opened: u64,
    /// Those that take requests, and how many of them are idle: a moment ago.
    pub open: u64,
    pub idle: u64,
    /// Not counted for the only endpoint of an upstream.
    pub load: Option<LoadView>,
}

/// How busy it is.
#[derive(Clone, Copy, Debug)]
pub struct LoadView {
    pub in_flight: u32,
    pub answered: u64,
    /// How long an answer takes, as far as is known; the peak of late.
    pub latency: Duration,
}

impl EndpointView {
    /// `only`: it is the only one, and the condition of the upstream is its own.
    pub const STATES: [&'static str; 5] = ["only", "up", "slow_start", "ejected", "probation"];
}

impl Endpoints {
    pub(in crate::upstream) fn view(&self, config: &UpstreamConfig) -> Vec<EndpointView> {
        let now = Instant::now();
        self.all.iter().map(|endpoint| self.view_of(config, endpoint, now)).collect()
    }

    fn view_of(&self, config: &UpstreamConfig, endpoint: &Endpoint, now: Instant) -> EndpointView {
        let state = match self.standing(config, endpoint, now) {
            _ if !self.are_several() => "only",
            Standing::In { weight: FULL } => "up",
            Standing::In { .. } => "slow_start",
            Standing::Out => "ejected",
            Standing::WantsTrial | Standing::OnTrial => "probation",
        };
        let told = endpoint.told().clone();
        let load = self.are_several().then(|| LoadView {
            in_flight: endpoint.load.in_flight(),
            answered: endpoint.load.answered(),
            latency: Duration::from_secs_f64(endpoint.load.estimate_us(self.began.elapsed()) / 1e6),
        });
        EndpointView {
            authority: endpoint.authority.clone(),
            addresses: endpoint.addresses.now(),
            state,
            since: told.since,
            cause: Some(told.cause).filter(|cause| !cause.is_empty()),
            failures: endpoint.failures.load(Ordering::Relaxed),
            ejections: endpoint.ejections.load(Ordering::Relaxed),
            opened: endpoint.opened.load(Ordering::Relaxed) as u64,
            open: endpoint.connections.open.load(Ordering::Relaxed) as u64,
            idle: endpoint.connections.idle.load(Ordering::Relaxed) as u64,
            load,
        }
    }
}
