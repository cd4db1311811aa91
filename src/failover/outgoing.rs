//! The head of a request as the app gets it: the client's, minus what belonged to the client's connection.

use filters::connection_headers::WantsTrailers;
use http::{Uri, Version, header, request::Parts, uri::PathAndQuery};

/// Of a request that goes to the app now, and whose answer goes to its client: with trailers, if it takes them.
pub(super) fn live_head(parts: &mut Parts) {
    let wants_trailers = parts.extensions.get::<WantsTrailers>().copied();
    head(parts);
    if let Some(wants) = wants_trailers {
        wants.ask(&mut parts.headers);
    }
}

/// In origin form and HTTP/1.1. `Expect` ends here: the body is read by us first.
pub(super) fn head(parts: &mut Parts) {
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if let Some(authority) = parts.uri.authority() {
        // HTTP/2 names the host in its pseudo-header.
        if !parts.headers.contains_key(header::HOST)
            && let Ok(host) = authority.as_str().parse()
        {
            parts.headers.insert(header::HOST, host);
        }
        let target =
            parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(target);
    }
    parts.headers.remove(header::EXPECT);
}
