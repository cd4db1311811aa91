//! This thread's connections to one upstream: open, keep, reuse, give up. The only place that connects out.
//!
//! A connection is driven by whoever waits for its answer: no task of its own, no hand-over.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::{
    Upstream, UpstreamError,
    dial::dial,
    endpoint::Addresses,
    http1::{Exchange, Fault},
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

/// What carries the bytes.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The idle connections of one thread to one upstream, per endpoint; the one used last is taken first.
#[derive(Default)]
pub(super) struct Idle {
    endpoints: Vec<RefCell<VecDeque<Connection>>>,
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

    /// Whether it was quiet while it was idle: an end, or bytes that nobody asked for, make it useless. Asks what the
    /// runtime knows already, not the kernel.
    fn is_alive(&mut self) -> bool {
        match self.0.exchange.stream() {
            Stream::Plain(stream) => {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            // What comes may be TLS's own affair (a ticket, a new key): only TLS can tell.
            Stream::Tls(stream) => {
                let mut byte = [0];
                let cx = &mut Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Idle {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { endpoints: (0..endpoints).map(|_| RefCell::default()).collect() }
    }

    /// A connection that is still open, if one was kept.
    pub(super) fn take(&self, endpoint: usize, idle_time: Duration) -> Option<Connection> {
        loop {
            let mut connection = self.endpoints[endpoint].borrow_mut().pop_back()?;
            if connection.0.idle_since.elapsed() < idle_time && connection.is_alive() {
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
        while let Some(at) = idle.iter().rposition(|connection| connection.0.way == Some(way)) {
            let mut connection = idle.remove(at)?;
            if connection.0.idle_since.elapsed() < idle_time && connection.is_alive() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, if another can follow on it.
    pub(super) fn put(&self, mut connection: Connection, at_most: usize) {
        // Its try is over, whether the connection can be kept or not.
        connection.0.in_flight = None;
        if at_most == 0 || !connection.0.exchange.is_at_rest() {
            return;
        }
        connection.0.exchange.rest();
        connection.0.idle_since = Instant::now();
        connection.0.permit = None;
        let mut idle = self.endpoints[connection.0.endpoint].borrow_mut();
        if idle.len() >= at_most {
            idle.pop_front();
        }
        idle.push_back(connection);
    }

    /// Closes what was idle for too long.
    pub(super) fn reap(&self, idle_time: Duration) {
        for endpoint in &self.endpoints {
            let mut idle = endpoint.borrow_mut();
            while idle
                .front()
                .is_some_and(|connection| connection.0.idle_since.elapsed() >= idle_time)
            {
                idle.pop_front();
            }
        }
    }
}

/// Trouble of this process or machine: no evidence about the app.
pub(super) fn is_our_own(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::ACCESS,
        Errno::PERM,
    ];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

/// The error in words, without the number the system gives it.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}
