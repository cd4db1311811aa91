//! Other apps that are asked before anything is stood in for: which requests may go there, and in which order.
//!
//! What may have been applied goes to no other app, unless it only reads: two apps do not share what they have seen.

use std::rc::Rc;

use http::{Method, Request, Response, request::Parts};

use super::{Failover, pins::Claim};
use crate::{
    router::{Backups, Matched, Route},
    signature::REPLAY,
    store::Certainty,
    upstream::{
        AnswerBody, Asking, Of, Places, UpstreamError,
        request_body::{Progress, RequestBody},
    },
    veto,
};

/// What asking the others came to.
pub(super) enum Elsewhere {
    Answered {
        response: Response<AnswerBody>,
        places: Places,
    },
    /// One gave no answer, and may have applied it.
    InDoubt(UpstreamError),
    /// Nobody else has it.
    Nobody,
}

/// A request that can be sent once more, in case its app does not get it.
pub(super) struct Spare {
    head: Parts,
    body: RequestBody,
}

/// Whether a request may go to another app after such an error: what certainly did not reach this one, and after a broken
/// connection what only reads. With what all tries of its key have left behind. After a deadline its time is over.
pub(super) fn may_go_elsewhere(error: &UpstreamError, worst: Certainty, method: &Method) -> bool {
    let only_reads = method.is_safe();
    match error {
        // It would not fit there either, or is broken.
        UpstreamError::Full { of: Of::Route, .. } | UpstreamError::Client { .. } => false,
        UpstreamError::Reset { .. } if only_reads => true,
        error => {
            error.certainty() == Certainty::NotSent && (worst == Certainty::NotSent || only_reads)
        }
    }
}

impl Spare {
    /// None if the body cannot be read again (a large one that only passes through), or it is another standin's replay:
    /// that one knows what its app may have applied.
    pub(super) fn of(head: &Parts, body: &RequestBody) -> Option<Box<Self>> {
        if head.headers.contains_key(REPLAY) {
            return None;
        }
        let body = body.again()?;
        let mut copy = Request::new(());
        copy.method_mut().clone_from(&head.method);
        copy.uri_mut().clone_from(&head.uri);
        copy.headers_mut().clone_from(&head.headers);
        Some(Box::new(Self { head: copy.into_parts().0, body }))
    }

    fn request(&self) -> Option<Request<RequestBody>> {
        Some(Request::from_parts(self.head.clone(), self.body.again()?))
    }
}

impl Failover {
    /// The others of an upstream, where it has any.
    pub(super) fn backups(&self, upstream: usize) -> Option<&Backups> {
        self.0.shared.routes.backups.get(upstream)?.as_ref()
    }

    /// Of a request that only passes through. On a stand-in route only what reads goes elsewhere then: nobody has looked
    /// what is known of its key.
    pub(super) async fn pass_elsewhere(
        &self,
        matched: &Matched,
        spare: &Spare,
        error: &UpstreamError,
        progress: &Rc<Progress>,
    ) -> Elsewhere {
        let (route, method) = (matched.route.as_deref(), &spare.head.method);
        let stands_in = route.is_some_and(|route| route.config.stand_in.is_some());
        let Some(backups) = self.backups(matched.upstream_index) else { return Elsewhere::Nobody };
        let certainty = error.certainty();
        let goes = (!stands_in || method.is_safe())
            && may_go_elsewhere(error, certainty, method)
            && self.connections(matched).allows_elsewhere(certainty);
        if !goes {
            return Elsewhere::Nobody;
        }
        let asked = self.ask_backups(backups, route, spare, progress, None).await;
        match asked {
            Elsewhere::Answered { mut response, places } if stands_in => {
                veto::strip(response.headers_mut());
                Elsewhere::Answered { response, places }
            }
            asked => asked,
        }
    }

