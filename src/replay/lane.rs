//! One upstream as replay sees it: its condition, its pace, its pauses, and how its live requests fare.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    backoff::{Chance, backoff},
    live::{Live, LiveWatch, Sample},
    pace::{Felt, Pace, Ticket},
};
use crate::{
    router::Route,
    telemetry::{ANSWERED, Answered, Counters},
    upstream::{Condition, Connections, RouteBreaker, Upstream, breaker::Outlook},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub upstream: Arc<Upstream>,
    pub connections: Connections,
    pub routes: Vec<LaneRoute>,
    condition: watch::Receiver<Condition>,
    seen: Condition,
    pace: Pace,
    /// Times in a row that the pace was cut.
    failures: u32,
    pause: Option<Pause>,
    /// While the breaker is half-open: until then the trial is left to a live request.
    live_first_until: Option<Instant>,
    /// While the breaker is open: when a canary may find out by itself whether it still must be.
    trial_at: Option<Instant>,
    live: LiveWatch,
    replayed: bool,
}

/// A route as far as this upstream is concerned.
#[derive(Debug)]
pub(super) struct LaneRoute {
    pub route: Arc<Route>,
    /// Of this route at this upstream.
    breaker: Arc<RouteBreaker>,
    pub in_flight: u32,
    /// A person stopped a run of it: nothing starts by itself until the app was down and is back.
    pub stopped: bool,
}

/// Nothing may be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub why: String,
    /// When to look again, if nothing happens before.
    pub until: Option<Instant>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    why: &'static str,
    /// The app asked for it; an app that is back does not end it.
    asked: bool,
}

impl Lane {
    /// `routes` are all routes: entries stay with the upstream they were received for, wherever their route leads today.
    pub(super) fn new(upstream: Arc<Upstream>, routes: &[Arc<Route>], most: u32) -> Self {
        let leading_here = routes.iter().filter(|route| route.upstream.name == upstream.name);
        let ceiling: u32 =
            leading_here.map(|route| route.config.replay.pace.get()).fold(0, u32::saturating_add);
        let condition = upstream.condition();
        let seen = condition.borrow().clone();
        let in_lane = |route: Arc<Route>| {
            let breaker = upstream.of_route(&route.name);
            LaneRoute { route, breaker, in_flight: 0, stopped: false }
        };
        let lane_routes = routes.iter().map(Arc::clone).map(in_lane).collect();
        Self {
            connections: Connections::new(Arc::clone(&upstream)),
            routes: lane_routes,
            seen,
            condition,
            upstream,
            pace: Pace::new(ceiling.min(most)),
            failures: 0,
            pause: None,
            live_first_until: None,
            trial_at: None,
            live: LiveWatch::default(),
            replayed: false,
        }
    }

    /// Ready when the condition changes.
    pub(super) async fn changed(&mut self) {
        if self.condition.changed().await.is_err() {
            std::future::pending().await // the upstream is gone with its process
        }
    }

    /// Takes note of the condition.
    pub(super) fn look(&mut self, now: Instant) {
        let seen = self.condition.borrow_and_update().clone();
        let was_down = matches!(self.seen, Condition::Down { .. } | Condition::Probing { .. });
        match &seen {
            Condition::Down { .. } => {
                if !matches!(self.seen, Condition::Down { .. }) {
                    self.pace.restart();
                    self.trial_at = Some(now + self.upstream.config.breaker.max_open);
                }
            }
            Condition::Up if was_down => {
                self.failures = 0;
                self.pause = self.pause.take().filter(|pause| pause.asked);
                self.routes.iter_mut().for_each(|route| route.stopped = false);
            }
            Condition::Probing { .. } if !matches!(self.seen, Condition::Probing { .. }) => {
                self.live_first_until = Some(now + LIVE_FIRST);
            }
            Condition::Up | Condition::Unknown | Condition::Probing { .. } => {}
        }
        self.seen = seen;
    }

