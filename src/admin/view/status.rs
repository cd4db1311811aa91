//! The state of the whole: routes, upstreams, store, modes, numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Answers, At, ConfigStatus, EgressSummary, EndpointStatus, ModesView, RouteStatus, Sentence,
    Severity, SwitchView, TlsView, sentence::Known,
};
use crate::{
    admin::{Handles, text},
    config::Role,
    mode::Mode,
    replay::RunState,
    router::{Route, Routes},
    store::Accepting,
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
    pub config: ConfigStatus,
    pub modes: ModesView,
    pub upstreams: Vec<UpstreamStatus>,
    /// Certificates; empty without TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<TlsView>,
    /// Routes of the configuration, then those that only entries know.
    pub routes: Vec<RouteStatus>,
    /// The last switches of all breakers, newest first.
    #[serde(default)]
    pub switches: Vec<SwitchView>,
    /// Requests without a route.
    pub without_route: Answers,
    /// Pools of egress proxies, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressSummary>,
    /// Whether a route keeps failed exchanges.
    #[serde(default)]
    pub records: bool,
    /// Replay runs that go on now.
    pub runs_going_on: u64,
    pub connections_open: u64,
    pub requests_in_flight: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    pub accepting: bool,
    /// Its file is damaged: nothing is stored or replayed until a person has looked at it.
    #[serde(default)]
    pub damaged: bool,
    /// Why it does not accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Size of the file with its log.
    pub bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpstreamStatus {
    pub name: String,
    pub endpoints: Vec<String>,
    /// How each of them stands, in their order.
    #[serde(default)]
    pub endpoint_states: Vec<EndpointStatus>,
    /// `unknown` (not seen to answer since start), `up`, `down` or `probing`.
    pub condition: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Who is asked before anything is stood in for, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<String>,
    /// Requests, since the start, that one of them answered.
    #[serde(default)]
    pub by_backups: u64,
    /// A sign in its answers that a proxy stands before the app, where the configuration says that none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexpected_proxy: Option<String>,
}

impl Status {
    pub(crate) fn of(handles: &Handles, now: UnixMillis) -> Self {
        let totals = handles.store.totals();
        let modes = ModesView::of(handles, now);
        let store = StoreStatus::of(handles, totals.bytes);
        let known = handles.routes.now();
        let upstreams: Vec<_> =
            (0..known.upstreams.len()).map(|at| UpstreamStatus::of(&known, at)).collect();
        let mut by_name: BTreeMap<&str, &Route> =
            known.all.iter().map(|route| (&*route.name, &**route)).collect();
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
        let config = ConfigStatus::of(&handles.reload.state());
        let egress = EgressSummary::all(handles);
        let tls = tls_views(handles);
        let mut sentences = Known {
            now,
            draining,
            standby: handles.role == Role::Standby,
            store: &store,
            config: &config,
            modes: &modes,
            upstreams: &upstreams,
            routes: &routes,
            egress: &egress,
            replaying: runs.iter().any(|run| run.state == RunState::Running),
            clock_jump: handles.clocks.last_jump(),
        }
        .sentences();
        sentences.extend(tls.iter().flat_map(|tls| tls.sentences(now)));
        // Among quiet ones the headline stays in front.
        sentences.sort_by_key(|sentence| std::cmp::Reverse(sentence.severity.max(Severity::Note)));
        Self {
            version: handles.version.to_owned(),
            role: role_word(handles.role).to_owned(),
            now: At(now),
            started_at: At(handles.started_at),
            draining,
            severity: sentences.first().map_or(Severity::Good, |worst| worst.severity),
            sentences,
            store,
            config,
            modes,
            upstreams,
            tls,
            routes,
            switches: SwitchView::last_of(&known),
            egress,
            without_route: Answers::of(&handles.counters, 0),
            records: known.all.iter().any(|route| route.config.watch.record.is_some()),
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

    /// Whether some upstream has several endpoints.
    pub fn has_choice(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.endpoint_states.len() > 1)
    }

    /// Whether a person forced stand-ins, anywhere.
    pub fn forced(&self) -> bool {
        self.routes.iter().any(|route| route.mode == Mode::Forced)
            || self.modes.all.as_ref().is_some_and(|all| all.mode == Mode::Forced)
    }
}

/// The sections of TLS, the listener's first.
pub(crate) fn tls_views(handles: &Handles) -> Vec<TlsView> {
    let listen = handles.tls.iter().map(|tls| TlsView::of(tls.status(), false));
    let routes = handles.routes.now();
    let upstreams = routes
        .upstreams
        .iter()
        .filter_map(|upstream| Some(TlsView::of(upstream.tls_status()?, upstream.is_insecure())));
    listen.chain(upstreams).collect()
}

impl UpstreamStatus {
    fn of(routes: &Routes, at: usize) -> Self {
        let upstream: &Upstream = &routes.upstreams[at];
        let backups = routes.backups[at].as_ref();
        let named = |at: &usize| routes.upstreams.get(*at).map(|one| one.name.to_string());
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
            endpoint_states: upstream.endpoints_now().into_iter().map(EndpointStatus::of).collect(),
            condition: condition.to_owned(),
            since: since.map(At),
            cause,
            backups: backups.iter().flat_map(|all| &all.order).filter_map(named).collect(),
            by_backups: backups.map_or(0, |all| all.answered.now()),
            unexpected_proxy: upstream.unexpected_proxy().map(|sign| text::line(&sign)),
        }
    }
}

impl StoreStatus {
    fn of(handles: &Handles, bytes: u64) -> Self {
        let why = match &*handles.store.accepting().borrow() {
            Accepting::Yes => None,
            Accepting::No(why) => Some(text::line(why)),
        };
        Self { accepting: why.is_none(), damaged: handles.store.is_damaged(), why, bytes }
    }
}

pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Inline => "inline",
        Role::Standby => "standby",
    }
}
