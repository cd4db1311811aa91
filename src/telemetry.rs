//! What standin counts: per-worker counters, summed when somebody asks. No shared cache line on the request path.

use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

/// How a request ended, from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Answered {
    /// The app's own answer, below 500.
    ByApp,
    /// The app's own answer, 5xx.
    ByAppError,
    /// A stand-in answer, newly stored.
    StoodIn,
    /// A kept answer, given again.
    KeptAgain,
    /// An honest error: the app did not answer and the request was not low risk, or the store refused.
    Refused,
    /// The client's fault (400, 408, 413, 422, 431 …).
    ClientFault,
    /// The client left before its answer.
    ClientGone,
}

pub const ANSWERED: [(Answered, &str); 7] = [
    (Answered::ByApp, "app"),
    (Answered::ByAppError, "app_error"),
    (Answered::StoodIn, "stood_in"),
    (Answered::KeptAgain, "kept_again"),
    (Answered::Refused, "refused"),
    (Answered::ClientFault, "client_fault"),
    (Answered::ClientGone, "client_gone"),
];

/// Upper bounds of the latency buckets, in seconds; one more bucket is without bound.
pub const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// Why a connection was closed before its first request.
pub const TURNED_AWAY: [&str; 4] = ["not_a_proxy", "proxy_header", "tls", "late"];

/// One route's counters on one worker.
#[derive(Debug, Default)]
pub struct RouteCounters {
    pub answered: [AtomicU64; ANSWERED.len()],
    /// Time to the head of the answer, per bucket of [`BUCKETS`], and beyond.
    pub latency: [AtomicU64; BUCKETS.len() + 1],
    pub latency_sum_us: AtomicU64,
    /// Stand-ins, and refusals to stand in, by cause; small and rare.
    pub late_answers: AtomicU64,
    /// Stand-ins that a late answer made needless: the app said yes or no after all.
    pub spurious: AtomicU64,
}

/// Requests of a route that took longer than this: rare enough for a counter that all workers share.
#[derive(Debug)]
pub struct Threshold {
    pub after: Duration,
    pub passed: Arc<AtomicU64>,
}

impl Threshold {
    /// One for each time; what was counted of one that was there `before` still counts.
    pub fn all(times: &[Duration], before: &[Self]) -> Vec<Self> {
        let passed = |after| {
            let same = before.iter().find(|threshold| threshold.after == after);
            same.map_or_else(Arc::default, |threshold| Arc::clone(&threshold.passed))
        };
        times.iter().map(|&after| Self { after, passed: passed(after) }).collect()
    }
}

impl RouteCounters {
    /// One request was answered so, after that time.
    pub fn count(&self, answered: Answered, took: Duration) {
        add(&self.answered[answered as usize], 1);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        add(&self.latency[bucket], 1);
        add(&self.latency_sum_us, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// Adds to a counter that only this thread writes: a load and a store, where a locked instruction would cost as much as
/// twenty others.
pub fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// The same the other way.
pub fn subtract(counter: &AtomicU64, less: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_sub(less), Ordering::Relaxed);
}

/// One worker's counters: only this worker writes them.
#[derive(Debug)]
pub struct WorkerCounters {
    /// By [`crate::router::Route::place`]; the first one is for requests without a route.
    routes: Vec<RouteCounters>,
    pub connections_open: AtomicU64,
    pub connections_total: AtomicU64,
    /// By [`TURNED_AWAY`].
    pub connections_turned_away: [AtomicU64; TURNED_AWAY.len()],
    pub requests_in_flight: AtomicU64,
    pub upstream_connections_opened: AtomicU64,
}

/// Names of routes that reloads may bring before a restart is needed.
pub const SPARE_PLACES: usize = 256;

impl WorkerCounters {
    /// The counters at a place.
    pub fn route(&self, place: usize) -> &RouteCounters {
        debug_assert!(place < self.routes.len(), "a reload gives no place that is not there");
        self.routes.get(place).unwrap_or(&self.routes[0])
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.routes.len()
    }
}

/// All workers' counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    workers: Arc<Mutex<Vec<Arc<WorkerCounters>>>>,
    /// Rare enough for a lock.
    not_stood_in: Arc<Mutex<BTreeMap<(Arc<str>, &'static str), u64>>>,
}

impl Counters {
    /// A new worker's counters, for as many places, and some for routes that a reload brings.
    pub fn worker(&self, places: usize) -> Arc<WorkerCounters> {
        let places = places.max(1) + SPARE_PLACES;
        let counters = Arc::new(WorkerCounters {
            routes: (0..places).map(|_| RouteCounters::default()).collect(),
            connections_open: AtomicU64::new(0),
            connections_total: AtomicU64::new(0),
            connections_turned_away: Default::default(),
            requests_in_flight: AtomicU64::new(0),
            upstream_connections_opened: AtomicU64::new(0),
        });
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    /// standin did not answer in the app's stead on this route: why, in one stable word.
    pub fn not_stood_in(&self, route: &Arc<str>, why: &'static str) {
        let mut counts = self.not_stood_in.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((Arc::clone(route), why)).or_default() += 1;
    }

    /// How often that was so, by route and cause.
    pub fn all_not_stood_in(&self) -> BTreeMap<(Arc<str>, &'static str), u64> {
        self.not_stood_in.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many places every worker's counters have.
    pub fn places(&self) -> usize {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|worker| worker.places()).min().unwrap_or_default()
    }

    /// Sum over all workers of what `read` gives.
    pub fn sum(&self, read: impl Fn(&WorkerCounters) -> &AtomicU64) -> u64 {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|worker| read(worker).load(Ordering::Relaxed)).sum()
    }
}
