//! Which route a request takes: the most specific match on the canonical path.

mod backups;
mod live;

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use http::{Method, Request, header};

pub use self::{
    backups::{Backups, Count},
    live::LiveRoutes,
};
use crate::{
    canonical::canonical_path,
    config::{Config, Difference, RouteConfig, matching::RoutePattern},
    egress::{Lane, Pools},
    telemetry::Threshold,
    time::UnixMillis,
    upstream::{Bulkhead, Of, RouteBreaker, Upstream},
    veto::Veto,
};

/// One route, ready for use; shared by all threads.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// Position among all routes.
    pub index: usize,
    /// Its place in counters: kept over reloads. Place 0 counts requests without a route.
    pub place: usize,
    pub pattern: RoutePattern,
    pub upstream: Arc<Upstream>,
    /// Position of the upstream among all.
    pub upstream_index: usize,
    pub breaker: Arc<RouteBreaker>,
    /// The more specific routes that a path of this one could mean to an app, where it stands in.
    rivals: Vec<usize>,
    /// What the app has said to being stood in for.
    pub veto: Arc<Veto>,
    /// From the request fully sent to the head of the answer.
    pub timeout: Duration,
    /// None: no limit.
    pub bulkhead: Option<Bulkhead>,
    /// When a request of it is warned of.
    pub slow: Vec<Threshold>,
    /// Its way into the upstream's pool of egress proxies, where there is one.
    pub egress: Option<Lane>,
    pub config: RouteConfig,
}

impl Route {
    /// The app notices a duplicate of what came at `received_at` until then; none: it does not at all.
    pub fn protected_until(&self, received_at: UnixMillis) -> Option<UnixMillis> {
        self.config.app_dedupes.as_ref().map(|dedupes| received_at.plus(dedupes.remembers))
    }
}

/// All routes, most specific first, and where the rest goes.
#[derive(Debug, Default)]
pub struct Routes {
    pub all: Vec<Arc<Route>>,
    pub upstreams: Vec<Arc<Upstream>>,
    /// By the position of the upstream; none where it has no limit.
    pub bulkheads: Vec<Option<Arc<Bulkhead>>>,
    /// By the position of the upstream; none where it has no backup.
    pub backups: Vec<Option<Backups>>,
    /// Of requests without a route, at the default upstream.
    pub without_route: Option<Arc<RouteBreaker>>,
    /// Position of the upstream that takes what no route matches.
    pub default_upstream: usize,
    /// The places in counters of all routes that ever were, by name.
    places: HashMap<Arc<str>, usize>,
    /// Pools of egress proxies; none unless configured.
    pub egress: Pools,
}

/// What the router found for one request.
#[derive(Clone, Debug)]
pub struct Matched {
    /// None: no route matches, the default upstream takes it.
    pub route: Option<Arc<Route>>,
    pub upstream_index: usize,
    /// The canonical path, where the raw one is not that already.
    pub path: Option<String>,
    /// Path parameters, decoded.
    pub params: Vec<(String, String)>,
    /// False where two parsers could read the path in two ways, or the app could take it for one of a more specific
    /// route: then it is passed through and never stood in for.
    pub exact_path: bool,
}

/// A route that names what is not there: the configuration check lets none of them through.
#[derive(Debug, thiserror::Error)]
#[error("route `{route}`: {cause}")]
pub struct RouteFault {
    route: String,
    cause: String,
}

impl Routes {
    /// From a configuration that was checked.
    pub fn new(config: &Config) -> Result<Self, RouteFault> {
        Self::default().changed(config, &[])
    }

