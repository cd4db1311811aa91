//! What leaves: what of the request is kept, and the answer as the client gets it.

use std::net::IpAddr;

use bytes::Bytes;
use filters::problem::{PROXY_STATUS, ProxyError, ProxyStatus};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::Cause;
use crate::store::{Kept, Reason};

/// Not kept with the request: what is said anew with each send, and what the route does not keep. What belonged to the
/// connection is gone already.
pub(super) fn is_left_out(name: &HeaderName, redacted: &[HeaderName]) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING || redacted.contains(name)
}

/// As text. Nearly all are of the short kind, for which the general way is slow.
pub(super) fn address(address: IpAddr) -> String {
    let IpAddr::V4(address) = address.to_canonical() else {
        return address.to_canonical().to_string();
    };
    let mut text = String::with_capacity(15);
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        if octet >= 100 {
            text.push(char::from(b'0' + octet / 100));
        }
        if octet >= 10 {
            text.push(char::from(b'0' + octet / 10 % 10));
        }
        text.push(char::from(b'0' + octet % 10));
    }
    text
}

/// A kept answer on its way to the client: the app's words, and in `Proxy-Status` who speaks.
pub(super) fn response<B: From<Full<Bytes>>>(kept: Kept, cause: Option<&Cause>) -> Response<B> {
    let (answer, receipt) = kept.into_parts();
    let mut response = Response::new(B::from(Full::new(answer.body)));
    // Both were checked when the answer was made.
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::ACCEPTED);
    // With what the filters add: it does not grow.
    let _ = response.headers_mut().try_reserve(answer.headers.len() + 4);
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
        Reason::Forced
        | Reason::Deferred
        | Reason::Standby
        | Reason::SequenceHeld
        | Reason::NoWayOut => ProxyError::ProxyInternalResponse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_always() {
        for text in ["0.0.0.0", "127.0.0.1", "10.9.99.100", "255.200.110.105", "::1", "2001:db8::1"]
        {
            assert_eq!(address(text.parse().unwrap()), text);
        }
        assert_eq!(address("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1");
    }
}