    /// How many more sends may begin now, or why none may.
    pub(super) fn gate(&self, now: Instant) -> Result<u32, Closed> {
        if let Some(pause) = self.pause.as_ref().filter(|pause| now < pause.until) {
            let (why, until) = (pause.why.to_owned(), Some(pause.until));
            return Err(Closed { why, until });
        }
        let one = 1_u32.saturating_sub(self.pace.in_flight());
        match &self.seen {
            Condition::Up => Ok(self.pace.room()),
            Condition::Probing { .. } if self.live_first_until.is_some_and(|at| now < at) => {
                let why = format!(
                    "a live request may find out first whether {} is back",
                    self.upstream.name
                );
                Err(Closed { why, until: self.live_first_until })
            }
            Condition::Unknown | Condition::Probing { .. } => Ok(one.min(self.pace.room())),
            Condition::Down { .. } if self.trial_at.is_some_and(|at| now >= at) => {
                Ok(one.min(self.pace.room()))
            }
            Condition::Down { cause, .. } => {
                let why = format!("{} is down: {cause}", self.upstream.name);
                Err(Closed { why, until: self.trial_at })
            }
        }
    }

    /// The same for one route of it, by the route's own breaker: a canary when it is half-open, nothing while it is open.
    pub(super) fn gate_of(&self, place: usize, now: Instant) -> Result<u32, Closed> {
        let room = self.gate(now)?;
        let route = &self.routes[place];
        match route.breaker.outlook(now) {
            Outlook::Free => Ok(room),
            Outlook::Canary => Ok(room.min(1_u32.saturating_sub(route.in_flight))),
            Outlook::Nothing { until } => {
                let why = format!("the breaker of route {} is open", route.route.name);
                Err(Closed { why, until: Some(until) })
            }
        }
    }

    pub(super) fn allowed(&self, now: Instant) -> u32 {
        match (&self.seen, self.gate(now)) {
            (_, Err(_)) => 0,
            (Condition::Up, Ok(_)) => self.pace.allowed(),
            (_, Ok(_)) => 1,
        }
    }

    pub(super) fn begin(&mut self, route: usize, now: Instant) -> Ticket {
        self.routes[route].in_flight += 1;
        self.replayed = true;
        if matches!(self.seen, Condition::Down { .. }) {
            self.trial_at = Some(now + self.upstream.config.breaker.max_open);
        }
        self.pace.begin()
    }

    pub(super) fn end(
        &mut self,
        route: usize,
        ticket: Ticket,
        felt: Felt,
        asked: Option<Duration>,
        now: Instant,
        chance: &mut Chance,
    ) {
        self.routes[route].in_flight -= 1;
        let cut = self.pace.end(ticket, felt);
        if felt == Felt::Good {
            self.failures = 0;
        }
        if cut {
            self.failures = self.failures.saturating_add(1);
            let wait = backoff(self.failures, FIRST_PAUSE, LONGEST_PAUSE, chance);
            self.pause_for(wait, "the last replay failed", false, now);
        }
        if let Some(asked) = asked {
            self.pause_for(asked, "the app asked for a pause (`Retry-After`)", true, now);
        }
    }

    /// Looks at the live requests since the last time; they come first.
    pub(super) fn sample(&mut self, counters: &Counters) {
        let here = |route: &&LaneRoute| route.route.upstream.name == self.upstream.name;
        let indices: Vec<usize> =
            self.routes.iter().filter(here).map(|route| route.route.place).collect();
        let replaying = std::mem::replace(&mut self.replayed, self.pace.in_flight() > 0);
        match self.live.judge(sample(counters, &indices), replaying || self.replayed) {
            Live::Slow | Live::Failing if replaying => {
                tracing::info!(upstream = &*self.upstream.name, "live requests suffer: slower");
                self.pace.cut();
            }
            Live::Slow | Live::Failing | Live::Well => {}
        }
    }

    fn pause_for(&mut self, wait: Duration, why: &'static str, asked: bool, now: Instant) {
        let until = now + wait;
        if self.pause.as_ref().is_none_or(|pause| pause.until < until) {
            self.pause = Some(Pause { until, why, asked });
        }
    }
}

fn sample(counters: &Counters, routes: &[usize]) -> Sample {
    let mut sample = Sample::default();
    for &index in routes {
        for (place, (answered, _)) in ANSWERED.iter().enumerate() {
            let count = counters.sum(|worker| &worker.route(index).answered[place]);
            match answered {
                Answered::ByApp => sample.answered += count,
                Answered::ByAppError => sample.errors += count,
                _ => sample.others += count,
            }
        }
        sample.latency_sum_us += counters.sum(|worker| &worker.route(index).latency_sum_us);
    }
    sample
}

