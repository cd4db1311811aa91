//! The threads beside the workers: one for replay and health, one for admin. Each with its own runtime, so that neither
//! can hurt a request.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use http::HeaderName;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::watch,
};

use super::{Hidden, SaysItsEnd, certificates, follow, outage};
use crate::{
    admin::{self, Handles},
    clocks::Clocks,
    config::{AdminConfig, Role, SigningKey},
    mode::Modes,
    record::Records,
    reload::{Reload, Reloader},
    replay::{Parts, Replay, Replayer},
    router::{LiveRoutes, Routes},
    store::{Checked, Store},
    telemetry::Counters,
    time::UnixMillis,
    tls::server::ServerTls,
    upstream::{Connections, health, resolve},
};

/// What both threads are made from.
pub(super) struct Setup {
    pub(super) store: Store,
    pub(super) routes: LiveRoutes,
    pub(super) reload: (Reload, Reloader),
    pub(super) modes: Modes,
    pub(super) counters: Counters,
    pub(super) request_id: HeaderName,
    pub(super) role: Role,
    pub(super) admin: AdminConfig,
    pub(super) signing_key: Option<SigningKey>,
    pub(super) hidden: Hidden,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) records: Records,
}

type Thread = JoinHandle<io::Result<()>>;

pub(super) fn start(
    setup: Setup,
    admin: TcpListener,
    health: Option<TcpListener>,
    (stop, stop_admin): (watch::Receiver<bool>, watch::Receiver<bool>),
    (control_ends, admin_ends): (SaysItsEnd, SaysItsEnd),
) -> io::Result<(Thread, Thread)> {
    let (replay, replayer) = Replay::new(Parts {
        store: setup.store.clone(),
        routes: setup.routes.clone(),
        modes: setup.modes.clone(),
        counters: setup.counters.clone(),
        request_id_header: setup.request_id.clone(),
        signing_key: setup.signing_key.clone(),
        hook: setup.hidden.failpoint.clone().into(),
    });
    let (routes, store, draining) = (setup.routes.clone(), setup.store.clone(), stop.clone());
    let (reload, reloader) = setup.reload;
    let check_every = setup.hidden.check_store_every.unwrap_or(CHECK_EVERY);
    let clocks = Clocks::default();
    let watched = clocks.clone();
    let (tls, of_certificates) = (setup.tls.clone(), setup.routes.clone());
    let control = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let _says_its_end = control_ends;
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            tokio::select! {
                () = control(routes, store, check_every, replayer, reloader, stop) => {}
                () = watched.watch() => {}
                () = certificates::keep_fresh(tls, of_certificates) => {}
            }
        });
        Ok(())
    })?;
    let handles = Handles {
        store: setup.store,
        replay,
        modes: setup.modes,
        routes: setup.routes,
        reload,
        counters: setup.counters,
        clocks,
        role: setup.role,
        tls: setup.tls,
        records: setup.records,
        started_at: UnixMillis::now(),
        draining,
        version: env!("CARGO_PKG_VERSION"),
    };
    // The admin thread's own reactor must watch them, not that of the thread which bound them.
    let (admin, health) = (admin.into_std()?, health.map(TcpListener::into_std).transpose()?);
    let admin = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let _says_its_end = admin_ends;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve_admin(admin, health, handles, setup.admin, stop_admin))
    })?;
    Ok((control, admin))
}

/// Replay, reloads, a watch over each upstream and its names, and one over the store's file; until the drain.
async fn control(
    routes: LiveRoutes,
    store: Store,
    check_every: Duration,
    replayer: Replayer,
    reloader: Reloader,
    stop: watch::Receiver<bool>,
) {
    // Pools stay as they are over a reload.
    let pools = routes.now().egress.clone();
    tokio::select! {
        () = replayer.run(stopped(stop)) => {}
        () = reloader.run() => {}
        () = watch_upstreams(routes.changes(), &store) => {}
        () = check_file(&store, check_every) => {}
        () = follow::all(&pools, &store) => {}
    }
}

/// Watches over today's upstreams.
async fn watch_upstreams(mut routes: watch::Receiver<Arc<Routes>>, store: &Store) {
    loop {
        let now = Arc::clone(&routes.borrow_and_update());
        let watches = now.upstreams.iter().map(|upstream| async {
            let connections = Connections::new(Arc::clone(upstream));
            tokio::join!(
                health::watch(connections),
                resolve::follow(upstream),
                outage::remember(Arc::clone(upstream), store.clone())
            );
        });
        tokio::select! {
            _ = futures_util::future::join_all(watches) => return,
            changed = routes.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks for damage in the store's file now and then. Never ends by itself.
async fn check_file(store: &Store, every: Duration) {
    let mut wait = every;
    loop {
        tokio::time::sleep(wait).await;
        if store.is_damaged() {
            // Nothing that a look could change.
            return std::future::pending().await;
        }
        wait = match store.check_file().await {
            Ok(Checked::Sound) => {
                tracing::debug!("no damage in the store");
                every
            }
            Ok(Checked::NotToTheEnd) => {
                tracing::warn!(
                    "the store is too busy or too large to be looked through; again later"
                );
                every.min(AGAIN)
            }
            Err(error) => {
                tracing::warn!(%error, "the store was not looked through to its end");
                every.min(AGAIN)
            }
        };
    }
}

const CHECK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// After a look that did not come to its end.
const AGAIN: Duration = Duration::from_secs(3600);

/// Page and API, and where asked for the health address; until workers have drained, so that probes still answer.
async fn serve_admin(
    admin: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
    handles: Handles,
    config: AdminConfig,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let health = async {
        let Some(health) = health else { return Ok(()) };
        let health = TcpListener::from_std(health)?;
        admin::serve_health(health, handles.clone(), stopped(stop.clone())).await
    };
    let page =
        admin::serve(TcpListener::from_std(admin)?, handles.clone(), config, stopped(stop.clone()));
    tokio::try_join!(page, health).map(|_| ())
}

/// Ready when the drain begins.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender gone means the same.
    stop.wait_for(|stop| *stop).await.ok();
}
