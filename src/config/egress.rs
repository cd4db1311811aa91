//! `[egress.POOL]`: egress proxies through which an upstream is reached. `[route.NAME.egress]`: which of them a route
//! takes.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;
use crate::expr::Expr;

/// All pools, by name.
pub type EgressPools = BTreeMap<String, EgressConfig>;

/// `[egress.POOL]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// The proxies in the order of their turns, each `http://[USER:PASSWORD@]HOST:PORT[#NAME]`, or a table with `url`
    /// and `only_for`. A proxy is called by its name, `HOST:PORT` when it has none.
    #[schemars(extend("writeOnly" = true))]
    pub proxies: Vec<EgressProxy>,
    /// A list to follow besides: `file:PATH` or `https://HOST:PORT/PATH` (or http); one URL per line, or JSON. What is no longer
    /// in it is retired. Taken whole or not at all.
    pub source: Option<String>,
    /// Time between two looks at `source`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub sync_every: Duration,
    /// User for proxies whose URL has none.
    pub user: Option<String>,
    /// Password that goes with `user`; `"${env:NAME}"` or `"${file:PATH}"`.
    #[schemars(extend("writeOnly" = true))]
    pub password: Option<ProxyPassword>,
    /// `https`: a tunnel (CONNECT) for https upstreams only, http requests are given to the proxy. `always`: a tunnel
    /// for every upstream, so that the app gets the request as it came.
    pub tunnel: Tunnel,
    /// CEL to a string over the head of the request: requests with the same value take the same proxy. Default: each
    /// request takes the next one.
    pub session: Option<Expr>,
    /// A session ends when it was idle for so long.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub session_idle: Duration,
    /// Most sessions at once; above it the one that was idle longest ends.
    pub sessions: usize,
    /// Proxies that one request tries, as long as nothing of it was sent.
    pub tries: NonZeroU32,
    /// When a proxy rests, and for how long.
    pub cooling: CoolingConfig,
}

/// One proxy: a URL, or a table with `url` and `only_for`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EgressProxy {
    Url(ProxyUrl),
    Table(ProxyTable),
}

/// `{ url = "http://10.0.0.9:3128", only_for = ["reports"] }`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyTable {
    /// `http://[USER:PASSWORD@]HOST:PORT[#NAME]`
    pub url: ProxyUrl,
    /// Routes to which the proxy belongs alone. Default: it is there for all.
    #[serde(default)]
    pub only_for: Vec<String>,
}

/// `[egress.POOL.cooling]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoolingConfig {
    /// Statuses by which the far side blocks or limits the proxy.
    pub statuses: Vec<u16>,
    /// Rest after such an answer that has no `Retry-After`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub time: Duration,
    /// Longest rest after such an answer, whatever `Retry-After` says.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub max_time: Duration,
    /// Failures in a row of the proxy itself after which it rests.
    pub failures: NonZeroU32,
    /// First rest after them; doubles each time it fails again.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub after_failure: Duration,
    /// Longest rest after failures.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub max_after_failure: Duration,
}

/// `[route.NAME.egress]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteEgressConfig {
    /// Proxies that the route takes, and no others. Default: all that are not another route's own.
    pub only: Vec<String>,
    /// Proxies that the route never takes, whatever else is said.
    pub deny: Vec<String>,
    /// CEL to a string over the head of the request, in place of the pool's `session`.
    pub session: Option<Expr>,
}

/// When requests go through a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tunnel {
    #[default]
    Https,
    Always,
}

/// The URL of a proxy: its user and password are never shown.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ProxyUrl(pub String);

/// A secret: never shown by `Debug`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ProxyPassword(pub String);

impl EgressProxy {
    pub fn url(&self) -> &str {
        match self {
            Self::Url(url) | Self::Table(ProxyTable { url, .. }) => &url.0,
        }
    }

    pub fn only_for(&self) -> &[String] {
        match self {
            Self::Url(_) => &[],
            Self::Table(table) => &table.only_for,
        }
    }
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "…{}", self.0.rsplit('@').next().unwrap_or_default())
    }
}

impl std::fmt::Debug for ProxyPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            proxies: Vec::new(),
            source: None,
            sync_every: Duration::from_secs(60),
            user: None,
            password: None,
            tunnel: Tunnel::Https,
            session: None,
            session_idle: Duration::from_secs(600),
            sessions: 10_000,
            tries: NonZeroU32::new(3).expect("it is not zero"),
            cooling: CoolingConfig::default(),
        }
    }
}

impl Default for CoolingConfig {
    fn default() -> Self {
        Self {
            statuses: vec![403, 429],
            time: Duration::from_secs(60),
            max_time: Duration::from_secs(3600),
            failures: NonZeroU32::new(2).expect("it is not zero"),
            after_failure: Duration::from_secs(5),
            max_after_failure: Duration::from_secs(120),
        }
    }
}
