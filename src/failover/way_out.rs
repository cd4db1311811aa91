//! Which egress proxy a request takes: what the pool has to know of it, from its head alone.

use std::net::IpAddr;

use filters::peer::FromClient;
use http::{HeaderName, request::Parts};

use crate::{
    canonical::canonical_path,
    egress::{Job, Lane},
    expr::{Document, Facts},
    time::UnixMillis,
};

/// The job of a request on a lane.
pub(super) fn job(
    lane: &Lane,
    head: &Parts,
    params: &[(String, String)],
    client_ip: IpAddr,
    id: &str,
) -> Job {
    lane.job(&Facts {
        method: head.method.as_str(),
        path: &canonical_path(head.uri.path()).path,
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
        params,
        id,
        principal: "",
        client_ip,
        body: Document::NONE,
        reason: "",
        now: UnixMillis::now(),
        response: None,
    })
}

/// The id that the filters gave it.
pub(super) fn request_id<'h>(head: &'h Parts, name: &HeaderName) -> &'h str {
    head.headers.get(name).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// The address of whoever sends it.
pub(super) fn client_ip(body: &impl FromClient) -> IpAddr {
    body.client().map_or(IpAddr::from([0, 0, 0, 0]), |client| client.address.ip())
}
