//! The breaker of a route as it stands, and the last switches of all breakers with what led to them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;
use crate::{
    admin::text,
    router::Routes,
    upstream::{MOST_SWITCHES, RouteBreaker, RouteState, Switch, breaker::Change},
};

/// Whether requests of a route reach the app at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerStatus {
    /// `closed`, `open` (nobody is let through) or `half_open` (one at a time finds out).
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    /// What opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// One switch of one breaker.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SwitchView {
    pub at: At,
    pub upstream: String,
    /// Absent: the breaker of the whole upstream. Empty: that of requests without a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `opened`, `half_opened` or `closed`.
    pub to: String,
    /// The signals, with their limits and counts.
    pub why: String,
}

impl Default for BreakerStatus {
    fn default() -> Self {
        Self { state: "closed".to_owned(), since: None, cause: None }
    }
}

impl BreakerStatus {
    /// The states that [`BreakerStatus::state`] may have.
    pub const STATES: [&str; 3] = ["closed", "open", "half_open"];

    pub(crate) fn of(breaker: &RouteBreaker) -> Self {
        let (state, since, cause) = match breaker.state() {
            RouteState::Closed => ("closed", None, None),
            RouteState::Open { since, cause } => ("open", Some(since), Some(cause)),
            RouteState::HalfOpen { since, cause } => ("half_open", Some(since), Some(cause)),
        };
        let cause = cause.map(|cause| text::line(&cause));
        Self { state: state.to_owned(), since: since.map(At), cause }
    }

    pub fn is_closed(&self) -> bool {
        self.state == "closed"
    }
}

impl SwitchView {
    /// The newest first, of all upstreams.
    pub(super) fn last_of(routes: &Routes) -> Vec<Self> {
        let upstreams = routes.upstreams.iter();
        let mut all: Vec<Switch> = upstreams.flat_map(|upstream| upstream.switches()).collect();
        all.sort_by_key(|switch| switch.at);
        all.iter().rev().take(MOST_SWITCHES).map(Self::of).collect()
    }

    fn of(switch: &Switch) -> Self {
        let to = match switch.change {
            Change::Opened => "opened",
            Change::HalfOpened => "half_opened",
            Change::Closed => "closed",
        };
        Self {
            at: At(switch.at),
            upstream: switch.upstream.to_string(),
            route: switch.route.as_ref().map(ToString::to_string),
            to: to.to_owned(),
            why: text::line(&switch.why),
        }
    }

    /// For people: whose breaker did what.
    pub fn what(&self) -> String {
        let whose = match self.route.as_deref() {
            None => format!("upstream {}", self.upstream),
            Some("") => format!("{} without a route", self.upstream),
            Some(route) => route.to_owned(),
        };
        let did = if self.to == "half_opened" { "lets one through" } else { &self.to };
        format!("breaker of {whose} {did}")
    }
}
