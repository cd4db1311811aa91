//! A quick hash for tables whose keys are digests: they are spread already, so that a number that nobody outside knows is
//! all that is mixed in. Not for texts.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Mixes the bits of a digest with a number that nobody outside knows: keys that a client has chosen for their digests
/// do not meet in one place.
#[derive(Clone, Copy, Debug)]
pub struct Mixing {
    seed: u64,
}

#[derive(Debug)]
pub struct Mixed(u64);

impl Default for Mixing {
    fn default() -> Self {
        Self { seed: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for Mixing {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(self.seed)
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(ODD);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn write_u128(&mut self, digest: u128) {
        self.write_u64(digest as u64);
        self.write_u64((digest >> 64) as u64);
    }

    fn write_usize(&mut self, _length: usize) {
        // The length of a tag, always the same.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbours_are_far_apart_and_seeds_differ() {
        let mixing = Mixing::default();
        let digests = (0..64).flat_map(|bit| [1_u128 << bit, 1_u128 << (64 + bit), bit]);
        let digests: HashSet<u128> = digests.collect();
        let hashes: HashSet<u64> = digests.iter().map(|digest| mixing.hash_one(digest)).collect();
        assert_eq!(hashes.len(), digests.len());
        assert_ne!(mixing.hash_one(1_u128), Mixing::default().hash_one(1_u128));
    }
}
