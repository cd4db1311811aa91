//! The routes: what they match, where they lead, and that what they promise is protected.

use std::{path::Path, time::Duration};

use super::{headers, replay, stand_in, zero};
use crate::config::{
    Config, RouteConfig, RoutePattern, document::Document, paths::index, units::write_duration,
};
use crate::expr::Expr;

pub(super) fn find(config: &Config, document: &mut Document<'_>, folder: &Path) {
    let mut patterns: Vec<(&str, RoutePattern)> = Vec::new();
    for (name, route) in &config.route {
        let path = ["route", name, "match"];
        match RoutePattern::parse(&route.matches) {
            Ok(pattern) => {
                // Quiet about a filled-in match, which is nobody's.
                if document.sound(&path) {
                    patterns.push((name, pattern));
                }
            }
            Err(fault) => document.fault(&path, &fault.to_string()),
        }
        upstream(name, route, config, document);
        zero_timeouts(name, route, document);
        thresholds(name, route, document);
        if route.labels.len() > MOST_LABELS {
            document.fault(&["route", name, "labels"], &format!("more than {MOST_LABELS} labels"));
        }
        rules(name, route, document);
        replay::find(name, route, config, document);
        if let Some(stand_in) = &route.stand_in {
            stand_in::find(name, route, stand_in, config, document, folder);
        }
    }
    twins(&patterns, document);
    refused_methods(&patterns, document);
    default_upstream(config, document);
    dedupe_window(config, document);
}

fn upstream(name: &str, route: &RouteConfig, config: &Config, document: &mut Document<'_>) {
    let Some(upstream) = &route.upstream else { return };
    if !config.upstream.contains_key(upstream) && document.sound(&["upstream", upstream]) {
        let known = config.upstream.keys().map(String::as_str);
        let mut message = format!("there is no [upstream.{upstream}]");
        message.push_str(&crate::config::near::guess(upstream, known));
        document.fault(&["route", name, "upstream"], &message);
    }
}

fn zero_timeouts(name: &str, route: &RouteConfig, document: &mut Document<'_>) {
    zero(document, &["route", name, "timeout"], route.timeout.unwrap_or(Duration::MAX));
    if let Some(dedupes) = &route.app_dedupes {
        zero(document, &["route", name, "app_dedupes", "for"], dedupes.remembers);
    }
}

/// Each is for a request that the one before was for already.
fn thresholds(name: &str, route: &RouteConfig, document: &mut Document<'_>) {
    let slow = &route.watch.slow;
    if slow.len() > MOST_THRESHOLDS {
        let message = format!("more than {MOST_THRESHOLDS} thresholds");
        document.fault(&["route", name, "watch", "slow"], &message);
    }
    for (at, after) in slow.iter().enumerate() {
        let item = index(at);
        zero(document, &["route", name, "watch", "slow", &item], *after);
        if at > 0 && slow[at - 1] >= *after {
            let message = format!("not longer than {}", write_duration(slow[at - 1]));
            document.fault(&["route", name, "watch", "slow", &item], &message);
        }
    }
}

/// Only the rules of a replay have an answer of the app to look at.
fn rules(name: &str, route: &RouteConfig, document: &mut Document<'_>) {
    let mut rules: Vec<(Vec<&str>, &Expr)> = Vec::new();
    let own = [
        ("dedupe_by", &route.dedupe_by),
        ("principal", &route.principal),
        ("sequence_by", &route.sequence_by),
    ];
    rules.extend(own.iter().filter_map(|(key, rule)| Some((vec![*key], rule.as_ref()?))));
    rules.extend(route.labels.iter().map(|(label, rule)| (vec!["labels", label], rule)));
    if let Some(stand_in) = &route.stand_in {
        let at_most = &stand_in.at_most;
        rules.push((vec!["stand_in", "accept_if"], &stand_in.accept_if));
        rules.extend(
            at_most.sum_of.iter().map(|rule| (vec!["stand_in", "at_most", "sum_of"], rule)),
        );
        let by = at_most.per_customer.iter().filter_map(|customer| customer.by.as_ref());
        rules.extend(by.map(|rule| (vec!["stand_in", "at_most", "per_customer", "by"], rule)));
    }
    for (key, _) in rules.into_iter().filter(|(_, rule)| rule.reads_response()) {
        let path: Vec<&str> = ["route", name].into_iter().chain(key).collect();
        document.fault(&path, "there is no `response` here: only the rules of `replay` have one");
    }
}

