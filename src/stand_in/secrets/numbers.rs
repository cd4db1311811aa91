//! Card numbers in text: runs of digits, with single spaces or hyphens between groups, that a card scheme could have
//! given out. One pass over the bytes.

/// Whether a card number stands in `text`.
pub(super) fn has_card_number(text: &[u8]) -> bool {
    // Nearly all texts are short, or have hardly any digits; most others are ids.
    if text.len() < SHORTEST || is_uuid(text) || parts_at_most(text) < SHORTEST {
        return false;
    }
    if text.is_ascii() {
        return has_plain(text, 0);
    }
    match with_plain_digits(text) {
        None => has_plain(text, 0),
        Some(plain) => has_plain(&plain, 0),
    }
}

/// At most so many bytes of `text` are digits, or parts of wide ones. Most blocks have none.
fn parts_at_most(text: &[u8]) -> usize {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let with_parts = blocks.iter().filter(|block| {
        // Without an early end: it is looked through by vectors.
        let is_part = |byte: &u8| u8::from(byte.wrapping_sub(b'0') < 10) | (byte & 0x80);
        block.iter().fold(0, |found, byte| found | is_part(byte)) != 0
    });
    with_parts.map(|block| few_parts_at_most(block)).sum::<usize>() + few_parts_at_most(rest)
}

/// The same of up to a block: in words, the last of which may be counted in part twice.
fn few_parts_at_most(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks();
    let mut counts = words.iter().fold(0, |counts, word| counts + parts_of_word(*word));
    if !rest.is_empty() {
        match text.last_chunk() {
            Some(last) => counts += parts_of_word(*last),
            None => return rest.len(),
        }
    }
    // The sum of its bytes.
    (counts.wrapping_mul(EACH) >> 56) as usize
}

/// In each byte 1 for a digit or a byte of a wide one, else 0.
fn parts_of_word(word: [u8; 8]) -> u64 {
    const HIGHEST: u64 = EACH << 7;
    let word = u64::from_le_bytes(word);
    let low = word & !HIGHEST;
    let from_zero = low + EACH * u64::from(0x80 - b'0');
    let beyond_nine = low + EACH * u64::from(0x80 - b'9' - 1);
    (((from_zero & !beyond_nine) | word) & HIGHEST) >> 7
}

const EACH: u64 = u64::from_le_bytes([1; 8]);

