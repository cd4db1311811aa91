//! Other apps, asked before anything is stood in for; and keys that belong to one of them from then on, because only that
//! one would notice a second time.

use std::{rc::Rc, sync::Arc};

use http::Response;

use super::{Case, Decided};
use crate::{
    failover::{
        Refusal,
        backup::{Elsewhere, Spare, may_go_elsewhere},
        pins::Claim,
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
        let (progress, claim) = (Rc::clone(&self.progress), self.claim(who));
        match failover.ask_backups(backups, Some(&route), &spare, &progress, claim.as_ref()).await {
            Elsewhere::Answered { response, places } => {
                self.places = places;
                Ok(Some(self.answered_elsewhere(who, response, claim).await))
            }
            Elsewhere::InDoubt(error) => Err(self.in_doubt_elsewhere(error)),
            // What is stored now goes to the app of the route, and a restart must know that.
            Elsewhere::Nobody => match claim {
                Some(claim) if !claim.is_free().await => {
                    Err(Refusal::NobodyToAsk(Certainty::NotSent))
                }
                _ => Ok(None),
            },
        }
    }

    /// A request whose key another app has had: that one answers, or nobody does.
    pub(super) async fn where_it_was(
        &mut self,
        who: &Identified,
    ) -> Option<Result<Decided, Refusal>> {
        let name = self.failover.0.shared.pins.of(who.identity.key)?;
        if name == self.route.upstream.name {
            return None;
        }
        // In a box: hardly any request comes here, and every one would carry the room for it.
        Some(Box::pin(self.ask_where_it_was(who, &name)).await)
    }

    async fn ask_where_it_was(
        &mut self,
        who: &Identified,
        name: &Arc<str>,
    ) -> Result<Decided, Refusal> {
        let failover = self.failover.clone();
        let by = failover.0.connections.iter().position(|one| one.upstream().name == *name);
        let (Some(by), Some(spare)) = (by, self.spare()) else {
            return Err(Refusal::NobodyToAsk(Certainty::SentUnknown));
        };
        let route = Arc::clone(&self.route);
        self.progress.waits_for(WaitsFor::App);
        let progress = Rc::clone(&self.progress);
        match failover.ask_one(by, Some(&route), &spare, &progress, None).await {
            Ok((response, places)) => {
                self.places = places;
                Ok(self.answered_elsewhere(who, response, None).await)
            }
            Err(error) => Err(self.in_doubt_elsewhere(error)),
        }
    }

    /// For a key that another request may have: each app that is asked has it before.
    fn claim(&self, who: &Identified) -> Option<Claim> {
        let shared = &self.failover.0.shared;
        let needed = self.others_may_have(who) && !self.head.method.is_safe();
        needed.then(|| shared.pins.claim(self.stand_in().store(), who.identity.key))
    }

    /// The app of the route has had the key, or may have: where there are others, no other gets it.
    pub(super) async fn stays_here(&self, who: &Identified) {
        if self.failover.backups(self.route.upstream_index).is_some()
            && let Some(claim) = self.claim(who)
        {
            // In a box: hardly any route has backups, and every request would carry the room for it.
            Box::pin(claim.stayed_with(&self.route.upstream.name)).await;
        }
    }

    fn spare(&self) -> Option<Box<Spare>> {
        let mut head = self.head.clone();
        if let Some(wants) = self.wants_trailers {
            wants.ask(&mut head.headers);
        }
        Spare::of(&head, &RequestBody::Copied(self.copy.reader()))
    }

    /// What the first app does not know of.
    async fn answered_elsewhere(
        &mut self,
        who: &Identified,
        mut response: Response<AnswerBody>,
        claim: Option<Claim>,
    ) -> Decided {
        // It speaks for itself, not for the app of the route.
        veto::strip(response.headers_mut());
        if let Some(claim) = claim
            && matches!(
                self.says(who, &response),
                Live::NotApplied | Live::Closes(Outcome::Declined, _)
            )
        {
            claim.is_free().await;
        }
        self.by_app(response)
    }

    /// Its replay would go to the first app, which knows nothing of what another one may have applied: so nobody stands in.
    fn in_doubt_elsewhere(&self, error: UpstreamError) -> Refusal {
        match self.progress.fault() {
            Some(fault) => Refusal::Body(fault),
            None => Refusal::NoAnswer(error, Certainty::SentUnknown),
        }
    }

    /// With what is stored or remembered of its key, and whether its app has had it: no other app knows of that.
    fn worst_of_key(&self, who: &Identified, certainty: Certainty) -> Certainty {
        let key = who.identity.key;
        if self.stand_in().store().knows(key) || self.failover.0.shared.pins.of(key).is_some() {
            return Certainty::SentUnknown;
        }
        self.worst(who, certainty)
    }
}
