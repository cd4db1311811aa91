//! Open entries by number, in few bytes: most are as they were stored, and much of what they have they share.
//!
//! Neighbours lie in a block of their own, because most of what is open was appended in a row. Whatever does not fit the
//! short form (an entry that moved, a huge amount), or would keep a block nearly alone, is kept as it is.

use std::{collections::BTreeMap, iter};

use super::{LaneId, Packed, Row};
use crate::store::{Certainty, State};

#[derive(Debug, Default)]
pub(super) struct Rows {
    blocks: BTreeMap<i64, Box<Block>>,
    others: BTreeMap<i64, Box<Row>>,
    kinds: Vec<Kind>,
    /// The block that is being filled.
    newest: i64,
    /// The highest number that was ever here.
    highest: i64,
    len: usize,
}

#[derive(Debug)]
struct Block {
    /// A bit for each place that is taken.
    taken: u64,
    /// What times of receipt are counted from.
    from: i64,
    rows: [Short; BLOCK as usize],
}

/// An entry that was stored and not touched since.
#[derive(Clone, Copy, Debug, Default)]
struct Short {
    key: [u8; 16],
    fingerprint: [u8; 16],
    /// Milliseconds since the block's `from`.
    received: [u8; 4],
    /// Milliseconds from receipt to `not_before`.
    wait: [u8; 4],
    amount: [u8; 4],
    kind: [u8; 2],
}

