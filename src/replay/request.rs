//! The request of a replay: what was stored, byte for byte, with the marks by which the app knows it for a replay.

use std::collections::BTreeMap;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

use crate::{
    config::SigningKey,
    signature::{ATTEMPT, RECEIVED_AT, REPLAY, SIGNATURE, sign},
    store::{Entry, StoredRequest},
    upstream::body_copy::WholeBody,
};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is put on every replay of a route.
#[derive(Debug)]
pub(super) struct Marks<'a> {
    /// Header that carries the request id.
    pub request_id: &'a HeaderName,
    pub set_headers: &'a BTreeMap<String, String>,
    pub signing_key: Option<&'a SigningKey>,
}

/// The stored bytes cannot be said in HTTP. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {0} cannot be sent")]
pub(super) struct Unsendable(&'static str);

/// The request of the `attempt`-th replay of an entry.
pub(super) fn request(
    entry: &Entry,
    attempt: u32,
    marks: &Marks<'_>,
) -> Result<Request<WholeBody>, Unsendable> {
    let stored = &entry.request;
    let trailers = trailers(stored)?;
    let mut request = Request::new(WholeBody { bytes: stored.body.clone(), trailers });
    *request.method_mut() =
        Method::from_bytes(stored.method.as_bytes()).map_err(|_| Unsendable("method"))?;
    *request.uri_mut() = target(&stored.target)?;
    let headers = request.headers_mut();
    *headers = stored_headers(stored)?;
    announce_trailers(headers, stored)?;
    if stored.body.is_empty() && stored.trailers.is_empty() && !BODILESS.contains(&&*stored.method)
    {
        // Some servers want a length (411) of what came with one.
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    set(headers, marks.request_id.clone(), &entry.request_id, "request id")?;
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        set(headers, IDEMPOTENCY_KEY, &entry.identity.key_text, "key")?;
    }
    for (name, value) in marks.set_headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        set(headers, name.map_err(|_| Unsendable("set_headers"))?, value, "set_headers")?;
    }
    mark(headers, entry, attempt, marks)?;
    Ok(request)
}

/// RFC 9110, 8.6: no length is expected of these.
const BODILESS: [&str; 5] = ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE"];

fn mark(
    headers: &mut HeaderMap,
    entry: &Entry,
    attempt: u32,
    marks: &Marks<'_>,
) -> Result<(), Unsendable> {
    headers.insert(REPLAY, HeaderValue::from_static("1"));
    headers.insert(ATTEMPT, HeaderValue::from(attempt));
    set(headers, RECEIVED_AT, &entry.received_at.to_string(), "time of receipt")?;
    if let Some(key) = marks.signing_key {
        // After `set_headers`: what the app gets is what is signed.
        let signature = headers.get(marks.request_id).and_then(|id| sign(key, id, headers));
        headers.insert(SIGNATURE, signature.ok_or(Unsendable("signature"))?);
    }
    Ok(())
}

/// The target as it was received; refused if it would come out differently.
fn target(stored: &str) -> Result<Uri, Unsendable> {
    let uri: Uri = stored.parse().map_err(|_| Unsendable("target"))?;
    let same = uri.path_and_query().is_some_and(|target| target.as_str() == stored);
    if same { Ok(uri) } else { Err(Unsendable("target")) }
}

/// The stored fields in their order. What belongs to one hop was not stored; should it be there, it stays behind.
fn stored_headers(stored: &StoredRequest) -> Result<HeaderMap, Unsendable> {
    let mut headers = HeaderMap::with_capacity(stored.headers.len() + 6);
    for (name, value) in &stored.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unsendable("header"))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Unsendable("header"))?;
        let false_length = name == CONTENT_LENGTH
            && value.to_str().ok().and_then(|length| length.parse().ok())
                != Some(stored.body.len());
        if !of_one_hop(&name) && !false_length && !is_mark(&name) {
            headers.append(name, value);
        }
    }
    // A request without a body has no framing of its own; hyper adds the length of any other.
    if headers.contains_key(HOST) { Ok(headers) } else { Err(Unsendable("host")) }
}

