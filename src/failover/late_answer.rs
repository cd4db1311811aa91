//! Lets a timed-out exchange run on, and closes its entry if the app still answers. Bounded in time and number.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::task::{AbortHandle, JoinHandle};

use crate::{
    listener::Drain,
    replay,
    router::Route,
    store::{Durable, KeptAnswer, Store},
    telemetry::WorkerCounters,
    upstream::{Attempt, Connections, Places, WholeAnswer, body_copy::Copied},
    veto,
};

/// One worker's exchanges that outlive their client's answer. Cheap to clone.
#[derive(Clone)]
pub struct LateAnswers(Rc<Inner>);

struct Inner {
    drain: Rc<Drain>,
    running: RefCell<VecDeque<(u64, AbortHandle)>>,
    next: Cell<u64>,
}

/// What a late answer needs to close its entry.
pub(super) struct Waiting {
    pub(super) attempt: Attempt,
    pub(super) entry: Durable,
    pub(super) route: Arc<Route>,
    pub(super) store: Store,
    pub(super) connections: Connections,
    pub(super) counters: Arc<WorkerCounters>,
    /// The app is busy with it until it ends.
    pub(super) places: Places,
    /// Of its body, which the attempt still has: its bytes are counted until it ends.
    pub(super) _copy: Copied,
}

/// Bytes of a late answer that are kept with the entry.
const KEPT: usize = 64 << 10;

impl LateAnswers {
    pub fn new(drain: Rc<Drain>) -> Self {
        Self(Rc::new(Inner { drain, running: RefCell::default(), next: Cell::new(0) }))
    }

    /// Runs a decision on whose client has left.
    pub(super) fn run_on(&self, deciding: impl Future<Output = ()> + 'static) {
        let inside = self.0.drain.enter();
        spawn(async move {
            let _inside = inside;
            deciding.await;
        });
    }

    /// Waits for the app's answer up to the late window; above the worker's bound the oldest one is cut (its entry
    /// stays `sent_unknown`, which is what it is).
    pub(super) fn follow(&self, waiting: Waiting) {
        let upstream = Arc::clone(&waiting.route.upstream);
        let most = upstream.config.late_max;
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        let inside = self.0.drain.enter();
        let inner = Rc::clone(&self.0);
        let task = spawn(async move {
            let _inside = inside;
            let window: Duration = upstream.config.late_window;
            tokio::time::timeout(window, settle(waiting)).await.ok();
            inner.running.borrow_mut().retain(|(other, _)| *other != number);
        });
        let mut running = self.0.running.borrow_mut();
        running.push_back((number, task.abort_handle()));
        if running.len() > most {
            running.pop_front().into_iter().for_each(|(_, oldest)| oldest.abort());
        }
    }
}

/// 2xx closes the entry `completed`, a final no `declined`; others change nothing.
async fn settle(waiting: Waiting) {
    let Waiting { attempt, entry, route, store, connections, counters, places, _copy } = waiting;
    let mut answer = match attempt.late(KEPT, &connections).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(receipt = %entry.receipt(), %error, "no late answer either");
            return;
        }
    };
    drop(places);
    veto::hear(&route, &store, answer.status, &mut answer.headers).await;
    counters.route(route.place).late_answers.fetch_add(1, Ordering::Relaxed);
    // The store cannot be read: the entry stays what it is, and is replayed.
    let Ok(stored) = store.load(entry.seq()).await else { return };
    let closed = match replay::late_outcome(&stored, &route, &answer) {
        Some((outcome, why)) => {
            counters.route(route.place).spurious.fetch_add(1, Ordering::Relaxed);
            let why = format!("after its deadline the app answered: {why}");
            store.close_late(&entry, outcome, &why, kept(&answer)).await
        }
        None => {
            let why = format!("a late answer that changes nothing: {}", answer.status);
            store.note(entry.seq(), "late_answer", &why, Some(kept(&answer))).await
        }
    };
    if let Err(error) = closed {
        tracing::info!(receipt = %entry.receipt(), %error, "a late answer came to an entry that had moved");
    }
}

/// The app's answer as it is kept in an entry's history.
pub(super) fn kept(answer: &WholeAnswer) -> KeptAnswer {
    KeptAnswer {
        status: answer.status.as_u16(),
        headers: answer
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), bytes::Bytes::copy_from_slice(value.as_bytes()))
            })
            .collect(),
        body: answer.body.clone(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "exchanges that outlive their client belong here; the drain awaits them"
)]
fn spawn(future: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(future)
}
