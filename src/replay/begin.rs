//! Begins runs, and sends of runs, as far as modes, pauses and paces allow it now.

use std::{
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    lane::{Closed, Lane},
    replayer::{MOST_IN_FLIGHT, Sent, Work},
    runs::{Run, Wish},
    standing::remember,
    trigger::{BY_ITSELF, Outlook, plays_by_itself},
};
use crate::{config::Trigger, mode::Mode, store::Scope, time::UnixMillis};

/// A running run as one pass sees it.
pub(super) struct Active {
    pub id: String,
    pub scope: Scope,
    pub by_person: bool,
    pub stopped: Option<String>,
    pub go: Arc<AtomicBool>,
    pub in_flight: u64,
    /// Why nothing is sent, and when something may be.
    pub waits: Option<Closed>,
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
    pub(super) fn start_by_itself(&mut self, now: Instant) {
        let wall = UnixMillis::now();
        for lane in &self.lanes {
            let scope = Scope { upstream: Some(lane.upstream.name.clone()), ..Scope::default() };
            if self.parts.store.open_in(&scope) == 0 {
                continue;
            }
            let plays = |place: &usize| {
                self.plays_by_itself(lane, *place) && lane.gate_of(*place, now).is_ok()
            };
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
                let wish =
                    Wish { scope, receipt: None, who: BY_ITSELF, why: &why, by_person: false };
                let view = self.shared.book().start(wish, |_| false);
                tracing::info!(run = view.id, scope = view.scope, "a replay run started");
                self.dirty = true;
            }
        }
    }

    pub(super) fn plays_by_itself(&self, lane: &Lane, place: usize) -> bool {
        let route = &lane.routes[place];
        let mode = self.parts.modes.of(&route.route.name);
        plays_by_itself(route.route.config.replay.trigger, mode, route.stopped)
    }

    /// What a person stopped does not start by itself at once; what a person asked for may again.
    pub(super) fn notice_people(&mut self) {
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
    pub(super) fn active(&self) -> Vec<Active> {
        let book = self.shared.book();
        let mut active: Vec<Active> = book.running().map(Active::of).collect();
        active.sort_by_key(|run| !run.by_person);
        active
    }

    /// Begins as many sends of a run as the paces allow.
    pub(super) fn fill(&mut self, run: &mut Active, now: Instant) {
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
            .gate_of(place, now)?
            .min(self.load.room()?)
            .min(of_route.saturating_sub(lane.routes[place].in_flight))
            .min(MOST_IN_FLIGHT.saturating_sub(self.in_flight()));
        if room == 0 {
            return Ok(());
        }
        for seq in self.parts.store.due(&scope, wall, room as usize) {
            let Some(lease) = self.parts.store.lease(seq) else { continue };
            let lane = &mut self.lanes[index];
            let ticket = lane.begin(place, now);
            self.load.begin();
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
}

pub(super) fn covers(scope: &Scope, lane: &Lane, place: usize) -> bool {
    let route = &lane.routes[place].route;
    scope.upstream.as_ref().is_none_or(|name| *name == lane.upstream.name)
        && scope.route.as_ref().is_none_or(|name| *name == route.name)
}

/// The part of a scope that is this route at this upstream.
pub(super) fn narrowed(scope: &Scope, lane: &Lane, place: usize) -> Scope {
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

fn rotated(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + turn) % count)
}
