//! The state in one sentence per route in trouble. Pure: given what is known, says what an operator must know first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ModesView, RouteStatus, StoreStatus, UpstreamStatus, counted};
use crate::{mode::Mode, time::UnixMillis};

/// How much a sentence matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing to do.
    Good,
    /// Worth knowing.
    Note,
    /// Standing in, or something waits for a person.
    Warn,
    /// Customers get errors, or a person forced something.
    Alarm,
}

/// One thing an operator must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sentence {
    pub severity: Severity,
    /// The route it is about; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    pub text: String,
}

/// What the sentences are made from.
pub(super) struct Known<'a> {
    pub(super) now: UnixMillis,
    pub(super) draining: bool,
    pub(super) standby: bool,
    pub(super) store: &'a StoreStatus,
    pub(super) modes: &'a ModesView,
    pub(super) upstreams: &'a [UpstreamStatus],
    pub(super) routes: &'a [RouteStatus],
    pub(super) replaying: bool,
}

impl Known<'_> {
    /// All sentences, worst first; "All routes answer." when there is no trouble.
    pub(super) fn sentences(&self) -> Vec<Sentence> {
        let mut all = Vec::new();
        self.whole(&mut all);
        for upstream in self.upstreams {
            self.upstream(upstream, &mut all);
        }
        for route in self.routes {
            self.route(route, &mut all);
        }
        all.sort_by_key(|sentence| std::cmp::Reverse(sentence.severity));
        if all.iter().all(|sentence| sentence.severity < Severity::Warn) {
            let text = if self.standby { "Standing by." } else { "All routes answer." };
            all.insert(0, Sentence { severity: Severity::Good, route: None, text: text.into() });
        }
        all
    }

    fn whole(&self, all: &mut Vec<Sentence>) {
        let mut say = |severity, text| all.push(Sentence { severity, route: None, text });
        if self.draining {
            say(
                Severity::Warn,
                "standin is draining: what is in flight finishes, nothing new is stored.".into(),
            );
        }
        if let Some(why) = &self.store.why
            && self.routes.iter().any(|route| route.stands_in)
        {
            say(
                Severity::Alarm,
                format!(
                    "No stand-ins: the store does not accept ({why}). Requests are still forwarded."
                ),
            );
        }
        if let Some(setting) = &self.modes.all {
            match setting.mode {
                Mode::Auto => {}
                Mode::Forced => say(
                    Severity::Alarm,
                    format!("Forced: every route stands in {}.", self.by(setting)),
                ),
                Mode::PassThrough => say(
                    Severity::Warn,
                    format!("Pass-through: no route makes new entries {}.", self.by(setting)),
                ),
            }
        }
    }

    fn upstream(&self, upstream: &UpstreamStatus, all: &mut Vec<Sentence>) {
        let stood_for =
            self.routes.iter().any(|route| route.stands_in && route.upstream == upstream.name);
        let mut say = |severity, text| all.push(Sentence { severity, route: None, text });
        match &*upstream.condition {
            // A standby never asks the app for live traffic, so that it has not answered means nothing.
            "unknown" if stood_for && !self.standby => say(
                Severity::Note,
                format!(
                    "{} has not answered since start: nothing stands in for it until it has.",
                    upstream.name
                ),
            ),
            "down" | "probing" if !stood_for => say(
                Severity::Alarm,
                format!(
                    "{} is down {}; no route stands in for it.",
                    upstream.name,
                    self.since(upstream)
                ),
            ),
            _ => {}
        }
    }

    fn route(&self, route: &RouteStatus, all: &mut Vec<Sentence>) {
        let mut say = |severity, text| {
            all.push(Sentence { severity, route: Some(route.name.clone()), text });
        };
        let name = &route.name;
        if let Some(setting) = self.modes.routes.get(name) {
            match setting.mode {
                Mode::Auto => {}
                Mode::Forced => say(
                    Severity::Alarm,
                    format!("{name} is forced to stand in {}.", self.by(setting)),
                ),
                Mode::PassThrough => say(
                    Severity::Warn,
                    format!("{name} makes no new entries (pass-through) {}.", self.by(setting)),
                ),
            }
        }
        let full = route.caps.iter().find(|cap| cap.used >= cap.limit);
        let upstream = self.upstreams.iter().find(|upstream| upstream.name == route.upstream);
        let down = upstream.filter(|u| matches!(&*u.condition, "down" | "probing"));
        if let (Some(upstream), true) = (down, route.stands_in) {
            let since = self.since(upstream);
            match (full, self.store.accepting, route.mode) {
                (_, _, Mode::PassThrough) => say(
                    Severity::Alarm,
                    format!("{name} fails {since} and does not stand in (pass-through)."),
                ),
                (_, false, _) => say(
                    Severity::Alarm,
                    format!("{name} fails {since} and cannot stand in: the store does not accept."),
                ),
                (Some(cap), ..) => say(
                    Severity::Alarm,
                    format!(
                        "{name} refuses new requests: {} is used up; down {since}.",
                        cap.words()
                    ),
                ),
                (None, true, _) => say(Severity::Warn, format!("{name} is standing in {since}.")),
            }
        } else if let Some(cap) = full {
            say(Severity::Alarm, format!("{name} could not stand in: {} is used up.", cap.words()));
        } else if let Some(cap) = route.caps.iter().find(|cap| cap.ratio >= 0.8) {
            say(Severity::Warn, format!("{name}: {} is nearly used up.", cap.words()));
        }
        self.work(route, down.is_some(), &mut say);
    }

    /// What waits for a person or for its replay.
    fn work(&self, route: &RouteStatus, down: bool, say: &mut impl FnMut(Severity, String)) {
        let name = &route.name;
        let waits: Vec<String> = [(route.held, "held"), (route.declined, "declined")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{} {what}", counted(n, "request is", "requests are")))
            .collect();
        if !waits.is_empty() {
            say(
                Severity::Warn,
                format!("{name}: {}; a person must look at the worklist.", waits.join(", ")),
            );
        }
        let queued = route.open.saturating_sub(route.held);
        if queued > 0 && !down {
            let what = counted(queued, "stored request", "stored requests");
            let doing = if self.replaying { "being replayed" } else { "waiting for replay" };
            say(Severity::Note, format!("{name}: {what} {doing}."));
        }
    }

    fn since(&self, upstream: &UpstreamStatus) -> String {
        let cause = upstream.cause.as_deref().unwrap_or("no cause known");
        match upstream.since {
            Some(since) => format!("since {}: {cause}", since.short(self.now)),
            None => format!("now: {cause}"),
        }
    }

    fn by(&self, setting: &super::ModeView) -> String {
        let until = setting.until.map_or_else(
            || format!("since {}", setting.since.short(self.now)),
            |until| format!("until {}", until.short(self.now)),
        );
        format!("{until}, by {} (“{}”)", setting.who, setting.why)
    }
}
