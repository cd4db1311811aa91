//! `[admin]` and `[log]`: who may look and act, and what is written down.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// `[admin]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where the admin page and API listen. Anything but loopback needs `token`.
    #[schemars(with = "units::AddressText")]
    pub address: SocketAddr,
    /// Host names by which the admin page may be called, besides its address and `localhost` (DNS rebinding).
    pub hosts: Vec<String>,
    /// The bearer token (or password of the page, any user name) that gives access; `"${env:NAME}"` or `"${file:PATH}"`.
    #[schemars(extend("writeOnly" = true))]
    pub token: Option<AdminToken>,
    /// A second address with only `/healthz`, `/readyz` and `/metrics`, open to all.
    #[schemars(with = "Option<units::AddressText>")]
    pub health: Option<SocketAddr>,
}

/// A secret: never shown by `Debug`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AdminToken(pub String);

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 9900)),
            hosts: Vec::new(),
            token: None,
            health: None,
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `text` for people, `json` for programs.
    pub format: LogFormat,
    /// Whether each request writes a line.
    pub access: bool,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
