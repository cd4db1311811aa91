//! What replayers do: they claim entries and give them back.

use super::{OpenIndex, Row};
use crate::store::{
    Seq,
    transition::{Event, after},
};

impl OpenIndex {
    pub(in crate::store) fn lease(&mut self, seq: Seq) -> Option<u64> {
        let row = self.rows.get(seq.0)?;
        let leased = after(row.state, Event::Lease)?;
        if row.seq > self.visible || !self.is_head(&row) {
            return None;
        }
        let fence = self.new_fence();
        self.change(seq.0, |row| {
            row.state = leased;
            row.fence = fence;
        });
        Some(fence)
    }

    pub(in crate::store) fn give_back(&mut self, seq: Seq, fence: u64) -> bool {
        let Some(row) = self.rows.get(seq.0).filter(|row| row.fence == fence) else {
            return false;
        };
        let Some(stored) = after(row.state, Event::GiveBack) else { return false };
        self.change(seq.0, |row| row.state = stored).is_some()
    }

    pub(super) fn is_head(&self, row: &Row) -> bool {
        let sequence = if row.in_sequence { self.sequence_of.get(&row.seq) } else { None };
        sequence.is_none_or(|sequence| {
            self.sequences.get(sequence).and_then(|queue| queue.front()) == Some(&row.seq)
        })
    }
}