    /// What these routes become by a configuration that was checked. An upstream without a difference stays as it is,
    /// with its connections and all that is known of it; a changed one takes over what was seen.
    pub fn changed(&self, config: &Config, differences: &[Difference]) -> Result<Self, RouteFault> {
        let egress = self
            .egress
            .changed(&config.egress)
            .map_err(|fault| RouteFault { route: "-".to_owned(), cause: fault.to_string() })?;
        let pool = |name: &Option<String>| name.as_ref().and_then(|name| egress.get(name));
        let upstreams: Vec<_> = config
            .upstream
            .iter()
            .map(|(name, of)| {
                let before = self.upstreams.iter().find(|upstream| *upstream.name == **name);
                let section = format!("upstream.{name}.");
                let is_other = differences.iter().any(|one| one.key.starts_with(&section));
                let lane = pool(&of.egress).map(|pool| Lane::new(pool, None));
                match before {
                    Some(same) if !is_other => Arc::clone(same),
                    Some(before) => Upstream::instead_of(before, of.clone(), lane),
                    None => Upstream::by_way_of(name, of.clone(), lane),
                }
            })
            .collect();
        let mut places = self.places.clone();
        let default_upstream =
            config.upstream.values().position(|upstream| upstream.default).unwrap_or(0);
        let mut patterns = Vec::new();
        for (name, route) in &config.route {
            let fault =
                |cause: &dyn Display| RouteFault { route: name.clone(), cause: cause.to_string() };
            patterns.push((
                RoutePattern::parse(&route.matches).map_err(|cause| fault(&cause))?,
                name,
                route,
            ));
        }
        patterns.sort_by(|a, b| a.0.cmp(&b.0));
        let mut all = Vec::new();
        for (index, (pattern, name, route)) in patterns.into_iter().enumerate() {
            let upstream_index = match &route.upstream {
                None => default_upstream,
                Some(wanted) => upstreams
                    .iter()
                    .position(|upstream| *upstream.name == **wanted)
                    .ok_or_else(|| RouteFault {
                        route: name.clone(),
                        cause: format!("there is no upstream `{wanted}`"),
                    })?,
            };
            let Some(upstream) = upstreams.get(upstream_index).cloned() else {
                return Err(RouteFault {
                    route: name.clone(),
                    cause: "there is no upstream".to_owned(),
                });
            };
            let timeout = route.timeout.unwrap_or(upstream.config.timeout);
            let egress =
                pool(&upstream.config.egress).map(|pool| Lane::new(pool, Some((name, route))));
            let (name, config): (Arc<str>, _) = (name.as_str().into(), route.clone());
            let next = places.len() + 1;
            let place = *places.entry(Arc::clone(&name)).or_insert(next);
            let before = self.by_name(&name);
            let slow = before.map_or(&[][..], |before| &before.slow[..]);
            let slow = Threshold::all(&config.watch.slow, slow);
            let veto = Veto::of(&upstream.name, before.map(|before| &before.veto));
            let before = before.and_then(|before| before.bulkhead.as_ref());
            let breaker = upstream.of_route(&name);
            let is_rival = |other: &Arc<Route>| {
                config.stand_in.is_some() && other.pattern.could_meet(&pattern)
            };
            let rivals = all.iter().filter(|other| is_rival(other)).map(|other| other.index);
            all.push(Arc::new(Route {
                rivals: rivals.collect(),
                breaker,
                veto,
                name,
                index,
                place,
                pattern,
                upstream,
                upstream_index,
                timeout,
                egress,
                bulkhead: Bulkhead::new(Of::Route, config.in_flight, before),
                slow,
                config,
            }));
        }
        let default = upstreams.get(default_upstream);
        let without_route = default.map(|upstream| upstream.of_route(&"".into()));
        let bulkheads = upstreams.iter().map(|upstream| self.bulkhead_of(upstream)).collect();
        let backups = upstreams.iter().map(|upstream| {
            let before = self.upstreams.iter().zip(&self.backups);
            let before = before.filter(|(other, _)| other.name == upstream.name);
            let before = before.filter_map(|(_, backups)| backups.as_ref()).next();
            Backups::of(&upstream.name, config, before)
        });
        let backups = backups.collect();
        Ok(Self {
            all,
            upstreams,
            bulkheads,
            backups,
            without_route,
            default_upstream,
            places,
            egress,
        })
    }

    /// The limit of an upstream that is to come; who is in flight at the one of its name still counts.
    fn bulkhead_of(&self, upstream: &Upstream) -> Option<Arc<Bulkhead>> {
        let before = self.upstreams.iter().zip(&self.bulkheads);
        let before = before.filter(|(other, _)| other.name == upstream.name);
        let before = before.filter_map(|(_, bulkhead)| bulkhead.as_deref()).next();
        Bulkhead::new(Of::Upstream, upstream.config.in_flight, before).map(Arc::new)
    }

    /// How many places counters need.
    pub fn places(&self) -> usize {
        self.places.len() + 1
    }

