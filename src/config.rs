//! The configuration: one struct per section, parsed once and then trusted.
//!
//! Loading (`load`) reports every fault at once, each with file and line. A part of the product is given its own
//! section, never the whole.

mod admin;
mod contradictions;
mod difference;
mod document;
mod egress;
mod endpoints;
mod faults;
mod files;
mod keys;
mod listen;
pub mod load;
pub mod matching;
mod near;
mod paths;
mod references;
mod replay;
mod route;
mod schema;
mod stand_in;
mod store;
mod tls;
pub mod units;
mod upstream;
pub(crate) mod warnings;

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    admin::{AdminConfig, AdminToken, LogConfig, LogFormat},
    difference::Difference,
    egress::{
        CoolingConfig, EgressConfig, EgressPools, EgressProxy, ProxyPassword, ProxyTable, ProxyUrl,
        RouteEgressConfig, Tunnel,
    },
    endpoints::{
        Balance, EjectionConfig, ResolverConfig, ResolverKind, ResolverServers, RetryBudgetConfig,
    },
    faults::{Fault, Faults, Warning},
    listen::{Limits, ListenConfig, ProxyProtocolConfig, RequestIdConfig},
    matching::{MatchFault, RoutePattern, Segment},
    references::Secrets,
    replay::{OutcomeRule, ReplayConfig, ReplaysConfig, SigningKey, Trigger},
    route::{AppDedupes, DedupesBy, Recorded, RouteConfig, WatchConfig},
    schema::json_schema,
    stand_in::{AnswerConfig, AtMost, PerCustomer, StandInConfig, StandInOn, Unanswered},
    store::{Ephemeral, StoreConfig},
    tls::{CertificateFiles, ClientAuth, Http2, ListenTlsConfig, TlsVersion, UpstreamTlsConfig},
    upstream::{
        BreakerConfig, ConnectionsConfig, EndpointIs, HealthConfig, SlowConfig, UpstreamConfig,
        is_https, parse_endpoint,
    },
};

pub(crate) use self::faults::printable;

/// The whole configuration of one standin process.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `inline`: in front of the app. `standby`: elsewhere; never asks the app for live traffic, only replays.
    pub role: Role,
    /// Worker threads; one per core when absent.
    pub workers: Option<NonZeroUsize>,
    /// How long requests in flight may go on after SIGTERM.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub drain: Duration,
    /// Where clients come in.
    pub listen: ListenConfig,
    /// Who may look and act.
    pub admin: AdminConfig,
    /// What is written down.
    pub log: LogConfig,
    /// Where entries are kept, how much of them and how long.
    pub store: StoreConfig,
    /// The id that every request has.
    pub request_id: RequestIdConfig,
    /// What all replays have.
    pub replay: ReplaysConfig,
    /// The apps, by name.
    pub upstream: BTreeMap<String, UpstreamConfig>,
    /// The routes, by name.
    pub route: BTreeMap<String, RouteConfig>,
    /// Pools of egress proxies through which upstreams are reached, by name.
    pub egress: EgressPools,
    /// What `${env:}` and `${file:}` gave, so that nothing that is shown shows it.
    #[serde(skip)]
    pub secrets: Secrets,
    /// What the file sets, so that a later one can be held against it.
    #[serde(skip)]
    written: difference::Written,
}

/// Where this standin stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    Inline,
    Standby,
}

impl Config {
    /// The upstream of a route: the one it names, else the default one.
    pub fn upstream_of(&self, route: &RouteConfig) -> Option<(&str, &UpstreamConfig)> {
        match &route.upstream {
            Some(name) => self.upstream.get_key_value(name).map(|(name, one)| (name.as_str(), one)),
            None => self.default_upstream(),
        }
    }

    /// Who is asked in the stead of an upstream, in order: its backups, then theirs; nobody twice, and not itself.
    pub fn backups_of(&self, name: &str) -> Vec<&str> {
        let of = |name: &str| self.upstream.get(name).map_or(&[][..], |one| &one.backup[..]);
        let mut all: Vec<&str> = Vec::new();
        let mut next = Some(name);
        for at in 0.. {
            let Some(more) = next else { break };
            for backup in of(more) {
                if backup != name && !all.contains(&backup.as_str()) {
                    all.push(backup);
                }
            }
            next = all.get(at).copied();
        }
        all
    }

    /// The upstream that takes what no route matches: the only one, or the one marked `default`.
    pub fn default_upstream(&self) -> Option<(&str, &UpstreamConfig)> {
        let mut all = self.upstream.iter().map(|(name, one)| (name.as_str(), one));
        match self.upstream.len() {
            1 => all.next(),
            _ => all.find(|(_, one)| one.default),
        }
    }
}

/// Without what references gave, wherever it stands.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { role, workers, drain, listen, admin, log, store, request_id, replay, .. } = self;
        let head = format!(
            "{role:?} {workers:?} {drain:?} {listen:?} {admin:?} {log:?} {store:?} {request_id:?} {replay:?}"
        );
        let whole =
            format!("Config({head} {:?} {:?} {:?})", self.upstream, self.route, self.egress);
        f.write_str(&self.secrets.hide(&whole))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: Role::Inline,
            workers: None,
            drain: Duration::from_secs(25),
            listen: ListenConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            store: StoreConfig::default(),
            request_id: RequestIdConfig::default(),
            replay: ReplaysConfig::default(),
            upstream: BTreeMap::new(),
            route: BTreeMap::new(),
            egress: BTreeMap::new(),
            secrets: Secrets::default(),
            written: difference::Written::default(),
        }
    }
}
