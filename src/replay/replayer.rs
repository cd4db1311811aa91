//! The task that replays: wakes when something changes, sends what is due as far as the pace allows, keeps the book.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{LocalBoxFuture, select_all},
    stream::FuturesUnordered,
};
use tokio::{sync::watch, time::Instant};

use crate::{router::Routes, time::next_moment};

use super::{
    Parts, RunState, Shared,
    backoff::Chance,
    delivery::{CameTo, Delivery, Done},
    expired::hold_expired,
    lane::Lane,
    load::Load,
    orphans::hold_orphans,
    pace::Ticket,
    standing::remember,
};

/// The task behind [`super::Replay`].
#[derive(Debug)]
pub struct Replayer {
    pub(super) shared: Arc<Shared>,
}

impl Replayer {
    /// Replays until `drain` is ready; then sends in flight finish, claims go back, and it returns. Runs on one thread:
    /// upstream connections belong to it. Dropped earlier, it leaves entries `sending`: they count as `sent_unknown` at
    /// the next start. Returns before `drain` only on a bug of its own.
    pub async fn run(self, drain: impl Future<Output = ()>) {
        let mut work = Work::new(self.shared);
        work.recall().await;
        let mut drain = pin!(drain);
        loop {
            let until = work.pass();
            tokio::select! {
                biased;
                () = &mut drain => break,
                () = work.until(until) => {}
            }
        }
        work.finish().await;
    }
}

/// What the task works on.
pub(super) struct Work {
    pub shared: Arc<Shared>,
    pub parts: Parts,
    pub delivery: Rc<Delivery>,
    pub lanes: Vec<Lane>,
    pub sends: FuturesUnordered<LocalBoxFuture<'static, Sent>>,
    /// Writing down of runs, holding of orphans and of what has expired.
    pub chores: FuturesUnordered<LocalBoxFuture<'static, Chore>>,
    pub store_changes: watch::Receiver<u64>,
    pub mode_changes: watch::Receiver<u64>,
    /// Routes that a reload brought are taken up when what is in flight has ended.
    pub routes: watch::Receiver<Arc<Routes>>,
    pub chance: Chance,
    /// How many captures the store takes meanwhile.
    pub load: Load,
    /// Where the next pass begins, so that no route or upstream is always first.
    pub turn: usize,
    pub last_pass: Instant,
    pub next_sample: Instant,
    pub next_orphans: Instant,
    pub next_expired: Instant,
    pub next_publish: Instant,
    pub dirty: bool,
    /// The store could not write: nothing is begun before.
    pub store_rests_until: Instant,
    /// Since when automatic runs have had nothing to do.
    pub idle: HashMap<String, Instant>,
}

/// A delivery that ended.
pub(super) struct Sent {
    pub lane: usize,
    pub route: usize,
    pub run: String,
    pub ticket: Ticket,
    pub done: Done,
}

#[derive(PartialEq, Eq)]
pub(super) enum Chore {
    Remembered,
    Orphans,
    Expired,
}

impl Work {
    fn new(shared: Arc<Shared>) -> Self {
        let parts = shared.parts.clone();
        let now = Instant::now();
        let (seed, other_seed) = uuid::Uuid::now_v7().as_u64_pair();
        Self {
            delivery: Rc::new(Delivery::new(parts.clone(), seed ^ other_seed)),
            lanes: lanes(&parts),
            sends: FuturesUnordered::new(),
            chores: FuturesUnordered::new(),
            store_changes: parts.store.changes(),
            mode_changes: parts.modes.changes(),
            routes: parts.routes.changes(),
            chance: Chance::seeded(other_seed),
            load: Load::new(processors(), now),
            turn: 0,
            last_pass: now,
            next_sample: now,
            next_orphans: now,
            next_expired: now,
            next_publish: now,
            dirty: true,
            store_rests_until: now,
            idle: HashMap::new(),
            shared,
            parts,
        }
    }

    /// Reads the runs of earlier starts.
    async fn recall(&mut self) {
        match self.parts.store.recall_all(REMEMBERED).await {
            Ok(values) => {
                let runs = values.iter().filter_map(|(name, json)| {
                    let slot = name.strip_prefix(REMEMBERED)?.parse().ok()?;
                    Some((slot, serde_json::from_str(json).ok()?))
                });
                self.shared.book().recall(runs.collect());
            }
            Err(error) => tracing::warn!(%error, "earlier replay runs cannot be shown"),
        }
    }

    /// Does all there is to do now, without waiting. Gives the time by which to come again at the latest.
    fn pass(&mut self) -> Instant {
        let now = Instant::now();
        self.store_changes.borrow_and_update();
        self.last_pass = now;
        self.turn = self.turn.wrapping_add(1);
        let taken = self.parts.store.taken();
        #[cfg(test)]
        let taken = taken + self.parts.hook.load.look();
        self.load.look(taken, now);
        self.take_up_routes();
        self.lanes.iter_mut().for_each(|lane| lane.look(now));
        self.sample(now);
        self.look_for_orphans(now);
        self.look_for_expired(now);
        self.notice_people();
        self.start_by_itself(now);
        let mut active = self.active();
        // A reload waits for what is in flight: nothing more begins under the old routes.
        if !self.reload_waits() {
            for run in &mut active {
                self.fill(run, now);
            }
        }
        let wake = self.settle_runs(&active, now);
        self.publish(now);
        // With the other looks of this thread.
        let heartbeat = next_moment(now, HEARTBEAT);
        let publish = if self.dirty { self.next_publish } else { heartbeat };
        wake.min(publish).min(heartbeat).max(now + SHORTEST_WAIT)
    }

