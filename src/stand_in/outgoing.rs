//! What leaves: what of the request is kept, and the answer as the client gets it.

use std::{borrow::Cow, net::IpAddr};

use bytes::Bytes;
use filters::problem::{PROXY_STATUS, ProxyError, ProxyStatus};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::{
    Cause,
    answer::{ADDED, Rendered},
};
use crate::store::{Kept, KeptAnswer, Reason};

/// Not kept with the request: what is said anew with each send, and what the route does not keep. What belonged to the
/// connection is gone already.
pub(super) fn is_left_out(name: &HeaderName, redacted: &[HeaderName]) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING || redacted.contains(name)
}

/// As text, in `room` if it fits. Nearly all are of the short kind, for which the general way is slow.
pub(super) fn address(address: IpAddr, room: &mut [u8; 16]) -> Cow<'_, str> {
    let IpAddr::V4(address) = address.to_canonical() else {
        return address.to_canonical().to_string().into();
    };
    let mut length = 0;
    let mut push = |byte| {
        room[length] = byte;
        length += 1;
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    std::str::from_utf8(&room[..length]).unwrap_or_default().into()
}

/// A kept answer on its way to the client: the app's words, and in `Proxy-Status` who speaks.
pub(super) fn response<B: From<Full<Bytes>>>(
    kept: Kept<impl Into<Rendered>>,
    cause: Option<&Cause>,
) -> Response<B> {
    let (answer, receipt) = kept.into_parts();
    let Rendered { status, headers, body } = answer.into();
    let mut response = Response::new(B::from(Full::new(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let mut details = String::with_capacity(32);
    details.push_str("stored, receipt ");
    receipt.push_to(&mut details);
    let status = ProxyStatus::new()
        .error(cause.map_or(ProxyError::ProxyInternalResponse, |cause| proxy_error(cause.reason)))
        .details(details);
    response.headers_mut().insert(PROXY_STATUS, status.to_value());
    response
}

impl From<KeptAnswer> for Rendered {
    fn from(answer: KeptAnswer) -> Self {
        let mut headers = HeaderMap::new();
        let _ = headers.try_reserve(answer.headers.len() + ADDED);
        for (name, value) in answer.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::from_maybe_shared(value))
            {
                headers.append(name, value);
            }
        }
        // Both were checked when the answer was made.
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::ACCEPTED);
        Self { status, headers, body: answer.body }
    }
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
            assert_eq!(address(text.parse().unwrap(), &mut [0; 16]), text);
        }
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(address(mapped, &mut [0; 16]), "192.0.2.1");
    }
}
