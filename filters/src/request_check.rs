//! Refuses requests that two HTTP parsers could read in two ways, where hyper lets them through, and settles the rest
//! into one form: behind this filter a request has exactly one `Host` (empty where HTTP/1.0 had none) and a target in
//! origin form (or `*` for OPTIONS).

mod host;
mod settle;
mod verdict;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Scheme};
use http_body_util::Full;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use self::verdict::{FramingFault, FramingVerdict};
use self::{host::is_host_and_port, settle::settle};
use crate::{
    peer::FromClient,
    problem::{Problem, ProxyError},
};

#[derive(Clone, Copy, Debug, Default)]
pub struct RequestCheckLayer;

impl<S> Layer<S> for RequestCheckLayer {
    type Service = RequestCheck<S>;

    fn layer(&self, inner: S) -> RequestCheck<S> {
        RequestCheck { inner }
    }
}

#[derive(Clone, Debug)]
pub struct RequestCheck<S> {
    inner: S,
}

impl<S, B, RB> Service<Request<B>> for RequestCheck<S>
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
        match check(&request) {
            Ok(()) => {
                settle(&mut request);
                ResponseFuture::Passed { future: self.inner.call(request) }
            }
            Err(refusal) => {
                ResponseFuture::Refused { refusal, http1: request.version() <= Version::HTTP_11 }
            }
        }
    }
}

pin_project! {
    #[project = ResponseFutureProj]
    #[derive(Debug)]
    pub enum ResponseFuture<F> {
        Passed { #[pin] future: F },
        Refused { refusal: Refusal, http1: bool },
    }
}

impl<F, E, RB> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: From<Full<Bytes>>,
{
    type Output = Result<Response<RB>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ResponseFutureProj::Passed { future } => Poll::Ready(ready!(future.poll(cx))),
            ResponseFutureProj::Refused { refusal, http1 } => {
                Poll::Ready(Ok(refusal.into_response(*http1)))
            }
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub detail: &'static str,
}

impl Refusal {
    const fn bad(detail: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail }
    }

    /// An HTTP/1 connection is closed with the refusal: what follows on it cannot be trusted either (RFC 9112 11.2).
    fn into_response<B: From<Full<Bytes>>>(self, http1: bool) -> Response<B> {
        let title = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => "The method is not allowed",
            StatusCode::NOT_IMPLEMENTED => "The method is not implemented",
            _ => "The request is not valid HTTP",
        };
        let mut response = Problem::new(self.status, title)
            .detail(self.detail)
            .proxy_status(ProxyError::HttpRequestError)
            .into_response();
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, ALLOWED);
        }
        if http1 {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        response
    }
}

/// Whether a request may go on.
pub fn check<B: FromClient>(request: &Request<B>) -> Result<(), Refusal> {
    check_method(request.method())?;
    check_framing(request)?;
    check_target(request)?;
    check_host(request)
}

/// RFC 9110 9.1: what is not implemented is 501. RFC 9110 9.3.6 and 9.3.8: CONNECT and TRACE are for proxies of another
/// kind; TRACE would send credentials back to scripts.
fn check_method(method: &Method) -> Result<(), Refusal> {
    if *method == Method::CONNECT {
        Err(Refusal { status: StatusCode::NOT_IMPLEMENTED, detail: "CONNECT is not offered" })
    } else if *method == Method::TRACE {
        Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, detail: "TRACE is not offered" })
    } else if method.as_str().len() > LONGEST_METHOD {
        Err(Refusal {
            status: StatusCode::NOT_IMPLEMENTED,
            detail: "the method is longer than any that is known",
        })
    } else {
        Ok(())
    }
}

/// RFC 9112 6.1: `Transfer-Encoding` is exactly one field with the value `chunked`, never beside `Content-Length`.
/// The RFC would let us process some of what is refused here; those behind us may read it differently.
fn check_framing<B: FromClient>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let encoded = headers.contains_key(header::TRANSFER_ENCODING);
    match request.body().client().and_then(|client| client.framing.fault()) {
        None => {}
        Some(FramingFault::LengthAndEncoding) => return Err(LENGTH_AND_ENCODING),
        Some(FramingFault::Fragment) => {
            return Err(Refusal::bad("the request target has a fragment (RFC 9112 3.2)"));
        }
        Some(FramingFault::Lost) if encoded => {
            return Err(Refusal::bad("the framing of this connection is not clear any more"));
        }
        Some(FramingFault::Lost) => {}
    }
    if !encoded {
        return Ok(());
    }
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err(LENGTH_AND_ENCODING);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::bad("Transfer-Encoding is not exactly one \"chunked\" (RFC 9112 6.1)")),
    }
}

