//! Removes what belongs to one hop (RFC 9110 7.6.1), in both directions, trailers too. Stand before the filters that add
//! fields of their own: what they add later cannot be nominated away by a client.

mod names;
mod trailers;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::names::{is_for_all_recipients, is_for_one_hop};
pub use self::trailers::Trailers;

/// Set on a request that asked, in a valid way, to become a WebSocket. The fields that asked are removed like all of
/// their kind: who allows the upgrade puts them back with [`WantsUpgrade::ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantsUpgrade;

impl WantsUpgrade {
    /// Asks the next hop for the upgrade.
    pub fn ask(self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
    }
}

/// Set on a request that asks for more than an answer, and is not heard: the field that asked ends here, and who answers in
/// another's stead had better not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InVain {
    /// For another protocol than WebSocket, or in a way that is not valid.
    Upgrade,
    /// Something else than `100-continue` (RFC 9110, 10.1.1).
    Expectation,
}

impl InVain {
    fn asked(headers: &HeaderMap) -> Option<Self> {
        let known = |value: &HeaderValue| {
            value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue")
        };
        if headers.contains_key(header::UPGRADE) {
            return Some(Self::Upgrade);
        }
        headers
            .get_all(header::EXPECT)
            .iter()
            .any(|value| !known(value))
            .then_some(Self::Expectation)
    }
}

/// Set on a request whose client takes trailers. Its own field ends here like all of its kind: who passes trailers on asks
/// for them anew with [`WantsTrailers::ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantsTrailers;

impl WantsTrailers {
    /// Asks the next hop for trailers (RFC 9110 10.1.4: the connection option goes with the field).
    pub fn ask(self, headers: &mut HeaderMap) {
        headers.insert(header::TE, TRAILERS);
        headers.insert(header::CONNECTION, TE);
    }
}

#[derive(Clone, Debug)]
pub struct ConnectionHeadersLayer {
    request_id: Arc<HeaderName>,
}

impl ConnectionHeadersLayer {
    /// `request_id` is the field that carries the request id: no trailer may set it, no nomination remove it.
    pub fn new(request_id: HeaderName) -> Self {
        Self { request_id: Arc::new(request_id) }
    }
}

impl<S> Layer<S> for ConnectionHeadersLayer {
    type Service = ConnectionHeaders<S>;

    fn layer(&self, inner: S) -> ConnectionHeaders<S> {
        ConnectionHeaders { inner, request_id: Arc::clone(&self.request_id) }
    }
}

#[derive(Clone, Debug)]
pub struct ConnectionHeaders<S> {
    inner: S,
    request_id: Arc<HeaderName>,
}

impl<S, B, RB> Service<Request<B>> for ConnectionHeaders<S>
where
    S: Service<Request<Trailers<B>>, Response = Response<RB>>,
{
    type Response = Response<Trailers<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let concerned = has_any(request.headers(), belongs_to_clients_hop);
        let wants_upgrade = concerned && wants_upgrade(&request);
        if wants_upgrade {
            request.extensions_mut().insert(WantsUpgrade);
        } else if concerned && wants_trailers(&request) {
            request.extensions_mut().insert(WantsTrailers);
        }
        if concerned
            && !wants_upgrade
            && let Some(in_vain) = InVain::asked(request.headers())
        {
            request.extensions_mut().insert(in_vain);
        }
        if concerned {
            clean_request(request.headers_mut(), &self.request_id);
        }
        let request_id = Arc::clone(&self.request_id);
        let request =
            request.map(|inner| Trailers { inner, request_id: Some(Arc::clone(&request_id)) });
        ResponseFuture { future: self.inner.call(request), wants_upgrade, request_id }
    }
}

pin_project! {
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        wants_upgrade: bool,
        request_id: Arc<HeaderName>,
    }
}

impl<F, E, RB> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
{
    type Output = Result<Response<Trailers<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS && *this.wants_upgrade;
        clean_response(response.headers_mut(), this.request_id, switches);
        let request_id = Some(Arc::clone(this.request_id));
        Poll::Ready(Ok(response.map(|inner| Trailers { inner, request_id })))
    }
}

/// RFC 6455 4.1, RFC 9110 7.8: HTTP/1.1, GET, no body, `Connection` names `upgrade`, `Upgrade` is `websocket` and nothing
/// else. Anything else that asks for an upgrade (h2c above all) asks in vain.
fn wants_upgrade<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let Some(protocol) = protocols.next() else { return false };
    protocols.next().is_none()
        && protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
        && request.version() == Version::HTTP_11
        && *request.method() == Method::GET
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// RFC 9110 10.1.4: over HTTP/1.1 the field counts only where `Connection` names it; one that came past a hop that does not
/// know it says nothing about this one. HTTP/2 has no `Connection` (RFC 9113 8.2.2).
fn wants_trailers<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let mut codings = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        && (request.version() == Version::HTTP_2
            || connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"te")))
}

