//! One endpoint of an upstream: where it is, how it stands and why, how busy it is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;
use crate::{admin::text, upstream::EndpointView};

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EndpointStatus {
    /// `HOST:PORT`.
    pub endpoint: String,
    /// Where that is now.
    pub addresses: Vec<String>,
    /// `only` (the upstream has no other: its condition counts), `up`, `slow_start` (back, with a growing share),
    /// `ejected` (gets nothing) or `probation` (one request at a time finds out).
    pub state: String,
    /// Since when, if it was ever otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    /// What it last failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Tries that it did not answer, since start.
    pub failures: u64,
    /// Times that it was ejected, since start.
    pub ejections: u64,
    /// Absent for an only endpoint: with nothing to choose nothing is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u64>,
    /// How long an answer takes, as the choice sees it: the peak of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

impl EndpointStatus {
    pub(super) fn of(view: EndpointView) -> Self {
        Self {
            endpoint: view.authority,
            addresses: view.addresses.iter().map(ToString::to_string).collect(),
            state: view.state.to_owned(),
            since: view.since.map(At),
            cause: view.cause.map(|cause| text::line(&cause)),
            failures: view.failures,
            ejections: view.ejections,
            in_flight: view.load.map(|load| u64::from(load.in_flight)),
            answered: view.load.map(|load| load.answered),
            latency_ms: view.load.map(|load| load.latency.as_secs_f64() * 1000.0),
        }
    }

    /// Whether it gets no requests, or not its full share.
    pub fn is_set_aside(&self) -> bool {
        matches!(&*self.state, "ejected" | "probation")
    }

    /// For people.
    pub fn latency(&self) -> String {
        self.latency_ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"))
    }
}
