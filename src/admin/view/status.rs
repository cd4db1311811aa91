//! The state of the whole: routes, upstreams, store, modes, numbers.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{At, Sentence, Severity, grouped, sentence::Known};
use crate::{
    admin::{Handles, text},
    config::Role,
    mode::{Mode, Setting},
    replay::RunState,
    router::Route,
    store::{Accepting, RouteTotals},
    telemetry::{ANSWERED, Answered, Counters, RouteCounters, WorkerCounters},
    time::UnixMillis,
    upstream::{Condition, Upstream},
};

/// All that the first screen shows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub version: String,
    /// `inline` or `standby`.
    pub role: String,
    pub now: At,
    pub started_at: At,
    pub draining: bool,
    /// The worst of `sentences`.
    pub severity: Severity,
    /// What an operator must know, worst first.
    pub sentences: Vec<Sentence>,
    pub store: StoreStatus,
    pub modes: ModesView,
    pub upstreams: Vec<UpstreamStatus>,
    /// Routes of the configuration, then those that only entries know.
    pub routes: Vec<RouteStatus>,
    /// Requests without a route.
    pub without_route: Answers,
    /// Replay runs that go on now.
    pub runs_going_on: u64,
    pub connections_open: u64,
    pub requests_in_flight: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    pub accepting: bool,
    /// Why it does not accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Size of the file with its log.
    pub bytes: u64,
}

