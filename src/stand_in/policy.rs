//! How one route stands in: its rule, caps and answer, compiled once; what it makes of one request.

use std::{sync::Arc, time::Duration};

use filters::connection_headers::InVain;
use http::{HeaderMap, HeaderName, Method, StatusCode, request::Parts};
use serde_json::Value;

use super::{
    Asked, Cause,
    answer::{AnswerFault, AnswerTemplate, Rendered},
    identity::{self, KeyFault, KeyKind},
    risk::{self, Assessed, HighRisk, Risk},
    secrets::is_made_of_card_data,
};
use crate::{
    body::{self, NotReadable, ReadBody},
    config::{RouteConfig, StandInConfig, StandInOn, Unanswered},
    expr::{Document, ExprFault, Facts, ResponseFacts},
    replay::{self, Live},
    router::Route,
    store::{Caps, Digest, Home, Identity, Reason},
    time::UnixMillis,
    upstream::{Upstream, body_copy::WholeBody},
    veto::Veto,
};

/// See the module.
#[derive(Debug)]
pub struct Policy {
    upstream: Arc<Upstream>,
    veto: Arc<Veto>,
    config: RouteConfig,
    stand_in: StandInConfig,
    on: Vec<StandInOn>,
    home: Arc<Home>,
    answer: AnswerTemplate,
    redacted: Vec<HeaderName>,
    identity_needs_body: bool,
}

/// Who asks and what makes another request the same. The fingerprint is made where it is needed.
#[derive(Clone, Debug)]
pub struct Identified {
    pub identity: Identity,
    /// The same for every retry of a key.
    pub request_id: String,
    /// The key is the client's or the route's: another request may have it.
    pub by_client: bool,
    /// The route itself has given it (`dedupe_by`).
    pub by_route: bool,
    /// The client has sent a key, whether or not it is the one.
    pub has_clients_key: bool,
    pub sequence: Option<Digest>,
    doubt: Option<ExprFault>,
}

impl Policy {
    /// None: the route never stands in.
    pub(super) fn of(route: &Route) -> Result<Option<Arc<Self>>, AnswerFault> {
        let Some(stand_in) = route.config.stand_in.clone() else { return Ok(None) };
        let at_most = &stand_in.at_most;
        let caps = Caps {
            open: at_most.open,
            open_sum: at_most.open_sum,
            per_customer: at_most.per_customer.as_ref().map(|cap| (cap.count, cap.within)),
        };
        let config = route.config.clone();
        let identity_needs_body = identity::needs_body(&config);
        let answer = answer_of(&stand_in)?;
        Ok(Some(Arc::new(Self {
            home: Arc::new(Home {
                route: Arc::clone(&route.name),
                upstream: Arc::clone(&route.upstream.name),
                caps,
            }),
            upstream: Arc::clone(&route.upstream),
            veto: Arc::clone(&route.veto),
            on: config.stands_in_on(),
            answer,
            redacted: config.replay.redact.iter().filter_map(|name| name.parse().ok()).collect(),
            identity_needs_body,
            config,
            stand_in,
        })))
    }

