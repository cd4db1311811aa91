//! The breaker of one route of an app, and how the two kinds work together.
//!
//! A connection that fails speaks of the app. Whatever goes wrong after it speaks of its route, and raises a doubt about
//! the app: the health question settles it, and an answer to anybody else takes the doubt away.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Upstream, UpstreamError,
    breaker::{Admission, Breaker, Change, Outlook, Switched},
    switches::Switch,
};
use crate::{time::UnixMillis, turn};

/// See the module. Requests without a route have one together, without a name.
#[derive(Debug)]
pub struct RouteBreaker {
    route: Arc<str>,
    breaker: Breaker,
    /// With the turn of the breaker that it tells of.
    state: Mutex<(u64, RouteState)>,
    last_cause: Mutex<String>,
}

/// How the breaker of a route stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteState {
    #[default]
    Closed,
    Open {
        since: UnixMillis,
        cause: String,
    },
    HalfOpen {
        since: UnixMillis,
        cause: String,
    },
}

/// Which breakers wait for the outcome of an admitted request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trials {
    of_app: bool,
    of_route: bool,
}

impl RouteBreaker {
    pub(super) fn new(route: &Arc<str>, upstream: &Upstream) -> Self {
        Self {
            route: Arc::clone(route),
            breaker: Breaker::new(upstream.config.breaker.clone()),
            state: Mutex::default(),
            last_cause: Mutex::default(),
        }
    }

    pub fn state(&self) -> RouteState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Takes note of a switch, unless a later one was noted before.
    fn stands(&self, turn: u64, change: Change, why: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 > turn {
            return;
        }
        let since = match &state.1 {
            RouteState::Open { since, .. } | RouteState::HalfOpen { since, .. } => *since,
            RouteState::Closed => UnixMillis::now(),
        };
        let cause = match &state.1 {
            RouteState::Open { cause, .. } | RouteState::HalfOpen { cause, .. }
                if change != Change::Opened =>
            {
                cause.clone()
            }
            _ => why.to_owned(),
        };
        let now = match change {
            Change::Opened => RouteState::Open { since, cause },
            Change::HalfOpened => RouteState::HalfOpen { since, cause },
            Change::Closed => RouteState::Closed,
        };
        *state = (turn, now);
    }

    /// Requests are let through freely.
    pub fn is_closed(&self) -> bool {
        self.breaker.is_closed()
    }

    /// What a replay may do.
    pub fn outlook(&self, now: Instant) -> Outlook {
        self.breaker.outlook(now)
    }