/// Two routes for exactly the same requests: one of them would never be used.
fn twins(patterns: &[(&str, RoutePattern)], document: &mut Document<'_>) {
    for (at, (name, pattern)) in patterns.iter().enumerate() {
        let twin = patterns[..at].iter().find(|(_, other)| other.same_requests(pattern));
        if let Some((other, _)) = twin {
            let mut pair = [(*name, *other), (*other, *name)];
            // The later one in the file is the surprise.
            pair.sort_by_key(|(name, _)| {
                document.span_of(&["route", name, "match"]).map(|span| span.start)
            });
            let (later, first) = pair[1];
            let message = format!("`{pattern}` is what [route.{first}] takes already");
            document.fault(&["route", later, "match"], &message);
        }
    }
}

fn refused_methods(patterns: &[(&str, RoutePattern)], document: &mut Document<'_>) {
    for (name, pattern) in patterns {
        let method = pattern.method.as_ref();
        if method.is_some_and(|method| {
            *method == http::Method::CONNECT || *method == http::Method::TRACE
        }) {
            document.fault(
                &["route", name, "match"],
                "standin refuses CONNECT and TRACE itself: this route would never be used",
            );
        }
    }
}

/// With several upstreams, each request must know where it goes.
fn default_upstream(config: &Config, document: &mut Document<'_>) {
    let doubtful = config.upstream.keys().any(|name| {
        !document.sound(&["upstream", name, "default"]) || !document.sound(&["upstream", name])
    });
    let default = config.upstream.values().any(|upstream| upstream.default);
    if config.upstream.len() < 2 || default || doubtful {
        return;
    }
    let homeless: Vec<&str> = config
        .route
        .iter()
        .filter(|(name, route)| {
            route.upstream.is_none() && document.sound(&["route", name, "upstream"])
        })
        .map(|(name, _)| name.as_str())
        .collect();
    let mut message = format!(
        "{} upstreams and none is `default = true`: what no route matches would have no app",
        config.upstream.len()
    );
    if !homeless.is_empty() {
        message.push_str(&format!(", nor would {} without `upstream`", homeless.join(", ")));
    }
    document.fault(&["upstream"], &message);
}

/// Keys must be remembered for as long as an entry may live.
fn dedupe_window(config: &Config, document: &mut Document<'_>) {
    let window = config.store.dedupe_window;
    let key = ["store", "dedupe_window"];
    for (name, route) in &config.route {
        let path = ["route", name, "stand_in", "expires"];
        let Some(expires) = route.stand_in.as_ref().map(|stand_in| stand_in.expires) else {
            continue;
        };
        if expires <= window || !document.sound(&path) || !document.sound(&key) {
            continue;
        }
        let (window, expires) = (write_duration(window), write_duration(expires));
        if document.is_written(&key) {
            let message = format!("{window} is less than `expires` = {expires} of [route.{name}]");
            document.fault(&key, &message);
        } else {
            let message = format!("{expires} is more than `store.dedupe_window` = {window}");
            document.fault(&path, &message);
        }
    }
}

/// `replay.set_headers` and `redact` are in `headers`; this is all of them for one route.
pub(super) fn replay_headers(
    name: &str,
    route: &RouteConfig,
    config: &Config,
    document: &mut Document<'_>,
) {
    let id = &config.request_id.header;
    for (header, value) in &route.replay.set_headers {
        let path = ["route", name, "replay", "set_headers", header];
        headers::of_replay(document, &path, header, value, id);
    }
    for (at, header) in route.replay.redact.iter().enumerate() {
        headers::redacted(document, &["route", name, "replay", "redact", &index(at)], header, id);
    }
}

const MOST_LABELS: usize = 16;
const MOST_THRESHOLDS: usize = 8;
