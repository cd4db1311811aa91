//! When an app, or one route of it, counts as down, and who may try whether it is back. *Closed* lets requests through.
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

use super::slow::Slowness;
use crate::config::{BreakerConfig, units::write_duration};

/// The rule, without clock or IO.
#[derive(Debug)]
pub struct Machine {
    config: BreakerConfig,
    phase: Phase,
    /// Failures in a row while closed, successes in a row while half-open.
    in_a_row: u32,
    /// Times it opened since it was last closed: the wait doubles with each.
    opened: u32,
    /// Times it opened soon after it had closed; quiet times take them back one by one.
    flaps: u32,
    closed_at: Option<Instant>,
    /// Before this it stays open, whatever is heard.
    held_until: Option<Instant>,
    slowness: Option<Slowness>,
    /// Where jitter comes from; zero: none.
    seed: u64,
    /// What made it switch last.
    why: String,
    /// Switches so far.
    turn: u64,
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

/// What an open or half-open breaker lets a replay do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    Free,
    /// One canary.
    Canary,
    Nothing {
        until: Instant,
    },
}

/// A change, and the signals that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    pub change: Change,
    pub why: String,
    /// Counts the switches of one breaker: threads may tell of them in another order than they happened.
    pub turn: u64,
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

/// How long a trial is left to a live request before a canary may take it.
const LIVE_FIRST: Duration = Duration::from_millis(500);

