//! The endpoints of upstreams in the metrics: as many series as the configuration names endpoints.

use std::{
    fmt::Error,
    sync::{Arc, atomic::Ordering},
};

use super::{family::Out, flag, float};
use crate::upstream::{EndpointView, LoadView, Upstream};

pub(super) fn encode(upstreams: &[Arc<Upstream>], out: &mut Out<'_>) -> Result<(), Error> {
    let views: Vec<(&str, EndpointView)> = upstreams
        .iter()
        .flat_map(|upstream| {
            upstream.endpoints_now().into_iter().map(|view| (&*upstream.name, view))
        })
        .collect();
    states(&views, out)?;
    counts(&views, out)?;
    connections(&views, out)?;
    loads(&views, out)?;
    let mut family = out.counter(
        "standin_extra_tries",
        "Tries beyond the first of a request, by what the one before left behind; and those that the budget refused",
    )?;
    for upstream in upstreams {
        let tries = upstream.extra_tries();
        for (after, counter) in [
            ("not_sent", &tries.not_sent),
            ("sent_unknown", &tries.sent_unknown),
            ("refused", &tries.refused),
        ] {
            let n = counter.load(Ordering::Relaxed);
            family.counter(&[("upstream", &upstream.name), ("after", after)], n)?;
        }
    }
    Ok(())
}

fn states(views: &[(&str, EndpointView)], out: &mut Out<'_>) -> Result<(), Error> {
    let mut family = out.gauge("standin_endpoint_state", "1 for the state that holds")?;
    for (upstream, view) in views {
        for state in EndpointView::STATES {
            let labels =
                [("upstream", *upstream), ("endpoint", &*view.authority), ("state", state)];
            family.gauge(&labels, flag(state == view.state))?;
        }
    }
    Ok(())
}

fn counts(views: &[(&str, EndpointView)], out: &mut Out<'_>) -> Result<(), Error> {
    let mut count = |name, help, read: &dyn Fn(&EndpointView) -> Option<u64>| {
        let mut family = out.counter(name, help)?;
        let mut counted =
            views.iter().filter_map(|(upstream, view)| Some((upstream, view, read(view)?)));
        counted.try_for_each(|(upstream, view, n)| {
            family.counter(&[("upstream", upstream), ("endpoint", &view.authority)], n)
        })
    };
    count("standin_endpoint_failures", "Tries that the endpoint did not answer", &|view| {
        Some(view.failures)
    })?;
    count("standin_endpoint_ejections", "Times that the endpoint was ejected", &|view| {
        Some(view.ejections)
    })?;
    count("standin_endpoint_connections_opened", "Connections opened to the endpoint", &|view| {
        Some(view.opened)
    })?;
    count(
        "standin_endpoint_answered",
        "Answers of the endpoint, where an upstream has several",
        &|view| view.load.map(|load| load.answered),
    )
}

fn connections(views: &[(&str, EndpointView)], out: &mut Out<'_>) -> Result<(), Error> {
    let mut family = out.gauge(
        "standin_endpoint_connections",
        "Connections to the endpoint that take requests, over all workers, counted every two seconds",
    )?;
    for (upstream, view) in views {
        for (state, n) in [("idle", view.idle), ("in_use", view.open.saturating_sub(view.idle))] {
            let labels =
                [("upstream", *upstream), ("endpoint", &*view.authority), ("state", state)];
            family.gauge(&labels, float(n))?;
        }
    }
    Ok(())
}

fn loads(views: &[(&str, EndpointView)], out: &mut Out<'_>) -> Result<(), Error> {
    let mut gauge = |name, help, read: &dyn Fn(&LoadView) -> f64| {
        let mut family = out.gauge(name, help)?;
        let mut busy =
            views.iter().filter_map(|(upstream, view)| Some((upstream, view, view.load?)));
        busy.try_for_each(|(upstream, view, load)| {
            family.gauge(&[("upstream", upstream), ("endpoint", &view.authority)], read(&load))
        })
    };
    gauge(
        "standin_endpoint_in_flight",
        "Requests in flight at the endpoint, where an upstream has several",
        &|load| float(u64::from(load.in_flight)),
    )?;
    gauge(
        "standin_endpoint_latency_seconds",
        "How long an answer of the endpoint takes, as the choice sees it",
        &|load| load.latency.as_secs_f64(),
    )
}
