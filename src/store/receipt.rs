//! Receipts: an entry's number, scrambled so that it does not tell volumes, in letters that can be said on the phone.
//!
//! A scrambled number has 35 bits (7 characters of Crockford base32); numbers beyond 2^35 get 9 characters. One check
//! character follows: it finds every single wrong character and every swap of two neighbours.

use std::{fmt, str::FromStr};

use super::{Receipt, Seq};

/// Scrambles by a salt that belongs to the store file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipts {
    salt: u64,
}

/// This text is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a receipt: 8 letters and digits such as 7K3M-Q2XD, the last of which checks the others"
)]
pub struct NotAReceipt;

impl Receipts {
    pub(super) fn new(salt: u64) -> Self {
        Self { salt }
    }

    pub(super) fn of(self, seq: Seq) -> Receipt {
        let seq = seq.0.cast_unsigned();
        Receipt(match seq.checked_sub(SHORT) {
            None => self.mixer(SHORT_BITS).scramble(seq),
            Some(beyond) => SHORT + self.mixer(LONG_BITS).scramble(beyond & (LONG - 1)),
        })
    }

    pub(super) fn seq(self, receipt: Receipt) -> Seq {
        let seq = match receipt.0.checked_sub(SHORT) {
            None => self.mixer(SHORT_BITS).unscramble(receipt.0),
            Some(beyond) => SHORT + self.mixer(LONG_BITS).unscramble(beyond & (LONG - 1)),
        };
        Seq(seq.cast_signed())
    }

    fn mixer(self, bits: u32) -> Mixer {
        Mixer { salt: self.salt, bits }
    }
}

impl Receipt {
    /// Adds its text.
    pub fn push_to(self, text: &mut String) {
        let mut written = [b'-'; LONGEST];
        text.push_str(std::str::from_utf8(self.write(&mut written)).unwrap_or_default());
    }

    fn write(self, written: &mut [u8; LONGEST]) -> &[u8] {
        let (value, data) = match self.0.checked_sub(SHORT) {
            None => (self.0, SHORT_BITS / 5),
            Some(beyond) => (beyond & (LONG - 1), LONG_BITS / 5),
        };
        let mut digits = [0; (LONG_BITS / 5) as usize + 1];
        let digits = &mut digits[..data as usize + 1];
        for (place, digit) in (0..data).rev().zip(&mut *digits) {
            *digit = ((value >> (5 * place)) & 31) as u8;
        }
        digits[data as usize] = check(&digits[..data as usize]);
        let half = digits.len() / 2;
        for (place, digit) in digits.iter().enumerate() {
            written[place + usize::from(place >= half)] = ALPHABET[*digit as usize];
        }
        &written[..digits.len() + 1]
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = [b'-'; LONGEST];
        f.pad(std::str::from_utf8(self.write(&mut written)).map_err(|_| fmt::Error)?)
    }
}

/// Takes any case, spaces and hyphens anywhere, and `I`, `L`, `O` for `1`, `1`, `0`.
impl FromStr for Receipt {
    type Err = NotAReceipt;

    fn from_str(text: &str) -> Result<Self, NotAReceipt> {
        let mut digits = Vec::with_capacity(10);
        for letter in text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')) {
            if digits.len() == 10 {
                return Err(NotAReceipt);
            }
            digits.push(digit(letter).ok_or(NotAReceipt)?);
        }
        let given = digits.pop().ok_or(NotAReceipt)?;
        if check(&digits) != given {
            return Err(NotAReceipt);
        }
        let value = digits.iter().fold(0, |value, &digit| (value << 5) | u64::from(digit));
        match digits.len() as u32 * 5 {
            SHORT_BITS => Ok(Self(value)),
            LONG_BITS => Ok(Self(SHORT + value)),
            _ => Err(NotAReceipt),
        }
    }
}

/// As text, everywhere: JSON, labels, logs.
impl serde::Serialize for Receipt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A bijection on numbers of `bits` bits: multiplications by odd numbers, and shifts by more than half of the bits.
struct Mixer {
    salt: u64,
    bits: u32,
}

impl Mixer {
    fn scramble(&self, mut x: u64) -> u64 {
        for round in 0..ROUNDS {
            x = x.wrapping_mul(self.factor(round)).wrapping_add(self.salt >> round) & self.mask();
            x ^= x >> (self.bits / 2 + 1);
        }
        x
    }

