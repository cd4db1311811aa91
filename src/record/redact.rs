//! What must not be kept of an exchange: credentials, cookies and card data. Pure.
//!
//! Broad on purpose: what cannot be looked into, or is not there whole, is left out and said to be.

mod known;

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

pub(super) use self::known::Known;
use super::LARGEST_BODY;
use crate::{
    body::{BodyKind, Json, ReadBody, read_request},
    stand_in::secrets::carries_card_data,
};

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

/// Of a request; with its credentials, which no answer may show again.
pub(super) fn request(
    target: &Uri,
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> (Redacted, Known) {
    let mut secrets = Known::of(headers, target.query());
    let whole = target.path_and_query().map_or("/", |target| target.as_str());
    let raw = body.map_or(&[][..], |body| body);
    if has_card_data(headers, raw, whole) {
        let body = Noted::Left("there was card data");
        return (Redacted { body, ..Redacted::default() }, secrets);
    }
    let query: Vec<String> = target.query().map_or_else(Vec::new, |query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}={NOT_KEPT}"),
            // It may be a value without a name.
            None => NOT_KEPT.to_owned(),
        });
        pairs.collect()
    });
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let body = match body {
        None => Noted::Left("it was not there whole"),
        Some(body) => {
            if let Ok(value) = serde_json::from_slice::<Value>(body) {
                secrets.add_json(&value, false);
            } else if let Ok(text) = std::str::from_utf8(body) {
                secrets.add_form(text);
            }
            noted(headers, body, None)
        }
    };
    (
        Redacted { target: format!("{}{query}", target.path()), headers: fields(headers), body },
        secrets,
    )
}

/// Of an answer to a request with these secrets.
pub(super) fn answer(headers: &HeaderMap, body: Option<&[u8]>, secrets: &Known) -> Redacted {
    let raw = body.unwrap_or_default();
    if has_card_data(headers, raw, "") {
        let body = Noted::Left("there was card data");
        return Redacted { body, ..Redacted::default() };
    }
    let body = match body {
        None => Noted::Left("it was not read whole"),
        Some(body) => noted(headers, body, Some(secrets)),
    };
    let mut headers = fields(headers);
    for (_, value) in headers.iter_mut().filter(|(_, value)| secrets.is_in(value)) {
        NOT_KEPT.clone_into(value);
    }
    Redacted { target: String::new(), headers, body }
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

/// `secrets`: those of the request that it answers; none of a request.
fn noted(headers: &HeaderMap, raw: &[u8], secrets: Option<&Known>) -> Noted {
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
    let (shown, said) = if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        let mut said = String::new();
        json(&mut value, &mut said);
        (value.to_string(), said)
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        (form(text), text.to_owned())
    } else if secrets.is_some() && (kind.starts_with("text/") || kind.contains("problem")) {
        let shown = lines(text);
        (shown.clone(), shown)
    } else {
        return Noted::Left("it cannot be looked into");
    };
    if is_card_in_groups(&said) {
        return Noted::Left("there was card data");
    }
    if secrets.is_some_and(|secrets| secrets.is_in(&said)) {
        return Noted::Left("it shows a credential of the request");
    }
    Noted::Kept(shown)
}

/// Whatever stands between the groups of a number: line ends, tabs, dots.
fn is_card_in_groups(said: &str) -> bool {
    let groups = said.split(|letter: char| letter.is_whitespace() || ".-_/".contains(letter));
    let said = groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(" ");
    let opaque = ReadBody { json: Json::Null, kind: BodyKind::Opaque };
    carries_card_data(&opaque, said.as_bytes(), &HeaderMap::new(), "").is_some()
}

/// `said`: all texts that stay, as they are meant.
fn json(value: &mut Value, said: &mut String) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| json(value, said)),
        Value::Object(fields) => {
            let names_one = NAMES
                .iter()
                .any(|name| fields.get(*name).and_then(Value::as_str).is_some_and(is_credential));
            for (name, value) in fields {
                said.push_str(name);
                said.push('|');
                if is_credential(name) || (names_one && !NAMES.contains(&&**name)) {
                    *value = Value::String(NOT_KEPT.to_owned());
                } else {
                    json(value, said);
                }
            }
        }
        Value::String(text) => {
            // JSON within JSON.
            if text.trim_start().starts_with(['{', '['])
                && let Ok(mut within) = serde_json::from_str::<Value>(text)
            {
                json(&mut within, said);
                *text = within.to_string();
            }
            said.push_str(text);
            said.push('|');
        }
        Value::Number(number) => _ = write!(said, "{number}|"),
        Value::Null | Value::Bool(_) => {}
    }
}

