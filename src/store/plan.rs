//! What a batch comes to: each mark and capture is decided against the open index, in order, and becomes rows to write.
//!
//! The index already shows the batch's changes to the writer, so two captures of one key in one batch are `New` and
//! `Same`. If the batch cannot be written, `undo` takes all of it back and nobody is told a yes.

mod captures;
mod line;
mod marks;

use std::{collections::BTreeMap, sync::Arc};

pub(super) use self::line::Line;
use super::{
    AuditLine, Cap, Outcome, Receipt, Seq, State, StoreError,
    codec::Prepared,
    mailbox::Ticket,
    open_index::{OpenIndex, Row, Undo},
    receipt::Receipts,
    writer::{Marked, Reply},
};
use crate::time::UnixMillis;

/// One batch, decided.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) now: UnixMillis,
    /// How long the app may still work on what it did not answer.
    late_window: std::time::Duration,
    /// New entries, with their numbers.
    pub(super) entries: Vec<(i64, Box<Prepared>)>,
    pub(super) writes: Vec<Write>,
    pub(super) marks: Vec<(Reply<Marked>, Result<Marked, StoreError>)>,
    pub(super) captures: Vec<(Ticket, Decided)>,
    pub(super) volumes: BTreeMap<(i64, Arc<str>, Outcome), u64>,
    pub(super) last_new: Option<i64>,
    undo: Vec<Undo>,
    /// Changes and rows of marks; those of captures follow.
    marks_end: (usize, usize),
    receipts: Receipts,
}

/// What to write besides new entries.
#[derive(Debug)]
pub(super) enum Write {
    Move {
        row: Row,
        closed: Option<(Outcome, UnixMillis)>,
        line: Line,
    },
    Line {
        seq: i64,
        line: Line,
    },
    /// A person has done what there was to do about a declined entry.
    FollowedUp {
        seq: i64,
    },
    Audit(AuditLine),
    Value {
        name: String,
        value: String,
    },
    /// Entries per customer are counted this far back now, in milliseconds.
    CustomerWindow(i64),
}

/// What a capture came to.
#[derive(Debug)]
pub(super) enum Decided {
    New {
        seq: Seq,
        receipt: Receipt,
    },
    /// Its kept answer is read within the batch's transaction.
    Same {
        seq: Seq,
        receipt: Receipt,
        state: State,
        outcome: Option<Outcome>,
    },
    Conflict,
    CapReached(Cap),
}

impl Plan {
    pub(super) fn new(
        now: UnixMillis,
        receipts: Receipts,
        late_window: std::time::Duration,
        captures: usize,
    ) -> Self {
        Self {
            now,
            late_window,
            entries: Vec::with_capacity(captures),
            writes: Vec::new(),
            marks: Vec::new(),
            captures: Vec::with_capacity(captures),
            volumes: BTreeMap::new(),
            last_new: None,
            undo: Vec::with_capacity(captures),
            marks_end: (0, 0),
            receipts,
        }
    }

    /// Takes all of it back, the last change first.
    pub(super) fn undo(&mut self, index: &mut OpenIndex) {
        while let Some(undo) = self.undo.pop() {
            index.undo(undo);
        }
    }

    /// About what it adds to the file.
    pub(super) fn bytes(&self) -> u64 {
        let entries: usize = self.entries.iter().map(|(_, entry)| entry.bytes).sum();
        entries as u64 + self.writes.len() as u64 * MARK_BYTES
    }

    /// Takes captures back and leaves the marks: they come first, and do not depend on captures.
    pub(super) fn drop_captures(&mut self, index: &mut OpenIndex) -> Vec<(Ticket, Decided)> {
        let (changes, writes) = self.marks_end;
        while self.undo.len() > changes {
            if let Some(undo) = self.undo.pop() {
                index.undo(undo);
            }
        }
        self.entries.clear();
        self.writes.truncate(writes);
        self.last_new = None;
        std::mem::take(&mut self.captures)
    }

    fn change(
        &mut self,
        index: &mut OpenIndex,
        seq: i64,
        line: Line,
        change: impl FnOnce(&mut Row),
    ) {
        if let Some(undo) = index.change(seq, change) {
            self.undo.push(undo);
        }
        if let Some(row) = index.row(Seq(seq)) {
            self.writes.push(Write::Move { row, closed: None, line });
        }
    }

    fn close(&mut self, index: &mut OpenIndex, seq: Seq, line: Line) {
        let outcome = line.outcome.unwrap_or(Outcome::Completed);
        if let Some(row) = index.row(seq) {
            let row = Row { state: State::Closed, held: None, ..row };
            let route = Arc::clone(index.lane_names(row.lane).0);
            *self.volumes.entry((self.now.0.div_euclid(DAY), route, outcome)).or_default() += 1;
            let at = index.closing_time(self.now);
            self.writes.push(Write::Move { row, closed: Some((outcome, at)), line });
        }
        self.undo.extend(index.close(seq.0, outcome, index.closing_time(self.now)));
    }

    fn audit(&mut self, seq: Seq, what: &str, who: String, why: String) {
        let on = self.receipts.of(seq).to_string();
        self.writes.push(Write::Audit(AuditLine { at: self.now, who, what: what.into(), on, why }));
    }

    fn row(&self, index: &OpenIndex, seq: Seq) -> Result<Row, StoreError> {
        match index.row(seq) {
            Some(row) => Ok(row),
            None if seq.0 > 0 && seq.0 < index.next_seq() => Err(StoreError::Moved(State::Closed)),
            None => Err(StoreError::NotFound),
        }
    }
}

const MARK_BYTES: u64 = 300;
/// Milliseconds of a UTC day.
pub(super) const DAY: i64 = 86_400_000;
