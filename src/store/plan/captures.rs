//! Captures of a batch: new, known, or one too many.

use super::{Decided, Line, Plan};
use crate::{
    store::{
        Certainty, HeldReason, Seq, State,
        codec::Prepared,
        open_index::{Known, OpenIndex, Row},
        transition::{Event, after},
        writer::Capture,
    },
    time::UnixMillis,
};

impl Plan {
    pub(in crate::store) fn capture(&mut self, index: &mut OpenIndex, capture: Capture) {
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
        let lane = index.lane(&entry.home.route, &entry.home.upstream);
        let caps = &entry.home.caps;
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
    pub(super) fn worsen(
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
}
