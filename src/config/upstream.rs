//! `[upstream.NAME]`: an app, its addresses and how patient we are with it.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    time::Duration,
};

use http::uri::Authority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Http2, UpstreamTlsConfig,
    endpoints::{Balance, EjectionConfig, ResolverConfig, RetryBudgetConfig},
    units,
};

/// `[upstream.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The app's addresses, each `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// Longest time from the request fully sent to the head of the answer.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// Longest time for a connection to one endpoint.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub connect_timeout: Duration,
    /// Longest silence within the body of an answer.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub body_idle: Duration,
    /// How long a timed-out exchange runs on, in case the app still answers. No replay before its end.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub late_window: Duration,
    /// Timed-out exchanges that may run on at once, per worker; above it the oldest is cut.
    pub late_max: usize,
    /// Most requests in flight at the app at once, over all workers and routes; replays have a pace of their own. Above
    /// it the app is not asked, as above `in_flight` of a route. Absent: no limit.
    pub in_flight: Option<NonZeroUsize>,
    /// Takes what no route matches (needed with more than one upstream).
    pub default: bool,
    /// Other upstreams that are asked, in this order and each followed by its own, before anything is stood in for: with
    /// any request that certainly did not reach this one, and after a broken connection with what only reads.
    pub backup: Vec<String>,
    /// Who takes the connections: `"app"`, or `"proxy"` where a mesh sidecar, gateway or load balancer stands before it.
    pub endpoint_is: EndpointIs,
    /// Name of the pool of egress proxies through which it is reached. Default: it is reached directly.
    pub egress: Option<String>,
    /// How standin asks whether the app is back.
    pub health: HealthConfig,
    /// When the app counts as down, and when it is tried again.
    pub breaker: BreakerConfig,
    /// Connections to the app.
    pub connections: ConnectionsConfig,
    /// Where HTTP/2 is spoken to the app: `"alpn"` where TLS agrees on it, `"prior_knowledge"` always, in clear too,
    /// `"never"`. WebSockets have connections of their own, in HTTP/1.1.
    pub http2: Http2,
    /// TLS to the app; for endpoints that begin with `https://`.
    pub tls: Option<UpstreamTlsConfig>,
    /// Which endpoint gets a request, where there are several.
    pub balance: Balance,
    /// When an endpoint that fails gets no requests for a time, while others answer.
    pub ejection: EjectionConfig,
    /// How long an endpoint that comes back takes to get its full share; `0s`: at once.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub slow_start: Duration,
    /// How many tries beyond the first a request may cost.
    pub retry_budget: RetryBudgetConfig,
    /// Who turns names into addresses: `"dns"`, `"system"` or `{ servers = [...] }`.
    pub resolver: ResolverConfig,
}

/// Who takes standin's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndpointIs {
    /// The app: a connection that fails means that it is down, and each answer is its own.
    #[default]
    App,
    /// A proxy: connecting always succeeds, and its own 502, 503 and 504 mean what no answer means.
    Proxy,
}

/// `[upstream.NAME.health]`: how standin asks whether the app is back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Path for a GET that must answer 2xx; absent: any answer to `HEAD /` but 502, 503 and 504 is enough.
    pub path: Option<String>,
    /// Time between two questions while the app, or one of its endpoints, is down.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub interval: Duration,
    /// Longest time for one question.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// Whether endpoints are asked while they answer, too: `ejection.failures` questions in vain eject one.
    pub always: bool,
}

/// `[upstream.NAME.breaker]`: when the app, or one route of it, counts as down, and when it is tried again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row that open the breaker: connections that fail count for the app; timeouts, broken connections,
    /// 502, 503 and 504 for their route, and for the app if it does not answer the health question either.
    pub failures: u32,
    /// First time the breaker stays open; doubles with each failed trial, and where it flaps.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub min_open: Duration,
    /// Longest time the breaker stays open between two trials.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub max_open: Duration,
    /// Successes in a row, while half-open, that close the breaker.
    pub successes: u32,
    /// Opens the breaker of a route whose answers have become slow; absent: slow answers are answers.
    pub slow: Option<SlowConfig>,
}

/// `slow` in `[upstream.NAME.breaker]`: the `quantile` of the last `of_last` answers of a route is `above` this time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowConfig {
    /// Which of the answers counts, sorted by their time: `0.9` is the one that nine of ten are not slower than.
    pub quantile: f64,
    /// The time to the head of the answer that is too long.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub above: Duration,
    /// Answers that are looked at, the newest; fewer decide nothing.
    pub of_last: usize,
}

