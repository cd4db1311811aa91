//! A socket whose small sends wait for the end of the turn. What it was given and the kernel has not taken yet is known to
//! the byte: nobody has to believe that a request left when it did not.

use std::{
    fmt,
    io::{self, IoSlice},
    net::{self, Shutdown},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    Leaves,
    late::{LateSocket, Shows},
};

/// See the module. It has one reader and one writer, in one task.
pub struct Gathered(Arc<Inner>);

struct Inner {
    socket: LateSocket,
    out: Mutex<Out>,
    /// Bytes of `out` that have not left.
    unsent: AtomicUsize,
    /// The kernel did not take all at the end of a turn: the writer has to wait for it, or to hear of its error.
    behind: AtomicBool,
}

#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    sent: usize,
    /// The end of the turn will see to it.
    listed: bool,
    error: Option<io::Error>,
    /// Whom to tell that it is behind.
    writer: Option<Waker>,
}

/// Sends up to this are gathered: to copy them is cheaper than to wake somebody.
pub(super) const SMALL: usize = 8 << 10;
/// Most of one socket at a time.
const MOST: usize = 16 << 10;

/// One that the runtime knows.
impl From<TcpStream> for Gathered {
    fn from(stream: TcpStream) -> Self {
        Self::new(stream.into())
    }
}

/// One that the runtime hears of when somebody has to wait for it. It must not block.
impl From<net::TcpStream> for Gathered {
    fn from(stream: net::TcpStream) -> Self {
        Self::new(stream.into())
    }
}

impl Gathered {
    fn new(socket: LateSocket) -> Self {
        Self(Arc::new(Inner {
            socket,
            out: Mutex::default(),
            unsent: AtomicUsize::new(0),
            behind: AtomicBool::new(false),
        }))
    }

    /// To wait for it when nobody reads; from now on the runtime knows it.
    pub fn stream(&self) -> io::Result<&TcpStream> {
        self.0.socket.waited_for(Waker::noop())
    }

    /// None while the runtime has not heard of it.
    pub fn heard_of(&self) -> Option<&TcpStream> {
        self.0.socket.heard_of()
    }

    /// What the kernel knows of the other side: for as long as the runtime has heard nothing.
    pub fn asked(&self) -> Shows {
        self.0.socket.asked()
    }

    /// Bytes that were given to it and have not left.
    pub fn unsent(&self) -> usize {
        self.0.unsent.load(Ordering::Relaxed)
    }

    /// It could not send all that it had at the end of a turn.
    pub fn is_behind(&self) -> bool {
        self.0.behind.load(Ordering::Relaxed)
    }

