//! Wall-clock time as it is stored and shown: milliseconds since 1970, UTC. Time limits use tokio's clock instead, and so do
//! looks that are taken again and again.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Now, by the machine's wall clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to `self`; zero if it is the other way round.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339, UTC, milliseconds.
impl std::fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Waits until it is time for one more look at something, one every `period`. All looks of a thread that have the same
/// period come at the same moments, and those with a longer one at some of them: a process that has nothing to do wakes
/// once for all of them.
pub async fn next_look(period: Duration) {
    tokio::time::sleep_until(next_moment(Instant::now(), period)).await;
}

/// When that is, for who asked at `now`.
pub fn next_moment(now: Instant, period: Duration) -> Instant {
    thread_local!(static FIRST: Cell<Option<Instant>> = const { Cell::new(None) });
    let first = FIRST.get().unwrap_or_else(|| {
        FIRST.set(Some(now));
        now
    });
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let gone = nanos(now.saturating_duration_since(first));
    let over = gone % nanos(period).max(1);
    now + period.saturating_sub(Duration::from_nanos(over))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn looks_of_a_thread_come_together() {
        let start = next_moment(Instant::now(), SECOND);
        for after in [1, 250, 999] {
            let asked = start + Duration::from_millis(after);
            assert_eq!(next_moment(asked, SECOND), start + SECOND);
        }
        assert_eq!(next_moment(start, SECOND), start + SECOND, "not the same moment again");
        let (early, late) =
            (next_moment(start, 2 * SECOND), next_moment(start + SECOND, 2 * SECOND));
        assert!([start + SECOND, start + 2 * SECOND].contains(&early));
        assert!([start + 2 * SECOND, start + 3 * SECOND].contains(&late));
    }

    #[tokio::test(start_paused = true)]
    async fn each_look_waits_for_a_period_at_most() {
        next_look(SECOND).await;
        for _ in 0..3 {
            let before = Instant::now();
            next_look(SECOND).await;
            let waited = before.elapsed();
            assert!(waited.as_millis().abs_diff(1000) <= 2, "{waited:?}");
        }
    }
}
