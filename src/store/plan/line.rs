//! A line of history: what an entry came to, through whom and why.

use crate::store::{HeldReason, KeptAnswer, Outcome, State, open_index::Row};

/// A line of history.
#[derive(Debug)]
pub(in crate::store) struct Line {
    pub(in crate::store) state: State,
    pub(in crate::store) outcome: Option<Outcome>,
    pub(in crate::store) held: Option<HeldReason>,
    pub(in crate::store) who: String,
    pub(in crate::store) why: String,
    pub(in crate::store) attempt: u32,
    pub(in crate::store) answer: Option<KeptAnswer>,
}

impl Line {
    pub(super) fn new(state: State, who: &str, why: impl Into<String>) -> Self {
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
    pub(super) fn of(row: &Row, who: &str, why: impl Into<String>) -> Self {
        Self { held: row.held, ..Self::new(row.state, who, why) }
    }

    pub(super) fn closed(outcome: Outcome, who: &str, why: impl Into<String>) -> Self {
        Self { outcome: Some(outcome), ..Self::new(State::Closed, who, why) }
    }

    pub(super) fn attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    pub(super) fn with(self, answer: Option<KeptAnswer>) -> Self {
        Self { answer, ..self }
    }
}