fn clean_request(headers: &mut HeaderMap, request_id: &HeaderName) {
    remove_nominated(headers, request_id);
    remove_all(headers, belongs_to_clients_hop);
}

/// One look at all names: most messages have none of those that matter here.
fn has_any(headers: &HeaderMap, matters: impl Fn(&str) -> bool) -> bool {
    headers.keys().any(|name| matters(name.as_str()))
}

fn belongs_to_clients_hop(name: &str) -> bool {
    is_for_one_hop(name) || name == "expect"
}

/// `Transfer-Encoding` goes as well: it is set anew for the client's connection, and not every client knows it.
fn clean_response(headers: &mut HeaderMap, request_id: &HeaderName, switches: bool) {
    let found = Found::in_answer(headers);
    if found.hop {
        remove_nominated(headers, request_id);
    }
    // RFC 9112 6.3: with Transfer-Encoding the length field says nothing true.
    if found.coded {
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
    } else if found.unclear_length {
        collapse_content_length(headers);
    }
    if found.hop {
        let protocol = if switches { headers.remove(header::UPGRADE) } else { None };
        remove_all(headers, is_for_one_hop);
        if let Some(protocol) = protocol {
            headers.insert(header::CONNECTION, UPGRADE);
            headers.insert(header::UPGRADE, protocol);
        }
    }
}

/// What of an answer has to be changed, found in one pass: most answers are as they should be.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    hop: bool,
    coded: bool,
    /// Lengths in a list, or in several fields.
    unclear_length: bool,
}

impl Found {
    fn in_answer(headers: &HeaderMap) -> Self {
        let (mut found, mut has_length) = (Self::default(), false);
        for (name, value) in headers {
            match *name {
                header::CONTENT_LENGTH => {
                    found.unclear_length |= has_length || value.as_bytes().contains(&b',');
                    has_length = true;
                }
                header::TRANSFER_ENCODING => found.coded = true,
                _ => found.hop |= is_for_one_hop(name.as_str()),
            }
        }
        found
    }
}

/// RFC 9110 8.6: `5, 5` and two fields of `5` become one. Lengths that differ become none.
fn collapse_content_length(headers: &mut HeaderMap) {
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii);
    let one = lengths.next().unwrap_or_default();
    let agreed = lengths.all(|length| length == one) && one.iter().all(u8::is_ascii_digit);
    match HeaderValue::from_bytes(one) {
        Ok(length) if agreed && !length.is_empty() => {
            headers.insert(header::CONTENT_LENGTH, length);
        }
        _ => {
            headers.remove(header::CONTENT_LENGTH);
        }
    }
}

/// Removes what `Connection` nominates, except what is meant for all recipients (RFC 9110 7.6.1: never to be nominated):
/// else a client could take the id or the credentials off its request after they were checked.
fn remove_nominated(headers: &mut HeaderMap, request_id: &HeaderName) {
    let nominated: Vec<HeaderName> = connection_options(headers)
        .filter(|option| !is_plain_option(option))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| name != request_id && !is_for_all_recipients(name.as_str()))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Options that nominate nothing, or a field that is removed anyway.
fn is_plain_option(option: &[u8]) -> bool {
    const PLAIN: [&[u8]; 6] = [b"keep-alive", b"close", b"upgrade", b"te", b"http2-settings", b""];
    PLAIN.iter().any(|plain| option.eq_ignore_ascii_case(plain))
}

fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    // Removing one may find no second: most requests have `Connection` or nothing.
    while let Some(name) = headers.keys().find(|name| is_unwanted(name.as_str())).cloned() {
        headers.remove(name);
    }
}

