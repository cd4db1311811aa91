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

    /// When the first of the ripe ones falls due: long ago, unless somebody else's clock is a little ahead. There may be
    /// millions: one that is due ends the search.
    fn first_ripe(&self, lane: &Lane, now: UnixMillis) -> Option<i64> {
        let ripe = lane.ripe.up_to(self.visible).filter_map(|seq| self.rows.get(seq));
        let mut first = None;
        for due in ripe.map(|row| row.not_before) {
            if due <= now.0 {
                return Some(now.0);
            }
            first = Some(first.map_or(due, |first: i64| first.min(due)));
        }
        first
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

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Certainty, Digest};

    /// An index whose entries fall due at these times, all of them visible.
    pub(in crate::store::open_index) fn due_at(times: &[i64]) -> OpenIndex {
        let mut index = OpenIndex::new(Duration::from_secs(60), 1, UnixMillis(0));
        let lane = index.lane(&"orders".into(), &"shop".into());
        for (seq, &not_before) in (1_i64..).zip(times) {
            let key = Digest(u128::from(seq.cast_unsigned())).into();
            index.insert(
                Row {
                    seq,
                    key,
                    fingerprint: key,
                    in_sequence: false,
                    lane,
                    received_at: 0,
                    not_before,
                    expires_at: i64::MAX,
                    amount: 0,
                    state: State::Stored,
                    held: None,
                    certainty: Certainty::NotSent,
                    attempts: 0,
                    interrupted: 0,
                    fence: 0,
                },
                None,
                None,
            );
        }
        index.show_up_to(i64::MAX);
        index
    }

    fn next(index: &mut OpenIndex, now: i64) -> Option<i64> {
        index.next_due(&Scope::default(), UnixMillis(now)).map(|due| due.0)
    }

    #[test]
    fn the_next_is_due_when_its_time_comes() {
        let mut index = due_at(&[700, 300, 2_000]);
        assert_eq!(next(&mut index, 200), Some(300));
        assert_eq!(next(&mut index, 800), Some(800));
        assert_eq!(index.due(&Scope::default(), UnixMillis(800), 9), [Seq(1), Seq(2)]);
        assert_eq!(next(&mut due_at(&[]), 800), None);
    }

    /// Somebody else has asked with a clock that is ahead: what ripened for it is not due yet.
    #[test]
    fn a_clock_that_is_a_little_behind_is_told_its_own_time() {
        let mut index = due_at(&[900, 700]);
        assert_eq!(next(&mut index, 1_000), Some(1_000));
        assert_eq!(next(&mut index, 600), Some(700));
        assert_eq!(index.due(&Scope::default(), UnixMillis(600), 9), []);
        assert_eq!(next(&mut index, 800), Some(800));
        assert_eq!(index.due(&Scope::default(), UnixMillis(800), 9), [Seq(2)]);
    }
}