    pub fn route(&self) -> &Arc<str> {
        &self.home.route
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub fn max_body(&self) -> u64 {
        self.stand_in.max_body
    }

    /// Whether the head alone leaves a stand-in possible: if not, the request only passes through, and nothing of it is
    /// copied.
    pub fn may_stand_in(&self, method: &Method, headers: &HeaderMap, exact_path: bool) -> bool {
        risk::may_stand_in(method.as_str(), headers, exact_path).is_ok()
    }

    /// Who asks cannot be said from the head alone.
    pub fn identity_needs_body(&self) -> bool {
        self.identity_needs_body
    }

    /// Every request is stored, whether the app is up or not.
    pub fn is_deferred(&self) -> bool {
        self.on.contains(&StandInOn::Always)
    }

    /// Whether an answer of the app counts as none.
    pub fn stands_in_for(&self, status: StatusCode) -> bool {
        matches!(status.as_u16(), 500 | 502 | 503 | 504)
            && self.on.contains(&StandInOn::ServerError)
    }

    pub fn holds_unanswered(&self) -> bool {
        self.stand_in.unanswered == Unanswered::Hold
    }

    pub(super) fn veto(&self) -> &Veto {
        &self.veto
    }

    pub(super) fn is_on(&self, reason: Reason) -> bool {
        let wanted = match reason {
            Reason::ConnectFailed => StandInOn::Connect,
            Reason::TimedOut => StandInOn::Timeout,
            Reason::Reset => StandInOn::Reset,
            Reason::BadStatus => StandInOn::ServerError,
            Reason::BreakerOpen => StandInOn::Breaker,
            Reason::NoWayOut => StandInOn::Egress,
            // Not causes that a route chooses: a person, the role or the order of things did.
            Reason::Forced | Reason::Deferred | Reason::Standby | Reason::SequenceHeld => {
                return true;
            }
        };
        self.on.contains(&wanted)
    }

    pub(super) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    pub(super) fn expires(&self) -> Duration {
        self.stand_in.expires
    }

    pub(super) fn redacted(&self) -> &[HeaderName] {
        &self.redacted
    }

    /// What the app's answer says of a live request. `body` is the request's, if it was kept.
    pub(crate) fn live_outcome(
        &self,
        asked: &Asked<'_>,
        body: Option<&[u8]>,
        principal: &str,
        answer: (StatusCode, &HeaderMap),
    ) -> Live {
        let (status, headers) = answer;
        let nothing = Value::Null;
        replay::live_outcome(&self.config.replay, status, |rule| {
            if rule.reads_answer_body() || (rule.reads_body() && body.is_none()) {
                return None;
            }
            // As for replays: JSON or nothing.
            let bytes = body.filter(|_| rule.reads_body()).unwrap_or_default();
            let body = serde_json::from_slice(bytes).unwrap_or(Value::Null);
            let mut facts = facts(asked, (&body).into(), principal, "");
            let status = status.as_u16();
            facts.response = Some(ResponseFacts { status, headers, body: &nothing });
            Some(rule.to_bool(&facts))
        })
    }

    /// What must be equal for two requests with one key to be the same.
    pub fn fingerprint(&self, head: &Parts, body: &[u8]) -> Digest {
        identity::fingerprint(head.method.as_str(), target(head), body)
    }

    /// Who asks. `body` is what was read of it, if that was done already.
    pub fn identify(&self, asked: &Asked<'_>, body: Option<&[u8]>) -> Result<Identified, KeyFault> {
        let client_key = identity::client_key(&asked.head.headers)?;
        let read = body.filter(|_| self.identity_needs_body);
        let read = read.and_then(|bytes| body::read_request(&asked.head.headers, bytes).ok());
        let read = read.as_ref().map_or(Document::NONE, |read| Document::Read(&read.json));
        let facts = facts(asked, read, "", "");
        let (upstream, key) = (&*self.upstream.name, client_key.as_deref());
        let found = identity::identify(self.route(), upstream, &self.config, &facts, key);
        let by_client = found.kind != KeyKind::RequestId;
        let by_route = found.kind == KeyKind::Expression;
        let request_id = if by_client {
            identity::derived_request_id(found.identity.key)
        } else {
            asked.id.to_owned()
        };
        let identity::Identified { identity, sequence, doubt, .. } = found;
        let has_clients_key = client_key.is_some();
        Ok(Identified {
            identity,
            request_id,
            by_client,
            by_route,
            has_clients_key,
            sequence,
            doubt,
        })
    }

    /// Low risk: what the caps count, the answer, the labels.
    pub(super) fn assess(
        &self,
        asked: &Asked<'_>,
        read: Result<&ReadBody<'_>, NotReadable>,
        raw: &WholeBody,
        who: &Identified,
        cause: &Cause,
    ) -> Result<(Assessed, Rendered, Vec<(String, String)>), HighRisk> {
        match asked.head.extensions.get::<InVain>() {
            Some(InVain::Upgrade) => return Err(HighRisk::Upgrade),
            Some(InVain::Expectation) => return Err(HighRisk::Expectation),
            None => {}
        }
        let json = read.map_or(Document::NONE, |read| Document::Read(&read.json));
        let facts = facts(asked, json, &who.identity.principal, cause.reason.word());
        let case = risk::Case {
            route: self.route(),
            config: &self.config,
            stand_in: &self.stand_in,
            facts: &facts,
            target: target(asked.head),
            exact_path: asked.exact_path,
            body: read,
            raw_body: &raw.bytes,
            trailers: raw.trailers.as_ref(),
            key: &who.identity.key_text,
            certainty: cause.certainty,
            doubt: who.doubt.as_ref(),
        };
        match risk::assess(&case) {
            Risk::High(high) => Err(high),
            Risk::Low(assessed) => {
                let answer = self
                    .answer
                    .render(&facts)
                    .map_err(|fault| HighRisk::AnswerFault(fault.to_string()))?;
                let labels = identity::labels(&self.config, &facts);
                if labels.iter().any(|(_, value)| is_made_of_card_data(value)) {
                    return Err(HighRisk::CardData("a card number as a label"));
                }
                Ok((assessed, answer, labels))
            }
        }
    }
}

fn answer_of(stand_in: &StandInConfig) -> Result<AnswerTemplate, AnswerFault> {
    let file = stand_in.answer.body_file.as_ref();
    let text = file.map(std::fs::read_to_string).transpose();
    let text = text.map_err(|error| AnswerFault::File(error.to_string()))?;
    AnswerTemplate::compile(&stand_in.answer, text.as_deref())
}

fn facts<'a>(
    asked: &Asked<'a>,
    body: Document<'a>,
    principal: &'a str,
    reason: &'a str,
) -> Facts<'a> {
    Facts {
        method: asked.head.method.as_str(),
        path: asked.path,
        query: asked.head.uri.query().unwrap_or_default(),
        headers: &asked.head.headers,
        params: asked.params,
        id: asked.id,
        principal,
        client_ip: asked.client_ip,
        body,
        reason,
        now: UnixMillis(asked.received_at.0),
        response: None,
    }
}

/// The raw request target in origin form.
pub(super) fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}
