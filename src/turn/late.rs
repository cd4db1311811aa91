//! A socket that the runtime hears of when somebody has to wait for it, and not before: one whose request is there when
//! it is accepted, and whose answer the kernel takes at once, costs no registration and no end of one.
//!
//! Until then the kernel is asked directly, and only so much: whoever reads a second time waits like everybody.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{self, Shutdown},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

/// See the module.
pub(super) struct LateSocket {
    registered: OnceLock<TcpStream>,
    /// Until then. Empty too where it could not be registered.
    bare: Mutex<Option<Bare>>,
}

struct Bare {
    stream: net::TcpStream,
    /// It was read from.
    is_read: bool,
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
        Self { registered: OnceLock::from(stream), bare: Mutex::default() }
    }
}

/// It must not block.
impl From<net::TcpStream> for LateSocket {
    fn from(stream: net::TcpStream) -> Self {
        let bare = Bare { stream, is_read: false };
        Self { registered: OnceLock::new(), bare: Mutex::new(Some(bare)) }
    }
}

impl LateSocket {
    /// None while the runtime has not heard of it.
    #[inline]
    pub(super) fn registered(&self) -> Option<&TcpStream> {
        self.registered.get()
    }

    /// Registers it if need be, for whoever has to wait.
    pub(super) fn waited_for(&self) -> io::Result<&TcpStream> {
        if let Some(stream) = self.registered.get() {
            return Ok(stream);
        }
        let mut bare = self.bare();
        if let Some(Bare { stream, .. }) = bare.take() {
            // Under the lock: whoever finds it empty finds the other one filled.
            self.registered.set(TcpStream::from_std(stream)?).ok();
        }
        self.registered.get().ok_or_else(gone)
    }

    /// What has come already, the first time that somebody asks. None: it has to be waited for.
    pub(super) fn first_read(&self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if !CAN_BE_ASKED {
            return None;
        }
        let mut bare = self.bare();
        let bare = bare.as_mut().filter(|bare| !bare.is_read)?;
        bare.is_read = true;
        let mut room = [MaybeUninit::uninit(); FIRST_READ];
        let room = &mut room[..FIRST_READ.min(buf.remaining())];
        match rustix::net::recv(&bare.stream, room, RecvFlags::empty()) {
            Ok(((read, _), _)) => {
                buf.put_slice(read);
                Some(Ok(()))
            }
            Err(error) => unless_it_waits(error.into()).map(Err),
        }
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
        let bare = self.bare();
        match bare.as_ref() {
            Some(bare) => Some(look((&bare.stream).into())),
            None => self.registered().map(|stream| look(stream.into())),
        }
    }

    fn bare(&self) -> MutexGuard<'_, Option<Bare>> {
        self.bare.lock().unwrap_or_else(PoisonError::into_inner)
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
