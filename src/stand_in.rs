//! Assess → append → answer; refuses honestly when one of the three cannot be done.
//!
//! Knows no connections and no retries: it is told what the attempt left behind.

pub mod answer;
pub mod dedupe;
pub mod identity;
mod outgoing;
mod policy;
pub mod risk;
pub mod secrets;

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderName, StatusCode, request::Parts};

pub use self::policy::{Identified, Policy};
use self::{
    answer::Rendered,
    dedupe::{Doubts, UnderWay, Uses},
    risk::{Assessed, HighRisk},
};
use crate::{
    body::read_request,
    router::{Route, Routes},
    store::{
        Appended, Cap, Certainty, Digest, Draft, Durable, Fields, HeldReason, Kept, KeptAnswer,
        KeyState, Outcome, Prepared, Reason, State, Store, StoreError,
    },
    telemetry::Counters,
    time::UnixMillis,
    upstream::body_copy::WholeBody,
};

/// Stands in for all routes; shared by all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StandIn(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// By the index of the route.
    policies: Vec<Option<Arc<Policy>>>,
    /// Kept over reloads: a key is under way, or in doubt, whatever the configuration says.
    under_way: Arc<UnderWay>,
    doubts: Arc<Doubts>,
    uses: Arc<Uses>,
    counters: Counters,
}

/// The request as rules, templates and the store see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub head: &'a Parts,
    /// Canonical.
    pub path: &'a str,
    pub params: &'a [(String, String)],
    pub id: &'a str,
    pub client_ip: IpAddr,
    pub exact_path: bool,
    pub received_at: UnixMillis,
    /// If it was made already.
    pub fingerprint: Option<Digest>,
}

/// Why the app did not answer, and what that left behind.
#[derive(Clone, Debug)]
pub struct Cause {
    pub reason: Reason,
    pub certainty: Certainty,
    /// In words, for the history.
    pub text: Cow<'static, str>,
}

/// What came of standing in.
#[derive(Debug)]
pub enum StoodIn {
    New {
        entry: Durable,
        answer: Rendered,
    },
    /// The same request was accepted before.
    Again(Kept),
    /// Its key was used for another request.
    Conflict,
    /// It was accepted before, and the app, or a person, has said no to it since.
    DeclinedBefore,
}

