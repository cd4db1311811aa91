//! How many tries beyond the first are allowed: a share of the requests, and a few a second however few there are.
//!
//! Pure: time is passed in. Each worker has its own, so that no request writes what others read.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::{config::RetryBudgetConfig, store::Certainty};

/// A bucket of tokens, one for each extra try, in millionths.
#[derive(Debug)]
pub(super) struct RetryBudget {
    config: RetryBudgetConfig,
    /// Earned by requests.
    by_share: u64,
    /// Earned by time.
    by_time: u64,
    counted_to: Instant,
}

/// The extra tries of all workers, and those that the budget refused. Rare enough to be shared.
#[derive(Debug, Default)]
pub struct ExtraTries {
    pub not_sent: AtomicU64,
    pub sent_unknown: AtomicU64,
    pub refused: AtomicU64,
}

impl ExtraTries {
    pub(super) fn count(&self, after: Certainty, allowed: bool) {
        let counter = match after {
            _ if !allowed => &self.refused,
            Certainty::NotSent => &self.not_sent,
            Certainty::SentUnknown => &self.sent_unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One extra try.
const TOKEN: u64 = 1_000_000;
/// Requests whose share is remembered: what a quiet hour saved up must not be spent in one second.
const REMEMBERED_REQUESTS: u64 = 1000;

impl RetryBudget {
    pub(super) fn new(config: RetryBudgetConfig, now: Instant) -> Self {
        let by_time = u64::from(config.per_second) * TOKEN;
        Self { config, by_share: 0, by_time, counted_to: now }
    }

    /// A request came: its share is earned.
    pub(super) fn earn(&mut self) {
        let share = u64::from(self.config.percent) * TOKEN / 100;
        self.by_share = (self.by_share + share).min(share * REMEMBERED_REQUESTS);
    }

    /// Whether one more try is allowed; if so it is paid for.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        self.earn_by_time(now);
        for purse in [&mut self.by_time, &mut self.by_share] {
            if let Some(rest) = purse.checked_sub(TOKEN) {
                *purse = rest;
                return true;
            }
        }
        false
    }

    /// At most one second's worth is kept.
    fn earn_by_time(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted_to);
        self.counted_to = self.counted_to.max(now);
        let per_second = u64::from(self.config.per_second);
        // A millionth of a try is earned `per_second` times in each microsecond.
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).min(TOKEN);
        self.by_time = (self.by_time + micros * per_second).min(per_second * TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn budget(percent: u32, per_second: u32, now: Instant) -> RetryBudget {
        RetryBudget::new(RetryBudgetConfig { percent, per_second }, now)
    }

    /// How many tries in a row are allowed now.
    fn allowed(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_share_of_the_requests_is_earned() {
        let now = Instant::now();
        let mut budget = budget(20, 0, now);
        assert_eq!(allowed(&mut budget, now), 0);
        (0..50).for_each(|_| budget.earn());
        assert_eq!(allowed(&mut budget, now), 10);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!(allowed(&mut budget, now), 200, "no more than 1000 requests are remembered");
    }

    #[test]
    fn a_few_a_second_are_allowed_without_requests() {
        let now = Instant::now();
        let mut budget = budget(20, 10, now);
        assert_eq!(allowed(&mut budget, now), 10);
        assert_eq!(allowed(&mut budget, now + Duration::from_millis(500)), 5);
        assert_eq!(allowed(&mut budget, now + Duration::from_secs(3600)), 10);
    }

    #[test]
    fn zero_means_none() {
        let now = Instant::now();
        let mut budget = budget(0, 0, now);
        budget.earn();
        assert!(!budget.spend(now + Duration::from_secs(100)));
    }

    proptest! {
        /// Whatever comes when: never more than the share, the time and what was remembered at the start.
        #[test]
        fn extra_tries_stay_within_share_and_time(
            percent in 0_u32..=100,
            per_second in 0_u32..=50,
            steps in proptest::collection::vec((0_u64..400, 0_u32..40, 0_u32..40), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut requests, mut spent) = (start, 0_u64, 0_u64);
            let mut budget = budget(percent, per_second, start);
            for (millis, came, asked) in steps {
                now += Duration::from_millis(millis);
                (0..came).for_each(|_| budget.earn());
                requests += u64::from(came);
                spent += (0..asked).filter(|_| budget.spend(now)).count() as u64;
                let seconds = (now - start).as_secs_f64();
                let most = requests as f64 * f64::from(percent) / 100.0
                    + (seconds + 1.0) * f64::from(per_second);
                prop_assert!(spent as f64 <= most + 1e-6, "{spent} of {most}");
            }
        }
    }
}
