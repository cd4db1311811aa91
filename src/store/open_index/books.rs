//! An entry in all books that know of it, or in none: keys, lanes, caps, sequences.

use super::{OpenIndex, Row, keys::Place};
use crate::store::State;

impl OpenIndex {
    pub(super) fn link(&mut self, row: Row) {
        self.keys.insert(row.key.into(), Place::Open(row.seq));
        let lane = &mut self.lanes[row.lane.0 as usize];
        if row.state != State::Held {
            lane.unheld += 1;
        }
        self.routes[lane.route].add(&row);
        if row.in_sequence {
            self.enter_sequence(row.seq);
        }
        self.expiry.note(row.expires_at);
        self.schedule(&row);
        self.rows.insert(row);
    }

    pub(super) fn unlink(&mut self, seq: i64) -> Option<Row> {
        let row = self.rows.remove(seq)?;
        self.keys.remove(row.key.into(), Place::Open(seq));
        let lane = &mut self.lanes[row.lane.0 as usize];
        if row.state != State::Held {
            lane.unheld -= 1;
        }
        self.routes[lane.route].remove(&row);
        self.unschedule(&row);
        if row.in_sequence {
            self.leave_sequence(seq);
        }
        Some(row)
    }

    fn enter_sequence(&mut self, seq: i64) {
        let Some(sequence) = self.sequence_of.get(&seq) else { return };
        let queue = self.sequences.entry(*sequence).or_default();
        let at = queue.partition_point(|&other| other < seq);
        queue.insert(at, seq);
        let second = if at == 0 { queue.get(1).copied() } else { None };
        if let Some(second) = second.and_then(|seq| self.rows.get(seq)) {
            self.unschedule(&second);
        }
    }

    fn leave_sequence(&mut self, seq: i64) {
        let Some(&sequence) = self.sequence_of.get(&seq) else { return };
        let Some(queue) = self.sequences.get_mut(&sequence) else { return };
        let at = queue.partition_point(|&other| other < seq);
        if queue.get(at) == Some(&seq) {
            queue.remove(at);
        }
        let next = if at == 0 { queue.front().copied() } else { None };
        if queue.is_empty() {
            self.sequences.remove(&sequence);
        }
        if let Some(next) = next.and_then(|seq| self.rows.get(seq)) {
            self.schedule(&next);
        }
    }

    /// Puts an entry where its state is looked for.
    fn schedule(&mut self, row: &Row) {
        match row.state {
            State::Held => self.held.insert(row.seq),
            State::Leased | State::Sending => self.in_flight.insert(row.seq),
            State::Stored if self.is_head(row) => {
                self.lanes[row.lane.0 as usize].schedule(row.seq, row.not_before);
            }
            State::Stored | State::Closed => {}
        }
    }

    fn unschedule(&mut self, row: &Row) {
        match row.state {
            State::Held => self.held.remove(row.seq),
            State::Leased | State::Sending => self.in_flight.remove(row.seq),
            State::Stored => self.lanes[row.lane.0 as usize].unschedule(row.seq, row.not_before),
            State::Closed => {}
        }
    }
}