/// Why standin does not answer in the app's stead.
#[derive(Debug, thiserror::Error)]
pub enum NotStoodIn {
    #[error("the route does not stand in on {0:?}")]
    NotOn(Reason),
    #[error("the app was not seen to answer since start")]
    NeverSeen,
    #[error("high risk: {0}")]
    High(#[from] HighRisk),
    #[error("the app has said that it is not to be stood in for")]
    Vetoed,
    #[error("cap reached: {0:?}")]
    Cap(Cap),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StandIn {
    pub fn new(
        routes: &Routes,
        store: Store,
        counters: Counters,
    ) -> Result<Self, answer::AnswerFault> {
        Ok(Self(Arc::new(Inner {
            store,
            policies: policies(routes)?,
            under_way: Arc::default(),
            doubts: Arc::default(),
            uses: Arc::default(),
            counters,
        })))
    }

    /// The same for other routes.
    pub fn changed(&self, routes: &Routes) -> Result<Self, answer::AnswerFault> {
        Ok(Self(Arc::new(Inner {
            store: self.0.store.clone(),
            policies: policies(routes)?,
            under_way: Arc::clone(&self.0.under_way),
            doubts: Arc::clone(&self.0.doubts),
            uses: Arc::clone(&self.0.uses),
            counters: self.0.counters.clone(),
        })))
    }

    /// How a route stands in, if it does.
    pub fn policy(&self, route: &Route) -> Option<&Arc<Policy>> {
        self.0.policies.get(route.index)?.as_ref()
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn under_way(&self) -> &UnderWay {
        &self.0.under_way
    }

    pub fn doubts(&self) -> &Doubts {
        &self.0.doubts
    }

    pub fn uses(&self) -> &Uses {
        &self.0.uses
    }

    /// Assess → append → answer. `is_gone`: the client certainly gets no answer any more.
    ///
    /// The answer in `New` may leave: its entry is on disk.
    pub async fn respond(
        &self,
        policy: &Policy,
        asked: &Asked<'_>,
        body: &WholeBody,
        who: &Identified,
        cause: &Cause,
        is_gone: impl Fn() -> bool,
    ) -> Result<StoodIn, NotStoodIn> {
        // Nothing of what is only looked at stays while the store writes: the future has no room for it.
        let done = match self.prepared(policy, asked, body, who, cause, is_gone) {
            Ok((entry, answer)) => {
                let appended = self.0.store.append_prepared(entry).await;
                appended.map_err(NotStoodIn::from).and_then(|appended| came_of(appended, answer))
            }
            Err(no) => Err(no),
        };
        if let Err(no) = &done {
            self.0.counters.not_stood_in(policy.route(), no.word());
        }
        done
    }

    /// What is to be stored, and the answer that may leave then.
    fn prepared(
        &self,
        policy: &Policy,
        asked: &Asked<'_>,
        body: &WholeBody,
        who: &Identified,
        cause: &Cause,
        is_gone: impl Fn() -> bool,
    ) -> Result<(Box<Prepared>, Rendered), NotStoodIn> {
        if !policy.is_on(cause.reason) {
            return Err(NotStoodIn::NotOn(cause.reason));
        }
        if policy.veto().holds_now() {
            return Err(NotStoodIn::Vetoed);
        }
        if !policy.upstream().was_seen() {
            return Err(NotStoodIn::NeverSeen);
        }
        let read = read_request(&asked.head.headers, &body.bytes);
        let (assessed, answer, labels) =
            policy.assess(asked, read.as_ref().map_err(|why| *why), body, who, cause)?;
        let judged = Judged { assessed, answer, labels };
        let entry = self.entry(policy, asked, body, who, cause, &judged, is_gone())?;
        Ok((entry, judged.answer))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "an entry is made of all that is known, in this one place"
    )]
    fn entry(
        &self,
        policy: &Policy,
        asked: &Asked<'_>,
        body: &WholeBody,
        who: &Identified,
        cause: &Cause,
        judged: &Judged,
        is_gone: bool,
    ) -> Result<Box<Prepared>, StoreError> {
        let upstream = policy.upstream();
        let (identity, parsed) = (&who.identity, &asked.head.headers);
        let mut room = [0; 16];
        let client_ip = outgoing::address(asked.client_ip, &mut room);
        let is_redacted = |name: &HeaderName| policy.redacted().contains(name);
        let left_out = |name: &HeaderName| outgoing::is_left_out(name, policy.redacted());
        Draft {
            request_id: asked.id,
            received_at: asked.received_at,
            home: policy.home(),
            key: identity.key,
            key_text: &identity.key_text,
            fingerprint: asked
                .fingerprint
                .unwrap_or_else(|| policy.fingerprint(asked.head, &body.bytes)),
            principal: &identity.principal,
            sequence: who.sequence,
            reason: cause.reason,
            certainty: cause.certainty,
            cause: &cause.text,
            not_before: match cause.certainty {
                Certainty::NotSent => asked.received_at,
                // The exchange may still be under way at the app.
                Certainty::SentUnknown => UnixMillis::now().plus(upstream.config.late_window),
            },
            expires_at: asked.received_at.plus(policy.expires()),
            method: asked.head.method.as_str(),
            target: policy::target(asked.head),
            headers: Fields::Parsed(parsed, &left_out),
            body: &body.bytes,
            trailers: match &body.trailers {
                Some(trailers) => Fields::Parsed(trailers, &is_redacted),
                None => Fields::Pairs(&[]),
            },
            client_ip: &client_ip,
            answer_status: judged.answer.status.as_u16(),
            answer_headers: Fields::Parsed(&judged.answer.headers, &|_| false),
            answer_body: &judged.answer.body,
            labels: &judged.labels,
            amount: judged.assessed.amount,
            customer: judged.assessed.customer,
            held: (is_gone && policy.holds_unanswered()).then_some(HeldReason::Unanswered),
        }
        .prepare()
    }

    /// A kept answer on its way to the client.
    pub fn response<B: From<http_body_util::Full<bytes::Bytes>>>(
        kept: Kept<impl Into<Rendered>>,
        cause: Option<&Cause>,
    ) -> http::Response<B> {
        outgoing::response(kept, cause)
    }

    /// A live attempt of the key may have reached the app.
    pub async fn worsen(&self, key: Digest, not_before: UnixMillis, cause: &str) {
        if !matches!(self.0.store.key_state(key, Digest(0)), KeyState::Open { .. }) {
            return;
        }
        if let Err(error) = self.0.store.worsen(key, not_before, cause).await {
            tracing::warn!(%error, "an entry's certainty could not be written; the doubt is kept in memory");
        }
    }

    /// Nobody got the answer: nobody was promised anything.
    pub async fn hold_unanswered(&self, entry: &Durable) {
        match self.0.store.hold_unanswered(entry).await {
            // It may have been stored as held at once.
            Ok(()) | Err(StoreError::Moved(State::Held)) => {}
            Err(error @ StoreError::Moved(_)) => {
                tracing::info!(receipt = %entry.receipt(), %error, "an unanswered entry has moved already");
            }
            Err(error) => {
                tracing::warn!(receipt = %entry.receipt(), %error, "an unanswered entry could not be held; it will be replayed");
            }
        }
    }

    /// A final live answer to a key closes its open entry.
    pub async fn close_live(&self, key: Digest, outcome: Outcome, why: &str, status: StatusCode) {
        if !matches!(self.0.store.key_state(key, Digest(0)), KeyState::Open { .. }) {
            return;
        }
        let answer =
            KeptAnswer { status: status.as_u16(), headers: Vec::new(), body: bytes::Bytes::new() };
        let why = format!("the app answered its client: {why}");
        if let Err(error) = self.0.store.close_live(key, outcome, &why, answer).await {
            tracing::info!(%error, "an entry could not be closed by a live answer");
        }
    }
}

/// What an append means for the client.
fn came_of(appended: Appended, answer: Rendered) -> Result<StoodIn, NotStoodIn> {
    match appended {
        Appended::New(entry) => Ok(StoodIn::New { entry, answer }),
        Appended::Same { outcome: Some(Outcome::Declined | Outcome::WrittenOff), .. } => {
            Ok(StoodIn::DeclinedBefore)
        }
        Appended::Conflict => Ok(StoodIn::Conflict),
        Appended::CapReached(cap) => Err(NotStoodIn::Cap(cap)),
        same @ Appended::Same { .. } => {
            Ok(StoodIn::Again(same.into_kept().expect("the same request has an answer")))
        }
    }
}

fn policies(routes: &Routes) -> Result<Vec<Option<Arc<Policy>>>, answer::AnswerFault> {
    routes.all.iter().map(|route| Policy::of(route)).collect()
}

/// What assessing gave.
struct Judged {
    assessed: Assessed,
    answer: Rendered,
    labels: Vec<(String, String)>,
}

impl Cause {
    pub fn new(reason: Reason, certainty: Certainty, text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, certainty, text: text.into() }
    }
}

impl NotStoodIn {
    /// A stable word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotOn(_) => "not_on",
            Self::NeverSeen => "never_seen",
            Self::Vetoed => "vetoed",
            Self::High(high) => high.word(),
            Self::Cap(Cap::Open) => "cap_open",
            Self::Cap(Cap::OpenSum) => "cap_open_sum",
            Self::Cap(Cap::PerCustomer) => "cap_per_customer",
            Self::Store(_) => "store",
        }
    }
}

/// The header by which the app knows a duplicate, besides the request id.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
