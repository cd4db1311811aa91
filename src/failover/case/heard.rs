//! What the app's answers, and their absence, say of a key: its entry closes, a doubt is raised or settled.

use http::Response;

use super::{Case, Decided};
use crate::{
    failover::{Answer, by_app, recording::Recording},
    replay::Live,
    stand_in::Identified,
    store::{Certainty, Outcome},
    time::UnixMillis,
    upstream::AnswerBody,
};

impl Case {
    /// The app's own answer. A final one to an open key closes its entry; one that says nothing of what became of the
    /// request leaves a doubt.
    pub(super) async fn answered(
        &mut self,
        who: &Identified,
        response: Response<AnswerBody>,
    ) -> Decided {
        let status = response.status();
        let says = self.says(who, &response);
        if !matches!(says, Live::NotApplied | Live::Closes(Outcome::Declined, _)) {
            self.stays_here(who).await;
        }
        match says {
            Live::Closes(outcome, why) => {
                self.remember_outcome(who, outcome);
                if outcome != Outcome::Declined {
                    self.note_use(who);
                }
                if self.stand_in().store().anything_known() {
                    let closing =
                        self.stand_in().close_live(who.identity.key, outcome, &why, status);
                    // In boxes, here and below: most answers need none of it.
                    Box::pin(closing).await;
                }
            }
            Live::NotApplied => {}
            // A 5xx or a redirect.
            Live::Doubtful => {
                Box::pin(self.raise_doubt(who, &format!("the app answered {status}"))).await;
            }
            // An app that notices duplicates may have it again; an entry that is open is not what it was.
            Live::Unseen => {
                self.note_use(who);
                if self.route.config.app_dedupes.is_none() {
                    self.remember_outcome(who, Outcome::Completed);
                }
                Box::pin(self.worsen(who, &format!("the app answered {status}"))).await;
            }
        }
        self.by_app(response)
    }

    pub(super) fn by_app(&mut self, response: Response<AnswerBody>) -> Decided {
        let places = std::mem::take(&mut self.places);
        by_app(match self.recording() {
            None => response.map(|body| Answer::App(body, places)),
            Some(recording) => recording.answered(response, places),
        })
    }

    /// Of this exchange, where its route wants failed ones kept.
    pub(super) fn recording(&self) -> Option<Box<Recording>> {
        self.route.config.watch.record?;
        let shared = &self.failover.0.shared;
        let body = self.body.as_ref().and_then(Option::as_ref).map(|body| body.bytes.clone());
        let took = UnixMillis::now().since(self.received_at);
        let made =
            Recording::made(&shared.records, &self.route, &shared.request_id, &self.head, body);
        Some(made.that_took(took))
    }

    pub(super) fn says(&self, who: &Identified, response: &Response<AnswerBody>) -> Live {
        let body = self.body.as_ref().and_then(Option::as_ref).map(|body| &body.bytes[..]);
        let asked = self.asked(&who.request_id);
        let answer = (response.status(), response.headers());
        self.policy.live_outcome(&asked, body, &who.identity.principal, answer)
    }

    /// The app has said what became of the key. If it would not notice a second time, a yes is for good, and a no takes
    /// back nothing: an earlier try may have been the reason for it.
    pub(super) fn remember_outcome(&self, who: &Identified, outcome: Outcome) {
        if !self.others_may_have(who) {
            return;
        }
        let doubts = self.stand_in().doubts();
        if self.route.config.app_dedupes.is_some() {
            doubts.settle(who.identity.key);
        } else if outcome != Outcome::Declined {
            doubts.applied(who.identity.key);
        }
    }

    /// The request may have been applied, and no new entry says so: its next attempt is not the first, and an open
    /// entry of its key is not what it was.
    pub(super) async fn raise_doubt(&self, who: &Identified, cause: &str) {
        if !self.others_may_have(who) {
            return;
        }
        self.stand_in().doubts().raise(who.identity.key);
        self.note_use(who);
        self.stays_here(who).await;
        self.worsen(who, cause).await;
    }

    /// An open entry of its key is not what it was: the app has heard of it.
    pub(super) async fn worsen(&self, who: &Identified, cause: &str) {
        if self.others_may_have(who) && self.stand_in().store().anything_known() {
            let not_before = UnixMillis::now().plus(self.route.upstream.config.late_window);
            self.stand_in().worsen(who.identity.key, not_before, cause).await;
        }
    }

    /// The worst of this attempt and of earlier ones of its key.
    pub(super) fn worst(&self, who: &Identified, certainty: Certainty) -> Certainty {
        let doubtful =
            self.others_may_have(who) && self.stand_in().doubts().is_in_doubt(who.identity.key);
        if doubtful { Certainty::SentUnknown } else { certainty }
    }

    /// No request before it can have had its key: that was made for it, by us. One that comes later can.
    pub(super) fn is_new(&self, who: &Identified) -> bool {
        self.id_is_new && !who.by_client
    }

    /// Another request may carry the same key: the client or the route chose it, or a trusted peer gave the id.
    pub(super) fn others_may_have(&self, who: &Identified) -> bool {
        who.by_client || self.failover.0.shared.trust.covers(self.client_ip)
    }
}