    /// Asks the backups in turn, under the same id, until one of them answers or may have applied it. `claim`: each has
    /// the key for itself before it is asked.
    pub(super) async fn ask_backups(
        &self,
        backups: &Backups,
        route: Option<&Route>,
        spare: &Spare,
        progress: &Rc<Progress>,
        claim: Option<&Claim>,
    ) -> Elsewhere {
        for &by in &backups.order {
            match self.ask_one(by, route, spare, progress, claim).await {
                Ok((response, places)) => {
                    backups.answered.add();
                    return Elsewhere::Answered { response, places };
                }
                Err(error) if self.may_go_on(by, &error, spare, progress) => {}
                Err(error) if error.certainty() == Certainty::SentUnknown => {
                    backups.in_doubt.add();
                    return Elsewhere::InDoubt(error);
                }
                Err(_) => break,
            }
        }
        backups.nobody.add();
        Elsewhere::Nobody
    }

    /// Asks the upstream at this position, let in by its own breakers and limits.
    pub(super) async fn ask_one(
        &self,
        by: usize,
        route: Option<&Route>,
        spare: &Spare,
        progress: &Rc<Progress>,
        claim: Option<&Claim>,
    ) -> Result<(Response<AnswerBody>, Places), UpstreamError> {
        let gone = |what: &str| UpstreamError::Ourselves { cause: format!("no {what} any more") };
        let connections = self.0.connections.get(by).ok_or_else(|| gone("upstream"))?;
        let mut request = Some(spare.request().ok_or_else(|| gone("body"))?);
        let places = self.enter(route, by)?;
        progress.begin_anew();
        let upstream = connections.upstream();
        let breaker =
            upstream.of_route(&route.map_or_else(|| "".into(), |route| route.name.clone()));
        let timeout = route.map_or(upstream.config.timeout, |route| route.timeout);
        let asking = Asking { route: &breaker, timeout };
        if let Some(claim) = claim {
            // Nothing is written for one that is not asked anyway.
            if !upstream.would_admit() {
                let retry_after = upstream.config.breaker.min_open;
                return Err(UpstreamError::BreakerOpen { retry_after });
            }
            if !claim.stays_with(&upstream.name).await {
                return Err(gone("room for its key in the store"));
            }
        }
        let answer =
            connections.exchange(&mut request, progress, asking).await.inspect_err(|error| {
                tracing::debug!(backup = &*upstream.name, %error, "no answer from a backup either");
            })?;
        Ok((answer, places))
    }

    fn may_go_on(
        &self,
        by: usize,
        error: &UpstreamError,
        spare: &Spare,
        progress: &Progress,
    ) -> bool {
        let certainty = error.certainty();
        progress.fault().is_none()
            && may_go_elsewhere(error, certainty, &spare.head.method)
            && self.0.connections.get(by).is_some_and(|one| one.allows_elsewhere(certainty))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_may_have_been_applied_goes_elsewhere_only_if_it_only_reads() {
        use Certainty::{NotSent, SentUnknown};
        let reset = |sent| UpstreamError::Reset { endpoint: "a".into(), cause: "b".into(), sent };
        let limit = Duration::from_secs(1);
        let timeout = UpstreamError::Timeout { endpoint: "a".into(), limit };
        let open = UpstreamError::BreakerOpen { retry_after: limit };
        let client = UpstreamError::Client { cause: "b".into() };
        for (error, worst, method, goes) in [
            (&reset(false), NotSent, Method::POST, true),
            (&reset(true), SentUnknown, Method::POST, false),
            (&reset(true), SentUnknown, Method::PUT, false),
            (&reset(true), SentUnknown, Method::GET, true),
            (&timeout, SentUnknown, Method::GET, false),
            (&open, NotSent, Method::POST, true),
            // An earlier try of its key may have been applied.
            (&open, SentUnknown, Method::POST, false),
            (&open, SentUnknown, Method::GET, true),
            (&UpstreamError::Full { limit: 1, of: Of::Upstream }, NotSent, Method::POST, true),
            (&UpstreamError::Full { limit: 1, of: Of::Route }, NotSent, Method::POST, false),
            (&client, SentUnknown, Method::GET, false),
        ] {
            assert_eq!(may_go_elsewhere(error, worst, &method), goes, "{error} {worst:?} {method}");
        }
    }
}
