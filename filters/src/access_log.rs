//! One event per request, at the end of its answer: what was asked, who answered, how long it took. Never a query, a body,
//! a cookie or a credential. When it is off, nothing is kept and no clock is read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Who answered, in one word (`app`, `stood_in` …): an extension that the product sets on the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredBy(pub &'static str);

#[derive(Clone, Debug)]
pub struct AccessLogLayer {
    on: bool,
    request_id: HeaderName,
    is_secret: IsSecret,
}

/// Whether a path has something in it that no log may have.
pub type IsSecret = fn(&str) -> bool;

impl AccessLogLayer {
    /// `request_id` is the field of the response that the id is read from.
    pub fn new(on: bool, request_id: HeaderName, is_secret: IsSecret) -> Self {
        Self { on, request_id, is_secret }
    }
}

impl<S> Layer<S> for AccessLogLayer {
    type Service = AccessLog<S>;

    fn layer(&self, inner: S) -> AccessLog<S> {
        let request_id = self.on.then(|| self.request_id.clone());
        AccessLog { inner, request_id, is_secret: self.is_secret }
    }
}

#[derive(Clone, Debug)]
pub struct AccessLog<S> {
    inner: S,
    /// None when the log is off.
    request_id: Option<HeaderName>,
    is_secret: IsSecret,
}

impl<S, B, RB> Service<Request<B>> for AccessLog<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    RB: Body,
{
    type Response = Response<Logged<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // In a box: without a log it is nothing, and would be moved with each answer and each body.
        let line = |name| Box::new(Line::begin(&request, name, self.is_secret));
        let line = self.request_id.as_ref().map(line);
        ResponseFuture { future: self.inner.call(request), line }
    }
}

pin_project! {
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        line: Option<Box<Line>>,
    }
}

impl<F, E, RB> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: Body,
{
    type Output = Result<Response<Logged<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        let mut line = this.line.take();
        if let Some(line) = &mut line {
            line.answered(&response);
        }
        Poll::Ready(Ok(response.map(|inner| Logged { inner, line })))
    }
}

pin_project! {
    /// A body whose end, or drop, ends the line.
    #[derive(Debug)]
    pub struct Logged<B> {
        #[pin]
        inner: B,
        line: Option<Box<Line>>,
    }
}

impl<B: Body> Body for Logged<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(line) = this.line {
            match &frame {
                Some(Ok(frame)) => {
                    line.bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                    // Not every server asks a body again once it says that it has ended.
                    line.complete = this.inner.is_end_stream();
                }
                Some(Err(_)) => *this.line = None,
                None => {
                    line.complete = true;
                    *this.line = None;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: From<Full<Bytes>>> From<Full<Bytes>> for Logged<B> {
    fn from(body: Full<Bytes>) -> Self {
        Self { inner: B::from(body), line: None }
    }
}

/// One request's line; written when it is dropped, whatever ended the request.
#[derive(Debug)]
struct Line {
    begun: Instant,
    method: Method,
    uri: Uri,
    is_secret: IsSecret,
    request_id_name: HeaderName,
    request_id: Option<HeaderValue>,
    status: Option<StatusCode>,
    answered_by: Option<&'static str>,
    bytes: u64,
    /// The answer was handed over to its end.
    complete: bool,
}

impl Line {
    fn begin<B>(request: &Request<B>, request_id: &HeaderName, is_secret: IsSecret) -> Self {
        Self {
            begun: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            is_secret,
            request_id_name: request_id.clone(),
            request_id: None,
            status: None,
            answered_by: None,
            bytes: 0,
            complete: false,
        }
    }

    fn answered<B: Body>(&mut self, response: &Response<B>) {
        self.status = Some(response.status());
        self.request_id = response.headers().get(&self.request_id_name).cloned();
        self.answered_by = response.extensions().get::<AnsweredBy>().map(|by| by.0);
        self.complete = response.body().is_end_stream();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let path = self.uri.path();
        let path = if (self.is_secret)(path) { HIDDEN } else { start_of(path) };
        tracing::info!(
            target: "access",
            request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok()),
            method = start_of(self.method.as_str()),
            path,
            status = self.status.map(|status| status.as_u16()),
            answered_by = self.answered_by,
            bytes = self.bytes,
            duration_ms = self.begun.elapsed().as_secs_f64() * 1000.0,
            complete = self.complete,
            "request",
        );
    }
}

/// A bounded beginning of what a client has sent.
fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

const LONGEST: usize = 256;

/// Stands for a path that is kept to oneself.
const HIDDEN: &str = "(not logged: it has a card number in it)";

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fmt::Debug,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use http_body_util::BodyExt;
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::*;
    use crate::testing::{Inner, text};

    type Lines = Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>;

    /// Keeps the fields of all events.
    struct Recorder(Lines);

    struct Fields(BTreeMap<&'static str, String>);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
        }
    }

