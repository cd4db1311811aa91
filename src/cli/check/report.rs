//! What `check` has to say, as data.

use std::net::SocketAddr;

use serde::Serialize;

use crate::config::{EndpointIs, Role, Trigger, Unanswered, Warning};

/// Everything `check` has to say; `Display` for people, `Serialize` for programs.
#[derive(Debug, Serialize)]
pub struct Report {
    pub role: Role,
    pub listen: SocketAddr,
    /// Most specific first: the order in which they are tried.
    pub routes: Vec<RouteReport>,
    /// The upstream that takes what no route matches; always passed through.
    pub otherwise: Option<String>,
    pub upstreams: Vec<UpstreamReport>,
    pub store: StoreReport,
    pub admin: AdminReport,
    /// Whether the app can tell a replay from what a client made up.
    pub replays_signed: bool,
    pub warnings: Vec<Warning>,
}

/// One route.
#[derive(Debug, Serialize)]
pub struct RouteReport {
    pub name: String,
    #[serde(rename = "match")]
    pub matches: String,
    pub upstream: String,
    /// From the request fully sent to the head of the answer.
    pub timeout: String,
    /// Absent: passed through, with an honest error while the app is down.
    pub stand_in: Option<StandInReport>,
}

/// What a route does in the app's stead.
#[derive(Debug, Serialize)]
pub struct StandInReport {
    /// Causes that lead to a stand-in.
    pub on: Vec<&'static str>,
    /// Causes that do not: the client gets the app's answer, or an honest error.
    pub not_on: Vec<NotOn>,
    pub accept_if: String,
    pub at_worst: AtWorst,
    pub answer: AnswerReport,
    /// How the app refuses duplicates; absent: nothing protects replays.
    pub protected_by: Option<Protection>,
    /// What makes two requests the same: the first of these that a request has. A rule stands alone: a request for
    /// which it gives nothing is not stood in for.
    pub key: Vec<String>,
    /// Whose request it is; keys of different principals never meet.
    pub principal: String,
    /// Requests of one sequence are replayed in order.
    pub sequence_by: Option<String>,
    /// After this an entry is held for a person.
    pub expires: String,
    pub unanswered: Unanswered,
    pub replay: ReplayReport,
    pub kept: Kept,
}

/// Causes that share a reason.
#[derive(Debug, Serialize)]
pub struct NotOn {
    pub causes: Vec<&'static str>,
    pub why: &'static str,
}

/// How much a route may have accepted and still open.
#[derive(Debug, Serialize)]
pub struct AtWorst {
    pub open: u64,
    pub max_body: u64,
    /// Bodies and heads of all open entries.
    pub bytes: u64,
    pub sum: Option<i64>,
    pub sum_of: Option<String>,
    pub per_customer: Option<PerCustomerReport>,
}

#[derive(Debug, Serialize)]
pub struct PerCustomerReport {
    pub count: u32,
    pub within: String,
    pub by: String,
}

#[derive(Debug, Serialize)]
pub struct AnswerReport {
    pub status: u16,
    /// `json`, `text`, `text from FILE` or `empty`.
    pub body: String,
    pub headers: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Protection {
    pub header: String,
    #[serde(rename = "for")]
    pub remembers: String,
}

#[derive(Debug, Serialize)]
pub struct ReplayReport {
    pub trigger: Trigger,
    pub max_attempts: u32,
    pub at_once: u32,
    pub min_backoff: String,
    pub max_backoff: String,
    /// Names of headers that replace what the client sent.
    pub set_headers: Vec<String>,
}

/// What is written down of a request.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Credentials that are kept with the entry, in a file that only its owner can read.
    pub credentials: Vec<&'static str>,
    /// Headers that are not kept, and so not replayed.
    pub dropped: Vec<String>,
    pub labels: Vec<String>,
}

/// One upstream.
#[derive(Debug, Serialize)]
pub struct UpstreamReport {
    pub name: String,
    pub endpoints: Vec<String>,
    /// `proxy`: its own errors are no answers of the app.
    pub endpoint_is: EndpointIs,
    /// The pool of egress proxies through which it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    pub connect_timeout: String,
    pub timeout: String,
    pub late_window: String,
    pub breaker: BreakerReport,
    /// The path asked while it is down; absent: any answer to `HEAD /` is enough.
    pub health: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct BreakerReport {
    pub failures: u32,
    pub min_open: String,
    pub max_open: String,
}

#[derive(Debug, Serialize)]
pub struct StoreReport {
    pub path: String,
    pub max_bytes: u64,
    pub retention: String,
    pub dedupe_window: String,
    pub accepts_loss: bool,
    /// What all routes together may hold at worst.
    pub bytes_at_worst: u64,
}

#[derive(Debug, Serialize)]
pub struct AdminReport {
    pub address: SocketAddr,
    /// Whether other machines can reach it.
    pub open_to_others: bool,
    pub needs_token: bool,
    pub health: Option<SocketAddr>,
}