    /// What has not left will not leave.
    pub fn discard(&self) {
        if self.unsent() > 0 {
            self.0.emptied(&mut self.0.out());
        }
    }

    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        super::look();
        let socket = &self.0.socket;
        let stream = match socket.registered() {
            Some(stream) => stream,
            None => match ready!(socket.poll_first_read(cx, buf)) {
                Some(read) => {
                    super::time_passes();
                    return Poll::Ready(read);
                }
                None => socket.waited_for(cx.waker())?,
            },
        };
        let room = buf.remaining();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let read = io(stream, Interest::READABLE, room, || stream.try_read_buf(buf));
            if let Some(read) = read {
                super::time_passes();
                return Poll::Ready(read.map(drop));
            }
        }
    }

    /// Ready as soon as the pieces are taken over, or some of them have left.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if self.is_behind() {
            ready!(self.poll_all_left(cx))?;
        }
        if length <= SMALL && super::has_end() {
            if self.unsent() + length > MOST {
                ready!(self.poll_all_left(cx))?;
            }
            self.gather(cx, pieces, length);
            return Poll::Ready(Ok(length));
        }
        // First what was said before.
        ready!(self.poll_all_left(cx))?;
        let socket = &self.0.socket;
        if socket.registered().is_none()
            && let Some(written) = socket.send_at_once(pieces)
        {
            return Poll::Ready(written);
        }
        let stream = socket.waited_for(cx.waker())?;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let written = io(stream, Interest::WRITABLE, length, || match pieces {
                [only] => stream.try_write(only),
                pieces => stream.try_write_vectored(pieces),
            });
            if let Some(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    /// Ready unless it is behind: what is gathered leaves by itself.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_behind() { self.poll_all_left(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Ready when the kernel has all of it.
    pub fn poll_all_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent() == 0 && !self.is_behind() {
            return Poll::Ready(Ok(()));
        }
        let mut out = self.0.out();
        if let Some(error) = &out.error {
            return Poll::Ready(Err(error.kind().into()));
        }
        while self.unsent() > 0 {
            match self.0.send(&mut out) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => ready!(self.0.socket.waited_for(cx.waker())?.poll_write_ready(cx))?,
            }
        }
        self.0.behind.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Says all: the other direction stays open.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_all_left(cx))?;
        Poll::Ready(self.0.socket.shutdown(Shutdown::Write))
    }

    fn gather(&self, cx: &Context<'_>, pieces: &[IoSlice<'_>], length: usize) {
        let mut out = self.0.out();
        if out.bytes.capacity() == 0 {
            out.bytes = super::take_room();
        }
        pieces.iter().for_each(|piece| out.bytes.extend_from_slice(piece));
        if out.writer.is_none() {
            out.writer = Some(cx.waker().clone());
        }
        self.0.unsent.store(self.unsent() + length, Ordering::Relaxed);
        let is_listed = std::mem::replace(&mut out.listed, true);
        drop(out);
        if !is_listed {
            super::wait_for_end(Arc::clone(&self.0) as Arc<dyn Leaves>);
        }
    }
}

impl Leaves for Inner {
    fn leave(&self) {
        let mut out = self.out();
        out.listed = false;
        if self.unsent.load(Ordering::Relaxed) == 0 || out.error.is_some() {
            return;
        }
        let sent = self.send(&mut out);
        if !matches!(sent, Some(Ok(()))) || self.unsent.load(Ordering::Relaxed) > 0 {
            self.behind.store(true, Ordering::Relaxed);
            out.writer.iter().for_each(Waker::wake_by_ref);
        }
    }
}

impl Inner {
    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends once. `None` when the kernel takes nothing for now. An error is remembered: the kernel tells it only once.
    fn send(&self, out: &mut Out) -> Option<io::Result<()>> {
        let rest = out.bytes.get(out.sent..).unwrap_or_default();
        let length = rest.len();
        let sent = self
            .socket
            .registered()
            .and_then(|stream| io(stream, Interest::WRITABLE, length, || stream.try_write(rest)));
        // The runtime may not have heard of it: what it does not know of a socket that is not behind, the kernel knows.
        let at_once = || {
            let is_behind = self.behind.load(Ordering::Relaxed);
            if is_behind { None } else { self.socket.send_at_once(&[IoSlice::new(rest)]) }
        };
        let sent = match sent.or_else(at_once)? {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            sent => sent,
        };
        match sent {
            Ok(sent) if sent == length => self.emptied(out),
            Ok(sent) => {
                out.sent += sent;
                self.unsent.store(length - sent, Ordering::Relaxed);
            }
            Err(error) => {
                out.error = Some(error.kind().into());
                self.behind.store(true, Ordering::Relaxed);
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    fn emptied(&self, out: &mut Out) {
        super::give_room(std::mem::take(&mut out.bytes));
        // A connection that is idle holds on to nobody.
        (out.sent, out.writer) = (0, None);
        self.unsent.store(0, Ordering::Relaxed);
    }
}

/// Reads or writes, at most `most` bytes. `None` when the kernel has nothing, or takes nothing.
fn io(
    stream: &TcpStream,
    interest: Interest,
    most: usize,
    io: impl FnOnce() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let mut done = 0;
    let tried = stream.try_io(interest, || {
        done = io()?;
        // As tokio's own: after less than asked for there is no more for now, so the next one waits for news instead
        // of asking the kernel in vain.
        let short = 0 < done && done < most;
        if short { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(done) }
    });
    match tried {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (done > 0).then_some(Ok(done)),
        tried => Some(tried),
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").field("unsent", &self.unsent()).finish_non_exhaustive()
    }
}