    fn reload_waits(&self) -> bool {
        self.routes.has_changed().unwrap_or(false)
    }

    /// Lanes for today's routes, with paces that begin anew: a canary comes first.
    fn take_up_routes(&mut self) {
        if self.reload_waits() && self.sends.is_empty() {
            self.routes.borrow_and_update();
            self.lanes = lanes(&self.parts);
            self.dirty = true;
        }
    }

    fn sample(&mut self, now: Instant) {
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE_EVERY;
            self.lanes.iter_mut().for_each(|lane| lane.sample(&self.parts.counters));
            self.lanes.iter().for_each(|lane| lane.connections.reap());
        }
    }

    fn look_for_orphans(&mut self, now: Instant) {
        if now >= self.next_orphans {
            self.next_orphans = now + Duration::from_secs(86_400); // until this round is done
            let round = hold_orphans(self.parts.clone()).map(|()| Chore::Orphans);
            self.chores.push(round.boxed_local());
        }
    }

    fn look_for_expired(&mut self, now: Instant) {
        if now >= self.next_expired {
            self.next_expired = now + Duration::from_secs(86_400); // until this round is done
            let round = hold_expired(self.parts.clone()).map(|()| Chore::Expired);
            self.chores.push(round.boxed_local());
        }
    }

    fn publish(&mut self, now: Instant) {
        if self.dirty && now >= self.next_publish {
            self.dirty = false;
            self.next_publish = now + PUBLISH_EVERY;
            self.shared.changed.send_modify(|version| *version += 1);
        }
    }

    /// Waits for something to do, at most until then.
    async fn until(&mut self, latest: Instant) {
        let (mut sent, mut finished, mut store_changed) = (None, None, false);
        // A copy: it is the pass that takes note of them.
        let mut reloaded = self.routes.clone();
        if self.reload_waits() {
            reloaded.borrow_and_update();
        }
        tokio::select! {
            Some(one) = self.sends.next(), if !self.sends.is_empty() => sent = Some(one),
            Some(chore) = self.chores.next(), if !self.chores.is_empty() => finished = Some(chore),
            Ok(()) = self.store_changes.changed() => store_changed = true,
            Ok(()) = self.mode_changes.changed() => {}
            Ok(()) = reloaded.changed() => {}
            () = any_changed(&mut self.lanes) => {}
            () = self.shared.wake.notified() => {}
            () = tokio::time::sleep_until(latest) => {}
        }
        if let Some(sent) = sent {
            self.settle(sent);
            while let Some(Some(sent)) = self.sends.next().now_or_never() {
                self.settle(sent);
            }
        }
        match finished {
            Some(Chore::Orphans) => self.next_orphans = Instant::now() + ORPHANS_EVERY,
            Some(Chore::Expired) => self.next_expired = Instant::now() + EXPIRED_EVERY,
            Some(Chore::Remembered) | None => {}
        }
        if store_changed {
            // Many changes, one pass; what ends meanwhile is settled, and begun anew, without waiting for it.
            let quiet = self.last_pass + STORE_CHANGES_EVERY;
            tokio::select! {
                Some(sent) = self.sends.next(), if !self.sends.is_empty() => self.settle(sent),
                () = tokio::time::sleep_until(quiet) => {}
            }
        }
    }

    fn settle(&mut self, sent: Sent) {
        let now = Instant::now();
        let Sent { lane, route, run, ticket, done } = sent;
        self.lanes[lane].end(route, ticket, done.felt, done.pause, now, &mut self.chance);
        if done.came_to == CameTo::StoreTrouble {
            self.store_rests_until = now + STORE_RESTS;
        }
        self.shared.book().settle(&run, done.came_to);
        self.dirty = true;
    }

    /// Nothing new begins; what is in flight ends; the runs say why they ended.
    async fn finish(mut self) {
        for run in self.shared.book().running() {
            run.go.store(false, Ordering::Relaxed);
        }
        while let Some(sent) = self.sends.next().await {
            self.settle(sent);
        }
        {
            let mut book = self.shared.book();
            for run in book.running_mut() {
                run.end(RunState::Stopped("standin ended".to_owned()));
                self.chores.push(remember(&self.parts, run));
            }
        }
        while self.chores.next().await.is_some() {}
        self.shared.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn in_flight(&self) -> u32 {
        u32::try_from(self.sends.len()).unwrap_or(u32::MAX)
    }
}

fn lanes(parts: &Parts) -> Vec<Lane> {
    let routes = parts.routes.now();
    let upstreams = routes.upstreams.iter();
    upstreams.map(|it| Lane::new(Arc::clone(it), &routes.all, MOST_IN_FLIGHT)).collect()
}

/// What this process may use of the machine.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Ready when any upstream's condition changes.
async fn any_changed(lanes: &mut [Lane]) {
    if lanes.is_empty() {
        std::future::pending::<()>().await;
    }
    select_all(lanes.iter_mut().map(|lane| lane.changed().boxed_local())).await;
}

/// Names under which the store remembers runs: as many as are shown, used in turn.
pub(super) const REMEMBERED: &str = "run/";
/// Most deliveries at once, of all upstreams: each has its body in memory.
pub(super) const MOST_IN_FLIGHT: u32 = 256;
/// Longest time between two passes: modes also end by themselves.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const ORPHANS_EVERY: Duration = Duration::from_secs(30);
const EXPIRED_EVERY: Duration = Duration::from_secs(5);
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
const STORE_CHANGES_EVERY: Duration = Duration::from_millis(10);
const STORE_RESTS: Duration = Duration::from_secs(1);
