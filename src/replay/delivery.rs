//! One entry on its way: claim, checks, intent on disk, send, outcome on disk.
//!
//! Sends what was stored; filters do not run twice. A send that begins is finished here whatever becomes of its run;
//! a delivery that is dropped leaves the entry `sending`, which counts as `sent_unknown` at the next start.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;

use super::{
    Parts,
    backoff::Chance,
    classes::{Judged, classify},
    order::Order,
    pace::Felt,
    policy::Policy,
    request::{Marks, request},
    verdict::{Ending, after_answer, after_error},
};
use crate::{
    canonical::canonical_path,
    egress::{Job, Lane},
    expr::{Document, Facts, ResponseFacts},
    router::Route,
    store::{Certainty, Entry, HeldReason, Lease, Outcome, Sending, StoreError, Verdict},
    time::UnixMillis,
    upstream::{Asking, Connections, UpstreamError, WholeAnswer, at_most},
    veto,
};

/// Delivers entries, several at once, on one thread.
#[derive(Debug)]
pub(super) struct Delivery {
    parts: Parts,
    order: Order,
    chance: RefCell<Chance>,
}

/// What became of one delivery.
#[derive(Debug)]
pub(super) struct Done {
    pub came_to: CameTo,
    pub felt: Felt,
    /// The upstream gets nothing for so long, and who says so.
    pub pause: Option<Duration>,
}

/// See [`Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CameTo {
    /// Given back, or somebody else had it.
    Unsent,
    /// Held without being sent.
    HeldUnsent,
    /// The store could not write or read.
    StoreTrouble,
    /// Sent and closed.
    Closed(Outcome),
    /// Sent and held.
    Held,
    /// Sent, and another time again.
    Again,
    /// Sent; somebody else decided over the entry meanwhile.
    Moved,
}

impl Delivery {
    pub(super) fn new(parts: Parts, seed: u64) -> Self {
        let chance = RefCell::new(Chance::seeded(seed));
        Self { parts, order: Order::default(), chance }
    }

    /// One claimed entry. Nothing is sent any more once `go` is false.
    pub(super) async fn deliver(
        &self,
        lease: Lease,
        connections: Connections,
        go: Arc<AtomicBool>,
    ) -> Done {
        let store = &self.parts.store;
        let entry = match store.load_claimed(&lease).await {
            Ok(entry) => entry,
            Err(StoreError::Moved(_)) => return Done::unsent(CameTo::Unsent),
            Err(error) => {
                tracing::warn!(entry = lease.seq.0, %error, "an entry cannot be read");
                store.give_back(lease);
                return Done::unsent(CameTo::StoreTrouble);
            }
        };
        let Some(_turn) = self.order.turn(entry.sequence) else {
            store.give_back(lease);
            return Done::unsent(CameTo::Unsent);
        };
        let (route, policy) = match self.sendable(&entry, UnixMillis::now()) {
            Ok(known) => known,
            Err((reason, why)) => return Done::unsent(self.hold(lease, reason, &why).await),
        };
        if !go.load(Ordering::Relaxed) {
            store.give_back(lease);
            return Done::unsent(CameTo::Unsent);
        }
        let sending = match store.sending(lease).await {
            Ok(sending) => sending,
            Err(StoreError::Moved(_)) => return Done::unsent(CameTo::Unsent),
            Err(error) => {
                tracing::warn!(%error, "no intent on disk, so nothing is sent");
                return Done::unsent(CameTo::StoreTrouble);
            }
        };
        let ending = self.send(&entry, &route, &policy, &sending, &connections, &go).await;
        let Ending { verdict, felt, pause } = ending;
        let came_to = self.record(&sending, verdict).await;
        Done { came_to, felt, pause }
    }

    /// Whether the entry may be sent, under which policy; or why a person must decide.
    fn sendable(
        &self,
        entry: &Entry,
        now: UnixMillis,
    ) -> Result<(Arc<Route>, Policy), (HeldReason, String)> {
        let routes = self.parts.routes.now();
        let route = routes.by_name(&entry.route);
        let policy = route.map(|route| Policy::of(entry, route));
        let (Some(route), Some(policy)) = (route, policy) else {
            return Err((HeldReason::RouteGone, format!("there is no route `{}`", entry.route)));
        };
        policy.may_be_sent(entry, now)?;
        let attempt = entry.attempts.saturating_add(1);
        match request(entry, attempt, &self.marks(route)) {
            Ok(_) => Ok((Arc::clone(route), policy)),
            Err(unsendable) => Err((HeldReason::Unclear, unsendable.to_string())),
        }
    }

    fn marks<'a>(&'a self, route: &'a Route) -> Marks<'a> {
        Marks {
            request_id: &self.parts.request_id_header,
            set_headers: &route.config.replay.set_headers,
            signing_key: self.parts.signing_key.as_ref(),
        }
    }

