//! One thread's connections to one app, and the exchanges on them: under a deadline, admitted by the breakers and told to
//! them. Which connection an exchange gets is not decided here.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{
    AnswerBody, Attempt, RouteBreaker, Stream, Upstream, UpstreamError, WholeBody,
    attempt::{self, Timers},
    balance::{Lot, Set},
    connection::Connection,
    endpoint::Chosen,
    pool::Pool,
    request_body::{Outgoing, Progress, RequestBody},
    retry_budget::RetryBudget,
    tries::Resend,
};
use crate::time::next_look;

/// One thread's connections to one app. Cheap to clone.
#[derive(Clone)]
pub struct Connections(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) upstream: Arc<Upstream>,
    pub(super) pool: Pool,
    pub(super) timers: Timers,
    pub(super) lot: Lot,
    pub(super) budget: RefCell<RetryBudget>,
    /// Which endpoint is next by way of an egress proxy.
    pub(super) turn: Cell<usize>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.end(&self.upstream.endpoints);
    }
}

/// Time between two looks at connections that were idle for too long.
const REAP_EVERY: Duration = Duration::from_secs(2);

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

impl Connections {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let pool = Pool::new(&upstream.endpoints, &upstream.config);
        let budget = RetryBudget::new(upstream.config.retry_budget.clone(), Instant::now());
        let budget = RefCell::new(budget);
        let (lot, timers, turn) = (Lot::by_chance(), Timers::default(), Cell::new(0));
        Self(Rc::new(Inner { upstream, pool, timers, lot, budget, turn }))
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.0.upstream
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// Closes connections that were idle for too long.
    pub fn reap(&self) {
        let Upstream { endpoints, config, .. } = &*self.0.upstream;
        self.0.pool.reap(endpoints, &config.connections);
    }

    /// The same again and again, until dropped.
    pub(super) async fn keep_reaping(&self) {
        loop {
            next_look(REAP_EVERY).await;
            self.reap();
        }
    }

    /// One exchange under the deadline, admitted by the breaker and told to it. Dropped, it leaves `sent_unknown`.
    pub fn exchange<'a>(
        &'a self,
        request: &'a mut Outgoing,
        progress: &'a Rc<Progress>,
        asking: Asking<'a>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, UpstreamError>> + 'a {
        // No future of its own around the other: it would be moved, too.
        self.exchange_as(request, progress, asking, Resend::Idempotent)
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
        let Some((stream, first)) = connection.into_tunnel() else {
            let endpoint = self.0.upstream.name.to_string();
            let cause = "it switched protocols where it cannot".to_owned();
            return Err(UpstreamError::Invalid { endpoint, cause });
        };
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

    pub(super) async fn read_whole(
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
    pub(super) async fn send(
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
    pub(super) fn choose(&self, tried: &Set) -> Option<Chosen> {
        let upstream = &self.0.upstream;
        upstream.endpoints.choose(&upstream.config, tried, &self.0.lot)
    }

    /// Sends on one connection. After an error the request is there again, if it can be sent once more.
    pub(super) async fn send_on(
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
                let sent = connection.may_have_left();
                Err(UpstreamError::from_exchange(endpoint, &fault, sent, progress))
            }
        }
    }

    pub(super) fn with_body(
        &self,
        response: Response<()>,
        connection: Connection,
    ) -> Response<AnswerBody> {
        let idle = self.0.upstream.config.body_idle;
        response.map(|()| AnswerBody::new(connection, self, idle))
    }

    pub(super) fn put_back(&self, connection: Connection) {
        self.0.pool.to(connection.endpoint()).put(connection, &self.0.upstream.config.connections);
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connections").field(&self.0.upstream.name).finish()
    }
}
