//! `[route.NAME]`: which requests it takes, what makes two of them the same, and what happens to them.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ReplayConfig, RouteEgressConfig, StandInConfig, StandInOn, units};
use crate::expr::Expr;

/// `[route.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// `"[METHOD] [HOST]/PATH"`; in the path `{name}` is one segment, `{name...}` the rest. The most specific route wins.
    #[serde(rename = "match")]
    pub matches: String,
    /// Name of the upstream; the only one, or the one marked `default`, when absent.
    pub upstream: Option<String>,
    /// Overrides the upstream's `timeout`.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub timeout: Option<Duration>,
    /// Most requests of the route in flight at the app at once, over all workers. Above it the app is not asked: a
    /// request is stood in for as with an open breaker, or gets an honest 503. Absent: no limit.
    pub in_flight: Option<NonZeroUsize>,
    /// How the app itself refuses duplicates: what protects replays.
    pub app_dedupes: Option<AppDedupes>,
    /// CEL to a string: what makes two requests the same, for example `body.cart_id`. Default: the client's
    /// `Idempotency-Key`, else the request id.
    pub dedupe_by: Option<Expr>,
    /// CEL to a string: whose request it is; keys are scoped by it. Default: `iss` and `sub` of a JWT, else a hash of
    /// `Authorization`, else nobody.
    pub principal: Option<Expr>,
    /// CEL to a string: requests of one sequence are replayed in order. Default for PUT, PATCH and
    /// DELETE: the path; for others: none.
    pub sequence_by: Option<Expr>,
    /// CEL to strings: what support searches entries by.
    #[serde(default)]
    pub labels: BTreeMap<String, Expr>,
    /// What is said of single requests.
    #[serde(default)]
    pub watch: WatchConfig,
    /// Which egress proxies it takes, where its upstream is reached through a pool.
    #[serde(default)]
    pub egress: RouteEgressConfig,
    /// Absent: standin never answers in the app's stead on this route.
    pub stand_in: Option<StandInConfig>,
    /// How the entries of the route are sent once the app is back.
    #[serde(default)]
    pub replay: ReplayConfig,
}

impl RouteConfig {
    /// Whether only `app_dedupes` makes a replay safe after `cause`. A 5xx that the route declares as not applied needs
    /// none, and the others are refused one by one.
    pub fn needs_protection(&self, cause: StandInOn) -> bool {
        let told_apart = cause == StandInOn::ServerError && self.replay.not_applied.is_some();
        cause.needs_protection() && !told_apart
    }

    /// What is written of the route speaks of cookies, and of no token: that may be all by which its clients differ.
    pub fn knows_clients_by_cookies(&self) -> bool {
        let at_most = self.stand_in.as_ref().map(|stand_in| &stand_in.at_most);
        let customer = at_most.and_then(|most| most.per_customer.as_ref()?.by.as_ref());
        let rules = self.stand_in.iter().map(|stand_in| &stand_in.accept_if);
        let rules = rules.chain(customer).chain(&self.sequence_by).chain(self.labels.values());
        let (mut cookies, mut tokens) = (self.replay.drops("cookie"), false);
        for rule in rules {
            cookies |= rule.reads_cookies();
            tokens |= rule.reads_token();
        }
        cookies && !tokens
    }

    /// What makes standin answer on this route: as written, or the default, which without protection is only what
    /// certainly never reached the app. Empty without `[stand_in]`.
    pub fn stands_in_on(&self) -> Vec<StandInOn> {
        let Some(stand_in) = &self.stand_in else { return Vec::new() };
        match (&stand_in.on, &self.app_dedupes) {
            (Some(on), _) => on.clone(),
            (None, None) => vec![StandInOn::Connect, StandInOn::Breaker],
            (None, Some(_)) => {
                vec![StandInOn::Connect, StandInOn::Breaker, StandInOn::Timeout, StandInOn::Reset]
            }
        }
    }
}

/// `[route.NAME.watch]`: what is said of single requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Times after which a request without the head of an answer is warned of, once each, with what it waits for; from
    /// short to long, at most 8. None by default.
    #[serde(with = "units::durations")]
    #[schemars(with = "Vec<units::DurationText>")]
    pub slow: Vec<Duration>,
    /// `"errors"`: request and answer of a failed exchange are kept for support, in memory, without credentials, cookies
    /// and card data. Absent: nothing is kept.
    pub record: Option<Recorded>,
}

/// Which exchanges are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// Those without an answer of the app, or with a 5xx.
    Errors,
}

/// `app_dedupes = { by = "x-request-id", for = "7d" }`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppDedupes {
    /// The header by which the app knows a duplicate.
    pub by: DedupesBy,
    /// How long the app remembers; `expires` must be shorter.
    #[serde(rename = "for", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub remembers: Duration,
}

/// A header by which an app knows a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DedupesBy {
    /// The request id, under the header name of `[request_id]`.
    #[serde(rename = "x-request-id")]
    RequestId,
    /// `Idempotency-Key`: the client's own, or filled in by standin.
    #[serde(rename = "idempotency-key")]
    IdempotencyKey,
}
