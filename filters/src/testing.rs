//! For the filters' own tests: an inner service from a closure, and answers with bodies.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower_service::Service;

use crate::peer::{Client, FromClient};

/// The inner service: a closure from request to response.
#[derive(Clone)]
pub(crate) struct Inner<F>(pub(crate) F);

impl<F, B, RB> Service<Request<B>> for Inner<F>
where
    F: FnMut(Request<B>) -> Response<RB>,
{
    type Response = Response<RB>;
    type Error = Infallible;
    type Future = Ready<Result<Response<RB>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok((self.0)(request)))
    }
}

/// The body of a request from somebody: nothing else.
impl FromClient for Option<Client> {
    fn client(&self) -> Option<&Client> {
        self.as_ref()
    }

    fn note_new_id(&mut self) {}

    fn id_is_new(&self) -> bool {
        false
    }
}

/// An inner service that answers 200 with an empty body.
pub(crate) fn ok<B>(_request: Request<B>) -> Response<Full<Bytes>> {
    Response::new(Full::default())
}

pub(crate) async fn text<B: http_body::Body<Error: std::fmt::Debug>>(body: B) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The one value of a field; panics when there is none or more than one.
pub(crate) fn only<'a>(headers: &'a http::HeaderMap, name: &str) -> &'a str {
    let mut values = headers.get_all(name).iter();
    let value = values.next().unwrap_or_else(|| panic!("no {name} in {headers:?}"));
    assert!(values.next().is_none(), "more than one {name} in {headers:?}");
    value.to_str().unwrap()
}
