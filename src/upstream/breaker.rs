//! When the app counts as down, and who may try whether it is back. *Closed* lets requests through.
//!
//! [`Machine`] is pure: time is passed in. [`Breaker`] shares one machine between threads; while all is well it costs a
//! request one relaxed load.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::config::BreakerConfig;

/// The rule, without clock or IO.
#[derive(Debug)]
pub struct Machine {
    config: BreakerConfig,
    phase: Phase,
    /// Failures in a row while closed, successes in a row while half-open.
    in_a_row: u32,
    /// Times it opened since it was last closed: the wait doubles with each.
    opened: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    /// At most one trial at a time.
    HalfOpen {
        trial: Option<Instant>,
    },
}

/// What the breaker says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Go,
    /// Half-open: this request finds out whether the app is back.
    Trial,
    Refused {
        retry_after: Duration,
    },
}

/// What changed for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Opened,
    HalfOpened,
    Closed,
}

/// A trial that never reported counts as lost after this; then the next one may try.
const TRIAL_LOST_AFTER: Duration = Duration::from_secs(60);

impl Machine {
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, phase: Phase::Closed, in_a_row: 0, opened: 0 }
    }

    /// May a request go? An open breaker whose time is over becomes half-open here.
    pub fn admit(&mut self, now: Instant) -> (Admission, Option<Change>) {
        match self.phase {
            Phase::Closed => (Admission::Go, None),
            Phase::Open { until } if now < until => {
                (Admission::Refused { retry_after: until - now }, None)
            }
            Phase::Open { .. } => {
                self.half_open(Some(now));
                (Admission::Trial, Some(Change::HalfOpened))
            }
            Phase::HalfOpen { trial: Some(since) } if now < since + TRIAL_LOST_AFTER => {
                (Admission::Refused { retry_after: Duration::from_secs(1) }, None)
            }
            Phase::HalfOpen { .. } => {
                self.phase = Phase::HalfOpen { trial: Some(now) };
                (Admission::Trial, None)
            }
        }
    }

    /// The app answered.
    pub fn success(&mut self) -> Option<Change> {
        match self.phase {
            Phase::Closed => {
                self.in_a_row = 0;
                None
            }
            // An exchange from before the breaker opened, or a late answer: the app is alive, so trials may start.
            Phase::Open { .. } => {
                self.half_open(None);
                Some(Change::HalfOpened)
            }
            Phase::HalfOpen { .. } => {
                self.in_a_row += 1;
                self.phase = Phase::HalfOpen { trial: None };
                (self.in_a_row >= self.config.successes).then(|| {
                    *self = Self::new(self.config.clone());
                    Change::Closed
                })
            }
        }
    }

    /// The app did not answer. `trial`: this was the half-open trial.
    pub fn failure(&mut self, now: Instant, trial: bool) -> Option<Change> {
        match self.phase {
            Phase::Closed => {
                self.in_a_row += 1;
                (self.in_a_row >= self.config.failures).then(|| self.open(now))
            }
            Phase::HalfOpen { .. } if trial => Some(self.open(now)),
            Phase::HalfOpen { .. } | Phase::Open { .. } => None,
        }
    }

    /// The trial ended without saying anything about the app (its client left).
    pub fn trial_void(&mut self) {
        if let Phase::HalfOpen { .. } = self.phase {
            self.phase = Phase::HalfOpen { trial: None };
        }
    }

    /// A health question was answered: trials may start before the time is over.
    pub fn healthy(&mut self) -> Option<Change> {
        matches!(self.phase, Phase::Open { .. }).then(|| {
            self.half_open(None);
            Change::HalfOpened
        })
    }

    /// Nothing to ask and nothing to reset.
    fn is_clean(&self) -> bool {
        self.phase == Phase::Closed && self.in_a_row == 0
    }

    fn open(&mut self, now: Instant) -> Change {
        let doubled = self.config.min_open.saturating_mul(1 << self.opened.min(16));
        self.opened = self.opened.saturating_add(1);
        self.phase = Phase::Open { until: now + doubled.min(self.config.max_open) };
        self.in_a_row = 0;
        Change::Opened
    }

    fn half_open(&mut self, trial: Option<Instant>) {
        self.phase = Phase::HalfOpen { trial };
        self.in_a_row = 0;
    }
}

