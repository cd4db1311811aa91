//! The endpoints of an upstream as all threads share them: where each is, how busy it is, how it stands, and which one
//! gets the next request.
//!
//! With one endpoint there is nothing to choose: nothing is counted, and no line that others read is written.

mod addresses;
mod ejection;
mod load;
mod view;

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

pub use self::view::{EndpointView, LoadView};
pub(super) use self::{addresses::Addresses, ejection::Turn};
use self::{
    ejection::{Ejection, Standing, Trial},
    load::Load,
};
use super::balance::{FULL, Lot, Set, choose};
use crate::{
    config::{UpstreamConfig, is_https},
    time::UnixMillis,
};

/// One endpoint, as configured.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `HOST:PORT`, for messages and the `Host` of health questions.
    pub(super) authority: String,
    pub(super) over_tls: bool,
    /// It is a name, and not an address.
    pub(super) named: bool,
    pub(super) addresses: Addresses,
    /// Connections opened so far: the next one goes to the next address.
    pub(super) opened: AtomicUsize,
    pub(super) connections: OpenNow,
    load: Load,
    ejection: Mutex<Ejection>,
    /// In the draw with a full share and without failures: nothing to ask, nothing to reset.
    clean: AtomicBool,
    failures: AtomicU64,
    ejections: AtomicU64,
    /// What it last failed of, and since when it stands as it does.
    told: Mutex<Told>,
}

/// Connections that take requests, over all threads, as each of them said last: nobody counts for each request.
#[derive(Debug, Default)]
pub(super) struct OpenNow {
    pub(super) open: AtomicUsize,
    pub(super) idle: AtomicUsize,
}

#[derive(Clone, Debug, Default)]
struct Told {
    cause: String,
    since: Option<UnixMillis>,
}

/// All endpoints of an upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    /// How many are not clean.
    unsettled: AtomicUsize,
    next: AtomicUsize,
    began: Instant,
    /// Somebody was ejected: health questions begin.
    ejected: Notify,
}

/// The endpoint for one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) endpoint: usize,
    /// It finds out whether the endpoint is back.
    pub(super) trial: Option<Trial>,
}

impl Endpoint {
    /// From `http://HOST:PORT`, with the scheme's port when absent.
    fn parse(url: &str) -> Self {
        let bare = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
        let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let over_tls = is_https(url);
        let port = if over_tls { 443 } else { 80 };
        let authority = if has_port { bare.to_owned() } else { format!("{bare}:{port}") };
        let address = authority.parse::<SocketAddr>().ok();
        let addresses = address.map_or_else(Addresses::unknown, Addresses::fixed);
        Self {
            authority,
            over_tls,
            named: address.is_none(),
            addresses,
            opened: AtomicUsize::new(0),
            connections: OpenNow::default(),
            load: Load::default(),
            ejection: Mutex::new(Ejection::new()),
            clean: AtomicBool::new(true),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    pub(super) fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host)
    }

