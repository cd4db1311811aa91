//! A bug costs one request, not the connection or the process: a panic on the way to an answer becomes a 500.
//!
//! A panic while the answer's body is made is not caught: the answer has begun, and its connection breaks off.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::problem::{Problem, ProxyError};

#[derive(Clone, Copy, Debug, Default)]
pub struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

#[derive(Clone, Debug)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S, B, RB> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    RB: From<Full<Bytes>>,
{
    type Response = Response<RB>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // Unwind safety: after a panic the future is not polled again. The inner service may be called again, as it would be
    // after a dropped future.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(future) => ResponseFuture::Running { future },
            Err(panic) => {
                log(&*panic);
                ResponseFuture::Panicked
            }
        }
    }
}

pin_project! {
    #[project = ResponseFutureProj]
    #[derive(Debug)]
    pub enum ResponseFuture<F> {
        Running { #[pin] future: F },
        Panicked,
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
            ResponseFutureProj::Running { future } => {
                match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                    Ok(poll) => poll,
                    Err(panic) => {
                        log(&*panic);
                        Poll::Ready(Ok(bug()))
                    }
                }
            }
            ResponseFutureProj::Panicked => Poll::Ready(Ok(bug())),
        }
    }
}

fn bug<B: From<Full<Bytes>>>() -> Response<B> {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "standin has a bug")
        .detail("It is not known whether the request reached the app.")
        .proxy_status(ProxyError::ProxyInternalError)
        .into_response()
}

/// The panic hook has told place and backtrace already.
fn log(panic: &(dyn Any + Send)) {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(message, "a request ended in a panic");
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, poll_fn},
    };

    use super::*;
    use crate::testing::{Inner, ok, only};

    #[tokio::test]
    async fn a_panic_in_call_is_a_500_and_the_service_lives_on() {
        let mut calls = 0;
        let mut service = CatchPanicLayer.layer(Inner(|request: Request<()>| {
            calls += 1;
            assert!(calls != 1, "a bug");
            ok(request)
        }));
        let response = service.call(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(only(response.headers(), "proxy-status"), "standin; error=proxy_internal_error");
        assert_eq!(service.call(Request::new(())).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_panic_in_poll_is_a_500() {
        let future = poll_fn(|_| -> Poll<Result<Response<Full<Bytes>>, Infallible>> {
            panic!("a {}", "bug")
        });
        assert_eq!(ResponseFuture::Running { future }.await.unwrap().status(), 500);
        let fine: Ready<Result<_, Infallible>> = std::future::ready(Ok(ok(Request::new(()))));
        assert_eq!(ResponseFuture::Running { future: fine }.await.unwrap().status(), 200);
    }
}
