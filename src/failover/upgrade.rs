//! A request for another protocol. The stream that it becomes is the tunnel's.

use bytes::Bytes;
use filters::{connection_headers::WantsUpgrade, peer::FromClient};
use http::{Request, Response};
use http_body::Body;

use super::{Answer, Failover, Refusal, by_app, no_answer, outgoing, refused, tunnel, way_out};
use crate::{
    client_body::BodyFault,
    config::Role,
    router::Matched,
    store::Certainty,
    telemetry::Answered,
    upstream::{Places, request_body::RequestBody},
};

impl Failover {
    /// Another protocol over the same connection; never stood in for, and only on routes without a stand-in.
    pub(super) async fn upgrade<B>(
        &self,
        matched: Matched,
        mut request: Request<B>,
        stands_in: bool,
    ) -> (Response<Answer>, Answered)
    where
        B: Body<Data = Bytes, Error = BodyFault> + FromClient + Unpin + 'static,
    {
        if self.0.shared.role == Role::Standby {
            return refused(Refusal::NobodyToAsk(Certainty::NotSent));
        }
        let places = match self.enter(matched.route.as_deref(), matched.upstream_index) {
            Ok(places) => places,
            Err(error) => return no_answer(error),
        };
        let client = hyper::upgrade::on(&mut request);
        let (mut head, body) = request.into_parts();
        self.leave(outgoing::head, &mut head, &matched, way_out::client_ip(&body));
        if !stands_in {
            WantsUpgrade.ask(&mut head.headers);
        }
        let request = Request::from_parts(head, RequestBody::Empty);
        let Some(asking) = self.asking(&matched) else {
            return refused(Refusal::NobodyToAsk(Certainty::NotSent));
        };
        match self.connections(&matched).upgrade(request, asking).await {
            Ok((mut response, None)) => {
                if let Some(route) = &matched.route {
                    self.hear_veto(route, &mut response).await;
                }
                by_app(response.map(|body| Answer::App(body, places)))
            }
            Ok((response, Some(app))) => {
                tunnel::begin(client, app, places, &self.0.drain);
                by_app(response.map(|body| Answer::App(body, Places::default())))
            }
            Err(error) => no_answer(error),
        }
    }
}