impl Machine {
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            slowness: config.slow.as_ref().map(Slowness::new),
            config,
            phase: Phase::Closed,
            in_a_row: 0,
            opened: 0,
            flaps: 0,
            closed_at: None,
            held_until: None,
            seed: 0,
            why: String::new(),
            turn: 0,
        }
    }

    /// What opened together does not come back together.
    pub fn jittered(config: BreakerConfig, seed: u64) -> Self {
        Self { seed: seed.max(1), ..Self::new(config) }
    }

    /// May a request go? An open breaker whose time is over becomes half-open here.
    pub fn admit(&mut self, now: Instant) -> (Admission, Option<Change>) {
        match self.phase {
            Phase::Closed => (Admission::Go, None),
            Phase::Open { until } if now < until => {
                (Admission::Refused { retry_after: until - now }, None)
            }
            Phase::Open { .. } => {
                let change = self.half_open(Some(now), "its time is over");
                (Admission::Trial, Some(change))
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

    /// The app answered, after that time where it is judged.
    pub fn success(&mut self, now: Instant, took: Option<Duration>) -> Option<Change> {
        match self.phase {
            Phase::Closed => {
                self.in_a_row = 0;
                let (slowness, took) = self.slowness.as_mut().zip(took)?;
                let why = slowness.answered(took)?;
                Some(self.open(now, why))
            }
            // An exchange from before the breaker opened, or a late answer: the app is alive, so trials may start.
            Phase::Open { .. } if self.is_held(now) => None,
            Phase::Open { .. } => Some(self.half_open(None, "an answer came after all")),
            Phase::HalfOpen { trial } => {
                if let Some((slowness, took)) = self.slowness.as_ref().zip(took)
                    && slowness.is_slow(took)
                {
                    // The trial of a breaker that minds the time came too late to close it.
                    let why = format!("the trial took {}", write_duration(rounded(took)));
                    return trial.is_some().then(|| self.open(now, why));
                }
                self.in_a_row += 1;
                self.phase = Phase::HalfOpen { trial: None };
                (self.in_a_row >= self.config.successes).then(|| self.close(now))
            }
        }
    }

    /// The app did not answer. `trial`: this was the half-open trial.
    pub fn failure(&mut self, now: Instant, trial: bool) -> Option<Change> {
        match self.phase {
            Phase::Closed => {
                self.in_a_row += 1;
                let (count, limit) = (self.in_a_row, self.config.failures);
                (count >= limit)
                    .then(|| self.open(now, format!("{count} failures in a row (limit {limit})")))
            }
            Phase::HalfOpen { .. } if trial => Some(self.open(now, "the trial failed".to_owned())),
            Phase::HalfOpen { .. } | Phase::Open { .. } => None,
        }
    }

    /// Others have found out that the app is down.
    pub fn known_down(&mut self, now: Instant, why: &str) -> Option<Change> {
        let open = matches!(self.phase, Phase::Open { .. });
        (!open).then(|| self.open(now, why.to_owned()))
    }

    /// The trial ended without saying anything about the app (its client left).
    pub fn trial_void(&mut self) {
        if let Phase::HalfOpen { .. } = self.phase {
            self.phase = Phase::HalfOpen { trial: None };
        }
    }

    /// A health question was answered: trials may start before the time is over, unless it flaps.
    pub fn healthy(&mut self, now: Instant) -> Option<Change> {
        let open = matches!(self.phase, Phase::Open { .. });
        (open && !self.is_held(now)).then(|| self.half_open(None, "a health question was answered"))
    }

    /// What a replay may do; it changes nothing.
    pub fn outlook(&self, now: Instant) -> Outlook {
        match self.phase {
            Phase::Closed => Outlook::Free,
            Phase::Open { until } if now < until + LIVE_FIRST => {
                Outlook::Nothing { until: until + LIVE_FIRST }
            }
            Phase::HalfOpen { trial: Some(since) } if now < since + TRIAL_LOST_AFTER => {
                Outlook::Nothing { until: now + LIVE_FIRST }
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => Outlook::Canary,
        }
    }

    /// Nothing to ask and nothing to reset.
    fn is_clean(&self) -> bool {
        self.phase == Phase::Closed && self.in_a_row == 0 && self.slowness.is_none()
    }

    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    fn open(&mut self, now: Instant, why: String) -> Change {
        if let Some(closed_at) = self.closed_at.take() {
            let quiet = (now - closed_at).as_millis() / self.config.max_open.as_millis().max(1);
            let quiet = u32::try_from(quiet).unwrap_or(u32::MAX);
            self.flaps = (self.flaps + 1).saturating_sub(quiet);
        }
        let wait = self.doubled(self.opened.saturating_add(self.flaps));
        self.held_until = (self.flaps > 0).then(|| now + self.doubled(self.flaps - 1).min(wait));
        self.opened = self.opened.saturating_add(1);
        self.phase = Phase::Open { until: now + wait };
        self.in_a_row = 0;
        self.slowness.iter_mut().for_each(Slowness::forget);
        self.why = why;
        self.turn += 1;
        Change::Opened
    }

    /// The shortest open time, doubled so often; up to a quarter more by lot.
    fn doubled(&mut self, times: u32) -> Duration {
        let doubled = self.config.min_open.saturating_mul(1 << times.min(16));
        let wait = doubled.min(self.config.max_open);
        if self.seed == 0 {
            return wait;
        }
        // Xorshift: good enough to tell breakers apart.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        wait + wait.mul_f64((self.seed % 1024) as f64 / 4096.0)
    }

    fn half_open(&mut self, trial: Option<Instant>, why: &str) -> Change {
        self.phase = Phase::HalfOpen { trial };
        self.in_a_row = 0;
        why.clone_into(&mut self.why);
        self.turn += 1;
        Change::HalfOpened
    }

    fn close(&mut self, now: Instant) -> Change {
        self.why = format!("{} in a row answered", self.in_a_row);
        self.phase = Phase::Closed;
        (self.in_a_row, self.opened) = (0, 0);
        (self.closed_at, self.held_until) = (Some(now), None);
        self.turn += 1;
        Change::Closed
    }
}

fn rounded(took: Duration) -> Duration {
    Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
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
        let (seed, other) = uuid::Uuid::now_v7().as_u64_pair();
        let machine = Machine::jittered(config, seed ^ other);
        Self { clean: AtomicBool::new(machine.is_clean()), machine: Mutex::new(machine) }
    }

    pub fn admit(&self, now: Instant) -> (Admission, Option<Switched>) {
        if self.clean.load(Ordering::Relaxed) {
            return (Admission::Go, None);
        }
        let mut machine = self.machine();
        let (admission, change) = machine.admit(now);
        (admission, told(&machine, change))
    }

    pub fn success(&self, took: Option<Duration>) -> Option<Switched> {
        if self.clean.load(Ordering::Relaxed) {
            return None;
        }
        self.change(|machine| machine.success(Instant::now(), took))
    }

    pub fn failure(&self, now: Instant, trial: bool) -> Option<Switched> {
        self.change(|machine| machine.failure(now, trial))
    }

    pub fn known_down(&self, now: Instant, why: &str) -> Option<Switched> {
        self.change(|machine| machine.known_down(now, why))
    }

    pub fn trial_void(&self) {
        self.machine().trial_void();
    }

    pub fn healthy(&self, now: Instant) -> Option<Switched> {
        if self.clean.load(Ordering::Relaxed) {
            return None;
        }
        self.change(|machine| machine.healthy(now))
    }

    /// Requests are let through freely.
    pub fn is_closed(&self) -> bool {
        self.clean.load(Ordering::Relaxed) || self.machine().phase == Phase::Closed
    }

    pub fn outlook(&self, now: Instant) -> Outlook {
        if self.clean.load(Ordering::Relaxed) {
            return Outlook::Free;
        }
        self.machine().outlook(now)
    }

    fn change(&self, by: impl FnOnce(&mut Machine) -> Option<Change>) -> Option<Switched> {
        let mut machine = self.machine();
        let change = by(&mut machine);
        self.clean.store(machine.is_clean(), Ordering::Relaxed);
        told(&machine, change)
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(machine: &Machine, change: Option<Change>) -> Option<Switched> {
    change.map(|change| Switched { change, why: machine.why.clone(), turn: machine.turn })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SlowConfig;

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
        machine.success(now, None);
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
        assert_eq!(machine.success(later, None), Some(Change::Closed));
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
        machine.healthy(now);
        assert_eq!(machine.failure(now, false), None);
        assert_eq!(machine.admit(now).0, Admission::Trial);
    }

    #[test]
    fn a_void_or_lost_trial_gives_its_place_back() {
        let now = Instant::now();
        let mut machine = opened(now);
        machine.healthy(now);
        assert_eq!(machine.admit(now).0, Admission::Trial);
        machine.trial_void();
        assert_eq!(machine.admit(now).0, Admission::Trial);
        assert_eq!(machine.admit(now + TRIAL_LOST_AFTER).0, Admission::Trial);
    }

    /// Closed, and open again after `quiet`.
    fn again(machine: &mut Machine, now: &mut Instant, quiet: Duration) {
        let Admission::Refused { retry_after } = machine.admit(*now).0 else { panic!("open") };
        *now += retry_after;
        assert_eq!(machine.admit(*now).0, Admission::Trial);
        assert_eq!(machine.success(*now, None), Some(Change::Closed));
        *now += quiet;
        for _ in 0..3 {
            machine.failure(*now, false);
        }
    }

    #[test]
    fn one_that_flaps_is_held_open_for_longer_and_a_quiet_time_takes_it_back() {
        let mut now = Instant::now();
        let mut machine = opened(now);
        for held in [1, 2, 4] {
            again(&mut machine, &mut now, Duration::from_millis(100));
            let before = now + Duration::from_secs(held) - Duration::from_millis(1);
            assert_eq!(machine.healthy(before), None, "held for {held} s");
            assert_eq!(machine.success(before, None), None);
            let mut other = Machine { why: String::new(), ..copy(&machine) };
            assert_eq!(other.healthy(now + Duration::from_secs(held)), Some(Change::HalfOpened));
        }
        again(&mut machine, &mut now, Duration::from_secs(30 * 4));
        assert_eq!(machine.healthy(now), Some(Change::HalfOpened), "all is forgiven");
    }

    fn copy(machine: &Machine) -> Machine {
        Machine {
            phase: machine.phase,
            held_until: machine.held_until,
            ..Machine::new(machine.config.clone())
        }
    }

    #[test]
    fn jitter_only_adds() {
        let now = Instant::now();
        for seed in 1..50 {
            let mut machine = Machine::jittered(BreakerConfig::default(), seed);
            machine.known_down(now, "others say so");
            let Admission::Refused { retry_after } = machine.admit(now).0 else { panic!("open") };
            assert!((1.0..1.25).contains(&retry_after.as_secs_f64()), "{retry_after:?}");
        }
    }

    #[test]
    fn it_says_why_it_switched() {
        let now = Instant::now();
        let machine = opened(now);
        assert_eq!(machine.why, "3 failures in a row (limit 3)");
    }

    #[test]
    fn a_canary_comes_after_live_requests_had_their_chance() {
        let now = Instant::now();
        let mut machine = opened(now);
        let until = now + Duration::from_secs(1) + LIVE_FIRST;
        assert_eq!(machine.outlook(now), Outlook::Nothing { until });
        assert_eq!(machine.outlook(until), Outlook::Canary);
        machine.healthy(now);
        assert_eq!(machine.admit(now).0, Admission::Trial);
        assert_eq!(machine.outlook(now), Outlook::Nothing { until: now + LIVE_FIRST });
    }

    #[test]
    fn slow_answers_open_it_and_a_slow_trial_keeps_it_open() {
        let slow = SlowConfig { quantile: 0.5, above: Duration::from_secs(1), of_last: 4 };
        let config = BreakerConfig { slow: Some(slow), ..BreakerConfig::default() };
        let (mut machine, now) = (Machine::new(config), Instant::now());
        let [quick, long] = [100, 1500].map(|ms| Some(Duration::from_millis(ms)));
        for took in [quick, long, quick, long, long] {
            let change = machine.success(now, took);
            assert_eq!(change.is_some(), took == long && machine.phase != Phase::Closed);
        }
        assert!(machine.why.starts_with("3 of the last 4 answers"), "{}", machine.why);
        let later = now + Duration::from_secs(1);
        assert_eq!(machine.admit(later).0, Admission::Trial);
        assert_eq!(machine.success(later, long), Some(Change::Opened));
        let later = later + Duration::from_secs(2);
        assert_eq!(machine.admit(later).0, Admission::Trial);
        assert_eq!(machine.success(later, quick), Some(Change::Closed));
    }
}
