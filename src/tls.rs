//! TLS on both sides: files become a configuration of rustls, which is exchanged when the files change.
//!
//! Opens no socket and knows no request. The cryptography is always named, never the process's default.

pub mod client;
mod expiry;
mod files;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};

pub use self::files::{CertificateStatus, FromFiles, Reloaded, TlsStatus};
use crate::config::TlsVersion;

/// What is wrong with a file, in words that name it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: String },
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: String },
    #[error("{0}")]
    Other(String),
}

impl TlsFault {
    fn content(path: &Path, what: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), what: what.to_string() }
    }
}

/// What both sides may speak in HTTP, in order of preference.
const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match oldest {
        TlsVersion::Tls12 => &FROM_1_2,
        TlsVersion::Tls13 => &FROM_1_3,
    }
}
