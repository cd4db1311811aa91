//! Watches whether the wall clock goes on like the steady one. What entries wait for and when they expire goes by the wall
//! clock, so a jump moves it: people must hear of that. Mends nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::time::{UnixMillis, next_look};

/// What was seen of the clocks; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clocks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    jumps: AtomicU64,
    last: Mutex<Option<Jump>>,
}

/// The wall clock went further than the steady one, or less far, or back. So it looks, too, when the machine slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// By the wall clock after the jump.
    pub found_at: UnixMillis,
    /// Negative: back.
    pub by_ms: i64,
}

/// Both clocks at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub wall: UnixMillis,
    pub steady: Instant,
}

impl Clocks {
    /// Looks for ever.
    pub async fn watch(self) {
        let mut last = Reading::now();
        loop {
            next_look(LOOK).await;
            let now = Reading::now();
            self.look(last, now);
            last = now;
        }
    }

    /// Counts and reports a jump between two readings.
    pub fn look(&self, before: Reading, now: Reading) {
        let Some(jump) = jump(before, now) else { return };
        self.0.jumps.fetch_add(1, Ordering::Relaxed);
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(jump);
        tracing::warn!(
            by_ms = jump.by_ms,
            "the wall clock jumped: what expires or waits goes by it"
        );
    }

    /// Jumps since start.
    pub fn jumps(&self) -> u64 {
        self.0.jumps.load(Ordering::Relaxed)
    }

    pub fn last_jump(&self) -> Option<Jump> {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn now() -> Self {
        let mut tries = 0;
        loop {
            let before = Instant::now();
            let wall = UnixMillis::now();
            let steady = Instant::now();
            tries += 1;
            // A thread that was stopped between the two would see a jump where there is none.
            if steady - before < AT_ONCE || tries == TRIES {
                return Self { wall, steady };
            }
        }
    }
}

fn jump(before: Reading, now: Reading) -> Option<Jump> {
    let steady = now.steady.saturating_duration_since(before.steady);
    let steady = i64::try_from(steady.as_millis()).unwrap_or(i64::MAX);
    let by_ms = now.wall.0.saturating_sub(before.wall.0).saturating_sub(steady);
    (by_ms.unsigned_abs() > TOLERATED_MS).then_some(Jump { found_at: now.wall, by_ms })
}

/// More than a clock is adjusted by without a jump.
const TOLERATED_MS: u64 = 2000;
const LOOK: Duration = Duration::from_secs(1);
const AT_ONCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen when the wall clock moves by `wall_ms` while `steady_ms` pass.
    fn seen(wall_ms: i64, steady_ms: u64) -> Option<i64> {
        let before = Reading { wall: UnixMillis(1_000_000), steady: Instant::now() };
        let now = Reading {
            wall: UnixMillis(1_000_000 + wall_ms),
            steady: before.steady + Duration::from_millis(steady_ms),
        };
        let jump = jump(before, now)?;
        assert_eq!(jump.found_at, now.wall);
        Some(jump.by_ms)
    }

    #[test]
    fn clocks_that_go_together_are_no_jump_however_long_nobody_looked() {
        assert_eq!(seen(1000, 1000), None);
        assert_eq!(seen(3_600_000, 3_600_000), None, "stopped for an hour");
        assert_eq!(seen(3000, 1000), None, "two seconds are tolerated");
        assert_eq!(seen(-1000, 1000), None);
    }

    #[test]
    fn more_than_two_seconds_either_way_are_a_jump() {
        assert_eq!(seen(3001, 1000), Some(2001));
        assert_eq!(seen(-1001, 1000), Some(-2001));
        assert_eq!(seen(3_601_000, 1000), Some(3_600_000));
        assert_eq!(seen(0, 3_600_000), Some(-3_600_000), "a wall clock that stands still");
    }

    #[test]
    fn jumps_are_counted_and_the_last_one_is_kept() {
        let clocks = Clocks::default();
        let steady = Instant::now();
        let at = |wall| Reading { wall: UnixMillis(wall), steady };
        clocks.look(at(0), at(0));
        assert_eq!((clocks.jumps(), clocks.last_jump()), (0, None));
        clocks.look(at(0), at(5000));
        clocks.look(at(5000), at(1000));
        let last = Some(Jump { found_at: UnixMillis(1000), by_ms: -4000 });
        assert_eq!((clocks.jumps(), clocks.last_jump()), (2, last));
    }

    #[tokio::test(start_paused = true)]
    async fn the_watch_compares_each_look_with_the_one_before() {
        let clocks = Clocks::default();
        // The wall clock does not know that tokio's is paused and advanced, so it seems to stand still.
        let story = async {
            tokio::time::sleep(LOOK * 9 / 2).await;
            assert_eq!(clocks.jumps(), 0, "a second each is tolerated and does not add up");
            tokio::time::advance(Duration::from_secs(10)).await;
            tokio::time::sleep(LOOK).await;
            assert_eq!(clocks.jumps(), 1);
        };
        tokio::select! {
            () = story => {}
            () = clocks.clone().watch() => {}
        }
    }
}
