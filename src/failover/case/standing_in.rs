//! Answers in the app's stead, if that may be; what is promised is on disk before.

use std::sync::Arc;

use super::{Case, Decided};
use crate::{
    failover::{Refusal, late_answer},
    mode::Mode,
    stand_in::{Cause, Identified, NotStoodIn, StandIn, StoodIn},
    store::{Durable, StoreError},
    telemetry::Answered,
    upstream::{Attempt, request_body::WaitsFor},
};

impl Case {
    /// Assess → append → answer. `None`: not low risk, or the store refused; the caller has the honest answer.
    pub(super) async fn stand_in_for(
        &mut self,
        who: &Identified,
        mut cause: Cause,
        attempt: Option<Attempt>,
    ) -> Result<Option<Decided>, Refusal> {
        if self.failover.0.shared.modes.of(&self.route.name) == Mode::PassThrough {
            return Ok(None);
        }
        cause.certainty = self.worst(who, cause.certainty);
        self.read_body().await?;
        let Some(Some(body)) = &self.body else { return Ok(None) };
        if self.has_anothers_key(who) {
            return Err(Refusal::KeyReused);
        }
        self.progress.waits_for(WaitsFor::Store);
        // Of this thread: no line that others write.
        let failover = self.failover.clone();
        let stand_in = &failover.0.shared.stand_in;
        let asked = self.asked(&who.request_id);
        let stood_in =
            stand_in.respond(&self.policy, &asked, body, who, &cause, self.client_gone()).await;
        match stood_in {
            Ok(StoodIn::New { entry, answer }) => {
                let answered = self.hold_unless_heard(&entry).await;
                let response = StandIn::response(entry.kept(answer), Some(&cause));
                if let Some(attempt) = attempt {
                    self.follow(attempt, entry);
                }
                Ok(Some((response, answered)))
            }
            Ok(StoodIn::Again(kept)) => {
                Ok(Some((StandIn::response(kept, Some(&cause)), Answered::KeptAgain)))
            }
            Ok(StoodIn::Conflict) => Err(Refusal::KeyReused),
            Ok(StoodIn::DeclinedBefore) => Err(Refusal::DeclinedBefore),
            // In a box: where one stands in, hardly any request comes here.
            Err(no) => Box::pin(self.not_stood_in(who, no, attempt)).await,
        }
    }

    /// The exchange that timed out runs on, and may still close its entry.
    fn follow(&mut self, attempt: Attempt, entry: Durable) {
        self.failover.0.late.follow(late_answer::Waiting {
            attempt,
            entry,
            route: Arc::clone(&self.route),
            store: self.stand_in().store().clone(),
            connections: self.connections().clone(),
            counters: Arc::clone(&self.failover.0.counters),
            places: std::mem::take(&mut self.places),
            _copy: self.copy.clone(),
        });
    }

    async fn not_stood_in(
        &mut self,
        who: &Identified,
        no: NotStoodIn,
        mut attempt: Option<Attempt>,
    ) -> Result<Option<Decided>, Refusal> {
        tracing::debug!(route = &*self.route.name, %no, "not stood in for");
        // The app may have answered while standin looked: its answer is better than an error.
        let meanwhile = match attempt.as_mut() {
            Some(attempt) => attempt.answered_meanwhile().await,
            None => None,
        };
        match meanwhile {
            Some(Ok(mut response)) => {
                self.hear_veto(&mut response).await;
                Ok(Some(self.answered(who, response).await))
            }
            // An error is not "not stored": after a restart the entry may be there, and be replayed.
            _ if matches!(no, NotStoodIn::Store(StoreError::Failed(_))) => {
                Err(Refusal::StoreFailed)
            }
            // The app's no takes back no promise.
            _ if matches!(no, NotStoodIn::Vetoed) => self.promised_before(who).await,
            _ => Ok(None),
        }
    }

    /// An entry whose client never hears of it is nobody's promise. Says how the answer counts.
    pub(super) async fn hold_unless_heard(&self, entry: &Durable) -> Answered {
        let (gone, holds) = (self.client.is_gone(), self.policy.holds_unanswered());
        if holds && gone {
            Box::pin(self.stand_in().hold_unanswered(entry)).await;
        } else if holds {
            self.client.if_it_has_left(|| {
                let (stand_in, entry) = (self.stand_in().clone(), entry.clone());
                async move { stand_in.hold_unanswered(&entry).await }
            });
        }
        if gone { Answered::ClientGone } else { Answered::StoodIn }
    }
}