    fn unscramble(&self, mut x: u64) -> u64 {
        for round in (0..ROUNDS).rev() {
            x ^= x >> (self.bits / 2 + 1);
            x = x.wrapping_sub(self.salt >> round).wrapping_mul(inverse(self.factor(round)))
                & self.mask();
        }
        x
    }

    fn factor(&self, round: u32) -> u64 {
        FACTORS[round as usize].wrapping_add(self.salt.rotate_left(21 * round) << 1) | 1
    }

    fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

/// Inverse of an odd number modulo 2^64 (Newton; each step doubles the bits that fit).
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |guess, _| guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess))))
}

/// Sum of the digits times powers of a generator of GF(32): differs for every single change and every swap.
fn check(digits: &[u8]) -> u8 {
    digits.iter().fold(0, |sum, &digit| times_generator(sum ^ digit))
}

/// Multiplication by x in `GF(2)[x] / (x^5 + x^2 + 1)`.
fn times_generator(value: u8) -> u8 {
    let doubled = value << 1;
    if doubled & 32 == 0 { doubled } else { (doubled ^ 0b10_0101) & 31 }
}

fn digit(letter: u8) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        b'I' | b'L' => b'1',
        b'O' => b'0',
        other => other,
    };
    ALPHABET.iter().position(|&known| known == letter).map(|at| at as u8)
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Letters of a text, with the hyphen in its middle.
const LONGEST: usize = (LONG_BITS / 5) as usize + 2;
const SHORT_BITS: u32 = 35;
const LONG_BITS: u32 = 45;
const SHORT: u64 = 1 << SHORT_BITS;
const LONG: u64 = 1 << LONG_BITS;
const ROUNDS: u32 = 3;
const FACTORS: [u64; ROUNDS as usize] =
    [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_back_to_its_entry_short_and_long() {
        let receipts = Receipts::new(0x1234_5678_9abc_def1);
        for seq in (1..5000).chain([(1 << 35) - 1, 1 << 35, (1 << 35) + 1, (1 << 44) + 77]) {
            let receipt = receipts.of(Seq(seq));
            let text = receipt.to_string();
            assert_eq!(text.len(), if seq < 1 << 35 { 9 } else { 11 }, "{text}");
            let read: Receipt = text.parse().unwrap();
            assert_eq!(read, receipt);
            assert_eq!(receipts.seq(read), Seq(seq));
        }
    }

    #[test]
    fn is_read_as_people_write_it() {
        let receipt = Receipts::new(7).of(Seq(1));
        let text = receipt.to_string();
        let said = text.replace('-', " ").to_lowercase().replace('1', "l").replace('0', "o");
        assert_eq!(said.parse(), Ok(receipt));
        assert_eq!("".parse::<Receipt>(), Err(NotAReceipt));
        assert_eq!("UUUU-UUUU".parse::<Receipt>(), Err(NotAReceipt));
        assert_eq!(format!("{text}{text}").parse::<Receipt>(), Err(NotAReceipt));
    }

    #[test]
    fn a_wrong_character_or_a_swap_is_found() {
        let text: Vec<u8> = Receipts::new(99).of(Seq(4711)).to_string().replace('-', "").into();
        for at in 0..text.len() {
            for &other in ALPHABET.iter().filter(|&&other| other != text[at]) {
                let mut wrong = text.clone();
                wrong[at] = other;
                assert!(String::from_utf8(wrong).unwrap().parse::<Receipt>().is_err());
            }
            if at > 0 && text[at] != text[at - 1] {
                let mut wrong = text.clone();
                wrong.swap(at, at - 1);
                assert!(String::from_utf8(wrong).unwrap().parse::<Receipt>().is_err());
            }
        }
    }

    #[test]
    fn neighbours_do_not_look_alike() {
        let receipts = Receipts::new(42);
        let alike = (1..2000)
            .filter(|&seq| {
                let (a, b) =
                    (receipts.of(Seq(seq)).to_string(), receipts.of(Seq(seq + 1)).to_string());
                a[..4] == b[..4]
            })
            .count();
        assert!(alike < 20, "{alike}");
    }
}
