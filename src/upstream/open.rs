//! Opens connections: dials, shakes hands, and begins the protocol that both sides speak. The only place that connects to
//! the app without a proxy. Nothing of a request has left before one is open.

use std::{rc::Rc, sync::atomic::Ordering, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Stream, Upstream, UpstreamError,
    connection::Connection,
    dial::{dial, is_our_own, plain},
    http2::{self, Link, Made, NoLink},
    places::{Place, Places},
};
use crate::egress::Through;

/// What was opened.
pub(super) enum Opened {
    /// For one exchange at a time.
    Http1(Connection),
    /// For many.
    Http2(Rc<Link>),
}

/// What a connection is opened for.
pub(super) struct For<'p> {
    pub(super) endpoint: usize,
    /// HTTP/2 is no use.
    pub(super) http1: bool,
    pub(super) places: &'p Rc<Places>,
    pub(super) place: Option<Place>,
}

/// Opens a connection to the first address of the endpoint that takes one.
pub(super) async fn open(
    upstream: &Upstream,
    wanted: For<'_>,
    deadline: Instant,
) -> Result<Opened, UpstreamError> {
    let endpoint = wanted.endpoint;
    let target = upstream.endpoints.get(endpoint);
    let limit = upstream.config.connect_timeout;
    let addresses = target.addresses.get(limit).await.map_err(|error| {
        UpstreamError::Ourselves { cause: format!("cannot resolve {}: {error}", target.authority) }
    })?;
    let failed = |cause: String| {
        target.addresses.doubt();
        UpstreamError::Connect { endpoint: target.authority.clone(), cause }
    };
    let changes = target.addresses.changes();
    let turn = target.opened.fetch_add(1, Ordering::Relaxed);
    let stream = match timeout_at(deadline, dial(&addresses, turn)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_our_own(&error) => {
            return Err(UpstreamError::Ourselves { cause: error.to_string() });
        }
        Ok(Err(error)) => return Err(failed(plain(&error))),
        Err(_) => return Err(failed(format!("no connection within {limit:?}"))),
    };
    prepare(&stream, upstream.config.connections.tcp_keepalive);
    let peer = stream.peer_addr().ok().filter(|_| target.named);
    let secured = timeout_at(deadline, upstream.secure(stream, endpoint, wanted.http1)).await;
    let (stream, is_http2) = match secured {
        Ok(Ok(secured)) => secured,
        Ok(Err(UpstreamError::Connect { cause, .. })) => return Err(failed(cause)),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(failed(format!("no TLS within {limit:?}"))),
    };
    if !is_http2 {
        let connection = Connection::over(stream, endpoint, peer, changes, wanted.place);
        return Ok(Opened::Http1(connection));
    }
    let made = Made {
        place: wanted.place,
        places: Rc::clone(wanted.places),
        most_requests: most_requests(upstream),
        peer,
        changes,
        way: None,
    };
    begin_http2(upstream, endpoint, stream, made, deadline).await.map(Opened::Http2).map_err(
        |error| match error {
            UpstreamError::Connect { cause, .. } => failed(cause),
            error => error,
        },
    )
}

/// Over a tunnel that a proxy has opened.
pub(super) async fn open_within(
    upstream: &Upstream,
    stream: Stream,
    endpoint: usize,
    places: &Rc<Places>,
    way: Through,
    deadline: Instant,
) -> Result<Rc<Link>, UpstreamError> {
    let made = Made {
        place: None,
        places: Rc::clone(places),
        most_requests: most_requests(upstream),
        peer: None,
        changes: 0,
        way: Some(way),
    };
    begin_http2(upstream, endpoint, stream, made, deadline).await
}

async fn begin_http2(
    upstream: &Upstream,
    endpoint: usize,
    stream: Stream,
    made: Made,
    deadline: Instant,
) -> Result<Rc<Link>, UpstreamError> {
    let authority = &upstream.endpoints.get(endpoint).authority;
    let config = &upstream.config;
    let cause = match timeout_at(deadline, http2::open(stream, &config.connections, made)).await {
        Ok(Ok(link)) => return Ok(link),
        Ok(Err(NoLink::Refused(refusal))) => {
            return Err(UpstreamError::Ourselves {
                cause: format!("TLS with {authority}: {refusal}"),
            });
        }
        Ok(Err(NoLink::Broken(cause))) => cause,
        Err(_) => format!("no HTTP/2 within {:?}", config.connect_timeout),
    };
    Err(UpstreamError::Connect { endpoint: authority.clone(), cause })
}

fn most_requests(upstream: &Upstream) -> Option<u64> {
    upstream.config.connections.max_requests.map(std::num::NonZero::get)
}

/// Failures here cost latency, or the news that the other end is gone; no request.
pub(super) fn prepare(stream: &TcpStream, keepalive: Duration) {
    stream.set_nodelay(true).ok();
    if !keepalive.is_zero() {
        let asking = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 4);
        SockRef::from(stream).set_tcp_keepalive(&asking).ok();
    }
}
