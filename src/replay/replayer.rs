//! The task that replays: wakes when something changes, sends what is due as far as the pace allows, keeps the book.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{LocalBoxFuture, select_all},
    stream::FuturesUnordered,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Parts, RunState, Shared,
    backoff::Chance,
    delivery::{CameTo, Delivery, Done},
    lane::{Closed, Lane},
    orphans::hold_orphans,
    pace::Ticket,
    runs::{Run, Wish},
    trigger::{BY_ITSELF, Outlook, plays_by_itself},
};
use crate::{config::Trigger, mode::Mode, store::Scope, time::UnixMillis};

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
struct Work {
    shared: Arc<Shared>,
    parts: Parts,
    delivery: Rc<Delivery>,
    lanes: Vec<Lane>,
    sends: FuturesUnordered<LocalBoxFuture<'static, Sent>>,
    /// Writing down of runs, holding of orphans.
    chores: FuturesUnordered<LocalBoxFuture<'static, Chore>>,
    store_changes: watch::Receiver<u64>,
    chance: Chance,
    /// Where the next pass begins, so that no route or upstream is always first.
    turn: usize,
    last_pass: Instant,
    next_sample: Instant,
    next_orphans: Instant,
    next_publish: Instant,
    dirty: bool,
    /// The store could not write: nothing is begun before.
    store_rests_until: Instant,
    /// Since when automatic runs have had nothing to do.
    idle: HashMap<String, Instant>,
}

/// A delivery that ended.
struct Sent {
    lane: usize,
    route: usize,
    run: String,
    ticket: Ticket,
    done: Done,
}

#[derive(PartialEq, Eq)]
enum Chore {
    Remembered,
    Orphans,
}

/// A running run as one pass sees it.
struct Active {
    id: String,
    scope: Scope,
    by_person: bool,
    stopped: Option<String>,
    go: Arc<AtomicBool>,
    in_flight: u64,
    /// Why nothing is sent, and when something may be.
    waits: Option<Closed>,
}