fn trailers(stored: &StoredRequest) -> Result<Option<HeaderMap>, Unsendable> {
    let mut trailers = HeaderMap::new();
    for (name, value) in &stored.trailers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unsendable("trailer"))?;
        trailers.append(name, HeaderValue::from_bytes(value).map_err(|_| Unsendable("trailer"))?);
    }
    Ok(if trailers.is_empty() { None } else { Some(trailers) })
}

/// `Trailer` belongs to the hop, but hyper sends only the trailers that it names.
fn announce_trailers(headers: &mut HeaderMap, stored: &StoredRequest) -> Result<(), Unsendable> {
    let names: Vec<&str> = stored.trailers.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    headers.remove(CONTENT_LENGTH); // it comes in chunks
    set(headers, TRAILER, &names.join(", "), "trailer")
}

fn of_one_hop(name: &HeaderName) -> bool {
    let listed = [EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name);
    let by_name = ["connection", "keep-alive", "proxy-connection", "http2-settings"];
    listed || by_name.contains(&name.as_str())
}

fn is_mark(name: &HeaderName) -> bool {
    [REPLAY, ATTEMPT, RECEIVED_AT, SIGNATURE].contains(name)
}

fn set(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: &str,
    what: &'static str,
) -> Result<(), Unsendable> {
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Unsendable(what))?;
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        store::{Certainty, Digest, Identity, KeptAnswer, Reason, Receipt, Seq, State},
        time::UnixMillis,
    };

    pub(in crate::replay) fn entry() -> Entry {
        let field = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
        Entry {
            seq: Seq(7),
            receipt: Receipt(7),
            request_id: "018f-id".into(),
            received_at: UnixMillis(1_700_000_000_123),
            route: "checkout".into(),
            upstream: "shop".into(),
            identity: Identity {
                key: Digest(1),
                key_text: "cart-1".into(),
                fingerprint: Digest(2),
                principal: String::new(),
            },
            sequence: None,
            reason: Reason::ConnectFailed,
            certainty: Certainty::NotSent,
            cause: "connection refused".into(),
            not_before: UnixMillis(0),
            expires_at: UnixMillis(i64::MAX),
            request: StoredRequest {
                method: "POST".into(),
                target: "/check%6Fut;v=1?a=%20b&&c".into(),
                headers: vec![
                    field("host", b"shop.example"),
                    field("x-b", b"2"),
                    field("x-a", b"1"),
                    field("cookie", b"a=\xff\xfe"),
                    field("x-b", b"3"),
                    field("content-length", b"9"),
                ],
                body: Bytes::from_static(b"{\"a\": 1 }"),
                trailers: Vec::new(),
                client_ip: "192.0.2.1".into(),
            },
            answer: KeptAnswer { status: 201, headers: Vec::new(), body: Bytes::new() },
            labels: Vec::new(),
            amount: 0,
            state: State::Leased,
            outcome: None,
            held: None,
            attempts: 0,
            followed_up: None,
            intact: true,
        }
    }

    fn built(entry: &Entry, set_headers: &BTreeMap<String, String>) -> Request<WholeBody> {
        let id = HeaderName::from_static("x-request-id");
        let marks = Marks { request_id: &id, set_headers, signing_key: None };
        request(entry, 3, &marks).unwrap()
    }

    fn fields(request: &Request<WholeBody>) -> Vec<(&str, &[u8])> {
        request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn bytes_are_those_that_were_stored() {
        let entry = entry();
        let request = built(&entry, &BTreeMap::new());
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), entry.request.target);
        let added = fields(&request);
        assert_eq!(
            added[..6],
            [
                ("host", b"shop.example".as_slice()),
                ("x-b", b"2"),
                ("x-b", b"3"),
                ("x-a", b"1"),
                ("cookie", b"a=\xff\xfe"),
                ("content-length", b"9"),
            ]
        );
        assert_eq!(
            added[6..],
            [
                ("x-request-id", b"018f-id".as_slice()),
                ("idempotency-key", b"cart-1"),
                ("standin-replay", b"1"),
                ("standin-attempt", b"3"),
                ("standin-received-at", b"2023-11-14T22:13:20.123Z"),
            ]
        );
        assert_eq!(request.body().bytes, entry.request.body);
        assert!(request.body().trailers.is_none());
    }

    #[test]
    fn trailers_are_announced() {
        let mut entry = entry();
        entry.request.trailers = vec![("x-sum".to_owned(), Bytes::from_static(b"7"))];
        let request = built(&entry, &BTreeMap::new());
        assert_eq!(request.headers()[TRAILER], "x-sum");
        assert!(!request.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(request.body().trailers.as_ref().unwrap()["x-sum"], "7");
    }

    #[test]
    fn the_clients_key_stays_and_one_id_is_sent() {
        let mut entry = entry();
        let own = ("idempotency-key".to_owned(), Bytes::from_static(b"\"mine\""));
        let other = ("x-request-id".to_owned(), Bytes::from_static(b"other"));
        entry.request.headers.extend([own, other.clone(), other]);
        let request = built(&entry, &BTreeMap::new());
        assert_eq!(request.headers()[IDEMPOTENCY_KEY], "\"mine\"");
        let ids: Vec<_> = request.headers().get_all("x-request-id").iter().collect();
        assert_eq!(ids, ["018f-id"]);
    }

    #[test]
    fn set_headers_replace_all_of_that_name() {
        let headers = BTreeMap::from([("X-B".to_owned(), "service".to_owned())]);
        let entry = entry();
        let request = built(&entry, &headers);
        let values: Vec<_> = request.headers().get_all("x-b").iter().collect();
        assert_eq!(values, ["service"]);
    }

    #[test]
    fn what_belongs_to_one_hop_and_false_marks_stay_behind() {
        let mut entry = entry();
        for name in ["transfer-encoding", "connection", "expect", "upgrade", "standin-signature"] {
            entry.request.headers.push((name.to_owned(), Bytes::from_static(b"x")));
        }
        entry.request.headers[5].1 = Bytes::from_static(b"999");
        let request = built(&entry, &BTreeMap::new());
        for name in ["transfer-encoding", "connection", "expect", "upgrade", "standin-signature"] {
            assert!(!request.headers().contains_key(name), "{name}");
        }
        assert!(!request.headers().contains_key(CONTENT_LENGTH), "it was false");
    }

    #[test]
    fn what_cannot_be_said_in_http_is_not_sent() {
        let refused = |change: fn(&mut Entry)| {
            let mut entry = entry();
            change(&mut entry);
            let id = HeaderName::from_static("x-request-id");
            let marks = Marks { request_id: &id, set_headers: &BTreeMap::new(), signing_key: None };
            request(&entry, 1, &marks).unwrap_err().0
        };
        assert_eq!(refused(|entry| entry.request.method = "P OST".into()), "method");
        assert_eq!(refused(|entry| entry.request.target = "/a b".into()), "target");
        assert_eq!(refused(|entry| entry.request.target = "/a#fragment".into()), "target");
        assert_eq!(refused(|entry| entry.identity.key_text = "a\nb".into()), "key");
        assert_eq!(refused(|entry| entry.request.headers.clear()), "host");
    }

    #[test]
    fn with_a_key_it_is_signed() {
        let (id, key) = (HeaderName::from_static("x-request-id"), SigningKey("secret".into()));
        let marks =
            Marks { request_id: &id, set_headers: &BTreeMap::new(), signing_key: Some(&key) };
        let request = request(&entry(), 2, &marks).unwrap();
        assert!(crate::signature::is_genuine(&key, &id, request.headers()));
    }
}
