//! One connection to an endpoint: opened, lent to an exchange at a time. The only place that connects to the app.
//!
//! A connection is driven by whoever waits for its answer: no task of its own, no hand-over.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{
    Stream, Upstream, UpstreamError,
    dial::{dial, is_our_own, plain},
    endpoint::Addresses,
    fault::Fault,
    http1::Exchange,
    in_flight::InFlight,
    request_body::Outgoing,
};
use crate::egress::{Permit, Through};

/// One connection to one endpoint. In a box: it changes hands with every exchange.
pub(super) struct Connection(Box<Open>);

struct Open {
    exchange: Exchange<Stream>,
    endpoint: usize,
    idle_since: Instant,
    /// Where it leads, and how often the endpoint's addresses had changed when that was known to be right.
    peer: Option<SocketAddr>,
    changes: u64,
    /// The try that it serves, while one does.
    in_flight: Option<InFlight>,
    /// The egress proxy it leads through.
    way: Option<Through>,
    /// Leave to use that proxy, as long as the present exchange lasts.
    permit: Option<Permit>,
}

impl Connection {
    /// Opens a connection to the first address of the endpoint that takes one.
    pub(super) async fn open(upstream: &Upstream, endpoint: usize) -> Result<Self, UpstreamError> {
        let target = upstream.endpoints.get(endpoint);
        let limit = upstream.config.connect_timeout;
        let deadline = Instant::now() + limit;
        let addresses =
            target.addresses.get(limit).await.map_err(|error| UpstreamError::Ourselves {
                cause: format!("cannot resolve {}: {error}", target.authority),
            })?;
        let failed = |cause: String| {
            target.addresses.doubt();
            UpstreamError::Connect { endpoint: target.authority.clone(), cause }
        };
        let changes = target.addresses.changes();
        let turn = target.opened.fetch_add(1, Ordering::Relaxed);
        let stream = match tokio::time::timeout_at(deadline, dial(&addresses, turn)).await {
            Ok(Ok(stream)) => {
                // A failure here only costs latency.
                stream.set_nodelay(true).ok();
                stream
            }
            Ok(Err(error)) if is_our_own(&error) => {
                return Err(UpstreamError::Ourselves { cause: error.to_string() });
            }
            Ok(Err(error)) => return Err(failed(plain(&error))),
            Err(_) => return Err(failed(format!("no connection within {limit:?}"))),
        };
        let peer = stream.peer_addr().ok().filter(|_| target.named);
        let stream =
            match tokio::time::timeout_at(deadline, upstream.secure(stream, endpoint)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(UpstreamError::Connect { cause, .. })) => return Err(failed(cause)),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(failed(format!("no TLS within {limit:?}"))),
            };
        Ok(Self::over(stream, endpoint, peer, changes))
    }

    fn over(stream: Stream, endpoint: usize, peer: Option<SocketAddr>, changes: u64) -> Self {
        let exchange = Exchange::new(stream);
        let idle_since = Instant::now();
        Self(Box::new(Open {
            exchange,
            endpoint,
            idle_since,
            peer,
            changes,
            in_flight: None,
            way: None,
            permit: None,
        }))
    }

    /// One by way of an egress proxy.
    pub(super) fn through(stream: Stream, endpoint: usize, way: Through) -> Self {
        let mut connection = Self::over(stream, endpoint, None, 0);
        connection.0.way = Some(way);
        connection
    }

    /// The proxy is in use until the exchange is over.
    pub(super) fn uses(&mut self, permit: Permit) {
        self.0.permit = Some(permit);
    }

    /// Whether its address is still one of the endpoint's.
    pub(super) fn leads_to(&mut self, addresses: &Addresses) -> bool {
        let changes = addresses.changes();
        if self.0.changes != changes {
            if !self.0.peer.is_some_and(|peer| addresses.has(&peer)) {
                return false;
            }
            self.0.changes = changes;
        }
        true
    }

    pub(super) fn set_in_flight(&mut self, in_flight: Option<InFlight>) {
        self.0.in_flight = in_flight;
    }

    /// The answer that it carries ended before its end.
    pub(super) fn broke_off(&mut self, cause: &str) {
        self.0.in_flight.iter_mut().for_each(|in_flight| in_flight.broke_off(cause));
    }

    /// Which endpoint it leads to.
    pub(super) fn endpoint(&self) -> usize {
        self.0.endpoint
    }

    /// Takes the request, sends it and waits for the head of its answer. After a fault it is there again, if it can be
    /// sent once more: whether it may be is not decided here.
    pub(super) async fn send(&mut self, request: &mut Outgoing) -> Result<Response<()>, Fault> {
        let exchange = &mut self.0.exchange;
        match request.take() {
            Some(request) => exchange.begin(request),
            None => return Err(Fault::Invalid("there is nothing to send")),
        }
        let answer = poll_fn(|cx| exchange.poll_answer(cx)).await;
        if answer.is_err() {
            *request = exchange.take_again();
        }
        answer
    }

    /// Bytes of the present request that left.
    pub(super) fn written(&self) -> u64 {
        self.0.exchange.written()
    }

    /// The next piece of the answer's body; sends on what is left of the request.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.exchange.poll_body(cx)
    }

    /// The whole body, if it came with the head.
    pub(super) fn take_body_here(&mut self) -> Option<Bytes> {
        self.0.exchange.take_body_here()
    }

    pub(super) fn is_answer_over(&self) -> bool {
        self.0.exchange.is_answer_over()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.0.exchange.size_hint()
    }

    /// What follows a 101: the stream, and the bytes that came with the head.
    pub(super) fn into_tunnel(self) -> (Stream, Bytes) {
        self.0.exchange.into_tunnel()
    }

    /// For how long nobody has used it.
    pub(super) fn idle_for(&self) -> Duration {
        self.0.idle_since.elapsed()
    }

    /// The egress proxy it leads through.
    pub(super) fn way(&self) -> Option<Through> {
        self.0.way
    }

    /// Its exchange is over. Whether another one can follow.
    pub(super) fn rest(&mut self) -> bool {
        // Its try is over, whether the connection can be kept or not.
        self.0.in_flight = None;
        if !self.0.exchange.is_at_rest() {
            return false;
        }
        self.0.exchange.rest();
        self.0.idle_since = Instant::now();
        self.0.permit = None;
        true
    }

    /// Whether nothing has come while it was idle.
    pub(super) fn is_alive(&mut self) -> bool {
        self.0.exchange.stream().is_quiet()
    }
}
