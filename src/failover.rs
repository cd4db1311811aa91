//! Who answers: the one decision.
//!
//! A route without a stand-in passes through: both ways streamed, nothing kept, nothing spawned. On a stand-in route
//! the request lives as a `Case` until it is decided, whatever its client does.

mod answer;
mod backup;
mod case;
mod counting;
mod current;
mod hang_up;
pub mod late_answer;
mod outgoing;
mod pass_through;
mod pins;
mod recording;
mod refusal;
mod slow;
mod tunnel;
mod upgrade;
mod way_out;

use std::{convert::Infallible, net::IpAddr, pin::Pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use filters::{
    access_log::AnsweredBy,
    connection_headers::WantsUpgrade,
    peer::{FromClient, Trust},
};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body;

pub use self::{answer::Answer, current::Current, pins::Pins, refusal::Refusal};
use self::{counting::Counting, hang_up::SurvivesHangUp, late_answer::LateAnswers, slow::Slow};
use crate::{
    client_body::{BodyFault, TellsPresence},
    config::Role,
    listener::Drain,
    mode::Modes,
    record::Records,
    router::{Matched, Route, Routes},
    signature::REPLAY,
    stand_in::StandIn,
    telemetry::{ANSWERED, Answered, WorkerCounters},
    upstream::{
        Asking, Connections, Places, UpstreamError, body_copy::Budget, request_body::Progress,
    },
    veto::{self, VETO},
};

/// What all workers share to decide.
#[derive(Clone, Debug)]
pub struct Shared {
    pub role: Role,
    pub routes: Arc<Routes>,
    pub modes: Modes,
    pub stand_in: StandIn,
    /// Memory for bodies that are copied aside.
    pub budget: Budget,
    /// Header that carries the request id.
    pub request_id: http::HeaderName,
    /// Peers whose request id is kept.
    pub trust: Trust,
    /// Failed exchanges that are kept for support.
    pub records: Records,
    /// Which app a key stays with, where there are others.
    pub pins: Pins,
    /// Somebody wants to know who answered.
    pub access_log: bool,
}

/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>>>>;

/// One worker's failover. Cheap to clone.
#[derive(Clone)]
pub struct Failover(Rc<Worker>);

struct Worker {
    shared: Arc<Shared>,
    /// One for each upstream, in their order.
    connections: Vec<Connections>,
    counters: Arc<WorkerCounters>,
    late: LateAnswers,
    drain: Rc<Drain>,
}

impl Failover {
    fn new(shared: Arc<Shared>, counters: Arc<WorkerCounters>, drain: Rc<Drain>) -> Self {
        let connections: Vec<_> =
            shared.routes.upstreams.iter().cloned().map(Connections::new).collect();
        let late = LateAnswers::new(Rc::clone(&drain));
        Self(Rc::new(Worker { shared, connections, counters, late, drain }))
    }

    /// The same under another configuration. Connections to apps that stay are kept; requests and late exchanges that are
    /// under way end as they began.
    fn changed(&self, shared: Arc<Shared>) -> Self {
        let connections = shared.routes.upstreams.iter().map(|upstream| {
            let mut all = self.0.connections.iter();
            let kept = all.find(|kept| Arc::ptr_eq(kept.upstream(), upstream));
            kept.cloned().unwrap_or_else(|| Connections::new(Arc::clone(upstream)))
        });
        Self(Rc::new(Worker {
            connections: connections.collect(),
            shared,
            counters: Arc::clone(&self.0.counters),
            late: self.0.late.clone(),
            drain: Rc::clone(&self.0.drain),
        }))
    }

    /// Answers one request: by the app, in its stead, or with an honest error. In a box of the size that this way of
    /// answering needs: the filters around it move it.
    pub fn call<B>(self, request: Request<B>) -> Answering
    where
        B: Body<Data = Bytes, Error = BodyFault> + FromClient + TellsPresence + Unpin + 'static,
    {
        let mut matched = self.0.shared.routes.find(&request);
        let place = matched.route.as_ref().map_or(0, |route| route.place);
        let counting = Counting::begin(&self.0.counters, place);
        // A replay of another standin: that one keeps the promise. Unsigned marks did not come this far.
        let is_replay = request.headers().contains_key(REPLAY);
        let stands_in = matched
            .route
            .as_ref()
            .filter(|_| !is_replay)
            .and_then(|route| self.0.shared.stand_in.policy(route));
        if request.extensions().get::<WantsUpgrade>().is_some() {
            let stands_in = stands_in.is_some();
            return Box::pin(async move {
                let answer = self.upgrade(matched, request, stands_in).await;
                Ok(self.counted(counting, answer))
            });
        }
        let policy = stands_in.filter(|policy| {
            // With anything open it must be looked for there: it could be the same, or come after it.
            self.0.shared.stand_in.store().anything_known()
                || policy.may_stand_in(request.method(), request.headers(), matched.exact_path)
        });
        let slow = Slow::of(&matched, &request, &self.0.shared.request_id, counting.started);
        if let Some(policy) = policy.cloned()
            && let Some(route) = matched.route.take()
        {
            let mut case = case::Case::open(&self, route, policy, matched, request);
            if let Some(slow) = slow {
                case.future = Box::pin(slow.watch(Rc::clone(&case.progress), case.future));
            }
            let decided = SurvivesHangUp::new(case, &self.0.late);
            return Box::pin(async move {
                let answer = decided.await;
                Ok(self.counted(counting, answer))
            });
        }
        let progress = Rc::new(Progress::default());
        match slow {
            None => Box::pin(self.pass_through(matched, request, counting, progress)),
            Some(slow) => {
                let seen = Rc::clone(&progress);
                let answer = self.pass_through(matched, request, counting, progress);
                Box::pin(slow.watch(seen, answer))
            }
        }
    }

    fn counted(
        &self,
        counting: Counting,
        (mut response, answered): (Response<Answer>, Answered),
    ) -> Response<Answer> {
        counting.done(answered);
        if self.0.shared.access_log {
            response.extensions_mut().insert(AnsweredBy(ANSWERED[answered as usize].1));
        }
        response
    }

    /// Takes note of what an answer of the app of a stand-in route says to being stood in for; its client does not see it.
    async fn hear_veto<B>(&self, route: &Route, response: &mut Response<B>) {
        if route.config.stand_in.is_some() && response.headers().contains_key(VETO) {
            let (status, store) = (response.status(), self.0.shared.stand_in.store());
            // In a box: hardly any answer has it, and every request would carry the room for it.
            Box::pin(veto::hear(route, store, status, response.headers_mut())).await;
        }
    }

    /// Keeps connections open where that is configured. Runs until dropped.
    pub async fn keep_open(&self) {
        join_all(self.0.connections.iter().map(Connections::keep_open)).await;
        std::future::pending().await
    }

    /// Closes connections that were idle for too long.
    pub fn reap(&self) {
        self.0.connections.iter().for_each(Connections::reap);
    }

    /// A place in the bulkheads of the request, until its answer ends.
    fn enter(&self, route: Option<&Route>, upstream: usize) -> Result<Places, UpstreamError> {
        let of_upstream = self.0.shared.routes.bulkheads.get(upstream).and_then(Option::as_deref);
        Places::enter(route.and_then(|route| route.bulkhead.as_ref()), of_upstream)
    }

    /// Makes the head what leaves, with its way out where the upstream has a pool of egress proxies.
    fn leave(
        &self,
        outgoing: fn(&mut Parts),
        head: &mut Parts,
        matched: &Matched,
        client_ip: IpAddr,
    ) {
        let route = matched.route.as_ref();
        let lane = match route {
            Some(route) => route.egress.as_ref(),
            None => self.connections(matched).upstream().egress.as_ref(),
        };
        let Some(lane) = lane else { return outgoing(head) };
        outgoing(head);
        let id = way_out::request_id(head, &self.0.shared.request_id);
        let job = way_out::job(lane, head, &matched.params, client_ip, id);
        head.extensions.insert(job);
    }

    fn connections(&self, matched: &Matched) -> &Connections {
        &self.0.connections[matched.upstream_index]
    }

    /// None where there is no upstream at all.
    fn asking<'a>(&'a self, matched: &'a Matched) -> Option<Asking<'a>> {
        match &matched.route {
            Some(route) => Some(Asking { route: &route.breaker, timeout: route.timeout }),
            None => {
                let route = self.0.shared.routes.without_route.as_ref()?;
                let timeout = self.connections(matched).upstream().config.timeout;
                Some(Asking { route, timeout })
            }
        }
    }
}

/// The app's own answer.
fn by_app(response: Response<Answer>) -> (Response<Answer>, Answered) {
    let answered = if response.status() >= StatusCode::INTERNAL_SERVER_ERROR {
        Answered::ByAppError
    } else {
        Answered::ByApp
    };
    (response, answered)
}

/// Of a request that nobody stands in for.
fn no_answer(error: UpstreamError) -> (Response<Answer>, Answered) {
    let certainty = error.certainty();
    refused(Refusal::NoAnswer(error, certainty))
}

/// An honest error.
fn refused(refusal: Refusal) -> (Response<Answer>, Answered) {
    let answered =
        if refusal.is_clients_fault() { Answered::ClientFault } else { Answered::Refused };
    (refusal.into_response(), answered)
}
