//! tmp
use super::hang_up::{Client, Deciding};
use super::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use std::rc::Rc;

pub(super) struct Case;
impl Case {
    pub(super) fn open<B>(
        failover: &Failover,
        matched: Matched,
        request: Request<B>,
    ) -> Deciding<(Response<Answer>, Answered)>
    where
        B: Body<Data = Bytes, Error = BodyFault> + Unpin + 'static,
    {
        let failover = failover.clone();
        Deciding {
            future: Box::pin(async move { failover.pass_through(matched, request).await }),
            progress: Rc::default(),
            client: Client::default(),
        }
    }
}
pub(super) use Case as _Case;
