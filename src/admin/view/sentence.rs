//! The state in one sentence per route in trouble. Pure: given what is known, says what an operator must know first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    At, ConfigStatus, EgressSummary, ModesView, RouteStatus, StoreStatus, UpstreamStatus, counted,
};
use crate::{clocks::Jump, mode::Mode, time::UnixMillis};

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
    pub(super) config: &'a ConfigStatus,
    pub(super) modes: &'a ModesView,
    pub(super) upstreams: &'a [UpstreamStatus],
    pub(super) routes: &'a [RouteStatus],
    pub(super) egress: &'a [EgressSummary],
    pub(super) replaying: bool,
    pub(super) clock_jump: Option<Jump>,
}

impl Known<'_> {
    /// All sentences, worst first; that all routes answer when there is no trouble.
    pub(super) fn sentences(&self) -> Vec<Sentence> {
        let mut all = Vec::new();
        self.whole(&mut all);
        for upstream in self.upstreams {
            self.upstream(upstream, &mut all);
        }
        for pool in self.egress {
            egress(pool, &mut all);
        }
        for route in self.routes {
            self.route(route, &mut all);
        }
        for upstream in self.upstreams {
            self.standing_in(upstream, &mut all);
        }
        // Among equals, what goes on now comes before what waits for a person.
        all.sort_by_key(|s| (std::cmp::Reverse(s.severity), !s.text.contains(" standing in ")));
        if all.iter().all(|sentence| sentence.severity < Severity::Warn) {
            let unknown = self.upstreams.iter().any(|upstream| upstream.condition == "unknown");
            let text = match (self.standby, unknown) {
                (true, _) => "Standing by.",
                (false, true) => "No trouble so far: not every app has been asked yet.",
                (false, false) => "All routes answer.",
            };
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
            let text = if self.store.damaged {
                format!(
                    "No stand-ins and no replays: {why}. Its file is left as it is, for a person. \
                     Requests are still forwarded."
                )
            } else {
                format!(
                    "No stand-ins: the store does not accept ({why}). Requests are still forwarded."
                )
            };
            say(Severity::Alarm, text);
        }
        if let Some((at, why)) = self.config.refused() {
            let (at, since) = (at.short(self.now), self.config.loaded_at.short(self.now));
            say(
                Severity::Warn,
                format!(
                    "The configuration was refused at {at}, and that of {since} goes on: {why}"
                ),
            );
        }
        if let Some(jump) = self.clock_jump
            && self.now.0.abs_diff(jump.found_at.0) < JUMP_SHOWN_MS
        {
            let (seconds, back) = (jump.by_ms.abs() / 1000, jump.by_ms < 0);
            let how = if back { "back" } else { "ahead" };
            let text = format!(
                "The clock jumped {how} by {seconds} s at {}, or the machine slept: what waits or \
                 expires goes by it.",
                At(jump.found_at).short(self.now)
            );
            say(Severity::Warn, text);
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
        if let Some(sign) = &upstream.unexpected_proxy
            && stood_for
        {
            say(
                Severity::Note,
                format!(
                    "A proxy seems to stand before {} ({sign}): set `endpoint_is = \"proxy\"`, so that its own errors \
                     count as an app that is down.",
                    upstream.name
                ),
            );
        }
        match &*upstream.condition {
            // A standby never asks the app for live traffic, so that it has not answered means nothing.
            "unknown" if stood_for && !self.standby => say(
                Severity::Note,
                format!(
                    "{} has not answered since start: nothing stands in for it until it has.",
                    upstream.name
                ),
            ),
            "down" | "probing" if self.backup_of(upstream).is_some() => say(
                Severity::Warn,
                format!(
                    "{} is down {}; {} is asked what did not reach it.",
                    upstream.name,
                    self.since(upstream),
                    self.backup_of(upstream).unwrap_or_default(),
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
            "up" => self.endpoints(upstream, &mut say),
            _ => {}
        }
    }

    /// The first of its backups that is not down.
    fn backup_of<'u>(&self, upstream: &'u UpstreamStatus) -> Option<&'u str> {
        let down = |name: &str| {
            let known = self.upstreams.iter().find(|one| one.name == name);
            known.is_none_or(|one| matches!(&*one.condition, "down" | "probing"))
        };
        upstream.backups.iter().map(String::as_str).find(|name| !down(name))
    }

    /// While the app answers: which of its endpoints do not.
    fn endpoints(&self, upstream: &UpstreamStatus, say: &mut impl FnMut(Severity, String)) {
        let aside: Vec<_> =
            upstream.endpoint_states.iter().filter(|endpoint| endpoint.is_set_aside()).collect();
        let Some(first) = aside.first() else { return };
        let cause = first.cause.as_deref().unwrap_or("no cause known");
        let since =
            first.since.map_or_else(String::new, |at| format!(" since {}", at.short(self.now)));
        let (all, endpoint) = (upstream.endpoint_states.len(), &first.endpoint);
        let which = match aside.len() {
            1 => format!("{endpoint} (one of {all} endpoints of {}) is", upstream.name),
            n => format!("{n} of {all} endpoints of {} are, {endpoint} is", upstream.name),
        };
        say(Severity::Note, format!("{which} set aside{since}: {cause}. The others answer."));
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
        if let (Some(veto), true) = (&route.veto, route.stands_in) {
            let until = veto.until.map_or_else(
                || "until it takes that back".to_owned(),
                |until| format!("until {}", until.short(self.now)),
            );
            let since = veto.since.short(self.now);
            let severity = if down.is_some() { Severity::Alarm } else { Severity::Warn };
            say(
                severity,
                format!("{name} is not stood in for: its app said no at {since}, {until}."),
            );
        }
        if down.is_none() && !route.breaker.is_closed() {
            let since = route
                .breaker
                .since
                .map_or_else(String::new, |since| format!(" since {}", since.short(self.now)));
            let cause = route.breaker.cause.as_deref().unwrap_or("its breaker is open");
            say(Severity::Warn, format!("{name} alone does not answer{since}: {cause}."));
        }
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
                (None, true, _) => {} // one sentence for all of its upstream
            }
        } else if let Some(cap) = full {
            say(Severity::Alarm, format!("{name} could not stand in: {} is used up.", cap.words()));
        } else if let Some(cap) = route.caps.iter().find(|cap| cap.ratio >= 0.8) {
            say(Severity::Warn, format!("{name}: {} is nearly used up.", cap.words()));
        }
        self.work(route, down.is_some(), &mut say);
    }

    /// The routes that stand in for one upstream, in one sentence.
    fn standing_in(&self, upstream: &UpstreamStatus, all: &mut Vec<Sentence>) {
        let stands = |route: &&RouteStatus| {
            route.stands_in
                && route.upstream == upstream.name
                && route.mode != Mode::PassThrough
                && route.veto.is_none()
                && route.caps.iter().all(|cap| cap.used < cap.limit)
        };
        let names: Vec<&str> =
            self.routes.iter().filter(stands).map(|route| &*route.name).collect();
        if !matches!(&*upstream.condition, "down" | "probing")
            || !self.store.accepting
            || self.backup_of(upstream).is_some()
        {
            return;
        }
        let (route, who) = match &*names {
            [] => return,
            [one] => (Some((*one).to_owned()), format!("{one} is")),
            [one, two] => (None, format!("{one} and {two} are")),
            [one, two, more @ ..] => (None, format!("{one}, {two} and {} more are", more.len())),
        };
        let text = format!("{who} standing in {}.", self.since(upstream));
        all.push(Sentence { severity: Severity::Warn, route, text });
    }

    /// What waits for a person or for its replay.
    fn work(&self, route: &RouteStatus, down: bool, say: &mut impl FnMut(Severity, String)) {
        let name = &route.name;
        if route.held > 0 {
            let what = counted(route.held, "request waits", "requests wait");
            say(Severity::Warn, format!("{name}: {what} for a person's decision (worklist)."));
        }
        if route.declined > 0 {
            let what = counted(route.declined, "request was", "requests were");
            say(
                Severity::Warn,
                format!("{name}: {what} declined by the app after a yes (worklist)."),
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

fn egress(pool: &EgressSummary, all: &mut Vec<Sentence>) {
    let mut say = |severity, text| all.push(Sentence { severity, route: None, text });
    let EgressSummary { name, active, draining, cooling, fault } = pool;
    if *active == 0 {
        let text = format!(
            "No way out through {name}: no proxy is active, {draining} drain, {cooling} cool."
        );
        say(Severity::Alarm, text);
    } else if *cooling > 0 {
        say(
            Severity::Note,
            format!("Of the egress proxies of {name} {cooling} cool, {active} are active."),
        );
    }
    if let Some(fault) = fault {
        say(Severity::Warn, format!("The list of egress proxies of {name} is refused: {fault}."));
    }
}

/// For how long a jump of the clock is told.
const JUMP_SHOWN_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::admin::view::{Answers, At, BreakerStatus, CapUse, ModeView};

    const NOW: UnixMillis = UnixMillis(1_795_356_125_250);

    fn route(name: &str) -> RouteStatus {
        RouteStatus {
            name: name.into(),
            matches: format!("POST /{name}"),
            upstream: "shop".into(),
            stands_in: true,
            mode: Mode::Auto,
            answers: Answers::default(),
            open: 0,
            held: 0,
            declined: 0,
            open_sum: 0,
            oldest_open: None,
            caps: vec![CapUse { cap: "open".into(), used: 0, limit: 10, ratio: 0.0 }],
            breaker: BreakerStatus::default(),
            spurious: 0,
            veto: None,
        }
    }

    fn upstream(condition: &str) -> UpstreamStatus {
        let down = condition == "down";
        UpstreamStatus {
            name: "shop".into(),
            endpoints: Vec::new(),
            endpoint_states: Vec::new(),
            condition: condition.into(),
            since: down.then_some(At(NOW)),
            cause: down.then(|| "connection refused".into()),
            backups: Vec::new(),
            by_backups: 0,
            unexpected_proxy: None,
        }
    }

    fn in_force() -> ConfigStatus {
        ConfigStatus { file: None, generation: 1, loaded_at: At(NOW), last: None }
    }

    fn says(
        condition: &str,
        routes: &[RouteStatus],
        change: impl Fn(&mut Known<'_>),
    ) -> Vec<(Severity, String)> {
        let store = StoreStatus { accepting: true, damaged: false, why: None, bytes: 0 };
        let upstreams = [upstream(condition)];
        let modes = ModesView::default();
        let config = in_force();
        let mut known = Known {
            now: NOW,
            draining: false,
            standby: false,
            store: &store,
            config: &config,
            modes: &modes,
            upstreams: &upstreams,
            routes,
            egress: &[],
            replaying: false,
            clock_jump: None,
        };
        change(&mut known);
        known.sentences().into_iter().map(|s| (s.severity, s.text)).collect()
    }

    #[test]
    fn a_quiet_day_is_one_sentence() {
        let said = says("up", &[route("checkout")], |_| {});
        assert_eq!(said, [(Severity::Good, "All routes answer.".into())]);
        let said = says("unknown", &[route("checkout")], |_| {});
        let text = "No trouble so far: not every app has been asked yet.";
        assert_eq!(said[0], (Severity::Good, text.into()), "nobody knows that it answers");
        assert_eq!(said[1].0, Severity::Note);
    }

    #[test]
    fn an_outage_is_one_sentence_however_many_routes_stand_in() {
        let said = says("down", &[route("checkout")], |_| {});
        let text = "checkout is standing in since 14:02 UTC: connection refused.";
        assert_eq!(said, [(Severity::Warn, text.into())]);
        let said = says("down", &["a", "b", "c", "d"].map(route), |_| {});
        assert_eq!(
            said[0].1,
            "a, b and 2 more are standing in since 14:02 UTC: connection refused."
        );
    }

    #[test]
    fn a_clock_that_jumped_is_told_for_an_hour() {
        let jumped = |ago_ms, by_ms| {
            let found_at = UnixMillis(NOW.0 - ago_ms);
            let said = says("up", &[], |known| known.clock_jump = Some(Jump { found_at, by_ms }));
            said.into_iter().next().unwrap()
        };
        let (severity, text) = jumped(60_000, 3_600_000);
        assert_eq!(severity, Severity::Warn);
        assert!(text.starts_with("The clock jumped ahead by 3600 s at "), "{text}");
        assert!(jumped(60_000, -5000).1.starts_with("The clock jumped back by 5 s at "));
        assert_eq!(jumped(3_600_000, 5000).0, Severity::Good);
    }

    #[test]
    fn a_full_cap_is_an_alarm() {
        let mut full = route("checkout");
        full.caps[0] = CapUse { cap: "open".into(), used: 10, limit: 10, ratio: 1.0 };
        let said = says("down", &[full, route("other")], |_| {});
        assert_eq!(said[0].0, Severity::Alarm);
        assert!(
            said[0].1.starts_with(
                "checkout refuses new requests: the cap of 10 open entries is used up"
            )
        );
        assert!(said[1].1.starts_with("other is standing in"));
    }

    #[test]
    fn a_store_that_does_not_accept_is_an_alarm() {
        let store = StoreStatus {
            accepting: false,
            damaged: false,
            why: Some("disk full".into()),
            bytes: 0,
        };
        let routes = [route("checkout")];
        let modes = ModesView::default();
        let upstreams = [upstream("down")];
        let config = in_force();
        let known = Known {
            now: NOW,
            draining: true,
            standby: false,
            store: &store,
            config: &config,
            modes: &modes,
            upstreams: &upstreams,
            routes: &routes,
            egress: &[],
            replaying: false,
            clock_jump: None,
        };
        let said: Vec<String> = known.sentences().into_iter().map(|s| s.text).collect();
        assert!(said[0].contains("disk full"), "{said:?}");
        assert!(said[1].contains("cannot stand in"), "{said:?}");
        assert!(said[2].contains("draining"), "{said:?}");
    }

    #[test]
    fn forced_says_who_and_until_when() {
        let forced = ModeView {
            mode: Mode::Forced,
            since: At(NOW),
            until: Some(At(NOW)),
            who: "anna".into(),
            why: "database moves".into(),
        };
        let modes = ModesView { all: Some(forced), routes: BTreeMap::new() };
        let store = StoreStatus { accepting: true, damaged: false, why: None, bytes: 0 };
        let routes = [route("checkout")];
        let upstreams = [upstream("up")];
        let config = in_force();
        let known = Known {
            now: NOW,
            draining: false,
            standby: false,
            store: &store,
            config: &config,
            modes: &modes,
            upstreams: &upstreams,
            routes: &routes,
            egress: &[],
            replaying: false,
            clock_jump: None,
        };
        let said = known.sentences();
        assert_eq!(said[0].severity, Severity::Alarm);
        assert_eq!(
            said[0].text,
            "Forced: every route stands in until 14:02 UTC, by anna (“database moves”)."
        );
    }

    #[test]
    fn work_for_a_person_and_for_replay_is_said() {
        let mut worked = route("checkout");
        (worked.open, worked.held, worked.declined) = (5, 2, 1);
        let said = says("up", &[worked], |known| known.replaying = true);
        let said: Vec<&str> = said.iter().map(|(_, text)| &**text).collect();
        assert_eq!(
            said,
            [
                "checkout: 2 requests wait for a person's decision (worklist).",
                "checkout: 1 request was declined by the app after a yes (worklist).",
                "checkout: 3 stored requests being replayed.",
            ]
        );
    }

    #[test]
    fn an_upstream_that_nobody_stands_in_for_is_an_alarm() {
        let mut plain = route("reports");
        plain.stands_in = false;
        let said = says("down", &[plain], |_| {});
        assert_eq!(
            said,
            [(
                Severity::Alarm,
                "shop is down since 14:02 UTC: connection refused; no route stands in for it."
                    .into()
            )]
        );
        let said = says("unknown", &[route("checkout")], |known| known.standby = true);
        assert_eq!(said, [(Severity::Good, "Standing by.".into())]);
    }

    #[test]
    fn a_refused_configuration_is_told_with_what_is_wrong() {
        let mut config = in_force();
        config.last = Some(crate::admin::view::ReloadView {
            at: At(NOW),
            who: "file".into(),
            changes: Vec::new(),
            refused: Some("standin.toml:3:1: `route.a`: no".into()),
        });
        // As long as whatever else is known.
        let config: &ConfigStatus = Box::leak(Box::new(config));
        let said = says("up", &[route("checkout")], |known| known.config = config);
        let text = "The configuration was refused at 14:02 UTC, and that of 14:02 UTC goes on: standin.toml:3:1: `route.a`: no";
        assert_eq!(said, [(Severity::Warn, text.into())]);
    }
}
