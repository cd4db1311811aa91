//! Finds card data, which must not be stored: card numbers, and fields that are named like verification codes.
//!
//! PCI DSS 3.3.1 forbids to keep verification codes, tracks and PINs at all. What is found means that standin does not
//! stand in; what looks like a card number and is none costs one honest error. So the search is broad where a number
//! stands alone, and narrow where digits are parts of other things: a card number has 13–19 digits, a valid check
//! digit (Luhn) and the prefix of a card scheme; digits glued to letters, UUIDs, numbers after a `+` (telephones) and
//! decimals are none. Barcodes of 13 digits that begin with 4 are mistaken for old Visa numbers one time in ten.
//!
//! Not found: numbers in compressed, encrypted or base64 text, numbers split over several fields, and numbers in the
//! fields in which tracing systems write ids in decimal.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::Number;

use crate::body::{BodyKind, Json, ReadBody};

mod fields;
mod numbers;

use fields::{Found, in_fields};
use numbers::has_card_number;

/// Where the request carries card data, if it does. `target` is the raw path and query, `raw` the body as it came.
pub fn carries_card_data(
    body: &ReadBody<'_>,
    raw: &[u8],
    headers: &HeaderMap,
    target: &str,
) -> Option<&'static str> {
    in_target(target).or_else(|| in_headers(headers)).or_else(|| match body.kind {
        BodyKind::Empty => None,
        BodyKind::Json | BodyKind::Form => in_json(&body.json),
        BodyKind::Opaque => in_bytes(raw),
    })
}

/// Whether a path carries a card number: then no log may have it either.
pub fn names_a_card(path: &str) -> bool {
    in_target(path).is_some()
}

fn in_json(value: &Json<'_>) -> Option<&'static str> {
    match value {
        Json::Text(text) => has_card_number(text.as_bytes()).then_some("a card number in the body"),
        Json::Number(number) => is_card_number(number).then_some("a card number in the body"),
        Json::List(list) => list.iter().find_map(in_json),
        Json::Object(object) => object.fields().iter().find_map(|(name, value)| {
            if is_secret(name, value) {
                return Some("a card verification field in the body");
            }
            if has_card_number(name.as_bytes()) {
                return Some("a card number in the body");
            }
            in_json(value)
        }),
        Json::Null | Json::Bool(_) => None,
    }
}

fn is_card_number(number: &Number) -> bool {
    let whole = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
    // A hyphen before a number in a text is none of it, either.
    let digits = match (whole, number.as_f64().map(f64::abs)) {
        (Some(whole), _) => whole,
        (None, Some(double)) if double.fract() == 0.0 && (1e12..1e19).contains(&double) => {
            double as u64
        }
        _ => return false,
    };
    digits >= 1_000_000_000_000 && has_card_number(digits.to_string().as_bytes())
}

fn is_secret(name: &str, value: &Json<'_>) -> bool {
    let Some(named) = name_of(name) else { return false };
    match value {
        Json::Null | Json::Bool(_) => false,
        Json::Text(text) => named.fits(text.trim()),
        Json::Number(number) => named.fits(&number.to_string()),
        Json::List(list) => !list.is_empty(),
        Json::Object(object) => !object.fields().is_empty(),
    }
}

/// Bytes of a type that is not looked into: multipart, XML, text. A name counts when a code stands right behind it:
/// `<cvv>123<`, `name="cvv"\r\n\r\n123`, `"cvc": "123"`.
fn in_bytes(bytes: &[u8]) -> Option<&'static str> {
    if has_card_number(bytes) {
        return Some("a card number in the body");
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut at = 0;
    while let Some(start) = bytes[at..].iter().position(|byte| byte.is_ascii_alphabetic()) {
        let word = &bytes[at + start..];
        let end = word.iter().position(|byte| !is_word(byte)).unwrap_or(word.len());
        at += start + end;
        let Some(named) = std::str::from_utf8(&word[..end]).ok().and_then(name_of) else {
            continue;
        };
        let behind = &word[end..];
        let gap = behind.iter().take(8).take_while(|byte| !is_word(byte)).count();
        let value = &behind[gap..];
        let value = &value[..value.iter().take(20).take_while(|byte| is_word(byte)).count()];
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if gap > 0 && digits && named.fits(std::str::from_utf8(value).unwrap_or_default()) {
            return Some("a card verification field in the body");
        }
    }
    None
}

fn in_target(target: &str) -> Option<&'static str> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decoded = |text: &str| -> Vec<u8> { Cow::from(percent_decode_str(text)).into_owned() };
    // An encoded digit is a digit behind `%3`: fewer digits than a number has are none of a number.
    let digits = path.bytes().filter(u8::is_ascii_digit).count();
    if digits >= 13 && has_card_number(&decoded(path)) {
        return Some("a card number in the path");
    }
    for pair in query.split(['&', ';']).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(&value.replace('+', " ")));
        if has_card_number(&value) || has_card_number(&name) {
            return Some("a card number in the query");
        }
        let named = std::str::from_utf8(&name).ok().and_then(name_of);
        if named.is_some_and(|named| named.fits(String::from_utf8_lossy(&value).trim())) {
            return Some("a card verification field in the query");
        }
    }
    None
}

