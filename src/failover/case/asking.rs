//! Asks the app, and says what becomes of the request where that gave no answer.

use std::{borrow::Cow, rc::Rc};

use http::{Request, Response};

use super::{Case, Decided};
use crate::{
    failover::{Refusal, way_out},
    replay::Live,
    stand_in::{Cause, Identified},
    store::{Certainty, Reason},
    upstream::{
        AnswerBody, Asking, Attempt, UpstreamError,
        request_body::{RequestBody, WaitsFor},
    },
};

impl Case {
    /// Asks the app, and looks after the request if it does not answer. What then happens is in boxes: each request would
    /// carry the room for it.
    pub(super) async fn ask(&mut self, who: &Identified) -> Result<Decided, Refusal> {
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
    pub(super) async fn hear_veto(&self, response: &mut Response<AnswerBody>) {
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
}
