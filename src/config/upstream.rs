//! `[upstream.NAME]`: an app, its addresses and how patient we are with it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;

/// `[upstream.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// `http://HOST:PORT` of each endpoint.
    pub endpoints: Vec<String>,
    /// Longest time from the request fully sent to the head of the answer.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Longest time for a connection to one endpoint.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// Longest silence within the body of an answer.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub body_idle: Duration,
    /// How long a timed-out exchange runs on, in case the app still answers. No replay before its end.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub late_window: Duration,
    /// Timed-out exchanges that may run on at once, per worker; above it the oldest is cut.
    pub late_max: usize,
    /// Takes what no route matches (needed with more than one upstream).
    pub default: bool,
    pub health: HealthConfig,
    pub breaker: BreakerConfig,
    pub connections: ConnectionsConfig,
}

/// `[upstream.NAME.health]`: how standin asks whether the app is back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Path for a GET that must answer 2xx; absent: that a connection can be opened is enough.
    pub path: Option<String>,
    /// Time between two questions while the app is down (it is not asked while it answers).
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// Longest time for one question.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

/// `[upstream.NAME.breaker]`: when the app counts as down, and when it is tried again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row (no answer, or 5xx) that open the breaker.
    pub failures: u32,
    /// First time the breaker stays open; doubles with each failed trial.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub min_open: Duration,
    /// Longest time the breaker stays open between two trials.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub max_open: Duration,
    /// Successes in a row, while half-open, that close the breaker.
    pub successes: u32,
}

/// `[upstream.NAME.connections]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsConfig {
    /// Idle connections kept, per worker and endpoint.
    pub idle: usize,
    /// Longest idle time of a kept connection; must be shorter than the app's own keep-alive time.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub idle_time: Duration,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(3),
            body_idle: Duration::from_secs(60),
            late_window: Duration::from_secs(60),
            late_max: 256,
            default: false,
            health: HealthConfig::default(),
            breaker: BreakerConfig::default(),
            connections: ConnectionsConfig::default(),
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(1), timeout: Duration::from_secs(2) }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            min_open: Duration::from_secs(1),
            max_open: Duration::from_secs(30),
            successes: 1,
        }
    }
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self { idle: 128, idle_time: Duration::from_secs(4) }
    }
}