/// A replay that fails for reasons of its own must not keep the breaker open for live requests.
const LIVE_FIRST: Duration = Duration::from_millis(500);
/// Waits after a failed canary; doubled with each in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, router::Routes};

    fn lane() -> (Lane, watch::Sender<Condition>) {
        let text = "[upstream.app]\nendpoints = [\"http://127.0.0.1:1\"]\n\
                    [route.a]\nmatch = \"POST /\"\n[route.a.replay]\npace = 8\n";
        let config: Config = toml::from_str(text).unwrap();
        let routes = Routes::new(&config).unwrap();
        let mut lane = Lane::new(Arc::clone(&routes.upstreams[0]), &routes.all, 256);
        let (condition, receiver) = watch::channel(Condition::Up);
        lane.condition = receiver;
        lane.look(Instant::now());
        (lane, condition)
    }

    fn down() -> Condition {
        Condition::Down { since: crate::time::UnixMillis(0), cause: "refused".into() }
    }

    fn probing() -> Condition {
        Condition::Probing { since: crate::time::UnixMillis(0), cause: "refused".into() }
    }

    fn one(lane: &mut Lane, felt: Felt, asked: Option<Duration>, now: Instant) {
        let ticket = lane.begin(0, now);
        lane.end(0, ticket, felt, asked, now, &mut Chance::seeded(1));
    }

    fn why(lane: &Lane, now: Instant) -> String {
        lane.gate(now).unwrap_err().why
    }

    #[test]
    fn down_lets_nothing_through_but_a_rare_canary() {
        let (mut lane, condition) = lane();
        let now = Instant::now();
        one(&mut lane, Felt::Good, None, now);
        assert_eq!(lane.gate(now), Ok(2));
        condition.send_replace(down());
        lane.look(now);
        assert_eq!(why(&lane, now), "app is down: refused");
        let later = now + lane.upstream.config.breaker.max_open;
        assert_eq!(lane.gate(later), Ok(1));
        one(&mut lane, Felt::Neutral, None, later);
        assert!(lane.gate(later).is_err(), "one in so long a time");
    }

    #[test]
    fn half_open_is_for_live_requests_first_and_then_for_one_canary() {
        let (mut lane, condition) = lane();
        let now = Instant::now();
        condition.send_replace(probing());
        lane.look(now);
        assert!(why(&lane, now).contains("live request"));
        let later = now + LIVE_FIRST;
        assert_eq!(lane.gate(later), Ok(1));
        let _out = lane.begin(0, later);
        assert_eq!(lane.gate(later), Ok(0));
    }

    #[test]
    fn an_app_that_is_back_ends_our_pause_but_not_its_own() {
        let (mut lane, condition) = lane();
        let now = Instant::now();
        lane.routes[0].stopped = true;
        one(&mut lane, Felt::Bad, None, now);
        assert!(why(&lane, now).contains("failed"));
        for state in [down(), Condition::Up] {
            condition.send_replace(state);
            lane.look(now);
        }
        assert_eq!(lane.gate(now), Ok(1));
        assert!(!lane.routes[0].stopped, "a stop lasts until the next recovery");

        one(&mut lane, Felt::Bad, Some(Duration::from_secs(60)), now);
        for state in [down(), Condition::Up] {
            condition.send_replace(state);
            lane.look(now);
        }
        assert!(why(&lane, now).contains("Retry-After"));
        assert_eq!(lane.gate(now + Duration::from_secs(60)), Ok(1));
    }

    #[test]
    fn live_requests_that_fail_make_it_slower() {
        let (mut lane, _condition) = lane();
        let (now, counters) = (Instant::now(), Counters::default());
        let worker = counters.worker(1);
        for size in [1, 2, 5] {
            let out: Vec<_> = (0..size).map(|_| lane.begin(0, now)).collect();
            for ticket in out {
                lane.end(0, ticket, Felt::Good, None, now, &mut Chance::seeded(1));
            }
        }
        lane.sample(&counters);
        assert_eq!(lane.allowed(now), 8);
        one(&mut lane, Felt::Good, None, now);
        for answered in [Answered::ByApp; 8].into_iter().chain([Answered::ByAppError; 4]) {
            worker.route(1).count(answered, Duration::from_millis(1));
        }
        lane.sample(&counters);
        assert_eq!(lane.allowed(now), 1, "back to the first canary");
    }
}
