//! The egress pools: that each proxy is one, that names lead somewhere, and that times fit together.

use std::collections::BTreeSet;

use super::{upstream::not_above, zero};
use crate::{
    config::{Config, EgressConfig, RouteConfig, document::Document, near, paths::index},
    egress::{Credentials, ListPlace, MOST_PROXIES, Proxy},
    expr::Expr,
};

pub(super) fn find(config: &Config, document: &mut Document<'_>) {
    for (name, pool) in &config.egress {
        proxies(name, pool, config, document);
        times(name, pool, document);
        session(&["egress", name, "session"], pool.session.as_ref(), document);
        if let Some(source) = &pool.source
            && let Err(message) = source.parse::<ListPlace>()
        {
            document.fault(&["egress", name, "source"], &message);
        }
    }
    for (name, upstream) in &config.upstream {
        let Some(pool) = &upstream.egress else { continue };
        if !config.egress.contains_key(pool) && document.sound(&["egress", pool]) {
            let guess = near::guess(pool, config.egress.keys().map(String::as_str));
            let message = format!("there is no [egress.{pool}]{guess}");
            document.fault(&["upstream", name, "egress"], &message);
        }
    }
    for (name, route) in &config.route {
        of_route(name, route, config, document);
    }
}

fn proxies(name: &str, pool: &EgressConfig, config: &Config, document: &mut Document<'_>) {
    let path = ["egress", name, "proxies"];
    if pool.proxies.is_empty() && pool.source.is_none() && document.is_whole(&path) {
        let message = "has no proxies: write proxies = [\"http://HOST:PORT\"], or a `source`";
        document.fault(&["egress", name], message);
    }
    if pool.proxies.len() > MOST_PROXIES {
        document.fault(&path, &format!("more than {MOST_PROXIES} proxies"));
    }
    if pool.password.is_some() && pool.user.is_none() {
        document.fault(&["egress", name, "password"], "without `user` it is not used");
    }
    if pool.user.as_ref().is_some_and(|user| user.contains(':')) {
        document.fault(&["egress", name, "user"], "a user has no `:` in it");
    }
    let mut names = BTreeSet::new();
    for (at, proxy) in pool.proxies.iter().enumerate() {
        let item = index(at);
        let item = ["egress", name, "proxies", &item];
        match Proxy::parse(proxy.url(), &Credentials::default(), proxy.only_for()) {
            Err(fault) => document.fault(&item, &fault.to_string()),
            Ok(proxy) if !names.insert(proxy.name.clone()) => {
                let message = format!(
                    "`{}` is there twice; give each a name: http://HOST:PORT#NAME",
                    proxy.name
                );
                document.fault(&item, &message);
            }
            Ok(_) => {}
        }
        for route in proxy.only_for() {
            if !config.route.contains_key(route) && document.sound(&["route", route]) {
                let guess = near::guess(route, config.route.keys().map(String::as_str));
                document.fault(&item, &format!("`only_for`: there is no [route.{route}]{guess}"));
            }
        }
    }
}

fn times(name: &str, pool: &EgressConfig, document: &mut Document<'_>) {
    let at = |key| ["egress", name, key];
    zero(document, &at("sync_every"), pool.sync_every);
    zero(document, &at("session_idle"), pool.session_idle);
    if pool.sessions == 0 || pool.sessions > MOST_SESSIONS {
        document.fault(&at("sessions"), &format!("must be from 1 to {MOST_SESSIONS}"));
    }
    if pool.tries.get() > MOST_TRIES {
        document.fault(&at("tries"), &format!("must be at most {MOST_TRIES}"));
    }
    let within = |key| ["egress", name, "cooling", key];
    let cooling = &pool.cooling;
    zero(document, &within("time"), cooling.time);
    zero(document, &within("after_failure"), cooling.after_failure);
    not_above(document, (&within("time"), cooling.time), (&within("max_time"), cooling.max_time));
    not_above(
        document,
        (&within("after_failure"), cooling.after_failure),
        (&within("max_after_failure"), cooling.max_after_failure),
    );
    for (place, status) in cooling.statuses.iter().enumerate() {
        if !(400..600).contains(status) {
            let item = index(place);
            let message = format!("{status} is no status of an error: write 400 to 599");
            document.fault(&["egress", name, "cooling", "statuses", &item], &message);
        }
    }
}

fn of_route(name: &str, route: &RouteConfig, config: &Config, document: &mut Document<'_>) {
    let egress = &route.egress;
    session(&["route", name, "egress", "session"], egress.session.as_ref(), document);
    let lists = [("only", &egress.only), ("deny", &egress.deny)];
    let says_something = egress.session.is_some() || lists.iter().any(|(_, list)| !list.is_empty());
    let Some((upstream, pool)) =
        config.upstream_of(route).map(|(upstream, of)| (upstream, of.egress.as_ref()))
    else {
        return;
    };
    let Some(pool) = pool else {
        if says_something && document.sound(&["upstream", upstream, "egress"]) {
            let message = format!("[upstream.{upstream}] is reached directly: it has no `egress`");
            document.fault(&["route", name, "egress"], &message);
        }
        return;
    };
    let Some(of) = config.egress.get(pool) else { return };
    let known: Vec<_> = of
        .proxies
        .iter()
        .filter_map(|proxy| Proxy::parse(proxy.url(), &Credentials::default(), &[]).ok())
        .map(|proxy| proxy.name)
        .collect();
    let is_told = of.source.is_none() && document.is_whole(&["egress", pool, "proxies"]);
    for (key, list) in lists {
        for (at, proxy) in list.iter().enumerate() {
            let item = index(at);
            let item = ["route", name, "egress", key, &item];
            // With a `source`, who is in the pool is known only while running.
            if is_told && !known.iter().any(|known| **known == **proxy) {
                let guess = near::guess(proxy, known.iter().map(|known| &**known));
                document.fault(&item, &format!("[egress.{pool}] has no proxy `{proxy}`{guess}"));
            } else if key == "only" && egress.deny.contains(proxy) {
                document.fault(&item, &format!("`{proxy}` is in `deny` too"));
            }
        }
    }
}

/// Sessions are known before the body is read.
fn session(path: &[&str], session: Option<&Expr>, document: &mut Document<'_>) {
    let Some(session) = session else { return };
    if session.reads_body() {
        document.fault(path, "there is no `body` here: only the head of the request is known");
    } else if session.reads_response() {
        document.fault(path, "there is no `response` here: only the rules of `replay` have one");
    }
}

const MOST_SESSIONS: usize = 1_000_000;
const MOST_TRIES: u32 = 16;
