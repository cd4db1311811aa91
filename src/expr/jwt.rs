//! The claims of a bearer token, unverified: standin has no keys, and the app judges the token when it is replayed.

use http::{HeaderMap, header};
use serde_json::Value;

/// The claims of the one bearer token in `Authorization`, if it is a JWT.
pub(crate) fn bearer_claims(headers: &HeaderMap) -> Option<Value> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next()?.to_str().ok()?;
    if fields.next().is_some() || field.len() > LONGEST {
        return None;
    }
    let (scheme, token) = field.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parts = token.trim().split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims: Value = serde_json::from_slice(&base64url(claims)?).ok()?;
    claims.is_object().then_some(claims)
}

/// Longest `Authorization` field that is looked into.
const LONGEST: usize = 16 << 10;

/// Decodes base64url without padding (RFC 7515, 2).
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for &letter in chunk {
            bits = bits << 6 | u32::from(sextet(letter)?);
        }
        let bytes = (bits << (6 * (4 - chunk.len()))).to_be_bytes();
        match chunk.len() {
            4 => decoded.extend(&bytes[1..]),
            3 => decoded.extend(&bytes[1..3]),
            2 => decoded.push(bytes[1]),
            _ => return None,
        }
    }
    Some(decoded)
}

fn sextet(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(field: &str) -> Option<Value> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", field.parse().unwrap());
        bearer_claims(&headers)
    }

    #[test]
    fn claims_of_a_bearer_token() {
        // {"alg":"none"} . {"iss":"shop","sub":"u1"}
        let token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJzaG9wIiwic3ViIjoidTEifQ.x";
        let expected = serde_json::json!({"iss": "shop", "sub": "u1"});
        assert_eq!(claims(&format!("Bearer {token}")), Some(expected.clone()));
        assert_eq!(claims(&format!("bearer  {token}")), Some(expected));
    }

    #[test]
    fn what_is_no_bearer_jwt_has_no_claims() {
        for field in [
            "Basic dTpw",
            "Bearer opaque",
            "Bearer a.b",
            "Bearer a.b.c.d",
            "Bearer a.e30=.c",
            "Bearer a.MQ.c",
            "Bearer a.A.c",
            "Bearer",
        ] {
            assert_eq!(claims(field), None, "{field}");
        }
        assert_eq!(claims(&format!("Bearer a.{}.c", "e".repeat(20_000))), None);
    }

    #[test]
    fn two_tokens_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", "Bearer a.e30.c".parse().unwrap());
        assert!(bearer_claims(&headers).is_some());
        headers.append("authorization", "Bearer a.e30.c".parse().unwrap());
        assert_eq!(bearer_claims(&headers), None);
    }

    #[test]
    fn base64url_of_every_length() {
        for (encoded, plain) in
            [("", ""), ("Zg", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYg", "foob")]
        {
            assert_eq!(base64url(encoded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64url("-_-_"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(base64url("Z"), None);
        assert_eq!(base64url("Zg=="), None);
    }
}
