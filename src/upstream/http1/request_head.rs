//! Writes the head of a request. How its body is marked off comes from the body itself, never from a field: the two
//! cannot disagree.

use std::io::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use http_body::Body;

use super::{response_head::has_option, sending::Framing};
use crate::upstream::request_body::RequestBody;

/// What was written.
pub(super) struct Written {
    pub(super) framing: Framing,
    /// The request says that it is the connection's last one.
    pub(super) closes: bool,
}

/// Request line and fields, and the empty line. A `Content-Length` is written where there was one, with what is true.
pub(super) fn write(parts: &Parts, body: &RequestBody, buffer: &mut Vec<u8>) -> Written {
    let framing = framing(&parts.headers, body);
    let is_chunked = matches!(framing, Framing::Chunked(_));
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    // A proxy is told where to go (RFC 9112, 3.2.2); the app knows.
    let place = parts.uri.authority().filter(|_| parts.uri.scheme().is_some());
    buffer.reserve(TYPICAL_LINE + parts.headers.len() * TYPICAL_FIELD + target.len());
    let place = place.map_or(["", ""], |place| ["http://", place.as_str()]);
    for piece in [parts.method.as_str(), " ", place[0], place[1], target, " HTTP/1.1\r\n"] {
        buffer.extend_from_slice(piece.as_bytes());
    }
    let (mut closes, mut has_length) = (false, false);
    for (name, value) in &parts.headers {
        match *name {
            header::CONTENT_LENGTH if is_chunked || has_length => {}
            header::CONTENT_LENGTH => {
                has_length = true;
                write_length(buffer, &framing);
            }
            // One hop's business, and this hop has its own.
            header::TRANSFER_ENCODING => {}
            header::CONNECTION => {
                closes |= has_option(value, "close");
                write_field(buffer, name, value);
            }
            _ => write_field(buffer, name, value),
        }
    }
    if is_chunked {
        buffer.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if !has_length && framing != Framing::Length(0) {
        write_length(buffer, &framing);
    }
    buffer.extend_from_slice(b"\r\n");
    Written { framing, closes }
}

/// RFC 9112 6: a length where it is known. A request that came in chunks goes on in chunks.
fn framing(headers: &HeaderMap, body: &RequestBody) -> Framing {
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    match body.size_hint().exact() {
        Some(length) if !headers.contains_key(header::TRANSFER_ENCODING) => Framing::Length(length),
        _ => Framing::Chunked(announced_trailers(headers)),
    }
}

fn write_length(buffer: &mut Vec<u8>, framing: &Framing) {
    if let Framing::Length(length) = framing {
        write!(buffer, "content-length: {length}\r\n").ok();
    }
}

pub(super) fn write_field(buffer: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        buffer.extend_from_slice(piece);
    }
}

/// RFC 9110 6.6.2: what the head says will come behind the body.
fn announced_trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// RFC 9110 6.5.1: not what frames, routes, authenticates or describes the message.
pub(in crate::upstream) fn may_be_trailer(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::HOST
            | header::MAX_FORWARDS
            | header::SET_COOKIE
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
    )
}

const TYPICAL_LINE: usize = 64;
const TYPICAL_FIELD: usize = 48;
