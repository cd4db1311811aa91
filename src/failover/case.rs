//! One request on a stand-in route, from its head to its decision.
//!
//! Read [`Case::decide`] downwards: who asks, is it known already, who is to answer, and what if nobody does.

mod asking;
mod elsewhere;
mod heard;
mod identify;
mod known;
mod standing_in;

use std::{cell::Cell, net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use filters::{
    connection_headers::{InVain, WantsTrailers},
    peer::FromClient,
    request_id::RequestId,
};
use http::{Request, Response, request::Parts};
use http_body::Body;

use super::{
    Answer, Failover, Refusal,
    hang_up::{Client, Deciding},
    outgoing, refused, way_out,
};
use crate::{
    client_body::{BodyFault, TellsPresence},
    config::Role,
    mode::Mode,
    router::{Matched, Route},
    stand_in::{Asked, Cause, Identified, Policy, StandIn},
    store::{Certainty, Digest, Reason},
    telemetry::Answered,
    time::UnixMillis,
    upstream::{
        Connections, Places,
        body_copy::{Copied, WholeBody},
        request_body::{Progress, WaitsFor},
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
