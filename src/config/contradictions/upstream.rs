//! The upstreams: that there is one, where it is, and that its times fit together.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use super::{connections, tls, zero};
use crate::config::{
    Config, ResolverConfig, UpstreamConfig, document::Document, parse_endpoint, paths::index,
};

pub(super) fn find(config: &Config, document: &mut Document<'_>, folder: &Path) {
    if config.upstream.is_empty() && document.sound(&["upstream"]) {
        document.fault(
            &["upstream"],
            "there is no app: write [upstream.NAME] with endpoints = [\"http://127.0.0.1:3000\"]",
        );
    }
    let mut defaults = config.upstream.iter().filter(|(_, upstream)| upstream.default);
    if let Some((first, _)) = defaults.next() {
        for (name, _) in defaults {
            let message = format!("`{first}` is the default already: there can be one");
            document.fault(&["upstream", name, "default"], &message);
        }
    }
    for (name, upstream) in &config.upstream {
        endpoints(name, upstream, config, document);
        times(name, upstream, document);
        tls::upstream(name, upstream, document, folder);
        connections::find(name, upstream, document);
        sharing(name, upstream, document);
    }
}

fn endpoints(name: &str, upstream: &UpstreamConfig, config: &Config, document: &mut Document<'_>) {
    let path = ["upstream", name, "endpoints"];
    if upstream.endpoints.is_empty() && document.is_whole(&path) {
        document.fault(&path, "empty: write endpoints = [\"http://HOST:PORT\"]");
    }
    if upstream.endpoints.len() > MOST_ENDPOINTS {
        document.fault(&path, &format!("more than {MOST_ENDPOINTS} endpoints"));
    }
    let ours = [Some(config.listen.address), Some(config.admin.address), config.admin.health];
    for (at, endpoint) in upstream.endpoints.iter().enumerate() {
        let item = index(at);
        let item = ["upstream", name, "endpoints", &item];
        let authority = match parse_endpoint(endpoint) {
            Ok(authority) => authority,
            Err(message) => {
                document.fault(&item, &message);
                continue;
            }
        };
        if upstream.endpoints[..at].contains(endpoint) {
            document.fault(&item, &format!("`{authority}` is there twice"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = match host {
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            host => host.parse().ok(),
        };
        let port = authority.port_u16().unwrap_or_default();
        let itself = |ours: &SocketAddr| {
            address.is_some_and(|address| {
                let local = address.is_loopback() || address.is_unspecified();
                ours.port() == port && (ours.ip() == address || ours.ip().is_unspecified() && local)
            })
        };
        if ours.iter().flatten().any(itself) {
            let message =
                format!("`{authority}` is standin's own address: requests would go round");
            document.fault(&item, &message);
        }
    }
}

fn times(name: &str, upstream: &UpstreamConfig, document: &mut Document<'_>) {
    let at = |key| ["upstream", name, key];
    zero(document, &at("timeout"), upstream.timeout);
    zero(document, &at("connect_timeout"), upstream.connect_timeout);
    zero(document, &at("body_idle"), upstream.body_idle);

    let within = |section, key| ["upstream", name, section, key];
    zero(document, &within("health", "interval"), upstream.health.interval);
    zero(document, &within("health", "timeout"), upstream.health.timeout);
    if let Some(health) = &upstream.health.path {
        let is_path = health.starts_with('/')
            && health.parse::<http::uri::PathAndQuery>().is_ok_and(|read| read.as_str() == health);
        if !is_path {
            let message = format!("`{health}` is not a path: write for example \"/healthz\"");
            document.fault(&within("health", "path"), &message);
        }
    }

    let breaker = &upstream.breaker;
    zero(document, &within("breaker", "min_open"), breaker.min_open);
    for (key, count) in [("failures", breaker.failures), ("successes", breaker.successes)] {
        if count == 0 {
            document.fault(&within("breaker", key), "must not be zero");
        }
    }
    not_above(
        document,
        (&within("breaker", "min_open"), breaker.min_open),
        (&within("breaker", "max_open"), breaker.max_open),
    );
    if let Some(slow) = &breaker.slow {
        let at = |key| ["upstream", name, "breaker", "slow", key];
        zero(document, &at("above"), slow.above);
        if !(slow.quantile > 0.0 && slow.quantile <= 1.0) {
            document.fault(&at("quantile"), "not between 0 and 1");
        }
        if !(1..=MOST_ANSWERS).contains(&slow.of_last) {
            document.fault(&at("of_last"), &format!("not between 1 and {MOST_ANSWERS}"));
        }
    }
}

/// How the endpoints share the requests.
fn sharing(name: &str, upstream: &UpstreamConfig, document: &mut Document<'_>) {
    let within = |section, key| ["upstream", name, section, key];
    let ejection = &upstream.ejection;
    if ejection.failures == 0 {
        document.fault(&within("ejection", "failures"), "must not be zero");
    }
    zero(document, &within("ejection", "time"), ejection.time);
    not_above(
        document,
        (&within("ejection", "time"), ejection.time),
        (&within("ejection", "max_time"), ejection.max_time),
    );
    if ejection.panic_threshold > 100 {
        document.fault(&within("ejection", "panic_threshold"), "more than 100 percent");
    }
    if upstream.retry_budget.percent > MOST_RETRIES {
        let message = format!("more than {MOST_RETRIES} percent: tries would be a flood");
        document.fault(&within("retry_budget", "percent"), &message);
    }
    if let ResolverConfig::Servers(resolver) = &upstream.resolver
        && resolver.servers.is_empty()
    {
        document.fault(
            &within("resolver", "servers"),
            "empty: write servers = [\"127.0.0.1:53\"], or resolver = \"dns\"",
        );
    }
}

/// Two keys of which the first must not be larger; the fault is where something is written.
pub(super) fn not_above(
    document: &mut Document<'_>,
    (low_key, low): (&[&str], std::time::Duration),
    (high_key, high): (&[&str], std::time::Duration),
) {
    if low <= high || !document.sound(low_key) || !document.sound(high_key) {
        return;
    }
    let write = crate::config::units::write_duration;
    let name = |key: &[&str]| key.last().copied().unwrap_or_default().to_owned();
    if document.is_written(high_key) {
        let message = format!("{} is less than `{}` = {}", write(high), name(low_key), write(low));
        document.fault(high_key, &message);
    } else {
        let message = format!("{} is more than `{}` = {}", write(low), name(high_key), write(high));
        document.fault(low_key, &message);
    }
}

const MOST_ENDPOINTS: usize = 256;
const MOST_RETRIES: u32 = 100;
/// Answers that a breaker remembers, per route.
const MOST_ANSWERS: usize = 1000;
