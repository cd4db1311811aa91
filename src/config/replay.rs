//! `[route.NAME.replay]`: how the entries of a route are sent once the app is back.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;
use crate::expr::Expr;

/// `[route.NAME.replay]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// `auto`: when the app is back. `manual`: only when a person says so.
    pub trigger: Trigger,
    /// What counts as done: statuses or CEL over `response`. Default: 2xx.
    pub success: Option<OutcomeRule>,
    /// What says that the app had the request already. Default: nothing.
    pub already_applied: Option<OutcomeRule>,
    /// What is tried again. Default: 408, 425, 429, 5xx and 409.
    pub retry: Option<OutcomeRule>,
    /// The app's final no. Default: every other 4xx except 401, 403, 407 (held).
    pub declined: Option<OutcomeRule>,
    /// Attempts before an entry is held for a person.
    pub max_attempts: NonZeroU32,
    /// Most replays in flight at once for the route.
    pub pace: NonZeroU32,
    /// First wait after a failed attempt; doubles, with jitter.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub min_backoff: Duration,
    /// Longest wait after a failed attempt.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub max_backoff: Duration,
    /// Headers set on every replay, replacing what the client sent.
    pub set_headers: BTreeMap<String, String>,
    /// Headers of the request that are not kept with the entry.
    pub redact: Vec<String>,
}

/// See [`ReplayConfig::trigger`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    #[default]
    Auto,
    Manual,
}

/// Which answers: a list of statuses, or CEL to a bool over `response.{status,headers,body}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OutcomeRule {
    Statuses(Vec<u16>),
    Rule(Expr),
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            trigger: Trigger::Auto,
            success: None,
            already_applied: None,
            retry: None,
            declined: None,
            max_attempts: NonZeroU32::new(10).expect("not zero"),
            pace: NonZeroU32::new(64).expect("not zero"),
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(300),
            set_headers: BTreeMap::new(),
            redact: Vec::new(),
        }
    }
}
