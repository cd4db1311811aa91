//! One exchange with the app: its answer, or an [`UpstreamError`] that knows its certainty.
//!
//! Does not know that a stand-in or a store exists. [`Upstream`] is what all threads share of one app; [`Connections`]
//! belong to one thread.

mod answer_body;
mod attempt;
mod balance;
mod between;
pub mod body_copy;
pub mod breaker;
mod bulkhead;
mod connection;
mod connections;
mod dial;
mod endpoint;
mod error;
mod fault;
pub mod health;
mod http1;
mod http2;
mod in_flight;
mod keep_open;
mod last_look;
mod open;
mod places;
mod pool;
pub mod request_body;
pub mod resolve;
mod retry_budget;
mod route_breaker;
mod secure;
mod slow;
mod stream;
mod switches;
mod through;
mod tries;
mod way_in;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, watch};

pub use self::{
    answer_body::{AnswerBody, AnswerFault},
    attempt::Attempt,
    body_copy::WholeBody,
    bulkhead::{Bulkhead, Of, Places},
    connections::{Asking, Connections, Tunnel, WholeAnswer},
    endpoint::{EndpointView, LoadView},
    error::UpstreamError,
    fault::Fault,
    last_look::at_most,
    retry_budget::ExtraTries,
    route_breaker::{RouteBreaker, RouteState},
    stream::Stream,
    switches::{MOST_SWITCHES, Switch},
};
use self::{
    between::Between,
    breaker::{Breaker, Change, Outlook, Switched},
    endpoint::Endpoints,
    route_breaker::with_cause,
    switches::Switches,
};
use crate::{
    config::{BreakerConfig, UpstreamConfig},
    egress::Lane,
    time::UnixMillis,
};

/// What all threads share of one app.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub config: UpstreamConfig,
    /// The way of jobs without a route into its pool of egress proxies, where there is one.
    pub egress: Option<Lane>,
    endpoints: Endpoints,
    breaker: Breaker,
    /// The breakers of its routes, by their names.
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteBreaker>>>,
    /// Requests in a row that a connection took and nobody answered, of all routes.
    doubts: AtomicU32,
    suspected: Notify,
    switches: Switches,
    between: Between,
    extra_tries: ExtraTries,
    tls: secure::Tls,
    answered_since_start: AtomicBool,
    seen: AtomicBool,
    condition: watch::Sender<Condition>,
    /// The last turn of the breaker that the condition tells of.
    published: AtomicU64,
    last_cause: Mutex<String>,
}

/// What standin thinks of an app; published on a watch channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Never seen to answer since start.
    Unknown,
    Up,
    /// The breaker is open.
    Down {
        since: UnixMillis,
        cause: String,
    },
    /// The breaker is half-open: trials are let through.
    Probing {
        since: UnixMillis,
        cause: String,
    },
}

impl Upstream {
    pub fn new(name: &str, config: UpstreamConfig) -> Arc<Self> {
        Self::by_way_of(name, config, None)
    }

    /// One that is reached through a pool of egress proxies.
    pub fn by_way_of(name: &str, config: UpstreamConfig, egress: Option<Lane>) -> Arc<Self> {
        Arc::new(Self::plain(name, config, egress))
    }

    fn plain(name: &str, config: UpstreamConfig, egress: Option<Lane>) -> Self {
        Self {
            name: name.into(),
            egress,
            endpoints: Endpoints::new(&config.endpoints),
            breaker: Breaker::new(BreakerConfig { slow: None, ..config.breaker.clone() }),
            routes: Mutex::default(),
            doubts: AtomicU32::new(0),
            suspected: Notify::new(),
            switches: Switches::default(),
            between: Between::default(),
            extra_tries: ExtraTries::default(),
            tls: secure::load(name, &config),
            config,
            answered_since_start: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            condition: watch::Sender::new(Condition::Unknown),
            published: AtomicU64::new(0),
            last_cause: Mutex::default(),
        }
    }

    /// The same app under another configuration: what was seen of it stays seen, what went wrong may have been mended.
    pub fn instead_of(before: &Self, config: UpstreamConfig, egress: Option<Lane>) -> Arc<Self> {
        let switches = before.switches.clone();
        let upstream = Arc::new(Self { switches, ..Self::plain(&before.name, config, egress) });
        upstream.seen.store(before.was_seen(), Ordering::Relaxed);
        upstream.endpoints.know_addresses_of(&before.endpoints);
        upstream.knows_what_is_between(before);
        if matches!(*before.condition.borrow(), Condition::Up) {
            upstream.is_there();
        }
        upstream
    }

    /// Follows what is thought of it.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// Whether it was seen to answer since start, or an outage is known to have been going on before.
    pub fn was_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// The store remembers an outage of this app from before the start: stand-ins may go on.
    pub fn outage_goes_on(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// How each endpoint stands.
    pub fn endpoints_now(&self) -> Vec<EndpointView> {
        self.endpoints.view(&self.config)
    }

    /// Tries beyond the first of a request.
    pub fn extra_tries(&self) -> &ExtraTries {
        &self.extra_tries
    }

    /// Requests are let through freely.
    pub fn is_admitting(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Whether one would be, as a trial at least.
    pub fn would_admit(&self) -> bool {
        !matches!(self.breaker.outlook(tokio::time::Instant::now()), Outlook::Nothing { .. })
    }

    /// The last switches of its breakers, oldest first.
    pub fn switches(&self) -> Vec<Switch> {
        self.switches.all()
    }

    /// It answered, whatever was asked.
    fn is_there(&self) {
        // A load first: no line that all workers share is written while all is well.
        if !self.answered_since_start.load(Ordering::Relaxed) {
            self.answered_since_start.store(true, Ordering::Relaxed);
            self.seen.store(true, Ordering::Relaxed);
            self.condition.send_if_modified(|condition| {
                let first = *condition == Condition::Unknown;
                if first {
                    *condition = Condition::Up;
                }
                first
            });
        }
    }

    /// What is thought of it follows its breaker. Two threads may come here in the wrong order: what has been overtaken
    /// is written down, and no more.
    fn publish(&self, Switched { change, why, turn }: Switched) {
        let cause = self.last_cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why = with_cause(&why, change, &cause);
        tracing::info!(upstream = &*self.name, "breaker {change:?}: {why}");
        self.record(None, change, why);
        self.condition.send_if_modified(|condition| {
            // Under the lock of the condition, so that turn and condition are of one mind.
            if self.published.fetch_max(turn, Ordering::Relaxed) > turn {
                return false;
            }
            let since = match condition {
                Condition::Down { since, .. } | Condition::Probing { since, .. } => *since,
                Condition::Unknown | Condition::Up => UnixMillis::now(),
            };
            *condition = match change {
                Change::Opened => Condition::Down { since, cause },
                Change::HalfOpened => Condition::Probing { since, cause },
                Change::Closed => Condition::Up,
            };
            true
        });
    }
}
