//! A private authority of the test's own, and clients that speak TLS.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Answer, NoAnswer};

/// An authority and the folder with what it issued.
pub struct Pki {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// The files of one certificate.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Not the name that a certificate has by default: it would seem to have issued itself.
        params.distinguished_name.push(rcgen::DnType::CommonName, "the test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = super::folder();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A new certificate in `NAME.pem` and `NAME.key`, good for these names on both sides.
    pub fn issue(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_until(file, names, 2040)
    }

    pub fn issue_until(&self, file: &str, names: &[&str], year: i32) -> Pair {
        let (cert, key) = self.pem(names, year);
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        std::fs::write(path("pem"), cert).unwrap();
        std::fs::write(path("key"), key).unwrap();
        Pair { cert: path("pem"), key: path("key") }
    }

    /// Certificate and key as text.
    pub fn pem(&self, names: &[&str], year: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    /// A client that believes this authority, shows `pair` if there is one, and offers these protocols.
    pub fn client(&self, pair: Option<&Pair>, alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.private()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// A server with `pair` that agrees on these protocols; clients must show a certificate where `client_auth`.
    pub fn server(&self, pair: &Pair, alpn: &[&str], client_auth: bool) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .unwrap();
        let builder = if client_auth {
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(pair.chain(), pair.private()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Pair {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect()
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }
}

/// A client with one connection over TLS that speaks what was agreed on.
pub struct TlsClient {
    address: SocketAddr,
    sender: Sender,
    /// What the server showed.
    pub certificate: CertificateDer<'static>,
    _connection: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl TlsClient {
    pub async fn to(
        address: SocketAddr,
        name: &str,
        config: ClientConfig,
    ) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::over(stream, name, config).await
    }

    /// Over a connection that is there already.
    pub async fn over(
        stream: TcpStream,
        name: &str,
        config: ClientConfig,
    ) -> std::io::Result<Self> {
        let address = stream.peer_addr()?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream: TlsStream<TcpStream> =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let mut connection = JoinSet::new();
        let sender = if is_http2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
            connection.spawn(async move { drop(driver.await) });
            Sender::Http2(sender)
        } else {
            let (sender, driver) =
                http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
            connection.spawn(async move { drop(driver.await) });
            Sender::Http1(sender)
        };
        Ok(Self { address, sender, certificate, _connection: connection })
    }

    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Answer, NoAnswer> {
        let (mut head, body) = request.into_parts();
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let host = HeaderValue::from_str(&self.address.to_string()).unwrap();
                head.headers.entry(header::HOST).or_insert(host);
                sender.ready().await.map_err(NoAnswer::Broken)?;
                sender.send_request(Request::from_parts(head, Full::new(body))).await
            }
            Sender::Http2(sender) => {
                let whole = format!("https://{}{}", self.address, head.uri);
                head.uri = whole.parse().unwrap();
                sender.ready().await.map_err(NoAnswer::Broken)?;
                sender.send_request(Request::from_parts(head, Full::new(body))).await
            }
        };
        Answer::read(response.map_err(NoAnswer::Broken)?).await.map_err(NoAnswer::Broken)
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, NoAnswer> {
        self.send(Request::get(path).body(Bytes::new()).unwrap()).await
    }
}
