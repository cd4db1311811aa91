//! When entries fall due: per route and upstream, heads of their sequences only.

use std::{collections::BTreeSet, sync::Arc};

use super::{OpenIndex, Row, seqs::Seqs};
use crate::{
    store::{Scope, Seq, State},
    time::UnixMillis,
};

/// The stored entries of one route and one upstream that nothing but time holds back.
#[derive(Debug)]
pub(super) struct Lane {
    /// Position of the route's account.
    pub(super) route: usize,
    pub(super) upstream: Arc<str>,
    /// Open and not held.
    pub(super) unheld: u64,
    /// Due at some time already asked for.
    ripe: Seqs,
    waiting: BTreeSet<(i64, i64)>,
    ripe_until: i64,
}

impl Lane {
    pub(super) fn new(route: usize, upstream: Arc<str>, ripe_until: i64) -> Self {
        Self {
            route,
            upstream,
            unheld: 0,
            ripe: Seqs::default(),
            waiting: BTreeSet::new(),
            ripe_until,
        }
    }

    pub(super) fn schedule(&mut self, seq: i64, not_before: i64) {
        if not_before <= self.ripe_until {
            self.ripe.insert(seq);
        } else {
            self.waiting.insert((not_before, seq));
        }
    }

    pub(super) fn unschedule(&mut self, seq: i64, not_before: i64) {
        if not_before > self.ripe_until {
            self.waiting.remove(&(not_before, seq));
        } else {
            self.ripe.remove(seq);
        }
    }

    /// Moves on to `now`. Callers may be a little apart, so it only moves back when the clock was set back.
    fn ripen(&mut self, now: i64, not_before: impl Fn(i64) -> i64) {
        if now.saturating_add(CLOCK_SET_BACK) < self.ripe_until {
            for seq in self.ripe.take() {
                self.waiting.insert((not_before(seq), seq));
            }
            self.ripe_until = now;
        }
        self.ripe_until = self.ripe_until.max(now);
        while let Some(&(due, seq)) = self.waiting.first() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            self.ripe.insert(seq);
        }
    }
}

impl OpenIndex {
    pub(in crate::store) fn due(
        &mut self,
        scope: &Scope,
        now: UnixMillis,
        at_most: usize,
    ) -> Vec<Seq> {
        if let Some(seq) = scope.seq {
            let due = self.rows.get(seq.0).is_some_and(|row| {
                self.is_waiting(&row) && self.fits(&row, scope) && row.not_before <= now.0
            });
            return if due && at_most > 0 { vec![seq] } else { Vec::new() };
        }
        self.ripen(now);
        let visible = self.visible;
        let mut due: Vec<i64> = self
            .lanes
            .iter()
            .filter(|lane| self.lane_fits(lane, scope))
            .flat_map(|lane| {
                let ripe = lane.ripe.up_to(visible);
                ripe.filter(|seq| self.is_due(lane, *seq, now)).take(at_most)
            })
            .collect();
        due.sort_unstable();
        due.truncate(at_most);
        due.into_iter().map(Seq).collect()
    }

    /// The earliest time at which something of the scope is due; `now` if something is due already.
    pub(in crate::store) fn next_due(
        &mut self,
        scope: &Scope,
        now: UnixMillis,
    ) -> Option<UnixMillis> {
        if let Some(seq) = scope.seq {
            let row = self.rows.get(seq.0)?;
            let waits = self.is_waiting(&row) && self.fits(&row, scope);
            return waits.then(|| UnixMillis(row.not_before.max(now.0)));
        }
        self.ripen(now);
        self.lanes
            .iter()
            .filter(|lane| self.lane_fits(lane, scope))
            .filter_map(|lane| {
                let waiting = lane.waiting.first().map(|&(due, _)| due);
                let ripe = self.first_ripe(lane, now);
                waiting.into_iter().chain(ripe).min()
            })
            .map(|due| UnixMillis(due.max(now.0)))
            .min()
    }

    /// Stored entries past their expiry, heads of their sequences or not, among the next `look_at` from `from` on; and where
    /// to go on. One that waits for its `not_before` may still be closed by a late answer: it is not among them yet.
    pub(in crate::store) fn expired(
        &self,
        from: Seq,
        now: UnixMillis,
        look_at: usize,
    ) -> (Vec<Seq>, Option<Seq>) {
        let is_over = |row: &Row| {
            row.state == State::Stored
                && row.seq <= self.visible
                && row.expires_at.max(row.not_before) <= now.0
        };
        let mut rows = self.rows.up_from(from.0);
        let looked_at = rows.by_ref().take(look_at);
        let expired = looked_at.filter(|row| is_over(row)).map(|row| Seq(row.seq)).collect();
        (expired, rows.next().map(|row| Seq(row.seq)))
    }

    pub(in crate::store) fn open_in(&self, scope: &Scope) -> u64 {
        if let Some(seq) = scope.seq {
            let open = self.rows.get(seq.0);
            return u64::from(
                open.is_some_and(|row| row.state != State::Held && self.fits(&row, scope)),
            );
        }
        self.lanes.iter().filter(|lane| self.lane_fits(lane, scope)).map(|lane| lane.unheld).sum()
    }

    /// Moves on to `now`: what is added from here on and due already is ripe at once.
    pub(in crate::store) fn ripen(&mut self, now: UnixMillis) {
        let rows = &self.rows;
        for lane in &mut self.lanes {
            lane.ripen(now.0, |seq| rows.get(seq).map_or(i64::MIN, |row| row.not_before));
        }
    }

    /// When the first of the ripe ones falls due: long ago, unless somebody else's clock is a little ahead.
    fn first_ripe(&self, lane: &Lane, now: UnixMillis) -> Option<i64> {
        let mut ripe = lane.ripe.up_to(self.visible);
        if lane.ripe_until <= now.0 {
            return ripe.next().map(|_| now.0);
        }
        ripe.filter_map(|seq| self.rows.get(seq)).map(|row| row.not_before).min()
    }

    fn is_due(&self, lane: &Lane, seq: i64, now: UnixMillis) -> bool {
        lane.ripe_until <= now.0 || self.rows.get(seq).is_some_and(|row| row.not_before <= now.0)
    }

    fn is_waiting(&self, row: &Row) -> bool {
        row.state == State::Stored && row.seq <= self.visible && self.is_head(row)
    }

    fn fits(&self, row: &Row, scope: &Scope) -> bool {
        self.lane_fits(&self.lanes[row.lane.0 as usize], scope)
    }

    fn lane_fits(&self, lane: &Lane, scope: &Scope) -> bool {
        scope.route.as_ref().is_none_or(|route| self.routes[lane.route].name == *route)
            && scope.upstream.as_ref().is_none_or(|upstream| lane.upstream == *upstream)
    }
}

/// Milliseconds by which callers' clocks may differ.
const CLOCK_SET_BACK: i64 = 1000;
