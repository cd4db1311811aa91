//! Says on whose behalf a request is sent on (`X-Forwarded-*`, RFC 7239 `Forwarded`) and through whom (`Via`, RFC 9110
//! 7.6.3), refuses a request that already passed here, and takes standin's own marks off what clients send.

mod client;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::client::{Sender, is_forwarded, remove_forwarded};
use crate::{
    peer::{FromClient, Trust},
    problem::{PROXY_STATUS, Problem, ProxyError},
};

/// Whether the `standin-*` fields of a request are what another standin signed.
pub type AreMarksGenuine = dyn Fn(&http::Method, &http::Uri, &HeaderMap) -> bool + Send + Sync;

#[derive(Clone)]
pub struct ForwardedLayer {
    settings: Arc<Settings>,
}

struct Settings {
    trust: Trust,
    /// `standin-<id>`: how this instance calls itself in `Via`.
    name: String,
    via: Via,
    are_marks_genuine: Option<Box<AreMarksGenuine>>,
}

/// The value of `Via` by the version that the message came in with.
struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl ForwardedLayer {
    /// `instance` tells this standin from others. What is not allowed in a token becomes `-`.
    pub fn new(instance: &str, trust: Trust) -> Self {
        let name: String = "standin-"
            .chars()
            .chain(instance.chars())
            .map(|char| if is_token_char(char) { char } else { '-' })
            .collect();
        let via = |version| {
            HeaderValue::try_from(format!("{version} {name}")).expect("a version and a token")
        };
        let via = Via { http10: via("1.0"), http11: via("1.1"), http2: via("2.0") };
        Self { settings: Arc::new(Settings { trust, name, via, are_marks_genuine: None }) }
    }

    /// `standin-*` fields are kept when `are_genuine` says so (a replay signed by another standin). It is asked only
    /// about requests that have such fields. Without it they are always removed.
    pub fn keep_marks_if(
        mut self,
        are_genuine: impl Fn(&http::Method, &http::Uri, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        if let Some(settings) = Arc::get_mut(&mut self.settings) {
            settings.are_marks_genuine = Some(Box::new(are_genuine));
        }
        self
    }
}

impl fmt::Debug for ForwardedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardedLayer").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ForwardedLayer {
    type Service = Forwarded<S>;

    fn layer(&self, inner: S) -> Forwarded<S> {
        Forwarded { inner, settings: Arc::clone(&self.settings), sender: None }
    }
}

#[derive(Clone)]
pub struct Forwarded<S> {
    inner: S,
    settings: Arc<Settings>,
    /// Who sent the last request: on one connection it is always the same.
    sender: Option<Sender>,
}

impl<S, B, RB> Service<Request<B>> for Forwarded<S>
where
    B: FromClient,
    S: Service<Request<B>, Response = Response<RB>>,
    RB: From<Full<Bytes>>,
{
    type Response = Response<RB>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let found = Found::in_fields(request.headers());
        if found.via && has_passed(request.headers(), &self.settings.name) {
            return ResponseFuture::Loop;
        }
        if found.marks {
            strip_marks(&mut request, self.settings.are_marks_genuine.as_deref());
        }
        self.add_client(&mut request, found.forwarded);
        let via = self.settings.via.of(request.version());
        request.headers_mut().append(header::VIA, via);
        ResponseFuture::Passed {
            future: self.inner.call(request),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<S> Forwarded<S> {
    fn add_client<B: FromClient>(&mut self, request: &mut Request<B>, has_forwarded: bool) {
        let Some(client) = request.body().client() else {
            return remove_forwarded(request.headers_mut());
        };
        let (address, over_tls) = (client.address.ip(), client.over_tls);
        let sender = match &self.sender {
            Some(sender) if sender.came_from(address, over_tls) => sender,
            _ => self.sender.insert(Sender::new(address, over_tls, &self.settings.trust)),
        };
        sender.add_to(request.headers_mut(), has_forwarded);
    }
}

/// Which fields of a request this filter has to look at, found in one pass: most requests have none of them.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    via: bool,
    marks: bool,
    forwarded: bool,
}

impl Found {
    fn in_fields(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            let name = name.as_str();
            match name.as_bytes().first() {
                Some(b'v') => found.via |= name == "via",
                Some(b's') => found.marks |= name.starts_with(MARK),
                Some(b'f' | b'x') => found.forwarded |= is_forwarded(name),
                _ => {}
            }
        }
        found
    }
}

