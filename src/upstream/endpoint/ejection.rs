//! When one endpoint of several gets no requests for a time, and how it comes back.
//!
//! Pure: time and chance are passed in. Waiting ends by time or by a health question; probation ends by a real request
//! only: an endpoint that answers `/healthz` and nothing else stays out.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::EjectionConfig, upstream::balance::FULL};

/// The rule for one endpoint, without clock or IO.
#[derive(Debug)]
pub(super) struct Ejection {
    phase: Phase,
    /// Failures in a row of real requests.
    in_a_row: u32,
    /// Health questions in vain, in a row.
    unhealthy: u32,
    /// Times it was ejected without being well for long: the wait doubles with each.
    times: u32,
    trials: u32,
}

/// The right to one trial. One that is over says nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Trial(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In the draw. `back_since`: it was ejected before.
    In { back_since: Option<Instant> },
    /// No requests until then.
    Out { until: Instant },
    /// One real request at a time may find out whether it is back.
    Probation { trial: Option<Trial> },
}

/// What an endpoint may get now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Requests, by `weight` thousandths of a full share.
    In { weight: u16 },
    /// Nothing.
    Out,
    /// One request, now.
    WantsTrial,
    /// Nothing while its trial goes on.
    OnTrial,
}

/// What changed for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Turn {
    Ejected,
    Probation,
    Back,
}

/// What an endpoint that has just come back gets.
const FIRST_SHARE: u16 = 100;

impl Ejection {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::In { back_since: None },
            in_a_row: 0,
            unhealthy: 0,
            times: 0,
            trials: 0,
        }
    }

    /// A wait that is over becomes probation here.
    pub(super) fn standing(&mut self, now: Instant, slow_start: Duration) -> Standing {
        if let Phase::Out { until } = self.phase
            && now >= until
        {
            self.phase = Phase::Probation { trial: None };
        }
        match self.phase {
            Phase::In { back_since: None } => Standing::In { weight: FULL },
            Phase::In { back_since: Some(since) } => {
                Standing::In { weight: weight(now.saturating_duration_since(since), slow_start) }
            }
            Phase::Out { .. } => Standing::Out,
            Phase::Probation { trial: None } => Standing::WantsTrial,
            Phase::Probation { trial: Some(_) } => Standing::OnTrial,
        }
    }

    /// Takes the trial, if it is to be had. Whoever has it must tell how it went, or give it back.
    pub(super) fn take_trial(&mut self) -> Option<Trial> {
        if self.phase != (Phase::Probation { trial: None }) {
            return None;
        }
        self.trials = self.trials.wrapping_add(1);
        let trial = Trial(self.trials);
        self.phase = Phase::Probation { trial: Some(trial) };
        Some(trial)
    }

    /// The trial ended without saying anything about the endpoint.
    pub(super) fn trial_void(&mut self, trial: Trial) {
        if self.phase == (Phase::Probation { trial: Some(trial) }) {
            self.phase = Phase::Probation { trial: None };
        }
    }

    /// It answered a real request.
    pub(super) fn success(&mut self, now: Instant) -> Option<Turn> {
        self.in_a_row = 0;
        match self.phase {
            Phase::In { .. } => None,
            // An exchange from before, or ejections are ignored now: it lives, so a trial may come at once.
            Phase::Out { .. } => {
                self.phase = Phase::Probation { trial: None };
                Some(Turn::Probation)
            }
            Phase::Probation { .. } => {
                self.phase = Phase::In { back_since: Some(now) };
                self.unhealthy = 0;
                Some(Turn::Back)
            }
        }
    }

    /// It did not answer a real request. `chance` is between 0 and 1.
    pub(super) fn failure(
        &mut self,
        config: &EjectionConfig,
        now: Instant,
        trial: Option<Trial>,
        chance: f64,
    ) -> Option<Turn> {
        self.in_a_row = self.in_a_row.saturating_add(1);
        match self.phase {
            Phase::In { .. } if self.in_a_row >= config.failures => {
                Some(self.eject(config, now, chance))
            }
            Phase::Probation { trial: Some(now_on) } if trial == Some(now_on) => {
                Some(self.eject(config, now, chance))
            }
            Phase::In { .. } | Phase::Probation { .. } | Phase::Out { .. } => None,
        }
    }

    /// A health question was answered: a trial may come before the time is over.
    pub(super) fn healthy(&mut self) -> Option<Turn> {
        self.unhealthy = 0;
        matches!(self.phase, Phase::Out { .. }).then(|| {
            self.phase = Phase::Probation { trial: None };
            Turn::Probation
        })
    }

    /// A health question was not answered.
    pub(super) fn unhealthy(
        &mut self,
        config: &EjectionConfig,
        now: Instant,
        chance: f64,
    ) -> Option<Turn> {
        self.unhealthy = self.unhealthy.saturating_add(1);
        let enough = self.unhealthy >= config.failures;
        (enough && matches!(self.phase, Phase::In { .. })).then(|| self.eject(config, now, chance))
    }

    /// Nothing to ask and nothing to reset: in the draw with a full share.
    pub(super) fn is_clean(&mut self, now: Instant, slow_start: Duration) -> bool {
        let full = self.standing(now, slow_start) == Standing::In { weight: FULL };
        full && self.in_a_row == 0
    }

    fn eject(&mut self, config: &EjectionConfig, now: Instant, chance: f64) -> Turn {
        // One that was well for longer than the longest wait starts afresh.
        if let Phase::In { back_since } = self.phase
            && back_since.is_none_or(|since| now.saturating_duration_since(since) > config.max_time)
        {
            self.times = 0;
        }
        let doubled = config.time.saturating_mul(1 << self.times.min(16)).min(config.max_time);
        self.times = self.times.saturating_add(1);
        let jitter = 1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0);
        self.phase = Phase::Out { until: now + doubled.mul_f64(jitter) };
        self.in_a_row = 0;
        self.unhealthy = 0;
        Turn::Ejected
    }
}

