//! Closed entries whose keys are remembered, in the order of closing, in blocks: there may be millions, and nobody is to
//! wait until so many are moved because one more needs room. It forgets only what it is told to.

use std::collections::VecDeque;

use super::{Closed, Packed};
use crate::store::Outcome;

#[derive(Debug, Default)]
pub(super) struct ClosedEntries {
    /// All but the last one are full; of the first one the first `gone` are forgotten.
    blocks: VecDeque<Vec<Short>>,
    gone: usize,
    len: usize,
    /// The number of the first one, among all that ever closed.
    first: i64,
}

/// In bytes, so that nothing is lost to alignment.
#[derive(Clone, Copy, Debug)]
struct Short {
    key: [u8; 16],
    fingerprint: [u8; 16],
    seq: [u8; 8],
    closed_at: [u8; 8],
    outcome: Outcome,
}

impl ClosedEntries {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// By its number among all that ever closed.
    pub(super) fn get(&self, number: i64) -> Option<Closed> {
        let place =
            usize::try_from(number.checked_sub(self.first)?).ok()?.checked_add(self.gone)?;
        self.blocks.get(place / BLOCK)?.get(place % BLOCK).map(Short::long)
    }

    /// The oldest one, and its number.
    pub(super) fn front(&self) -> Option<(i64, Closed)> {
        self.get(self.first).map(|closed| (self.first, closed))
    }

    /// Gives its number.
    pub(super) fn push_back(&mut self, closed: &Closed) -> i64 {
        let last = match self.blocks.back_mut() {
            Some(last) if last.len() < BLOCK => last,
            _ => self.blocks.push_back_mut(Vec::with_capacity(BLOCK)),
        };
        last.push(Short::of(closed));
        self.len += 1;
        self.first + self.len as i64 - 1
    }

    pub(super) fn pop_front(&mut self) {
        if self.len == 0 {
            return;
        }
        (self.len, self.gone, self.first) = (self.len - 1, self.gone + 1, self.first + 1);
        if self.gone == BLOCK || self.len == 0 {
            self.blocks.pop_front();
            self.gone = 0;
        }
    }

    /// The last one, and its number.
    pub(super) fn pop_back(&mut self) -> Option<(i64, Closed)> {
        let number = self.first + (self.len as i64) - 1;
        let closed = self.get(number)?;
        let last = self.blocks.back_mut()?;
        last.pop();
        self.len -= 1;
        if self.len == 0 {
            (self.blocks, self.gone) = (VecDeque::new(), 0);
        } else if last.is_empty() {
            self.blocks.pop_back();
        }
        Some((number, closed))
    }
}

impl Short {
    fn of(closed: &Closed) -> Self {
        Self {
            key: closed.key.pack(),
            fingerprint: closed.fingerprint.pack(),
            seq: closed.seq.to_le_bytes(),
            closed_at: closed.closed_at.to_le_bytes(),
            outcome: closed.outcome,
        }
    }

    fn long(&self) -> Closed {
        Closed {
            seq: i64::from_le_bytes(self.seq),
            key: Packed::unpack(self.key),
            fingerprint: Packed::unpack(self.fingerprint),
            outcome: self.outcome,
            closed_at: i64::from_le_bytes(self.closed_at),
        }
    }
}

/// Entries of a block: 50 KiB.
const BLOCK: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn closed(seq: i64) -> Closed {
        Closed {
            seq,
            key: Packed([seq.cast_unsigned(), 1]),
            fingerprint: Packed([2, !seq.cast_unsigned()]),
            outcome: if seq % 2 == 0 { Outcome::Completed } else { Outcome::Declined },
            closed_at: i64::MAX - seq,
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        PopFront(usize),
        PopBack(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Around whole blocks as well as few.
        let many = prop_oneof![0..5_usize, BLOCK - 2..BLOCK + 3, 0..3 * BLOCK];
        (0..4, many).prop_map(|(which, many)| match which {
            0 => Step::PopFront(many),
            1 => Step::PopBack(many.min(5)),
            _ => Step::Push(many),
        })
    }

    proptest! {
        #[test]
        fn it_is_a_queue_whose_numbers_go_on(steps in proptest::collection::vec(step(), 0..30)) {
            let (mut entries, mut model, mut first) = (ClosedEntries::default(), VecDeque::new(), 0);
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Push(many) => for _ in 0..many {
                        next += 1;
                        let number = entries.push_back(&closed(next));
                        model.push_back(closed(next));
                        prop_assert_eq!(number, first + model.len() as i64 - 1);
                    },
                    Step::PopFront(many) => for _ in 0..many {
                        entries.pop_front();
                        first += i64::from(model.pop_front().is_some());
                    },
                    Step::PopBack(many) => for _ in 0..many {
                        let number = first + model.len() as i64 - 1;
                        let popped = model.pop_back().map(|closed| (number, closed));
                        prop_assert_eq!(entries.pop_back(), popped);
                    },
                }
                prop_assert_eq!(entries.is_empty(), model.is_empty());
                prop_assert_eq!(entries.front(), model.front().map(|one| (first, *one)));
                for (at, wanted) in model.iter().enumerate().step_by(101) {
                    prop_assert_eq!(entries.get(first + at as i64), Some(*wanted));
                }
                prop_assert_eq!(entries.get(first - 1), None);
                prop_assert_eq!(entries.get(first + model.len() as i64), None);
            }
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_forgotten() {
        let mut entries = ClosedEntries::default();
        for round in 0..10 {
            (0..BLOCK as i64 * 3).for_each(|seq| {
                entries.push_back(&closed(round * 10_000 + seq));
            });
            (0..BLOCK * 3).for_each(|_| entries.pop_front());
            assert!(entries.is_empty() && entries.blocks.is_empty());
        }
        assert!(size_of::<Short>() <= 49);
    }
}
