//! Marks of a batch: what replay, late and live answers and people did to entries. Each is a transition that the table
//! of states allows, or an error that says where the entry is.

use std::time::Duration;

use super::{Line, Plan, Write};
use crate::store::{
    Certainty, HeldReason, KeptAnswer, Outcome, Sending, Seq, State, StoreError, Verdict,
    open_index::{Known, OpenIndex, Row},
    transition::{Event, after},
    writer::{Mark, MarkJob, Marked},
};

impl Plan {
    pub(in crate::store) fn mark(&mut self, index: &mut OpenIndex, job: MarkJob) {
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
        self.close_if(index, row, Event::LateAnswer, line)
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
        self.close_if(index, row, Event::LiveAnswer, line)
    }

    /// Closes it where the table of states lets this answer do so.
    fn close_if(
        &mut self,
        index: &mut OpenIndex,
        row: Row,
        event: Event,
        line: Line,
    ) -> Result<(), StoreError> {
        if after(row.state, event).is_none() {
            return Err(self.only_history(row, line));
        }
        self.close(index, Seq(row.seq), line);
        Ok(())
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
        extend: Duration,
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
}

/// The row, if this claim on it still holds.
fn claimed(index: &OpenIndex, seq: Seq, fence: u64) -> Result<Row, StoreError> {
    match index.row(seq) {
        Some(row) if row.fence == fence && row.state == State::Leased => Ok(row),
        Some(row) => Err(StoreError::Moved(row.state)),
        None => Err(StoreError::Moved(State::Closed)),
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
