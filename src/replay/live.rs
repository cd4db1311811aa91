//! Live traffic comes first: judges from the counters of live requests whether replays are too much for the app.
//!
//! Pure: it is given samples, a few times a second, and knows no clock.

/// What was counted so far of the live requests of one upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Answered by the app, below 500.
    pub answered: u64,
    /// Answered by the app, 5xx.
    pub errors: u64,
    /// Answered by standin, whatever it said: their times are not the app's.
    pub others: u64,
    /// Sum of all times to the head of the answer.
    pub latency_sum_us: u64,
}

/// How live requests fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Live {
    /// Well, or there are too few to tell.
    Well,
    /// More than twice as slow as without replays.
    Slow,
    /// One in ten fails.
    Failing,
}

/// Remembers the last sample, and how long live requests take when nothing is replayed.
#[derive(Debug, Default)]
pub(super) struct LiveWatch {
    last: Option<Sample>,
    calm_us: Option<f64>,
}

/// Fewer requests than this between two samples tell nothing.
const ENOUGH: u64 = 5;
/// Slower by less than this is noise, however fast the app usually is.
const NOISE_US: f64 = 5_000.0;

impl LiveWatch {
    /// `replaying`: whether replays were in flight since the last sample.
    pub(super) fn judge(&mut self, sample: Sample, replaying: bool) -> Live {
        let Some(last) = self.last.replace(sample) else { return Live::Well };
        let answered = sample.answered.saturating_sub(last.answered);
        let errors = sample.errors.saturating_sub(last.errors);
        let all = answered + errors;
        if all < ENOUGH {
            return Live::Well;
        }
        if errors * 10 > all {
            return Live::Failing;
        }
        if sample.others != last.others {
            return Live::Well;
        }
        let mean = sample.latency_sum_us.saturating_sub(last.latency_sum_us) as f64 / all as f64;
        match self.calm_us {
            Some(calm) if replaying => {
                if mean > calm * 2.0 + NOISE_US {
                    Live::Slow
                } else {
                    Live::Well
                }
            }
            Some(calm) => {
                self.calm_us = Some(calm.mul_add(0.8, mean * 0.2));
                Live::Well
            }
            None => {
                self.calm_us = (!replaying).then_some(mean);
                Live::Well
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds `answered` requests of `each_us`, `errors` and `others` to what was counted.
    fn more(so_far: &mut Sample, answered: u64, errors: u64, others: u64, each_us: u64) -> Sample {
        so_far.answered += answered;
        so_far.errors += errors;
        so_far.others += others;
        so_far.latency_sum_us += (answered + errors) * each_us;
        *so_far
    }

    #[test]
    fn slow_is_measured_against_the_time_without_replays() {
        let (mut watch, mut counted) = (LiveWatch::default(), Sample::default());
        watch.judge(counted, false);
        for _ in 0..5 {
            assert_eq!(watch.judge(more(&mut counted, 100, 0, 0, 10_000), false), Live::Well);
        }
        assert_eq!(watch.judge(more(&mut counted, 100, 0, 0, 20_000), true), Live::Well);
        assert_eq!(watch.judge(more(&mut counted, 100, 0, 0, 30_000), true), Live::Slow);
        assert_eq!(watch.judge(more(&mut counted, 2, 0, 0, 900_000), true), Live::Well, "too few");
        assert_eq!(watch.judge(more(&mut counted, 100, 0, 9, 30_000), true), Live::Well, "mixed");
    }

    #[test]
    fn one_error_in_ten_is_failing() {
        let (mut watch, mut counted) = (LiveWatch::default(), Sample::default());
        watch.judge(counted, true);
        assert_eq!(watch.judge(more(&mut counted, 99, 1, 0, 1000), true), Live::Well);
        assert_eq!(watch.judge(more(&mut counted, 80, 20, 0, 1000), true), Live::Failing);
        assert_eq!(watch.judge(more(&mut counted, 0, 9, 30, 1000), true), Live::Failing);
    }

    #[test]
    fn without_a_quiet_time_slow_cannot_be_told() {
        let (mut watch, mut counted) = (LiveWatch::default(), Sample::default());
        watch.judge(counted, true);
        for each_us in [10_000, 1_000_000] {
            assert_eq!(watch.judge(more(&mut counted, 50, 0, 0, each_us), true), Live::Well);
        }
    }
}
