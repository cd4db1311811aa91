//! `[upstream.NAME.connections]` and `http2`: that no key is without effect, and that the limits fit together.

use super::{upstream::not_above, zero};
use crate::config::{Http2, UpstreamConfig, document::Document, is_https};

pub(super) fn find(name: &str, upstream: &UpstreamConfig, document: &mut Document<'_>) {
    let at = |key| ["upstream", name, "connections", key];
    let connections = &upstream.connections;
    zero(document, &at("idle_time"), connections.idle_time);
    zero(document, &at("ping_timeout"), connections.ping_timeout);
    if connections.max.is_none() && document.is_written(&at("queue")) {
        document.fault(&at("queue"), "has no effect without `max`: nobody waits");
    }
    kept_open(name, upstream, document);
    // What is kept open is older than `idle_time`, and so worth a doubt.
    if connections.keep_open == 0 && document.is_written(&at("trust_idle")) {
        not_above(
            document,
            (&at("trust_idle"), connections.trust_idle),
            (&at("idle_time"), connections.idle_time),
        );
    }
    http2(name, upstream, document);
    if upstream.egress.is_some() {
        for key in ["max", "queue", "keep_open"] {
            if document.is_written(&at(key)) {
                let message = "has no effect with `egress`: each proxy has connections of its own";
                document.fault(&at(key), message);
            }
        }
    }
}

fn kept_open(name: &str, upstream: &UpstreamConfig, document: &mut Document<'_>) {
    let at = ["upstream", name, "connections", "keep_open"];
    let connections = &upstream.connections;
    let bounds =
        [("max", connections.max.map(std::num::NonZero::get)), ("idle", Some(connections.idle))];
    for (key, bound) in bounds {
        if let Some(bound) = bound.filter(|bound| connections.keep_open > *bound) {
            let message = format!("{} is more than `{key}` = {bound}", connections.keep_open);
            return document.fault(&at, &message);
        }
    }
}

fn http2(name: &str, upstream: &UpstreamConfig, document: &mut Document<'_>) {
    let over_tls = upstream.endpoints.iter().any(|endpoint| is_https(endpoint));
    let at = ["upstream", name, "http2"];
    let endpoints = ["upstream", name, "endpoints"];
    if upstream.http2 == Http2::Alpn
        && !over_tls
        && document.is_written(&at)
        && document.is_whole(&endpoints)
    {
        let message = "has no effect: no endpoint begins with https://; in clear write \
                       http2 = \"prior_knowledge\"";
        document.fault(&at, message);
    }
    let is_spoken = match upstream.http2 {
        Http2::Never => false,
        Http2::Alpn => over_tls,
        Http2::PriorKnowledge => true,
    };
    for key in ["ping", "ping_timeout"] {
        let at = ["upstream", name, "connections", key];
        if !is_spoken && document.is_written(&at) {
            document.fault(&at, "has no effect without HTTP/2");
        }
    }
}