    fn cause(&self) -> String {
        self.last_cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Upstream {
    /// The breaker of a route of this app; the same for all who ask.
    pub fn of_route(&self, route: &Arc<str>) -> Arc<RouteBreaker> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(RouteBreaker::new(route, self));
        Arc::clone(routes.entry(Arc::clone(route)).or_insert_with(new))
    }

    /// May a request of this route go? An open breaker of either kind refuses it.
    pub(super) fn admit(&self, route: &RouteBreaker) -> Result<Trials, UpstreamError> {
        let now = turn::now();
        let (admission, switched) = route.breaker.admit(now);
        self.route_switched(route, switched);
        let of_route = is_trial(admission)?;
        let (admission, switched) = self.breaker.admit(now);
        self.switched(switched);
        let of_app = is_trial(admission).inspect_err(|_| {
            if of_route {
                route.breaker.trial_void();
            }
        })?;
        Ok(Trials { of_app, of_route })
    }

    /// The app answered a request of this route.
    pub(super) fn answered(&self, route: &RouteBreaker, took: Option<Duration>) {
        self.is_there();
        // A load first, as everywhere: no line that all workers share is written while all is well.
        if self.doubts.load(Ordering::Relaxed) != 0 {
            self.doubts.store(0, Ordering::Relaxed);
        }
        self.switched(self.breaker.success(None));
        self.route_switched(route, route.breaker.success(took));
    }

    /// A request of this route was not answered, by whatever of the two it speaks of.
    pub(super) fn failed(&self, route: &RouteBreaker, failure: Failure<'_>, trials: Trials) {
        let now = Instant::now();
        match failure {
            Failure::OfApp(cause) => {
                set(&self.last_cause, cause);
                self.switched(self.breaker.failure(now, trials.of_app));
                self.void(route, Trials { of_app: false, ..trials });
            }
            Failure::OfRoute(cause) => {
                set(&self.last_cause, cause);
                set(&route.last_cause, cause);
                let doubts = self.doubts.fetch_add(1, Ordering::Relaxed) + 1;
                let switched = route.breaker.failure(now, trials.of_route);
                let opened = switched.as_ref().is_some_and(|one| one.change == Change::Opened);
                self.route_switched(route, switched);
                self.void(route, Trials { of_route: false, ..trials });
                if opened || trials.of_app || doubts.is_multiple_of(self.config.breaker.failures) {
                    self.suspected.notify_one();
                }
            }
        }
    }

    /// The outcome says nothing: the next one may try.
    pub(super) fn void(&self, route: &RouteBreaker, trials: Trials) {
        if trials.of_app {
            self.breaker.trial_void();
        }
        if trials.of_route {
            route.breaker.trial_void();
        }
    }

    /// Ready when the health question is to be asked, because requests of a route fail.
    pub(super) async fn is_suspected(&self) {
        self.suspected.notified().await;
    }

    /// The health question was not answered either. If nobody else had an answer meanwhile, the app is down.
    pub(super) fn suspicion_holds(&self) {
        let doubts = self.doubts.load(Ordering::Relaxed);
        if doubts != 0 {
            let why = format!("{doubts} in a row without an answer, nor to the health question");
            self.switched(self.breaker.known_down(Instant::now(), &why));
        }
    }

    /// A health question was answered while the breaker was open.
    pub(super) fn is_healthy(&self) {
        self.switched(self.breaker.healthy(Instant::now()));
    }

    fn switched(&self, switched: Option<Switched>) {
        let Some(switched) = switched else { return };
        let change = switched.change;
        self.publish(switched);
        if change == Change::HalfOpened {
            // Their trials find out: what went wrong there may have been the outage.
            let routes: Vec<_> = {
                let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
                routes.values().map(Arc::clone).collect()
            };
            for route in routes {
                self.route_switched(&route, route.breaker.healthy(Instant::now()));
            }
        }
    }

    fn route_switched(&self, route: &RouteBreaker, switched: Option<Switched>) {
        let Some(Switched { change, why, turn }) = switched else { return };
        let cause = route.cause();
        let why = with_cause(&why, change, &cause);
        tracing::info!(upstream = &*self.name, route = &*route.route, "breaker {change:?}: {why}");
        route.stands(turn, change, &why);
        self.record(Some(&route.route), change, why);
    }

    pub(super) fn record(&self, route: Option<&Arc<str>>, change: Change, why: String) {
        let (at, upstream) = (UnixMillis::now(), Arc::clone(&self.name));
        self.switches.push(Switch { at, upstream, route: route.cloned(), change, why });
    }
}

/// What a failure speaks of, and its cause.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure<'a> {
    OfApp(&'a str),
    OfRoute(&'a str),
}

/// What opened it is told with what went wrong last.
pub(super) fn with_cause(why: &str, change: Change, cause: &str) -> String {
    if change == Change::Opened && !cause.is_empty() && !why.contains("took") {
        format!("{why}, last: {cause}")
    } else {
        why.to_owned()
    }
}

fn is_trial(admission: Admission) -> Result<bool, UpstreamError> {
    match admission {
        Admission::Go => Ok(false),
        Admission::Trial => Ok(true),
        Admission::Refused { retry_after } => Err(UpstreamError::BreakerOpen { retry_after }),
    }
}

fn set(cause: &Mutex<String>, to: &str) {
    cause.lock().unwrap_or_else(PoisonError::into_inner).replace_range(.., to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, upstream::Condition};

    /// Opened, half-open and closed again, each as its thread is about to tell it.
    fn there_and_back(breaker: &Breaker) -> [Option<Switched>; 3] {
        let now = Instant::now();
        let switches =
            [breaker.known_down(now, "gone"), breaker.healthy(now), breaker.success(None)];
        assert!(switches.iter().all(Option::is_some), "{switches:?}");
        switches
    }

    #[test]
    fn a_switch_that_was_overtaken_on_its_way_changes_nothing_any_more() {
        let config: Config =
            toml::from_str("[upstream.app]\nendpoints = [\"http://127.0.0.1:1\"]").unwrap();
        let upstream = Upstream::new("app", config.upstream["app"].clone());
        let route = upstream.of_route(&"orders".into());

        let [opened, half_opened, closed] = there_and_back(&upstream.breaker);
        [opened, closed, half_opened].into_iter().for_each(|told| upstream.switched(told));
        assert_eq!(*upstream.condition().borrow(), Condition::Up);

        let [opened, half_opened, closed] = there_and_back(&route.breaker);
        for told in [half_opened, closed, opened] {
            upstream.route_switched(&route, told);
        }
        assert_eq!(route.state(), RouteState::Closed);
    }
}
