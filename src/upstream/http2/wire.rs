//! The stream below an HTTP/2 connection, and what has gone over it: whether a byte has left since a request was handed
//! over tells whether the app can have seen it.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::tls::client::is_refusal_of_ours;

/// See the module.
pub(super) struct Wire<S> {
    stream: S,
    traffic: Rc<Traffic>,
}

/// What has gone over a wire so far.
#[derive(Debug)]
pub(super) struct Traffic {
    written: Cell<u64>,
    read: Cell<u64>,
    heard_at: Cell<Instant>,
    /// The app's word against our certificate.
    refusal: RefCell<Option<String>>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S) -> (Self, Rc<Traffic>) {
        let traffic = Rc::new(Traffic {
            written: Cell::new(0),
            read: Cell::new(0),
            heard_at: Cell::new(Instant::now()),
            refusal: RefCell::default(),
        });
        (Self { stream, traffic: Rc::clone(&traffic) }, traffic)
    }

    fn count(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let left = match &wrote {
            Poll::Ready(Ok(wrote)) => *wrote as u64,
            // Over TLS, records may have left before it failed.
            Poll::Ready(Err(_)) => 1,
            Poll::Pending => 0,
        };
        self.traffic.written.set(self.traffic.written.get() + left);
        wrote
    }
}

impl Traffic {
    /// Bytes that left.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Bytes that came.
    pub(super) fn read(&self) -> u64 {
        self.read.get()
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at.get()
    }

    pub(super) fn take_refusal(&self) -> Option<String> {
        self.refusal.take()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer)) {
            // The codec above keeps only its words.
            if is_refusal_of_ours(&error) {
                self.traffic.refusal.replace(Some(error.to_string()));
            }
            return Poll::Ready(Err(error));
        }
        let came = buffer.filled().len() - before;
        if came > 0 {
            self.traffic.read.set(self.traffic.read.get() + came as u64);
            self.traffic.heard_at.set(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
