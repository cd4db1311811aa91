//! Other apps, asked before anything is stood in for; and keys that belong to one of them from then on, because only that
//! one would notice a second time.

use std::{rc::Rc, sync::Arc};

use http::Response;

use super::{Case, Decided};
use crate::{
    failover::{
        Refusal,
        backup::{Elsewhere, Spare, may_go_elsewhere},
    },
    replay::Live,
    stand_in::Identified,
    store::{Certainty, Outcome},
    upstream::{
        AnswerBody, Places, UpstreamError,
        request_body::{RequestBody, WaitsFor},
    },
    veto,
};

impl Case {
    /// The answer of another app. None: nobody else has got it, and nobody else may.
    pub(super) async fn elsewhere(
        &mut self,
        who: &Identified,
        error: &UpstreamError,
    ) -> Result<Option<Decided>, Refusal> {
        let failover = self.failover.clone();
        let Some(backups) = failover.backups(self.route.upstream_index) else { return Ok(None) };
        let worst = self.worst_of_key(who, error.certainty());
        if self.progress.fault().is_some()
            || !may_go_elsewhere(error, worst, &self.head.method)
            || !self.connections().allows_elsewhere(error.certainty())
        {
            return Ok(None);
        }
        let route = Arc::clone(&self.route);
        let Some(spare) = self.spare() else { return Ok(None) };
        self.places = Places::default();
        self.progress.waits_for(WaitsFor::App);
        let progress = Rc::clone(&self.progress);
        match failover.ask_backups(backups, Some(&route), &spare, &progress).await {
            Elsewhere::Answered { by, response, places } => {
                self.places = places;
                Ok(Some(self.answered_elsewhere(who, by, response)))
            }
            Elsewhere::InDoubt { by, error } => Err(self.in_doubt_elsewhere(who, by, error)),
            Elsewhere::Nobody => Ok(None),
        }
    }

    /// A request whose key another app has had: that one answers, or nobody does.
    pub(super) async fn where_it_was(
        &mut self,
        who: &Identified,
    ) -> Option<Result<Decided, Refusal>> {
        self.failover.backups(self.route.upstream_index)?;
        let name = self.stand_in().doubts().is_elsewhere(who.identity.key)?;
        let failover = self.failover.clone();
        let by = failover.0.connections.iter().position(|one| one.upstream().name == name);
        let (Some(by), Some(spare)) = (by, self.spare()) else {
            return Some(Err(Refusal::NobodyToAsk(Certainty::SentUnknown)));
        };
        let route = Arc::clone(&self.route);
        self.progress.waits_for(WaitsFor::App);
        let progress = Rc::clone(&self.progress);
        Some(match failover.ask_one(by, Some(&route), &spare, &progress).await {
            Ok((response, places)) => {
                self.places = places;
                Ok(self.answered_elsewhere(who, by, response))
            }
            Err(error) => Err(self.in_doubt_elsewhere(who, by, error)),
        })
    }

    fn spare(&self) -> Option<Box<Spare>> {
        let mut head = self.head.clone();
        if let Some(wants) = self.wants_trailers {
            wants.ask(&mut head.headers);
        }
        Spare::of(&head, &RequestBody::Copied(self.copy.reader()))
    }

    /// What the first app does not know of.
    fn answered_elsewhere(
        &mut self,
        who: &Identified,
        by: usize,
        mut response: Response<AnswerBody>,
    ) -> Decided {
        // It speaks for itself, not for the app of the route.
        veto::strip(response.headers_mut());
        match self.says(who, &response) {
            Live::NotApplied | Live::Closes(Outcome::Declined, _) => {}
            Live::Closes(..) | Live::Doubtful | Live::Unseen => self.remember_where(who, by),
        }
        self.by_app(response)
    }

    /// Its replay would go to the first app, which knows nothing of what another one may have applied: so nobody stands in.
    fn in_doubt_elsewhere(&self, who: &Identified, by: usize, error: UpstreamError) -> Refusal {
        if let Some(fault) = self.progress.fault() {
            return Refusal::Body(fault);
        }
        if error.certainty() == Certainty::SentUnknown {
            self.remember_where(who, by);
        }
        Refusal::NoAnswer(error, Certainty::SentUnknown)
    }

    fn remember_where(&self, who: &Identified, by: usize) {
        if self.others_may_have(who)
            && !self.head.method.is_safe()
            && let Some(connections) = self.failover.0.connections.get(by)
        {
            let name = Arc::clone(&connections.upstream().name);
            self.stand_in().doubts().is_now_elsewhere(who.identity.key, name);
        }
    }

    /// With what is stored or remembered of its key: no other app knows of that.
    fn worst_of_key(&self, who: &Identified, certainty: Certainty) -> Certainty {
        if self.stand_in().store().knows(who.identity.key) {
            return Certainty::SentUnknown;
        }
        self.worst(who, certainty)
    }
}