impl Active {
    fn of(run: &Run) -> Self {
        Self {
            id: run.view.id.clone(),
            scope: run.scope.clone(),
            by_person: run.by_person,
            stopped: run.stopped.clone(),
            go: Arc::clone(&run.go),
            in_flight: run.view.in_flight,
            waits: None,
        }
    }
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
            chance: Chance::seeded(other_seed),
            turn: 0,
            last_pass: now,
            next_sample: now,
            next_orphans: now,
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
        self.lanes.iter_mut().for_each(|lane| lane.look(now));
        self.sample(now);
        self.look_for_orphans(now);
        self.notice_people();
        self.start_by_itself(now);
        let mut active = self.active();
        for run in &mut active {
            self.fill(run, now);
        }
        let wake = self.settle_runs(&active, now);
        self.publish(now);
        let publish = if self.dirty { self.next_publish } else { now + HEARTBEAT };
        wake.min(publish).min(now + HEARTBEAT).max(now + SHORTEST_WAIT)
    }

    fn sample(&mut self, now: Instant) {
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE_EVERY;
            self.lanes.iter_mut().for_each(|lane| lane.sample(&self.parts.counters));
        }
    }

    fn look_for_orphans(&mut self, now: Instant) {
        if now >= self.next_orphans {
            self.next_orphans = now + Duration::from_secs(86_400); // until this round is done
            let round = hold_orphans(self.parts.clone()).map(|()| Chore::Orphans);
            self.chores.push(round.boxed_local());
        }
    }

    fn start_by_itself(&mut self, now: Instant) {
        let wall = UnixMillis::now();
        for lane in &self.lanes {
            let scope = Scope { upstream: Some(lane.upstream.name.clone()), ..Scope::default() };
            if self.parts.store.open_in(&scope) == 0 {
                continue;
            }
            let plays = |place: &usize| self.plays_by_itself(lane, *place);
            let due = (0..lane.routes.len()).filter(plays).any(|place| {
                let scope = narrowed(&scope, lane, place);
                !self.parts.store.due(&scope, wall, 1).is_empty()
            });
            let under_way = self.shared.book().running().any(|run| {
                run.stopped.is_none()
                    && run.scope.route.is_none()
                    && run.scope.seq.is_none()
                    && run.scope.upstream.as_ref().is_none_or(|name| *name == lane.upstream.name)
            });
            let outlook = Outlook { open_to_sends: lane.gate(now).is_ok(), under_way, due };
            if outlook.starts_by_itself() {
                let why = format!("entries for {} are due and it may be asked", lane.upstream.name);
                let wish = Wish { scope, who: BY_ITSELF, why: &why, by_person: false };
                let view = self.shared.book().start(wish, |_| false);
                tracing::info!(run = view.id, scope = view.scope, "a replay run started");
                self.dirty = true;
            }
        }
    }

    fn plays_by_itself(&self, lane: &Lane, place: usize) -> bool {
        let route = &lane.routes[place];
        let mode = self.parts.modes.of(&route.route.name);
        plays_by_itself(route.route.config.replay.trigger, mode, route.stopped)
    }

    /// What a person stopped does not start by itself at once; what a person asked for may again.
    fn notice_people(&mut self) {
        let mut book = self.shared.book();
        for run in book.running_mut() {
            if run.stopped.is_some() {
                mark_stopped(&mut self.lanes, &run.scope, true);
            } else if run.by_person && !std::mem::replace(&mut run.noticed, true) {
                mark_stopped(&mut self.lanes, &run.scope, false);
                self.chores.push(remember(&self.parts, run));
            }
        }
    }

    /// The running runs, those of people first.
    fn active(&self) -> Vec<Active> {
        let book = self.shared.book();
        let mut active: Vec<Active> = book.running().map(Active::of).collect();
        active.sort_by_key(|run| !run.by_person);
        active
    }

    /// Begins as many sends of a run as the paces allow.
    fn fill(&mut self, run: &mut Active, now: Instant) {
        if run.stopped.is_some() {
            return;
        }
        if now < self.store_rests_until {
            let why = "the store cannot write now".to_owned();
            run.waits = Some(Closed { why, until: Some(self.store_rests_until) });
            return;
        }
        let wall = UnixMillis::now();
        for lane in rotated(self.lanes.len(), self.turn) {
            let upstream = Some(self.lanes[lane].upstream.name.clone());
            if self.parts.store.open_in(&Scope { upstream, ..Scope::default() }) == 0 {
                continue;
            }
            for place in rotated(self.lanes[lane].routes.len(), self.turn) {
                if let Err(closed) = self.fill_route(run, lane, place, now, wall) {
                    run.waits.get_or_insert(closed);
                }
            }
        }
    }

    fn fill_route(
        &mut self,
        run: &mut Active,
        index: usize,
        place: usize,
        now: Instant,
        wall: UnixMillis,
    ) -> Result<(), Closed> {
        let lane = &self.lanes[index];
        if !covers(&run.scope, lane, place) {
            return Ok(());
        }
        let scope = narrowed(&run.scope, lane, place);
        if self.parts.store.open_in(&scope) == 0 {
            return Ok(());
        }
        if !run.by_person && !self.plays_by_itself(lane, place) {
            return self.why_it_does_not_play(lane, place);
        }
        let of_route = lane.routes[place].route.config.replay.pace.get();
        let room = lane
            .gate(now)?
            .min(of_route.saturating_sub(lane.routes[place].in_flight))
            .min(MOST_IN_FLIGHT.saturating_sub(self.in_flight()));
        if room == 0 {
            return Ok(());
        }
        for seq in self.parts.store.due(&scope, wall, room as usize) {
            let Some(lease) = self.parts.store.lease(seq) else { continue };
            let lane = &mut self.lanes[index];
            let ticket = lane.begin(place, now);
            let delivery = Rc::clone(&self.delivery);
            let (connections, go) = (lane.connections.clone(), Arc::clone(&run.go));
            let id = run.id.clone();
            let send = async move {
                let done = delivery.deliver(lease, connections, go).await;
                Sent { lane: index, route: place, run: id, ticket, done }
            };
            self.sends.push(send.boxed_local());
            run.in_flight += 1;
            self.dirty = true;
            if let Some(run) = self.shared.book().run_mut(&run.id) {
                run.view.in_flight += 1;
            }
        }
        Ok(())
    }

    fn why_it_does_not_play(&self, lane: &Lane, place: usize) -> Result<(), Closed> {
        let route = &lane.routes[place].route;
        let forced = self.parts.modes.of(&route.name) == Mode::Forced;
        if route.config.replay.trigger == Trigger::Auto && forced {
            let why = format!("route {} is in mode `forced`", route.name);
            return Err(Closed { why, until: None });
        }
        Ok(())
    }

    /// Ends runs that have nothing left, says of the others where they stand. Gives the time of the next thing to do.
    fn settle_runs(&mut self, active: &[Active], now: Instant) -> Instant {
        let mut wake = now + HEARTBEAT;
        for run in active {
            let state = if run.in_flight > 0 {
                self.idle.remove(&run.id);
                RunState::Running
            } else if let Some(why) = &run.stopped {
                RunState::Stopped(why.clone())
            } else {
                let (state, at) = self.without_sends(run, now);
                wake = wake.min(at);
                state
            };
            self.write_state(run, state, now);
        }
        let due = self.next_due_by_itself(now);
        wake.min(due)
    }

    /// Where a run stands that has nothing in flight.
    fn without_sends(&mut self, run: &Active, now: Instant) -> (RunState, Instant) {
        let (due, next) = self.left(run);
        if due || (next.is_some() && run.waits.is_some()) {
            self.idle.remove(&run.id);
            let Some(closed) = &run.waits else { return (RunState::Running, now + SOON) };
            return (
                RunState::Waiting(closed.why.clone()),
                closed.until.unwrap_or(now + HEARTBEAT),
            );
        }
        if let Some(next) = next {
            self.idle.remove(&run.id);
            let at = now + next.since(UnixMillis::now());
            return (RunState::Waiting(format!("the next entry is due at {next}")), at);
        }
        let idle = *self.idle.entry(run.id.clone()).or_insert(now);
        if !run.by_person && now < idle + LINGER {
            return (RunState::Waiting("nothing is due".to_owned()), idle + LINGER);
        }
        self.idle.remove(&run.id);
        let blocked = run.scope.seq.is_some() && self.parts.store.open_in(&run.scope) > 0;
        if blocked {
            let why = "an earlier entry of its sequence is held or under way";
            return (RunState::Stopped(why.to_owned()), now);
        }
        (RunState::Done, now)
    }

    /// Whether an entry of the run is due, and when the next one falls due.
    fn left(&self, run: &Active) -> (bool, Option<UnixMillis>) {
        let wall = UnixMillis::now();
        let mut next: Option<UnixMillis> = None;
        for lane in &self.lanes {
            for place in 0..lane.routes.len() {
                let forced = self.parts.modes.of(&lane.routes[place].route.name) == Mode::Forced;
                let plays = run.by_person || self.plays_by_itself(lane, place) || forced;
                if !covers(&run.scope, lane, place) || !plays {
                    continue;
                }
                let scope = narrowed(&run.scope, lane, place);
                if !self.parts.store.due(&scope, wall, 1).is_empty() {
                    return (true, None);
                }
                let at = self.parts.store.next_due(&scope, wall);
                next = [next, at].into_iter().flatten().min();
            }
        }
        (false, next)
    }

    fn next_due_by_itself(&self, now: Instant) -> Instant {
        let wall = UnixMillis::now();
        let next = self.parts.store.next_due(&Scope::default(), wall);
        // What is due already was begun, or waits for something else than time.
        next.filter(|at| *at > wall).map_or(now + HEARTBEAT, |at| now + at.since(wall))
    }

    fn write_state(&mut self, run: &Active, state: RunState, now: Instant) {
        let over = matches!(state, RunState::Done | RunState::Stopped(_));
        let (mut open, mut pace) = (0, 0);
        for lane in &self.lanes {
            let mut concerned = false;
            for place in (0..lane.routes.len()).filter(|place| covers(&run.scope, lane, *place)) {
                if run.by_person || self.plays_by_itself(lane, place) {
                    open += self.parts.store.open_in(&narrowed(&run.scope, lane, place));
                    concerned = true;
                }
            }
            pace += if concerned { u64::from(lane.allowed(now)) } else { 0 };
        }
        let mut book = self.shared.book();
        let Some(kept) = book.run_mut(&run.id) else { return };
        let before = kept.view.clone();
        kept.view.total = kept.view.settled() + open;
        kept.view.pace = if over { 0 } else { pace };
        if over {
            kept.end(state);
            tracing::info!(run = kept.view.id, scope = kept.view.scope, "a replay run ended");
            self.chores.push(remember(&self.parts, kept));
        } else {
            kept.view.state = state;
        }
        self.dirty |= kept.view != before;
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
        tokio::select! {
            Some(one) = self.sends.next(), if !self.sends.is_empty() => sent = Some(one),
            Some(chore) = self.chores.next(), if !self.chores.is_empty() => finished = Some(chore),
            Ok(()) = self.store_changes.changed() => store_changed = true,
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
        if finished == Some(Chore::Orphans) {
            self.next_orphans = Instant::now() + ORPHANS_EVERY;
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
        self.shared.book().settle(&run, done.receipt, done.came_to);
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

    fn in_flight(&self) -> u32 {
        u32::try_from(self.sends.len()).unwrap_or(u32::MAX)
    }
}

fn lanes(parts: &Parts) -> Vec<Lane> {
    let upstreams = parts.routes.upstreams.iter();
    upstreams.map(|it| Lane::new(Arc::clone(it), &parts.routes.all, MOST_IN_FLIGHT)).collect()
}

fn covers(scope: &Scope, lane: &Lane, place: usize) -> bool {
    let route = &lane.routes[place].route;
    scope.upstream.as_ref().is_none_or(|name| *name == lane.upstream.name)
        && scope.route.as_ref().is_none_or(|name| *name == route.name)
}

/// The part of a scope that is this route at this upstream.
fn narrowed(scope: &Scope, lane: &Lane, place: usize) -> Scope {
    Scope {
        route: Some(lane.routes[place].route.name.clone()),
        upstream: Some(lane.upstream.name.clone()),
        seq: scope.seq,
    }
}

/// Whether the routes of a scope wait for a person after one stopped them. A single entry stops nothing.
fn mark_stopped(lanes: &mut [Lane], scope: &Scope, stopped: bool) {
    if scope.seq.is_some() {
        return;
    }
    for lane in lanes {
        for place in 0..lane.routes.len() {
            if covers(scope, lane, place) {
                lane.routes[place].stopped = stopped;
            }
        }
    }
}

/// Writes a run down, in its place.
fn remember(parts: &Parts, run: &Run) -> LocalBoxFuture<'static, Chore> {
    let (store, name) = (parts.store.clone(), format!("{REMEMBERED}{:02}", run.slot));
    let json = serde_json::to_string(&run.view).expect("a view is plain data");
    async move {
        if let Err(error) = store.remember(&name, &json).await {
            tracing::warn!(%error, "a replay run is not written down");
        }
        Chore::Remembered
    }
    .boxed_local()
}

/// Ready when any upstream's condition changes.
async fn any_changed(lanes: &mut [Lane]) {
    if lanes.is_empty() {
        std::future::pending::<()>().await;
    }
    select_all(lanes.iter_mut().map(|lane| lane.changed().boxed_local())).await;
}

fn rotated(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + turn) % count)
}

/// Names under which the store remembers runs: as many as are shown, used in turn.
const REMEMBERED: &str = "run/";
/// Most deliveries at once, of all upstreams: each has its body in memory.
const MOST_IN_FLIGHT: u32 = 256;
/// Longest time between two passes: modes change without a call.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_millis(50);
/// How long an automatic run stays without work, so that a trickle of entries is one run.
const LINGER: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const ORPHANS_EVERY: Duration = Duration::from_secs(30);
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
const STORE_CHANGES_EVERY: Duration = Duration::from_millis(10);
const STORE_RESTS: Duration = Duration::from_secs(1);
