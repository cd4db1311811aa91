//! How a request comes to a connection: a kept one, a stream of a shared one, a fresh one, or the next that is free where
//! there may be no more.
//!
//! A connection that was idle for a while may have been cut on the way without a word (firewalls forget). What may not be
//! sent twice does not go on one; what may be goes, and if nothing comes back for as long as a connection may take, it
//! goes once more on a fresh one.

use std::{pin::pin, rc::Rc};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Request, Response};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Connections, UpstreamError,
    connection::Connection,
    http2::{self, Link},
    open::{For, Opened, open},
    places::Place,
    pool::{Next, Opening, Wanted},
    request_body::{Outgoing, Progress, RequestBody},
};
use crate::store::Certainty;

impl Connections {
    /// A connection that was kept, for a request that may not be sent twice.
    pub(super) fn take_trusted(&self, endpoint: usize) -> Option<Connection> {
        self.take_kept(endpoint, self.upstream().config.connections.trusted())
    }

    /// One that was kept and is older than that, for a request that may be.
    pub(super) fn take_doubtful(&self, endpoint: usize) -> Option<Connection> {
        self.take_kept(endpoint, self.upstream().config.connections.usable())
    }

    fn take_kept(&self, endpoint: usize, within: std::time::Duration) -> Option<Connection> {
        let to = self.0.pool.to(endpoint);
        if to.may_be_http2() || to.places.is_crowded() {
            return None;
        }
        to.take_idle(within, &self.upstream().endpoints.get(endpoint).addresses)
    }

    /// Whatever there is first. Waits where there may be no more.
    pub(super) async fn connect(
        &self,
        endpoint: usize,
        wanted: Wanted,
    ) -> Result<Connection, UpstreamError> {
        let upstream = self.upstream();
        let (to, target) = (self.0.pool.to(endpoint), upstream.endpoints.get(endpoint));
        let config = &upstream.config.connections;
        let deadline = Instant::now() + upstream.config.connect_timeout;
        to.places.ask();
        let failures = to.failures();
        let mut waiting = None;
        let connection = loop {
            match to.next(wanted, waiting.is_some(), config, &target.addresses) {
                Next::Idle(connection) => break connection,
                Next::On(link) => break self.stream_on(&link, endpoint),
                Next::Ask(links) => {
                    if let Some(link) = self.first_there(&links).await {
                        break self.stream_on(&link, endpoint);
                    }
                    if Instant::now() < deadline {
                        continue;
                    }
                    return Err(self.none_in_time(endpoint));
                }
                Next::Open(place, opening) => {
                    // However long it was waited for, the app has its whole time.
                    let deadline = Instant::now() + upstream.config.connect_timeout;
                    let one = self.open_one(endpoint, wanted.http1, place, opening, deadline);
                    break match one.await? {
                        Opened::Http1(connection) => connection,
                        Opened::Http2(link) => self.stream_on(&link, endpoint),
                    };
                }
                Next::Wait => {}
            }
            if waiting.is_none() {
                let line = to.places.line_up();
                waiting = Some(line.ok_or_else(|| self.crowded(endpoint, "too many wait"))?);
            }
            if let Some(waiting) = &waiting
                && timeout_at(deadline, waiting.told()).await.is_err()
            {
                return Err(self.none_in_time(endpoint));
            }
            if to.failures() != failures {
                return Err(to.failure(&target.authority));
            }
        };
        if let Some(waiting) = waiting {
            waiting.served(to.has_room());
        }
        Ok(connection)
    }

    /// The first that answers and has room. Those that do not answer are given up.
    async fn first_there(&self, links: &[Rc<Link>]) -> Option<Rc<Link>> {
        let asking = links.iter().map(|link| async {
            let is_there = link.is_there(self.patience()).await;
            (is_there && link.is_open() && link.has_room()).then(|| Rc::clone(link))
        });
        let mut asking: FuturesUnordered<_> = asking.collect();
        while let Some(there) = asking.next().await {
            if there.is_some() {
                return there;
            }
        }
        None
    }

    /// How long a connection that was quiet is given to say that it is there: time to open another one is left.
    pub(super) fn patience(&self) -> Instant {
        let config = &self.upstream().config;
        Instant::now() + config.connections.ping_timeout.min(config.connect_timeout / 2)
    }

    /// Opens one more; for others, too, if it can be shared.
    pub(super) async fn open_one(
        &self,
        endpoint: usize,
        http1: bool,
        place: Option<Place>,
        opening: Option<Opening<'_>>,
        deadline: Instant,
    ) -> Result<Opened, UpstreamError> {
        let to = self.0.pool.to(endpoint);
        let wanted = For { endpoint, http1, places: &to.places, place };
        match open(self.upstream(), wanted, deadline).await {
            Ok(opened) => {
                match &opened {
                    Opened::Http1(_) if http1 => {}
                    Opened::Http1(_) => to.is_http1(),
                    Opened::Http2(link) => to.add_link(Rc::clone(link)),
                }
                Ok(opened)
            }
            Err(error) => {
                if let Some(opening) = opening {
                    opening.fails(&error);
                }
                Err(error)
            }
        }
    }

    pub(super) fn stream_on(&self, link: &Rc<Link>, endpoint: usize) -> Connection {
        let target = self.upstream().endpoints.get(endpoint);
        let exchange = http2::Exchange::on(link, target.over_tls, &target.authority);
        Connection::on(link, endpoint, exchange)
    }

    /// One that is being opened has begun later, and has time left: that says nothing of the app.
    fn none_in_time(&self, endpoint: usize) -> UpstreamError {
        let limit = self.upstream().config.connect_timeout;
        self.crowded(endpoint, &format!("none was within {limit:?}"))
    }

    fn crowded(&self, endpoint: usize, cause: &str) -> UpstreamError {
        let authority = &self.upstream().endpoints.get(endpoint).authority;
        UpstreamError::Crowded { endpoint: authority.clone(), cause: cause.to_owned() }
    }

    /// Sends what may be sent twice on a connection that was idle for so long that it may be cut. Without an answer and
    /// without an error the request is there once more: for a fresh connection.
    pub(super) async fn send_doubtful(
        &self,
        kept: Connection,
        request: &mut Outgoing,
        progress: &Progress,
    ) -> Result<Option<(Response<()>, Connection)>, UpstreamError> {
        let (endpoint, spare) = (kept.endpoint(), request.as_ref().and_then(once_more));
        {
            let mut sent = pin!(self.send_on(kept, request, progress));
            let limit = self.upstream().config.connect_timeout;
            match timeout(limit, sent.as_mut()).await {
                Ok(sent) => return sent.map(Some),
                Err(_) if spare.is_some() && self.may_try_once_more() => {}
                Err(_) => return sent.await.map(Some),
            }
        }
        *request = spare;
        let config = &self.upstream().config.connections;
        self.0.pool.to(endpoint).forget_idle(config.trusted());
        Ok(None)
    }

    fn may_try_once_more(&self) -> bool {
        let allowed = self.0.budget.borrow_mut().spend(Instant::now());
        self.upstream().extra_tries.count(Certainty::SentUnknown, allowed);
        allowed
    }
}

fn once_more(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut again = Request::new(request.body().again()?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}
