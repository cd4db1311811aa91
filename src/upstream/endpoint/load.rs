//! How busy an endpoint is: requests in flight, and how long it took lately. Shared by all threads; written only where
//! there is a choice between endpoints.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// What one endpoint is doing. On a cache line of its own: neighbours are written by other requests.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Load {
    in_flight: AtomicU32,
    answered: AtomicU64,
    /// When it answered last, in microseconds since the fixed moment; 0: never.
    answered_at: AtomicU64,
    /// The estimate in microseconds above, the time it was made in milliseconds below: one word, read and written whole.
    estimate: AtomicU64,
}

impl Load {
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// It answered after `took`. `now` is the time since some fixed moment.
    pub(super) fn observe(&self, now: Duration, took: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.answered_at.store(whole_micros(now).max(1), Ordering::Relaxed);
        self.update(now, |estimate, elapsed| learned(estimate, elapsed, micros(took)));
    }

    /// Whether it has answered after that time.
    pub(super) fn answered_since(&self, then: Duration) -> bool {
        self.answered_at.load(Ordering::Relaxed) > whole_micros(then)
    }

    /// It took at least `took` and there is no answer yet.
    pub(super) fn observe_at_least(&self, now: Duration, took: Duration) {
        self.update(now, |estimate, elapsed| forgotten(estimate, elapsed).max(micros(took)));
    }

    /// It failed: for a while it must look dear, however fast it failed.
    pub(super) fn observe_failure(&self, now: Duration, took: Duration) {
        self.update(now, |estimate, elapsed| {
            let dear = (forgotten(estimate, elapsed) * FAILURE_COSTS).clamp(SHORTEST, LONGEST);
            dear.max(micros(took)).max(estimate)
        });
    }

    /// It is back: what came before says nothing any more.
    pub(super) fn forget(&self) {
        self.estimate.store(0, Ordering::Relaxed);
    }

    /// What one more request costs here.
    pub(super) fn cost(&self, now: Duration) -> f64 {
        cost(self.estimate_us(now), self.in_flight())
    }

    /// How long an answer takes, as far as is known.
    pub(super) fn estimate_us(&self, now: Duration) -> f64 {
        let (estimate, at) = unpack(self.estimate.load(Ordering::Relaxed));
        forgotten(estimate, since(at, now))
    }

    fn update(&self, now: Duration, change: impl Fn(f64, Duration) -> f64) {
        // Two at once: one of them is lost, which an estimate can bear.
        let before = self.estimate.load(Ordering::Relaxed);
        let (estimate, at) = unpack(before);
        let next = pack(change(estimate, since(at, now)), now);
        self.estimate.compare_exchange(before, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

/// After this time without news, a third of an estimate is left.
const MEMORY: Duration = Duration::from_secs(5);
/// Below this nothing is known.
const UNKNOWN_US: f64 = 10.0;
/// An endpoint of which nothing is known gets one request; until it has answered, others are better.
const UNKNOWN_BUSY: f64 = 1e9;
/// A failure looks so many times as slow as what was usual, within these bounds.
const FAILURE_COSTS: f64 = 10.0;
const SHORTEST: f64 = 10_000.0;
const LONGEST: f64 = 1_000_000.0;

/// The peak is learned at once, what is better only slowly.
fn learned(estimate: f64, elapsed: Duration, took: f64) -> f64 {
    if took >= estimate {
        return took;
    }
    let kept = kept(elapsed);
    estimate.mul_add(kept, took * (1.0 - kept))
}

fn forgotten(estimate: f64, elapsed: Duration) -> f64 {
    estimate * kept(elapsed)
}

fn kept(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

fn cost(estimate: f64, in_flight: u32) -> f64 {
    match in_flight {
        0 => estimate,
        busy if estimate < UNKNOWN_US => UNKNOWN_BUSY * f64::from(busy),
        busy => estimate * (f64::from(busy) + 1.0),
    }
}

fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "wraps, saturates")]
fn pack(estimate: f64, now: Duration) -> u64 {
    u64::from(estimate as u32) << 32 | u64::from(now.as_millis() as u32)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn unpack(word: u64) -> (f64, u32) {
    (f64::from((word >> 32) as u32), word as u32)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "wraps after 49 days, and so does the difference"
)]
fn since(at: u32, now: Duration) -> Duration {
    let elapsed = (now.as_millis() as u32).wrapping_sub(at);
    // Another thread's clock was read a little later.
    let elapsed = if elapsed > u32::MAX / 2 { 0 } else { elapsed };
    Duration::from_millis(u64::from(elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peak_is_learned_at_once_and_forgotten_slowly() {
        let load = Load::default();
        load.observe(Duration::ZERO, 100 * MS);
        assert!((load.estimate_us(Duration::ZERO) - 100_000.0).abs() < 1.0);
        load.observe(MS, 5 * MS);
        assert!(load.estimate_us(MS) > 99_000.0);
        for at in 1..=5_000 {
            load.observe(at * MS, 5 * MS);
        }
        let third = load.estimate_us(MEMORY);
        assert!((30_000.0..50_000.0).contains(&third), "{third}");
        assert!(load.estimate_us(MEMORY * 20) < UNKNOWN_US, "without news nothing is known");
    }

    #[test]
    fn what_is_in_flight_multiplies_the_cost() {
        let load = Load::default();
        load.observe(Duration::ZERO, 10 * MS);
        let idle = load.cost(Duration::ZERO);
        load.begin();
        load.begin();
        assert!((load.cost(Duration::ZERO) / idle - 3.0).abs() < 0.01);
        load.end();
        load.end();
        assert!((load.cost(Duration::ZERO) - idle).abs() < 1e-9);
    }

    #[test]
    fn one_of_which_nothing_is_known_gets_one_request_at_a_time() {
        let (unknown, slow) = (Load::default(), Load::default());
        slow.observe(Duration::ZERO, 900 * MS);
        assert!(unknown.cost(Duration::ZERO) < slow.cost(Duration::ZERO));
        unknown.begin();
        assert!(unknown.cost(Duration::ZERO) > slow.cost(Duration::ZERO));
    }

    #[test]
    fn failing_fast_is_not_being_fast() {
        let load = Load::default();
        load.observe(Duration::ZERO, 5 * MS);
        load.observe_failure(MS, Duration::from_micros(50));
        assert!(load.estimate_us(MS) > 45_000.0);
        for at in 0..100 {
            load.observe_failure(at * MS, Duration::ZERO);
        }
        assert!(load.estimate_us(100 * MS) <= LONGEST);
    }

    #[test]
    fn an_answer_that_does_not_come_counts_from_below() {
        let load = Load::default();
        load.observe(Duration::ZERO, 50 * MS);
        load.observe_at_least(MS, 2 * MS);
        assert!(load.estimate_us(MS) > 49_000.0, "a client that left soon says nothing");
        load.observe_at_least(MS, 2_000 * MS);
        assert!(load.estimate_us(MS) > 1_900_000.0);
    }

    #[test]
    fn the_clock_may_wrap() {
        let load = Load::default();
        let wrap = Duration::from_millis(u64::from(u32::MAX));
        load.observe(wrap, 100 * MS);
        let later = load.estimate_us(wrap + MEMORY);
        assert!((30_000.0..40_000.0).contains(&later), "{later}");
    }
}
