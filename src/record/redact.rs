//! What must not be kept of an exchange: credentials, cookies and card data. Pure.
//!
//! Broad on purpose: what cannot be looked into, or is not there whole, is left out and said to be.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::LARGEST_BODY;
use crate::stand_in::{body::read_request, secrets::carries_card_data};

/// A message without what must not be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redacted {
    /// Of a request: its path, and the names in its query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Noted,
}

/// A body, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    Kept(String),
    Left(&'static str),
}

/// Stands for what was left out.
const NOT_KEPT: &str = "(not kept)";

impl Default for Noted {
    fn default() -> Self {
        Self::Left("none")
    }
}

impl Redacted {
    pub(super) fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        let body = match &self.body {
            Noted::Kept(text) => text.len(),
            Noted::Left(_) => 0,
        };
        self.target.len() + headers + body
    }
}

/// Of a request; with the values of its credentials, which no answer may show again.
pub(super) fn request(
    target: &Uri,
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> (Redacted, Vec<Vec<u8>>) {
    let secrets = secrets(headers);
    let whole = target.path_and_query().map_or("/", |target| target.as_str());
    let raw = body.map_or(&[][..], |body| body);
    if has_card_data(headers, raw, whole) {
        let body = Noted::Left("there was card data");
        return (Redacted { body, ..Redacted::default() }, secrets);
    }
    let query: Vec<String> = target.query().map_or_else(Vec::new, |query| {
        let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
        names.map(|name| format!("{name}={NOT_KEPT}")).collect()
    });
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let body = match body {
        None => Noted::Left("it was not there whole"),
        Some(body) => noted(headers, body, false, &secrets),
    };
    (
        Redacted { target: format!("{}{query}", target.path()), headers: fields(headers), body },
        secrets,
    )
}

/// Of an answer to a request with these secrets.
pub(super) fn answer(headers: &HeaderMap, body: Option<&[u8]>, secrets: &[Vec<u8>]) -> Redacted {
    let raw = body.unwrap_or_default();
    if has_card_data(headers, raw, "") {
        let body = Noted::Left("there was card data");
        return Redacted { body, ..Redacted::default() };
    }
    let body = match body {
        None => Noted::Left("it was not read whole"),
        Some(body) => noted(headers, body, true, secrets),
    };
    Redacted { target: String::new(), headers: fields(headers), body }
}

fn has_card_data(headers: &HeaderMap, raw: &[u8], target: &str) -> bool {
    match read_request(headers, raw) {
        Ok(read) => carries_card_data(&read, raw, headers, target).is_some(),
        // It cannot be read as what it says: its bytes are left out below, too.
        Err(_) => match read_request(headers, &[]) {
            Ok(read) => carries_card_data(&read, &[], headers, target).is_some(),
            Err(_) => true,
        },
    }
}

fn noted(headers: &HeaderMap, raw: &[u8], is_answer: bool, secrets: &[Vec<u8>]) -> Noted {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if raw.is_empty() {
        return Noted::Left("it is empty");
    }
    if raw.len() > LARGEST_BODY {
        return Noted::Left("it is too large");
    }
    if headers.contains_key(header::CONTENT_ENCODING) || read_request(headers, raw).is_err() {
        return Noted::Left("it cannot be looked into");
    }
    let Ok(text) = std::str::from_utf8(raw) else { return Noted::Left("it is no text") };
    let shown = if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        json(&mut value);
        value.to_string()
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        form(text)
    } else if is_answer && (kind.starts_with("text/") || kind.contains("problem")) {
        text.to_owned()
    } else {
        return Noted::Left("it cannot be looked into");
    };
    if secrets.iter().any(|secret| contains(shown.as_bytes(), secret)) {
        return Noted::Left("it shows a credential of the request");
    }
    Noted::Kept(shown)
}

fn json(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(json),
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_credential(name) {
                    *value = Value::String(NOT_KEPT.to_owned());
                } else {
                    json(value);
                }
            }
        }
        _ => {}
    }
}

fn form(text: &str) -> String {
    let pairs = text.split('&').map(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let decoded = percent_decode_str(name).decode_utf8_lossy();
        if is_credential(&decoded) { format!("{name}={NOT_KEPT}") } else { pair.to_owned() }
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = match value.to_str() {
                Ok(value) if !is_secret(name) => value,
                _ => NOT_KEPT,
            };
            (name.as_str().to_owned(), value.to_owned())
        })
        .collect()
}