/// Standins side by side must not all come back to an endpoint in the same moment.
const JITTER: f64 = 0.25;

/// Grows evenly from [`FIRST_SHARE`] to [`FULL`].
fn weight(back_for: Duration, slow_start: Duration) -> u16 {
    if back_for >= slow_start {
        return FULL;
    }
    let part = back_for.as_secs_f64() / slow_start.as_secs_f64();
    let grown = part * f64::from(FULL - FIRST_SHARE);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to FULL")]
    let grown = grown as u16;
    FIRST_SHARE + grown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> EjectionConfig {
        EjectionConfig { failures: 3, max_time: 8 * SECOND, ..EjectionConfig::default() }
    }

    fn ejected(now: Instant) -> Ejection {
        let mut ejection = Ejection::new();
        let turns: Vec<_> = (0..3).map(|_| ejection.failure(&config(), now, None, 0.5)).collect();
        assert_eq!(turns, [None, None, Some(Turn::Ejected)]);
        ejection
    }

    #[test]
    fn failures_in_a_row_eject_and_an_answer_between_them_does_not_let_them_add_up() {
        let (mut ejection, now) = (Ejection::new(), Instant::now());
        for _ in 0..20 {
            assert_eq!(ejection.failure(&config(), now, None, 0.5), None);
            assert_eq!(ejection.failure(&config(), now, None, 0.5), None);
            assert_eq!(ejection.success(now), None);
        }
        assert_eq!(ejected(now).standing(now, WINDOW), Standing::Out);
    }

    #[test]
    fn after_the_wait_one_request_at_a_time_finds_out() {
        let now = Instant::now();
        let mut ejection = ejected(now);
        assert_eq!(
            ejection.standing(now + SECOND - Duration::from_millis(1), WINDOW),
            Standing::Out
        );
        assert_eq!(ejection.take_trial(), None);
        assert_eq!(ejection.standing(now + SECOND, WINDOW), Standing::WantsTrial);
        let trial = ejection.take_trial().unwrap();
        assert_eq!(ejection.take_trial(), None);
        assert_eq!(ejection.standing(now + SECOND, WINDOW), Standing::OnTrial);
        ejection.trial_void(trial);
        assert_eq!(ejection.standing(now + SECOND, WINDOW), Standing::WantsTrial);
        let next = ejection.take_trial();
        ejection.trial_void(trial);
        assert_eq!(ejection.failure(&config(), now, Some(trial), 0.5), None, "it is over");
        assert_eq!(ejection.standing(now + SECOND, WINDOW), Standing::OnTrial);
        assert_eq!(ejection.failure(&config(), now, next, 0.5), Some(Turn::Ejected));
    }

    #[test]
    fn a_failed_trial_doubles_the_wait_up_to_its_bound_and_chance_moves_it_by_a_quarter() {
        let mut now = Instant::now();
        let mut ejection = ejected(now);
        for wait in [1, 2, 4, 8, 8] {
            now += Duration::from_secs(wait);
            assert_eq!(ejection.standing(now, WINDOW), Standing::WantsTrial);
            let trial = ejection.take_trial();
            assert!(trial.is_some());
            assert_eq!(ejection.failure(&config(), now, trial, 0.5), Some(Turn::Ejected));
        }
        let mut early = ejected(now);
        early.healthy();
        let trial = early.take_trial();
        early.failure(&config(), now, trial, 0.0);
        assert_eq!(early.standing(now + SECOND * 3 / 2, WINDOW), Standing::WantsTrial);
        let mut late = ejected(now);
        late.healthy();
        let trial = late.take_trial();
        late.failure(&config(), now, trial, 1.0);
        assert_eq!(late.standing(now + SECOND * 2, WINDOW), Standing::Out);
        assert_eq!(late.standing(now + SECOND * 5 / 2, WINDOW), Standing::WantsTrial);
    }

    #[test]
    fn a_health_question_ends_the_wait_but_not_the_probation() {
        let now = Instant::now();
        let mut ejection = ejected(now);
        assert_eq!(ejection.healthy(), Some(Turn::Probation));
        for _ in 0..10 {
            assert_eq!(ejection.healthy(), None);
            assert_eq!(ejection.standing(now, WINDOW), Standing::WantsTrial);
        }
        assert!(ejection.take_trial().is_some());
        assert_eq!(ejection.success(now), Some(Turn::Back));
    }

    #[test]
    fn health_questions_in_vain_in_a_row_eject() {
        let (mut ejection, now) = (Ejection::new(), Instant::now());
        assert_eq!(ejection.unhealthy(&config(), now, 0.5), None);
        assert_eq!(ejection.unhealthy(&config(), now, 0.5), None);
        ejection.healthy();
        assert_eq!(ejection.unhealthy(&config(), now, 0.5), None);
        assert_eq!(ejection.unhealthy(&config(), now, 0.5), None);
        assert_eq!(ejection.unhealthy(&config(), now, 0.5), Some(Turn::Ejected));
        assert_eq!(ejection.unhealthy(&config(), now, 0.5), None);
    }

    #[test]
    fn one_that_comes_back_gets_its_share_slowly() {
        let now = Instant::now();
        let mut ejection = ejected(now);
        ejection.healthy();
        ejection.take_trial();
        ejection.success(now);
        let weight = |ejection: &mut Ejection, after| match ejection.standing(now + after, WINDOW) {
            Standing::In { weight } => weight,
            other => panic!("{other:?}"),
        };
        assert_eq!(weight(&mut ejection, Duration::ZERO), 100);
        assert_eq!(weight(&mut ejection, WINDOW / 2), 550);
        assert_eq!(weight(&mut ejection, WINDOW), FULL);
        assert_eq!(ejection.standing(now, Duration::ZERO), Standing::In { weight: FULL });
    }

    #[test]
    fn one_that_was_well_for_long_is_ejected_for_the_first_time_again() {
        let now = Instant::now();
        let mut ejection = ejected(now);
        ejection.healthy();
        ejection.success(now);
        for well_for in [SECOND, 9 * SECOND] {
            let mut ejection = Ejection { ..ejection };
            let then = now + well_for;
            (0..3).for_each(|_| _ = ejection.failure(&config(), then, None, 0.5));
            let first_time = ejection.standing(then + SECOND, WINDOW) == Standing::WantsTrial;
            assert_eq!(first_time, well_for > config().max_time);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Wait(u64),
        Success,
        Failure,
        Healthy,
        Unhealthy,
        Trial,
        Void,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0_u64..20_000).prop_map(Event::Wait),
            Just(Event::Success),
            Just(Event::Failure),
            Just(Event::Healthy),
            Just(Event::Unhealthy),
            Just(Event::Trial),
            Just(Event::Void),
        ];
        proptest::collection::vec(event, 1..200)
    }

    proptest! {
        /// Whatever happens: only a real answer leads back into the draw, and no wait is longer than its bound.
        #[test]
        fn only_a_real_answer_leads_back(events in events(), chance in 0.0_f64..=1.0) {
            let (mut ejection, mut now) = (Ejection::new(), Instant::now());
            let mut on_trial = None;
            for event in events {
                let was_in = matches!(ejection.standing(now, WINDOW), Standing::In { .. });
                match event {
                    Event::Wait(millis) => now += Duration::from_millis(millis),
                    Event::Success => _ = ejection.success(now),
                    Event::Failure => _ = ejection.failure(&config(), now, on_trial, chance),
                    Event::Healthy => _ = ejection.healthy(),
                    Event::Unhealthy => _ = ejection.unhealthy(&config(), now, chance),
                    Event::Trial => on_trial = ejection.take_trial(),
                    Event::Void => on_trial.into_iter().for_each(|trial| ejection.trial_void(trial)),
                }
                let is_in = matches!(ejection.standing(now, WINDOW), Standing::In { .. });
                prop_assert!(was_in || !is_in || matches!(event, Event::Success));
                if let Phase::Out { until } = ejection.phase {
                    prop_assert!(until - now <= config().max_time * 5 / 4);
                }
            }
        }
    }
}
