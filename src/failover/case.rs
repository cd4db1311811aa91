//! One request on a stand-in route, from its head to its decision.
//!
//! Read [`Case::decide`] downwards: who asks, is it known already, who is to answer, and what if nobody does.

mod elsewhere;
mod heard;
mod known;
mod standing_in;

use std::{borrow::Cow, cell::Cell, net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use filters::{
    connection_headers::{InVain, WantsTrailers},
    peer::FromClient,
    request_id::RequestId,
};
use http::{HeaderValue, Request, Response, request::Parts};
use http_body::Body;

use super::{
    Answer, Failover, Refusal,
    hang_up::{Client, Deciding},
    outgoing, refused, way_out,
};
use crate::{
    client_body::{BodyFault, TellsPresence},
    config::{DedupesBy, Role},
    mode::Mode,
    replay::Live,
    router::{Matched, Route},
    stand_in::{Asked, Cause, IDEMPOTENCY_KEY, Identified, Policy, StandIn},
    store::{Certainty, Digest, Reason},
    telemetry::Answered,
    time::UnixMillis,
    upstream::{
        AnswerBody, Asking, Attempt, Connections, Places, UpstreamError,
        body_copy::{Copied, WholeBody},
        request_body::{Progress, RequestBody, WaitsFor},
    },
};

/// What the client gets, and how that is counted.
pub(super) type Decided = (Response<Answer>, Answered);

/// See the module.
pub(super) struct Case {
    failover: Failover,
    route: Arc<Route>,
    policy: Arc<Policy>,
    head: Parts,
    /// Of this connection, so neither kept nor replayed.
    wants_trailers: Option<WantsTrailers>,
    copy: Copied,
    /// Once it was read to its end; `None` within if it is too large to keep.
    body: Option<Option<WholeBody>>,
    progress: Rc<Progress>,
    /// Held while the app is busy with it.
    places: Places,
    client: Client,
    client_ip: IpAddr,
    /// The request id was made for this request.
    id_is_new: bool,
    /// The canonical path, where it is not the raw one.
    path: Option<String>,
    params: Vec<(String, String)>,
    /// The app gets it under another id than it came with.
    has_another_id: bool,
    exact_path: bool,
    received_at: UnixMillis,
    /// Once somebody asked for it.
    fingerprint: Cell<Option<Digest>>,
}

/// A body of known length up to this is read before the app is asked: one write carries head and body.
const SMALL: u64 = 64 << 10;

impl Case {
    /// The decision as a future that can outlive its client.
    pub(super) fn open<B>(
        failover: &Failover,
        route: Arc<Route>,
        policy: Arc<Policy>,
        matched: Matched,
        request: Request<B>,
    ) -> Deciding<Decided>
    where
        B: Body<Data = Bytes, Error = BodyFault> + FromClient + TellsPresence + Unpin + 'static,
    {
        let (mut head, body) = request.into_parts();
        let (client_ip, id_is_new) = (way_out::client_ip(&body), body.id_is_new());
        let wants_trailers = head.extensions.get::<WantsTrailers>().copied();
        // What it asked for in vain still speaks against standing in.
        let in_vain = head.extensions.get::<InVain>().copied();
        outgoing::head(&mut head);
        if let Some(in_vain) = in_vain {
            head.extensions.insert(in_vain);
        }
        let progress = Rc::new(Progress::default());
        let client = Client::of(body.presence().cloned());
        let budget = failover.0.shared.budget.clone();
        let mut case = Self {
            failover: failover.clone(),
            copy: Copied::new(Box::pin(body), policy.max_body(), budget, Rc::clone(&progress)),
            route,
            policy,
            wants_trailers,
            head,
            body: None,
            progress: Rc::clone(&progress),
            places: Places::default(),
            client: client.clone(),
            client_ip,
            id_is_new,
            path: matched.path,
            params: matched.params,
            has_another_id: false,
            exact_path: matched.exact_path,
            received_at: UnixMillis::now(),
            fingerprint: Cell::new(None),
        };
        // A block: a function would have its argument twice.
        Deciding { future: Box::pin(async move { case.run().await }), progress, client }
    }

    async fn run(&mut self) -> Decided {
        let (mut response, answered) = match self.decide().await {
            Ok(decided) => decided,
            Err(refusal) => refused(refusal),
        };
        // The client learns the id that the app gets, where that is another than it came with.
        if self.has_another_id
            && let Some(id) = self.head.headers.get(&self.failover.0.shared.request_id)
        {
            response.extensions_mut().insert(RequestId(id.clone()));
        }
        (response, answered)
    }

    /// Who answers.
    async fn decide(&mut self) -> Result<Decided, Refusal> {
        let at_once = self.at_once();
        let known = self.stand_in().store().anything_known();
        if at_once.is_some() || known || self.policy.identity_needs_body() || self.has_small_body()
        {
            self.read_body().await?;
        }
        let who = self.identify()?;
        // One of a key, and one of a sequence, at a time: the second learns from the first.
        let _turn = self.take_turn(&who).await?;
        if let Some(decided) = self.where_it_was(&who).await {
            return decided;
        }
        let mut behind = None;
        if self.stand_in().store().anything_known() {
            self.read_body().await?;
            self.progress.waits_for(WaitsFor::Store);
            if let Some(decided) = self.known_already(&who).await? {
                return Ok(decided);
            }
            behind = self.behind_its_sequence(&who)?;
        }
        match behind.or(at_once) {
            Some(cause) => Box::pin(self.without_asking(&who, cause)).await,
            None => self.ask(&who).await,
        }
    }

    /// Reasons not to ask the app at all.
    fn at_once(&self) -> Option<Cause> {
        let mode = self.failover.0.shared.modes.of(&self.route.name);
        if self.failover.0.shared.role == Role::Standby {
            // Whoever sent it here may have sent it to the app before.
            return Some(Cause::new(Reason::Standby, Certainty::SentUnknown, "standby"));
        }
        match mode {
            Mode::PassThrough => None,
            Mode::Forced => Some(Cause::new(Reason::Forced, Certainty::NotSent, "forced")),
            Mode::Auto if self.policy.is_deferred() => {
                Some(Cause::new(Reason::Deferred, Certainty::NotSent, "deferred"))
            }
            Mode::Auto => None,
        }
    }

    fn has_small_body(&self) -> bool {
        self.copy.announced().is_some_and(|length| length <= SMALL)
    }

    /// Reads the body to its end, if that was not done yet.
    async fn read_body(&mut self) -> Result<Option<&WholeBody>, Refusal> {
        if self.body.is_none() {
            self.progress.waits_for(WaitsFor::Body);
            self.body = Some(self.copy.read_whole().await.map_err(Refusal::Body)?);
        }
        Ok(self.body.as_ref().and_then(Option::as_ref))
    }

    /// Whose request, and what makes another the same. Every attempt carries the id and the key.
    fn identify(&mut self) -> Result<Identified, Refusal> {
        let body = self.body.as_ref().and_then(Option::as_ref);
        let given = self.head.headers.get(&self.failover.0.shared.request_id).cloned();
        let id = given.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let mut who = self
            .policy
            .identify(&self.asked(id), body.map(|body| &body.bytes[..]))
            .map_err(Refusal::BadKey)?;
        if self.failover.0.shared.role == Role::Standby {
            // Whoever sent it here may have sent it to the app under this id before: the app must know it again.
            id.clone_into(&mut who.request_id);
        }
        if who.request_id != id
            && let Ok(value) = HeaderValue::from_str(&who.request_id)
        {
            self.head.headers.insert(self.failover.0.shared.request_id.clone(), value);
            self.has_another_id = true;
        }
        if self.replaces_keys(&who) || !who.has_clients_key {
            // Mostly the id, which is there as a field's value already.
            let key = match given {
                Some(given) if given == *who.identity.key_text => Some(given),
                _ => HeaderValue::from_bytes(who.identity.key_text.as_bytes()).ok(),
            };
            if let Some(key) = key {
                self.head.headers.insert(IDEMPOTENCY_KEY, key);
            }
        }
        Ok(who)
    }

    /// The app knows duplicates by the key, and the route knows better than its clients which those are: a client may
    /// give each try of one order a key of its own.
    fn replaces_keys(&self, who: &Identified) -> bool {
        let dedupes = self.route.config.app_dedupes.as_ref();
        who.by_route && dedupes.is_some_and(|dedupes| dedupes.by == DedupesBy::IdempotencyKey)
    }

    /// Stands in without an attempt.
    async fn without_asking(&mut self, who: &Identified, cause: Cause) -> Result<Decided, Refusal> {
        let (reason, certainty) = (cause.reason, self.worst(who, cause.certainty));
        match self.stand_in_for(who, cause, None).await? {
            Some(decided) => Ok(decided),
            None if reason == Reason::Deferred => self.ask(who).await,
            None if reason == Reason::SequenceHeld => Err(Refusal::SequenceHeld),
            None => Err(Refusal::NobodyToAsk(certainty)),
        }
    }

    /// Asks the app, and looks after the request if it does not answer. What then happens is in boxes: each request would
    /// carry the room for it.
    async fn ask(&mut self, who: &Identified) -> Result<Decided, Refusal> {
        match self.failover.enter(Some(&self.route), self.route.upstream_index) {
            Ok(places) => self.places = places,
            Err(error) => return Box::pin(self.nobody_answered(who, error, None)).await,
        }
        self.progress.waits_for(WaitsFor::App);
        let request = || {
            let mut head = self.head.clone();
            if let Some(wants) = self.wants_trailers {
                wants.ask(&mut head.headers);
            }
            if let Some(lane) = &self.route.egress {
                let (id, client_ip) = (&who.request_id, self.client_ip);
                head.extensions.insert(way_out::job(lane, &self.head, &self.params, client_ip, id));
            }
            // One that is here whole leaves with its head.
            let body = match &self.body {
                Some(Some(whole)) => RequestBody::from(whole.clone()),
                _ => RequestBody::Copied(self.copy.reader()),
            };
            Request::from_parts(head, body)
        };
        let asking = Asking { route: &self.route.breaker, timeout: self.route.timeout };
        let attempt = self.connections().attempt(request, Rc::clone(&self.progress), asking);
        let mut attempt = match attempt {
            Ok(attempt) => attempt,
            Err(error) => return Box::pin(self.nobody_answered(who, error, None)).await,
        };
        match attempt.answer().await {
            Ok(mut response) => {
                self.hear_veto(&mut response).await;
                match self.is_no_answer(&response) {
                    Some(reason) => Box::pin(self.bad_status(who, response, reason)).await,
                    None => Ok(self.answered(who, response).await),
                }
            }
            Err(error) => Box::pin(self.nobody_answered(who, error, Some(attempt))).await,
        }
    }

    /// What the app says to being stood in for.
    async fn hear_veto(&self, response: &mut Response<AnswerBody>) {
        self.failover.hear_veto(&self.route, response).await;
    }

    /// Why it is not taken for an answer of the app.
    fn is_no_answer(&self, response: &Response<AnswerBody>) -> Option<Reason> {
        let (status, headers) = (response.status(), response.headers());
        let by_proxy = self.route.upstream.own_error_of_a_proxy(status, headers);
        by_proxy.or_else(|| self.policy.stands_in_for(status).then_some(Reason::BadStatus))
    }

    async fn bad_status(
        &mut self,
        who: &Identified,
        response: Response<AnswerBody>,
        reason: Reason,
    ) -> Result<Decided, Refusal> {
        let by = if reason == Reason::BadStatus { "the app" } else { "a proxy before the app" };
        let text = Cow::Owned::<str>(format!("{by} answered {}", response.status()));
        let certainty = match self.says(who, &response) {
            // By the route's own rules it is an answer.
            Live::Closes(..) => return Ok(self.answered(who, response).await),
            Live::NotApplied => Certainty::NotSent,
            Live::Doubtful | Live::Unseen => Certainty::SentUnknown,
        };
        let cause = Cause::new(reason, certainty, text.clone());
        match self.stand_in_for(who, cause, None).await {
            Ok(Some(decided)) => {
                if let Some(recording) = self.recording() {
                    recording.not_given(&response);
                }
                Ok(decided)
            }
            Err(refusal @ (Refusal::StoreFailed | Refusal::Body(_))) => {
                self.raise_doubt(who, &text).await;
                Err(refusal)
            }
            // What else speaks against a stand-in is no better an answer than the app's own.
            Ok(None) | Err(_) => {
                if certainty == Certainty::SentUnknown {
                    self.raise_doubt(who, &text).await;
                }
                Ok(self.by_app(response))
            }
        }
    }

    async fn nobody_answered(
        &mut self,
        who: &Identified,
        error: UpstreamError,
        attempt: Option<Attempt>,
    ) -> Result<Decided, Refusal> {
        // In boxes, here and below: hardly any request has another app, or a doubt.
        if self.failover.backups(self.route.upstream_index).is_some()
            && let Some(decided) = Box::pin(self.elsewhere(who, &error)).await?
        {
            return Ok(decided);
        }
        let certainty = error.certainty();
        let Some(reason) = error.reason() else {
            let worst = self.worst(who, certainty);
            return Err(self
                .progress
                .fault()
                .map_or(Refusal::NoAnswer(error, worst), Refusal::Body));
        };
        tracing::debug!(route = &*self.route.name, %error, "no answer from the app");
        if let Some(recording) = self.recording() {
            recording.no_answer(&error);
        }
        let still_under_way = attempt.filter(|_| reason == Reason::TimedOut);
        let cause = Cause::new(reason, certainty, error.in_words());
        let stood_in = self.stand_in_for(who, cause, still_under_way).await;
        if let Ok(Some(decided)) = stood_in {
            return Ok(decided);
        }
        if certainty == Certainty::SentUnknown {
            Box::pin(self.raise_doubt(who, &error.in_words())).await;
        }
        match stood_in {
            // It may have been applied just now: whatever was before, that is what the client has to know.
            Err(Refusal::KeyReused | Refusal::DeclinedBefore)
                if certainty == Certainty::SentUnknown =>
            {
                Err(Refusal::NoAnswer(error, certainty))
            }
            Err(refusal) => Err(refusal),
            Ok(_) => Err(Refusal::NoAnswer(error, self.worst(who, certainty))),
        }
    }

    /// The request as rules, templates and the store see it.
    fn asked<'a>(&'a self, id: &'a str) -> Asked<'a> {
        Asked {
            head: &self.head,
            path: self.path.as_deref().unwrap_or(self.head.uri.path()),
            params: &self.params,
            id,
            client_ip: self.client_ip,
            exact_path: self.exact_path,
            received_at: self.received_at,
            fingerprint: self.fingerprint.get(),
        }
    }

    fn client_gone(&self) -> impl Fn() -> bool {
        let client = self.client.clone();
        move || client.is_gone()
    }

    fn stand_in(&self) -> &StandIn {
        &self.failover.0.shared.stand_in
    }

    fn connections(&self) -> &Connections {
        &self.failover.0.connections[self.route.upstream_index]
    }
}