/// The values of credentials, whole and in their parts, as far as they are long enough to be told apart.
fn secrets(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let secret = headers.iter().filter(|(name, _)| is_secret(name));
    let parts = secret.flat_map(|(_, value)| {
        value.as_bytes().split(|byte| matches!(byte, b' ' | b';' | b',' | b'='))
    });
    parts.filter(|part| part.len() >= 8).map(<[u8]>::to_vec).collect()
}

fn is_secret(name: &HeaderName) -> bool {
    is_credential(name.as_str()) || *name == header::REFERER || *name == header::LOCATION
}

/// A name that is given to something secret: of a header, a field or a parameter.
fn is_credential(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    WORDS.iter().any(|word| plain.contains(word)) || EXACT.contains(&&*plain)
}

const WORDS: [&str; 16] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "pwd",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "session",
    "signature",
    "passphrase",
    "otpcode",
    "securitycode",
    "csrf",
];
const EXACT: [&str; 8] = ["pin", "otp", "cvv", "cvc", "csc", "sid", "jwt", "key"];

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn kept(body: &'static str, all: &[(&'static str, &'static str)]) -> Noted {
        request(&Uri::from_static("/a"), &headers(all), Some(&Bytes::from(body))).0.body
    }

    #[test]
    fn credentials_and_cookies_are_not_kept() {
        let all = headers(&[
            JSON,
            ("authorization", "Bearer abcdefgh"),
            ("cookie", "sid=12345678"),
            ("x-api-key", "k-12345678"),
            ("x-session-id", "s-12345678"),
            ("referer", "https://a/?token=t-12345678"),
            ("accept", "*/*"),
        ]);
        let body =
            Bytes::from(r#"{"user":"ann","Pass-Word":"p-1","deep":[{"access_token":{"a":1}}]}"#);
        let target = Uri::from_static("/reset?code=c-12345678&x=1");
        let (request, secrets) = super::request(&target, &all, Some(&body));
        assert_eq!(request.target, "/reset?code=(not kept)&x=(not kept)");
        let text = format!("{request:?}");
        for secret in ["abcdefgh", "12345678", "p-1", "\"a\":1", "{\\\"a\\\""] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        assert!(text.contains("ann") && text.contains("*/*"), "{text}");
        let echo =
            answer(&headers(&[("content-type", "text/plain")]), Some(b"no: abcdefgh"), &secrets);
        assert_eq!(echo.body, Noted::Left("it shows a credential of the request"));
        let set =
            answer(&headers(&[("set-cookie", "a=b"), ("location", "/x?t=1")]), Some(b""), &[]);
        assert!(set.headers.iter().all(|(_, value)| value == NOT_KEPT));
    }

    #[test]
    fn of_what_has_card_data_nothing_is_kept() {
        let card = kept(r#"{"card":"4111111111111111"}"#, &[JSON]);
        assert_eq!(card, Noted::Left("there was card data"));
        let target = Uri::from_static("/pay/4111111111111111?n=1");
        let (request, _) = request(&target, &headers(&[("accept", "*/*")]), None);
        assert!(request.target.is_empty() && request.headers.is_empty());
        let said = answer(&headers(&[]), Some(b"card 4111 1111 1111 1111 declined"), &[]);
        assert_eq!(said.body, Noted::Left("there was card data"));
    }

    #[test]
    fn what_cannot_be_looked_into_is_not_kept() {
        let unseen = Noted::Left("it cannot be looked into");
        assert_eq!(kept("<a>1</a>", &[("content-type", "application/xml")]), unseen);
        assert_eq!(kept("{", &[JSON]), unseen);
        assert_eq!(kept("{}", &[JSON, ("content-encoding", "gzip")]), unseen);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(
            kept("a=1&pass%77ord=2", &form),
            Noted::Kept("a=1&pass%77ord=(not kept)".into())
        );
        let long = Bytes::from(format!("\"{}\"", "x".repeat(LARGEST_BODY)));
        let (request, _) = request(&Uri::from_static("/"), &headers(&[JSON]), Some(&long));
        assert_eq!(request.body, Noted::Left("it is too large"));
        let text = answer(&headers(&[("content-type", "text/html")]), Some(b"<h1>500</h1>"), &[]);
        assert_eq!(text.body, Noted::Kept("<h1>500</h1>".into()));
    }
}