    pub(super) fn port(&self) -> u16 {
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80)
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it last failed of.
    pub(super) fn cause(&self) -> String {
        self.told().cause.clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoints {
    pub(super) fn new(urls: &[String]) -> Self {
        Self {
            all: urls.iter().map(|url| Endpoint::parse(url)).collect(),
            unsettled: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            began: Instant::now(),
            ejected: Notify::new(),
        }
    }

    /// Names that others have followed already need not be waited for.
    pub(super) fn know_addresses_of(&self, others: &Self) {
        for endpoint in self.all.iter().filter(|endpoint| endpoint.named) {
            let same = others.all.iter().find(|other| other.authority == endpoint.authority);
            same.into_iter().for_each(|same| _ = endpoint.addresses.publish(&same.addresses.now()));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, index: usize) -> &Endpoint {
        &self.all[index]
    }

    pub(super) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Whether there is a choice at all.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Where the next try goes; none when all were tried. A trial must be told or given back.
    pub(super) fn choose(&self, config: &UpstreamConfig, tried: &Set, lot: &Lot) -> Option<Chosen> {
        if !self.are_several() {
            let left = !self.all.is_empty() && !tried.has(0);
            return left.then_some(Chosen { endpoint: 0, trial: None });
        }
        let all = Set::first(self.all.len());
        if self.unsettled.load(Ordering::Relaxed) == 0 {
            let endpoint = self.draw(config, &all.minus(tried), lot, |_| FULL)?;
            return Some(Chosen { endpoint, trial: None });
        }
        self.choose_among_unsettled(config, tried, lot)
    }

    fn choose_among_unsettled(
        &self,
        config: &UpstreamConfig,
        tried: &Set,
        lot: &Lot,
    ) -> Option<Chosen> {
        let (now, all) = (Instant::now(), Set::first(self.all.len()));
        let (mut inside, mut weights) = (Set::default(), [FULL; Set::MOST]);
        for (at, endpoint) in self.all.iter().enumerate() {
            match self.standing(config, endpoint, now) {
                Standing::In { weight } => {
                    inside = inside.with(at);
                    weights[at] = weight;
                }
                Standing::WantsTrial if !tried.has(at) => {
                    let trial = endpoint.ejection().take_trial();
                    if trial.is_some() {
                        return Some(Chosen { endpoint: at, trial });
                    }
                }
                Standing::WantsTrial | Standing::OnTrial | Standing::Out => {}
            }
        }
        let few =
            inside.len() * 100 < self.all.len() * usize::from(config.ejection.panic_threshold);
        let candidates = if few { all } else { inside };
        let endpoint = self
            .draw(config, &candidates.minus(tried), lot, |at| weights[at])
            // Whatever was certainly not sent yet may as well ask one that is out.
            .or_else(|| self.draw(config, &all.minus(tried), lot, |_| FULL))?;
        Some(Chosen { endpoint, trial: None })
    }

    fn draw(
        &self,
        config: &UpstreamConfig,
        candidates: &Set,
        lot: &Lot,
        weight: impl Fn(usize) -> u16,
    ) -> Option<usize> {
        let turn = || self.next.fetch_add(1, Ordering::Relaxed);
        let now = self.began.elapsed();
        choose(config.balance, candidates, lot, turn, weight, |at| self.all[at].load.cost(now))
    }

    /// How one stands; what is over is put in order here.
    fn standing(&self, config: &UpstreamConfig, endpoint: &Endpoint, now: Instant) -> Standing {
        if endpoint.clean.load(Ordering::Relaxed) {
            return Standing::In { weight: FULL };
        }
        let mut ejection = endpoint.ejection();
        let standing = ejection.standing(now, config.slow_start);
        self.settle(config, endpoint, &mut ejection, now);
        standing
    }

    /// Keeps `clean` and the number of unsettled ones true. Called with the lock.
    fn settle(
        &self,
        config: &UpstreamConfig,
        endpoint: &Endpoint,
        ejection: &mut Ejection,
        now: Instant,
    ) {
        let clean = ejection.is_clean(now, config.slow_start);
        match (endpoint.clean.swap(clean, Ordering::Relaxed), clean) {
            (true, false) => _ = self.unsettled.fetch_add(1, Ordering::Relaxed),
            (false, true) => _ = self.unsettled.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
    }

    /// A try begins: it is in flight until [`Self::end`].
    pub(super) fn begin(&self, endpoint: usize) {
        self.all[endpoint].load.begin();
    }

    pub(super) fn end(&self, endpoint: usize) {
        self.all[endpoint].load.end();
    }

    /// It answered a real request.
    pub(super) fn answered(
        &self,
        config: &UpstreamConfig,
        at: usize,
        began: Instant,
    ) -> Option<Turn> {
        let endpoint = &self.all[at];
        let turn = if endpoint.clean.load(Ordering::Relaxed) {
            None
        } else {
            self.change(config, endpoint, Ejection::success)
        };
        endpoint.load.observe(self.began.elapsed(), began.elapsed());
        turn
    }

    /// It did not answer a real request.
    pub(super) fn failed(
        &self,
        config: &UpstreamConfig,
        chosen: Chosen,
        began: Instant,
        cause: &str,
    ) -> Option<Turn> {
        let endpoint = &self.all[chosen.endpoint];
        endpoint.failures.fetch_add(1, Ordering::Relaxed);
        cause.clone_into(&mut endpoint.told().cause);
        endpoint.load.observe_failure(self.began.elapsed(), began.elapsed());
        self.change(config, endpoint, |ejection, now| {
            ejection.failure(&config.ejection, now, chosen.trial, chance())
        })
    }

    /// A try ended without saying anything about the endpoint, but for the time it took.
    pub(super) fn void(&self, config: &UpstreamConfig, chosen: Chosen, began: Instant) {
        let endpoint = &self.all[chosen.endpoint];
        endpoint.load.observe_at_least(self.began.elapsed(), began.elapsed());
        if let Some(trial) = chosen.trial {
            self.change(config, endpoint, |ejection, _| {
                ejection.trial_void(trial);
                None
            });
        }
    }

    /// A health question was answered, or not.
    pub(super) fn asked(&self, config: &UpstreamConfig, at: usize, answered: bool) -> Option<Turn> {
        self.change(config, &self.all[at], |ejection, now| {
            if answered {
                ejection.healthy()
            } else {
                ejection.unhealthy(&config.ejection, now, chance())
            }
        })
    }

    /// Whether another endpoint has answered since then: what this one failed of is no outage.
    pub(super) fn another_answered(&self, at: usize, since: Instant) -> bool {
        let since = since.saturating_duration_since(self.began);
        let others = self.all.iter().enumerate().filter(|(other, _)| *other != at);
        others.into_iter().any(|(_, endpoint)| endpoint.load.answered_since(since))
    }

    /// Those that wait outside.
    pub(super) fn outside(&self, config: &UpstreamConfig) -> Vec<usize> {
        let now = Instant::now();
        let is_out = |at: &usize| self.standing(config, &self.all[*at], now) == Standing::Out;
        (0..self.all.len()).filter(is_out).collect()
    }

    /// Ready once an endpoint was ejected.
    pub(super) async fn somebody_ejected(&self) {
        self.ejected.notified().await;
    }

    /// Changes how an endpoint stands, by a fact about it.
    fn change(
        &self,
        config: &UpstreamConfig,
        endpoint: &Endpoint,
        fact: impl FnOnce(&mut Ejection, Instant) -> Option<Turn>,
    ) -> Option<Turn> {
        let now = Instant::now();
        let mut ejection = endpoint.ejection();
        let turn = fact(&mut ejection, now);
        self.settle(config, endpoint, &mut ejection, now);
        drop(ejection);
        if turn.is_some() {
            endpoint.told().since = Some(UnixMillis::now());
        }
        match turn {
            Some(Turn::Ejected) => {
                endpoint.ejections.fetch_add(1, Ordering::Relaxed);
                self.ejected.notify_one();
            }
            Some(Turn::Back) => endpoint.load.forget(),
            Some(Turn::Probation) | None => {}
        }
        turn
    }
}

/// For rare things: between 0 and 1.
fn chance() -> f64 {
    Lot::by_chance().part()
}

#[cfg(test)]
mod tests;
