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
mod dial;
mod endpoint;
mod error;
pub mod health;
mod http1;
mod in_flight;
mod last_look;
pub mod request_body;
pub mod resolve;
mod retry_budget;
mod route_breaker;
mod secure;
mod slow;
mod switches;
mod through;
mod tries;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

pub use self::{
    answer_body::{AnswerBody, AnswerFault},
    attempt::Attempt,
    body_copy::WholeBody,
    bulkhead::{Bulkhead, Of, Places},
    connection::Stream,
    endpoint::{EndpointView, LoadView},
    error::UpstreamError,
    http1::Fault,
    last_look::at_most,
    retry_budget::ExtraTries,
    route_breaker::{RouteBreaker, RouteState},
    switches::{MOST_SWITCHES, Switch},
};
use self::{
    attempt::Timers,
    balance::{Lot, Set},
    between::Between,
    breaker::{Breaker, Change, Switched},
    connection::{Connection, Idle},
    endpoint::{Chosen, Endpoints},
    request_body::{Outgoing, Progress, RequestBody},
    retry_budget::RetryBudget,
    route_breaker::with_cause,
    switches::Switches,
    tries::Resend,
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

/// One thread's connections to one app. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Rc<Inner>);

struct Inner {
    upstream: Arc<Upstream>,
    idle: Idle,
    timers: Timers,
    lot: Lot,
    budget: RefCell<RetryBudget>,
    /// Which endpoint is next by way of an egress proxy.
    turn: Cell<usize>,
}

/// For whom the app is asked, and how long its answer may take.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub route: &'a Arc<RouteBreaker>,
    pub timeout: Duration,
}

/// An answer read whole.
#[derive(Clone, Debug)]
pub struct WholeAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Up to the limit given.
    pub body: Bytes,
    /// There was more than the limit.
    pub truncated: bool,
}

/// What the app switched its connection to (101): bytes both ways from here on.
pub struct Tunnel {
    pub stream: Stream,
    /// What came together with the head of the answer.
    pub first: Bytes,
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

impl Connections {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let idle = Idle::new(upstream.endpoints.len());
        let budget = RetryBudget::new(upstream.config.retry_budget.clone(), Instant::now());
        let budget = RefCell::new(budget);
        let (lot, timers, turn) = (Lot::by_chance(), Timers::default(), Cell::new(0));
        Self(Rc::new(Inner { upstream, idle, timers, lot, budget, turn }))
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.0.upstream
    }

    fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// Closes connections that were idle for too long.
    pub fn reap(&self) {
        self.0.idle.reap(self.0.upstream.config.connections.idle_time);
    }

    /// One exchange under the deadline, admitted by the breaker and told to it. Dropped, it leaves `sent_unknown`.
    pub async fn exchange(
        &self,
        request: &mut Outgoing,
        progress: &Rc<Progress>,
        asking: Asking<'_>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        self.exchange_as(request, progress, asking, Resend::Idempotent).await
    }

    async fn exchange_as(
        &self,
        request: &mut Outgoing,
        progress: &Progress,
        asking: Asking<'_>,
        resend: Resend,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let mut verdict = attempt::Verdict::admitted((&*self.0.upstream, &**asking.route))?;
        let exchange = pin!(self.send(request, progress, resend));
        let result = attempt::within(exchange, progress, asking.timeout, self).await;
        verdict.tell(&result, progress);
        result
    }

    /// The same, with a handle that can wait on for a late answer. The request is made once the breaker admits it.
    pub fn attempt(
        &self,
        request: impl FnOnce() -> Request<RequestBody>,
        progress: Rc<Progress>,
        asking: Asking<'_>,
    ) -> Result<Attempt, UpstreamError> {
        Attempt::start(self.clone(), request, progress, asking)
    }

