//! The metrics, made at each scrape from handles: nothing is counted here, no memory grows. Labels are names of routes,
//! upstreams and fixed words, never a path or an id.

mod backups;
mod bulkheads;
mod egress;
mod endpoints;
mod family;
mod records;

use std::{
    fmt::Error,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, metrics::MetricType, registry::Registry,
};

use self::family::Out;
use super::{
    Handles,
    view::{BreakerStatus, counter, word},
};
use crate::{
    config::units::write_duration,
    mode::Mode,
    replay::RunState,
    router::Routes,
    store::{Accepting, RouteTotals, Totals},
    telemetry::{ANSWERED, BUCKETS, RouteCounters, TURNED_AWAY},
    time::UnixMillis,
    upstream::Condition,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Metrics(Registry);

impl Metrics {
    pub(super) fn new(handles: Handles) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(handles)));
        Self(registry)
    }

    pub(super) fn encode(&self) -> Result<String, Error> {
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Scrape(Handles);

/// One scrape: all of it sees the same routes.
struct Now<'a>(&'a Handles, Arc<Routes>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut out = Out(encoder);
        let totals = self.0.store.totals();
        let now = Now(&self.0, self.0.routes.now());
        now.requests(&mut out)?;
        now.entries(&mut out, &totals)?;
        now.upstreams_and_modes(&mut out)?;
        endpoints::encode(&now.1.upstreams, &mut out)?;
        bulkheads::encode(&now.1, &mut out)?;
        backups::encode(&now.1, &mut out)?;
        records::encode(&self.0.records, &mut out)?;
        now.replays(&mut out)?;
        now.tls(&mut out)?;
        egress::encode(&now.1.egress, &mut out)?;
        now.process(&mut out, &totals)
    }
}

