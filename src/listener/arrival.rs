//! What comes before HTTP on a connection: the word of a load balancer about its client, then TLS. Both together are
//! bounded in time, and by the drain: a handshake that never ends must not hold it up.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::{self, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use filters::peer::Trust;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{drain::Inside, presence::Presence, proxy_protocol, socket::Socket};
use crate::{config::ListenConfig, tls::server::ServerTls, turn::Gathered};

/// What every connection of a listener begins with.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    /// Peers that say for whom they connect; with it nobody else may connect.
    proxies: Option<Trust>,
    tls: Option<Arc<ServerTls>>,
    limit: Duration,
    write_idle: Duration,
    min_rate: u64,
}

/// A client that may now speak HTTP.
pub(super) struct Arrived {
    pub(super) stream: ClientStream,
    pub(super) presence: Presence,
    pub(super) address: SocketAddr,
    /// It, or the load balancer on its behalf, came over TLS.
    pub(super) over_tls: bool,
}

/// A client's connection, in clear or not.
pub(super) enum ClientStream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Why a connection was closed before any request.
#[derive(Debug)]
pub(super) enum Refused {
    /// The peer may not say for whom it connects.
    Proxy,
    /// It did not say so in the PROXY protocol.
    ProxyHeader(io::Error),
    Tls(io::Error),
    /// It took too long, or the drain ended it.
    Late,
}

impl Arrival {
    pub(super) fn new(config: &ListenConfig, tls: Option<Arc<ServerTls>>) -> Self {
        let proxies = config.proxy_protocol.as_ref();
        Self {
            proxies: proxies.map(|proxies| Trust::new(proxies.from.iter().copied())),
            tls,
            limit: config.limits.head_timeout,
            write_idle: config.limits.write_idle,
            min_rate: config.limits.min_rate,
        }
    }

    /// Whether the peer is the client, and no load balancer stands between.
    pub(super) fn knows_client(&self) -> bool {
        self.proxies.is_none()
    }

    fn socket(&self, presence: &Presence) -> Socket {
        Socket::new(presence.clone(), self.write_idle, self.min_rate)
    }

    /// Whether HTTP is all there is, so that nothing has to be awaited.
    fn is_plain(&self) -> bool {
        self.proxies.is_none() && self.tls.is_none()
    }

    pub(super) async fn of(
        &self,
        stream: net::TcpStream,
        peer: SocketAddr,
        here: &Inside,
    ) -> Result<Arrived, Refused> {
        if self.is_plain() {
            return Ok(self.plain(stream.into(), peer, false));
        }
        // In a box: a handshake needs far more than the connection that comes of it.
        let mut greeting = Box::pin(self.greet(stream, peer));
        let mut limit = pin!(tokio::time::sleep(self.limit));
        let mut last_call = pin!(last_call(here));
        poll_fn(|cx| {
            if let Poll::Ready(ended) = greeting.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if limit.as_mut().poll(cx).is_ready() || last_call.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Refused::Late));
            }
            Poll::Pending
        })
        .await
    }

    fn plain(&self, stream: Gathered, address: SocketAddr, over_tls: bool) -> Arrived {
        let presence = Presence::new(stream);
        let stream = ClientStream::Plain(self.socket(&presence));
        Arrived { stream, presence, address, over_tls }
    }

    async fn greet(&self, stream: net::TcpStream, peer: SocketAddr) -> Result<Arrived, Refused> {
        let (mut address, mut over_tls) = (peer, false);
        let stream: Gathered = if let Some(proxies) = &self.proxies {
            if !proxies.covers(peer.ip()) {
                return Err(Refused::Proxy);
            }
            let mut stream = TcpStream::from_std(stream).map_err(Refused::ProxyHeader)?;
            let header = proxy_protocol::read(&mut stream).await.map_err(Refused::ProxyHeader)?;
            if let proxy_protocol::Header::Client { address: client, over_tls: tls } = header {
                (address, over_tls) = (client, tls);
            }
            stream.into()
        } else {
            stream.into()
        };
        let Some(tls) = &self.tls else {
            return Ok(self.plain(stream, address, over_tls));
        };
        let presence = Presence::new(stream);
        let accepting = TlsAcceptor::from(tls.current()).accept(self.socket(&presence));
        let stream = ClientStream::Tls(Box::new(accepting.await.map_err(Refused::Tls)?));
        Ok(Arrived { stream, presence, address, over_tls: true })
    }
}

/// Ready a little after the drain has begun: who was shaking hands then was not refused, and may go on.
async fn last_call(here: &Inside) {
    poll_fn(|cx| if here.poll_begun(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    tokio::time::sleep(LAST_CALL).await;
}

const LAST_CALL: Duration = Duration::from_secs(2);

impl Refused {
    /// Its place in [`crate::telemetry::TURNED_AWAY`].
    pub(super) fn kind(&self) -> usize {
        match self {
            Self::Proxy => 0,
            Self::ProxyHeader(_) => 1,
            Self::Tls(_) => 2,
            Self::Late => 3,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("`proxy_protocol` does not name this peer"),
            Self::ProxyHeader(error) => write!(f, "the PROXY header: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Late => f.write_str("it did not come to its first request in time"),
        }
    }
}

impl ClientStream {
    /// It has not taken all that was said to it.
    pub(super) fn is_behind(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_behind(),
            Self::Tls(stream) => stream.get_ref().0.is_behind() || stream.get_ref().1.wants_write(),
        }
    }
}

impl AsyncRead for ClientStream {
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

impl AsyncWrite for ClientStream {
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
        true
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
