//! Takes clients from the kernel's queue, as they are: the runtime does not hear of one that has not been waited for.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
};

use tokio::io::{Interest, unix::AsyncFd};

/// See the module.
#[derive(Debug)]
pub(super) struct Accepting(AsyncFd<TcpListener>);

impl Accepting {
    /// The listener must not block.
    #[expect(
        deprecated,
        reason = "its successor is `unsafe`, for types that name a descriptor which is not theirs: a listener of std owns its own"
    )]
    pub(super) fn new(listener: TcpListener) -> io::Result<Self> {
        AsyncFd::with_interest(listener, Interest::READABLE).map(Self)
    }

    pub(super) async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, accept).await
    }

    /// Those in the queue, without a wait for more.
    pub(super) fn into_queue(self) -> Queue {
        Queue(self.0.into_inner())
    }
}

/// What is in the kernel's queue. Asks the kernel, not the runtime: that may not have heard yet.
#[derive(Debug)]
pub(super) struct Queue(pub(super) TcpListener);

impl Iterator for Queue {
    type Item = (TcpStream, SocketAddr);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match accept(&self.0) {
                Ok(accepted) => return Some(accepted),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of files, as little can be done as when the queue is empty.
                Err(_) => return None,
            }
        }
    }
}

/// It does not block, and no other program gets it.
#[cfg(target_os = "linux")]
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = acceptfrom_with(listener, flags)?;
    // Nobody is there any more where there is no address.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), peer.try_into()?))
}

#[cfg(not(target_os = "linux"))]
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}
