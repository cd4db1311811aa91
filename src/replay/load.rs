//! Captures come first: how many replays may begin while the store takes many new entries.
//!
//! Pure: it is told how many entries were taken and what time it is. A few replays begin under any load.

use std::time::Duration;

use tokio::time::Instant;

use super::lane::Closed;

/// See the module.
#[derive(Debug)]
pub(super) struct Load {
    /// Captures a second times replays a second.
    most: f64,
    /// When captures were counted last, and how many there were.
    counted: Option<(Instant, u64)>,
    captures: f64,
    /// Replays that may begin now, as of the last look.
    room: f64,
    looked_at: Instant,
}

impl Load {
    pub(super) fn new(processors: usize, now: Instant) -> Self {
        let most = MOST_EACH * processors as f64;
        Self { most, counted: None, captures: 0.0, room: 0.0, looked_at: now }
    }

    /// `taken`: entries that the store has taken in its life.
    pub(super) fn look(&mut self, taken: u64, now: Instant) {
        let (at, before) = *self.counted.get_or_insert((now, taken));
        let since = now.saturating_duration_since(at);
        if since >= WINDOW {
            self.captures = taken.saturating_sub(before) as f64 / since.as_secs_f64();
            self.counted = Some((now, taken));
        }
        let since = now.saturating_duration_since(self.looked_at).as_secs_f64();
        self.looked_at = now;
        // What was not begun in time is not made up for at once.
        let at_once = (self.a_second() * WINDOW.as_secs_f64()).max(1.0);
        self.room = self.a_second().mul_add(since, self.room).min(at_once);
    }

    /// How many more may begin now, or when to look again.
    pub(super) fn room(&self) -> Result<u32, Closed> {
        if !self.is_felt() {
            return Ok(u32::MAX);
        }
        if self.room >= 1.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "from 1 on, and a number too large becomes the largest"
            )]
            return Ok(self.room as u32);
        }
        let why = format!("captures come first: {:.0} a second", self.captures);
        Err(Closed { why, until: Some(self.looked_at + AGAIN) })
    }

    /// A replay begins.
    pub(super) fn begin(&mut self) {
        self.room -= 1.0;
    }

    fn is_felt(&self) -> bool {
        self.captures >= FEW
    }

    /// Half as many at double the load: where captures leave the processors free, replays may have them.
    fn a_second(&self) -> f64 {
        (self.most / self.captures.max(FEW)).max(LEAST)
    }
}

/// For each processor. With 50,000 captures a second on two that is 400 replays a second.
const MOST_EACH: f64 = 10e6;
/// So few captures a second are no load.
const FEW: f64 = 1000.0;
/// Replays a second under any load.
pub(super) const LEAST: f64 = 50.0;
/// Captures are counted over so long.
pub(super) const WINDOW: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// How many begin in so many seconds, with a look every 10 ms and no other limit than `wanted` at each.
    fn begun(load: &mut Load, start: Instant, captures: u64, seconds: u64, wanted: u32) -> u64 {
        let (mut begun, mut now) = (0, start);
        for round in 0..seconds * 100 {
            now = start + Duration::from_millis(10 * round);
            load.look(captures * round / 100, now);
            for _ in 0..load.room().unwrap_or(0).min(wanted) {
                load.begin();
                begun += 1;
            }
        }
        load.counted = Some((now, 0));
        begun
    }

    #[test]
    fn the_more_captures_the_fewer_replays_and_never_none() {
        for (processors, captures, least, most) in [
            (1, 50_000, 195, 205),
            (2, 50_000, 390, 410),
            (2, 10_000, 1_950, 2_050),
            // The last look is a hundredth of a second before the end.
            (2, 5_000_000, 49, 50),
        ] {
            let now = Instant::now();
            let mut load = Load::new(processors, now);
            load.captures = captures as f64;
            let begun = begun(&mut load, now, captures, 20, u32::MAX) / 20;
            assert!((least..=most).contains(&begun), "{captures} captures: {begun} replays");
        }
    }

    #[test]
    fn few_captures_are_no_load_and_it_is_over_when_they_are() {
        let now = Instant::now();
        let mut load = Load::new(2, now);
        assert_eq!(load.room(), Ok(u32::MAX));
        load.look(0, now);
        load.look(99, now + WINDOW);
        assert_eq!(load.room(), Ok(u32::MAX));
        load.look(10_099, now + 2 * WINDOW);
        let room = load.room().unwrap();
        assert!((1..=20).contains(&room), "{room}");
        (0..room).for_each(|_| load.begin());
        let closed = load.room().unwrap_err();
        assert_eq!(closed.why, "captures come first: 100000 a second");
        assert_eq!(closed.until, Some(now + 2 * WINDOW + AGAIN));
        // Nothing was taken since: as before.
        load.look(10_099, now + 3 * WINDOW);
        assert_eq!(load.room(), Ok(u32::MAX));
    }

    #[test]
    fn a_pause_is_not_made_up_for_at_once() {
        let now = Instant::now();
        let mut load = Load::new(2, now);
        load.look(0, now);
        load.look(10_000_000, now + Duration::from_secs(200));
        let room = load.room().unwrap();
        assert_eq!(room, 40, "a tenth of a second of 400");
    }
}
