//! Which entry has a key: by some bits of the key's digest, because the entry itself has the whole. Two keys that share
//! those bits are rare; they are kept apart, exactly.

use std::collections::{HashMap, hash_map};

use super::{Digest, Packed};
use crate::store::mixing::Mixing;

/// Where an entry is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By its number.
    Open(i64),
    /// By its place among all that ever closed.
    Closed(i64),
}

/// In many tables: one that grows is copied, and nobody is to wait long for that.
#[derive(Debug)]
pub(super) struct Keys {
    tables: Box<[HashMap<Tag, Short, Mixing>]>,
    clashes: HashMap<Digest, i64>,
}

/// Bits of a digest besides those that choose the table. In bytes, so that an entry of a table takes nine.
type Tag = [u8; 4];

/// A place of 39 bits and the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Short([u8; 5]);

const TABLES: usize = 256;

impl Default for Keys {
    fn default() -> Self {
        let mixing = Mixing::default();
        let tables = (0..TABLES).map(|_| HashMap::with_hasher(mixing)).collect();
        Self { tables, clashes: HashMap::new() }
    }
}

impl Keys {
    /// The place of `key`; `at` gives the key that an entry really has.
    pub(super) fn get(&self, key: Digest, at: impl Fn(Place) -> Option<Packed>) -> Option<Place> {
        let place = self.tables[table(key)].get(&tag(key)).map(|place| Place::unpack(place.long()));
        if let Some(place) = place.filter(|place| at(*place) == Some(key.into())) {
            return Some(place);
        }
        if self.clashes.is_empty() {
            return None;
        }
        self.clashes.get(&key).copied().map(Place::unpack)
    }

    pub(super) fn insert(&mut self, key: Digest, place: Place) {
        let free = match self.tables[table(key)].entry(tag(key)) {
            hash_map::Entry::Vacant(free) => Some(free),
            hash_map::Entry::Occupied(_) => None,
        };
        match free.zip(Short::of(place.pack())) {
            Some((free, short)) => {
                free.insert(short);
            }
            None => {
                self.clashes.insert(key, place.pack());
            }
        }
    }

    /// Forgets that `key` is at `place`.
    pub(super) fn remove(&mut self, key: Digest, place: Place) {
        let table = &mut self.tables[table(key)];
        if Short::of(place.pack()).is_some_and(|short| table.get(&tag(key)) == Some(&short)) {
            table.remove(&tag(key));
        } else if self.clashes.get(&key) == Some(&place.pack()) {
            self.clashes.remove(&key);
        }
    }
}

impl Place {
    /// Numbers are positive: the sign tells which.
    fn pack(self) -> i64 {
        match self {
            Self::Open(seq) => seq,
            Self::Closed(number) => -1 - number,
        }
    }

    fn unpack(packed: i64) -> Self {
        if packed >= 0 { Self::Open(packed) } else { Self::Closed(-1 - packed) }
    }
}

impl Short {
    /// None: a number beyond 2^39.
    fn of(packed: i64) -> Option<Self> {
        let [a, b, c, d, e, ..] = packed.to_le_bytes();
        let short = Self([a, b, c, d, e]);
        (short.long() == packed).then_some(short)
    }

    fn long(self) -> i64 {
        let [a, b, c, d, e] = self.0;
        let sign = if e & 0x80 == 0 { 0 } else { 0xff };
        i64::from_le_bytes([a, b, c, d, e, sign, sign, sign])
    }
}

fn table(key: Digest) -> usize {
    (key.0 >> 32) as usize % TABLES
}

fn tag(key: Digest) -> Tag {
    (key.0 as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_share_bits_are_kept_apart() {
        let (a, b) = (Digest(1), Digest((1 << 64) + 1));
        let key_at = |place| match place {
            Place::Open(7) => Some(a.into()),
            Place::Closed(0) => Some(b.into()),
            _ => None,
        };
        let mut keys = Keys::default();
        keys.insert(a, Place::Open(7));
        keys.insert(b, Place::Closed(0));
        assert_eq!(keys.get(a, key_at), Some(Place::Open(7)));
        assert_eq!(keys.get(b, key_at), Some(Place::Closed(0)));
        assert_eq!(keys.get(Digest((2 << 64) + 1), key_at), None);
        keys.remove(a, Place::Open(7));
        assert_eq!(keys.get(a, key_at), None);
        assert_eq!(keys.get(b, key_at), Some(Place::Closed(0)));
        keys.remove(b, Place::Closed(0));
        assert_eq!(keys.get(b, key_at), None);
    }

    #[test]
    fn places_of_any_size_are_found_again() {
        let mut keys = Keys::default();
        for (number, seq) in
            [0, 1, 255, 1 << 32, (1 << 39) - 1, 1 << 39, i64::MAX - 1].iter().enumerate()
        {
            for (place, key) in
                [(Place::Open(*seq), 2 * number), (Place::Closed(*seq), 2 * number + 1)]
            {
                let key = Digest(key as u128 * 0x1_0000_0001);
                keys.insert(key, place);
                assert_eq!(keys.get(key, |_| Some(key.into())), Some(place));
            }
        }
        assert_eq!(size_of::<(Tag, Short)>(), 9);
    }
}