    async fn send(
        &self,
        entry: &Entry,
        route: &Route,
        policy: &Policy,
        sending: &Sending,
        connections: &Connections,
        go: &AtomicBool,
    ) -> Ending {
        let now = UnixMillis::now();
        if !go.load(Ordering::Relaxed) {
            return unsent(now, "the run was stopped before the first byte left");
        }
        if now >= entry.expires_at {
            let why = format!("expired at {}, before the first byte left", entry.expires_at);
            let reason = HeldReason::Expired;
            let certainty = Certainty::NotSent;
            let verdict = Verdict::Hold { reason, certainty, why, answer: None };
            return Ending { verdict, felt: Felt::Neutral, pause: None };
        }
        let mut request = match request(entry, sending.attempt, &self.marks(route)) {
            Ok(request) => request,
            Err(unsendable) => return unsent(now, &unsendable.to_string()),
        };
        if let Some(lane) = &route.egress {
            let job = way_out(lane, entry, route, request.headers(), now);
            request.extensions_mut().insert(job);
        }
        let limit = longest_exchange(route, connections);
        let breaker = connections.upstream().of_route(&route.name);
        let asking = Asking { route: &breaker, timeout: route.timeout };
        let exchange = connections.exchange_whole(request, asking, ANSWER_LIMIT);
        let result = at_most(limit, exchange).await.unwrap_or_else(|| {
            let endpoint = connections.upstream().name.to_string();
            Err(UpstreamError::Timeout { endpoint, limit })
        });
        let now = UnixMillis::now();
        match result {
            Ok(mut answer) => {
                self.parts.hook.at("after_app_applied");
                veto::hear(route, &self.parts.store, answer.status, &mut answer.headers).await;
                let judged = judge(entry, route, &answer, now);
                let chance = &mut self.chance.borrow_mut();
                after_answer(policy, judged, &answer, sending.attempt, now, chance)
            }
            Err(error) => {
                tracing::info!(receipt = %entry.receipt, %error, "a replay got no answer");
                after_error(policy, &error, sending.attempt, now, &mut self.chance.borrow_mut())
            }
        }
    }

    async fn hold(&self, lease: Lease, reason: HeldReason, why: &str) -> CameTo {
        match self.parts.store.hold_leased(lease, reason, why).await {
            Ok(()) => CameTo::HeldUnsent,
            Err(StoreError::Moved(_)) => CameTo::Unsent,
            Err(error) => {
                tracing::warn!(%error, ?reason, "an entry could not be held");
                CameTo::StoreTrouble
            }
        }
    }

    /// Writes the outcome; tries on until the store takes it. The entry stays `sending` so long, so nobody else sends it.
    async fn record(&self, sending: &Sending, verdict: Verdict) -> CameTo {
        let store = &self.parts.store;
        let mut wait = FIRST_WAIT;
        loop {
            match store.finish(sending, verdict.clone()).await {
                Ok(()) => return came_to(&verdict),
                // The store wrote down what the app said, as history.
                Err(StoreError::Moved(_)) => return CameTo::Moved,
                Err(error) => {
                    tracing::warn!(entry = sending.seq.0, %error, "an outcome is not on disk yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }
}

impl Done {
    fn unsent(came_to: CameTo) -> Self {
        Self { came_to, felt: Felt::Neutral, pause: None }
    }
}

/// The class of the app's answer by the route's rules.
pub(super) fn judge(entry: &Entry, route: &Route, answer: &WholeAnswer, now: UnixMillis) -> Judged {
    let parsed = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(serde_json::Value::Null);
    let said = if answer.truncated { serde_json::Value::Null } else { parsed(&answer.body) };
    let (path, query) = entry.request.target.split_once('?').unwrap_or((&entry.request.target, ""));
    let headers: HeaderMap = entry
        .request
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.as_ref().try_into().ok()?)))
        .collect();
    let body = parsed(&entry.request.body);
    let response =
        ResponseFacts { status: answer.status.as_u16(), headers: &answer.headers, body: &said };
    let facts = Facts {
        method: &entry.request.method,
        path,
        query,
        headers: &headers,
        params: &[],
        id: &entry.request_id,
        principal: &entry.identity.principal,
        client_ip: entry.request.client_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        body: (&body).into(),
        reason: "",
        now,
        response: Some(response),
    };
    classify(&route.config.replay, answer.status, |rule| rule.to_bool(&facts))
}

/// The egress proxy of its session, as when it came, or the next one.
fn way_out(lane: &Lane, entry: &Entry, route: &Route, headers: &HeaderMap, now: UnixMillis) -> Job {
    let (path, query) = entry.request.target.split_once('?').unwrap_or((&entry.request.target, ""));
    let path = canonical_path(path).path;
    let params = route.pattern.match_path(&path).unwrap_or_default();
    lane.job(&Facts {
        method: &entry.request.method,
        path: &path,
        query,
        headers,
        params: &params,
        id: &entry.request_id,
        principal: &entry.identity.principal,
        client_ip: entry.request.client_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        body: Document::NONE,
        reason: "",
        now,
        response: None,
    })
}

/// From the first connection tried to the last byte of the answer.
fn longest_exchange(route: &Route, connections: &Connections) -> Duration {
    let config = &connections.upstream().config;
    let endpoints = u32::try_from(config.endpoints.len()).unwrap_or(u32::MAX);
    let connecting = config.connect_timeout.saturating_mul(endpoints);
    let ways = route.egress.as_ref().map_or(0, |lane| lane.pool.config.tries.get());
    // To the proxy, and then its tunnel.
    let connecting = connecting.saturating_add(config.connect_timeout.saturating_mul(2 * ways));
    connecting.saturating_add(route.timeout).saturating_add(config.body_idle)
}

fn unsent(now: UnixMillis, why: &str) -> Ending {
    let verdict = Verdict::Again {
        not_before: now,
        certainty: Certainty::NotSent,
        counts: false,
        why: why.to_owned(),
        answer: None,
    };
    Ending { verdict, felt: Felt::Neutral, pause: None }
}

fn came_to(verdict: &Verdict) -> CameTo {
    match verdict {
        Verdict::Close { outcome, .. } => CameTo::Closed(*outcome),
        Verdict::Hold { .. } => CameTo::Held,
        Verdict::Again { .. } => CameTo::Again,
    }
}

/// Most bytes of an answer's body that rules look at.
const ANSWER_LIMIT: usize = 256 << 10;
/// Waits between two tries to write an outcome.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
