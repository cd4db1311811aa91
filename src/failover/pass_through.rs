//! A request that nobody stands in for: both ways streamed, nothing kept, nothing spawned.

use std::{convert::Infallible, rc::Rc};

use bytes::Bytes;
use filters::peer::FromClient;
use http::{Request, Response, request::Parts};
use http_body::Body;

use super::{
    Answer, Failover, Refusal, Shared,
    backup::{Elsewhere, Spare},
    by_app,
    counting::Counting,
    no_answer, outgoing,
    recording::Recording,
    refused, way_out,
};
use crate::{
    client_body::BodyFault,
    config::Role,
    router::Matched,
    store::Certainty,
    telemetry::Answered,
    upstream::{
        UpstreamError,
        request_body::{Progress, RequestBody, WaitsFor},
    },
};

impl Failover {
    /// The app's answer, or why there is none.
    pub(super) async fn pass_through<B>(
        self,
        matched: Matched,
        request: Request<B>,
        counting: Counting,
        progress: Rc<Progress>,
    ) -> Result<Response<Answer>, Infallible>
    where
        B: Body<Data = Bytes, Error = BodyFault> + FromClient + Unpin + 'static,
    {
        if self.0.shared.role == Role::Standby {
            let refusal = Refusal::NobodyToAsk(Certainty::NotSent);
            return Ok(self.counted(counting, refused(refusal)));
        }
        let (mut head, body) = request.into_parts();
        let client_ip = way_out::client_ip(&body);
        let body = if body.is_end_stream() {
            progress.set_whole();
            RequestBody::Empty
        } else {
            match RequestBody::pass_through(body, &progress).await {
                Ok(body) => body,
                Err(fault) => return Ok(self.counted(counting, refused(Refusal::Body(fault)))),
            }
        };
        progress.waits_for(WaitsFor::App);
        let places = match self.enter(matched.route.as_deref(), matched.upstream_index) {
            Ok(places) => places,
            Err(error) => {
                outgoing::live_head(&mut head);
                let spare = self.spare(&matched, &head, &body);
                let answer = self.instead(&matched, spare, error, &progress).await;
                return Ok(self.counted(counting, answer));
            }
        };
        self.leave(outgoing::live_head, &mut head, &matched, client_ip);
        let spare = self.spare(&matched, &head, &body);
        let Shared { records, request_id, .. } = &*self.0.shared;
        let recording = Recording::of(records, &matched, request_id, &head, &body);
        let mut request = Some(Request::from_parts(head, body));
        let Some(asking) = self.asking(&matched) else {
            let refusal = Refusal::NobodyToAsk(Certainty::NotSent);
            return Ok(self.counted(counting, refused(refusal)));
        };
        let asked = self.connections(&matched).exchange(&mut request, &progress, asking);
        let answer = match asked.await {
            Ok(mut response) => {
                if let Some(route) = &matched.route {
                    self.hear_veto(route, &mut response).await;
                }
                by_app(match recording {
                    None => response.map(|body| Answer::App(body, places)),
                    Some(recording) => recording.answered(response, places),
                })
            }
            Err(UpstreamError::Client { .. }) if progress.fault().is_some() => {
                refused(Refusal::Body(progress.fault().unwrap_or(BodyFault::Idle)))
            }
            Err(error) => {
                if let Some(recording) = recording {
                    recording.no_answer(&error);
                }
                drop(places);
                self.instead(&matched, spare, error, &progress).await
            }
        };
        Ok(self.counted(counting, answer))
    }

    /// The request once more, in case its app does not get it and there are others.
    fn spare(&self, matched: &Matched, head: &Parts, body: &RequestBody) -> Option<Box<Spare>> {
        self.backups(matched.upstream_index)?;
        Spare::of(head, body)
    }

    /// The answer of another app, or why there is none.
    async fn instead(
        &self,
        matched: &Matched,
        spare: Option<Box<Spare>>,
        error: UpstreamError,
        progress: &Rc<Progress>,
    ) -> (Response<Answer>, Answered) {
        tracing::debug!(%error, "no answer from the app");
        let Some(spare) = spare else { return no_answer(error) };
        // In a box: hardly any request comes here, and every one would carry the room for it.
        match Box::pin(self.pass_elsewhere(matched, &spare, &error, progress)).await {
            Elsewhere::Answered { response, places } => {
                by_app(response.map(|body| Answer::App(body, places)))
            }
            Elsewhere::InDoubt(error) => no_answer(error),
            Elsewhere::Nobody => no_answer(error),
        }
    }
}
