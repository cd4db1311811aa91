//! Whether answers have become slow: a quantile of the last so many, held against a threshold.
//!
//! Pure and bounded: of each answer only one bit is kept, because nothing else is asked.

use std::{collections::VecDeque, time::Duration};

use crate::config::{SlowConfig, units::write_duration};

/// See the module.
#[derive(Debug)]
pub(super) struct Slowness {
    config: SlowConfig,
    /// Of the last answers: whether each was above the threshold.
    last: VecDeque<bool>,
    slow: usize,
}

impl Slowness {
    pub(super) fn new(config: &SlowConfig) -> Self {
        Self { last: VecDeque::with_capacity(config.of_last), slow: 0, config: config.clone() }
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took > self.config.above
    }

    /// Takes note of an answer. If the quantile is above the threshold now: how so.
    pub(super) fn answered(&mut self, took: Duration) -> Option<String> {
        if self.last.len() >= self.config.of_last {
            self.slow -= usize::from(self.last.pop_front().unwrap_or_default());
        }
        let is_slow = self.is_slow(took);
        self.last.push_back(is_slow);
        self.slow += usize::from(is_slow);
        let full = self.last.len() >= self.config.of_last;
        (full && self.slow > self.allowed()).then(|| {
            format!(
                "{} of the last {} answers took more than {} (limit {}: quantile {})",
                self.slow,
                self.config.of_last,
                write_duration(self.config.above),
                self.allowed(),
                self.config.quantile,
            )
        })
    }

    /// Begins anew.
    pub(super) fn forget(&mut self) {
        self.last.clear();
        self.slow = 0;
    }

    /// The quantile is the answer at this rank from below; so many may be slower without making it slow.
    fn allowed(&self) -> usize {
        let of = self.config.of_last;
        let rank = (self.config.quantile * of as f64 - 1e-9).ceil() as usize;
        of - rank.clamp(1, of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowness(quantile: f64, of_last: usize) -> Slowness {
        Slowness::new(&SlowConfig { quantile, above: Duration::from_secs(5), of_last })
    }

    fn feed(slowness: &mut Slowness, slow: usize, quick: usize) -> bool {
        let quick = std::iter::repeat_n(1, quick);
        let all: Vec<u64> = std::iter::repeat_n(6, slow).chain(quick).collect();
        all.iter().fold(false, |_, took| slowness.answered(Duration::from_secs(*took)).is_some())
    }

    #[test]
    fn the_quantile_of_the_last_answers_decides() {
        assert!(!feed(&mut slowness(0.9, 50), 5, 45));
        assert!(feed(&mut slowness(0.9, 50), 6, 44));
        assert!(!feed(&mut slowness(0.5, 4), 2, 2));
        assert!(feed(&mut slowness(0.5, 4), 3, 1));
        assert!(feed(&mut slowness(1.0, 3), 1, 2));
    }

    #[test]
    fn few_answers_say_nothing_and_old_ones_are_forgotten() {
        let mut slowness = slowness(0.9, 50);
        assert!(!feed(&mut slowness, 49, 0));
        slowness.forget();
        assert!(!feed(&mut slowness, 5, 45));
        assert!(!feed(&mut slowness, 5, 0), "those that were slow before have left");
    }
}