/// What many entries have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    lane: LaneId,
    /// Milliseconds from receipt to the end.
    lasts: i64,
    certainty: Certainty,
    in_sequence: bool,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, seq: i64) -> Option<Row> {
        match self.short(seq) {
            Some((block, short)) => Some(self.long(seq, block.from, short)),
            None => self.others.get(&seq).map(|row| **row),
        }
    }

    pub(super) fn key(&self, seq: i64) -> Option<Packed> {
        match self.short(seq) {
            Some((_, short)) => Some(Packed::unpack(short.key)),
            None => self.others.get(&seq).map(|row| row.key),
        }
    }

    pub(super) fn insert(&mut self, row: Row) {
        let seq = row.seq;
        // A number above all others is new.
        if seq <= self.highest && self.remove(seq).is_some() {
            debug_assert!(false, "an entry is inserted once");
        }
        self.highest = self.highest.max(seq);
        self.len += 1;
        let number = block(seq);
        self.newest = self.newest.max(number);
        let Some(kind) = self.kind(&row) else {
            self.others.insert(seq, Box::new(row));
            return;
        };
        let from = self.blocks.get(&number).map_or(row.received_at, |block| block.from);
        let Some(short) = short(&row, kind, from) else {
            self.others.insert(seq, Box::new(row));
            return;
        };
        let block = self.blocks.entry(number).or_insert_with(|| Box::new(Block::new(from)));
        block.taken |= 1 << place(seq);
        block.rows[place(seq)] = short;
    }

    pub(super) fn remove(&mut self, seq: i64) -> Option<Row> {
        let removed = match self.short(seq) {
            Some((block, short)) => {
                let row = self.long(seq, block.from, short);
                self.clear(seq);
                row
            }
            None => *self.others.remove(&seq)?,
        };
        self.len -= 1;
        Some(removed)
    }

    pub(super) fn first(&self) -> Option<Row> {
        let short = self
            .blocks
            .iter()
            .next()
            .map(|(number, block)| number * BLOCK + i64::from(block.taken.trailing_zeros()));
        let other = self.others.keys().next().copied();
        self.get(short.into_iter().chain(other).min()?)
    }

    /// Those from `from` on, in their order.
    pub(super) fn up_from(&self, from: i64) -> impl Iterator<Item = Row> {
        let shorts =
            self.blocks.range(block(from)..).flat_map(|(number, block)| block.seqs(*number));
        let shorts = shorts.filter(move |seq| *seq >= from);
        let others = self.others.range(from..).map(|(seq, _)| *seq);
        merged(shorts, others, |one, two| one < two).filter_map(|seq| self.get(seq))
    }

    /// Those below `before`, the last one first.
    pub(super) fn down_from(&self, before: i64) -> impl Iterator<Item = Row> {
        let blocks = self.blocks.range(..=block(before)).rev();
        let shorts = blocks.flat_map(|(number, block)| block.seqs(*number).rev());
        let shorts = shorts.filter(move |seq| *seq < before);
        let others = self.others.range(..before).rev().map(|(seq, _)| *seq);
        merged(shorts, others, |one, two| one > two).filter_map(|seq| self.get(seq))
    }

    fn short(&self, seq: i64) -> Option<(&Block, &Short)> {
        let block = self.blocks.get(&block(seq))?;
        (block.taken & (1 << place(seq)) != 0).then(|| (&**block, &block.rows[place(seq)]))
    }

    fn long(&self, seq: i64, from: i64, short: &Short) -> Row {
        let kind = self.kinds[usize::from(u16::from_le_bytes(short.kind))];
        let received_at = from + i64::from(u32::from_le_bytes(short.received));
        Row {
            seq,
            key: Packed::unpack(short.key),
            fingerprint: Packed::unpack(short.fingerprint),
            in_sequence: kind.in_sequence,
            lane: kind.lane,
            received_at,
            not_before: received_at + i64::from(u32::from_le_bytes(short.wait)),
            expires_at: received_at + kind.lasts,
            amount: i64::from(u32::from_le_bytes(short.amount)),
            state: State::Stored,
            held: None,
            certainty: kind.certainty,
            attempts: 0,
            interrupted: 0,
            fence: 0,
        }
    }

    /// The kind of a row that is as it was stored. There are few, so they are looked through; the last one first.
    fn kind(&mut self, row: &Row) -> Option<[u8; 2]> {
        let untouched = row.state == State::Stored
            && row.held.is_none()
            && (row.attempts, row.interrupted, row.fence) == (0, 0, 0);
        let kind = Kind {
            lane: row.lane,
            lasts: row.expires_at.checked_sub(row.received_at)?,
            certainty: row.certainty,
            in_sequence: row.in_sequence,
        };
        if !untouched {
            return None;
        }
        let known = self.kinds.iter().rposition(|known| *known == kind);
        let place = known.or_else(|| {
            (self.kinds.len() < KINDS).then(|| {
                self.kinds.push(kind);
                self.kinds.len() - 1
            })
        });
        u16::try_from(place?).ok().map(u16::to_le_bytes)
    }

    /// Empties a place. The last few of a block that is not filled any more do not keep it.
    fn clear(&mut self, seq: i64) {
        let number = block(seq);
        let Some(block) = self.blocks.get_mut(&number) else { return };
        block.taken &= !(1 << place(seq));
        if block.taken.count_ones() > FEW || (number == self.newest && block.taken != 0) {
            return;
        }
        if let Some(left) = self.blocks.remove(&number) {
            for seq in left.seqs(number) {
                let row = self.long(seq, left.from, &left.rows[place(seq)]);
                self.others.insert(seq, Box::new(row));
            }
        }
    }
}

impl Block {
    fn new(from: i64) -> Self {
        Self { taken: 0, from, rows: [Short::default(); BLOCK as usize] }
    }

    /// The numbers that are taken.
    fn seqs(&self, number: i64) -> impl DoubleEndedIterator<Item = i64> {
        let taken = self.taken;
        let places = (0..BLOCK).filter(move |place| taken & (1 << place) != 0);
        places.map(move |place| number * BLOCK + place)
    }
}

/// The short form, if all of it fits.
fn short(row: &Row, kind: [u8; 2], from: i64) -> Option<Short> {
    let since = |later: i64, earlier: i64| {
        u32::try_from(later.checked_sub(earlier)?).ok().map(u32::to_le_bytes)
    };
    Some(Short {
        key: row.key.pack(),
        fingerprint: row.fingerprint.pack(),
        received: since(row.received_at, from)?,
        wait: since(row.not_before, row.received_at)?,
        amount: since(row.amount, 0)?,
        kind,
    })
}

impl Packed {
    pub(super) fn pack(self) -> [u8; 16] {
        u128::to_le_bytes(u128::from(self.0[0]) | u128::from(self.0[1]) << 64)
    }

    pub(super) fn unpack(bytes: [u8; 16]) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self([number as u64, (number >> 64) as u64])
    }
}

