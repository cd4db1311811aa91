//! A route with its numbers and caps.

use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{At, BreakerStatus, grouped};
use crate::{
    admin::Handles,
    mode::Mode,
    router::Route,
    store::RouteTotals,
    telemetry::{ANSWERED, Answered, Counters, RouteCounters, WorkerCounters},
    time::UnixMillis,
};

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteStatus {
    pub name: String,
    /// The `match` of the route; empty when it is not configured any more.
    pub matches: String,
    pub upstream: String,
    /// Whether it has a `stand_in` at all.
    pub stands_in: bool,
    /// `auto`, `forced` or `pass_through`, as it acts now.
    #[schema(value_type = String)]
    pub mode: Mode,
    pub answers: Answers,
    /// Open entries, held ones among them.
    pub open: u64,
    pub held: u64,
    pub declined: u64,
    /// Sum of the amounts of open entries.
    pub open_sum: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_open: Option<At>,
    pub caps: Vec<CapUse>,
    /// Of this route alone; the whole upstream has one of its own, its condition.
    #[serde(default)]
    pub breaker: BreakerStatus,
    /// Stand-ins, since the start, whose app answered after all once its time was over: patience would have spared them.
    #[serde(default)]
    pub spurious: u64,
    /// The app has said that it is not to be stood in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub veto: Option<VetoView>,
}

/// The app's no to being stood in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VetoView {
    pub since: At,
    /// Absent: until the app takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<At>,
}

/// How requests ended since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answers {
    /// By the app, below 500.
    pub app: u64,
    /// By the app, 5xx.
    pub app_error: u64,
    /// Stored and answered by standin.
    pub stood_in: u64,
    /// A kept answer, given again.
    pub kept_again: u64,
    /// An honest error of standin.
    pub refused: u64,
    /// The client's fault.
    pub client_fault: u64,
    /// The client left before its answer.
    pub client_gone: u64,
}

/// How much of a cap is used.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CapUse {
    /// `open` or `open_sum`.
    pub cap: String,
    pub used: u64,
    pub limit: u64,
    /// `used / limit`.
    pub ratio: f64,
}

impl RouteStatus {
    pub(super) fn of(handles: &Handles, route: &Route, totals: &RouteTotals) -> Self {
        Self {
            name: route.name.to_string(),
            matches: route.config.matches.clone(),
            upstream: route.upstream.name.to_string(),
            stands_in: route.config.stand_in.is_some(),
            mode: handles.modes.of(&route.name),
            answers: Answers::of(&handles.counters, route.place),
            caps: caps(route, totals),
            breaker: BreakerStatus::of(&route.breaker),
            spurious: handles
                .counters
                .sum(|worker| counter(worker, route.place, |route| &route.spurious)),
            veto: route
                .veto
                .now(UnixMillis::now())
                .map(|said| VetoView { since: At(said.since), until: said.until.map(At) }),
            ..Self::gone(&route.name, totals)
        }
    }

    pub(super) fn gone(name: &str, totals: &RouteTotals) -> Self {
        Self {
            name: name.to_owned(),
            matches: String::new(),
            upstream: String::new(),
            stands_in: false,
            mode: Mode::Auto,
            answers: Answers::default(),
            open: totals.open,
            held: totals.held,
            declined: totals.declined,
            open_sum: totals.open_sum,
            oldest_open: totals.oldest_open.map(At),
            caps: Vec::new(),
            breaker: BreakerStatus::default(),
            spurious: 0,
            veto: None,
        }
    }
}

pub(crate) fn caps(route: &Route, totals: &RouteTotals) -> Vec<CapUse> {
    let Some(stand_in) = &route.config.stand_in else { return Vec::new() };
    let mut caps = vec![CapUse::new("open", totals.open, stand_in.at_most.open)];
    if let Some(limit) = stand_in.at_most.open_sum {
        let (used, limit) = (totals.open_sum.max(0).unsigned_abs(), limit.max(0).unsigned_abs());
        caps.push(CapUse::new("open_sum", used, limit));
    }
    caps
}

impl CapUse {
    fn new(cap: &str, used: u64, limit: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a ratio to look at")]
        let ratio = if limit == 0 { 1.0 } else { used as f64 / limit as f64 };
        Self { cap: cap.to_owned(), used, limit, ratio }
    }

    /// "the cap of 500 open entries".
    pub fn words(&self) -> String {
        match &*self.cap {
            "open" => format!("the cap of {} open entries", grouped(self.limit)),
            _ => format!("the cap of {} on the open sum", grouped(self.limit)),
        }
    }

    pub fn percent(&self) -> String {
        format!("{:.0}", (self.ratio * 100.0).min(999.0))
    }
}

impl Answers {
    pub(super) fn of(counters: &Counters, route: usize) -> Self {
        let sum = |answered: Answered| {
            let at = ANSWERED.iter().position(|(a, _)| *a == answered).unwrap_or(0);
            counters.sum(move |worker| counter(worker, route, |r| &r.answered[at]))
        };
        Self {
            app: sum(Answered::ByApp),
            app_error: sum(Answered::ByAppError),
            stood_in: sum(Answered::StoodIn),
            kept_again: sum(Answered::KeptAgain),
            refused: sum(Answered::Refused),
            client_fault: sum(Answered::ClientFault),
            client_gone: sum(Answered::ClientGone),
        }
    }
}

/// One counter of one route on one worker.
pub(crate) fn counter(
    worker: &WorkerCounters,
    route: usize,
    read: impl Fn(&RouteCounters) -> &AtomicU64,
) -> &AtomicU64 {
    read(worker.route(route))
}
