//! The client's socket: watched for ambiguous framing, bounded in how long a head may take to come, and in how long the
//! client may take nothing of its answer.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{arrival::ClientStream, framing::FramingWatch, presence::Presence, protocols::Speaks};
use crate::{client_body::is_too_slow, time::next_moment, turn};

/// The client's connection as bytes, with a limit to how slowly it may take its answer.
pub(super) struct Socket {
    presence: Presence,
    /// While a write waits.
    write: Wait,
    /// Since the first such wait: how long they were, and what was taken.
    waited: Duration,
    taken: u64,
    min_rate: u64,
}

/// What it says, after TLS if there is any: watched for ambiguous framing.
pub(super) struct Watched {
    stream: ClientStream,
    watch: FramingWatch,
    /// What was read to learn which protocol it is, and is still to be read by it.
    first: BytesMut,
    /// While a head is waited for, or comes.
    head: Wait,
    flags: Flags,
}

/// What is known of the socket while hyper has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    handed_over: AtomicBool,
    rests: AtomicBool,
}

impl Flags {
    /// The connection speaks another protocol from now on.
    pub(super) fn hand_over(&self) {
        self.0.handed_over.store(true, Ordering::Relaxed);
    }

    fn is_handed_over(&self) -> bool {
        self.0.handed_over.load(Ordering::Relaxed)
    }

    /// The last read found that nothing is under way in either direction, and has not been for a while.
    pub(super) fn is_resting(&self) -> bool {
        self.0.rests.load(Ordering::Relaxed)
    }

    fn rest(&self, rests: bool) {
        self.0.rests.store(rests, Ordering::Relaxed);
    }
}

/// A wait that must not last longer than its limit.
struct Wait {
    limit: Duration,
    /// After so much of it, it is a long one.
    long: Duration,
    is_long: bool,
    /// Made when it is needed for the first time. Set to a later time again and again it costs the runtime nothing.
    timer: Option<Pin<Box<Sleep>>>,
    since: Option<Instant>,
}

impl Wait {
    fn new(limit: Duration) -> Self {
        Self { limit, long: limit, is_long: false, timer: None, since: None }
    }

    fn long_after(self, long: Duration) -> Self {
        Self { long: long.min(self.limit), ..self }
    }

    /// How long it lasted, if there was one.
    fn over(&mut self) -> Duration {
        self.since.take().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ready when it has lasted too long; it begins with the first of these in a row.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let begins = self.since.is_none();
        let since = *self.since.get_or_insert_with(turn::now);
        let long = self.becomes_long(since);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(long)));
        if begins {
            self.is_long = false;
            timer.as_mut().reset(long);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if self.is_long || self.long == self.limit {
                return Poll::Ready(());
            }
            self.is_long = true;
            timer.as_mut().reset(since + self.limit);
        }
        Poll::Pending
    }

    /// Where that is only a look, all connections of a thread are looked at together: each for itself would wake it.
    fn becomes_long(&self, since: Instant) -> Instant {
        let long = since + self.long;
        if self.long < self.limit {
            next_moment(long, TOGETHER).min(since + self.limit)
        } else {
            long
        }
    }

    fn is_long(&self) -> bool {
        self.is_long && self.since.is_some()
    }
}

impl Socket {
    pub(super) fn new(presence: Presence, write_idle: Duration, min_rate: u64) -> Self {
        let write = Wait::new(write_idle);
        Self { presence, write, waited: Duration::ZERO, taken: 0, min_rate }
    }

    /// It has not taken all that was said to it.
    pub(super) fn is_behind(&self) -> bool {
        self.write.since.is_some() || self.presence.is_behind()
    }

    /// A write that waits for too long is an error: the client takes nothing, or next to nothing.
    fn bounded(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(written) = &poll else {
            return self.write.poll(cx).map(|()| Err(too_slow()));
        };
        if self.write.timer.is_some() {
            self.taken += written.as_ref().map_or(0, |written| *written as u64);
            self.waited += self.write.over();
            if is_too_slow(self.taken, self.waited, self.min_rate) {
                return Poll::Ready(Err(too_slow()));
            }
        }
        poll
    }
}

