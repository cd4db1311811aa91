//! Which headers a configuration may name, and for what.

use http::{HeaderName, HeaderValue};

use crate::{config::document::Document, template::Template};

/// `request_id.header`
pub(super) fn request_id(name: &str, document: &mut Document<'_>) {
    let path = ["request_id", "header"];
    let Some(header) = named(document, &path, name) else { return };
    let taken = OF_ONE_HOP.contains(&header.as_str())
        || OF_THE_MESSAGE.contains(&header.as_str())
        || OURS.contains(&header.as_str())
        || header.as_str().starts_with("standin-")
        || header.as_str().starts_with("x-forwarded-");
    if taken {
        let message =
            format!("`{name}` has a meaning of its own: use for example \"x-request-id\"");
        document.fault(&path, &message);
    }
}

/// `answer.headers`; `id` is the header of the request id.
pub(super) fn of_answer(
    document: &mut Document<'_>,
    path: &[&str],
    name: &str,
    value: &str,
    id: &str,
) {
    let Some(header) = named(document, path, name) else { return };
    let header = header.as_str();
    if OF_ONE_HOP.contains(&header) || header == "content-length" {
        document.fault(path, "says how a message is framed, which is not the answer's to say");
    } else if OURS.contains(&header) || header.starts_with("standin-") || is_protection(header, id)
    {
        document.fault(path, "is set by standin itself: leave it out");
    }
    match Template::compile(value) {
        Err(fault) => document.fault(path, &fault.to_string()),
        Ok(template) if template.is_fixed() => value_fits(document, path, value),
        Ok(_) => {}
    }
}

/// `replay.set_headers`
pub(super) fn of_replay(
    document: &mut Document<'_>,
    path: &[&str],
    name: &str,
    value: &str,
    id: &str,
) {
    let Some(header) = named(document, path, name) else { return };
    let header = header.as_str();
    if OF_ONE_HOP.contains(&header) || header == "content-length" {
        document.fault(path, "says how a message is framed: replays keep what was received");
    } else if is_protection(header, id) {
        document.fault(path, "is how the app knows a duplicate: it cannot be replaced");
    } else if OURS.contains(&header) || header.starts_with("standin-") {
        document.fault(path, "is set by standin itself: leave it out");
    }
    value_fits(document, path, value);
}

/// `replay.redact`
pub(super) fn redacted(document: &mut Document<'_>, path: &[&str], name: &str, id: &str) {
    let Some(header) = named(document, path, name) else { return };
    let header = header.as_str();
    if OF_ONE_HOP.contains(&header) {
        document
            .fault(path, &format!("`{name}` belongs to one hop and is never kept: leave it out"));
    } else if ["host", "content-length", "content-type", "content-encoding"].contains(&header) {
        document.fault(path, &format!("without `{name}` the app could not read the replay"));
    } else if is_protection(header, id) {
        document
            .fault(path, &format!("`{name}` is how the app knows a duplicate: it must be kept"));
    }
}

fn is_protection(header: &str, id: &str) -> bool {
    header == "idempotency-key" || header.eq_ignore_ascii_case(id)
}

fn named(document: &mut Document<'_>, path: &[&str], name: &str) -> Option<HeaderName> {
    let header =
        HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| name.len() <= LONGEST_NAME);
    if header.is_none() {
        document.fault(path, &format!("`{name}` is not the name of a header"));
    }
    header
}

fn value_fits(document: &mut Document<'_>, path: &[&str], value: &str) {
    if !HeaderValue::from_str(value).is_ok_and(|value| value.to_str().is_ok()) {
        document.fault(path, "cannot be the value of a header: use visible ASCII in one line");
    }
}

/// RFC 9110, 7.6.1: fields about one connection, and what goes with them.
const OF_ONE_HOP: [&str; 10] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields whose value others act upon.
const OF_THE_MESSAGE: [&str; 22] = [
    "accept",
    "accept-encoding",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "etag",
    "host",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "location",
    "origin",
    "proxy-authorization",
    "range",
    "retry-after",
    "set-cookie",
    "user-agent",
    "vary",
];

/// Fields that standin writes.
const OURS: [&str; 4] = ["date", "forwarded", "proxy-status", "via"];

const LONGEST_NAME: usize = 128;
