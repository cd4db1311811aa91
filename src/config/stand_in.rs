//! `[route.NAME.stand_in]`: when standin answers for the app, how much it may accept, and what it says.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;
use crate::expr::Expr;

/// `[route.NAME.stand_in]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandInConfig {
    /// What makes standin answer. Default: `connect`, `breaker`, and where the route's replays are protected `timeout`, `reset`.
    pub on: Option<Vec<StandInOn>>,
    /// CEL to a bool: low risk. A fault while it is evaluated means high risk.
    pub accept_if: Expr,
    /// How much may be accepted and still open.
    #[serde(default)]
    pub at_most: AtMost,
    /// What the client gets.
    pub answer: AnswerConfig,
    /// Largest request body that can be stood in for, in bytes.
    #[serde(default = "default_max_body", with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub max_body: u64,
    /// After this nothing is sent any more: the entry is held for a person.
    #[serde(default = "default_expires", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub expires: Duration,
    /// What becomes of an entry whose client certainly never got its answer.
    #[serde(default)]
    pub unanswered: Unanswered,
}

/// One cause that lets a route stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum StandInOn {
    /// No connection to the app: certainly not applied.
    #[serde(rename = "connect")]
    Connect,
    /// The breaker is open: not even tried.
    #[serde(rename = "breaker")]
    Breaker,
    /// No answer within the timeout: may have been applied.
    #[serde(rename = "timeout")]
    Timeout,
    /// The connection broke before the answer: may have been applied.
    #[serde(rename = "reset")]
    Reset,
    /// The app answered 500, 502, 503 or 504: may have been applied.
    #[serde(rename = "5xx")]
    ServerError,
    /// No egress proxy led to the app: where the upstream has a pool.
    #[serde(rename = "egress")]
    Egress,
    /// Every request is stored and answered, whether the app is up or not (`deferred`).
    #[serde(rename = "always")]
    Always,
}

/// `at_most`: how much may be accepted and still open.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AtMost {
    /// Open entries of the route.
    pub open: u64,
    /// Sum of `sum_of` over the open entries of the route.
    pub open_sum: Option<i64>,
    /// CEL to an integer in minor units (cents).
    pub sum_of: Option<Expr>,
    /// Accepted per customer within a window.
    pub per_customer: Option<PerCustomer>,
}

/// `per_customer = { count = 3, within = "1h", by = "request.principal" }`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerCustomer {
    /// Requests accepted within the window.
    pub count: u32,
    /// Length of the window.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub within: Duration,
    /// CEL to a string; the principal when absent.
    pub by: Option<Expr>,
}

/// `answer`: what the client gets. Exactly one of `json`, `body` and `body_file`, or none for an empty body.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerConfig {
    /// Status, 200 to 599: the one the app itself would have used.
    pub status: u16,
    /// Headers of the answer besides `Date`, `Content-Length` and those that standin adds.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Structured: strings in it are templates, rendered and escaped by type.
    pub json: Option<serde_json::Value>,
    /// Text template.
    pub body: Option<String>,
    /// File with a text template, read at start.
    pub body_file: Option<PathBuf>,
}

/// What becomes of an entry nobody was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unanswered {
    /// Held for a person: nobody was promised anything, and a second click is likely.
    #[default]
    Hold,
    /// Replayed like any other.
    Replay,
}

impl StandInOn {
    /// As it is written in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Breaker => "breaker",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::ServerError => "5xx",
            Self::Egress => "egress",
            Self::Always => "always",
        }
    }

    /// Whether the app may have applied the request already, so that only its own protection makes a replay safe.
    pub fn needs_protection(&self) -> bool {
        match self {
            Self::Connect | Self::Breaker | Self::Egress => false,
            Self::Timeout | Self::Reset | Self::ServerError | Self::Always => true,
        }
    }
}

impl Default for AtMost {
    fn default() -> Self {
        Self { open: 1000, open_sum: None, sum_of: None, per_customer: None }
    }
}

fn default_max_body() -> u64 {
    1 << 20
}

fn default_expires() -> Duration {
    Duration::from_secs(24 * 3600)
}