/// RFC 9112 3.2: origin form, absolute form of http or https, and `*` for OPTIONS.
fn check_target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let uri = request.uri();
    if let Some(authority) = uri.authority() {
        match uri.scheme() {
            None => return Err(Refusal::bad("the target is in authority form (RFC 9112 3.2.3)")),
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
            Some(_) => return Err(Refusal::bad("the target's scheme is not http or https")),
        }
        if !is_host_and_port(authority.as_str().as_bytes()) {
            return Err(Refusal::bad("the target's authority is not a host and port"));
        }
    }
    match uri.path().as_bytes().first() {
        Some(b'/') => Ok(()),
        // Only what an absolute form may leave out: `http://a`, `http://a?x`.
        None if uri.authority().is_some() => Ok(()),
        Some(b'*') if uri.path() == "*" && uri.query().is_none() => match *request.method() {
            Method::OPTIONS => Ok(()),
            _ => Err(Refusal::bad("the target * is for OPTIONS only (RFC 9112 3.2.4)")),
        },
        _ => Err(Refusal::bad("the target is not a path (RFC 9112 3.2)")),
    }
}

/// RFC 9112 3.2 and RFC 9113 8.3.1: one valid `Host`; in HTTP/2 the same as `:authority`, or either alone.
fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return match request.version() {
            Version::HTTP_11 => Err(Refusal::bad("there is no Host field (RFC 9112 3.2)")),
            Version::HTTP_2 if request.uri().authority().is_none() => {
                Err(Refusal::bad("there is neither :authority nor Host (RFC 9113 8.3.1)"))
            }
            _ => Ok(()),
        };
    };
    if hosts.next().is_some() {
        return Err(Refusal::bad("there is more than one Host field (RFC 9112 3.2)"));
    }
    if !is_host_and_port(host.as_bytes()) {
        return Err(Refusal::bad("the Host field is not a host and port (RFC 9112 3.2)"));
    }
    match request.uri().authority() {
        Some(authority)
            if request.version() == Version::HTTP_2
                && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Err(Refusal::bad("Host is not the same as :authority (RFC 9113 8.3.1)"))
        }
        _ => Ok(()),
    }
}

const LENGTH_AND_ENCODING: Refusal =
    Refusal::bad("Content-Length and Transfer-Encoding are both there (RFC 9112 6.1)");
