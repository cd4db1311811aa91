//! TLS towards clients: which certificate they see, and whose they must show.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::CryptoProvider,
    pki_types::ServerName,
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};

use super::{
    CertificateStatus, FromFiles, HTTP_1, HTTP_2, TlsFault,
    files::{Contents, Made},
    provider, versions,
};
use crate::config::{CertificateFiles, ClientAuth, ListenTlsConfig};

/// What is spoken with clients, whole: with a new certificate come new tickets, so that no session of an authority that
/// is gone is taken up again.
pub type ServerTls = FromFiles<ServerConfig>;

/// Reads the files of `[listen.tls]`.
pub fn load(config: &ListenTlsConfig, http2: bool) -> Result<ServerTls, TlsFault> {
    let files = certificates(config).flat_map(|pair| [pair.cert, pair.key]);
    let files = files.chain(config.client_ca.clone()).collect();
    let config = config.clone();
    FromFiles::load("listen.tls".to_owned(), files, move |contents| make(&config, http2, contents))
}

fn make(
    config: &ListenTlsConfig,
    http2: bool,
    contents: &Contents,
) -> Result<Made<ServerConfig>, TlsFault> {
    let provider = provider();
    let mut shown = Vec::new();
    let mut status = Vec::new();
    for pair in certificates(config) {
        let chain = contents.certificates(&pair.cert)?;
        status.push(CertificateStatus::of(&pair.cert, &chain));
        let key = CertifiedKey::from_der(chain, contents.key(&pair.key)?, &provider)
            .map_err(|error| TlsFault::content(&pair.cert, error))?;
        shown.push(Arc::new(key));
    }
    let verifier = match &config.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(file) => {
            let authorities = contents.certificates(file)?;
            status.push(CertificateStatus::of(file, &authorities));
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority).map_err(|error| TlsFault::content(file, error))?;
            }
            client_verifier(roots, config.client_auth, &provider)
                .map_err(|what| TlsFault::content(file, what))?
        }
    };
    let has_client_auth = config.client_ca.is_some();
    let mut value = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(config.min_version))
        .map_err(|error| TlsFault::Other(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByName(shown)));
    value.alpn_protocols =
        if http2 { vec![HTTP_2.to_vec(), HTTP_1.to_vec()] } else { vec![HTTP_1.to_vec()] };
    if has_client_auth {
        // A resumed session would not show its certificate again, whatever has become of it since.
        value.session_storage = Arc::new(NoServerSessionStorage {});
        value.send_tls13_tickets = 0;
    } else {
        // One for all workers: a client may come back to another one.
        value.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|error| TlsFault::Other(error.to_string()))?;
    }
    Ok(Made { value, certificates: status })
}

fn certificates(config: &ListenTlsConfig) -> impl Iterator<Item = CertificateFiles> {
    let first = CertificateFiles { cert: config.cert.clone(), key: config.key.clone() };
    std::iter::once(first).chain(config.more.clone())
}

fn client_verifier(
    roots: RootCertStore,
    auth: ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| error.to_string())
}

/// The first certificate that is good for the name asked for, else the first.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        if self.0.len() == 1 {
            return Some(Arc::clone(first));
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let good = name.and_then(|name| self.0.iter().find(|one| is_good_for(one, &name)));
        Some(Arc::clone(good.unwrap_or(first)))
    }
}

fn is_good_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.cert.first().and_then(|one| ParsedCertificate::try_from(one).ok());
    certificate.is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::TlsVersion, tls::testing::Pki};

    fn config(pki: &Pki, name: &str) -> ListenTlsConfig {
        let CertificateFiles { cert, key } = pki.certificate(name, &[name]);
        ListenTlsConfig {
            cert,
            key,
            more: Vec::new(),
            min_version: TlsVersion::Tls12,
            client_ca: None,
            client_auth: ClientAuth::Required,
        }
    }

    #[test]
    fn each_name_finds_its_certificate() {
        let pki = Pki::new();
        let first = config(&pki, "shop.example");
        let more = vec![pki.certificate("other", &["other.example", "*.wild.example"])];
        let contents = |files: &[CertificateFiles]| {
            let paths: Vec<_> =
                files.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]).collect();
            Contents::read(&paths).unwrap()
        };
        let keys: Vec<_> = [CertificateFiles { cert: first.cert, key: first.key }]
            .into_iter()
            .chain(more)
            .map(|pair| {
                let contents = contents(std::slice::from_ref(&pair));
                let chain = contents.certificates(&pair.cert).unwrap();
                CertifiedKey::from_der(chain, contents.key(&pair.key).unwrap(), &provider())
                    .unwrap()
            })
            .collect();
        for (name, wanted) in [
            ("shop.example", [true, false]),
            ("other.example", [false, true]),
            ("a.wild.example", [false, true]),
            ("a.b.wild.example", [false, false]),
            ("nobody.example", [false, false]),
        ] {
            let name = ServerName::try_from(name).unwrap();
            assert_eq!(keys.iter().map(|key| is_good_for(key, &name)).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let pki = Pki::new();
        let mut config = config(&pki, "shop.example");
        load(&config, true).unwrap();
        config.key = pki.certificate("other", &["other.example"]).key;
        let fault = load(&config, true).unwrap_err().to_string();
        assert!(fault.contains("shop.example.pem"), "{fault}");
    }

    #[test]
    fn files_without_what_they_should_have_are_named() {
        let pki = Pki::new();
        let mut config = config(&pki, "shop.example");
        std::mem::swap(&mut config.cert, &mut config.key);
        let fault = load(&config, true).unwrap_err().to_string();
        assert!(fault.contains("BEGIN CERTIFICATE") && fault.contains(".key"), "{fault}");
    }
}
