//! Limits on requests in flight in the metrics: a series for each route and upstream that has one.

use std::fmt::Error;

use super::{family::Out, float};
use crate::{router::Routes, upstream::Bulkhead};

pub(super) fn encode(routes: &Routes, out: &mut Out<'_>) -> Result<(), Error> {
    let of_routes = routes
        .all
        .iter()
        .filter_map(|route| Some(("route", &*route.name, route.bulkhead.as_ref()?)));
    let upstreams = routes.upstreams.iter().zip(&routes.bulkheads);
    let of_upstreams = upstreams.filter_map(|(upstream, bulkhead)| {
        Some(("upstream", &*upstream.name, bulkhead.as_deref()?))
    });
    let all: Vec<(&str, &str, &Bulkhead)> = of_routes.chain(of_upstreams).collect();
    let mut gauge = |name, help, read: fn(&Bulkhead) -> usize| {
        let mut family = out.gauge(name, help)?;
        all.iter().try_for_each(|(of, name, bulkhead)| {
            family.gauge(&[("of", of), ("name", name)], float(read(bulkhead) as u64))
        })
    };
    gauge(
        "standin_bulkhead_in_flight",
        "Requests in flight, where a route or an upstream has a limit",
        Bulkhead::inside,
    )?;
    gauge("standin_bulkhead_limit", "The limit of a route or an upstream", Bulkhead::limit)?;
    let help = "Requests that were above the limit of their route or upstream";
    let mut family = out.counter("standin_bulkhead_refused", help)?;
    all.iter().try_for_each(|(of, name, bulkhead)| {
        family.counter(&[("of", of), ("name", name)], bulkhead.refused())
    })
}
