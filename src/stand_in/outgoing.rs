//! What leaves: the request as it is kept, and the answer as the client gets it.

use bytes::Bytes;
use filters::problem::{PROXY_STATUS, ProxyError, ProxyStatus};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::{Asked, Cause};
use crate::{
    store::{KeptAnswer, Reason, Receipt, StoredRequest},
    upstream::body_copy::WholeBody,
};

/// The request as received, minus what belonged to its connection and what the route does not keep.
pub(super) fn stored(
    asked: &Asked<'_>,
    body: &WholeBody,
    redacted: &[HeaderName],
) -> StoredRequest {
    StoredRequest {
        method: asked.head.method.as_str().to_owned(),
        target: asked.head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        headers: fields(&asked.head.headers, |name| {
            !FRAMING.contains(name) && !redacted.contains(name)
        }),
        body: body.bytes.clone(),
        trailers: body
            .trailers
            .as_ref()
            .map_or_else(Vec::new, |trailers| fields(trailers, |name| !redacted.contains(name))),
        client_ip: asked.client_ip.to_canonical().to_string(),
    }
}

/// Said anew with each send.
const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

fn fields(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Vec<(String, Bytes)> {
    headers
        .iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

/// A kept answer on its way to the client: the app's words, and in `Proxy-Status` who speaks.
pub(super) fn response<B: From<Full<Bytes>>>(
    answer: KeptAnswer,
    receipt: Receipt,
    cause: Option<&Cause>,
) -> Response<B> {
    let mut response = Response::new(B::from(Full::new(answer.body)));
    // Both were checked when the answer was made.
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::ACCEPTED);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::from_maybe_shared(value))
        {
            response.headers_mut().append(name, value);
        }
    }
    let status = ProxyStatus::new()
        .error(cause.map_or(ProxyError::ProxyInternalResponse, |cause| proxy_error(cause.reason)))
        .details(format!("stored, receipt {receipt}"));
    response.headers_mut().insert(PROXY_STATUS, status.to_value());
    response
}

fn proxy_error(reason: Reason) -> ProxyError {
    match reason {
        Reason::ConnectFailed => ProxyError::ConnectionRefused,
        Reason::TimedOut => ProxyError::HttpResponseTimeout,
        Reason::Reset => ProxyError::ConnectionTerminated,
        Reason::BadStatus | Reason::BreakerOpen => ProxyError::DestinationUnavailable,
        Reason::Forced | Reason::Deferred | Reason::Standby | Reason::SequenceHeld => {
            ProxyError::ProxyInternalResponse
        }
    }
}
