//! The one form of a checked request: its target, its Host, its cookies.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, Version, header, uri::PathAndQuery};

/// Gives a checked request its one form.
pub(super) fn settle<B>(request: &mut Request<B>) {
    if request.uri().authority().is_some() {
        settle_target(request);
    } else if request.version() < Version::HTTP_11 {
        // RFC 9112 3.2: who sends on what names no host sends an empty field.
        request.headers_mut().entry(header::HOST).or_insert(NO_HOST);
    }
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
}

/// RFC 9112 3.2.2: the target's authority wins over the Host field. RFC 9113 8.3.1: it becomes the Host field.
fn settle_target<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let authority = authority.as_str();
    let same = request.headers().get(header::HOST).is_some_and(|host| host == authority);
    if !same {
        let host = HeaderValue::from_str(authority).expect("checked: a host and port are ASCII");
        request.headers_mut().insert(header::HOST, host);
    }
    let target = match request.uri().path_and_query() {
        Some(target) if target.as_str().starts_with(['/', '*']) => target.clone(),
        Some(target) => PathAndQuery::try_from(format!("/{target}", target = target.as_str()))
            .unwrap_or_else(|_| PathAndQuery::from_static("/")),
        None => PathAndQuery::from_static("/"),
    };
    *request.uri_mut() = Uri::from(target);
}

/// RFC 9113 8.2.3: cookie crumbs are joined before they leave HTTP/2.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..])))
        .expect("valid values joined by valid bytes");
    headers.insert(header::COOKIE, joined);
}

const NO_HOST: HeaderValue = HeaderValue::from_static("");
