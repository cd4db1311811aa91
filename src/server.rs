//! Builds every part once, in order of dependency; runs them; drains them.

mod certificates;
mod control;
mod follow;
mod outage;
mod worker;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};

use filters::peer::Trust;
use http::HeaderName;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    config::{Config, Ephemeral},
    failover::{Pins, Shared},
    filter_chain::ChainConfig,
    listener::{self, Listening, PerClient},
    mode::Modes,
    record::Records,
    reload::{self, Reload, Source},
    router::{LiveRoutes, RouteFault, Routes},
    stand_in::StandIn,
    store::{Hook, Store, StoreError, StoreOptions, Synchronous},
    telemetry::Counters,
    tls::{self, TlsFault},
    upstream::body_copy::Budget,
    veto,
};

/// Why a server did not start, or ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Route(#[from] RouteFault),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsFault),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing more may be answered: the process ends at once, and what was acknowledged is on disk.
    #[error("the store's writer failed: {0}")]
    StoreFailed(String),
    /// A part ended unasked: a standin that accepts but never replays is lying.
    #[error("{0} ended on its own")]
    PartEnded(&'static str),
}

/// Test switches of `standin run`, hidden from people.
#[derive(Clone, Default)]
pub struct Hidden {
    /// Called at named points of the store and of replay; may never return.
    pub failpoint: Option<Arc<dyn Fn(&str) + Send + Sync>>,
    /// Whether commits wait for the disk as they should.
    pub synchronous_normal: bool,
    /// Time between two looks for damage in the store's file, instead of a day.
    pub check_store_every: Option<Duration>,
}

/// Everything that runs.
struct Parts {
    store: Store,
    stop: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    control: JoinHandle<io::Result<()>>,
    admin: JoinHandle<io::Result<()>>,
    /// Which of these threads has ended: a look again and again would wake an idle process for nothing.
    ended: mpsc::UnboundedReceiver<&'static str>,
    drain: Duration,
}

/// Runs until SIGTERM or SIGINT, then drains. A second signal ends it at once.
pub fn run(config: &Config, source: Option<Source>, hidden: &Hidden) -> Result<(), ServerError> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        // Before anybody knows that it runs: until somebody listens to it, it ends the process.
        let _heard_later = signal(SignalKind::hangup())?;
        let mut parts = start(config, source, hidden).await?;
        let asked = wait(&mut parts).await?;
        drain(parts).await;
        asked
    })
}

async fn start(
    config: &Config,
    source: Option<Source>,
    hidden: &Hidden,
) -> Result<Parts, ServerError> {
    let routes = Arc::new(Routes::new(config)?);
    let store = open_store(config, hidden)?;
    outage::recall(&routes, &store).await;
    veto::recall(&routes, &store).await;
    routes.egress.recall(&store).await?;
    follow::first(&routes.egress, &store).await;
    let tls = config.listen.tls.as_ref().map(|tls| tls::server::load(tls, config.listen.http2));
    let tls = tls.transpose()?.map(Arc::new);
    let modes = Modes::recall(store.clone()).await?;
    let workers = config.workers.map_or_else(cores, std::num::NonZero::get);
    let counters = Counters::default();
    let (stop, stopping) = watch::channel(false);
    let (stop_admin, admin_stopping) = watch::channel(false);
    let request_id: HeaderName = config.request_id.header.parse().map_err(io::Error::other)?;

    let listen = |address| move |source| ServerError::Listen { address, source };
    let sockets =
        listener::bind(config.listen.address, workers).map_err(listen(config.listen.address))?;
    let address =
        sockets.first().map_or(Ok(config.listen.address), std::net::TcpListener::local_addr)?;
    let admin_listener =
        TcpListener::bind(config.admin.address).await.map_err(listen(config.admin.address))?;
    let admin_address = admin_listener.local_addr()?;
    let health = match config.admin.health {
        Some(address) => Some(TcpListener::bind(address).await.map_err(listen(address))?),
        None => None,
    };

    let records = Records::default();
    let pins = Pins::new(config.store.dedupe_window);
    pins.recall(&store).await;
    let shared = Arc::new(Shared {
        role: config.role,
        stand_in: StandIn::new(&routes, store.clone(), counters.clone())
            .map_err(io::Error::other)?,
        routes: Arc::clone(&routes),
        modes: modes.clone(),
        budget: Budget::new(config.listen.limits.copied_bodies),
        request_id: request_id.clone(),
        trust: Trust::new(config.request_id.trust.iter().copied()),
        records: records.clone(),
        pins,
        access_log: config.log.access,
    });
    let listening = Listening {
        config: config.listen.clone(),
        tls: tls.clone(),
        connections: Arc::new(AtomicUsize::new(0)),
        per_client: PerClient::new(config.listen.limits.connections_per_client),
    };
    let chain = ChainConfig {
        access_log: config.log.access,
        in_flight: Arc::new(AtomicUsize::new(0)),
        max_in_flight: config.listen.limits.in_flight,
        request_id: request_id.clone(),
        trust: Trust::new(config.request_id.trust.iter().copied()),
        signing_key: config.replay.signing_key.clone(),
        instance: uuid::Uuid::now_v7().simple().to_string()[16..].into(),
    };

    let (shared, current) = watch::channel(shared);
    let live = LiveRoutes::new(Arc::clone(&routes));
    let what_changes = reload::Parts {
        config: config.clone(),
        shared,
        routes: live.clone(),
        store: store.clone(),
        keeps: needs_store(config),
        counters: counters.clone(),
    };
    let setup = control::Setup {
        store: store.clone(),
        reload: Reload::new(what_changes, source),
        routes: live,
        modes: modes.clone(),
        counters: counters.clone(),
        request_id,
        role: config.role,
        admin: config.admin.clone(),
        signing_key: config.replay.signing_key.clone(),
        hidden: hidden.clone(),
        tls,
        records,
    };
    let (ending, ended) = mpsc::unbounded_channel();
    let says = |part| SaysItsEnd { part, ended: ending.clone() };
    let stops = (stopping.clone(), admin_stopping);
    let (control, admin) =
        control::start(setup, admin_listener, health, stops, (says("replay"), says("admin")))?;
    let mut threads = Vec::new();
    for (number, listener) in sockets.into_iter().enumerate() {
        threads.push(worker::start(worker::Setup {
            number,
            listener,
            listening: listening.clone(),
            chain: chain.clone(),
            shared: current.clone(),
            counters: counters.worker(routes.places()),
            stop: stopping.clone(),
            drain: config.drain,
            says_its_end: says("a worker"),
        })?);
    }
    announce(address, admin_address)?;
    let (workers, drain) = (threads, config.drain);
    Ok(Parts { store, stop, stop_admin, workers, control, admin, ended, drain })
}

