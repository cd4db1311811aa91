//! What a batch comes to: each mark and capture is decided against the open index, in order, and becomes rows to write.
//!
//! The index already shows the batch's changes to the writer, so two captures of one key in one batch are `New` and
//! `Same`. If the batch cannot be written, `undo` takes all of it back and nobody is told a yes.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    AuditLine, Cap, Certainty, HeldReason, KeptAnswer, Outcome, Receipt, Sending, Seq, State,
    StoreError, Verdict,
    codec::Prepared,
    mailbox::Ticket,
    open_index::{Known, OpenIndex, Row, Undo},
    receipt::Receipts,
    transition::{Event, after},
    writer::{Capture, Mark, MarkJob, Marked, Reply},
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

/// A line of history.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) state: State,
    pub(super) outcome: Option<Outcome>,
    pub(super) held: Option<HeldReason>,
    pub(super) who: String,
    pub(super) why: String,
    pub(super) attempt: u32,
    pub(super) answer: Option<KeptAnswer>,
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

    // Captures.

    pub(super) fn capture(&mut self, index: &mut OpenIndex, capture: Capture) {
        let Capture { entry, reply } = capture;
        let decided = self.decide(index, entry);
        self.captures.push((reply, decided));
    }

    fn decide(&mut self, index: &mut OpenIndex, prepared: Box<Prepared>) -> Decided {
        let entry = &*prepared;
        match index.known(entry.key, self.now) {
            Some(Known::Open(row)) if row.fingerprint == entry.fingerprint.into() => {
                let state = if row.held == Some(HeldReason::Unanswered) && entry.held.is_none() {
                    self.promise(index, &row, &prepared)
                } else {
                    self.worsen(index, &row, entry.certainty, entry.not_before, entry.cause());
                    row.state
                };
                let seq = Seq(row.seq);
                return Decided::Same { seq, receipt: self.receipts.of(seq), state, outcome: None };
            }
            Some(Known::Closed(closed)) if closed.fingerprint == entry.fingerprint.into() => {
                return Decided::Same {
                    seq: Seq(closed.seq),
                    receipt: self.receipts.of(Seq(closed.seq)),
                    state: State::Closed,
                    outcome: Some(closed.outcome),
                };
            }
            Some(_) => return Decided::Conflict,
            None => {}
        }
        let lane = index.lane(&entry.route, &entry.upstream);
        let caps = &entry.caps;
        if let Some(cap) =
            index.cap_reached(lane, entry.amount, entry.customer, entry.received_at, caps)
        {
            return Decided::CapReached(cap);
        }
        let seq = index.next_seq();
        let row = Row {
            seq,
            key: entry.key.into(),
            fingerprint: entry.fingerprint.into(),
            in_sequence: entry.sequence.is_some(),
            lane,
            received_at: entry.received_at.0,
            not_before: entry.not_before.0,
            expires_at: entry.expires_at.0,
            amount: entry.amount,
            state: if entry.held.is_some() { State::Held } else { State::Stored },
            held: entry.held,
            certainty: entry.certainty,
            attempts: 0,
            interrupted: 0,
            fence: 0,
        };
        self.undo.push(index.insert(row, entry.sequence, entry.customer));
        self.entries.push((seq, prepared));
        self.last_new = Some(seq);
        Decided::New { seq: Seq(seq), receipt: self.receipts.of(Seq(seq)) }
    }

    /// Another attempt of an open key may have reached the app: its certainty is the worst over its key, and the late
    /// window of that attempt counts too. A claim on it was made on better knowledge, so it is void.
    fn worsen(
        &mut self,
        index: &mut OpenIndex,
        row: &Row,
        certainty: Certainty,
        not_before: UnixMillis,
        cause: &str,
    ) {
        let later = certainty == Certainty::SentUnknown && not_before.0 > row.not_before;
        if certainty <= row.certainty && !later {
            return;
        }
        let Some(state) = after(row.state, Event::Worsened) else { return };
        let fence = if row.state == State::Leased { index.new_fence() } else { row.fence };
        let line = Line::new(state, "request", format!("another attempt: {cause}"));
        self.change(index, row.seq, line, |row| {
            row.state = state;
            row.fence = fence;
            row.certainty = row.certainty.max(certainty);
            row.not_before = row.not_before.max(not_before.0);
        });
    }

    /// Nobody heard the answer of the first time; now somebody will, so it is a promise like any other.
    fn promise(&mut self, index: &mut OpenIndex, row: &Row, again: &Prepared) -> State {
        let Some(state) = after(row.state, Event::Release) else { return row.state };
        let line = Line::new(state, "request", "its client asked again and gets the answer now");
        self.change(index, row.seq, line, |row| {
            row.state = state;
            row.held = None;
            row.certainty = row.certainty.max(again.certainty);
            row.not_before = row.not_before.max(again.not_before.0);
            row.expires_at = row.expires_at.max(again.expires_at.0);
        });
        state
    }

    // Marks.

    pub(super) fn mark(&mut self, index: &mut OpenIndex, job: MarkJob) {
        let MarkJob { mark, reply } = job;
        let marked = self.apply(index, mark);
        self.marks.push((reply, marked));
        self.marks_end = (self.undo.len(), self.writes.len());
    }

    fn apply(&mut self, index: &mut OpenIndex, mark: Mark) -> Result<Marked, StoreError> {
        match mark {
            Mark::Sending { seq, fence } => return self.send(index, seq, fence),
            Mark::HoldLeased { seq, fence, reason, why } => {
                self.hold_leased(index, seq, fence, reason, why)
            }
            Mark::Finish { seq, fence, attempt, verdict } => {
                self.finish(index, seq, fence, attempt, verdict)
            }
            Mark::CloseLate { seq, outcome, why, answer } => {
                self.close_late(index, seq, outcome, why, answer)
            }
            Mark::CloseLive { key, outcome, why, answer } => {
                let seq = match index.known(key, self.now) {
                    Some(Known::Open(row)) => Seq(row.seq),
                    Some(Known::Closed(_)) => return Err(StoreError::Moved(State::Closed)),
                    None => return Err(StoreError::NotFound),
                };
                self.close_live(index, seq, outcome, why, answer)
            }
            Mark::Worsen { key, not_before, cause } => {
                let row = match index.known(key, self.now) {
                    Some(Known::Open(row)) => Some(row),
                    _ => None,
                };
                if let Some(row) = row {
                    self.worsen(index, &row, Certainty::SentUnknown, not_before, &cause);
                }
                Ok(())
            }
            Mark::HoldUnanswered { seq } => self.hold(
                index,
                seq,
                Event::Unanswered,
                HeldReason::Unanswered,
                Line::new(State::Held, "request", "the client never got the answer"),
            ),
            Mark::Note { seq, who, why, answer } => {
                let line = match self.row(index, seq) {
                    Ok(row) => Line::of(&row, &who, why),
                    Err(StoreError::Moved(state)) => Line::new(state, &who, why),
                    Err(error) => return Err(error),
                };
                self.writes.push(Write::Line { seq: seq.0, line: line.with(answer) });
                Ok(())
            }
            Mark::Hold { seq, who, why } => {
                let line = Line::new(State::Held, &who, why.clone());
                self.hold(index, seq, Event::Hold, HeldReason::ByPerson, line)?;
                self.audit(seq, "hold", who, why);
                Ok(())
            }
            Mark::Release { seq, extend, who, why } => {
                self.release(index, seq, extend, &who, &why)?;
                self.audit(seq, "release", who, why);
                Ok(())
            }
            Mark::WriteOff { seq, who, why } => {
                let row = self.row(index, seq)?;
                after(row.state, Event::WriteOff).ok_or(StoreError::Moved(row.state))?;
                let line = Line::closed(Outcome::WrittenOff, &who, why.clone());
                self.close(index, seq, line);
                self.audit(seq, "write_off", who, why);
                Ok(())
            }
            Mark::FollowUp { seq, who, why } => {
                self.writes.push(Write::FollowedUp { seq: seq.0 });
                let line = Line::closed(Outcome::Declined, &who, format!("followed up: {why}"));
                self.writes.push(Write::Line { seq: seq.0, line });
                self.audit(seq, "follow_up", who, why);
                Ok(())
            }
            Mark::Audit(line) => {
                self.writes.push(Write::Audit(line));
                Ok(())
            }
            Mark::Remember { name, value } => {
                self.writes.push(Write::Value { name, value });
                Ok(())
            }
            Mark::Decree { name, value, line } => {
                self.writes.push(Write::Value { name, value });
                self.writes.push(Write::Audit(line));
                Ok(())
            }
        }
        .map(|()| Marked::Done)
    }

    fn send(&mut self, index: &mut OpenIndex, seq: Seq, fence: u64) -> Result<Marked, StoreError> {
        let row = claimed(index, seq, fence)?;
        let state = after(row.state, Event::Send).ok_or(StoreError::Moved(row.state))?;
        let attempt = row.attempts.saturating_add(1);
        let line = Line::new(state, "replay", "about to send").attempt(attempt);
        self.change(index, seq.0, line, |row| {
            row.state = state;
            row.attempts = attempt;
        });
        Ok(Marked::Sending(Sending { seq, attempt, fence }))
    }

    fn hold_leased(
        &mut self,
        index: &mut OpenIndex,
        seq: Seq,
        fence: u64,
        reason: HeldReason,
        why: String,
    ) -> Result<(), StoreError> {
        claimed(index, seq, fence)?;
        self.hold(index, seq, Event::HoldLeased, reason, Line::new(State::Held, "replay", why))
    }

    fn finish(
        &mut self,
        index: &mut OpenIndex,
        seq: Seq,
        fence: u64,
        attempt: u32,
        verdict: Verdict,
    ) -> Result<(), StoreError> {
        let row = match index.row(seq) {
            Some(row) if row.fence == fence && row.state == State::Sending => row,
            // Written by an earlier call whose caller was not told.
            Some(row) if row.fence == fence => return Ok(()),
            other => {
                let state = other.map_or(State::Closed, |row| row.state);
                let line = match other {
                    Some(row) => Line::of(&row, "replay", verdict.lapsed()),
                    None => Line::new(State::Closed, "replay", verdict.lapsed()),
                };
                let line = line.attempt(attempt).with(verdict.answer());
                self.writes.push(Write::Line { seq: seq.0, line });
                return Err(StoreError::Moved(state));
            }
        };
        match verdict {
            Verdict::Close { outcome, why, answer } => {
                after(row.state, Event::FinishClosed).ok_or(StoreError::Moved(row.state))?;
                let line = Line::closed(outcome, "replay", why).attempt(attempt).with(answer);
                self.close(index, seq, line);
            }
            Verdict::Again { not_before, certainty, counts, why, answer } => {
                let state =
                    after(row.state, Event::FinishAgain).ok_or(StoreError::Moved(row.state))?;
                let line = Line::new(state, "replay", why).attempt(attempt).with(answer);
                self.change(index, seq.0, line, |row| {
                    row.state = state;
                    row.not_before = row.not_before.max(not_before.0);
                    row.certainty = row.certainty.max(certainty);
                    row.interrupted = 0;
                    row.attempts -= u32::from(!counts).min(row.attempts);
                });
            }
            Verdict::Hold { reason, certainty, why, answer } => {
                let line = Line::new(State::Held, "replay", why).attempt(attempt).with(answer);
                let state =
                    after(row.state, Event::FinishHeld).ok_or(StoreError::Moved(row.state))?;
                let still_under_way = self.now.plus(self.late_window).0;
                self.change(index, seq.0, Line { held: Some(reason), ..line }, |row| {
                    row.state = state;
                    row.held = Some(reason);
                    row.certainty = row.certainty.max(certainty);
                    row.interrupted = 0;
                    if certainty == Certainty::SentUnknown {
                        // Its exchange may still be under way at the app, however quick the person is.
                        row.not_before = row.not_before.max(still_under_way);
                    }
                });
            }
        }
        Ok(())
    }

    fn close_late(
        &mut self,
        index: &mut OpenIndex,
        seq: Seq,
        outcome: Outcome,
        why: String,
        answer: KeptAnswer,
    ) -> Result<(), StoreError> {
        let line = Line::closed(outcome, "late_answer", why).with(Some(answer));
        let Some(row) = index.row(seq) else {
            self.writes.push(Write::Line { seq: seq.0, line });
            return Err(StoreError::Moved(State::Closed));
        };
        match after(row.state, Event::LateAnswer) {
            Some(_) => {
                self.close(index, seq, line);
                Ok(())
            }
            None => Err(self.only_history(row, line)),
        }
    }

    fn close_live(
        &mut self,
        index: &mut OpenIndex,
        seq: Seq,
        outcome: Outcome,
        why: String,
        answer: KeptAnswer,
    ) -> Result<(), StoreError> {
        let row = self.row(index, seq)?;
        let line = Line::closed(outcome, "live_answer", why).with(Some(answer));
        match after(row.state, Event::LiveAnswer) {
            Some(_) => {
                self.close(index, seq, line);
                Ok(())
            }
            None => Err(self.only_history(row, line)),
        }
    }

    /// The state stays as it is; what came is still worth knowing.
    fn only_history(&mut self, row: Row, line: Line) -> StoreError {
        let line = Line { state: row.state, outcome: None, held: row.held, ..line };
        self.writes.push(Write::Line { seq: row.seq, line });
        StoreError::Moved(row.state)
    }

    fn hold(
        &mut self,
        index: &mut OpenIndex,
        seq: Seq,
        event: Event,
        reason: HeldReason,
        line: Line,
    ) -> Result<(), StoreError> {
        let row = self.row(index, seq)?;
        let state = after(row.state, event).ok_or(StoreError::Moved(row.state))?;
        // A claim that somebody else holds is void from here on.
        let voided = row.state == State::Leased && event != Event::HoldLeased;
        let fence = if voided { index.new_fence() } else { row.fence };
        self.change(index, seq.0, Line { held: Some(reason), ..line }, |row| {
            row.state = state;
            row.held = Some(reason);
            row.fence = fence;
            row.interrupted = 0;
        });
        Ok(())
    }

    fn release(
        &mut self,
        index: &mut OpenIndex,
        seq: Seq,
        extend: std::time::Duration,
        who: &str,
        why: &str,
    ) -> Result<(), StoreError> {
        let row = self.row(index, seq)?;
        let state = after(row.state, Event::Release).ok_or(StoreError::Moved(row.state))?;
        let now = self.now;
        self.change(index, seq.0, Line::new(state, who, why), |row| {
            row.state = state;
            // Else it would be held again at once, and nobody could ever send it.
            if row.held == Some(HeldReason::Unclear) {
                row.certainty = Certainty::NotSent;
            }
            row.held = None;
            row.attempts = 0;
            row.interrupted = 0;
            row.not_before = row.not_before.max(now.0);
            if row.expires_at <= now.0 {
                row.expires_at = now.plus(extend).0;
            }
        });
        Ok(())
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

/// The row, if this claim on it still holds.
fn claimed(index: &OpenIndex, seq: Seq, fence: u64) -> Result<Row, StoreError> {
    match index.row(seq) {
        Some(row) if row.fence == fence && row.state == State::Leased => Ok(row),
        Some(row) => Err(StoreError::Moved(row.state)),
        None => Err(StoreError::Moved(State::Closed)),
    }
}

impl Line {
    fn new(state: State, who: &str, why: impl Into<String>) -> Self {
        Self {
            state,
            outcome: None,
            held: None,
            who: who.to_owned(),
            why: why.into(),
            attempt: 0,
            answer: None,
        }
    }

    /// A line that leaves the entry as it is.
    fn of(row: &Row, who: &str, why: impl Into<String>) -> Self {
        Self { held: row.held, ..Self::new(row.state, who, why) }
    }

    fn closed(outcome: Outcome, who: &str, why: impl Into<String>) -> Self {
        Self { outcome: Some(outcome), ..Self::new(State::Closed, who, why) }
    }

    fn attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    fn with(self, answer: Option<KeptAnswer>) -> Self {
        Self { answer, ..self }
    }
}

impl Verdict {
    fn answer(self) -> Option<KeptAnswer> {
        match self {
            Self::Close { answer, .. } | Self::Again { answer, .. } | Self::Hold { answer, .. } => {
                answer
            }
        }
    }

    /// What a result says that came too late to count.
    fn lapsed(&self) -> String {
        let (what, why) = match self {
            Self::Close { outcome, why, .. } => (outcome.word(), why),
            Self::Again { certainty, why, .. } => (certainty.word(), why),
            Self::Hold { reason, why, .. } => (reason.word(), why),
        };
        format!("a lapsed claim ended ({what}): {why}")
    }
}

const MARK_BYTES: u64 = 300;
/// Milliseconds of a UTC day.
pub(super) const DAY: i64 = 86_400_000;