    impl Subscriber for Recorder {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "access"
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut fields = Fields(BTreeMap::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn recorded() -> (Lines, tracing::subscriber::DefaultGuard) {
        let lines = Lines::default();
        let guard = tracing::subscriber::set_default(Recorder(Arc::clone(&lines)));
        (lines, guard)
    }

    fn answer(_: Request<()>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from("12345"));
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert("x-request-id", HeaderValue::from_static("id-1"));
        response.extensions_mut().insert(AnsweredBy("app"));
        response
    }

    fn layer(on: bool) -> AccessLogLayer {
        let is_secret = |path: &str| path.contains("4111");
        AccessLogLayer::new(on, HeaderName::from_static("x-request-id"), is_secret)
    }

    fn request(uri: &str) -> Request<()> {
        Request::builder().method("POST").uri(uri).body(()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_at_the_end_of_the_body() {
        let (lines, _guard) = recorded();
        let mut service = layer(true).layer(Inner(answer));
        let response = service.call(request("/pay?card=4111")).await.unwrap();
        assert!(lines.lock().unwrap().is_empty(), "not before the end");
        tokio::time::advance(Duration::from_millis(12)).await;
        assert_eq!(text(response.into_body()).await, "12345");
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1);
        for (name, value) in [
            ("method", "POST"),
            ("path", "/pay"),
            ("status", "201"),
            ("bytes", "5"),
            ("request_id", "id-1"),
            ("answered_by", "app"),
            ("complete", "true"),
        ] {
            assert_eq!(lines[0][name], value, "{name}");
        }
        let duration: f64 = lines[0]["duration_ms"].parse().unwrap();
        assert!((12.0..13.0).contains(&duration), "{duration}");
        assert!(!format!("{lines:?}").contains("4111"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_is_logged_as_incomplete() {
        let (lines, _guard) = recorded();
        let mut service = layer(true).layer(Inner(answer));
        drop(service.call(request("/left-before-the-answer")));
        drop(service.call(request("/left-before-the-body")).await.unwrap());
        let mut read = service.call(request("/read-but-not-asked-for-its-end")).await.unwrap();
        read.frame().await.unwrap().unwrap();
        drop(read);
        let lines = lines.lock().unwrap();
        let complete: Vec<_> = lines.iter().map(|line| line["complete"].as_str()).collect();
        assert_eq!(complete, ["false", "false", "true"]);
        assert!(!lines[0].contains_key("status"));
        assert_eq!(lines[1]["status"], "201");
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_with_a_secret_in_it_is_kept_to_oneself() {
        let (lines, _guard) = recorded();
        let mut service = layer(true).layer(Inner(answer));
        text(service.call(request("/pay/4111")).await.unwrap().into_body()).await;
        assert_eq!(lines.lock().unwrap()[0]["path"], HIDDEN);
    }

    #[tokio::test]
    async fn off_is_silent() {
        let (lines, _guard) = recorded();
        let mut service = layer(false).layer(Inner(answer));
        text(service.call(request("/")).await.unwrap().into_body()).await;
        assert!(lines.lock().unwrap().is_empty());
    }

    #[test]
    fn a_long_path_is_cut() {
        assert_eq!(start_of(&"é".repeat(200)).len(), 256);
    }
}