/// One line for each address: whoever started us with port 0 reads it here.
fn announce(address: SocketAddr, admin: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    writeln!(out, "admin on {admin}")?;
    out.flush()
}

/// Without a stand-in there is nothing to keep, unless something was kept before.
fn needs_store(config: &Config) -> bool {
    let keeps = config.route.values().any(|route| route.stand_in.is_some());
    // Who looks at the records of failed exchanges is in the audit log.
    let records = config.route.values().any(|route| route.watch.record.is_some());
    // What people change in a pool of egress proxies is kept, too.
    keeps || records || !config.egress.is_empty() || config.store.path.exists()
}

fn open_store(config: &Config, hidden: &Hidden) -> Result<Store, ServerError> {
    let path: &Path = &config.store.path;
    if !needs_store(config) {
        return Ok(Store::without("no route has a stand-in"));
    }
    let late_window =
        config.upstream.values().map(|upstream| upstream.late_window).max().unwrap_or_default();
    let options = StoreOptions {
        path: path.to_owned(),
        max_bytes: config.store.max_bytes,
        retention: config.store.retention,
        dedupe_window: config.store.dedupe_window,
        accept_ephemeral: config.store.ephemeral == Ephemeral::AcceptLoss,
        late_window,
        synchronous: if hidden.synchronous_normal {
            Synchronous::NormalForTests
        } else {
            Synchronous::Full
        },
        hook: hidden
            .failpoint
            .clone()
            .map_or_else(Hook::default, |failpoint| Hook::new(move |point| failpoint(point))),
    };
    match Store::open(options) {
        Ok(store) => Ok(store),
        Err(error @ (StoreError::InUse(_) | StoreError::Newer(..))) => Err(error.into()),
        // Forwarding needs no store, and a damaged one is nobody's to write to.
        Err(StoreError::Damaged(why)) => Ok(Store::damaged(&why)),
        // Forwarding needs no store: the app is not taken away with it.
        Err(error) => {
            tracing::error!(%error, "the store cannot be used: standin forwards, but never stands in");
            Ok(Store::without(&error.to_string()))
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Until a signal (`Ok`), or until a part ends unasked.
async fn wait(parts: &mut Parts) -> Result<Result<(), ServerError>, ServerError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = async {
        match parts.ended.recv().await {
            Some(part) => part,
            // Each thread has one of the senders, and says its name before it goes.
            None => std::future::pending().await,
        }
    };
    let mut failed = parts.store.failed();
    let failed = async {
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    };
    Ok(tokio::select! {
        why = failed => return Err(ServerError::StoreFailed(why)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        part = ended => Err(ServerError::PartEnded(part)),
    })
}

/// Longest time for the store's last words.
const CLOSING: Duration = Duration::from_secs(5);

/// Says that a thread has ended, however it came to that.
struct SaysItsEnd {
    part: &'static str,
    ended: mpsc::UnboundedSender<&'static str>,
}

impl Drop for SaysItsEnd {
    fn drop(&mut self) {
        // Nobody listens any more when it was asked to end.
        self.ended.send(self.part).ok();
    }
}

/// No new entries, no new connections; what is in flight finishes until the deadline; admin ends last.
async fn drain(parts: Parts) {
    tracing::info!("draining");
    parts.store.stop_accepting("standin is stopping");
    parts.stop.send_replace(true);
    let mut again = signal(SignalKind::terminate()).ok();
    let second_signal = async {
        match again.as_mut() {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    };
    let over = async {
        // The parts know the deadline themselves; a little more for what they do after it.
        let deadline = Instant::now() + parts.drain + Duration::from_secs(2);
        while Instant::now() < deadline
            && !(parts.workers.iter().all(JoinHandle::is_finished) && parts.control.is_finished())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Whatever was acknowledged is durable already; this moves the log into the file and lets the lock go.
        tokio::time::timeout(CLOSING, parts.store.clone().close()).await.ok();
        parts.stop_admin.send_replace(true);
        let last = Instant::now() + Duration::from_secs(1);
        while Instant::now() < last && !parts.admin.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = over => {}
        () = second_signal => tracing::warn!("second signal: ending at once"),
    }
}
