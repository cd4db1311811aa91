//! The head of a request as HTTP/2 has it (RFC 9113 8.3): the target in pseudo-headers, nothing of a connection, and a
//! length that comes from the body alone.

use http::{
    HeaderMap, Request, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;

use crate::upstream::request_body::RequestBody;

/// The head to send. `authority` is where no `Host` says it.
pub(super) fn translate(
    parts: &Parts,
    body: &RequestBody,
    scheme: Scheme,
    authority: &str,
) -> Result<Request<()>, http::Error> {
    let host = parts.headers.get(header::HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = http::uri::Parts::default();
    target.scheme = Some(scheme);
    target.authority = Some(match host {
        Some(host) => host,
        None => authority.parse()?,
    });
    let path = parts.uri.path_and_query().cloned();
    target.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let length = length(&parts.headers, body);
    let mut headers = without_connection(&parts.headers);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_parts(target)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A length is said where there was one, and where a body has one; what came in chunks goes on without.
fn length(headers: &HeaderMap, body: &RequestBody) -> Option<u64> {
    let was_said = headers.contains_key(header::CONTENT_LENGTH);
    if body.is_end_stream() {
        return was_said.then_some(0);
    }
    body.size_hint().exact().filter(|_| !headers.contains_key(header::TRANSFER_ENCODING))
}

/// Without what HTTP/2 does not have, or says elsewhere. The order stays.
fn without_connection(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let ends_here = match *name {
            header::CONNECTION
            | header::CONTENT_LENGTH
            | header::HOST
            | header::TRANSFER_ENCODING
            | header::UPGRADE => true,
            header::TE => value != "trailers",
            _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
        };
        if !ends_here {
            kept.append(name, value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::upstream::WholeBody;

    fn translated(request: Request<RequestBody>) -> Request<()> {
        let (parts, body) = request.into_parts();
        translate(&parts, &body, Scheme::HTTP, "127.0.0.1:80").unwrap()
    }

    fn whole(text: &'static str) -> RequestBody {
        WholeBody { bytes: text.into(), trailers: None }.into()
    }

    #[test]
    fn the_host_becomes_the_authority_and_the_connection_stays_behind() {
        let request = Request::post("/orders?x=1")
            .header("host", "shop.example")
            .header("connection", "te, close")
            .header("te", "trailers")
            .header("keep-alive", "timeout=5")
            .header("content-length", "99")
            .header("x-request-id", "1")
            .body(whole("four"));
        let request = translated(request.unwrap());
        assert_eq!(request.uri(), "http://shop.example/orders?x=1");
        let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["te", "x-request-id", "content-length"]);
        assert_eq!(request.headers()["content-length"], "4");
    }

    #[test]
    fn without_a_host_it_is_the_endpoint_and_without_a_body_no_length() {
        let request = translated(Request::get("/").body(RequestBody::Empty).unwrap());
        assert_eq!(request.uri(), "http://127.0.0.1:80/");
        assert!(request.headers().is_empty());
        let said = Request::post("/").header("content-length", "0").header("te", "gzip");
        let request = translated(said.body(RequestBody::Empty).unwrap());
        assert_eq!(request.headers()["content-length"], "0");
        assert!(!request.headers().contains_key("te"));
    }

    #[test]
    fn what_came_in_chunks_goes_on_without_a_length() {
        let chunked = Request::post("/").header("transfer-encoding", "chunked");
        let request = translated(chunked.body(whole("four")).unwrap());
        assert!(request.headers().is_empty());
    }
}
