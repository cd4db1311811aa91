//! What the open index is asked.

use std::sync::Arc;

use super::{Known, LaneId, OpenIndex, Packed, Row, keys::Place};
use crate::{
    store::{Digest, HeldReason, KeyState, Seq, SequenceState, State},
    time::UnixMillis,
};

impl OpenIndex {
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.closed.is_empty()
    }

    pub(in crate::store) fn row(&self, seq: Seq) -> Option<Row> {
        self.rows.get(seq.0)
    }

    pub(in crate::store) fn known(&self, key: Digest, now: UnixMillis) -> Option<Known> {
        match self.keys.get(key, |place| self.key_at(place))? {
            Place::Open(seq) => self.rows.get(seq).map(Known::Open),
            Place::Closed(number) => {
                let closed = self.closed.get(number)?;
                (closed.closed_at.saturating_add(self.dedupe_window) > now.0)
                    .then_some(Known::Closed(closed))
            }
        }
    }

    fn key_at(&self, place: Place) -> Option<Packed> {
        match place {
            Place::Open(seq) => self.rows.key(seq),
            Place::Closed(number) => self.closed.get(number).map(|closed| closed.key),
        }
    }

    pub(in crate::store) fn key_state(
        &self,
        key: Digest,
        fingerprint: Digest,
        now: UnixMillis,
    ) -> KeyState {
        match self.known(key, now) {
            Some(Known::Open(row)) if row.seq <= self.visible => KeyState::Open {
                seq: Seq(row.seq),
                same: row.fingerprint == fingerprint.into(),
                state: row.state,
                held: row.held,
                certainty: row.certainty,
            },
            Some(Known::Closed(closed)) => KeyState::Remembered {
                seq: Seq(closed.seq),
                same: closed.fingerprint == fingerprint.into(),
                outcome: closed.outcome,
            },
            _ => KeyState::Unknown,
        }
    }

    pub(in crate::store) fn sequence_state(&self, sequence: Digest) -> SequenceState {
        let head = self.sequences.get(&sequence).and_then(|queue| queue.front());
        match head.and_then(|seq| self.rows.get(*seq)) {
            None => SequenceState::Free,
            Some(row) if row.state == State::Held => SequenceState::HeadHeld,
            Some(_) => SequenceState::Queued,
        }
    }

    pub(in crate::store) fn lane_names(&self, lane: LaneId) -> (&Arc<str>, &Arc<str>) {
        let lane = &self.lanes[lane.0 as usize];
        (&self.routes[lane.route].name, &lane.upstream)
    }

    /// The lowest number that is not yet closed.
    pub(in crate::store) fn oldest_open(&self) -> i64 {
        self.rows.first().map_or(self.next_seq, |row| row.seq)
    }

    /// How many are open.
    pub(in crate::store) fn open(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The number of the last durable entry.
    pub(in crate::store) fn last(&self) -> i64 {
        self.visible
    }

    /// How far back entries per customer are counted, in milliseconds.
    pub(in crate::store) fn customer_window(&self) -> i64 {
        self.customer_window
    }

    pub(in crate::store) fn set_customer_window(&mut self, window: i64) {
        self.customer_window = window;
    }

    /// Entries below `before` in `state`, newest first.
    pub(in crate::store) fn in_state(&self, state: State, before: i64, at_most: usize) -> Vec<Seq> {
        let is = |seq: &i64| self.rows.get(*seq).is_some_and(|row| row.state == state);
        match state {
            State::Held => self.held.down_from(before).take(at_most).map(Seq).collect(),
            State::Leased | State::Sending => self
                .in_flight
                .down_from(before)
                .filter(|seq| is(seq))
                .take(at_most)
                .map(Seq)
                .collect(),
            State::Stored => self
                .rows
                .down_from(before)
                .filter(|row| row.state == State::Stored)
                .take(at_most)
                .map(|row| Seq(row.seq))
                .collect(),
            State::Closed => Vec::new(),
        }
    }

    /// Held for `reason`, among the next `look_at` held ones after `after`; and after which to look on.
    pub(in crate::store) fn held_for(
        &self,
        reason: HeldReason,
        after: Seq,
        look_at: usize,
    ) -> (Vec<Seq>, Option<Seq>) {
        let mut held = self.held.above(after.0);
        let looked_at: Vec<i64> = held.by_ref().take(look_at).collect();
        let next = held.next().and(looked_at.last().map(|seq| Seq(*seq)));
        let is = |seq: &i64| self.rows.get(*seq).is_some_and(|row| row.held == Some(reason));
        (looked_at.into_iter().filter(is).map(Seq).collect(), next)
    }
}