    /// The route of that name (for entries: policy comes from today's route).
    pub fn by_name(&self, name: &str) -> Option<&Arc<Route>> {
        self.all.iter().find(|route| &*route.name == name)
    }

    /// Which route takes the request.
    pub fn find<B>(&self, request: &Request<B>) -> Matched {
        let path = canonical_path(request.uri().path());
        let host = request.headers().get(header::HOST).map_or(&b""[..], |host| host.as_bytes());
        for route in &self.all {
            if !route.takes(request.method(), host) {
                continue;
            }
            if let Some(params) = route.pattern.match_path(&path.path) {
                let could_be = |rival: &usize| {
                    let rival = &self.all[*rival];
                    rival.takes(request.method(), host) && rival.pattern.could_mean(&path.path)
                };
                let exact_path = path.exact && !route.rivals.iter().any(could_be);
                return Matched {
                    route: Some(Arc::clone(route)),
                    upstream_index: route.upstream_index,
                    path: path.if_another(),
                    params,
                    exact_path,
                };
            }
        }
        Matched {
            route: None,
            upstream_index: self.default_upstream,
            params: Vec::new(),
            exact_path: path.exact,
            path: path.if_another(),
        }
    }
}

impl Route {
    fn takes(&self, method: &Method, host: &[u8]) -> bool {
        let same_host =
            |wanted: &String| without_port(host).eq_ignore_ascii_case(wanted.as_bytes());
        self.pattern.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.pattern.host.as_ref().is_none_or(same_host)
    }
}

/// `shop.example:8080` and `[::1]:8080` without their ports.
fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|&byte| byte == b':') {
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(matches: &[&str]) -> Routes {
        let mut text = "[upstream.app]\nendpoints = [\"http://127.0.0.1:1\"]\n".to_owned();
        for (index, wanted) in matches.iter().enumerate() {
            text += &format!("[route.r{index}]\nmatch = \"{wanted}\"\n");
        }
        Routes::new(&toml::from_str(&text).unwrap()).unwrap()
    }

    fn found(routes: &Routes, method: &str, host: &str, path: &str) -> Option<String> {
        let request =
            Request::builder().method(method).uri(path).header("host", host).body(()).unwrap();
        routes.find(&request).route.map(|route| route.config.matches.clone())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = routes(&[
            "/{rest...}",
            "POST /orders/{id}",
            "POST /orders/new",
            "shop.example/orders/new",
        ]);
        assert_eq!(found(&routes, "POST", "a", "/orders/new").unwrap(), "POST /orders/new");
        assert_eq!(found(&routes, "POST", "a", "/orders/7").unwrap(), "POST /orders/{id}");
        assert_eq!(found(&routes, "GET", "a", "/orders/7").unwrap(), "/{rest...}");
        assert_eq!(
            found(&routes, "POST", "Shop.Example:80", "/orders/new").unwrap(),
            "shop.example/orders/new"
        );
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_matched_and_marked() {
        let routes = routes(&["POST /orders"]);
        let request = Request::builder().method("POST").uri("/a/../orders").body(()).unwrap();
        let matched = routes.find(&request);
        assert!(matched.route.is_some() && !matched.exact_path);
    }

    #[test]
    fn what_the_app_could_take_for_another_route_is_marked_where_it_would_be_stood_in_for() {
        let text = "[upstream.app]\nendpoints = [\"http://127.0.0.1:1\"]\n\
                    [route.special]\nmatch = \"POST /a/special/{id}\"\n\
                    [route.any]\nmatch = \"POST /a/{rest...}\"\n\
                    stand_in = { accept_if = \"true\", answer = { status = 200 } }\n";
        let routes = Routes::new(&toml::from_str(text).unwrap()).unwrap();
        let is_exact = |path: &str| {
            let request = Request::builder().method("POST").uri(path).body(()).unwrap();
            let matched = routes.find(&request);
            (&*matched.route.unwrap().name == "any").then_some(matched.exact_path)
        };
        assert_eq!(is_exact("/a/special/1"), None);
        assert_eq!(is_exact("/a/special/1/"), Some(false));
        assert_eq!(is_exact("/a/Special/1"), Some(false));
        assert_eq!(is_exact("/a/special/1/2"), Some(true));
        assert_eq!(is_exact("/a/other/"), Some(true));
    }
}
