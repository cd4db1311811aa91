//! Which entry has a key: by half of the key's digest, because the entry itself has the whole. Two keys that share that
//! half are as good as never seen; they are kept apart, exactly.

use std::collections::HashMap;

use super::{Digest, Packed};

/// Where an entry is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By its number.
    Open(i64),
    /// By its place among all that ever closed.
    Closed(i64),
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    by_half: HashMap<u64, i64>,
    clashes: HashMap<Digest, i64>,
}

impl Keys {
    /// The place of `key`; `at` gives the key that an entry really has.
    pub(super) fn get(&self, key: Digest, at: impl Fn(Place) -> Option<Packed>) -> Option<Place> {
        let place = self.by_half.get(&half(key)).copied().map(Place::unpack);
        if let Some(place) = place.filter(|place| at(*place) == Some(key.into())) {
            return Some(place);
        }
        if self.clashes.is_empty() {
            return None;
        }
        self.clashes.get(&key).copied().map(Place::unpack)
    }

    pub(super) fn insert(&mut self, key: Digest, place: Place) {
        match self.by_half.entry(half(key)) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(place.pack());
            }
            std::collections::hash_map::Entry::Occupied(_) => {
                self.clashes.insert(key, place.pack());
            }
        }
    }

    /// Forgets that `key` is at `place`.
    pub(super) fn remove(&mut self, key: Digest, place: Place) {
        if self.by_half.get(&half(key)) == Some(&place.pack()) {
            self.by_half.remove(&half(key));
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

fn half(key: Digest) -> u64 {
    key.0 as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_share_half_are_kept_apart() {
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
}