/// One machine for all threads.
#[derive(Debug)]
pub struct Breaker {
    machine: Mutex<Machine>,
    /// Closed and without failures: nothing to ask, nothing to reset.
    clean: AtomicBool,
}

impl Breaker {
    pub fn new(config: BreakerConfig) -> Self {
        Self { machine: Mutex::new(Machine::new(config)), clean: AtomicBool::new(true) }
    }

    pub fn admit(&self, now: Instant) -> (Admission, Option<Change>) {
        if self.clean.load(Ordering::Relaxed) {
            return (Admission::Go, None);
        }
        self.machine().admit(now)
    }

    pub fn success(&self) -> Option<Change> {
        if self.clean.load(Ordering::Relaxed) {
            return None;
        }
        let mut machine = self.machine();
        let change = machine.success();
        self.clean.store(machine.is_clean(), Ordering::Relaxed);
        change
    }

    pub fn failure(&self, now: Instant, trial: bool) -> Option<Change> {
        let mut machine = self.machine();
        self.clean.store(false, Ordering::Relaxed);
        machine.failure(now, trial)
    }

    pub fn trial_void(&self) {
        self.machine().trial_void();
    }

    pub fn healthy(&self) -> Option<Change> {
        self.machine().healthy()
    }

    /// Requests are let through freely.
    pub fn is_closed(&self) -> bool {
        self.clean.load(Ordering::Relaxed) || self.machine().phase == Phase::Closed
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Machine {
        let mut machine = Machine::new(BreakerConfig { failures: 3, ..BreakerConfig::default() });
        for _ in 0..3 {
            machine.failure(now, false);
        }
        machine
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut machine = Machine::new(BreakerConfig { failures: 3, ..BreakerConfig::default() });
        let now = Instant::now();
        machine.failure(now, false);
        machine.failure(now, false);
        machine.success();
        assert_eq!(machine.failure(now, false), None);
        assert_eq!(machine.failure(now, false), None);
        assert_eq!(machine.failure(now, false), Some(Change::Opened));
        assert!(matches!(machine.admit(now).0, Admission::Refused { .. }));
    }

    #[test]
    fn lets_one_trial_through_when_its_time_is_over() {
        let now = Instant::now();
        let mut machine = opened(now);
        let later = now + Duration::from_secs(1);
        assert_eq!(machine.admit(later), (Admission::Trial, Some(Change::HalfOpened)));
        assert!(matches!(machine.admit(later).0, Admission::Refused { .. }));
        assert_eq!(machine.success(), Some(Change::Closed));
        assert_eq!(machine.admit(later).0, Admission::Go);
    }

    #[test]
    fn a_failed_trial_doubles_the_wait_up_to_its_bound() {
        let mut now = Instant::now();
        let mut machine = opened(now);
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            let Admission::Refused { retry_after } = machine.admit(now).0 else { panic!("open") };
            assert_eq!(retry_after, Duration::from_secs(wait));
            now += retry_after;
            assert_eq!(machine.admit(now).0, Admission::Trial);
            assert_eq!(machine.failure(now, true), Some(Change::Opened));
        }
    }

    #[test]
    fn failures_of_older_exchanges_do_not_reopen_a_half_open_breaker() {
        let now = Instant::now();
        let mut machine = opened(now);
        machine.healthy();
        assert_eq!(machine.failure(now, false), None);
        assert_eq!(machine.admit(now).0, Admission::Trial);
    }

    #[test]
    fn a_void_or_lost_trial_gives_its_place_back() {
        let now = Instant::now();
        let mut machine = opened(now);
        machine.healthy();
        assert_eq!(machine.admit(now).0, Admission::Trial);
        machine.trial_void();
        assert_eq!(machine.admit(now).0, Admission::Trial);
        assert_eq!(machine.admit(now + TRIAL_LOST_AFTER).0, Admission::Trial);
    }
}