/// All settings of the mode.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ModesView {
    /// The setting for all routes; absent: `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<ModeView>,
    /// Settings of single routes; they win.
    pub routes: BTreeMap<String, ModeView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModeView {
    /// `auto`, `forced` or `pass_through`.
    #[schema(value_type = String)]
    pub mode: Mode,
    pub since: At,
    /// After this it is `auto` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<At>,
    pub who: String,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpstreamStatus {
    pub name: String,
    pub endpoints: Vec<String>,
    /// `unknown` (not seen to answer since start), `up`, `down` or `probing`.
    pub condition: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

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

impl Status {
    pub(crate) fn of(handles: &Handles, now: UnixMillis) -> Self {
        let totals = handles.store.totals();
        let modes = ModesView::of(handles, now);
        let store = StoreStatus::of(handles, totals.bytes);
        let upstreams: Vec<_> =
            handles.routes.upstreams.iter().map(|upstream| UpstreamStatus::of(upstream)).collect();
        let mut by_name: BTreeMap<&str, &Route> =
            handles.routes.all.iter().map(|route| (&*route.name, &**route)).collect();
        let mut routes: Vec<_> = by_name
            .values()
            .map(|route| {
                let totals = totals.routes.get(&route.name).cloned().unwrap_or_default();
                RouteStatus::of(handles, route, &totals)
            })
            .collect();
        for (name, totals) in &totals.routes {
            if by_name.remove(&**name).is_none() {
                routes.push(RouteStatus::gone(name, totals));
            }
        }
        let runs = handles.replay.runs();
        let going_on = runs
            .iter()
            .filter(|run| matches!(run.state, RunState::Running | RunState::Waiting(_)))
            .count();
        let draining = *handles.draining.borrow();
        let sentences = Known {
            now,
            draining,
            standby: handles.role == Role::Standby,
            store: &store,
            modes: &modes,
            upstreams: &upstreams,
            routes: &routes,
            replaying: runs.iter().any(|run| run.state == RunState::Running),
        }
        .sentences();
        Self {
            version: handles.version.to_owned(),
            role: role_word(handles.role).to_owned(),
            now: At(now),
            started_at: At(handles.started_at),
            draining,
            severity: sentences.first().map_or(Severity::Good, |worst| worst.severity),
            sentences,
            store,
            modes,
            upstreams,
            routes,
            without_route: Answers::of(&handles.counters, handles.routes.all.len()),
            runs_going_on: going_on as u64,
            connections_open: handles.counters.sum(|worker| &worker.connections_open),
            requests_in_flight: handles.counters.sum(|worker| &worker.requests_in_flight),
        }
    }

    /// All routes' answers together, those without a route too.
    pub fn answers(&self) -> Answers {
        let mut sum = self.without_route.clone();
        for route in &self.routes {
            sum.app += route.answers.app;
            sum.app_error += route.answers.app_error;
            sum.stood_in += route.answers.stood_in;
            sum.kept_again += route.answers.kept_again;
            sum.refused += route.answers.refused;
            sum.client_fault += route.answers.client_fault;
            sum.client_gone += route.answers.client_gone;
        }
        sum
    }

    pub fn open(&self) -> u64 {
        self.routes.iter().map(|route| route.open).sum()
    }

    pub fn held(&self) -> u64 {
        self.routes.iter().map(|route| route.held).sum()
    }

    pub fn declined(&self) -> u64 {
        self.routes.iter().map(|route| route.declined).sum()
    }

    pub fn oldest_open(&self) -> Option<At> {
        self.routes.iter().filter_map(|route| route.oldest_open).min()
    }

    /// Whether a person forced stand-ins, anywhere.
    pub fn forced(&self) -> bool {
        self.routes.iter().any(|route| route.mode == Mode::Forced)
            || self.modes.all.as_ref().is_some_and(|all| all.mode == Mode::Forced)
    }
}

impl RouteStatus {
    fn of(handles: &Handles, route: &Route, totals: &RouteTotals) -> Self {
        Self {
            name: route.name.to_string(),
            matches: route.config.matches.clone(),
            upstream: route.upstream.name.to_string(),
            stands_in: route.config.stand_in.is_some(),
            mode: handles.modes.of(&route.name),
            answers: Answers::of(&handles.counters, route.index),
            caps: caps(route, totals),
            ..Self::gone(&route.name, totals)
        }
    }

    fn gone(name: &str, totals: &RouteTotals) -> Self {
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
    fn of(counters: &Counters, route: usize) -> Self {
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

/// One counter of one route on one worker; a route the worker does not know counts in the last place.
pub(crate) fn counter(
    worker: &WorkerCounters,
    route: usize,
    read: impl Fn(&RouteCounters) -> &AtomicU64,
) -> &AtomicU64 {
    let last = worker.routes.len() - 1; // never empty: there is a place for requests without a route
    read(&worker.routes[route.min(last)])
}

impl ModesView {
    pub(crate) fn of(handles: &Handles, now: UnixMillis) -> Self {
        let settings = handles.modes.settings();
        let acts = |setting: &Setting| {
            setting.mode != Mode::Auto && setting.until.is_none_or(|until| until > now)
        };
        Self {
            all: settings.all.as_ref().filter(|setting| acts(setting)).map(ModeView::of),
            routes: settings
                .routes
                .iter()
                // A route's own `auto` matters too: it wins over what is set for all.
                .filter(|(_, setting)| setting.until.is_none_or(|until| until > now))
                .map(|(name, setting)| (name.clone(), ModeView::of(setting)))
                .collect(),
        }
    }
}

impl ModeView {
    fn of(setting: &Setting) -> Self {
        Self {
            mode: setting.mode,
            since: At(setting.since),
            until: setting.until.map(At),
            who: text::line(&setting.who),
            why: text::line(&setting.why),
        }
    }
}

impl UpstreamStatus {
    fn of(upstream: &Upstream) -> Self {
        let (condition, since, cause) = match &*upstream.condition().borrow() {
            Condition::Unknown => ("unknown", None, None),
            Condition::Up => ("up", None, None),
            Condition::Down { since, cause } => ("down", Some(*since), Some(text::line(cause))),
            Condition::Probing { since, cause } => {
                ("probing", Some(*since), Some(text::line(cause)))
            }
        };
        Self {
            name: upstream.name.to_string(),
            endpoints: upstream.config.endpoints.clone(),
            condition: condition.to_owned(),
            since: since.map(At),
            cause,
        }
    }
}

impl StoreStatus {
    fn of(handles: &Handles, bytes: u64) -> Self {
        match &*handles.store.accepting().borrow() {
            Accepting::Yes => Self { accepting: true, why: None, bytes },
            Accepting::No(why) => Self { accepting: false, why: Some(text::line(why)), bytes },
        }
    }
}

pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Inline => "inline",
        Role::Standby => "standby",
    }
}
