//! How many replays may be in flight at one upstream: canaries first, then additive increase, multiplicative decrease.
//!
//! Pure: it is told of sends and how they went, and knows no clock.

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// Never more than this in flight.
    ceiling: u32,
    stage: Stage,
    in_flight: u32,
    next: u64,
    /// Sends before this one were begun at the pace before the last cut: how they go tells nothing about the new one.
    cut_at: u64,
    /// The last send that used up the window, if any since the last cut.
    full_at: Option<u64>,
}

/// The place of one send among all.
#[derive(Clone, Copy, Debug)]
#[must_use = "every send that begins must end"]
pub(super) struct Ticket(u64);

/// How a send went, as far as the app's strength is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Felt {
    /// Done.
    Good,
    /// Not sent, or answered with a no: the app may be well or not. A canary that says no lets no more follow.
    Neutral,
    /// No answer, or one that says "not now".
    Bad,
}

#[derive(Debug)]
enum Stage {
    /// A batch of `CANARIES[step]`; the next one follows only when all of it went well.
    Canary { step: usize, sent: u32, good: u32 },
    /// `window` may be in flight.
    Steady { window: f64 },
}

const CANARIES: [u32; 5] = [1, 2, 5, 20, 50];
const START: Stage = Stage::Canary { step: 0, sent: 0, good: 0 };

impl Pace {
    pub(super) fn new(ceiling: u32) -> Self {
        Self {
            ceiling: ceiling.max(1),
            stage: START,
            in_flight: 0,
            next: 0,
            cut_at: 0,
            full_at: None,
        }
    }

    /// Most that may be in flight now.
    pub(super) fn allowed(&self) -> u32 {
        match self.stage {
            Stage::Canary { step, .. } => CANARIES[step].min(self.ceiling),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and the ceiling"
            )]
            Stage::Steady { window } => window as u32,
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many more may begin now.
    pub(super) fn room(&self) -> u32 {
        let by_window = self.allowed().saturating_sub(self.in_flight);
        match self.stage {
            Stage::Canary { step, sent, .. } => by_window.min(CANARIES[step] - sent),
            Stage::Steady { .. } => by_window,
        }
    }