/// Digits of full width (U+FF10 to U+FF19) as plain ones, where there are any: keyboards for East Asian scripts write them,
/// and apps read them.
fn with_plain_digits(text: &[u8]) -> Option<Vec<u8>> {
    let first = memchr::memmem::find(text, FULL_WIDTH)?;
    let mut plain = text[..first].to_vec();
    let mut rest = &text[first..];
    while let Some((&byte, after)) = rest.split_first() {
        match rest {
            [0xEF, 0xBC, last @ 0x90..=0x99, after @ ..] => {
                plain.push(last - 0x90 + b'0');
                rest = after;
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    Some(plain)
}

/// How a character of full width begins in UTF-8.
const FULL_WIDTH: &[u8] = &[0xEF, 0xBC];

/// Whether one stands there that is met from `at` on.
fn has_plain(text: &[u8], mut at: usize) -> bool {
    while let Some(place) = next_place(text, at) {
        at = place + STEP;
        let digit = [place, place + 1].into_iter().find(|place| text[*place].is_ascii_digit());
        if let Some(digit) = digit {
            let run = Run::around(text, digit);
            if run.digits >= SHORTEST && run.holds_card() {
                return true;
            }
            at = at.max(run.end);
        }
    }
    false
}

/// The next place, in steps from `at`, at which a run may be met. Of two neighbours in a run one at least is a digit; and a
/// run that is long enough has two neighbours at one of any places that are a step apart.
fn next_place(text: &[u8], mut at: usize) -> Option<usize> {
    while at + 1 < text.len() {
        if text[at].is_ascii_digit() || text[at + 1].is_ascii_digit() {
            return Some(at);
        }
        at += STEP;
    }
    None
}

/// A step: one less than the digits of the shortest number.
const STEP: usize = SHORTEST - 1;
/// Bytes that are looked at together.
const BLOCK: usize = 64;
const SHORTEST: usize = 13;
const LONGEST: usize = 19;

/// Groups of digits with one space or hyphen between each two.
struct Run<'t> {
    text: &'t [u8],
    start: usize,
    end: usize,
    digits: usize,
}

impl<'t> Run<'t> {
    /// The whole run that the digit at `at` is part of.
    fn around(text: &'t [u8], at: usize) -> Self {
        let is_digit =
            |place: Option<usize>| place.is_some_and(|place| text[place].is_ascii_digit());
        let mut start = at;
        loop {
            let (before, beyond) = (start.checked_sub(1), start.checked_sub(2));
            if is_digit(before) {
                start -= 1;
            } else if is_digit(beyond) && before.is_some_and(|before| is_separator(text[before])) {
                start -= 2;
            } else {
                return Self::at(text, start);
            }
        }
    }

    fn at(text: &'t [u8], start: usize) -> Self {
        let (mut end, mut digits) = (start, 0);
        while end < text.len() {
            if text[end].is_ascii_digit() {
                digits += 1;
                end += 1;
            } else if is_separator(text[end]) && text.get(end + 1).is_some_and(u8::is_ascii_digit) {
                end += 1;
            } else {
                break;
            }
        }
        Self { text, start, end, digits }
    }

    /// Tries every sequence of whole groups with 13–19 digits: a date or a code may stand beside the number.
    fn holds_card(&self) -> bool {
        let mut group = self.start;
        while group < self.end {
            if self.begins_card(group) {
                return true;
            }
            let rest = &self.text[group..self.end];
            let length = rest.iter().position(|byte| is_separator(*byte)).unwrap_or(rest.len());
            group += length + 1;
        }
        false
    }

    fn begins_card(&self, start: usize) -> bool {
        if !self.may_begin(start) {
            return false;
        }
        let mut digits = [0_u8; LONGEST];
        let mut count = 0;
        for at in start..self.end {
            let byte = self.text[at];
            if is_separator(byte) {
                continue;
            }
            if count == LONGEST {
                return false;
            }
            digits[count] = byte - b'0';
            count += 1;
            let group_ends = at + 1 == self.end || is_separator(self.text[at + 1]);
            if group_ends
                && count >= SHORTEST
                && self.may_end(at + 1)
                && is_card_number(&digits[..count])
                && !self.is_in_uuid(start)
            {
                return true;
            }
        }
        false
    }

    /// Not glued to a word, no telephone number, no decimals. A magnetic track begins with `%B`.
    fn may_begin(&self, start: usize) -> bool {
        let before = |back: usize| start.checked_sub(back).map(|at| self.text[at]);
        match before(1) {
            None => true,
            Some(b'+') => false,
            Some(b'.' | b',') => !before(2).is_some_and(|byte| byte.is_ascii_digit()),
            Some(b'B') => before(2) == Some(b'%'),
            Some(byte) => !is_word(byte),
        }
    }

    fn may_end(&self, end: usize) -> bool {
        match self.text.get(end) {
            None => true,
            Some(b'.' | b',') => !self.text.get(end + 1).is_some_and(u8::is_ascii_digit),
            Some(byte) => !is_word(*byte),
        }
    }

    fn is_in_uuid(&self, at: usize) -> bool {
        let is_part = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
        let before = self.text[..at].iter().rev().take(37).take_while(|byte| is_part(byte)).count();
        let token = &self.text[at - before..];
        is_uuid(&token[..token.iter().take(37).take_while(|byte| is_part(byte)).count()])
    }
}

/// Whether all of it is one: whatever its digits are, it is no card number.
fn is_uuid(token: &[u8]) -> bool {
    let Ok(token) = <&[u8; 36]>::try_from(token) else { return false };
    let is_hex = |byte: u8| (byte.wrapping_sub(b'0') < 10) | ((byte | 0x20).wrapping_sub(b'a') < 6);
    let hex = token.iter().fold(0, |count, byte| count + u8::from(is_hex(*byte)));
    hex == 32 && [8, 13, 18, 23].into_iter().all(|place| token[place] == b'-')
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'-')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Digits (0–9) of a scheme's length and prefix, with a valid check digit.
fn is_card_number(digits: &[u8]) -> bool {
    is_of_a_scheme(digits) && luhn(digits)
}

/// Prefixes as the schemes publish them (ISO/IEC 7812).
fn is_of_a_scheme(digits: &[u8]) -> bool {
    let prefix = |count: usize| digits[..count].iter().fold(0_u32, |n, d| n * 10 + u32::from(*d));
    let (one, two, three, four) = (prefix(1), prefix(2), prefix(3), prefix(4));
    let length = digits.len();
    match length {
        _ if one == 4 => matches!(length, 13 | 16 | 18 | 19), // Visa
        15 if two == 34 || two == 37 => true,                 // American Express
        14..=19
            if two == 36
                || two == 38
                || two == 39
                || (300..=305).contains(&three)
                || four == 3095 =>
        {
            true
        } // Diners
        16 if (51..=55).contains(&two) || (2221..=2720).contains(&four) => true, // Mastercard
        16..=19 if (3528..=3589).contains(&four) => true,     // JCB
        16..=19 if two == 65 || four == 6011 || (644..=649).contains(&three) => true, // Discover
        16..=19 if two == 62 || two == 81 || two == 82 => true, // UnionPay, RuPay
        16..=19 if (2200..=2204).contains(&four) => true,     // Mir
        16 if matches!(four, 9792 | 8600 | 9860) => true,     // Troy, Uzcard, Humo
        13..=19 if two == 50 || (56..=58).contains(&two) || one == 6 => true, // Maestro, Elo, Hipercard, RuPay, Verve
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let doubled = u32::from(*digit) << (place % 2);
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The schemes' public test numbers.
    const TEST_CARDS: [&str; 17] = [
        "4111111111111111",
        "4012888888881881",
        "4222222222222",
        "5555555555554444",
        "5105105105105100",
        "2223003122003222",
        "2720990000000007",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
        "30569309025904",
        "38520000023237",
        "3530111333300000",
        "6200000000000005",
        "6304000000000000",
        "5019717010103742",
        "2200000000000004",
    ];

    #[test]
    fn known_test_numbers() {
        for card in TEST_CARDS {
            assert!(has_card_number(card.as_bytes()), "{card}");
            assert!(has_card_number(format!("card {card}, exp 12/29").as_bytes()), "{card}");
            let wide = |digit: char| {
                digit.to_digit(10).and_then(|digit| char::from_u32(0xFF10 + digit)).unwrap_or(digit)
            };
            let wide: String = format!("no. {card}!").chars().map(wide).collect();
            assert!(has_card_number(wide.as_bytes()), "{wide}");
            assert!(has_card_number(format!("{card} 12 29 123").as_bytes()), "{card}");
            assert!(has_card_number(format!("%B{card}^DOE/JOHN^2912").as_bytes()), "{card}");
            assert!(has_card_number(format!(";{card}=2912101?").as_bytes()), "{card}");
            assert!(has_card_number(format!("pan:\"{card}\"").as_bytes()), "{card}");
        }
    }

    #[test]
    fn a_number_is_found_at_every_place_of_long_texts() {
        for card in ["4222222222222", "4111 1111-1111 1111"] {
            for before in 0..300 {
                for after in [0, 1, 5, 70] {
                    let text = format!("{} {card} {}", "x".repeat(before), "y".repeat(after));
                    assert!(has_card_number(text.as_bytes()), "{text}");
                    let end = &text.as_bytes()[..text.len() - after - 1];
                    assert!(has_card_number(end), "{text}");
                }
            }
        }
    }

    #[test]
    fn other_long_numbers_are_none() {
        for text in [
            "",
            "411111111111",
            "4111111111111112",
            "41111111111111111111",
            "1700000000000",
            "1700000000000000000",
            "2026-11-22 09:15:00",
            "20261122091500",
            "x4111111111111111",
            "4111111111111111x",
            "_4111111111111111",
            "a-4111111111111111b",
            "+4111111111111111",
            "0.4111111111111111",
            "4111111111111111.25",
            "550e8400-e29b-41d4-a716-446655440000",
            "41111111-1111-1111-8111-411111111111",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "4111  1111  1111  1111",
            "9999999999999995",
            "0000000000000000",
            "1111111111111117",
        ] {
            assert!(!has_card_number(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn groups_and_neighbours() {
        for text in [
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "3782 822463 10005",
            "12 4111 1111 1111 1111",
            "4111111111111111.",
            "(4111111111111111)",
            "x,4111111111111111,y",
            "order-4111111111111111",
            "\u{e9}4111111111111111\u{e9}",
        ] {
            assert!(has_card_number(text.as_bytes()), "{text}");
        }
    }

    /// A scheme's prefix and length, filled with random digits and a check digit.
    fn card() -> impl Strategy<Value = Vec<u8>> {
        let schemes = vec![
            ("4", 16),
            ("4", 19),
            ("51", 16),
            ("2221", 16),
            ("34", 15),
            ("37", 15),
            ("6011", 16),
            ("36", 14),
            ("3528", 16),
            ("62", 17),
            ("5018", 13),
        ];
        (prop::sample::select(schemes), prop::collection::vec(0_u8..10, 19)).prop_map(
            |((prefix, length), random)| {
                let mut digits: Vec<u8> = prefix.bytes().map(|byte| byte - b'0').collect();
                digits.extend(random.iter().take(length - digits.len() - 1));
                let check = (0..10).find(|check| luhn(&[&digits[..], &[*check]].concat()));
                digits.push(check.unwrap());
                digits
            },
        )
    }

    fn written(digits: &[u8], every: usize, separator: char) -> String {
        let mut text = String::new();
        for (place, digit) in digits.iter().enumerate() {
            if place > 0 && every > 0 && place % every == 0 {
                text.push(separator);
            }
            text.push(char::from(b'0' + digit));
        }
        text
    }

    /// The rule in plain words: every run from its first digit on, one after the other.
    fn holds_card_by_the_rule(text: &[u8]) -> bool {
        let plain = with_plain_digits(text).unwrap_or_else(|| text.to_vec());
        let mut at = 0;
        while let Some(start) = plain[at..].iter().position(u8::is_ascii_digit) {
            let run = Run::at(&plain, at + start);
            if run.digits >= SHORTEST && run.holds_card() {
                return true;
            }
            at = run.end;
        }
        false
    }

    proptest! {
        #[test]
        fn parts_are_never_more_than_counted(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let is_part = |byte: &&u8| byte.is_ascii_digit() || !byte.is_ascii();
            prop_assert!(text.iter().filter(is_part).count() <= parts_at_most(&text));
            let mut word = [0; 8];
            for byte in 0..=255 {
                word[3] = byte;
                prop_assert_eq!(parts_of_word(word), u64::from(is_part(&&byte)) << 24, "{}", byte);
            }
        }

        #[test]
        fn no_number_is_overlooked_wherever_it_stands(
            card in card(),
            every in 0_usize..5,
            before in "[0-9a-z \u{e9}\u{ff11}\u{ff0c}.+-]{0,60}[a-z]{0,90}[ ,]?",
            after in "[0-9a-z \u{ff11}.-]{0,40}[a-z ]{0,70}",
            wide: bool,
        ) {
            let mut number = written(&card, every, if every % 2 == 0 { '-' } else { ' ' });
            if wide {
                let wide = |digit: char| digit.to_digit(10).and_then(|digit| char::from_u32(0xFF10 + digit));
                number = number.chars().map(|digit| wide(digit).unwrap_or(digit)).collect();
            }
            let text = format!("{before}{number}{after}");
            prop_assert_eq!(has_card_number(text.as_bytes()), holds_card_by_the_rule(text.as_bytes()), "{}", text);
        }

        #[test]
        fn what_is_nearly_a_uuid_is_judged_by_the_rule(
            before in "[a-f0-9 ]{0,2}",
            uuid in "4111[0-9a-f]{0,4}[0-9]{4}-1111-1111-[01]{3,4}-?[0-9]{12}|[0-9]{8}-[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{12}",
            after in "[-a-f0-9 ]{0,2}",
        ) {
            let text = format!("{before}{uuid}{after}");
            prop_assert_eq!(has_card_number(text.as_bytes()), holds_card_by_the_rule(text.as_bytes()), "{}", text);
        }

        #[test]
        fn any_text_of_many_digits_is_judged_by_the_rule(text in "([0-9 -]{0,30}|4111 ?[1-]{4,14}|[a-z]{0,20}){0,6}") {
            prop_assert_eq!(has_card_number(text.as_bytes()), holds_card_by_the_rule(text.as_bytes()), "{}", text);
        }

        #[test]
        fn every_valid_number_is_found(card in card(), every in 0_usize..7, hyphen: bool, before in "[a-z ]{0,8}[ ,:\"]", after in "[ ,;\"][a-z ]{0,8}") {
            let number = written(&card, every, if hyphen { '-' } else { ' ' });
            let text = format!("{before}{number}{after}");
            prop_assert!(has_card_number(text.as_bytes()), "{text}");
        }

        #[test]
        fn a_wrong_check_digit_is_none(mut card in card(), wrong in 1_u8..10) {
            let last = card.len() - 1;
            card[last] = (card[last] + wrong) % 10;
            prop_assert!(!has_card_number(written(&card, 0, ' ').as_bytes()));
        }

        #[test]
        fn any_bytes_are_searched_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            has_card_number(&bytes);
        }

        #[test]
        fn digits_and_separators_are_searched_without_a_panic(text in "[0-9 .+-]{0,80}") {
            has_card_number(text.as_bytes());
        }
    }
}
