//! A socket that the runtime knows no better than it has to. One whose request is there when it is accepted, and whose
//! answer the kernel takes at once, is never registered. One whose first bytes are waited for is registered for these:
//! an event that says that it can be written to would wake the worker for nothing. Whoever waits for more waits as usual.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{self, Shutdown},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf, unix::AsyncFd},
    net::TcpStream,
};

/// See the module.
pub(super) struct LateSocket {
    registered: OnceLock<TcpStream>,
    /// Until then. Empty too where it could not be registered.
    early: Mutex<Option<Early>>,
}

/// Before its second read.
enum Early {
    Bare(net::TcpStream),
    /// Its first bytes are waited for.
    Awaited(AsyncFd<net::TcpStream>),
    Read(net::TcpStream),
}

/// What the other side's end of a connection looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shows {
    /// It says no more.
    pub end: bool,
    /// It was reset.
    pub error: bool,
}

impl From<TcpStream> for LateSocket {
    fn from(stream: TcpStream) -> Self {
        Self { registered: OnceLock::from(stream), early: Mutex::default() }
    }
}

/// It must not block.
impl From<net::TcpStream> for LateSocket {
    fn from(stream: net::TcpStream) -> Self {
        Self { registered: OnceLock::new(), early: Mutex::new(Some(Early::Bare(stream))) }
    }
}

impl LateSocket {
    /// None while the runtime does not know it, or knows it for its first bytes only.
    #[inline]
    pub(super) fn registered(&self) -> Option<&TcpStream> {
        self.registered.get()
    }

    /// Registers it if need be, for whoever has to wait. Where its first bytes are waited for, whoever does that is woken,
    /// and waits anew: it is the same task.
    pub(super) fn waited_for(&self, task: &Waker) -> io::Result<&TcpStream> {
        if let Some(stream) = self.registered.get() {
            return Ok(stream);
        }
        let mut early = self.early();
        if let Some(early) = early.take() {
            if matches!(early, Early::Awaited(_)) {
                task.wake_by_ref();
            }
            // Under the lock: whoever finds it empty finds the other one filled.
            self.registered.set(TcpStream::from_std(early.into_stream())?).ok();
        }
        self.registered.get().ok_or_else(gone)
    }

    /// Its first bytes. None: they were read, and others are to be waited for.
    pub(super) fn poll_first_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Option<io::Result<()>>> {
        if !CAN_BE_ASKED {
            return Poll::Ready(None);
        }
        let mut early = self.early();
        let awaited = match early.take() {
            Some(Early::Bare(stream)) => {
                if super::may_have_spoken()
                    && let Some(read) = read_at_once(&stream, buf)
                {
                    super::has_spoken();
                    *early = Some(Early::Read(stream));
                    return Poll::Ready(Some(read));
                }
                match awaited(stream) {
                    Ok(awaited) => awaited,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            Some(Early::Awaited(awaited)) => awaited,
            read => {
                *early = read;
                return Poll::Ready(None);
            }
        };
        let read = poll_awaited(&awaited, cx, buf);
        *early = Some(match read {
            Poll::Ready(_) => Early::Read(awaited.into_inner()),
            Poll::Pending => Early::Awaited(awaited),
        });
        read.map(Some)
    }

    /// Sends once, whatever the runtime has heard. None: it has to be waited for.
    pub(super) fn send_at_once(&self, pieces: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        let send = |socket: SockRef<'_>| match pieces {
            [only] => socket.send(only),
            pieces => socket.send_vectored(pieces),
        };
        match self.with(send).unwrap_or_else(|| Err(gone())) {
            Ok(sent) => Some(Ok(sent)),
            Err(error) => unless_it_waits(error).map(Err),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.with(|socket| socket.shutdown(how)).unwrap_or_else(|| Err(gone()))
    }

    /// None where the runtime has heard nothing of it yet. Of one that can be written to it has heard something.
    pub(super) fn heard_of(&self) -> Option<&TcpStream> {
        self.registered().filter(|stream| stream.try_io(Interest::WRITABLE, || Ok(())).is_ok())
    }

    /// What the kernel knows, whether or not the runtime has heard of it.
    #[cfg(target_os = "linux")]
    pub(super) fn asked(&self) -> Shows {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let shown = self.with(|socket| {
            let mut about = [PollFd::new(&*socket, PollFlags::RDHUP)];
            poll(&mut about, Some(&at_once)).map(|_| about[0].revents())
        });
        let Some(Ok(shown)) = shown else { return Shows::default() };
        Shows {
            end: shown.intersects(PollFlags::RDHUP | PollFlags::HUP),
            error: shown.contains(PollFlags::ERR),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn asked(&self) -> Shows {
        Shows::default()
    }

    fn with<R>(&self, look: impl FnOnce(SockRef<'_>) -> R) -> Option<R> {
        if let Some(stream) = self.registered() {
            return Some(look(stream.into()));
        }
        let early = self.early();
        match early.as_ref() {
            Some(early) => Some(look(early.stream().into())),
            None => self.registered().map(|stream| look(stream.into())),
        }
    }

    fn early(&self) -> MutexGuard<'_, Option<Early>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Early {
    fn stream(&self) -> &net::TcpStream {
        match self {
            Self::Bare(stream) | Self::Read(stream) => stream,
            Self::Awaited(awaited) => awaited.get_ref(),
        }
    }

    fn into_stream(self) -> net::TcpStream {
        match self {
            Self::Bare(stream) | Self::Read(stream) => stream,
            Self::Awaited(awaited) => awaited.into_inner(),
        }
    }
}

/// Registers it for what it says, and for nothing else.
#[expect(
    deprecated,
    reason = "its successor is `unsafe`, for types that name a descriptor which is not theirs: a stream of std owns its own"
)]
fn awaited(stream: net::TcpStream) -> io::Result<AsyncFd<net::TcpStream>> {
    AsyncFd::with_interest(stream, Interest::READABLE)
}

fn poll_awaited(
    awaited: &AsyncFd<net::TcpStream>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let mut ready = ready!(awaited.poll_read_ready(cx))?;
        match read_at_once(awaited.get_ref(), buf) {
            Some(read) => return Poll::Ready(read),
            None => ready.clear_ready(),
        }
    }
}

/// None: it has to be waited for.
fn read_at_once(stream: &net::TcpStream, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
    let mut room = [MaybeUninit::uninit(); FIRST_READ];
    let room = &mut room[..FIRST_READ.min(buf.remaining())];
    match rustix::net::recv(stream, room, RecvFlags::empty()) {
        Ok(((read, _), _)) => {
            buf.put_slice(read);
            Some(Ok(()))
        }
        Err(error) => unless_it_waits(error.into()).map(Err),
    }
}

fn unless_it_waits(error: io::Error) -> Option<io::Error> {
    (error.kind() != io::ErrorKind::WouldBlock).then_some(error)
}

/// It could not be registered, and is closed.
fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// Elsewhere only the runtime can tell what is to be known of the other side.
const CAN_BE_ASKED: bool = cfg!(target_os = "linux");

/// A first request comes whole in most cases.
const FIRST_READ: usize = 4 << 10;
