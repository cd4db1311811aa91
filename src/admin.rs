//! The admin listener: page, API, metrics, health, from an address of their own.
//!
//! It knows handles only and never the request path: it can be stuck without hurting a request. It changes things by
//! POST alone, each with a reason that goes into the audit log.

mod actions;
mod api;
pub(crate) mod base64;
mod bulk;
mod filter;
mod guard;
mod health;
mod metrics;
mod page;
mod problem;
pub(crate) mod text;
pub mod view;

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};

use crate::{
    clocks::Clocks,
    config::{AdminConfig, Role},
    mode::Modes,
    record::Records,
    reload::Reload,
    replay::Replay,
    router::LiveRoutes,
    store::Store,
    telemetry::Counters,
    time::UnixMillis,
    tls::server::ServerTls,
};

pub use api::openapi;

/// All that the admin listener looks at and acts on.
#[derive(Clone, Debug)]
pub struct Handles {
    pub store: Store,
    pub replay: Replay,
    pub modes: Modes,
    pub routes: LiveRoutes,
    pub reload: Reload,
    pub counters: Counters,
    pub clocks: Clocks,
    pub role: Role,
    /// Certificates towards clients.
    pub tls: Option<Arc<ServerTls>>,
    /// Failed exchanges that are kept for support.
    pub records: Records,
    pub started_at: UnixMillis,
    /// True from SIGTERM on.
    pub draining: watch::Receiver<bool>,
    pub version: &'static str,
}

/// What every admin handler shares.
#[derive(Debug)]
struct Admin {
    handles: Handles,
    metrics: metrics::Metrics,
    /// Places for event streams: each holds a connection open.
    streams: Arc<Semaphore>,
    /// True when the listener ends: event streams end then.
    closing: watch::Receiver<bool>,
}

/// Both ends of an accepted connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}

/// Connections at once, on each of the two listeners.
const CONNECTIONS: usize = 128;
/// Event streams at once.
const STREAMS: usize = 32;
/// Largest request body: a form with its reason.
const BODY: usize = 16 * 1024;
/// Longest time for a request head, and for silence between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time to answer a request, event streams apart.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections may go on after the end was asked for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves page, API, metrics and health until `shutdown`. Refuses an address that others reach without a token.
pub async fn serve(
    listener: TcpListener,
    handles: Handles,
    config: AdminConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if config.token.is_none() && !listener.local_addr()?.ip().is_loopback() {
        let why = "an admin address that is not loopback needs [admin] token";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let guard = Arc::new(guard::Guard::new(&config));
    serve_with(listener, handles, shutdown, |admin| {
        Router::new()
            .merge(page::routes())
            .merge(health::routes())
            .nest("/api/v1", api::routes())
            .fallback(page::not_found)
            .method_not_allowed_fallback(problem::method_not_allowed)
            .layer(middleware::from_fn(bounded))
            .layer(DefaultBodyLimit::max(BODY))
            .layer(middleware::from_fn_with_state(guard, guard::check))
            .layer(middleware::from_fn(guard::security_headers))
            .with_state(admin)
    })
    .await
}

/// Serves `/healthz`, `/readyz` and `/metrics` only, to all who can connect.
pub async fn serve_health(
    listener: TcpListener,
    handles: Handles,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_with(listener, handles, shutdown, |admin| {
        Router::new()
            .merge(health::routes())
            .fallback(problem::not_found)
            .method_not_allowed_fallback(problem::method_not_allowed)
            .layer(middleware::from_fn(bounded))
            .layer(DefaultBodyLimit::max(BODY))
            .layer(middleware::from_fn(guard::security_headers))
            .with_state(admin)
    })
    .await
}

async fn serve_with(
    listener: TcpListener,
    handles: Handles,
    shutdown: impl Future<Output = ()>,
    router: impl FnOnce(Arc<Admin>) -> Router,
) -> io::Result<()> {
    let (close, closing) = watch::channel(false);
    let router = router(Arc::new(Admin {
        metrics: metrics::Metrics::new(handles.clone()),
        handles,
        streams: Arc::new(Semaphore::new(STREAMS)),
        closing: closing.clone(),
    }));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let place = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve_connection(stream, peer, router.clone(), closing.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                time::sleep(Duration::from_millis(100)).await; // out of files: they may come back
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = time::timeout(CLOSE_TIMEOUT, all).await;
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut closing: watch::Receiver<bool>,
) {
    let Ok(local) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    let router = router.layer(axum::Extension(Ends { peer, local }));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(64)
            .max_buf_size(32 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, %peer, "an admin connection broke");
            }
            return;
        }
        _ = closing.wait_for(|closing| *closing) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A limit on the time of every handler. An event stream is answered at once; its body is not counted here.
async fn bounded(
    request: axum::extract::Request,
    next: middleware::Next,
) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    match time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem::Problem::unavailable("no answer within 30 s").into_response(),
    }
}
