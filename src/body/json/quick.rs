//! Plain JSON, read in one pass over its bytes. It only ever accepts: what is wrong, or is rare, it leaves to the strict
//! reader beside it, which knows why.

use std::borrow::Cow;

use memchr::memchr2;
use serde_json::{Number, Value};

use super::{Json, Object, check_number};
use crate::body::MAX_DEPTH;

/// What the strict reader would read. None: ask that one.
pub(super) fn read(text: &str) -> Option<Json<'_>> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(MAX_DEPTH)?;
    reader.next().is_none().then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The first byte that is not blank, from here on; it is here then.
    fn next(&mut self) -> Option<u8> {
        while let Some(byte) = self.here() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn here(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// One value with at most so many levels.
    fn value(&mut self, levels: usize) -> Option<Json<'a>> {
        match self.next()? {
            b'"' => self.string().map(Json::Text),
            b'{' => self.object(levels.checked_sub(1)?),
            b'[' => self.list(levels.checked_sub(1)?),
            b'-' | b'0'..=b'9' => self.number().map(Json::Number),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => None,
        }
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Option<Json<'a>> {
        let behind = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        behind.then_some(value)
    }

    fn object(&mut self, levels: usize) -> Option<Json<'a>> {
        let mut fields = Vec::with_capacity(4);
        self.at += 1;
        if self.next()? != b'}' {
            loop {
                if self.next()? != b'"' {
                    return None;
                }
                let name = self.string()?;
                if self.next()? != b':' {
                    return None;
                }
                self.at += 1;
                fields.push((name, self.value(levels)?));
                match self.next()? {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.at += 1;
        Object::new(fields).map(Json::Object)
    }

    fn list(&mut self, levels: usize) -> Option<Json<'a>> {
        let mut list = Vec::new();
        self.at += 1;
        if self.next()? != b']' {
            loop {
                list.push(self.value(levels)?);
                match self.next()? {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.at += 1;
        Some(Json::List(list))
    }

    /// From its opening quote on; ends behind the closing one.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at + 1;
        self.at = start;
        let mut rest = &self.text.as_bytes()[start..];
        // Most are short.
        for _ in 0..SHORT {
            let Some((word, behind)) = rest.split_first_chunk() else { break };
            if let Some(place) = first_stop(u64::from_le_bytes(*word)) {
                return self.end_of_string(start, self.at + place);
            }
            self.at += word.len();
            rest = behind;
        }
        let length = memchr2(b'"', b'\\', rest)?;
        // Without an early end: it is looked through in blocks.
        let has_controls = rest[..length].iter().fold(false, |found, byte| found | (*byte < 0x20));
        if has_controls {
            return None;
        }
        self.end_of_string(start, self.at + length)
    }

    /// What ends it stands at `at`, or is no part of a string.
    fn end_of_string(&mut self, start: usize, at: usize) -> Option<Cow<'a, str>> {
        self.at = at;
        match self.here()? {
            b'"' => {
                self.at += 1;
                self.text.get(start..at).map(Cow::Borrowed)
            }
            b'\\' => self.escaped(start),
            _ => None,
        }
    }

    /// One with a backslash, which is here.
    fn escaped(&mut self, start: usize) -> Option<Cow<'a, str>> {
        loop {
            // The backslash and what it escapes.
            self.at += 2;
            self.at += memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)?;
            if self.here()? == b'"' {
                self.at += 1;
                let quoted = self.text.get(start - 1..self.at)?;
                return serde_json::from_str(quoted).ok().map(Cow::Owned);
            }
        }
    }

    fn number(&mut self) -> Option<Number> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let written = &rest[..rest.iter().take_while(is_part).count()];
        self.at += written.len();
        if let Some(whole) = small_whole(written) {
            return Some(whole.into());
        }
        check_number(written).ok()?;
        match serde_json::from_slice(written).ok()? {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// A number of digits only that certainly fits.
fn small_whole(written: &[u8]) -> Option<u64> {
    let leading_zero = written.len() > 1 && written[0] == b'0';
    let only_digits = written.iter().all(u8::is_ascii_digit);
    (only_digits && !leading_zero && matches!(written.len(), 1..=18))
        .then(|| written.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Where the first of eight bytes of a string stands, the lowest first, that does not simply belong to it: a quotation
/// mark, a backslash or a control character.
fn first_stop(word: u64) -> Option<usize> {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = u64::from_le_bytes([0x80; 8]);
    // Of a byte below `bound`, and of no lower one, the highest bit is set (behind the first, others may have it too).
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH * u64::from(bound)) & !word & HIGHEST;
    let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    let stops = below(word, 0x20) | is(b'"') | is(b'\\');
    (stops != 0).then(|| stops.trailing_zeros() as usize / 8)
}

/// Words of eight bytes of a string that are looked at one by one.
const SHORT: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::read_by_serde, *};

    /// Whatever is read here is what the strict reader reads.
    fn agrees(text: &str) -> bool {
        read(text).is_none_or(|quick| read_by_serde(text) == Ok(quick))
    }

    #[test]
    fn orders_are_read_here() {
        for text in [
            r#"{"currency":"USD","cents":1250,"order":{"customer":"c","note":"long enough for blocks and more than that"}}"#,
            " {\"a\" : [ 1 , -2 , 2.5 , true , false , null , {} , [] , \"\" ] }\r\n\t",
            r#"{"note":"a \"quoted\" text with \u00e9 and \ud83d\ude00, as it comes", "b":"\\"}"#,
            "\"é\"",
            "9223372036854775807",
            "-9223372036854775808",
            "123456789012345678",
            "0",
            "52.520006599999996",
        ] {
            assert!(read(text).is_some() && agrees(text), "{text}");
        }
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(&nested(MAX_DEPTH)).is_some());
        assert!(read(&nested(MAX_DEPTH + 1)).is_none());
    }

    #[test]
    fn what_is_wrong_is_left_to_the_strict_reader() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "\"",
            "\"open",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{,}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\" 1}",
            "{a:1}",
            "{1:1}",
            "{} {}",
            "1 2",
            "01",
            "-",
            "-01",
            "-0",
            "1.",
            ".5",
            "+1",
            "1e3",
            "1-2",
            "1.5.2",
            "9223372036854775808",
            "tru",
            "nul",
            "truefalse",
            "nulll",
            "NaN",
            "\"a\nb\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"0123456789abcdefgh\n\"",
            "\"0123456789abcdefgh\\\"",
            "{\"a\":1,\"\\u0061\":2}",
            "\u{feff}{}",
            "{\"a\":1}\u{0}",
        ] {
            assert!(read(text).is_none(), "{text}");
            assert!(read_by_serde(text).is_err(), "{text}");
        }
    }

    fn document() -> impl Strategy<Value = String> {
        let blank = "[ \n\t]{0,1}";
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,18})?",
            "\"[ -!#-\\[\\]-~é😀]{0,40}\"",
            "\"([a-z ]|\\\\\"|\\\\u00[0-9a-f]{2}|\\\\ud83d\\\\ude00|\\\\[nrt\\\\/bfx]){0,30}\"",
            "true|false|null",
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..4), blank).prop_map(
                    |(all, blank)| format!("[{blank}{}]", all.join(&format!("{blank},")))
                ),
                (prop::collection::vec(("[a-e]{1,2}", inner), 0..5), blank).prop_map(
                    |(all, blank)| {
                        let fields: Vec<_> = all
                            .iter()
                            .map(|(name, value)| format!("\"{name}\"{blank}:{value}"))
                            .collect();
                        format!("{{{}{blank}}}", fields.join(","))
                    }
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn documents_are_read_as_the_strict_reader_reads_them(text in document()) {
            prop_assert!(agrees(&text), "{}", text);
            // What is right is hardly ever left to the other one.
            prop_assert_eq!(read(&text).is_some(), read_by_serde(&text).is_ok(), "{}", text);
        }

        #[test]
        fn broken_documents_too(text in document(), at: prop::sample::Index, change in "[\\[\\]{}:,\"\\\\a0-9.eE\\n -]{0,2}") {
            let at = text.floor_char_boundary(at.index(text.len()));
            let mut broken = text;
            broken.replace_range(at..broken.ceil_char_boundary(at + 1), &change);
            prop_assert!(agrees(&broken), "{}", broken);
        }

        #[test]
        fn any_text_too(text in r#"[\[\]{}:,"a0-9.eE\\u -]{0,30}"#) {
            prop_assert!(agrees(&text), "{}", text);
        }
    }
}
