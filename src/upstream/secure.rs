//! TLS with the app: which endpoints speak it, and what its failures mean for a try. Nothing of a request has left before
//! a handshake is over.

use tokio::net::TcpStream;

use super::{Stream, Upstream, UpstreamError};
use crate::{
    config::{Http2, UpstreamConfig, is_https},
    tls::{
        Reloaded, TlsFault, TlsStatus,
        client::{ClientTls, HandshakeFault, speaks_http2},
    },
};

/// TLS of one upstream, where any endpoint of it wants that. The files were good a moment ago, when the configuration was
/// checked; if they are not now, each try says so.
pub(super) type Tls = Option<Result<ClientTls, TlsFault>>;

pub(super) fn load(name: &str, config: &UpstreamConfig) -> Tls {
    let is_used = config.endpoints.iter().any(|endpoint| is_https(endpoint));
    is_used.then(|| {
        let tls = config.tls.clone().unwrap_or_default();
        let loaded = ClientTls::load(name, &tls, config.http2);
        if let Err(fault) = &loaded {
            tracing::error!(upstream = name, %fault, "no TLS with the app");
        }
        loaded
    })
}

impl Upstream {
    /// The connection as the endpoint wants it: in clear, or with the handshake over; and whether HTTP/2 is spoken on it.
    /// The caller bounds the time.
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        endpoint: usize,
        http1: bool,
    ) -> Result<(Stream, bool), UpstreamError> {
        let is_known = self.config.http2 == Http2::PriorKnowledge && !http1;
        let target = self.endpoints.get(endpoint);
        if !target.over_tls {
            return Ok((Stream::Plain(stream), is_known));
        }
        let ours = |cause: String| UpstreamError::Ourselves { cause };
        let tls = match &self.tls {
            Some(Ok(tls)) => tls,
            Some(Err(fault)) => return Err(ours(fault.to_string())),
            None => return Err(ours(format!("no TLS for {}", target.authority))),
        };
        let connected = if http1 {
            tls.connect_for_http1(stream, target.host()).await
        } else {
            tls.connect(stream, target.host()).await
        };
        match connected {
            Ok(stream) => {
                let is_agreed = speaks_http2(&stream);
                Ok((Stream::Tls(Box::new(stream)), is_known || is_agreed))
            }
            Err(fault @ HandshakeFault::Ours { .. }) => Err(ours(fault.to_string())),
            Err(HandshakeFault::Theirs(cause)) => {
                let cause = format!("no TLS: {cause}");
                Err(UpstreamError::Connect { endpoint: target.authority.clone(), cause })
            }
        }
    }

    /// What is known of its certificates.
    pub fn tls_status(&self) -> Option<TlsStatus> {
        self.tls.as_ref()?.as_ref().ok().map(ClientTls::status)
    }

    /// Whether anybody can pose as the app.
    pub fn is_insecure(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.as_ref().is_ok_and(|tls| tls.insecure))
    }

    /// Takes up certificates that have changed. Reads files.
    pub fn look_at_certificates(&self) -> Reloaded {
        match &self.tls {
            Some(Ok(tls)) => tls.look(),
            _ => Reloaded::Same,
        }
    }
}