fn in_headers(headers: &HeaderMap) -> Option<&'static str> {
    in_fields(headers).map(|found| match found {
        Found::Number => "a card number in a header",
        Found::Code => "a card verification field in a header",
    })
}

/// Where the trailers carry card data: they are kept as headers are.
pub fn in_trailers(trailers: &HeaderMap) -> Option<&'static str> {
    in_fields(trailers).map(|found| match found {
        Found::Number => "a card number in a trailer",
        Found::Code => "a card verification field in a trailer",
    })
}

/// Whether what was made of the request, and is kept beside it, is a card number: a key, a principal.
pub fn is_made_of_card_data(made: &str) -> bool {
    has_card_number(made.as_bytes())
}

/// How sure a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// Means a secret of a card whatever its value.
    Surely,
    /// May mean something else: counts with a value of three or four digits (a PIN: up to twelve).
    Code,
    Pin,
}

impl Named {
    fn fits(self, value: &str) -> bool {
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Surely => !value.is_empty(),
            Self::Code => digits && (3..=4).contains(&value.len()),
            Self::Pin => digits && (4..=12).contains(&value.len()),
        }
    }
}

/// Whether `name` is that of a verification code, a track or a PIN: `cvv`, `card[cvc]`, `cardCvv2`, `security-code` …
/// Postal `pin_code` and a bare `code` are not.
fn name_of(name: &str) -> Option<Named> {
    if name.len() > 64 {
        return None;
    }
    if !ends_like_one(name.as_bytes()) {
        return None;
    }
    // Most names are one small word.
    if name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return named(name, name);
    }
    let mut plain = [0_u8; 64];
    let mut length = 0;
    let mut last_word = 0; // where the last word begins: after punctuation, or at a capital behind a small letter
    let mut before = b' ';
    for byte in name.bytes() {
        if !byte.is_ascii_alphanumeric() {
            before = b' ';
            continue;
        }
        if before == b' ' || (before.is_ascii_lowercase() && byte.is_ascii_uppercase()) {
            last_word = length;
        }
        before = byte;
        plain[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let whole = std::str::from_utf8(&plain[..length]).ok()?;
    named(whole, &whole[last_word..])
}

/// Whether the last three letters and digits are those of anything that is looked for.
fn ends_like_one(name: &[u8]) -> bool {
    if let [.., first, middle, last] = *name {
        let end = [first, middle, last];
        if is_such_an_end(end) {
            return true;
        }
        // Most end with letters or digits.
        if end.iter().all(u8::is_ascii_alphanumeric) {
            return false;
        }
    }
    let mut backwards = name.iter().rev().filter(|byte| byte.is_ascii_alphanumeric());
    let mut next = || backwards.next().copied().unwrap_or_default();
    let (last, middle, first) = (next(), next(), next());
    is_such_an_end([first, middle, last])
}

/// In whatever case. What is neither letter nor digit may be taken for one: then more is looked at.
fn is_such_an_end(end: [u8; 3]) -> bool {
    let end = as_number(end) | 0x20_2020;
    ENDS[place_of(end)] == end
}

/// The last three letters and digits of all that is looked for, each at its own place.
const ENDS: [u32; 32] = {
    let ends = [
        b"ack", b"ata", b"av2", b"ber", b"cid", b"ck1", b"ck2", b"csc", b"cvc", b"cvd", b"cvn",
        b"cvv", b"de2", b"ion", b"ipe", b"lue", b"ock", b"ode", b"pin", b"vc2", b"vn2", b"vv2",
    ];
    let (mut places, mut next) = ([0; 32], 0);
    while next < ends.len() {
        let end = as_number(*ends[next]);
        assert!(places[place_of(end)] == 0, "no two have the same place");
        places[place_of(end)] = end;
        next += 1;
    }
    places
};

/// Which of 32 places these letters have. The factor was found by trying.
const fn place_of(end: u32) -> usize {
    (end.wrapping_mul(0xef9e_7a2f) >> 27) as usize
}

const fn as_number([first, middle, last]: [u8; 3]) -> u32 {
    u32::from_le_bytes([first, middle, last, 0])
}

/// By the whole name without punctuation, in small letters, and the last of its words.
fn named(whole: &str, last: &str) -> Option<Named> {
    if SURELY.binary_search(&whole).is_ok()
        || matches!(last, "cvv" | "cvv2" | "cvc" | "cvc2" | "cav2")
    {
        return Some(Named::Surely);
    }
    if matches!(whole, "pin" | "cardpin" | "debitpin" | "atmpin" | "pinnumber") {
        return Some(Named::Pin);
    }
    matches!(last, "cid" | "csc" | "cvn" | "cvd" | "cvn2").then_some(Named::Code)
}

const SURELY: [&str; 24] = [
    "cardcode",
    "cardcvc",
    "cardcvv",
    "cardsecuritycode",
    "cardverification",
    "cardverificationcode",
    "cardverificationnumber",
    "cardverificationvalue",
    "cvccode",
    "cvvcode",
    "cvvnumber",
    "fulltrack",
    "magneticstripe",
    "magstripe",
    "magstripedata",
    "pinblock",
    "securitycode",
    "track1",
    "track1data",
    "track2",
    "track2data",
    "trackdata",
    "verificationcode2",
    "verificationvalue",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::body::read_strictly;

    fn json_body(value: Value) -> Option<&'static str> {
        let text = value.to_string();
        in_json(&read_strictly(Some("application/json"), None, text.as_bytes()).unwrap().json)
    }

    #[test]
    fn card_numbers_are_found_wherever_they_stand() {
        for value in [
            json!({"card": "4111111111111111"}),
            json!({"card": "4111 1111 1111 1111"}),
            json!({"card": "4111-1111-1111-1111"}),
            json!({"card": 4111111111111111_u64}),
            json!({"card": 4111111111111111.0}),
            json!({"refund": -4111111111111111_i64}),
            json!({"refund": -4111111111111111.0}),
            json!({"a": [{"b": ["x", "pay with 5555555555554444, please"]}]}),
            json!({"4111111111111111": true}),
            json!(["378282246310005", 1]),
        ] {
            assert_eq!(json_body(value.clone()), Some("a card number in the body"), "{value}");
        }
        // However they are written.
        for text in [
            r#""\u0034111111111111111""#,
            r#"{"\u0034111111111111111":0}"#,
            r#"{"c\u0076v":"123"}"#,
        ] {
            let read = read_strictly(Some("application/json"), None, text.as_bytes()).unwrap();
            assert!(in_json(&read.json).is_some(), "{text}");
        }
        let opaque = ReadBody { json: Json::Null, kind: BodyKind::Opaque };
        let headers = HeaderMap::new();
        let body = b"--x\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\n4111111111111111\r\n--x--";
        assert!(carries_card_data(&opaque, body, &headers, "/").is_some());
        for (target, place) in [
            ("/pay/4111111111111111", "a card number in the path"),
            ("/pay?card=4111111111111111", "a card number in the query"),
            ("/pay?card=4111+1111+1111+1111&x=1", "a card number in the query"),
            ("/pay?card=%34111%20111111111111", "a card number in the query"),
            ("/pay?cvv=123", "a card verification field in the query"),
        ] {
            assert_eq!(in_target(target), Some(place), "{target}");
        }
    }

    #[test]
    fn forms_are_searched_decoded() {
        let form = |text: &str| {
            let raw = text.as_bytes();
            let read = read_strictly(Some("application/x-www-form-urlencoded"), None, raw).unwrap();
            carries_card_data(&read, raw, &HeaderMap::new(), "/").is_some()
        };
        assert!(form("card=4111+1111+1111+1111"));
        assert!(form("card=%34%31111111111111%311"));
        assert!(form("card%5Bcvc%5D=123"));
        assert!(!form("cents=1999&currency=USD"));
    }

    #[test]
    fn verification_fields_are_found_at_any_depth() {
        for value in [
            json!({"cvv": "123"}),
            json!({"payment": {"card": {"cvc": 1234}}}),
            json!([{"CVV2": "000"}]),
            json!({"cardCvv": "1"}),
            json!({"card_cvc": "x"}),
            json!({"security_code": "999"}),
            json!({"securityCode": "999"}),
            json!({"card-security-code": "999"}),
            json!({"card_code": "999"}),
            json!({"track1": "%B…"}),
            json!({"track2_data": ";…"}),
            json!({"magstripe": "x"}),
            json!({"pin": "1234"}),
            json!({"pin": 123456}),
            json!({"cid": "1234"}),
            json!({"csc": 123}),
            json!({"cvc": {"value": "123"}}),
        ] {
            let found = json_body(value.clone());
            assert_eq!(found, Some("a card verification field in the body"), "{value}");
        }
        for opaque in [
            &b"<card><cvv>123</cvv></card>"[..],
            b"name=\"cvc\"\r\n\r\n123\r\n--x",
            b"{\"cvv2\": \"1234\"}",
            b"a=1&security_code=123",
        ] {
            assert!(in_bytes(opaque).is_some(), "{}", String::from_utf8_lossy(opaque));
        }
    }

    #[test]
    fn sure_names_are_in_order() {
        assert!(SURELY.is_sorted());
        for name in SURELY {
            assert_eq!(name_of(name), Some(Named::Surely), "{name}");
            assert_eq!(name_of(&format!("x_{}", name.to_uppercase())), None, "{name}");
        }
        for name in ["cvv", "cvv2", "cvc", "cvc2", "cav2", "cid", "csc", "cvn", "cvd", "cvn2"] {
            assert!(name_of(name).is_some() && name_of(&format!("{name}:")).is_some(), "{name}");
        }
        for name in ["pin", "cardPin", "debit-pin", "atm_pin", "pinNumber"] {
            assert_eq!(name_of(name), Some(Named::Pin), "{name}");
        }
    }

    /// Without a look at the end first.
    fn name_of_by_the_rule(name: &str) -> Option<Named> {
        if name.len() > 64 {
            return None;
        }
        let (mut whole, mut last, mut before) = (String::new(), String::new(), ' ');
        for byte in name.bytes() {
            let letter = char::from(byte);
            if !byte.is_ascii_alphanumeric() {
                before = ' ';
                continue;
            }
            if before == ' ' || (before.is_ascii_lowercase() && letter.is_ascii_uppercase()) {
                last.clear();
            }
            before = letter;
            whole.push(letter.to_ascii_lowercase());
            last.push(letter.to_ascii_lowercase());
        }
        named(&whole, &last)
    }

    proptest! {
        #[test]
        fn no_name_is_overlooked_for_its_end(
            words in proptest::collection::vec("[a-zA-Z]{0,2}|cvv2?|CVC2?|cav2|[cC]id|csc|cvn2?|cvd|[pP]in|[cC]ard|code|Code|security|number|[tT]rack[12]?|data|stripe|mag|full|block|verification|Value|debit|atm", 0..4),
            joint in "[-_. \\[]{0,2}",
            end in "[\\]:_ ]{0,2}",
        ) {
            let name = format!("{}{end}", words.join(&joint));
            prop_assert_eq!(name_of(&name), name_of_by_the_rule(&name), "{}", name);
        }
    }

    #[test]
    fn every_name_ends_like_one() {
        for name in SURELY {
            assert_eq!(name_of(name), name_of_by_the_rule(name), "{name}");
            let letters = name.chars().map(String::from).collect::<Vec<_>>().join("-");
            assert_eq!(name_of(&letters), Some(Named::Surely), "{letters}");
        }
    }

    #[test]
    fn other_fields_are_none() {
        for value in [
            json!({"cvv": null, "cvc": "", "csc": "  ", "cvv2": [], "track1": {}, "pin": false}),
            json!({"cid": "customer-17", "csc": "12", "pin": "map", "pin_code": "560001"}),
            json!({"code": "123", "pinned": 1234, "spin": "1234", "track": "7", "cvs": "export"}),
            json!({"currency": "USD", "cents": 1999, "lines": [{"sku": "A-1", "n": 2}]}),
        ] {
            assert_eq!(json_body(value.clone()), None, "{value}");
        }
        for opaque in [&b"<cid>abc</cid> cvv"[..], b"cvv: see back of card", b"discvv=123", b""] {
            assert_eq!(in_bytes(opaque), None, "{}", String::from_utf8_lossy(opaque));
        }
    }
}
