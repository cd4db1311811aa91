//! When old entries are deleted: captures come first. Pure: it is told what came, how long a step took, and the time.

use std::time::Duration;

use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    next: Option<Instant>,
    /// When the last step ended, and how many entries were stored since then.
    ended: Option<Instant>,
    stored: usize,
}

impl Cleaning {
    pub(super) fn note_stored(&mut self, entries: usize) {
        self.stored = self.stored.saturating_add(entries);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// How long until the next step.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// A step is over. If there is more to do it goes on at once while nothing is stored, and the later the more is.
    pub(super) fn stepped(&mut self, began: Instant, ended: Instant, more: bool) {
        let since = self.ended.map_or(Duration::ZERO, |last| began.saturating_duration_since(last));
        let a_second = self.stored as f64 / since.as_secs_f64().max(SHORTEST);
        let pauses = (a_second / EACH).min(MOST);
        let took = ended.saturating_duration_since(began);
        self.next = Some(ended + if more { took.mul_f64(pauses) } else { PAUSE });
        (self.ended, self.stored) = (Some(ended), 0);
    }
}

/// For so many entries stored a second, a step is followed by a pause as long as itself. In the long run entries are deleted as
/// fast as they come: at the rate at which replays can follow, a quarter of the time is more than enough.
const EACH: f64 = 1500.0;
/// A fortieth of the time under any load.
const MOST: f64 = 39.0;
/// Seconds over which what was stored is counted, at least: two steps in a row say nothing of a second.
const SHORTEST: f64 = 0.01;
/// When all that is old is gone.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(4);

    /// The share of the time that steps take, and steps a second, with so many entries stored a second.
    fn share(a_second: f64) -> (f64, f64) {
        let start = Instant::now();
        let (mut cleaning, mut now, mut steps, mut stored) =
            (Cleaning::default(), start, 0_u32, 0.0);
        while now - start < Duration::from_secs(20) {
            // A batch, or nothing to do.
            let wait =
                cleaning.due_in(now).clamp(Duration::from_micros(100), Duration::from_millis(2));
            now += wait;
            stored += a_second * wait.as_secs_f64();
            cleaning.note_stored(stored as usize);
            stored -= stored.floor();
            if cleaning.is_due(now) {
                let began = now;
                now += STEP;
                stored += a_second * STEP.as_secs_f64();
                cleaning.stepped(began, now, true);
                steps += 1;
            }
        }
        let seconds = (now - start).as_secs_f64();
        (STEP.as_secs_f64() * f64::from(steps) / seconds, f64::from(steps) / seconds)
    }

    #[test]
    fn captures_come_first_and_what_they_leave_is_used() {
        assert!(share(0.0).0 > 0.9, "{:?}", share(0.0));
        // Of 128 entries each.
        let keeps_up = share(4500.0).1 * 128.0;
        assert!(keeps_up > 4500.0, "{keeps_up}");
        for much in [60_000.0, 1e6] {
            let (share, steps) = share(much);
            assert!((0.015..0.03).contains(&share) && steps > 5.0, "{share} {steps}");
        }
    }

    #[test]
    fn when_all_is_done_it_looks_again_after_a_minute() {
        let (mut cleaning, now) = (Cleaning::default(), Instant::now());
        assert!(cleaning.is_due(now) && cleaning.due_in(now) == Duration::ZERO);
        cleaning.stepped(now, now + STEP, false);
        assert_eq!(cleaning.due_in(now + STEP), PAUSE);
        assert!(!cleaning.is_due(now + PAUSE) && cleaning.is_due(now + STEP + PAUSE));
        cleaning.stepped(now + PAUSE, now + PAUSE + STEP, true);
        assert!(cleaning.is_due(now + PAUSE + STEP), "nothing was stored meanwhile");
    }
}
