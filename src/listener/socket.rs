//! The client's socket: watched for ambiguous framing, bounded in how long it may take nothing of its answer.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::client_body::is_too_slow;

use super::{framing::FramingWatch, presence::Presence};

/// See the module.
pub(super) struct Watched {
    stream: Presence,
    watch: FramingWatch,
    write_idle: Duration,
    /// Made when a write had to wait for the first time; counts while `stalled`.
    timer: Option<Pin<Box<Sleep>>>,
    stalled: Option<Instant>,
    /// Since the first stall: how long writes had to wait, and what was taken.
    waited: Duration,
    taken: u64,
    min_rate: u64,
    /// Bytes that were those of HTTP/2's preface so far.
    preface: usize,
    spoke: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(
        stream: Presence,
        watch: FramingWatch,
        write_idle: Duration,
        min_rate: u64,
    ) -> Self {
        Self {
            stream,
            watch,
            write_idle,
            timer: None,
            stalled: None,
            waited: Duration::ZERO,
            taken: 0,
            min_rate,
            preface: 0,
            spoke: Arc::default(),
        }
    }

    /// Whether enough came to tell HTTP/1 from HTTP/2.
    pub(super) fn spoke(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.spoke)
    }

    /// Whether HTTP/1 is told from HTTP/2 by now.
    fn listen(&mut self, read: &[u8]) {
        let expected = &PREFACE[self.preface..];
        let alike = read.iter().zip(expected).take_while(|(one, other)| one == other).count();
        self.preface += alike;
        if self.preface == PREFACE.len() || alike < read.len() {
            self.preface = PREFACE.len();
            self.spoke.store(true, Ordering::Relaxed);
        }
    }

    /// A write that waits for too long is an error: the client takes nothing, or next to nothing.
    fn bounded(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &poll {
            if self.timer.is_some() {
                self.taken += written.as_ref().map_or(0, |written| *written as u64);
                self.waited += self.stalled.take().map_or(Duration::ZERO, |since| since.elapsed());
                if is_too_slow(self.taken, self.waited, self.min_rate) {
                    return Poll::Ready(Err(too_slow()));
                }
            }
            return poll;
        }
        let limit = self.write_idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if self.stalled.is_none() {
            let now = Instant::now();
            self.stalled = Some(now);
            timer.as_mut().reset(now + limit);
        }
        timer.as_mut().poll(cx).map(|()| Err(too_slow()))
    }
}

/// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client takes its answer too slowly")
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = self.stream.poll_read(cx, buf);
        let read = &buf.filled()[before..];
        self.watch.observe(read);
        let read_now = read.len();
        if self.preface < PREFACE.len() && read_now > 0 {
            let read = &buf.filled()[before..];
            self.listen(read);
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = self.stream.poll_write(cx, buf.len(), |stream| stream.try_write(buf));
        self.bounded(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let poll = self.stream.poll_write(cx, length, |stream| stream.try_write_vectored(bufs));
        self.bounded(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the kernel's.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown())
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
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that may wait in the kernel's queue.
const BACKLOG: i32 = 4096;