pin_project! {
    #[project = ResponseFutureProj]
    pub enum ResponseFuture<F> {
        Passed { #[pin] future: F, settings: Arc<Settings> },
        Loop,
    }
}

impl<F, E, RB> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: From<Full<Bytes>>,
{
    type Output = Result<Response<RB>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, settings) = match self.project() {
            ResponseFutureProj::Passed { future, settings } => (future, settings),
            ResponseFutureProj::Loop => return Poll::Ready(Ok(loop_problem())),
        };
        let mut response = ready!(future.poll(cx))?;
        // What standin says itself has not come through it.
        if !is_our_own(response.headers()) {
            let via = settings.via.of(response.version());
            response.headers_mut().append(header::VIA, via);
        }
        Poll::Ready(Ok(response))
    }
}

impl Via {
    fn of(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 | Version::HTTP_09 => &self.http10,
            _ => &self.http11,
        }
        .clone()
    }
}

/// RFC 9110 7.6.3: `Via = #( received-protocol RWS received-by [ RWS comment ] )`. A pseudonym in a comment is not one.
fn has_passed(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get_all(header::VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|member| {
            member.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1)
        })
        .any(|received_by| received_by.eq_ignore_ascii_case(name.as_bytes()))
}

fn is_our_own(headers: &HeaderMap) -> bool {
    headers.get(PROXY_STATUS).is_some_and(|status| {
        let status = status.as_bytes();
        status.starts_with(b"standin") && matches!(status.get(7), None | Some(b';'))
    })
}

fn loop_problem<B: From<Full<Bytes>>>() -> Response<B> {
    Problem::new(StatusCode::LOOP_DETECTED, "The request has already passed here")
        .detail("Its Via field names this standin: the upstream leads back to it.")
        .proxy_status(ProxyError::ProxyLoopDetected)
        .into_response()
}

fn strip_marks<B>(request: &mut Request<B>, are_genuine: Option<&AreMarksGenuine>) {
    let is_mark = |name: &&HeaderName| name.as_str().starts_with(MARK);
    if are_genuine
        .is_some_and(|genuine| genuine(request.method(), request.uri(), request.headers()))
    {
        return;
    }
    let headers = request.headers_mut();
    while let Some(name) = headers.keys().find(is_mark).cloned() {
        headers.remove(name);
    }
}

/// What fields of standin's own begin with.
const MARK: &str = "standin-";

/// RFC 9110 5.6.2.
fn is_token_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char)
}

#[cfg(test)]
mod tests {
    use super::{client::forwarded_element, *};
    use crate::peer::Client;
    use crate::testing::{Inner, only, text};

    fn layer() -> ForwardedLayer {
        ForwardedLayer::new("a1", Trust::new(["10.0.0.0/8".parse().unwrap()]))
    }

    /// What arrives behind the filter.
    async fn behind(
        layer: ForwardedLayer,
        client: &str,
        fields: &[(&str, &str)],
    ) -> Result<HeaderMap, Response<Full<Bytes>>> {
        let mut seen = None;
        let mut service = layer.layer(Inner(|request: Request<Option<Client>>| {
            seen = Some(request.headers().clone());
            Response::new(Full::<Bytes>::default())
        }));
        let mut request = Request::builder().header("host", "shop:8080");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let client = Some(Client::new(client.parse().unwrap()));
        let response = service.call(request.body(client).unwrap()).await.unwrap();
        seen.ok_or(response)
    }

    #[tokio::test]
    async fn an_untrusted_peers_word_is_replaced() {
        let seen = behind(
            layer(),
            "192.0.2.7:5000",
            &[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-prefix", "/admin"),
                ("x-real-ip", "1.1.1.1"),
                ("forwarded", "for=1.1.1.1"),
            ],
        )
        .await
        .unwrap();
        assert_eq!(only(&seen, "x-forwarded-for"), "192.0.2.7");
        assert_eq!(only(&seen, "x-forwarded-proto"), "http");
        assert_eq!(only(&seen, "x-forwarded-host"), "shop:8080");
        for gone in ["x-forwarded-prefix", "x-real-ip", "forwarded"] {
            assert!(!seen.contains_key(gone), "{gone}");
        }
    }