impl Now<'_> {
    /// Every route with its place in the counters; the rest is called `-`.
    fn counted_routes(&self) -> impl Iterator<Item = (&str, usize)> {
        let all = &self.1.all;
        all.iter().map(|route| (&*route.name, route.place)).chain([("-", 0)])
    }

    fn count(
        &self,
        route: usize,
        read: impl Fn(&RouteCounters) -> &std::sync::atomic::AtomicU64,
    ) -> u64 {
        self.0.counters.sum(|worker| counter(worker, route, &read))
    }

    fn requests(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let mut family =
            out.counter("standin_requests", "Requests by route and how they were answered")?;
        for (route, index) in self.counted_routes() {
            for (at, (_, answered)) in ANSWERED.iter().enumerate() {
                let n = self.count(index, |counters| &counters.answered[at]);
                family.counter(&[("route", route), ("answered", answered)], n)?;
            }
        }
        let mut family = out.start(
            "standin_request_duration_seconds",
            "Time to the head of the answer",
            MetricType::Histogram,
        )?;
        for (route, index) in self.counted_routes() {
            let bounds = BUCKETS.into_iter().chain([f64::INFINITY]).enumerate();
            let buckets: Vec<(f64, u64)> = bounds
                .map(|(at, bound)| (bound, self.count(index, |counters| &counters.latency[at])))
                .collect();
            let sum = Duration::from_micros(self.count(index, |counters| &counters.latency_sum_us));
            let n = buckets.iter().map(|(_, n)| n).sum();
            family.histogram(&[("route", route)], sum.as_secs_f64(), n, &buckets)?;
        }
        let mut family =
            out.counter("standin_late_answers", "Answers of the app after their time-out")?;
        for (route, index) in self.counted_routes() {
            family.counter(
                &[("route", route)],
                self.count(index, |counters| &counters.late_answers),
            )?;
        }
        let help = "Requests that took longer than a threshold of their route";
        let mut family = out.counter("standin_slow_requests", help)?;
        for route in &self.1.all {
            for slow in &route.slow {
                let threshold = write_duration(slow.after);
                let passed = slow.passed.load(Ordering::Relaxed);
                family.counter(&[("route", &route.name), ("threshold", &threshold)], passed)?;
            }
        }
        let mut family = out.counter(
            "standin_spurious_stand_ins",
            "Stand-ins whose app said yes or no after all, after its time-out",
        )?;
        for (route, index) in self.counted_routes() {
            let n = self.count(index, |counters| &counters.spurious);
            family.counter(&[("route", route)], n)?;
        }
        let mut family = out.counter(
            "standin_not_stood_in",
            "Requests that standin did not answer in the app's stead, by cause",
        )?;
        for ((route, why), count) in self.0.counters.all_not_stood_in() {
            family.counter(&[("route", &route), ("why", why)], count)?;
        }
        Ok(())
    }

    fn entries(&self, out: &mut Out<'_>, totals: &Totals) -> Result<(), Error> {
        let none = RouteTotals::default();
        let mut rows: Vec<(&str, &RouteTotals)> = self
            .1
            .all
            .iter()
            .map(|route| (&*route.name, totals.routes.get(&route.name).unwrap_or(&none)))
            .collect();
        let gone = totals.routes.iter().filter(|(name, _)| self.1.by_name(name).is_none());
        rows.extend(gone.map(|(name, totals)| (&**name, totals)));
        let now = UnixMillis::now();
        let age =
            |totals: &RouteTotals| totals.oldest_open.map_or(0.0, |at| now.since(at).as_secs_f64());
        let mut gauge = |name, help, read: &dyn Fn(&RouteTotals) -> f64| {
            let mut family = out.gauge(name, help)?;
            rows.iter()
                .try_for_each(|(route, totals)| family.gauge(&[("route", route)], read(totals)))
        };
        gauge("standin_open_entries", "Open entries, held ones among them", &|t| float(t.open))?;
        gauge("standin_held_entries", "Entries that wait for a person", &|t| float(t.held))?;
        gauge(
            "standin_declined_entries",
            "Entries the app declined, within the retention, that nobody has followed up",
            &|t| float(t.declined),
        )?;
        gauge("standin_open_amount", "Sum of the amounts of open entries", &|t| {
            signed(t.open_sum)
        })?;
        gauge("standin_oldest_open_seconds", "Age of the oldest open entry", &age)?;
        let mut family = out.gauge("standin_cap_used_ratio", "Used part of a cap: 1 is full")?;
        for route in &self.1.all {
            for cap in super::view::caps(route, totals.routes.get(&route.name).unwrap_or(&none)) {
                family.gauge(&[("route", &route.name), ("cap", &cap.cap)], cap.ratio)?;
            }
        }
        Ok(())
    }

    fn upstreams_and_modes(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let conditions: Vec<(&str, Condition)> = self
            .1
            .upstreams
            .iter()
            .map(|upstream| (&*upstream.name, upstream.condition().borrow().clone()))
            .collect();
        let mut family = out.gauge(
            "standin_upstream_up",
            "1 while the upstream answers; 0 when down, probed or not seen yet",
        )?;
        for (name, condition) in &conditions {
            family.gauge(&[("upstream", name)], flag(*condition == Condition::Up))?;
        }
        let mut family =
            out.gauge("standin_upstream_condition", "1 for the condition that holds")?;
        for (name, condition) in &conditions {
            let now = match condition {
                Condition::Unknown => "unknown",
                Condition::Up => "up",
                Condition::Down { .. } => "down",
                Condition::Probing { .. } => "probing",
            };
            for word in ["unknown", "up", "down", "probing"] {
                family.gauge(&[("upstream", name), ("condition", word)], flag(word == now))?;
            }
        }
        let mut family = out.gauge(
            "standin_unexpected_proxy",
            "1 where answers look like a proxy's and `endpoint_is` says that the app itself is asked",
        )?;
        for upstream in &self.1.upstreams {
            let found = upstream.unexpected_proxy().is_some();
            family.gauge(&[("upstream", &upstream.name)], flag(found))?;
        }
        let mut family = out.gauge(
            "standin_route_breaker",
            "1 for the state of the route's own breaker that holds",
        )?;
        for route in &self.1.all {
            let now = BreakerStatus::of(&route.breaker).state;
            for state in BreakerStatus::STATES {
                let labels = [("route", &*route.name), ("state", state)];
                family.gauge(&labels, flag(state == now))?;
            }
        }
        let mut family =
            out.gauge("standin_vetoed", "1 while the app says that it is not to be stood in for")?;
        for route in self.1.all.iter().filter(|route| route.config.stand_in.is_some()) {
            let vetoed = route.veto.now(UnixMillis::now()).is_some();
            family.gauge(&[("route", &route.name)], flag(vetoed))?;
        }
        let mut family = out.gauge("standin_mode", "1 for the mode in which the route acts")?;
        for route in &self.1.all {
            let now = self.0.modes.of(&route.name);
            for mode in [Mode::Auto, Mode::Forced, Mode::PassThrough] {
                family
                    .gauge(&[("route", &route.name), ("mode", &word(&mode))], flag(mode == now))?;
            }
        }
        Ok(())
    }

    fn replays(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let runs = self.0.replay.runs();
        let going_on = || {
            runs.iter().filter(|run| matches!(run.state, RunState::Running | RunState::Waiting(_)))
        };
        let mut gauge = |name, help, value: u64| out.gauge(name, help)?.plain(float(value));
        gauge("standin_replay_runs", "Replay runs that go on", going_on().count() as u64)?;
        let waiting = runs.iter().filter(|run| matches!(run.state, RunState::Waiting(_))).count();
        gauge(
            "standin_replay_runs_waiting",
            "Replay runs that wait for the app, a time or a mode",
            waiting as u64,
        )?;
        gauge(
            "standin_replay_in_flight",
            "Replays in flight",
            going_on().map(|run| run.in_flight).sum(),
        )?;
        gauge(
            "standin_replay_pace",
            "Replays in flight that the pace allows",
            going_on().map(|run| run.pace).sum(),
        )?;
        let counters = self.0.replay.counters();
        let mut family = out.counter("standin_replays", "Replays by what they came to")?;
        for (result, n) in [
            ("completed", counters.completed),
            ("already_applied", counters.already_applied),
            ("declined", counters.declined),
            ("held", counters.held),
            ("again", counters.again),
            ("moved", counters.moved),
            ("store_trouble", counters.store_trouble),
        ] {
            family.counter(&[("result", result)], n)?;
        }
        Ok(())
    }

    fn tls(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let sections = super::view::tls_views(self.0);
        let mut family = out.gauge(
            "standin_certificate_end_seconds",
            "When the certificates in a file end, since 1970: the first of them",
        )?;
        for tls in &sections {
            let ends = tls.certificates.iter().filter_map(|one| Some((&one.file, one.not_after?)));
            for (file, end) in ends {
                let labels = [("section", &*tls.section), ("file", file)];
                family.gauge(&labels, signed(end.0.0) / 1000.0)?;
            }
        }
        let mut family = out.gauge(
            "standin_tls_files_refused",
            "1 while the changed files of a TLS section are not used",
        )?;
        for tls in &sections {
            family.gauge(&[("section", &tls.section)], flag(tls.fault.is_some()))?;
        }
        Ok(())
    }

    fn process(&self, out: &mut Out<'_>, totals: &Totals) -> Result<(), Error> {
        let handles = &self.0;
        let accepting = *handles.store.accepting().borrow() == Accepting::Yes;
        let mut gauge = |name, help, value: f64| out.gauge(name, help)?.plain(value);
        gauge("standin_store_accepting", "1 while the store accepts new entries", flag(accepting))?;
        let damaged = flag(handles.store.is_damaged());
        gauge("standin_store_damaged", "1 when damage was found in the store's file", damaged)?;
        gauge("standin_store_bytes", "Size of the store with its log", float(totals.bytes))?;
        gauge("standin_draining", "1 from SIGTERM on", flag(*handles.draining.borrow()))?;
        let reload = handles.reload.state();
        let refused = reload.last.as_ref().is_some_and(|last| last.result.is_err());
        gauge(
            "standin_config_last_reload_successful",
            "0 while the file is not what is in force, because it was refused",
            flag(!refused),
        )?;
        gauge(
            "standin_config_loaded_time_seconds",
            "When the configuration in force was loaded, since 1970",
            signed(reload.loaded_at.0) / 1000.0,
        )?;
        gauge(
            "standin_start_time_seconds",
            "Start of the process since 1970",
            signed(handles.started_at.0) / 1000.0,
        )?;
        let counters = &handles.counters;
        gauge(
            "standin_connections_open",
            "Connections of clients",
            float(counters.sum(|w| &w.connections_open)),
        )?;
        gauge(
            "standin_requests_in_flight",
            "Requests in flight",
            float(counters.sum(|w| &w.requests_in_flight)),
        )?;
        let mut count = |name, help, n: u64| out.counter(name, help)?.plain_counter(n);
        count(
            "standin_clock_jumps",
            "Times the wall clock moved by more than 2 s beside the steady one",
            handles.clocks.jumps(),
        )?;
        count(
            "standin_connections",
            "Connections of clients since start",
            counters.sum(|w| &w.connections_total),
        )?;
        let turned_away = |at: usize| counters.sum(|w| &w.connections_turned_away[at]);
        count(
            "standin_upstream_connections_opened",
            "Connections opened to upstreams",
            counters.sum(|w| &w.upstream_connections_opened),
        )?;
        let mut family = out.counter(
            "standin_connections_turned_away",
            "Connections closed before their first request, by cause",
        )?;
        for (at, why) in TURNED_AWAY.iter().enumerate() {
            family.counter(&[("why", why)], turned_away(at))?;
        }
        let role = super::view::role_word(handles.role);
        let mut family = out.gauge("standin_build_info", "Version and role; always 1")?;
        family.gauge(&[("version", handles.version), ("role", role)], 1.0)
    }
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn float(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn signed(n: i64) -> f64 {
    n as f64
}
