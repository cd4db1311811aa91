//! What is well written and still cannot be: keys that contradict one another, or a promise of standin.
//!
//! A key that was at fault before is left alone: what stands in the configuration for it was not written by anybody.

mod answer;
mod backup;
mod connections;
mod egress;
mod headers;
mod replay;
mod route;
mod stand_in;
mod tls;
mod upstream;

use std::{net::SocketAddr, path::Path, time::Duration};

use super::{Config, document::Document, units::write_size};

/// Reports every contradiction. `folder`: where relative files are.
pub(super) fn find(config: &Config, document: &mut Document<'_>, folder: &Path) {
    addresses(config, document);
    admin(config, document);
    limits(config, document);
    tls::listen(&config.listen, document, folder);
    headers::request_id(&config.request_id.header, document);
    store(config, document);
    if config.workers.is_some_and(|workers| workers.get() > MOST_WORKERS) {
        document.fault(&["workers"], &format!("more than {MOST_WORKERS} threads"));
    }
    upstream::find(config, document, folder);
    backup::find(config, document);
    route::find(config, document, folder);
    egress::find(config, document);
}

fn addresses(config: &Config, document: &mut Document<'_>) {
    let listen = (["listen", "address"], config.listen.address);
    let admin = (["admin", "address"], config.admin.address);
    let health = config.admin.health.map(|address| (["admin", "health"], address));
    let mut used = vec![listen];
    for (key, address) in std::iter::once(admin).chain(health) {
        if let Some((other, _)) = used.iter().find(|(_, other)| same_place(*other, address)) {
            // Blame the key that somebody wrote.
            let (blamed, other) =
                if document.is_written(&key) { (key, *other) } else { (*other, key) };
            let message =
                format!("{address} is the address of `{}` too: give each its own", other.join("."));
            if document.sound(&other) {
                document.fault(&blamed, &message);
            }
        }
        used.push((key, address));
    }
}

fn admin(config: &Config, document: &mut Document<'_>) {
    let admin = &config.admin;
    if !admin.address.ip().is_loopback() && admin.token.is_none() {
        document.fault(
            &["admin", "address"],
            "is open to other machines: set `admin.token`, or listen on 127.0.0.1",
        );
    }
    if let Some(token) = &admin.token {
        if token.0.is_empty() {
            document.fault(&["admin", "token"], "empty: write one of at least 16 characters");
        } else if !token.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            document.fault(
                &["admin", "token"],
                "cannot stand in a header: use visible ASCII without spaces",
            );
        }
    }
    if config.replay.signing_key.as_ref().is_some_and(|key| key.0.len() < SHORTEST_KEY) {
        let message = format!("too short: write at least {SHORTEST_KEY} characters");
        document.fault(&["replay", "signing_key"], &message);
    }
    for host in &admin.hosts {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(fits) {
            document.fault(
                &["admin", "hosts"],
                &format!("`{host}` is not a host name: write for example \"standin.example\""),
            );
        }
    }
}

fn limits(config: &Config, document: &mut Document<'_>) {
    let limits = &config.listen.limits;
    let counts = [
        ("headers", limits.headers == 0),
        ("body", limits.body == Some(0)),
        ("in_flight", limits.in_flight == 0),
        ("connections", limits.connections == 0),
        ("copied_bodies", limits.copied_bodies == 0),
        ("head_timeout", limits.head_timeout.is_zero()),
        ("body_idle", limits.body_idle.is_zero()),
        ("write_idle", limits.write_idle.is_zero()),
    ];
    for (key, _) in counts.into_iter().filter(|(_, zero)| *zero) {
        let message = "must not be zero: nothing could pass";
        document.fault(&["listen", "limits", key], message);
    }
    if !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&limits.head) {
        let (low, high) = (write_size(SMALLEST_HEAD), write_size(LARGEST_HEAD));
        document.fault(&["listen", "limits", "head"], &format!("must be from {low} to {high}"));
    }
    if limits.headers > MOST_HEADERS {
        let message = format!("must be at most {MOST_HEADERS}");
        document.fault(&["listen", "limits", "headers"], &message);
    }
}

fn store(config: &Config, document: &mut Document<'_>) {
    let store = &config.store;
    if store.path.as_os_str().is_empty() {
        document.fault(&["store", "path"], "empty: write the name of a file");
    }
    if store.max_bytes < SMALLEST_STORE {
        let least = write_size(SMALLEST_STORE);
        document.fault(&["store", "max_bytes"], &format!("must be at least {least}"));
    }
    zero(document, &["store", "retention"], store.retention);
    zero(document, &["store", "dedupe_window"], store.dedupe_window);
}

/// A duration that must not be zero.
fn zero(document: &mut Document<'_>, path: &[&str], span: Duration) {
    if span.is_zero() {
        document.fault(path, "must not be zero");
    }
}

/// Whether two listeners would fight for one address.
fn same_place(one: SocketAddr, two: SocketAddr) -> bool {
    let wild = one.ip().is_unspecified() || two.ip().is_unspecified();
    one.port() != 0 && one.port() == two.port() && (wild || one.ip() == two.ip())
}

/// A key that can be guessed signs nothing.
const SHORTEST_KEY: usize = 16;
const MOST_WORKERS: usize = 1024;
/// hyper reads a head into one buffer, which it wants to be no smaller.
const SMALLEST_HEAD: u64 = 8 << 10;
const LARGEST_HEAD: u64 = 1 << 20;
const MOST_HEADERS: usize = 10_000;
const SMALLEST_STORE: u64 = 1 << 20;