    #[tokio::test]
    async fn a_trusted_peers_word_is_kept_and_added_to() {
        let seen = behind(
            layer(),
            "[::ffff:10.0.0.9]:5000",
            &[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "www"),
                ("forwarded", "for=1.1.1.1"),
            ],
        )
        .await
        .unwrap();
        assert_eq!(only(&seen, "x-forwarded-for"), "1.1.1.1, 2.2.2.2, 10.0.0.9");
        assert_eq!(only(&seen, "x-forwarded-proto"), "https");
        assert_eq!(only(&seen, "x-forwarded-host"), "www");
        assert_eq!(
            only(&seen, "forwarded"),
            "for=1.1.1.1, for=10.0.0.9;proto=http;host=\"shop:8080\""
        );
        let seen = behind(layer(), "10.0.0.9:5000", &[]).await.unwrap();
        assert_eq!(only(&seen, "x-forwarded-for"), "10.0.0.9");
        assert!(!seen.contains_key("forwarded"));
    }

    #[tokio::test]
    async fn tls_is_told() {
        for (address, before) in [("192.0.2.7:1", None), ("10.0.0.9:1", Some("for=1.1.1.1"))] {
            let mut service = layer().layer(Inner(|request: Request<Option<Client>>| {
                assert_eq!(only(request.headers(), "x-forwarded-proto"), "https");
                let told = request.headers().get("forwarded").map(|told| told.to_str().unwrap());
                assert_eq!(told.map(|told| told.contains("proto=https")), before.map(|_| true));
                Response::new(Full::<Bytes>::default())
            }));
            let client = Client { over_tls: true, ..Client::new(address.parse().unwrap()) };
            let mut request = Request::builder();
            if let Some(before) = before {
                request = request.header("forwarded", before);
            }
            service.call(request.body(Some(client)).unwrap()).await.unwrap();
        }
    }

    #[test]
    fn ipv6_is_quoted_in_forwarded() {
        let element = forwarded_element("2001:db8::1".parse().unwrap(), false, None);
        assert_eq!(element, "for=\"[2001:db8::1]\";proto=http");
    }

    #[tokio::test]
    async fn via_is_added_and_a_loop_refused() {
        let seen = behind(layer(), "10.0.0.9:1", &[("via", "1.0 fred, 1.1 standin-b2")]).await;
        let via: Vec<_> = seen.unwrap().get_all("via").iter().cloned().collect();
        assert_eq!(via, ["1.0 fred, 1.1 standin-b2", "1.1 standin-a1"]);

        for looped in ["1.1 standin-a1", "1.1 x, 2.0  STANDIN-A1 (comment)", "1.1\tstandin-a1"] {
            let problem = behind(layer(), "10.0.0.9:1", &[("via", looped)]).await.unwrap_err();
            assert_eq!(problem.status(), 508, "{looped}");
            assert_eq!(
                only(problem.headers(), "proxy-status"),
                "standin; error=proxy_loop_detected"
            );
            assert!(text(problem.into_body()).await.contains("already passed"));
        }
        for other in ["1.1 standin-a12", "1.1 x (standin-a1)", "standin-a1", ""] {
            assert!(behind(layer(), "10.0.0.9:1", &[("via", other)]).await.is_ok(), "{other}");
        }
    }

    #[tokio::test]
    async fn answers_of_the_app_get_a_via_and_our_own_do_not() {
        let call = |own: bool| {
            layer()
                .layer(Inner(move |_: Request<()>| {
                    let mut response = Response::new(Full::<Bytes>::default());
                    if own {
                        response.headers_mut().insert(
                            PROXY_STATUS,
                            HeaderValue::from_static("standin; details=\"x\""),
                        );
                    }
                    response
                }))
                .call(Request::new(()))
        };
        assert_eq!(only(call(false).await.unwrap().headers(), "via"), "1.1 standin-a1");
        assert!(!call(true).await.unwrap().headers().contains_key("via"));
    }

    #[tokio::test]
    async fn marks_are_stripped_unless_genuine() {
        let marks = [("standin-replay", "1"), ("Standin-Attempt", "2"), ("standin-new", "3")];
        let seen = behind(layer(), "10.0.0.9:1", &marks).await.unwrap();
        assert!(seen.keys().all(|name| !name.as_str().starts_with("standin-")));

        let signed = |_: &http::Method, _: &http::Uri, headers: &HeaderMap| {
            headers.contains_key("standin-signature")
        };
        let seen = behind(layer().keep_marks_if(signed), "10.0.0.9:1", &marks).await.unwrap();
        assert!(!seen.contains_key("standin-replay"));
        let seen = behind(
            layer().keep_marks_if(signed),
            "10.0.0.9:1",
            &[("standin-replay", "1"), ("standin-signature", "x")],
        )
        .await
        .unwrap();
        assert!(seen.contains_key("standin-replay"));
    }

    #[test]
    fn an_instance_name_is_always_a_token() {
        let layer = ForwardedLayer::new("a b,(c)\n", Trust::default());
        assert_eq!(layer.settings.via.http11, "1.1 standin-a-b--c--");
    }
}
