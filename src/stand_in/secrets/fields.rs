//! Card data in header fields, trailers and cookies: their names are looked at as well as their values.
//!
//! Fields that hold ids are searched too: they are stored like all others, and a client may put anything into them. A
//! UUID is no card number whatever its digits; a numeric key that looks like one costs an honest error.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode;

use super::{has_card_number, name_of};

/// What is wrong with the fields of a head or of trailers, if anything is.
pub(super) fn in_fields(fields: &HeaderMap) -> Option<Found> {
    fields.iter().find_map(|(name, value)| {
        let value = value.as_bytes();
        if is_code(name.as_str(), value) {
            return Some(Found::Code);
        }
        let number = has_card_number(name.as_str().as_bytes())
            || (has_card_number(value) && !IN_DECIMAL.contains(name));
        if number {
            return Some(Found::Number);
        }
        if *name == header::COOKIE { in_cookies(value) } else { None }
    })
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Number,
    Code,
}

/// Tracing systems write random 64-bit numbers here, and one in fifty of those looks like a card number of 18 or 19 digits.
const IN_DECIMAL: [HeaderName; 3] = [
    HeaderName::from_static("x-cloud-trace-context"),
    HeaderName::from_static("x-datadog-parent-id"),
    HeaderName::from_static("x-datadog-trace-id"),
];

fn in_cookies(field: &[u8]) -> Option<Found> {
    field.split(|byte| *byte == b';').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let value = parts.next().unwrap_or_default().trim_ascii();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        let (name, value) = (decoded(name), decoded(value));
        if std::str::from_utf8(&name).is_ok_and(|name| is_code(name, &value)) {
            return Some(Found::Code);
        }
        (has_card_number(&name) || has_card_number(&value)).then_some(Found::Number)
    })
}

/// Named like a verification code, and filled in. `x-` says nothing.
fn is_code(name: &str, value: &[u8]) -> bool {
    let plain = name.strip_prefix("x-").unwrap_or(name);
    let named = name_of(plain);
    named.is_some_and(|named| named.fits(String::from_utf8_lossy(value).trim()))
}

fn decoded(text: &[u8]) -> Vec<u8> {
    Cow::from(percent_decode(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, value: &str) -> Option<Found> {
        let mut fields = HeaderMap::new();
        fields.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        in_fields(&fields)
    }

    #[test]
    fn numbers_are_found_in_names_values_and_ids() {
        for (name, value) in [
            ("x-note", "4111111111111111"),
            ("x-note", "card 4111 1111 1111 1111"),
            ("x-4111111111111111", ""),
            ("idempotency-key", "4111111111111111"),
            ("idempotency-key", "\"4111-1111-1111-1111\""),
            ("x-request-id", "order-4111111111111111"),
            ("x-correlation-id", "5555555555554444"),
            ("traceparent", "4111111111111111"),
            ("if-match", "\"4111111111111111\""),
            ("cookie", "a=b; card=4111111111111111"),
            ("cookie", "card=4111%201111%201111%201111"),
            ("cookie", "card=\"4111111111111111\""),
        ] {
            assert_eq!(found(name, value), Some(Found::Number), "{name}: {value}");
        }
    }

    #[test]
    fn codes_are_found_by_the_name_of_their_field() {
        for (name, value) in [
            ("x-cvv", "123"),
            ("cvc", "1234"),
            ("card-cvv2", "123"),
            ("x-card-security-code", "999"),
            ("x-security-code", "999"),
            ("x-pin", "1234"),
            ("x-track2", ";x"),
            ("cookie", "a=b; cvv=123"),
            ("cookie", "cvv=\"123\""),
        ] {
            assert_eq!(found(name, value), Some(Found::Code), "{name}: {value}");
        }
    }

    #[test]
    fn other_fields_are_none() {
        for (name, value) in [
            ("x-cvv", ""),
            ("x-cid", "customer-17"),
            ("x-pin", "map"),
            ("cookie", "cvv=; theme=dark; _ga=GA1.2.1234567890.1600000000"),
            ("date", "Sun, 22 Nov 2026 09:00:00 GMT"),
            ("authorization", "Bearer abc4111111111111111def"),
            // Ours, a client's, a timestamp, and the next number: its check digit is wrong.
            ("x-request-id", "41111111-1111-7111-8111-411111111111"),
            ("idempotency-key", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\""),
            ("idempotency-key", "1790000000000"),
            ("idempotency-key", "4111111111111112"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("x-datadog-trace-id", "4111111111111111"),
        ] {
            assert_eq!(found(name, value), None, "{name}: {value}");
        }
    }
}
