//! tmp
use std::rc::Rc;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use super::*;
use super::hang_up::{Client, Deciding};

pub(super) struct Case;
impl Case {
    pub(super) fn open<B>(failover: &Failover, matched: Matched, request: Request<B>) -> Deciding<(Response<Answer>, Answered)>
    where B: Body<Data = Bytes, Error = BodyFault> + Unpin + 'static {
        let failover = failover.clone();
        Deciding { future: Box::pin(async move { failover.pass_through(matched, request).await }), progress: Rc::default(), client: Client::default() }
    }
}
pub(super) use Case as _Case;
