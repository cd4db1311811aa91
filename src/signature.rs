//! Signs replays, and knows those of another standin: without the key nobody can make a request pass for a replay.

use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::config::SigningKey;

/// Marks of a replay. Clients that send them are stripped of them, so the app may believe them as far as it believes
/// standin; with a signature, as far as the key is kept.
pub const REPLAY: HeaderName = HeaderName::from_static("standin-replay");
pub const ATTEMPT: HeaderName = HeaderName::from_static("standin-attempt");
pub const RECEIVED_AT: HeaderName = HeaderName::from_static("standin-received-at");
pub const SIGNATURE: HeaderName = HeaderName::from_static("standin-signature");

/// What [`SIGNATURE`] carries: HMAC-SHA256, in lower-case hex, over request id, attempt and time of receipt as their
/// headers say them, each followed by a line feed.
pub fn sign(key: &SigningKey, id: &HeaderValue, headers: &HeaderMap) -> Option<HeaderValue> {
    let mac = over(key, id, headers)?.finalize().into_bytes();
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(hex).ok()
}

/// Whether these headers are those of a replay that was signed with this key. Takes equally long for any signature.
pub fn is_genuine(key: &SigningKey, id_header: &HeaderName, headers: &HeaderMap) -> bool {
    let one_each = [id_header, &REPLAY, &ATTEMPT, &RECEIVED_AT, &SIGNATURE]
        .iter()
        .all(|name| headers.get_all(*name).iter().count() == 1);
    let (Some(id), Some(signature)) = (headers.get(id_header), headers.get(SIGNATURE)) else {
        return false;
    };
    let (Some(mac), Some(signature)) = (over(key, id, headers), unhex(signature.as_bytes())) else {
        return false;
    };
    one_each && mac.verify_slice(&signature).is_ok()
}

fn over(key: &SigningKey, id: &HeaderValue, headers: &HeaderMap) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::new_from_slice(key.0.as_bytes()).expect("HMAC takes keys of any length");
    for part in [id, headers.get(ATTEMPT)?, headers.get(RECEIVED_AT)?] {
        mac.update(part.as_bytes());
        mac.update(b"\n");
    }
    Some(mac)
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        }
        _ => None,
    };
    text.chunks(2).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: HeaderName = HeaderName::from_static("x-request-id");

    fn signed(key: &SigningKey) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ID, HeaderValue::from_static("id"));
        headers.insert(REPLAY, HeaderValue::from_static("1"));
        headers.insert(ATTEMPT, HeaderValue::from_static("1"));
        headers.insert(RECEIVED_AT, HeaderValue::from_static("2023-11-14T22:13:20.123Z"));
        let signature = sign(key, &headers[ID], &headers).unwrap();
        headers.insert(SIGNATURE, signature);
        headers
    }

    #[test]
    fn others_can_check_it() {
        // printf 'id\n1\n2023-11-14T22:13:20.123Z\n' | openssl dgst -sha256 -hmac secret
        let expected = "be041fdabab574fd5cd4cf713fb7cc23f0017b7d20a1612a6b85a1269f1cca91";
        assert_eq!(signed(&SigningKey("secret".into()))[SIGNATURE], expected);
    }

    #[test]
    fn only_what_was_signed_with_the_key_is_genuine() {
        let key = SigningKey("secret".into());
        assert!(is_genuine(&key, &ID, &signed(&key)));
        assert!(!is_genuine(&SigningKey("other".into()), &ID, &signed(&key)));
        assert!(!is_genuine(&key, &ID, &HeaderMap::new()));
        for name in [&ID, &ATTEMPT, &RECEIVED_AT, &SIGNATURE] {
            let changed = |value: &'static str| {
                let mut headers = signed(&key);
                headers.insert(name, HeaderValue::from_static(value));
                headers
            };
            for value in ["2", "", "zz", "be"] {
                assert!(!is_genuine(&key, &ID, &changed(value)), "{name}: {value}");
            }
            let mut without = signed(&key);
            without.remove(name);
            assert!(!is_genuine(&key, &ID, &without), "{name} is missing");
            let mut twice = signed(&key);
            let same = twice[name].clone();
            twice.append(name, same);
            assert!(!is_genuine(&key, &ID, &twice), "{name} twice");
        }
    }
}
