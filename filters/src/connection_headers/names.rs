//! Which fields belong to one hop, and which to all recipients.

pub(super) fn is_for_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "upgrade"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
    )
}

/// Meant for all recipients: no client may nominate these for removal.
pub(super) fn is_for_all_recipients(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "age"
            | "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-language"
            | "content-length"
            | "content-location"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "etag"
            | "expires"
            | "forwarded"
            | "host"
            | "idempotency-key"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "last-modified"
            | "location"
            | "max-forwards"
            | "origin"
            | "pragma"
            | "range"
            | "referer"
            | "retry-after"
            | "set-cookie"
            | "traceparent"
            | "tracestate"
            | "trailer"
            | "transfer-encoding"
            | "user-agent"
            | "vary"
            | "via"
            | "www-authenticate"
            | "x-real-ip"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("standin-")
}

/// RFC 9110 6.5.1: what frames, routes, authenticates, modifies or describes the message must be known before its body.
pub(super) fn is_forbidden_trailer(name: &str) -> bool {
    is_for_one_hop(name)
        || is_for_all_recipients(name) && name != "etag"
        || matches!(
            name,
            "expect"
                | "allow"
                | "proxy-status"
                | "x-request-id"
                | "x-http-method-override"
                | "warning"
        )
        || name.starts_with(':')
}
