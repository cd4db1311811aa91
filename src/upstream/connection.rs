//! What one exchange has of the way to its endpoint: a connection of HTTP/1.1 for itself, or a stream of one that speaks
//! HTTP/2.
//!
//! It is driven by whoever waits for its answer: no task for a request, no hand-over.

use std::{
    future::poll_fn,
    net::SocketAddr,
    num::NonZeroU64,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{
    Stream, endpoint::Addresses, fault::Fault, http1, http2, in_flight::InFlight, places::Place,
    request_body::Outgoing,
};
use crate::{
    egress::{Permit, Through},
    turn,
};

/// See the module. In a box: it changes hands with every exchange.
pub(super) struct Connection(Box<Open>);

struct Open {
    exchange: Exchange,
    endpoint: usize,
    idle_since: Instant,
    /// Requests so far.
    requests: u64,
    /// Where it leads, and how often the endpoint's addresses had changed when that was known to be right.
    peer: Option<SocketAddr>,
    changes: u64,
    /// The try that it serves, while one does.
    in_flight: Option<InFlight>,
    /// The egress proxy it leads through.
    way: Option<Through>,
    /// Leave to use that proxy, as long as the present exchange lasts.
    permit: Option<Permit>,
    /// Its place among the connections of its endpoint.
    _place: Option<Place>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "it is in a box already, and one more would cost each request of HTTP/1.1 a step"
)]
enum Exchange {
    Http1(http1::Exchange<Stream>),
    Http2(Box<http2::Exchange>),
}

impl Connection {
    /// A connection of HTTP/1.1.
    pub(super) fn over(
        stream: Stream,
        endpoint: usize,
        peer: Option<SocketAddr>,
        changes: u64,
        place: Option<Place>,
    ) -> Self {
        let exchange = Exchange::Http1(http1::Exchange::new(stream.gathered()));
        Self::new(exchange, endpoint, peer, changes, place)
    }

    /// A stream of HTTP/2.
    pub(super) fn on(link: &Rc<http2::Link>, endpoint: usize, exchange: http2::Exchange) -> Self {
        let mut stream = Self::new(Exchange::Http2(Box::new(exchange)), endpoint, None, 0, None);
        stream.0.way = link.way();
        // Its own is counted already, and once more when it is sent.
        stream.0.requests = link.requests().saturating_sub(1);
        stream
    }

    fn new(
        exchange: Exchange,
        endpoint: usize,
        peer: Option<SocketAddr>,
        changes: u64,
        place: Option<Place>,
    ) -> Self {
        Self(Box::new(Open {
            exchange,
            endpoint,
            idle_since: Instant::now(),
            requests: 0,
            peer,
            changes,
            in_flight: None,
            way: None,
            permit: None,
            _place: place,
        }))
    }

    /// One by way of an egress proxy.
    pub(super) fn through(stream: Stream, endpoint: usize, way: Through) -> Self {
        let mut connection = Self::over(stream, endpoint, None, 0, None);
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
        let Some(taken) = request.take() else {
            return Err(Fault::Invalid("there is nothing to send"));
        };
        self.0.requests += 1;
        match &mut self.0.exchange {
            Exchange::Http1(exchange) => {
                exchange.begin(taken);
                let answer = poll_fn(|cx| exchange.poll_answer(cx)).await;
                if answer.is_err() {
                    *request = exchange.take_again();
                }
                answer
            }
            Exchange::Http2(exchange) => {
                exchange.begin(taken);
                let answer = poll_fn(|cx| exchange.poll_answer(cx)).await;
                if answer.is_err() {
                    *request = exchange.take_again();
                }
                answer
            }
        }
    }

    /// Whether anything of the present request can have reached the app.
    pub(super) fn may_have_left(&self) -> bool {
        match &self.0.exchange {
            Exchange::Http1(exchange) => exchange.written() > 0,
            Exchange::Http2(exchange) => exchange.may_have_left(),
        }
    }

    /// Others may share it.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.0.exchange, Exchange::Http2(_))
    }

    /// It has served others before.
    pub(super) fn was_used(&self) -> bool {
        self.0.requests > 0
    }

    /// The next piece of the answer's body; sends on what is left of the request.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.0.exchange {
            Exchange::Http1(exchange) => exchange.poll_body(cx),
            Exchange::Http2(exchange) => exchange.poll_body(cx),
        }
    }

    /// The whole body, if it came with the head.
    pub(super) fn take_body_here(&mut self) -> Option<Bytes> {
        match &mut self.0.exchange {
            Exchange::Http1(exchange) => exchange.take_body_here(),
            Exchange::Http2(exchange) => exchange.is_answer_over().then(Bytes::new),
        }
    }

    pub(super) fn is_answer_over(&self) -> bool {
        match &self.0.exchange {
            Exchange::Http1(exchange) => exchange.is_answer_over(),
            Exchange::Http2(exchange) => exchange.is_answer_over(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.0.exchange {
            Exchange::Http1(exchange) => exchange.size_hint(),
            Exchange::Http2(exchange) => exchange.size_hint(),
        }
    }

    /// What follows a 101: the stream, and the bytes that came with the head. HTTP/2 has no such thing.
    pub(super) fn into_tunnel(self) -> Option<(Stream, Bytes)> {
        match self.0.exchange {
            Exchange::Http1(exchange) => Some(exchange.into_tunnel()),
            Exchange::Http2(_) => None,
        }
    }

    /// For how long nobody has used it.
    pub(super) fn idle_for(&self) -> Duration {
        turn::now().saturating_duration_since(self.0.idle_since)
    }

    /// The egress proxy it leads through.
    pub(super) fn way(&self) -> Option<Through> {
        self.0.way
    }

    /// Its exchange is over. Whether another one can follow.
    pub(super) fn rest(&mut self, most_requests: Option<NonZeroU64>) -> bool {
        // Its try is over, whether the connection can be kept or not.
        self.0.in_flight = None;
        let is_used_up = most_requests.is_some_and(|most| self.0.requests >= most.get());
        match &mut self.0.exchange {
            Exchange::Http1(exchange) if !is_used_up && exchange.is_at_rest() => exchange.rest(),
            // A stream is for one exchange; others begin theirs.
            Exchange::Http1(_) | Exchange::Http2(_) => return false,
        }
        self.0.idle_since = turn::now();
        self.0.permit = None;
        true
    }

    /// Whether nothing has come while it was idle.
    pub(super) fn is_alive(&mut self) -> bool {
        match &mut self.0.exchange {
            Exchange::Http1(exchange) => exchange.stream().is_quiet(),
            Exchange::Http2(_) => false,
        }
    }
}
