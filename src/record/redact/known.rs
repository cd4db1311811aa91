//! The secrets of one request, as far as they are known by their names: no answer may show them again, however they are
//! spelled there. Letters and digits count; what stands between them (escapes, line ends, hyphens) does not. Pure.

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode;
use serde_json::Value;

use super::{is_credential, is_secret};
use crate::admin::base64;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in crate::record) struct Known(Vec<Vec<u8>>);

/// Shorter ones cannot be told from other words.
const SHORTEST: usize = 6;
/// Of a header: its parts are words of many kinds.
const SHORTEST_PART: usize = 8;
const MOST: usize = 200;

impl Known {
    /// The values of credentials, whole and in their parts.
    pub(super) fn of(headers: &HeaderMap, query: Option<&str>) -> Self {
        let mut known = Self::default();
        for (_, value) in headers.iter().filter(|(name, _)| is_secret(name)) {
            for part in value.as_bytes().split(|byte| matches!(byte, b' ' | b';' | b',' | b'=')) {
                known.add(part, SHORTEST_PART);
            }
        }
        headers.get_all(header::AUTHORIZATION).iter().for_each(|value| known.add_basic(value));
        query.into_iter().for_each(|query| known.add_form(query));
        known
    }

    /// Those of a body that was read.
    pub(super) fn add_json(&mut self, value: &Value, is_secret: bool) {
        match value {
            Value::Array(list) => list.iter().for_each(|value| self.add_json(value, is_secret)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.add_json(value, is_secret || is_credential(name));
                }
            }
            Value::String(text) if is_secret => self.add(text.as_bytes(), SHORTEST),
            Value::Number(number) if is_secret => {
                self.add(number.to_string().as_bytes(), SHORTEST);
            }
            _ => {}
        }
    }

    pub(super) fn add_form(&mut self, text: &str) {
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let name: Vec<u8> = percent_decode(name.as_bytes()).collect();
            if is_credential(&String::from_utf8_lossy(&name)) {
                self.add(value.as_bytes(), SHORTEST);
            }
        }
    }

    /// Whether a text shows one of them.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let decoded: Vec<u8> = percent_decode(text.as_bytes()).collect();
        let texts = [plain(text.as_bytes()), plain(&decoded)];
        self.0.iter().any(|secret| texts.iter().any(|text| contains(text, secret)))
    }

    /// As it is written, and as it is meant.
    fn add(&mut self, secret: &[u8], shortest: usize) {
        let decoded: Vec<u8> = percent_decode(secret).collect();
        for secret in [plain(secret), plain(&decoded)] {
            if secret.len() >= shortest && self.0.len() < MOST && !self.0.contains(&secret) {
                self.0.push(secret);
            }
        }
    }

    /// `Basic` is no secret in itself, but what it spells is.
    fn add_basic(&mut self, value: &HeaderValue) {
        let Some((scheme, text)) = value.to_str().ok().and_then(|value| value.split_once(' '))
        else {
            return;
        };
        if scheme.eq_ignore_ascii_case("basic")
            && let Some(spelled) = base64::decode(text.trim())
            && let Some(colon) = spelled.iter().position(|&byte| byte == b':')
        {
            self.add(&spelled[colon + 1..], SHORTEST);
        }
    }
}

fn plain(text: &[u8]) -> Vec<u8> {
    text.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_again_however_it_is_spelled() {
        let headers: HeaderMap = [
            ("authorization", "Basic YW5uYTpvcGVuLVNlc2FtZQ=="),
            ("cookie", "sid=abcd%2F12%2B345; theme=dark"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect();
        let mut known = Known::of(&headers, Some("page=2&access_token=t-9876543&x=y"));
        known.add_json(&serde_json::json!({ "name": "annabel", "pin": [ 481_516 ] }), false);
        known.add_form("pass%77ord=sw0rdf1sh&b=unnoticed");
        for shown in [
            "wrong password 'open-sesame' for anna",
            "open-\n  Sesame",
            "c2lkPQ== abcd/12+345",
            "%61bcd%2F12%2B345",
            "token t_9876543 is too old",
            "pin 481516",
            "SW0RDF1SH",
            "YW5uYTpv\r\ncGVuLVNlc2FtZQ==",
        ] {
            assert!(known.is_in(shown), "{shown}");
        }
        for other in ["annabel is not known, nor is anna", "dark", "unnoticed", ""] {
            assert!(!known.is_in(other), "{other}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut known = Known::default();
        let many: Vec<String> = (0..1000).map(|number| format!("secret-{number:09}")).collect();
        known.add_json(&serde_json::json!({ "token": many }), false);
        assert_eq!(known.0.len(), MOST);
    }
}