    /// A send begins; only while there is [`room`](Self::room).
    pub(super) fn begin(&mut self) -> Ticket {
        debug_assert!(self.room() > 0, "no room");
        self.in_flight += 1;
        if let Stage::Canary { sent, .. } = &mut self.stage {
            *sent += 1;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        if self.room() == 0 {
            self.full_at = Some(ticket.0);
        }
        ticket
    }

    /// A send ends. True if it made the pace slower.
    pub(super) fn end(&mut self, ticket: Ticket, felt: Felt) -> bool {
        self.in_flight -= 1;
        if ticket.0 < self.cut_at {
            return false;
        }
        match felt {
            Felt::Good => self.rise(ticket),
            Felt::Neutral => {
                if let Stage::Canary { sent, .. } = &mut self.stage {
                    *sent -= 1;
                }
            }
            Felt::Bad => self.cut(),
        }
        felt == Felt::Bad
    }

    /// Half the pace; a canary that fails is the first canary again. Also told when live requests suffer.
    pub(super) fn cut(&mut self) {
        self.stage = match self.stage {
            Stage::Steady { window } if window >= 2.0 => Stage::Steady { window: window / 2.0 },
            Stage::Steady { .. } | Stage::Canary { .. } => START,
        };
        self.cut_at = self.next;
        self.full_at = None;
    }

    /// Back to the first canary (the breaker opened).
    pub(super) fn restart(&mut self) {
        self.stage = START;
        self.cut_at = self.next;
        self.full_at = None;
    }

    fn rise(&mut self, ticket: Ticket) {
        match &mut self.stage {
            Stage::Canary { step, good, .. } => {
                *good += 1;
                let size = CANARIES[*step];
                if *good == size {
                    self.stage = match CANARIES.get(*step + 1) {
                        Some(_) if size < self.ceiling => {
                            Stage::Canary { step: *step + 1, sent: 0, good: 0 }
                        }
                        _ => Stage::Steady { window: f64::from(size.min(self.ceiling)) },
                    };
                }
            }
            // A window that was not used up proves nothing about a wider one.
            Stage::Steady { window } if self.full_at.is_some_and(|full| ticket.0 <= full) => {
                *window = (*window + 1.0 / *window).min(f64::from(self.ceiling));
            }
            Stage::Steady { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fills the room, ends all as `felt`; how many there were.
    fn batch(pace: &mut Pace, felt: Felt) -> u32 {
        let tickets: Vec<_> =
            std::iter::from_fn(|| (pace.room() > 0).then(|| pace.begin())).collect();
        let size = u32::try_from(tickets.len()).unwrap();
        for ticket in tickets {
            pace.end(ticket, felt);
        }
        size
    }

    #[test]
    fn canaries_then_one_more_per_round() {
        let mut pace = Pace::new(64);
        let sizes: Vec<u32> = (0..9).map(|_| batch(&mut pace, Felt::Good)).collect();
        assert_eq!(sizes, [1, 2, 5, 20, 50, 50, 50, 51, 52]);
        for _ in 0..100 {
            assert!(batch(&mut pace, Felt::Good) <= 64);
        }
        assert_eq!(pace.allowed(), 64);
    }

    #[test]
    fn the_next_canary_waits_for_all_of_the_last() {
        let mut pace = Pace::new(64);
        batch(&mut pace, Felt::Good);
        let (first, second) = (pace.begin(), pace.begin());
        pace.end(first, Felt::Good);
        assert_eq!(pace.room(), 0, "the second is still out");
        pace.end(second, Felt::Good);
        assert_eq!(pace.room(), 5);
    }

    #[test]
    fn a_failed_canary_is_the_first_again_and_a_failed_window_is_halved_once() {
        let mut pace = Pace::new(64);
        for _ in 0..3 {
            batch(&mut pace, Felt::Good);
        }
        let tickets: Vec<_> = (0..20).map(|_| pace.begin()).collect();
        assert!(pace.end(tickets[0], Felt::Bad));
        assert!(!pace.end(tickets[1], Felt::Bad), "begun before the cut");
        assert_eq!((pace.allowed(), pace.room()), (1, 0), "18 are still out");
        for ticket in &tickets[2..] {
            pace.end(*ticket, Felt::Good);
        }
        assert_eq!(pace.room(), 1, "and what went well before the cut does not count");

        for _ in 0..5 {
            batch(&mut pace, Felt::Good);
        }
        assert_eq!(batch(&mut pace, Felt::Bad), 50);
        assert_eq!(pace.allowed(), 25, "halved once for one round");
    }

    #[test]
    fn a_no_lets_one_follow_but_never_two() {
        let mut pace = Pace::new(64);
        for _ in 0..10 {
            assert_eq!(batch_of_one(&mut pace, Felt::Neutral), 0);
        }
        fn batch_of_one(pace: &mut Pace, felt: Felt) -> u32 {
            let ticket = pace.begin();
            let room = pace.room();
            pace.end(ticket, felt);
            room
        }
        batch(&mut pace, Felt::Good);
        assert_eq!(pace.room(), 2);
    }

    #[test]
    fn a_window_that_is_not_used_up_does_not_widen() {
        let mut pace = Pace::new(64);
        for _ in 0..5 {
            batch(&mut pace, Felt::Good);
        }
        for _ in 0..1000 {
            let ticket = pace.begin();
            pace.end(ticket, Felt::Good);
        }
        assert_eq!(pace.allowed(), 50);
    }

    #[test]
    fn a_small_ceiling_ends_the_canaries_early() {
        let mut pace = Pace::new(3);
        let sizes: Vec<u32> = (0..6).map(|_| batch(&mut pace, Felt::Good)).collect();
        assert_eq!(sizes[..2], [1, 2]);
        assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
        assert_eq!(pace.allowed(), 3);
    }

    proptest! {
        /// Whatever happens in whatever order: never more in flight than the ceiling, and it never gets stuck.
        #[test]
        fn never_more_than_the_ceiling_and_never_stuck(
            ceiling in 1..100_u32,
            steps in proptest::collection::vec((0..6_u8, any::<prop::sample::Index>()), 0..400),
        ) {
            let mut pace = Pace::new(ceiling);
            let mut out = Vec::new();
            for (step, which) in steps {
                match step {
                    0 | 1 => while pace.room() > 0 { out.push(pace.begin()) },
                    2..=4 if !out.is_empty() => {
                        let ticket = out.swap_remove(which.index(out.len()));
                        pace.end(ticket, [Felt::Good, Felt::Neutral, Felt::Bad][usize::from(step - 2)]);
                    }
                    5 => pace.cut(),
                    _ => {}
                }
                prop_assert!(pace.in_flight() <= ceiling);
                prop_assert_eq!(pace.in_flight() as usize, out.len());
            }
            for ticket in out {
                pace.end(ticket, Felt::Neutral);
            }
            prop_assert!(pace.room() > 0);
        }
    }
}
