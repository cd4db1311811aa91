//! This thread's connections to one upstream: open, keep, reuse, give up. The only place that connects out.
//!
//! A connection is driven by whoever waits for its answer: no task of its own, no hand-over.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    client::conn::http1::{self, SendRequest},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use super::{Upstream, UpstreamError, request_body::RequestBody};

/// Drives the connection; ends when the connection does.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// One connection to one endpoint.
pub(super) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    driver: Driver,
    /// It must not be polled again: an upgrade ends it together with the head of the answer.
    driven: bool,
    written: Arc<AtomicU64>,
    endpoint: usize,
    idle_since: Instant,
    /// Requests were answered on it before: it may have been closed by the app meanwhile.
    pub(super) reused: bool,
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
        let addresses = target.addresses().await.map_err(|error| UpstreamError::Ourselves {
            cause: format!("cannot resolve {}: {error}", target.authority),
        })?;
        let failed =
            |cause: String| UpstreamError::Connect { endpoint: target.authority.clone(), cause };
        let mut last = failed("the name has no address".to_owned());
        for address in addresses {
            match tokio::time::timeout(upstream.config.connect_timeout, TcpStream::connect(address))
                .await
            {
                Ok(Ok(stream)) => {
                    return Self::over(stream, endpoint)
                        .await
                        .map_err(|error| failed(error.to_string()));
                }
                Ok(Err(error)) if is_our_own(&error) => {
                    return Err(UpstreamError::Ourselves { cause: error.to_string() });
                }
                Ok(Err(error)) => last = failed(plain(&error)),
                Err(_) => {
                    last = failed(format!(
                        "no connection within {:?}",
                        upstream.config.connect_timeout
                    ))
                }
            }
        }
        Err(last)
    }

    async fn over(stream: TcpStream, endpoint: usize) -> Result<Self, hyper::Error> {
        // A failure here only costs latency.
        stream.set_nodelay(true).ok();
        let written = Arc::new(AtomicU64::new(0));
        let io = MeteredIo { inner: TokioIo::new(stream), written: Arc::clone(&written) };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(LARGEST_HEAD)
            .max_headers(MOST_HEADERS)
            .handshake(io)
            .await?;
        let driver = Box::pin(connection.with_upgrades());
        let idle_since = Instant::now();
        Ok(Self { sender, driver, driven: false, written, endpoint, idle_since, reused: false })
    }

    /// Which endpoint it leads to.
    pub(super) fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// Bytes that left so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lets the connection do what it can now. Ready when it ended.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if self.driven {
            return Poll::Ready(Ok(()));
        }
        let poll = self.driver.as_mut().poll(cx);
        self.driven = poll.is_ready();
        poll
    }

    /// What drives the connection on after an upgrade.
    pub(super) fn into_driver(mut self) -> impl Future<Output = hyper::Result<()>> {
        poll_fn(move |cx| self.poll_drive(cx))
    }

    /// Whether the app closed it while it was idle.
    async fn is_alive(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_drive(cx).is_pending())).await && self.sender.is_ready()
    }
}

impl Idle {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { endpoints: (0..endpoints).map(|_| RefCell::default()).collect() }
    }

    /// A connection that is still open, if one was kept.
    pub(super) async fn take(&self, endpoint: usize, idle_time: Duration) -> Option<Connection> {
        loop {
            let mut connection = self.endpoints[endpoint].borrow_mut().pop_back()?;
            if connection.idle_since.elapsed() < idle_time && connection.is_alive().await {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn put(&self, mut connection: Connection, at_most: usize) {
        connection.idle_since = Instant::now();
        let mut idle = self.endpoints[connection.endpoint].borrow_mut();
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
                .is_some_and(|connection| connection.idle_since.elapsed() >= idle_time)
            {
                idle.pop_front();
            }
        }
    }
}

/// Largest head of an answer, and most fields in it.
const LARGEST_HEAD: usize = 256 << 10;
const MOST_HEADERS: usize = 256;

/// Trouble of this process or machine: no evidence about the app.
fn is_our_own(error: &io::Error) -> bool {
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
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// Counts the bytes that left: whether an attempt can have reached the app is a fact, not a guess.
struct MeteredIo {
    inner: TokioIo<TcpStream>,
    written: Arc<AtomicU64>,
}

impl MeteredIo {
    fn count(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &poll {
            self.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        poll
    }
}

impl Read for MeteredIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for MeteredIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
