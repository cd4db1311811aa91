//! Which endpoint gets a request: the rule, over a set of candidates with their costs and weights.
//!
//! Pure but for the lot it is given.

use std::cell::Cell;

use crate::config::Balance;

/// The weight of an endpoint that gets a full share.
pub(super) const FULL: u16 = 1000;

/// Endpoints by their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set([u64; 4]);

/// One thread's lots.
#[derive(Debug)]
pub(super) struct Lot(Cell<u64>);

/// The best of `candidates`; none if there are none. `turn` gives the number of the turn, where turns count.
pub(super) fn choose(
    balance: Balance,
    candidates: &Set,
    lot: &Lot,
    turn: impl FnOnce() -> usize,
    weight: impl Fn(usize) -> u16,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    let count = candidates.len();
    if count < 2 {
        return candidates.iter().next();
    }
    match balance {
        Balance::RoundRobin => {
            let turn = turn() % count;
            let in_turn = (turn..turn + count).map(|at| candidates.nth(at % count));
            let mut last = 0;
            for endpoint in in_turn {
                last = endpoint;
                if is_drawn(weight(endpoint), lot) {
                    break;
                }
            }
            Some(last)
        }
        Balance::LeastLoaded => {
            let first = draw(candidates, lot, &weight);
            let second = draw(&candidates.without(first), lot, &weight);
            Some(if cost(second) < cost(first) { second } else { first })
        }
    }
}

/// One by lot, each by its weight.
fn draw(candidates: &Set, lot: &Lot, weight: &impl Fn(usize) -> u16) -> usize {
    let mut drawn = 0;
    for _ in 0..MOST_DRAWS {
        drawn = candidates.nth(lot.below(candidates.len()));
        if is_drawn(weight(drawn), lot) {
            break;
        }
    }
    drawn
}

/// With a tenth of a share each, the last draw stands in one case of six: nobody waits for luck.
const MOST_DRAWS: usize = 16;

fn is_drawn(weight: u16, lot: &Lot) -> bool {
    weight >= FULL || lot.below(usize::from(FULL)) < usize::from(weight)
}

impl Set {
    /// Most endpoints of an upstream.
    pub(super) const MOST: usize = 256;

    /// The first `count`.
    pub(super) fn first(count: usize) -> Self {
        let word = |at: usize| match count.saturating_sub(at * 64) {
            0 => 0,
            some @ 1..64 => (1 << some) - 1,
            _ => u64::MAX,
        };
        Self([word(0), word(1), word(2), word(3)])
    }

    pub(super) fn with(mut self, endpoint: usize) -> Self {
        self.0[endpoint / 64] |= 1 << (endpoint % 64);
        self
    }

    pub(super) fn without(mut self, endpoint: usize) -> Self {
        self.0[endpoint / 64] &= !(1 << (endpoint % 64));
        self
    }

    pub(super) fn minus(mut self, others: &Self) -> Self {
        self.0.iter_mut().zip(others.0).for_each(|(word, other)| *word &= !other);
        self
    }

    pub(super) fn has(&self, endpoint: usize) -> bool {
        self.0[endpoint / 64] & (1 << (endpoint % 64)) != 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..Self::MOST).filter(|endpoint| self.has(*endpoint))
    }

    /// The one with `nth` smaller ones; there must be so many.
    fn nth(&self, mut nth: usize) -> usize {
        for (at, word) in self.0.iter().enumerate() {
            let here = word.count_ones() as usize;
            if nth < here {
                let mut word = *word;
                (0..nth).for_each(|_| word &= word - 1);
                return at * 64 + word.trailing_zeros() as usize;
            }
            nth -= here;
        }
        0
    }
}

impl Lot {
    pub(super) fn by_chance() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self::new(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    /// From any seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    /// Evenly from 0 up to, but without, `most`.
    #[expect(clippy::cast_possible_truncation, reason = "less than `most`")]
    pub(super) fn below(&self, most: usize) -> usize {
        ((u128::from(self.next()) * most as u128) >> 64) as usize
    }

    /// Evenly between 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) fn part(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// xorshift64*: for spreading, not for secrets.
    fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of `draws` each of three endpoints gets.
    fn shares(balance: Balance, weights: [u16; 3], costs: [f64; 3], draws: usize) -> [usize; 3] {
        let (lot, turn) = (Lot::new(7), Cell::new(0));
        let mut shares = [0; 3];
        for _ in 0..draws {
            let next = || turn.replace(turn.get() + 1);
            let chosen =
                choose(balance, &Set::first(3), &lot, next, |at| weights[at], |at| costs[at]);
            shares[chosen.unwrap()] += 1;
        }
        shares
    }

    fn is_about(share: usize, expected: usize) -> bool {
        share.abs_diff(expected) < expected / 10
    }

    #[test]
    fn equals_have_equal_shares() {
        assert_eq!(shares(Balance::RoundRobin, [FULL; 3], [1.0; 3], 3000), [1000; 3]);
        for share in shares(Balance::LeastLoaded, [FULL; 3], [1.0; 3], 30_000) {
            assert!(is_about(share, 10_000), "{share}");
        }
    }

    #[test]
    fn of_two_drawn_the_cheaper_one_is_taken() {
        let [cheap, middle, dear] =
            shares(Balance::LeastLoaded, [FULL; 3], [1.0, 2.0, 3.0], 30_000);
        assert!(is_about(cheap, 20_000) && is_about(middle, 10_000), "{cheap} {middle}");
        assert_eq!(dear, 0, "the dearest of three always meets a cheaper one");
    }

    #[test]
    fn a_light_one_is_drawn_by_its_weight() {
        for balance in [Balance::RoundRobin, Balance::LeastLoaded] {
            let [light, ..] = shares(balance, [100, FULL, FULL], [1.0; 3], 30_000);
            assert!((600..2_500).contains(&light), "{balance:?}: {light}");
        }
    }

    proptest! {
        /// A set is a set: whatever is put in and taken out, and whichever is chosen is one of it.
        #[test]
        fn the_chosen_is_a_candidate(
            members in proptest::collection::btree_set(0_usize..Set::MOST, 0..60),
            taken in proptest::collection::btree_set(0_usize..Set::MOST, 0..60),
            seed in any::<u64>(),
            weight in 0_u16..=FULL,
            turn in 0_usize..1000,
            round_robin in any::<bool>(),
        ) {
            let of = |all: &std::collections::BTreeSet<usize>| {
                all.iter().fold(Set::default(), |set, member| set.with(*member))
            };
            let set = of(&members).minus(&of(&taken));
            let left: Vec<usize> = members.difference(&taken).copied().collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), left.clone());
            prop_assert_eq!(set.len(), left.len());
            for (at, member) in left.iter().enumerate() {
                prop_assert_eq!(set.nth(at), *member);
            }
            let balance = if round_robin { Balance::RoundRobin } else { Balance::LeastLoaded };
            let lot = Lot::new(seed);
            let chosen = choose(balance, &set, &lot, || turn, |_| weight, |_| lot.part());
            prop_assert_eq!(chosen.is_some(), !left.is_empty());
            prop_assert!(chosen.is_none_or(|chosen| left.contains(&chosen)));
        }

        #[test]
        fn the_first_are_as_many(count in 0_usize..=Set::MOST) {
            prop_assert_eq!(Set::first(count).iter().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
