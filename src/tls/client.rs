//! TLS to the app: whom we believe, whom we show ourselves as, and who is to blame when they do not come together.

use std::{io, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    CertificateStatus, FromFiles, HTTP_1, HTTP_2, Reloaded, TlsFault, TlsStatus,
    files::{Contents, Made},
    provider, versions,
};
use crate::config::{Http2, UpstreamTlsConfig};

/// How one upstream is spoken to.
#[derive(Debug)]
pub struct ClientTls {
    files: FromFiles<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// Anybody may pose as the app.
    pub insecure: bool,
}

/// Why there is no TLS with the app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFault {
    /// Certificates or versions do not fit: a matter of configuration on either side, no outage of the app.
    #[error("TLS with {name}: {cause}")]
    Ours { name: String, cause: String },
    /// The connection broke, or what came was not TLS.
    #[error("{0}")]
    Theirs(String),
}

impl ClientTls {
    /// Reads the files of `[upstream.NAME.tls]`, or of the machine where it names no authority.
    pub fn load(
        upstream: &str,
        config: &UpstreamTlsConfig,
        http2: Http2,
    ) -> Result<Self, TlsFault> {
        let server_name = config.server_name.as_deref().map(server_name).transpose()?;
        let files = [&config.ca_file, &config.cert, &config.key];
        let files = files.into_iter().flatten().cloned().collect();
        let insecure = config.insecure_accept_any_certificate;
        let config = config.clone();
        let section = format!("upstream.{upstream}.tls");
        let files =
            FromFiles::load(section, files, move |contents| make(&config, http2, contents))?;
        Ok(Self { files, server_name, insecure })
    }

    /// Shakes hands over a connection that is there already. The caller bounds the time.
    pub async fn connect<S>(&self, stream: S, host: &str) -> Result<TlsStream<S>, HandshakeFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_with(self.files.current(), stream, host).await
    }

    /// The same, for what HTTP/2 cannot carry.
    pub async fn connect_for_http1<S>(
        &self,
        stream: S,
        host: &str,
    ) -> Result<TlsStream<S>, HandshakeFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = (*self.files.current()).clone();
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        self.connect_with(Arc::new(config), stream, host).await
    }

    async fn connect_with<S>(
        &self,
        config: Arc<ClientConfig>,
        stream: S,
        host: &str,
    ) -> Result<TlsStream<S>, HandshakeFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ours = |cause: String| HandshakeFault::Ours { name: host.to_owned(), cause };
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(|fault| ours(fault.to_string()))?,
        };
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|error| match of_tls(&error) {
            Some(tls) if is_of_configuration(tls) => ours(tls.to_string()),
            _ => HandshakeFault::Theirs(error.to_string()),
        })
    }

    /// See [`FromFiles::look`].
    pub fn look(&self) -> Reloaded {
        self.files.look()
    }

    pub fn status(&self) -> TlsStatus {
        self.files.status()
    }
}

/// Whether HTTP/2 was agreed on.
pub fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP_2)
}

/// The name in a certificate by which a host is known.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsFault> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned())
        .map_err(|_| TlsFault::Other(format!("`{host}` cannot stand in a certificate")))
}

/// Whether an error of a running connection is the app's word against our certificate: with TLS 1.3 it comes after the
/// handshake. Not an outage either.
pub fn is_refusal_of_ours(error: &io::Error) -> bool {
    of_tls(error).is_some_and(
        |tls| matches!(tls, Error::AlertReceived(alert) if is_about_certificates(*alert)),
    )
}

fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// No try will end otherwise before somebody changes a file or a key of either side.
fn is_of_configuration(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(_)
        | Error::NoCertificatesPresented
        | Error::UnsupportedNameType
        | Error::PeerIncompatible(_)
        | Error::NoApplicationProtocol
        | Error::InvalidCertRevocationList(_)
        | Error::InconsistentKeys(_)
        | Error::FailedToGetCurrentTime
        | Error::FailedToGetRandomBytes => true,
        Error::AlertReceived(alert) => {
            is_about_certificates(*alert)
                || matches!(
                    alert,
                    AlertDescription::HandshakeFailure
                        | AlertDescription::ProtocolVersion
                        | AlertDescription::InsufficientSecurity
                        | AlertDescription::UnrecognisedName
                        | AlertDescription::NoApplicationProtocol
                )
        }
        _ => false,
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
            // A signature of the handshake that is not good: another authority of the same name, for one.
            | AlertDescription::DecryptError
    )
}

fn make(
    config: &UpstreamTlsConfig,
    http2: Http2,
    contents: &Contents,
) -> Result<Made<ClientConfig>, TlsFault> {
    let provider = provider();
    let other = |error: Error| TlsFault::Other(error.to_string());
    let mut status = Vec::new();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(config.min_version))
        .map_err(other)?;
    let builder = if config.insecure_accept_any_certificate {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(Arc::clone(&provider))))
    } else {
        let roots = match &config.ca_file {
            None => roots_of_the_machine()?,
            Some(file) => {
                let authorities = contents.certificates(file)?;
                status.push(CertificateStatus::of(file, &authorities));
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority).map_err(|error| TlsFault::content(file, error))?;
                }
                roots
            }
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsFault::Other(error.to_string()))?;
        builder.with_webpki_verifier(verifier)
    };
    let mut value = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let chain = contents.certificates(cert)?;
            status.push(CertificateStatus::of(cert, &chain));
            builder
                .with_client_auth_cert(chain, contents.key(key)?)
                .map_err(|error| TlsFault::content(cert, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    value.alpn_protocols = match http2 {
        Http2::Alpn => vec![HTTP_2.to_vec(), HTTP_1.to_vec()],
        Http2::PriorKnowledge => vec![HTTP_2.to_vec()],
        Http2::Never => vec![HTTP_1.to_vec()],
    };
    value.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Made { value, certificates: status })
}

