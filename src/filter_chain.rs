//! The way of every request: the filters in order, a reason for each place.

use std::{
    convert::Infallible,
    error::Error as StdError,
    future::Future,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
};

use bytes::Bytes;
use filters::{
    access_log::AccessLogLayer, catch_panic::CatchPanicLayer,
    connection_headers::ConnectionHeadersLayer, forwarded::ForwardedLayer,
    in_flight_limit::InFlightLimitLayer, peer::Trust, request_check::RequestCheckLayer,
    request_id::RequestIdLayer,
};
use http::{HeaderName, Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    client_body::ReceivedBody, config::SigningKey, failover::Current, signature::is_genuine,
    stand_in::secrets::names_a_card,
};

/// What the chain is built from.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    pub access_log: bool,
    /// Requests in flight, shared by all workers.
    pub in_flight: Arc<AtomicUsize>,
    pub max_in_flight: usize,
    pub request_id: HeaderName,
    pub trust: Trust,
    /// Knows the replays of another standin.
    pub signing_key: Option<SigningKey>,
    /// Names this process in `Via`.
    pub instance: Arc<str>,
}

/// The way of every request, outermost filter first.
pub fn filter_chain(config: &ChainConfig, failover: Current) -> impl RequestService {
    let router = service_fn(move |request| failover.now().call(request));
    // Read from the bottom: the last layer is the first to see a request.
    let chain = RequestIdLayer::new(config.request_id.clone(), config.trust.clone()).layer(router); // after what a client may nominate for removal
    let chain = forwarded(config).layer(chain); // adds `Via`: after the removal, too
    let chain = ConnectionHeadersLayer::new(config.request_id.clone()).layer(chain); // what belongs to one hop is neither sent nor stored
    let chain = RequestCheckLayer.layer(chain); // nothing inside meets a request that can be read in two ways
    let chain =
        InFlightLimitLayer::new(config.max_in_flight, Arc::clone(&config.in_flight)).layer(chain); // before any work is done
    let chain = CatchPanicLayer.layer(chain); // a bug costs one request, not the process
    AccessLogLayer::new(config.access_log, config.request_id.clone(), names_a_card).layer(chain) // outside the catcher: a panic is logged as the 500 it becomes
}

/// Marks of a replay are kept only where another standin signed them.
fn forwarded(config: &ChainConfig) -> ForwardedLayer {
    let layer = ForwardedLayer::new(&config.instance, config.trust.clone());
    let Some(key) = config.signing_key.clone() else { return layer };
    let id = config.request_id.clone();
    layer.keep_marks_if(move |_, _, headers| is_genuine(&key, &id, headers))
}

/// The chain as the listener sees it.
pub trait RequestService:
    Service<
        Request<ReceivedBody>,
        Response = Response<Self::Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Self::Body>, Infallible>> + 'static,
    > + Clone
    + 'static
{
    type Body: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + 'static;
}

impl<S, B> RequestService for S
where
    S: Service<Request<ReceivedBody>, Response = Response<B>, Error = Infallible, Future: 'static>
        + Clone
        + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + 'static,
{
    type Body = B;
}

/// A service from a function: gives an `async` block a place in the chain without a box.
fn service_fn<F>(function: F) -> ServiceFn<F> {
    ServiceFn(function)
}

#[derive(Clone)]
struct ServiceFn<F>(F);

impl<F, R, Fut, T> Service<R> for ServiceFn<F>
where
    F: FnMut(R) -> Fut,
    Fut: Future<Output = Result<T, Infallible>>,
{
    type Response = T;
    type Error = Infallible;
    type Future = Fut;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Fut {
        (self.0)(request)
    }
}
