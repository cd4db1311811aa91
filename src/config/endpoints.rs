//! How the endpoints of an upstream share its requests: choice, ejection, extra tries, names.

use std::{net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// Which endpoint gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The better of two drawn by lot, by requests in flight and by how long it took lately.
    #[default]
    LeastLoaded,
    /// Each in its turn.
    RoundRobin,
}

/// `[upstream.NAME.ejection]`: when an endpoint that fails gets no requests for a time, while others answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionConfig {
    /// Failures in a row (no answer, or 502, 503, 504) that eject an endpoint.
    pub failures: u32,
    /// First time without requests; doubles with each failed trial, give or take a quarter.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub time: Duration,
    /// Longest time without requests.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub max_time: Duration,
    /// Percent of the endpoints that must remain; with fewer, ejections are ignored.
    pub panic_threshold: u8,
}

/// `[upstream.NAME.retry_budget]`: how many tries beyond the first a request may cost, all requests of a worker together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudgetConfig {
    /// Extra tries in percent of the requests.
    pub percent: u32,
    /// Extra tries a second that are allowed however few requests there are, per worker.
    pub per_second: u32,
}

/// Who turns names into addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ResolverConfig {
    /// In a word.
    Kind(ResolverKind),
    /// These name servers.
    Servers(ResolverServers),
}

/// Who turns names into addresses, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolverKind {
    /// The name servers of `/etc/resolv.conf`, asked again when an answer's time to live is over.
    Dns,
    /// The C library; it does not tell how long an answer is good.
    System,
}

/// `{ servers = ["127.0.0.1:53"] }`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolverServers {
    /// Addresses of name servers; the names asked for are complete, search lists do not apply.
    #[schemars(with = "Vec<units::AddressText>")]
    pub servers: Vec<SocketAddr>,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            time: Duration::from_secs(1),
            max_time: Duration::from_secs(60),
            panic_threshold: 50,
        }
    }
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self { percent: 20, per_second: 10 }
    }
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self::Kind(ResolverKind::Dns)
    }
}
