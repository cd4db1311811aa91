//! The exchange by way of an egress proxy: which one, what is said to it, and whose failure it was.
//!
//! A proxy that cannot be reached, or gives no tunnel, has failed itself: nothing was sent, the next one is tried, and
//! when none is left the trouble is ours and no outage of the app. Through a pool the endpoints take turns; which of
//! them is well cannot be told from the proxy that leads to it.

use std::rc::Rc;

use http::{
    HeaderValue, Request, Response, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use tokio::{net::TcpStream, time::Instant};

use super::{
    Connections, Stream, UpstreamError,
    connection::Connection,
    dial::{is_our_own, plain},
    open::{open_within, prepare},
    request_body::{Outgoing, Progress, RequestBody},
};
use crate::{
    config::Tunnel,
    egress::{
        Job, Lane, NoWayOut, OwnWord, Permit, Pool, Proxy, Refused, Through, connect, own_word,
    },
    store::Certainty,
};

type Answered = (Response<()>, Connection);

impl Connections {
    /// Sends through the proxies of the pool in their turn until one has taken the request; to the next endpoint, or to
    /// this one.
    pub(super) async fn send_through(
        &self,
        lane: &Lane,
        endpoint: Option<usize>,
        request: &mut Outgoing,
        progress: &Progress,
    ) -> Result<Answered, UpstreamError> {
        let job = request.as_ref().and_then(|request| request.extensions().get::<Job>().copied());
        let job = job.unwrap_or_else(|| lane.plain());
        let first = self.0.turn.get();
        self.0.turn.set(first.wrapping_add(1));
        let mut tried = Vec::new();
        let mut last = None;
        // A proxy is told more than the app, and the next try may reach the app itself.
        let as_it_was =
            request.as_ref().map(|request| (request.uri().clone(), request.headers().clone()));
        for try_no in 0..lane.pool.config.tries.get() as usize {
            let permit = match lane.pool.permit(job, &tried) {
                Ok(permit) => permit,
                Err(none) => return Err(last.unwrap_or_else(|| none_free(&lane.pool, none))),
            };
            tried.push(permit.through());
            let endpoint = endpoint.unwrap_or_else(|| {
                first.wrapping_add(try_no) % self.0.upstream.endpoints.len().max(1)
            });
            match self.try_through(permit, endpoint, request, progress).await {
                Ok(answered) => return Ok(answered),
                // Where its time is over, nobody waits for another try.
                Err(error) if request.is_none() || progress.is_over() => return Err(error),
                Err(error) => {
                    tracing::debug!(pool = &*lane.pool.name, %error, "another egress proxy is tried");
                    last = Some(error);
                    if let (Some(request), Some((uri, headers))) = (request.as_mut(), &as_it_was) {
                        request.uri_mut().clone_from(uri);
                        request.headers_mut().clone_from(headers);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| none_free(&lane.pool, NoWayOut { retry_after: None })))
    }

    /// The request is there afterwards only where another proxy may be tried.
    async fn try_through(
        &self,
        permit: Permit,
        endpoint: usize,
        request: &mut Outgoing,
        progress: &Progress,
    ) -> Result<Answered, UpstreamError> {
        let Some(asked) = request.as_mut() else {
            return Err(UpstreamError::Ourselves { cause: "there is nothing to send".to_owned() });
        };
        let upstream = &self.0.upstream;
        let target = &upstream.endpoints.get(endpoint);
        let authority = &target.authority;
        // A proxy passes no other protocol on.
        let is_tunnel = target.over_tls
            || permit.pool().config.tunnel == Tunnel::Always
            || asked.headers().contains_key(header::UPGRADE);
        if !is_tunnel && let Err(error) = address(asked, authority, &permit.proxy) {
            *request = None;
            return Err(UpstreamError::Ourselves { cause: error.to_string() });
        }
        let (way, http1) = (permit.through(), asked.headers().contains_key(header::UPGRADE));
        let kept =
            if is_tunnel { self.take_kept_through(endpoint, way, http1).await } else { None };
        if let Some(kept) = kept {
            if !permit.is_valid() {
                return Err(gone(&permit));
            }
            match self.send_on(kept, request, progress).await {
                Ok(answered) => return came_through(permit, answered, is_tunnel),
                // It was closed meanwhile and took nothing: a fresh connection will tell.
                Err(error) if request.is_some() && error.certainty() == Certainty::NotSent => {}
                Err(error) => {
                    *request = None;
                    return Err(error);
                }
            }
        }
        let fresh = match self.open_through(&permit, endpoint, is_tunnel, http1).await {
            Ok(fresh) => fresh,
            Err(Trouble::Ours(cause)) => {
                *request = None;
                return Err(UpstreamError::Ourselves { cause });
            }
            Err(Trouble::Gone) => return Err(gone(&permit)),
            Err(Trouble::OfTheProxy(cause)) => return Err(failed(&permit, &cause)),
            Err(Trouble::NotReached(cause)) => {
                permit.did_not_reach(&cause);
                return Err(no_way_out(&permit, &cause));
            }
        };
        // The last look before its first byte: who is retired gets nothing any more.
        if !permit.is_valid() {
            return Err(gone(&permit));
        }
        match self.send_on(fresh, request, progress).await {
            Ok(answered) => came_through(permit, answered, is_tunnel),
            Err(error) if request.is_some() && error.certainty() == Certainty::NotSent => {
                Err(failed(&permit, &error.to_string()))
            }
            // Bytes of it left: whether the app or the proxy broke off cannot be told.
            Err(error) => {
                *request = None;
                Err(error)
            }
        }
    }

    /// A tunnel through this proxy that is there already: a stream of it, where HTTP/2 is spoken.
    async fn take_kept_through(
        &self,
        endpoint: usize,
        way: Through,
        http1: bool,
    ) -> Option<Connection> {
        let (to, config) = (self.0.pool.to(endpoint), &self.upstream().config.connections);
        while to.may_be_http2()
            && !http1
            && let Some(link) = to.link_through(way)
        {
            if link.was_heard_within(config.trust_idle) || link.is_there(self.patience()).await {
                return Some(self.stream_on(&link, endpoint));
            }
        }
        to.take_idle_through(way, config.trusted())
    }

    /// A connection to the proxy, and through it to the app where it is a tunnel.
    async fn open_through(
        &self,
        permit: &Permit,
        endpoint: usize,
        is_tunnel: bool,
        http1: bool,
    ) -> Result<Connection, Trouble> {
        let upstream = &self.0.upstream;
        let authority = &upstream.endpoints.get(endpoint).authority;
        let limit = upstream.config.connect_timeout;
        if !permit.is_valid() {
            return Err(Trouble::Gone);
        }
        let late = |_| Trouble::OfTheProxy(format!("no connection within {limit:?}"));
        let connecting = TcpStream::connect(&*permit.proxy.authority);
        let mut stream = match tokio::time::timeout(limit, connecting).await.map_err(late)? {
            Ok(stream) => stream,
            Err(error) if is_our_own(&error) => return Err(Trouble::Ours(error.to_string())),
            Err(error) => return Err(Trouble::OfTheProxy(plain(&error))),
        };
        prepare(&stream, upstream.config.connections.tcp_keepalive);
        let way = permit.through();
        if !is_tunnel {
            return Ok(Connection::through(Stream::Plain(stream), endpoint, way));
        }
        if !permit.is_valid() {
            return Err(Trouble::Gone);
        }
        let late = |_| Trouble::OfTheProxy(format!("no tunnel within {limit:?}"));
        let asking = connect(&mut stream, &permit.proxy, authority);
        tokio::time::timeout(limit, asking).await.map_err(late)?.map_err(
            |refused| match refused {
                Refused::Status(500..) => Trouble::NotReached(refused.to_string()),
                _ => Trouble::OfTheProxy(refused.to_string()),
            },
        )?;
        // Within the tunnel it is the app that speaks, or fails to; nothing of the request has left yet.
        let of_error = |error| match error {
            UpstreamError::Connect { cause, .. } => Trouble::NotReached(cause),
            error => Trouble::Ours(error.to_string()),
        };
        let late = |_| Trouble::NotReached(format!("no TLS within {limit:?}"));
        let secured = tokio::time::timeout(limit, upstream.secure(stream, endpoint, http1)).await;
        let (stream, is_http2) = secured.map_err(late)?.map_err(of_error)?;
        if !is_http2 {
            return Ok(Connection::through(stream, endpoint, way));
        }
        let (to, deadline) = (self.0.pool.to(endpoint), Instant::now() + limit);
        let link = open_within(upstream, stream, endpoint, &to.places, way, deadline).await;
        let link = link.map_err(of_error)?;
        to.add_link(Rc::clone(&link));
        Ok(self.stream_on(&link, endpoint))
    }
}

/// Why there is no connection through a proxy.
enum Trouble {
    Ours(String),
    OfTheProxy(String),
    /// It is there, and says that it cannot reach the app.
    NotReached(String),
    /// It was retired meanwhile.
    Gone,
}

/// What came back: the app's answer, or the proxy's own.
fn came_through(
    permit: Permit,
    (response, mut connection): Answered,
    is_tunnel: bool,
) -> Result<Answered, UpstreamError> {
    let status = response.status();
    let own = if is_tunnel { None } else { own_word(status, response.headers()) };
    if let Some(own) = own {
        let cause = format!("it answered {} itself", status.as_u16());
        match own {
            OwnWord::NotForUs => permit.failed(&cause),
            OwnWord::NotReached => permit.did_not_reach(&cause),
        }
        let cause = format!("egress proxy {}: {cause}", permit.proxy.name);
        let sent = own != OwnWord::NotForUs;
        return Err(UpstreamError::NoWayOut { cause, sent, retry_after: None });
    }
    permit.answered(status, response.headers());
    connection.uses(permit);
    Ok((response, connection))
}

/// In the form that a proxy wants (RFC 9112, 3.2.2), with who we are.
fn address(
    request: &mut Request<RequestBody>,
    authority: &str,
    proxy: &Proxy,
) -> Result<(), http::Error> {
    let target = request.uri().path_and_query().cloned();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.parse::<Authority>()?);
    uri.path_and_query = Some(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(uri)?;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(authority)?);
    // Some proxies close after each answer and do not say so: on a kept connection a request would be lost to that.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // It was of the hop to the app.
    headers.remove(header::TE);
    match proxy.authorization() {
        Some(authorization) => headers.insert(header::PROXY_AUTHORIZATION, authorization.clone()),
        None => headers.remove(header::PROXY_AUTHORIZATION),
    };
    Ok(())
}

/// The proxy has failed, and is told so. Nothing was sent.
fn failed(permit: &Permit, cause: &str) -> UpstreamError {
    permit.failed(cause);
    no_way_out(permit, cause)
}

fn no_way_out(permit: &Permit, cause: &str) -> UpstreamError {
    let cause = format!("egress proxy {}: {cause}", permit.proxy.name);
    UpstreamError::NoWayOut { cause, sent: false, retry_after: None }
}

fn gone(permit: &Permit) -> UpstreamError {
    no_way_out(permit, "it was retired meanwhile")
}

fn none_free(pool: &Pool, none: NoWayOut) -> UpstreamError {
    let cause = format!("{none} in {}", pool.name);
    UpstreamError::NoWayOut { cause, sent: false, retry_after: none.retry_after }
}