    /// An exchange that may end in another protocol: the answer, and the tunnel if it is a 101.
    pub async fn upgrade(
        &self,
        request: Request<RequestBody>,
        asking: Asking<'_>,
    ) -> Result<(Response<AnswerBody>, Option<Tunnel>), UpstreamError> {
        let mut verdict = attempt::Verdict::admitted((&*self.0.upstream, &**asking.route))?;
        let progress = Rc::new(Progress::default());
        progress.set_whole();
        let mut request = Some(request);
        let sent = pin!(self.send_parts(&mut request, &progress, Resend::Never));
        let result = attempt::within(sent, &progress, asking.timeout, self).await;
        verdict.tell_status(result.as_ref().map(|(response, _)| response.status()), &progress);
        let (response, connection) = result?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok((self.with_body(response, connection), None));
        }
        let (stream, first) = connection.into_tunnel();
        Ok((response.map(|()| AnswerBody::none()), Some(Tunnel { stream, first })))
    }

    /// One exchange with a request and an answer that are whole (replays, health questions).
    pub async fn exchange_whole(
        &self,
        request: Request<WholeBody>,
        asking: Asking<'_>,
        answer_limit: usize,
    ) -> Result<WholeAnswer, UpstreamError> {
        let progress = Rc::new(Progress::default());
        progress.set_whole();
        let request = request.map(RequestBody::from);
        let mut request = Some(request);
        let answer = self.exchange_as(&mut request, &progress, asking, Resend::Never).await?;
        self.read_whole(answer, answer_limit).await
    }

    async fn read_whole(
        &self,
        answer: Response<AnswerBody>,
        limit: usize,
    ) -> Result<WholeAnswer, UpstreamError> {
        let (parts, mut body) = answer.into_parts();
        let mut whole = WholeAnswer {
            status: parts.status,
            headers: parts.headers,
            body: Bytes::new(),
            truncated: false,
        };
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|fault| UpstreamError::Reset {
                endpoint: self.0.upstream.name.to_string(),
                cause: fault.to_string(),
                sent: true,
            })?;
            if let Some(data) = frame.data_ref() {
                let room = limit - bytes.len();
                bytes.extend_from_slice(&data[..data.len().min(room)]);
                whole.truncated |= data.len() > room;
                if whole.truncated {
                    break;
                }
            }
        }
        whole.body = bytes.freeze();
        Ok(whole)
    }

    /// Sends to the endpoints in turn until one has taken the request. No deadline for the answer here.
    async fn send(
        &self,
        request: &mut Outgoing,
        progress: &Progress,
        resend: Resend,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let (response, connection) = self.send_parts(request, progress, resend).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let cause = "it switched protocols though nobody asked".to_owned();
            return Err(UpstreamError::Invalid {
                endpoint: self.0.upstream.name.to_string(),
                cause,
            });
        }
        Ok(self.with_body(response, connection))
    }

    /// Where the next try goes; none when all endpoints were tried.
    fn choose(&self, tried: &Set) -> Option<Chosen> {
        let upstream = &self.0.upstream;
        upstream.endpoints.choose(&upstream.config, tried, &self.0.lot)
    }

    /// A connection that was kept, is still open and still leads to the endpoint.
    fn take_kept(&self, endpoint: usize) -> Option<Connection> {
        let upstream = &self.0.upstream;
        let idle_time = upstream.config.connections.idle_time;
        loop {
            let mut kept = self.0.idle.take(endpoint, idle_time)?;
            if kept.leads_to(&upstream.endpoints.get(endpoint).addresses) {
                return Some(kept);
            }
        }
    }

    /// Sends on one connection. After an error the request is there again, if it can be sent once more.
    async fn send_on(
        &self,
        mut connection: Connection,
        request: &mut Outgoing,
        progress: &Progress,
    ) -> Result<(Response<()>, Connection), UpstreamError> {
        progress.set_connected();
        match connection.send(request).await {
            Ok(response) => Ok((response, connection)),
            Err(fault) => {
                if progress.fault().is_some() {
                    *request = None;
                }
                let endpoint =
                    self.0.upstream.endpoints.get(connection.endpoint()).authority.clone();
                let sent = connection.written() > 0;
                Err(UpstreamError::from_exchange(endpoint, &fault, sent, progress))
            }
        }
    }

    fn with_body(&self, response: Response<()>, connection: Connection) -> Response<AnswerBody> {
        let idle = self.0.upstream.config.body_idle;
        response.map(|()| AnswerBody::new(connection, self, idle))
    }

    fn put_back(&self, connection: Connection) {
        self.0.idle.put(connection, self.0.upstream.config.connections.idle);
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connections").field(&self.0.upstream.name).finish()
    }
}