/// Two runs of numbers in one order, as one. `before`: which of two comes first.
fn merged(
    one: impl Iterator<Item = i64>,
    two: impl Iterator<Item = i64>,
    before: impl Fn(i64, i64) -> bool,
) -> impl Iterator<Item = i64> {
    let (mut one, mut two) = (one.peekable(), two.peekable());
    iter::from_fn(move || match (one.peek(), two.peek()) {
        (Some(first), Some(second)) if before(*first, *second) => one.next(),
        (Some(_), None) => one.next(),
        _ => two.next(),
    })
}

fn block(seq: i64) -> i64 {
    seq.div_euclid(BLOCK)
}

fn place(seq: i64) -> usize {
    seq.rem_euclid(BLOCK) as usize
}

const BLOCK: i64 = 64;
/// Fewer bytes as they are than in a block of their own.
const FEW: u32 = 12;
/// Routes, upstreams and their settings over time.
const KINDS: usize = 1000;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, btree_map::Entry};

    use proptest::prelude::*;

    use super::*;

    fn row(seq: i64) -> Row {
        Row {
            seq,
            key: Packed([seq as u64, 7]),
            fingerprint: Packed([1, seq as u64]),
            in_sequence: seq % 7 == 0,
            lane: LaneId((seq % 3) as u32),
            received_at: 1_700_000_000_000 + seq * 1000,
            not_before: 1_700_000_000_000 + seq * 1001,
            expires_at: 1_700_086_400_000 + seq * 1000,
            amount: seq * 100,
            state: State::Stored,
            held: None,
            certainty: if seq % 2 == 0 { Certainty::NotSent } else { Certainty::SentUnknown },
            attempts: 0,
            interrupted: 0,
            fence: 0,
        }
    }

    #[test]
    fn a_short_row_is_small() {
        assert_eq!(size_of::<Short>(), 46);
        assert!(size_of::<Block>() <= 3072, "{}", size_of::<Block>());
    }

    #[test]
    fn most_are_short_and_strays_keep_no_block() {
        let mut rows = Rows::default();
        (1..=1000).for_each(|seq| rows.insert(row(seq)));
        assert!(rows.others.is_empty());
        assert_eq!(rows.blocks.len(), 16);
        (1..=1000).filter(|seq| seq % 100 != 0).for_each(|seq| assert!(rows.remove(seq).is_some()));
        assert!(rows.blocks.len() <= 1);
        assert_eq!(rows.down_from(i64::MAX).map(|row| row.seq).max(), Some(1000));
        assert_eq!(rows.len(), 10);
    }

    proptest! {
        /// Whatever comes and goes, and however odd: it is a map.
        #[test]
        fn rows_are_a_map(
            steps in proptest::collection::vec((0_i64..400, any::<bool>(), 0_u8..8), 0..600)
        ) {
            let (mut rows, mut model) = (Rows::default(), BTreeMap::new());
            for (seq, insert, odd) in steps {
                if !insert {
                    prop_assert_eq!(rows.remove(seq), model.remove(&seq));
                } else if let Entry::Vacant(place) = model.entry(seq) {
                    let mut row = row(seq);
                    match odd {
                        1 => row.state = State::Leased,
                        2 => row.fence = 9,
                        3 => row.amount = i64::MIN,
                        4 => row.received_at = 5,
                        5 => row.not_before = i64::MAX,
                        6 => row.expires_at = i64::MIN,
                        7 => row.amount = i64::MAX,
                        _ => {}
                    }
                    rows.insert(row);
                    place.insert(row);
                }
                prop_assert_eq!(rows.len(), model.len());
                prop_assert_eq!(rows.get(seq), model.get(&seq).copied());
                prop_assert_eq!(rows.key(seq), model.get(&seq).map(|row| row.key));
            }
            prop_assert_eq!(rows.first(), model.values().next().copied());
            for before in [0, 63, 64, 200, i64::MAX] {
                let found: Vec<Row> = rows.down_from(before).collect();
                let wanted: Vec<Row> = model.range(..before).rev().map(|(_, row)| *row).collect();
                prop_assert_eq!(found, wanted);
                let found: Vec<Row> = rows.up_from(before).collect();
                let wanted: Vec<Row> = model.range(before..).map(|(_, row)| *row).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