const TE: HeaderValue = HeaderValue::from_static("te");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::{Body, Frame};
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::testing::{Inner, ok, only};

    const ID: HeaderName = HeaderName::from_static("x-request-id");

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_of_one_hop_go_and_the_rest_stays() {
        let mut fields = headers(&[
            ("host", "a"),
            ("connection", "keep-alive, X-Own, TE"),
            ("connection", "x-second"),
            ("x-own", "1"),
            ("x-own", "2"),
            ("x-second", "1"),
            ("x-kept", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("proxy-authorization", "Basic eA=="),
            ("expect", "100-continue"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
        ]);
        clean_request(&mut fields, &ID);
        assert_eq!(names(&fields), ["host", "trailer", "transfer-encoding", "x-kept"]);
    }

    #[test]
    fn what_is_for_all_cannot_be_nominated() {
        let kept = [
            ("authorization", "Bearer x"),
            ("content-length", "1"),
            ("cookie", "a=b"),
            ("host", "a"),
            ("idempotency-key", "k"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-request-id", "i"),
        ];
        let mut fields = headers(&kept);
        let nominated = kept.map(|(name, _)| name.to_uppercase()).join(" ,, ");
        fields.insert("connection", nominated.parse().unwrap());
        clean_request(&mut fields, &ID);
        assert_eq!(names(&fields), kept.map(|(name, _)| name));
    }

    #[test]
    fn odd_nominations_do_no_harm() {
        let mut fields = headers(&[("connection", "\"x\", , ;, a b"), ("x", "1")]);
        clean_request(&mut fields, &ID);
        assert_eq!(names(&fields), ["x"]);
    }

    #[test]
    fn lengths_of_answers() {
        for (fields, expected) in [
            (&[("content-length", "5")][..], Some("5")),
            (&[("content-length", "5, 5")], Some("5")),
            (&[("content-length", "5"), ("content-length", "5")], Some("5")),
            (&[("content-length", "5, 6")], None),
            (&[("content-length", ",")], None),
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], None),
        ] {
            let mut fields = headers(fields);
            clean_response(&mut fields, &ID, false);
            assert_eq!(fields.get("content-length").map(|value| value.to_str().unwrap()), expected);
            assert!(!fields.contains_key("transfer-encoding"));
        }
    }

    #[test]
    fn trailers_are_wanted_where_the_field_is_meant_for_this_hop() {
        for (fields, http1, http2) in [
            (&[("te", "trailers"), ("connection", "TE")][..], true, true),
            (&[("te", "gzip;q=0.5, Trailers"), ("connection", "x, te")], true, true),
            (&[("te", "gzip"), ("te", "trailers"), ("connection", "te")], true, true),
            (&[("te", "trailers")], false, true),
            (&[("te", "gzip"), ("connection", "te")], false, false),
            (&[("connection", "te")], false, false),
        ] {
            let mut request = upgrade(fields);
            assert_eq!(wants_trailers(&request), http1, "{fields:?}");
            *request.version_mut() = Version::HTTP_2;
            assert_eq!(wants_trailers(&request), http2, "{fields:?}");
        }
    }

    fn upgrade(fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.headers_mut() = headers(fields);
        request
    }

    #[tokio::test]
    async fn a_websocket_leaves_a_mark_and_no_fields() {
        let seen = |request: Request<Trailers<Full<Bytes>>>| {
            assert!(!request.headers().contains_key("upgrade"));
            assert!(!request.headers().contains_key("connection"));
            let mark = request.extensions().get::<WantsUpgrade>().copied();
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            if let Some(mark) = mark {
                mark.ask(response.headers_mut());
            }
            response.headers_mut().insert("upgrade", WEBSOCKET);
            response
        };
        let mut service = ConnectionHeadersLayer::new(ID).layer(Inner(seen));
        let asked = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let response = service.call(upgrade(&asked)).await.unwrap();
        assert_eq!(only(response.headers(), "connection"), "upgrade");
        assert_eq!(only(response.headers(), "upgrade"), "websocket");
        for not_asked in [
            &[("connection", "keep-alive"), ("upgrade", "websocket")][..],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "0")],
            &[("upgrade", "websocket")],
        ] {
            let response = service.call(upgrade(not_asked)).await.unwrap();
            assert!(!response.headers().contains_key("upgrade"), "{not_asked:?}");
        }
        let mut post = upgrade(&asked);
        *post.method_mut() = Method::POST;
        assert!(!wants_upgrade(&post));
        let mut old = upgrade(&asked);
        *old.version_mut() = Version::HTTP_10;
        assert!(!wants_upgrade(&old));
    }

    #[tokio::test]
    async fn forbidden_trailers_are_dropped() {
        let body = |trailers: &[(&str, &str)]| Trailers {
            inner: StreamBody::new(futures_of([
                Frame::data(Bytes::from_static(b"x")),
                Frame::trailers(headers(trailers)),
            ])),
            request_id: Some(Arc::new(HeaderName::from_static("x-id"))),
        };
        let mixed = body(&[
            ("x-sum", "1"),
            ("etag", "\"e\""),
            ("x-id", "2"),
            ("x-request-id", "3"),
            ("content-length", "4"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("authorization", "x"),
            ("cookie", "x"),
            ("set-cookie", "x"),
            ("cache-control", "x"),
            ("connection", "x"),
            ("x-forwarded-for", "x"),
            ("standin-replay", "1"),
            ("idempotency-key", "1"),
        ]);
        let collected = mixed.collect().await.unwrap();
        assert_eq!(names(collected.trailers().unwrap()), ["etag", "x-sum"]);
        assert_eq!(collected.to_bytes(), "x");

        let nothing_left = body(&[("host", "b")]).collect().await.unwrap();
        assert!(nothing_left.trailers().is_none());
    }

    fn futures_of<T>(
        frames: impl IntoIterator<Item = T, IntoIter: Unpin>,
    ) -> impl futures_util::Stream<Item = Result<T, std::convert::Infallible>> + Unpin {
        futures_util::stream::iter(frames.into_iter().map(Ok))
    }

    #[tokio::test]
    async fn bodies_pass() {
        let mut service = ConnectionHeadersLayer::new(ID).layer(Inner(ok));
        let response = service.call(Request::new(Full::<Bytes>::from("in"))).await.unwrap();
        assert!(response.body().is_end_stream());
    }
}
