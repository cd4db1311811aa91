//! Refuses what comes beyond N requests at once, before any work is done for it. A request is in flight until the last
//! byte of its answer is handed over or the client is gone.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::problem::{Problem, ProxyError};

#[derive(Clone, Debug)]
pub struct InFlightLimitLayer {
    most: usize,
    in_flight: Arc<AtomicUsize>,
}

impl InFlightLimitLayer {
    /// `in_flight` may be shared by several chains: the limit is for all of them together.
    pub fn new(most: usize, in_flight: Arc<AtomicUsize>) -> Self {
        Self { most, in_flight }
    }
}

impl<S> Layer<S> for InFlightLimitLayer {
    type Service = InFlightLimit<S>;

    fn layer(&self, inner: S) -> InFlightLimit<S> {
        InFlightLimit { inner, most: self.most, in_flight: Arc::clone(&self.in_flight) }
    }
}

#[derive(Clone, Debug)]
pub struct InFlightLimit<S> {
    inner: S,
    most: usize,
    in_flight: Arc<AtomicUsize>,
}

impl<S, B, RB> Service<Request<B>> for InFlightLimit<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    RB: From<Full<Bytes>>,
{
    type Response = Response<Counted<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match Permit::take(&self.in_flight, self.most) {
            Some(permit) => {
                ResponseFuture::Passed { future: self.inner.call(request), permit: Some(permit) }
            }
            None => ResponseFuture::Refused,
        }
    }
}

pin_project! {
    #[project = ResponseFutureProj]
    #[derive(Debug)]
    pub enum ResponseFuture<F> {
        Passed { #[pin] future: F, permit: Option<Permit> },
        Refused,
    }
}

impl<F, E, RB> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: From<Full<Bytes>>,
{
    type Output = Result<Response<Counted<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ResponseFutureProj::Passed { future, permit } => {
                let response = ready!(future.poll(cx))?;
                let permit = permit.take();
                Poll::Ready(Ok(response.map(|inner| Counted { inner, permit })))
            }
            ResponseFutureProj::Refused => Poll::Ready(Ok(too_many())),
        }
    }
}

fn too_many<B: From<Full<Bytes>>>() -> Response<B> {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once")
        .detail("standin takes no more requests until some have ended.")
        .retry_after(Duration::from_secs(1))
        .proxy_status(ProxyError::HttpRequestDenied)
        .into_response()
}

/// One place among those in flight; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    in_flight: Arc<AtomicUsize>,
}

impl Permit {
    fn take(in_flight: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let permit = Self { in_flight: Arc::clone(in_flight) };
        // Counted first, then compared: two requests cannot both take the last place.
        (in_flight.fetch_add(1, Ordering::Relaxed) < most).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// A body that holds a place until it ends.
    #[derive(Debug)]
    pub struct Counted<B> {
        #[pin]
        inner: B,
        permit: Option<Permit>,
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            *this.permit = None;
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

impl<B: From<Full<Bytes>>> From<Full<Bytes>> for Counted<B> {
    fn from(body: Full<Bytes>) -> Self {
        Self { inner: B::from(body), permit: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Inner, only, text};

    type Answer = fn(Request<()>) -> Response<Full<Bytes>>;

    fn service(most: usize) -> (InFlightLimit<Inner<Answer>>, Arc<AtomicUsize>) {
        let in_flight = Arc::new(AtomicUsize::new(0));
        let answer: Answer = |_| Response::new(Full::from("answer"));
        (InFlightLimitLayer::new(most, Arc::clone(&in_flight)).layer(Inner(answer)), in_flight)
    }

    #[tokio::test]
    async fn beyond_the_limit_is_refused_until_a_body_ends() {
        let (mut service, in_flight) = service(2);
        let mut other_worker = service.clone();
        let first = service.call(Request::new(())).await.unwrap();
        let second = other_worker.call(Request::new(()));
        let refused = service.call(Request::new(())).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(only(refused.headers(), "retry-after"), "1");
        assert!(text(refused.into_body()).await.contains("at once"));
        assert_eq!(in_flight.load(Ordering::Relaxed), 2);

        assert_eq!(text(first.into_body()).await, "answer");
        assert_eq!(service.call(Request::new(())).await.unwrap().status(), 200);
        drop(second);
        assert_eq!(in_flight.load(Ordering::Relaxed), 0, "a dropped future and body give back");
    }

    #[tokio::test]
    async fn zero_refuses_everything_and_leaks_nothing() {
        let (mut service, in_flight) = service(0);
        for _ in 0..3 {
            assert_eq!(service.call(Request::new(())).await.unwrap().status(), 503);
        }
        assert_eq!(in_flight.load(Ordering::Relaxed), 0);
    }
}