fn roots_of_the_machine() -> Result<RootCertStore, TlsFault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(TlsFault::Other(format!(
            "this machine trusts no authority{why}: install ca-certificates, or write `ca_file`"
        )));
    }
    Ok(roots)
}

/// Sessions that may be taken up again, per upstream.
const SESSIONS: usize = 256;

/// Believes anybody. Only where the configuration says so, loudly.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::{
        config::{ClientAuth, ListenTlsConfig, TlsVersion},
        tls::{server, testing::Pki},
    };

    struct Both {
        _pki: Pki,
        server: ListenTlsConfig,
        client: UpstreamTlsConfig,
    }

    impl Both {
        fn new() -> Self {
            let pki = Pki::new();
            let pair = pki.certificate("shop", &["shop.example"]);
            let server = ListenTlsConfig {
                cert: pair.cert,
                key: pair.key,
                more: Vec::new(),
                min_version: TlsVersion::Tls12,
                client_ca: None,
                client_auth: ClientAuth::Required,
            };
            let client = UpstreamTlsConfig { ca_file: Some(pki.authority()), ..Default::default() };
            Self { _pki: pki, server, client }
        }

        /// Both ends after the handshake; whether HTTP/2 was agreed on.
        async fn shake(&self, host: &str) -> Result<bool, HandshakeFault> {
            let server = server::load(&self.server, true).unwrap();
            let client = ClientTls::load("shop", &self.client, Http2::Alpn).unwrap();
            let (near, far) = tokio::io::duplex(1 << 16);
            let acceptor = TlsAcceptor::from(server.current());
            let (answer, _) = tokio::join!(client.connect(near, host), acceptor.accept(far));
            answer.map(|stream| speaks_http2(&stream))
        }
    }

    #[tokio::test]
    async fn a_private_authority_is_believed_and_no_other() {
        let mut both = Both::new();
        assert_eq!(both.shake("shop.example").await, Ok(true));
        let other = Pki::new();
        both.client.ca_file = Some(other.authority());
        let fault = both.shake("shop.example").await.unwrap_err();
        assert!(matches!(fault, HandshakeFault::Ours { .. }), "{fault}");
        both.client.insecure_accept_any_certificate = true;
        assert_eq!(both.shake("shop.example").await, Ok(true));
    }

    #[tokio::test]
    async fn the_name_must_be_in_the_certificate() {
        let mut both = Both::new();
        let fault = both.shake("127.0.0.1").await.unwrap_err();
        assert!(matches!(&fault, HandshakeFault::Ours { .. }), "{fault}");
        both.client.server_name = Some("shop.example".to_owned());
        assert_eq!(both.shake("127.0.0.1").await, Ok(true));
    }

    #[tokio::test]
    async fn what_is_no_tls_is_the_apps_doing() {
        let both = Both::new();
        let client = ClientTls::load("shop", &both.client, Http2::Alpn).unwrap();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let plain = async {
            use tokio::io::AsyncWriteExt;
            far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.connect(near, "shop.example"), plain);
        assert!(matches!(answer, Err(HandshakeFault::Theirs(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn versions_that_do_not_meet_are_configuration() {
        let mut both = Both::new();
        both.server.min_version = TlsVersion::Tls13;
        assert_eq!(both.shake("shop.example").await, Ok(true));
        let client = ClientTls::load("shop", &both.client, Http2::Never).unwrap();
        let old = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        client.files.replace(old);
        let server = server::load(&both.server, true).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(server.current());
        let (answer, _) = tokio::join!(client.connect(near, "shop.example"), acceptor.accept(far));
        assert!(matches!(answer, Err(HandshakeFault::Ours { .. })), "{answer:?}");
    }

    #[test]
    fn blame_by_error() {
        let ours = [
            Error::InvalidCertificate(CertificateError::Expired),
            Error::AlertReceived(AlertDescription::UnknownCA),
            Error::AlertReceived(AlertDescription::CertificateRequired),
            Error::AlertReceived(AlertDescription::ProtocolVersion),
        ];
        let theirs = [
            Error::AlertReceived(AlertDescription::InternalError),
            Error::AlertReceived(AlertDescription::UserCanceled),
            Error::DecryptError,
            Error::PeerSentOversizedRecord,
        ];
        assert!(ours.iter().all(is_of_configuration));
        assert!(!theirs.iter().any(is_of_configuration));
    }

    #[test]
    fn a_refusal_after_the_handshake_is_known() {
        let alert = |alert| io::Error::other(Error::AlertReceived(alert));
        assert!(is_refusal_of_ours(&alert(AlertDescription::CertificateRequired)));
        assert!(!is_refusal_of_ours(&alert(AlertDescription::InternalError)));
        assert!(!is_refusal_of_ours(&io::ErrorKind::ConnectionReset.into()));
    }

    #[test]
    fn hosts_as_they_stand_in_endpoints() {
        for host in ["shop.example", "127.0.0.1", "[::1]"] {
            assert!(server_name(host).is_ok(), "{host}");
        }
        assert!(server_name("a b").is_err());
    }
}
