//! What carries the bytes of a connection to the app: in clear, or over TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::http1;
use crate::turn::{self, Gathered};

/// What carries the bytes.
pub enum Stream {
    Plain(TcpStream),
    Gathered(Leaving),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket in clear whose requests leave at the end of the worker's turn; one that is dropped before will not.
pub struct Leaving(Gathered);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.discard();
    }
}

impl http1::Carries for Stream {
    fn unsent(&self) -> usize {
        match self {
            Self::Gathered(stream) => stream.0.unsent(),
            Self::Plain(_) | Self::Tls(_) => 0,
        }
    }

    fn is_behind(&self) -> bool {
        match self {
            Self::Gathered(stream) => stream.0.is_behind(),
            // What it took over it sends when it is asked to, and not before.
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
            Self::Plain(_) => false,
        }
    }

    fn sends_records(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl Stream {
    /// For small messages, one at a time.
    pub(super) fn gathered(self) -> Self {
        match self {
            Self::Plain(stream) => Self::Gathered(Leaving(stream.into())),
            other => other,
        }
    }

    /// Whether it was quiet while it was idle: an end, or bytes that nobody asked for, make it useless. Asks what the
    /// runtime knows already, not the kernel.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => has_nothing(stream),
            Self::Gathered(stream) => stream.0.stream().is_ok_and(has_nothing),
            // What comes may be TLS's own affair (a ticket, a new key): only TLS can tell.
            Self::Tls(stream) => {
                let mut byte = [0];
                let cx = &mut Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }
}

fn has_nothing(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Gathered(stream) => return stream.0.poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if read.is_ready() {
            turn::time_passes();
        }
        read
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
            Self::Gathered(stream) => stream.0.poll_write(cx, &[IoSlice::new(buf)]),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Gathered(stream) => stream.0.poll_write(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Gathered(_) => true,
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gathered(stream) => stream.0.poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gathered(stream) => stream.0.poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use tokio::{io::AsyncReadExt, net::TcpListener};
    use tokio_rustls::TlsAcceptor;

    use super::{http1::Carries, *};
    use crate::{
        config::{ClientAuth, Http2, ListenTlsConfig, TlsVersion, UpstreamTlsConfig},
        tls::{client::ClientTls, server, testing::Pki},
    };

    /// Both ends of a connection over TLS.
    async fn connected() -> (Stream, tokio_rustls::server::TlsStream<TcpStream>) {
        let pki = Pki::new();
        let pair = pki.certificate("shop", &["shop.example"]);
        let server = server::load(
            &ListenTlsConfig {
                cert: pair.cert,
                key: pair.key,
                more: Vec::new(),
                min_version: TlsVersion::Tls12,
                client_ca: None,
                client_auth: ClientAuth::Required,
            },
            false,
        );
        let client = UpstreamTlsConfig { ca_file: Some(pki.authority()), ..Default::default() };
        let client = ClientTls::load("shop", &client, Http2::Never).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        let acceptor = TlsAcceptor::from(server.unwrap().current());
        let (near, far) = tokio::join!(client.connect(near, "shop.example"), acceptor.accept(far));
        (Stream::Tls(Box::new(near.unwrap())), far.unwrap())
    }

    /// The end of a request must not stay there while its answer has begun.
    #[tokio::test]
    async fn what_tls_took_over_and_did_not_send_is_behind() {
        let (mut near, mut far) = connected().await;
        assert!(!near.is_behind());
        let cx = &mut Context::from_waker(Waker::noop());
        let (piece, mut taken) = ([b'x'; 16 << 10], 0);
        while let Poll::Ready(wrote) = Pin::new(&mut near).poll_write(cx, &piece) {
            taken += wrote.unwrap();
        }
        assert!(near.is_behind());
        let read = async {
            let (mut room, mut read) = (vec![0; 64 << 10], 0);
            while read < taken {
                read += far.read(&mut room).await.unwrap();
            }
        };
        let flushed = poll_fn(|cx| Pin::new(&mut near).poll_flush(cx));
        tokio::join!(read, async { flushed.await.unwrap() });
        assert!(!near.is_behind());
    }
}
