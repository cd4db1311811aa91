//! One worker thread: its runtime, listener, upstream connections and counters. Workers share nothing that is written
//! on the request path.

use std::{io, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
};

use super::SaysItsEnd;
use crate::{
    failover::{Current, Shared},
    filter_chain::{ChainConfig, filter_chain},
    listener::{self, Drain, Listening},
    telemetry::WorkerCounters,
    turn,
};

/// What a worker is made from.
pub(super) struct Setup {
    pub(super) number: usize,
    pub(super) listener: std::net::TcpListener,
    pub(super) listening: Listening,
    pub(super) chain: ChainConfig,
    /// What a reload replaces.
    pub(super) shared: watch::Receiver<Arc<Shared>>,
    pub(super) counters: Arc<WorkerCounters>,
    /// Turns true when the drain begins.
    pub(super) stop: watch::Receiver<bool>,
    /// How long connections may go on then.
    pub(super) drain: Duration,
    pub(super) says_its_end: SaysItsEnd,
}

/// Time between two looks at connections that were idle for too long.
const REAP_EVERY: Duration = Duration::from_secs(2);

/// Starts the thread. It ends when its connections are over after the drain began, or at the drain's deadline.
pub(super) fn start(setup: Setup) -> io::Result<JoinHandle<io::Result<()>>> {
    let name = format!("worker-{}", setup.number);
    std::thread::Builder::new().name(name).spawn(move || {
        turn::begin();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(turn::end)
            .build_local(LocalOptions::default())?;
        // A task, for what the runtime itself waits for is woken by way of the kernel: that would be each new connection.
        let worked = runtime.block_on(async { spawn(work(setup)).await });
        turn::end();
        worked?
    })
}

async fn work(setup: Setup) -> io::Result<()> {
    let Setup {
        listener,
        listening,
        chain,
        mut shared,
        counters,
        mut stop,
        drain: deadline,
        says_its_end: _says_its_end,
        ..
    } = setup;
    let drain = Rc::new(Drain::default());
    let first = Arc::clone(&shared.borrow_and_update());
    let handing_over = spawn(first.stand_in.store().clone().hand_over());
    let failover = Current::new(first, Arc::clone(&counters), Rc::clone(&drain));
    let chain = filter_chain(&chain, failover.clone());
    let serving = listener::serve(listener, listening, chain, Rc::clone(&drain), counters);
    let housekeeping = async {
        loop {
            tokio::time::sleep(REAP_EVERY).await;
            failover.now().reap();
        }
    };
    let reloads = async {
        loop {
            let now = failover.now();
            tokio::select! {
                changed = shared.changed() => if changed.is_err() { break },
                () = now.keep_open() => {}
            }
            let next = Arc::clone(&shared.borrow_and_update());
            failover.replace(next);
        }
        // The sender ends with the server.
        std::future::pending::<()>().await;
    };
    let ending = async {
        // The sender gone means the same: stop.
        stop.wait_for(|stop| *stop).await.ok();
        drain.begin();
        tokio::time::sleep(deadline).await;
        drain.inside()
    };
    tokio::select! {
        served = serving => served?,
        () = housekeeping => {}
        () = reloads => {}
        cut = ending => tracing::warn!(cut, "the drain's deadline has come: connections are cut"),
    }
    handing_over.abort();
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "hand-over must come behind the tasks whose entries it hands over and ends with the worker, which is the other"
)]
fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_local(future)
}
