//! `[route.NAME.replay]`: how the entries of a route are sent once the app is back. `[replay]`: what all replays have.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;
use crate::expr::Expr;

/// `[replay]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplaysConfig {
    /// Signs replays in `standin-signature`, so that the app can tell them from what a client made up, and another
    /// standin with the same key never stands in for them; `"${env:NAME}"` or `"${file:PATH}"`.
    #[schemars(extend("writeOnly" = true))]
    pub signing_key: Option<SigningKey>,
}

/// A secret: never shown by `Debug`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SigningKey(pub String);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// `[route.NAME.replay]`
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// `auto`: when the app is back. `manual`: only when a person says so.
    pub trigger: Trigger,
    /// What counts as done: statuses or CEL over `response`. Default: 2xx.
    pub success: Option<OutcomeRule>,
    /// What says that the app had the request already. Default: nothing.
    pub already_applied: Option<OutcomeRule>,
    /// What says that this try was certainly not applied, such as the 503 of an app that sheds load: tried again, also
    /// where nothing protects, and live too. Default: 4xx that are tried again.
    pub not_applied: Option<OutcomeRule>,
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
    #[schemars(with = "units::DurationText")]
    pub min_backoff: Duration,
    /// Longest wait after a failed attempt.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub max_backoff: Duration,
    /// Headers set on every replay, replacing what the client sent: `{ authorization = "Bearer ${env:TOKEN}" }`.
    #[schemars(extend("writeOnly" = true))]
    pub set_headers: BTreeMap<String, String>,
    /// Headers and trailers of the request that are not kept with the entry, and so not replayed.
    pub redact: Vec<String>,
}

impl ReplayConfig {
    /// A header that is not kept with the entry.
    pub fn drops(&self, header: &str) -> bool {
        self.redact.iter().any(|name| name.eq_ignore_ascii_case(header))
    }
}

/// When replays start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    #[default]
    Auto,
    Manual,
}

/// Which answers: a list of statuses, or CEL to a bool over `response.{status,headers,body}`.
#[derive(Clone, Debug, JsonSchema)]
#[serde(untagged)]
pub enum OutcomeRule {
    /// These statuses.
    Statuses(Vec<u16>),
    /// CEL to a bool.
    Rule(Expr),
}

impl<'de> Deserialize<'de> for OutcomeRule {
    /// By hand, so that a fault of the expression is told instead of "no variant fits".
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = OutcomeRule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of statuses or CEL in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, source: &str) -> Result<OutcomeRule, E> {
                Expr::compile(source).map(OutcomeRule::Rule).map_err(E::custom)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<OutcomeRule, A::Error> {
                let mut statuses = Vec::new();
                while let Some(status) = items.next_element()? {
                    statuses.push(status);
                }
                Ok(OutcomeRule::Statuses(statuses))
            }
        }

        from.deserialize_any(Either)
    }
}

/// Values of headers may be credentials: only their names are shown.
impl std::fmt::Debug for ReplayConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hidden: BTreeMap<_, _> = self.set_headers.keys().map(|name| (name, "***")).collect();
        f.debug_struct("ReplayConfig")
            .field("trigger", &self.trigger)
            .field("success", &self.success)
            .field("already_applied", &self.already_applied)
            .field("not_applied", &self.not_applied)
            .field("retry", &self.retry)
            .field("declined", &self.declined)
            .field("max_attempts", &self.max_attempts)
            .field("pace", &self.pace)
            .field("min_backoff", &self.min_backoff)
            .field("max_backoff", &self.max_backoff)
            .field("set_headers", &hidden)
            .field("redact", &self.redact)
            .finish()
    }
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            trigger: Trigger::Auto,
            success: None,
            already_applied: None,
            not_applied: None,
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
