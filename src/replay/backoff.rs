//! How long to wait: after a failed attempt (exponential, capped, full jitter), and when the app says so (`Retry-After`).

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};

use crate::time::UnixMillis;

/// The wait after `failures` failed attempts: anything up to `min`, doubled with each failure, never above `max`.
/// Full jitter, so that what failed together does not come back together.
pub(super) fn backoff(
    failures: u32,
    min: Duration,
    max: Duration,
    chance: &mut Chance,
) -> Duration {
    let doubled =
        min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(max).mul_f64(chance.share())
}

/// What `Retry-After` asks for, in seconds or as an HTTP date (RFC 9110, 10.2.3); at most [`LONGEST_PAUSE`].
/// Unreadable ones are as good as none.
pub(super) fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX)) // all digits: only too large fails
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        let since = at.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
        UnixMillis(i64::try_from(since.as_millis()).ok()?).since(now)
    };
    Some(asked.min(LONGEST_PAUSE))
}

/// An app that asks for more is asked again after this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Where jitter comes from: SplitMix64, seeded, so that a test can repeat it.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Between 0 and 1, without 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(300);

    proptest! {
        #[test]
        fn never_above_the_cap_nor_above_the_doubled_minimum(failures in 0..100_u32, seed: u64) {
            let wait = backoff(failures, MIN, MAX, &mut Chance::seeded(seed));
            prop_assert!(wait <= MAX);
            if (1..=8).contains(&failures) {
                prop_assert!(wait <= MIN * 2_u32.pow(failures - 1));
            }
        }
    }

    #[test]
    fn jitter_is_full_and_repeatable() {
        let waits = |seed| {
            let mut chance = Chance::seeded(seed);
            (0..1000).map(|_| backoff(4, MIN, MAX, &mut chance)).collect::<Vec<_>>()
        };
        let some = waits(7);
        assert_eq!(some, waits(7));
        let mean = some.iter().sum::<Duration>() / 1000;
        assert!(
            (Duration::from_millis(3700)..Duration::from_millis(4300)).contains(&mean),
            "{mean:?}"
        );
        assert!(some.iter().any(|wait| *wait < Duration::from_millis(200)));
        assert!(some.iter().any(|wait| *wait > Duration::from_millis(7800)));
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date_is_bounded() {
        let now = UnixMillis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, now)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("0"), Some(Duration::ZERO));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO), "in the past");
        assert_eq!(asked("86400"), Some(LONGEST_PAUSE));
        assert_eq!(asked("99999999999999999999999999"), Some(LONGEST_PAUSE));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(LONGEST_PAUSE));
        for unreadable in ["", "-1", "1.5", "soon", "+5"] {
            assert_eq!(asked(unreadable), None, "{unreadable}");
        }
    }
}
