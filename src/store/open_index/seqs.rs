//! A set of numbers that mostly come in a row: a bit for each.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Seqs {
    words: BTreeMap<i64, u64>,
}

impl Seqs {
    pub(super) fn insert(&mut self, seq: i64) {
        *self.words.entry(word(seq)).or_default() |= bit(seq);
    }

    pub(super) fn remove(&mut self, seq: i64) {
        if let Some(bits) = self.words.get_mut(&word(seq)) {
            *bits &= !bit(seq);
            if *bits == 0 {
                self.words.remove(&word(seq));
            }
        }
    }

    pub(super) fn first(&self) -> Option<i64> {
        self.words.iter().next().map(|(word, bits)| word * 64 + i64::from(bits.trailing_zeros()))
    }

    /// From the lowest up to `last`.
    pub(super) fn up_to(&self, last: i64) -> impl Iterator<Item = i64> {
        let words = self.words.range(..=word(last));
        words.flat_map(|(word, bits)| numbers(*word, *bits)).take_while(move |seq| *seq <= last)
    }

    /// From the lowest above `after` on.
    pub(super) fn above(&self, after: i64) -> impl Iterator<Item = i64> {
        let words = self.words.range(word(after)..);
        words.flat_map(|(word, bits)| numbers(*word, *bits)).skip_while(move |seq| *seq <= after)
    }

    /// From the highest below `before` down.
    pub(super) fn down_from(&self, before: i64) -> impl Iterator<Item = i64> {
        let words = self.words.range(..=word(before)).rev();
        words
            .flat_map(|(word, bits)| numbers(*word, *bits).rev())
            .skip_while(move |seq| *seq >= before)
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = i64> {
        std::mem::take(&mut self.words).into_iter().flat_map(|(word, bits)| numbers(word, bits))
    }
}

fn numbers(word: i64, bits: u64) -> impl DoubleEndedIterator<Item = i64> {
    (0..64).filter(move |place| bits & (1 << place) != 0).map(move |place| word * 64 + place)
}

fn word(seq: i64) -> i64 {
    seq.div_euclid(64)
}

fn bit(seq: i64) -> u64 {
    1 << seq.rem_euclid(64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((-100_i64..300, any::<bool>()), 0..300)) {
            let (mut seqs, mut model) = (Seqs::default(), BTreeSet::new());
            for (seq, insert) in steps {
                if insert {
                    seqs.insert(seq);
                    model.insert(seq);
                } else {
                    seqs.remove(seq);
                    model.remove(&seq);
                }
                prop_assert_eq!(seqs.first(), model.first().copied());
            }
            for at in [-1, 0, 63, 64, 150] {
                let up: Vec<i64> = seqs.up_to(at).collect();
                prop_assert_eq!(up, model.range(..=at).copied().collect::<Vec<_>>());
                let above: Vec<i64> = seqs.above(at).collect();
                let wanted: Vec<i64> = model.range(at + 1..).copied().collect();
                prop_assert_eq!(above, wanted);
                let down: Vec<i64> = seqs.down_from(at).collect();
                prop_assert_eq!(down, model.range(..at).rev().copied().collect::<Vec<_>>());
            }
            let all: Vec<i64> = seqs.take().collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(seqs.first(), None);
        }
    }
}
