//! The threads beside the workers: one for replay and health, one for admin. Each with its own runtime, so that neither
//! can hurt a request.

use std::{io, sync::Arc, thread::JoinHandle};

use http::HeaderName;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::watch,
};

use super::Hidden;
use crate::{
    config::{AdminConfig, Role},
    mode::Modes,
    replay::{Parts, Replay, Replayer},
    router::Routes,
    store::Store,
    telemetry::Counters,
    upstream::{Connections, health},
};

/// What both threads are made from.
pub(super) struct Setup {
    pub(super) store: Store,
    pub(super) routes: Arc<Routes>,
    pub(super) modes: Modes,
    pub(super) counters: Counters,
    pub(super) request_id: HeaderName,
    pub(super) role: Role,
    pub(super) admin: AdminConfig,
    pub(super) hidden: Hidden,
}

type Thread = JoinHandle<io::Result<()>>;

pub(super) fn start(
    setup: Setup,
    admin: TcpListener,
    health: Option<TcpListener>,
    stop: watch::Receiver<bool>,
    stop_admin: watch::Receiver<bool>,
) -> io::Result<(Thread, Thread)> {
    let (replay, replayer) = Replay::new(Parts {
        store: setup.store.clone(),
        routes: Arc::clone(&setup.routes),
        modes: setup.modes.clone(),
        counters: setup.counters.clone(),
        request_id_header: setup.request_id.clone(),
        signing_key: None,
        hook: setup.hidden.failpoint.clone().into(),
    });
    let routes = Arc::clone(&setup.routes);
    let control = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(control(routes, replayer, stop));
        Ok(())
    })?;
    let admin = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let _ = (replay, admin, health, setup.role, setup.admin, setup.hidden);
        runtime.block_on(stopped(stop_admin));
        Ok(())
    })?;
    Ok((control, admin))
}

/// Replay, and a watch over each upstream; until the drain.
async fn control(routes: Arc<Routes>, replayer: Replayer, stop: watch::Receiver<bool>) {
    let watches = futures_util::future::join_all(
        routes
            .upstreams
            .iter()
            .map(|upstream| health::watch(Connections::new(Arc::clone(upstream)))),
    );
    tokio::select! {
        () = replayer.run(stopped(stop)) => {}
        _ = watches => {}
    }
}

/// Ready when the drain begins.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender gone means the same.
    stop.wait_for(|stop| *stop).await.ok();
}