/// `[upstream.NAME.connections]`: each worker has connections of its own to each endpoint.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsConfig {
    /// Most connections that take requests, per worker and endpoint; with HTTP/2 one is enough. Absent: as many as the
    /// requests need.
    pub max: Option<NonZeroUsize>,
    /// Requests that may wait, `connect_timeout` at most, for one of `max` connections, per worker and endpoint.
    pub queue: usize,
    /// Requests after which a connection is replaced. Absent: no limit.
    pub max_requests: Option<NonZeroU64>,
    /// Connections opened at the start, and opened again when they are gone, per worker and endpoint.
    pub keep_open: usize,
    /// Idle HTTP/1.1 connections kept, per worker and endpoint.
    pub idle: usize,
    /// Longest idle time of a kept connection; must be shorter than the app's own keep-alive time.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_time: Duration,
    /// How long after its last use a connection is believed to be there still. After that a request which may not be
    /// sent twice gets a fresh one, and an HTTP/2 connection must answer a ping first.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub trust_idle: Duration,
    /// Silence after which TCP asks whether the other end is still there; `0s`: never.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub tcp_keepalive: Duration,
    /// Silence on an HTTP/2 connection after which the app gets a ping; `0s`: never.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub ping: Duration,
    /// Longest time for the answer to a ping: without one the connection is over, and all that is on it.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub ping_timeout: Duration,
}

impl ConnectionsConfig {
    /// How long after its last use any request may go on a connection.
    pub fn trusted(&self) -> Duration {
        self.trust_idle.min(self.usable())
    }

    /// The same for a request that may be sent twice. What is kept open is used however old it is.
    pub fn usable(&self) -> Duration {
        if self.keep_open > 0 { Duration::MAX } else { self.idle_time }
    }
}

/// Whether an endpoint is reached over TLS.
pub fn is_https(endpoint: &str) -> bool {
    endpoint.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
}

/// Host and port of an endpoint written `http://HOST:PORT` or `https://HOST:PORT`. The message never shows a user or a
/// password.
pub fn parse_endpoint(text: &str) -> Result<Authority, String> {
    const FORM: &str = "write for example \"http://127.0.0.1:3000\"";
    let rest = text.split_once("://").filter(|(scheme, _)| {
        ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    });
    let Some((_, rest)) = rest else {
        return Err(format!("`{}` does not start with http:// or https://; {FORM}", shown(text)));
    };
    if rest.contains('@') {
        return Err(format!("an endpoint has no user and no password; {FORM}"));
    }
    if let Some(path) = rest.find(['/', '?', '#']) {
        return Err(format!(
            "`{text}`: an endpoint ends after the port: leave out `{}`",
            &rest[path..]
        ));
    }
    let authority: Authority =
        rest.parse().map_err(|_| format!("`{text}` is not HOST:PORT; {FORM}"))?;
    match authority.port_u16() {
        Some(1..) if !authority.host().is_empty() => Ok(authority),
        _ => Err(format!("`{text}` has no port; {FORM}")),
    }
}

/// Without what stands before an `@`.
fn shown(text: &str) -> &str {
    text.rsplit('@').next().unwrap_or(text)
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
            in_flight: None,
            default: false,
            backup: Vec::new(),
            endpoint_is: EndpointIs::default(),
            egress: None,
            health: HealthConfig::default(),
            breaker: BreakerConfig::default(),
            connections: ConnectionsConfig::default(),
            http2: Http2::default(),
            tls: None,
            balance: Balance::default(),
            ejection: EjectionConfig::default(),
            slow_start: Duration::from_secs(10),
            retry_budget: RetryBudgetConfig::default(),
            resolver: ResolverConfig::default(),
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            always: false,
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            min_open: Duration::from_secs(1),
            max_open: Duration::from_secs(30),
            successes: 1,
            slow: None,
        }
    }
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max: None,
            queue: 1024,
            max_requests: None,
            keep_open: 0,
            idle: 128,
            idle_time: Duration::from_secs(4),
            trust_idle: Duration::from_secs(4),
            tcp_keepalive: Duration::from_secs(60),
            ping: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        for text in [
            "https://a:443",
            "http://127.0.0.1:3000",
            "http://[::1]:80",
            "http://shop.svc:8080",
            "HTTP://a:1",
        ] {
            assert!(parse_endpoint(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:3000",
            "http://",
            "http://a",
            "http://a:0",
            "http://a:99999",
            "http://:80",
            "http://a:80/",
            "http://a:80/x",
            "http://a:80?x",
            "https://a",
            "unix:///run/app",
            "http://a b:80",
        ] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_shown() {
        for text in ["http://bob:hunter2@a:80", "https://bob:hunter2@a:80", "bob:hunter2@a"] {
            let message = parse_endpoint(text).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