/// The longest registered method has 17 characters (UPDATEREDIRECTREF).
const LONGEST_METHOD: usize = 32;
const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Inner, ok, only, text};

    fn http1(target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn http2(target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = http1(target, fields);
        *request.version_mut() = Version::HTTP_2;
        request
    }

    /// The status a request is refused with, 0 if it may go on.
    fn verdict(request: &Request<impl FromClient>) -> u16 {
        check(request).map_or_else(|refusal| refusal.status.as_u16(), |()| 0)
    }

    #[test]
    fn host_field() {
        for (host, expected) in [
            ("a", 0),
            ("a:80", 0),
            ("a:", 0),
            ("shop.example.:8080", 0),
            ("xn--bcher-kva.example", 0),
            ("snake_case", 0),
            ("127.0.0.1:65535", 0),
            ("[::1]", 0),
            ("[::1]:80", 0),
            ("", 400),
            (":80", 400),
            ("a:65536", 400),
            ("a:80x", 400),
            ("a:-1", 400),
            ("a:080808", 400),
            ("a b", 400),
            ("a/b", 400),
            ("a,b", 400),
            ("user@a", 400),
            ("user:pw@a", 400),
            ("<script>", 400),
            ("a%00", 400),
            ("a\\b", 400),
            ("a#b", 400),
            ("a?b", 400),
            ("[::1", 400),
            ("[::1]x", 400),
            ("[::g]", 400),
            ("[fe80::1%25eth0]", 400),
            ("::1", 400),
        ] {
            assert_eq!(verdict(&http1("/", &[("host", host)])), expected, "{host:?}");
        }
        let mut high = http1("/", &[]);
        high.headers_mut().insert("host", HeaderValue::from_bytes(b"b\xfccher").unwrap());
        assert_eq!(verdict(&high), 400);
    }

    #[test]
    fn number_of_hosts() {
        assert_eq!(verdict(&http1("/", &[])), 400);
        assert_eq!(verdict(&http1("http://a/", &[])), 400, "absolute form needs one too");
        assert_eq!(verdict(&http1("/", &[("host", "a"), ("host", "a")])), 400);
        assert_eq!(verdict(&http2("http://a/", &[])), 0);
        assert_eq!(verdict(&http2("/", &[("host", "a")])), 0);
        assert_eq!(verdict(&http2("/", &[])), 400);
        assert_eq!(verdict(&http2("http://a/", &[("host", "a"), ("host", "a")])), 400);
        let mut old = http1("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(verdict(&old), 0);
        old.headers_mut().append("host", HeaderValue::from_static("a"));
        old.headers_mut().append("host", HeaderValue::from_static("b"));
        assert_eq!(verdict(&old), 400);
    }

    #[test]
    fn host_and_authority_in_http2() {
        assert_eq!(verdict(&http2("http://a/", &[("host", "A")])), 0);
        assert_eq!(verdict(&http2("http://a/", &[("host", "b")])), 400);
        assert_eq!(verdict(&http2("http://a:80/", &[("host", "a")])), 400);
        assert_eq!(verdict(&http2("http://u@a/", &[])), 400);
        assert_eq!(verdict(&http2("http://u@a/", &[("host", "u@a")])), 400);
    }

    #[test]
    fn target_forms() {
        let host = [("host", "a")];
        assert_eq!(verdict(&http1("/x?y", &host)), 0);
        assert_eq!(verdict(&http1("//x/y", &host)), 0);
        assert_eq!(verdict(&http1("http://b/x", &host)), 0);
        assert_eq!(verdict(&http1("https://b", &host)), 0);
        assert_eq!(verdict(&http1("http://u:p@b/x", &host)), 400);
        assert_eq!(verdict(&http1("ftp://b/x", &host)), 400);
        assert_eq!(verdict(&http1("b:80", &host)), 400);
        assert_eq!(verdict(&http1("*", &host)), 400);
        let mut options = http1("*", &host);
        *options.method_mut() = Method::OPTIONS;
        assert_eq!(verdict(&options), 0);
    }

    #[test]
    fn methods() {
        for (method, expected) in [
            ("GET", 0),
            ("BREW", 0),
            ("CONNECT", 501),
            ("TRACE", 405),
            (&"A".repeat(32), 0),
            (&"A".repeat(33), 501),
        ] {
            let mut request = http1("/", &[("host", "a")]);
            *request.method_mut() = method.parse().unwrap();
            assert_eq!(verdict(&request), expected, "{method}");
        }
    }

    #[test]
    fn transfer_encoding() {
        const TE: &str = "transfer-encoding";
        for (fields, expected) in [
            (&[(TE, "chunked")][..], 0),
            (&[(TE, "Chunked")], 0),
            (&[(TE, "chunked, chunked")], 400),
            (&[(TE, ",chunked")], 400),
            (&[(TE, "identity"), (TE, "chunked")], 400),
            (&[(TE, "chunked"), (TE, "chunked")], 400),
            (&[(TE, "")], 400),
            (&[(TE, "chunked"), ("content-length", "5")], 400),
        ] {
            let mut request = http1("/", fields);
            request.headers_mut().insert("host", HeaderValue::from_static("a"));
            assert_eq!(verdict(&request), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_the_raw_bytes_showed() {
        let client = crate::peer::Client::new("192.0.2.1:1".parse().unwrap());
        let verdict_of = client.framing.clone();
        let from = |request: Request<()>| request.map(|()| Some(client.clone()));
        let plain = from(http1("/", &[("host", "a")]));
        let encoded = from(http1("/", &[("host", "a"), ("transfer-encoding", "chunked")]));
        assert_eq!((verdict(&plain), verdict(&encoded)), (0, 0));
        verdict_of.report(FramingFault::Lost);
        assert_eq!((verdict(&plain), verdict(&encoded)), (0, 400));
        verdict_of.report(FramingFault::LengthAndEncoding);
        assert_eq!((verdict(&plain), verdict(&encoded)), (400, 400));
        verdict_of.report(FramingFault::Lost);
        assert_eq!(verdict_of.fault(), Some(FramingFault::LengthAndEncoding), "the worst stays");
    }

    #[test]
    fn absolute_form_becomes_host_and_origin_form() {
        for (target, origin) in [
            ("http://b:81/x?y=1", "/x?y=1"),
            ("http://b:81", "/"),
            ("http://b:81?y=1", "/?y=1"),
            ("http://b:81//x", "//x"),
        ] {
            let mut request = http1(target, &[("host", "a")]);
            settle(&mut request);
            assert_eq!(request.uri().to_string(), origin, "{target}");
            assert_eq!(only(request.headers(), "host"), "b:81");
        }
    }

    #[test]
    fn http10_may_name_no_host() {
        let mut request = http1("/", &[]);
        *request.version_mut() = Version::HTTP_10;
        settle(&mut request);
        assert_eq!(only(request.headers(), "host"), "");
    }

    #[test]
    fn http2_becomes_host_and_one_cookie() {
        let mut request = http2(
            "http://b/x",
            &[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4"), ("x", "1")],
        );
        settle(&mut request);
        assert_eq!(only(request.headers(), "host"), "b");
        assert_eq!(only(request.headers(), "cookie"), "a=1; b=2; c=3; d=4");
        assert_eq!(request.uri(), "/x");
    }

    #[tokio::test]
    async fn a_refusal_closes_the_connection_and_asks_nobody() {
        let mut service =
            RequestCheckLayer.layer(Inner(|_: Request<()>| -> Response<Full<Bytes>> {
                panic!("it must not get here")
            }));
        let mut trace = http1("/", &[("host", "a")]);
        *trace.method_mut() = Method::TRACE;
        let refused = service.call(trace).await.unwrap();
        assert_eq!(refused.status(), 405);
        assert!(only(refused.headers(), "allow").contains("POST"));
        assert_eq!(only(refused.headers(), "connection"), "close");
        assert!(text(refused.into_body()).await.contains("TRACE"));

        let refused = service.call(http2("/", &[])).await.unwrap();
        assert_eq!(refused.status(), 400);
        assert!(!refused.headers().contains_key("connection"), "not a field of HTTP/2");

        let mut service = RequestCheckLayer.layer(Inner(ok));
        assert_eq!(service.call(http1("/", &[("host", "a")])).await.unwrap().status(), 200);
    }
}