/// A text line by line, without what stands behind the name of a credential: `SECRET_KEY = …`, `Cookie: …`.
fn lines(text: &str) -> String {
    let kept = text.split_inclusive('\n').map(|line| {
        let mut ends = line.match_indices([':', '=']).map(|(at, _)| at);
        let end = ends.find(|&at| {
            let before = line[..at].trim_end_matches([' ', '\t', '"', '\'', ']', ')']);
            let from = before
                .rfind(|letter: char| !letter.is_ascii_alphanumeric() && !"_-".contains(letter))
                .map_or(0, |at| at + 1);
            before.get(from..).is_some_and(is_credential)
        });
        match end {
            Some(end) => format!("{} {NOT_KEPT}\n", &line[..=end]),
            None => line.to_owned(),
        }
    });
    kept.collect()
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
                Ok(value) if !is_secret(name) && !has_query(value) => value,
                _ => NOT_KEPT,
            };
            (name.as_str().to_owned(), value.to_owned())
        })
        .collect()
}

/// The query of an address may name anything.
fn has_query(value: &str) -> bool {
    value.contains('?') && value.contains('=')
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

/// Fields that give a name to the value beside them.
const NAMES: [&str; 4] = ["name", "key", "field", "param"];
const WORDS: [&str; 18] = [
    "auth",
    "bearer",
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
    "passcode",
    "otpcode",
    "securitycode",
    "csrf",
];
const EXACT: [&str; 13] =
    ["pin", "pass", "otp", "totp", "mfa", "cvv", "cvc", "cvv2", "cvc2", "csc", "sid", "jwt", "key"];

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
        let set = answer(
            &headers(&[("set-cookie", "a=b"), ("location", "/x?t=1")]),
            Some(b""),
            &Known::default(),
        );
        assert!(set.headers.iter().all(|(_, value)| value == NOT_KEPT));
    }

    #[test]
    fn of_what_has_card_data_nothing_is_kept() {
        let card = kept(r#"{"card":"4111111111111111"}"#, &[JSON]);
        assert_eq!(card, Noted::Left("there was card data"));
        let target = Uri::from_static("/pay/4111111111111111?n=1");
        let (request, _) = request(&target, &headers(&[("accept", "*/*")]), None);
        assert!(request.target.is_empty() && request.headers.is_empty());
        let said =
            answer(&headers(&[]), Some(b"card 4111 1111 1111 1111 declined"), &Known::default());
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
        let text = answer(
            &headers(&[("content-type", "text/html")]),
            Some(b"<h1>500</h1>"),
            &Known::default(),
        );
        assert_eq!(text.body, Noted::Kept("<h1>500</h1>".into()));
    }
    #[test]
    fn what_hides_in_other_shapes_is_not_kept_either() {
        let body = r#"{"payload":"{\"password\":\"p-1\",\"a\":1}","fields":[{"name":"Secret","value":"s-1"},
            {"name":"size","value":"38"}],"passcode":"c-1"}"#;
        let Noted::Kept(shown) = kept(body, &[JSON]) else { panic!() };
        for secret in ["p-1", "s-1", "c-1"] {
            assert!(!shown.contains(secret), "{secret} is in {shown}");
        }
        assert!(shown.contains("38") && shown.contains(r#"\"a\":1"#), "{shown}");
        let bare = Uri::from_static("/download?c-12345678&x=1");
        let (request, _) = request(&bare, &headers(&[("x-original-url", "/a?b=c-1")]), None);
        assert_eq!(request.target, "/download?(not kept)&x=(not kept)");
        assert_eq!(request.headers[0].1, NOT_KEPT);
        let page = "<h1>KeyError</h1>\nSECRET_KEY = 'k-1'\n  \"api_key\": \"k-2\",\nCookie: k-3\nstep: 7\n";
        let text = answer(
            &headers(&[("content-type", "text/html")]),
            Some(page.as_bytes()),
            &Known::default(),
        );
        let Noted::Kept(text) = text.body else { panic!() };
        assert!(!text.contains("k-"), "{text}");
        assert!(text.contains("KeyError") && text.contains("step: 7"), "{text}");
    }

    #[test]
    fn card_data_is_found_in_lines_and_behind_escapes() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let left = Noted::Left("there was card data");
        assert_eq!(kept("n=%34111+1111-1111%201111", &form), left);
        assert_eq!(kept(r#"{"p":"{\"n\":\"4111111111111111\"}"}"#, &[JSON]), left);
        assert_eq!(kept(r#"{"n":"4111\n1111\n1111\n1111"}"#, &[JSON]), left);
        let lines = answer(
            &headers(&[("content-type", "text/plain")]),
            Some(b"4111\r\n1111\r\n1111\r\n1111"),
            &Known::default(),
        );
        assert_eq!(lines.body, left);
        let target = Uri::from_static("/pay/%34%31%31%31111111111111");
        assert!(request(&target, &headers(&[]), None).0.target.is_empty());
    }

    #[test]
    fn what_an_answer_repeats_of_the_request_is_not_kept() {
        let body = Bytes::from_static(br#"{"user":"anna","password":"hunter2!"}"#);
        let (_, known) = request(&Uri::from_static("/"), &headers(&[JSON]), Some(&body));
        let said = answer(
            &headers(&[JSON, ("x-why", "hunter2!")]),
            Some(br#"{"e":"hunter\u0032! is wrong"}"#),
            &known,
        );
        assert_eq!(said.body, Noted::Left("it shows a credential of the request"));
        assert_eq!(said.headers[1].1, NOT_KEPT);
    }
}
