//! Sums over bytes, in words of eight: whether a record is what was stored, and where a text is looked for.

use super::CHECKSUM;

/// 64 bits over the request id and all of the record but the sum itself, in words of 8 bytes, four at a time. Each step
/// is a bijection of the sum for a given word and of the word for a given sum: damage within one word is always found,
/// any other is missed once in 2^64. It finds damage, not forgery.
pub(super) fn checksum(request_id: &str, record: &[u8]) -> u64 {
    let mut sum = mix(START, record.len() as u64);
    sum = lanes(sum, request_id.as_bytes());
    sum = lanes(sum, record.get(..CHECKSUM.start).unwrap_or(record));
    sum = lanes(sum, record.get(CHECKSUM.end..).unwrap_or_default());
    sum ^ (sum >> 32)
}

/// A hash of bytes. Of a text that somebody may have chosen: `salt` is known to nobody outside then.
pub(in crate::store) fn hash(salt: u64, text: &[u8]) -> u64 {
    let sum = lanes(mix(START, salt), text);
    (sum ^ (sum >> 32)).wrapping_mul(ODD)
}

fn lanes(before: u64, bytes: &[u8]) -> u64 {
    let mut sums = [before, 1, 2, 3];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        if let ([a, b, c, d], _) = block.as_chunks::<8>() {
            let [e, f, g, h] = sums;
            sums = [mix(e, word(a)), mix(f, word(b)), mix(g, word(c)), mix(h, word(d))];
        }
    }
    let mut sum = sums.into_iter().fold(bytes.len() as u64, mix);
    let (words, rest) = rest.as_chunks::<8>();
    for one in words {
        sum = mix(sum, word(one));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(sum, word(&last))
}

fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(ODD).rotate_left(29)
}

const START: u64 = 0x6a09_e667_f3bc_c908;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
