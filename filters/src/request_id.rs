//! Gives every request an id, unless a trusted peer has given it one. Log, store, replay and the app use it.
//!
//! Stands after the filter that removes nominated fields: no client can take the id off again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::peer::{FromClient, Trust};

/// The id of a request. Whoever gives the request another id further in than its header field says sets this extension
/// on the response, and the client gets that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub HeaderValue);

impl RequestId {
    /// A new id: UUIDv7, from this thread's own counter and random numbers.
    pub fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let timestamp = CONTEXT.with(|context| Timestamp::now(context));
        Uuid::new_v7(timestamp).hyphenated().encode_lower(&mut text);
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(text));
        Self(of_one_message(value.expect("hexadecimal digits and hyphens")))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
pub struct RequestIdLayer {
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    header: HeaderName,
    trust: Trust,
}

impl RequestIdLayer {
    pub fn new(header: HeaderName, trust: Trust) -> Self {
        Self { settings: Arc::new(Settings { header, trust }) }
    }
}

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIds<S>;

    fn layer(&self, inner: S) -> RequestIds<S> {
        RequestIds { inner, settings: Arc::clone(&self.settings) }
    }
}

#[derive(Clone, Debug)]
pub struct RequestIds<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, B, RB> Service<Request<B>> for RequestIds<S>
where
    B: FromClient,
    S: Service<Request<B>, Response = Response<RB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Settings { header, trust } = &*self.settings;
        let given = valid_id(request.headers(), header)
            .filter(|_| trust.covers_peer_of(request.body()))
            .map(|id| RequestId(id.clone()));
        let id = given.unwrap_or_else(|| {
            let id = RequestId::generate();
            request.headers_mut().insert(header, id.0.clone());
            request.body_mut().note_new_id();
            id
        });
        ResponseFuture {
            future: self.inner.call(request),
            id: Some(id),
            settings: Arc::clone(&self.settings),
        }
    }
}

pin_project! {
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        id: Option<RequestId>,
        settings: Arc<Settings>,
    }
}

impl<F, E, RB> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
{
    type Output = Result<Response<RB>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(id) = response.extensions_mut().remove::<RequestId>().or(this.id.take()) {
            response.headers_mut().insert(&this.settings.header, of_one_message(id.0));
        }
        Poll::Ready(Ok(response))
    }
}

/// No other message has this value: over HTTP/2 it is not to push out of the table of fields what others have, too, and not
/// to be compared with the ids before it (RFC 7541, 7.1.3).
fn of_one_message(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// The id a request brings along: a single field of 1 to 128 visible ASCII characters.
fn valid_id<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let id = values.next()?;
    let is_valid = values.next().is_none()
        && (1..=LONGEST).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic);
    is_valid.then_some(id)
}

const LONGEST: usize = 128;

thread_local! {
    /// One per thread: `Uuid::now_v7` would share a lock among all workers.
    static CONTEXT: ContextV7 = const { ContextV7::new() };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::Full;

    use super::*;
    use crate::{
        peer::Client,
        testing::{Inner, only},
    };

    /// Who sent it, and whether its id is new.
    struct Sent(Option<Client>, bool);

    impl FromClient for Sent {
        fn client(&self) -> Option<&Client> {
            self.0.as_ref()
        }

        fn note_new_id(&mut self) {
            self.1 = true;
        }

        fn id_is_new(&self) -> bool {
            self.1
        }
    }

    const ID: HeaderName = HeaderName::from_static("x-request-id");

    fn request(client: &str, ids: &[&str]) -> Request<Sent> {
        let mut request = Request::builder();
        for id in ids {
            request = request.header(ID, *id);
        }
        request.body(Sent(Some(Client::new(client.parse().unwrap())), false)).unwrap()
    }

    /// The id behind the filter, and the one that the client gets. Only one that was made here is said to be new.
    async fn ids(request: Request<Sent>) -> (String, String) {
        let (mut behind, mut is_new) = (String::new(), false);
        let given = request.headers().get(ID).cloned();
        let trust = Trust::new(["127.0.0.0/8".parse().unwrap()]);
        let mut service = RequestIdLayer::new(ID, trust).layer(Inner(|request: Request<Sent>| {
            behind = only(request.headers(), "x-request-id").to_owned();
            is_new = request.body().id_is_new();
            Response::builder().header(ID, "the app's own").body(Full::<Bytes>::default()).unwrap()
        }));
        let response = service.call(request).await.unwrap();
        let answered = only(response.headers(), "x-request-id").to_owned();
        let is_given = given.is_some_and(|given| given == *behind);
        assert_eq!(is_new, !is_given, "{behind}");
        (behind, answered)
    }

    #[tokio::test]
    async fn a_trusted_peers_id_is_kept() {
        let (behind, answered) = ids(request("127.0.0.1:1", &["abc-1"])).await;
        assert_eq!((behind.as_str(), answered.as_str()), ("abc-1", "abc-1"));
    }

    #[tokio::test]
    async fn anybody_elses_is_replaced() {
        let (behind, answered) = ids(request("192.0.2.1:1", &["abc-1"])).await;
        assert_eq!(Uuid::parse_str(&behind).unwrap().get_version_num(), 7);
        assert_eq!(behind, answered);
        let mut unknown = request("127.0.0.1:1", &["abc-1"]);
        unknown.body_mut().0 = None;
        assert_ne!(ids(unknown).await.0, "abc-1");
    }

    #[tokio::test]
    async fn an_invalid_id_is_replaced_even_if_trusted() {
        let long = "x".repeat(129);
        for bad in [&["a b"][..], &[""], &["a", "a"], &["a", "b"], &[&long], &["a\tb"], &["é"]] {
            let (behind, _) = ids(request("127.0.0.1:1", bad)).await;
            assert!(Uuid::parse_str(&behind).is_ok(), "{bad:?} became {behind}");
        }
        let longest = "x".repeat(128);
        assert_eq!(ids(request("127.0.0.1:1", &[&longest])).await.0, longest);
    }

    #[tokio::test]
    async fn the_id_may_be_changed_further_in() {
        let mut service =
            RequestIdLayer::new(ID, Trust::default()).layer(Inner(|_: Request<Sent>| {
                let mut response = Response::new(Full::<Bytes>::default());
                response.extensions_mut().insert(RequestId(HeaderValue::from_static("derived")));
                response
            }));
        let response = service.call(Request::new(Sent(None, false))).await.unwrap();
        assert_eq!(only(response.headers(), "x-request-id"), "derived");
        assert!(response.headers()["x-request-id"].is_sensitive());
    }

    #[test]
    fn ids_differ_and_grow() {
        let all: Vec<String> =
            (0..10_000).map(|_| RequestId::generate().as_str().to_owned()).collect();
        assert!(all.is_sorted());
        let here: HashSet<String> = all.into_iter().collect();
        assert_eq!(here.len(), 10_000);
    }
}
