//! `[listen.tls]` and `[upstream.NAME.tls]`: the files and rules of TLS on either side. What is in the files is read by
//! `tls`, at the start and whenever it changes.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[listen.tls]`: TLS towards clients.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenTlsConfig {
    /// PEM file with the certificate, followed by those that lead to a root which clients know. Read again when it changes.
    pub cert: PathBuf,
    /// PEM file with the private key of `cert`.
    pub key: PathBuf,
    /// More certificates, each `{ cert, key }`: a client gets the first one that is good for the name it asks for, else `cert`.
    #[serde(default)]
    pub more: Vec<CertificateFiles>,
    /// Oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// PEM file with the authorities whose client certificates are good.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away, where there is a `client_ca`.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

impl ListenTlsConfig {
    /// Relative files lie in the folder of the configuration.
    pub(super) fn place(&mut self, folder: &Path) {
        let more = self.more.iter_mut().flat_map(|pair| [&mut pair.cert, &mut pair.key]);
        for file in
            [&mut self.cert, &mut self.key].into_iter().chain(&mut self.client_ca).chain(more)
        {
            *file = folder.join(&*file);
        }
    }
}

impl UpstreamTlsConfig {
    /// Relative files lie in the folder of the configuration.
    pub(super) fn place(&mut self, folder: &Path) {
        for file in [&mut self.ca_file, &mut self.cert, &mut self.key].into_iter().flatten() {
            *file = folder.join(&*file);
        }
    }
}

/// One certificate and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the certificate, followed by those that lead to a root which clients know.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// `[upstream.NAME.tls]`: TLS to the app; for endpoints that begin with `https://`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTlsConfig {
    /// PEM file with the authorities that may vouch for the app. Default: those the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Name that the app's certificate must have, also sent as SNI. Default: the host of the endpoint.
    pub server_name: Option<String>,
    /// PEM file with the certificate that standin shows to the app, for apps that ask for one.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of `cert`.
    pub key: Option<PathBuf>,
    /// Oldest version of TLS that is spoken.
    pub min_version: TlsVersion,
    /// Takes whoever answers for the app, without looking at the certificate. Anybody between can read and change everything.
    pub insecure_accept_any_certificate: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// What becomes of a client that shows no certificate. A bad certificate is always refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    #[default]
    Required,
    Optional,
}

/// How HTTP/2 is spoken to the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Http2 {
    /// Where TLS agrees on it.
    #[default]
    Alpn,
    /// HTTP/1.1 only.
    Never,
    /// Without asking, in clear too.
    PriorKnowledge,
}
