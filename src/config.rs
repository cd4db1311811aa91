//! The configuration: one struct per section, parsed once and then trusted.
//!
//! Loading (`load`) reports every fault at once, each with file and line. A part of the product is given its own
//! section, never the whole.

mod admin;
mod listen;
pub mod load;
mod replay;
mod route;
mod stand_in;
mod store;
pub mod units;
mod upstream;

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::{
    admin::{AdminConfig, AdminToken, LogConfig, LogFormat},
    listen::{Limits, ListenConfig, RequestIdConfig},
    replay::{OutcomeRule, ReplayConfig, Trigger},
    route::{AppDedupes, DedupesBy, RouteConfig},
    stand_in::{AnswerConfig, AtMost, PerCustomer, StandInConfig, StandInOn, Unanswered},
    store::{Ephemeral, StoreConfig},
    upstream::{BreakerConfig, ConnectionsConfig, HealthConfig, UpstreamConfig},
};

/// The whole configuration of one standin process.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `inline`: in front of the app. `standby`: elsewhere; never asks the app for live traffic, only replays.
    pub role: Role,
    /// Worker threads; one per core when absent.
    pub workers: Option<NonZeroUsize>,
    /// How long requests in flight may go on after SIGTERM.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub drain: Duration,
    pub listen: ListenConfig,
    pub admin: AdminConfig,
    pub log: LogConfig,
    pub store: StoreConfig,
    pub request_id: RequestIdConfig,
    /// The apps, by name.
    pub upstream: BTreeMap<String, UpstreamConfig>,
    /// The routes, by name.
    pub route: BTreeMap<String, RouteConfig>,
}

/// See [`Config::role`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    Inline,
    Standby,
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
            upstream: BTreeMap::new(),
            route: BTreeMap::new(),
        }
    }
}