impl Watched {
    pub(super) fn new(stream: ClientStream, watch: FramingWatch, head_timeout: Duration) -> Self {
        Self {
            stream,
            watch,
            first: BytesMut::new(),
            head: Wait::new(head_timeout).long_after(REST),
            flags: Flags::default(),
        }
    }

    pub(super) fn flags(&self) -> Flags {
        self.flags.clone()
    }

    /// Bytes that somebody has read and not used.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        debug_assert!(self.first.is_empty(), "what came before them was not used either");
        self.first.extend_from_slice(bytes);
    }

    /// Reads, for whoever reads next, until something has come. False at the stream's end.
    pub(super) fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.first.is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.poll_more(cx)
    }

    /// The same, besides what was read before.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_more_first(cx).map_ok(|read| read > 0)
    }

    fn poll_more_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [MaybeUninit::uninit(); FIRST_READ];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(self.poll_observed(cx, &mut buf))?;
        self.first.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Reads, for whoever reads next, until it is clear which protocol it is. At the stream's end hyper is to say what is
    /// wrong.
    pub(super) fn poll_first_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Speaks>> {
        loop {
            let begins_as = &self.first[..self.first.len().min(PREFACE.len())];
            if !PREFACE.starts_with(begins_as) {
                return Poll::Ready(Ok(Speaks::Http1));
            }
            if begins_as.len() == PREFACE.len() {
                return Poll::Ready(Ok(Speaks::Http2));
            }
            match self.poll_more_first(cx) {
                // The watch leaves HTTP/2 alone as soon as it may be that; this wait goes on until it is.
                Poll::Pending => return self.head.poll(cx).map(|()| Err(no_head())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Speaks::Http1)),
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// Reads what the watch has then seen, within the time of a head.
    fn poll_observed(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.flags.is_handed_over() {
            return poll;
        }
        if poll.is_ready() {
            if self.watch.observe(&buf.filled()[before..]) {
                self.head.since = None;
            }
            return poll;
        }
        // hyper reads while it waits for a head or a body, and at no other time.
        if !self.watch.awaits_head() {
            return Poll::Pending;
        }
        self.head.poll(cx).map(|()| Err(no_head()))
    }

    /// Nothing is under way in either direction, and has not been for a while.
    fn rests(&self) -> bool {
        self.head.is_long() && self.watch.is_between_messages() && !self.stream.is_behind()
    }
}

fn no_head() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no whole head came in time")
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client takes its answer too slowly")
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            let poll = self.poll_observed(cx, buf);
            self.flags.rest(poll.is_pending() && self.rests());
            return poll;
        }
        self.flags.rest(false);
        let fits = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(fits));
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.presence.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = self.presence.poll_write(cx, bufs);
        self.bounded(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.presence.poll_flush(cx).map_ok(|()| 0);
        self.bounded(cx, poll).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = self.presence.poll_shutdown(cx).map_ok(|()| 0);
        self.bounded(cx, poll).map_ok(drop)
    }
}

/// A listening socket; `shared` lets several of this process listen on one address.
pub(super) fn listening(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    if ACCEPTED_WITHOUT_DELAY {
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// RFC 9113 3.4: what an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A first request comes whole in most cases.
const FIRST_READ: usize = 4 << 10;

/// A connection that is quiet for so long rests: its parser and buffers are let go of until it speaks again. Short enough
/// that a burst of new connections does not have them all at once; far longer than a busy one is ever quiet.
const REST: Duration = Duration::from_millis(50);
/// And a little longer, so that many come to it at once.
const TOGETHER: Duration = Duration::from_millis(20);

/// An accepted connection has the options of its listener: one system call less for each.
pub(super) const ACCEPTED_WITHOUT_DELAY: bool = cfg!(target_os = "linux");

/// Connections that may wait in the kernel's queue.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::{super::accepting::Queue, *};

    #[tokio::test]
    async fn an_accepted_connection_says_at_once_what_there_is() {
        let listener = listening("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut queue = Queue(listener);
        let stream = loop {
            if let Some((stream, _)) = queue.next() {
                break stream;
            }
            std::thread::yield_now();
        };
        assert!(!ACCEPTED_WITHOUT_DELAY || stream.nodelay().unwrap());
    }
}
