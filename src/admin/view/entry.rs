//! An entry as it is shown: without credentials, its hostile characters written out, bounded.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AnswerView, At, Field, RequestView};
use crate::{
    admin::text,
    store::{
        Certainty, Entry, EntrySummary, HeldReason, HistoryLine, Outcome, Page, Reason, State,
    },
};

/// One page of entries, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryList {
    pub entries: Vec<EntryView>,
    /// Give this as `before` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// What became of the entries that were held for one reason.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Released {
    pub released: u64,
    /// Not held for this reason any more when their turn came: somebody else has decided.
    pub moved: u64,
    /// Held for this reason now, of all routes.
    pub left: u64,
}

/// An entry without its bytes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryView {
    pub seq: i64,
    /// What a person says on the phone.
    pub receipt: String,
    pub request_id: String,
    pub received_at: At,
    pub route: String,
    pub method: String,
    /// Request target; query parameters that look like credentials are not shown.
    pub target: String,
    /// Why standin answered: `connect_failed`, `timed_out` …
    #[schema(value_type = String)]
    pub reason: Reason,
    /// `not_sent` or `sent_unknown`: the worst over all attempts.
    #[schema(value_type = String)]
    pub certainty: Certainty,
    /// `stored`, `leased`, `sending`, `held` or `closed`.
    #[schema(value_type = String)]
    pub state: State,
    /// Of a closed entry: `completed`, `already_applied`, `declined` or `written_off`.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Of a held entry: `attempts`, `expired`, `credentials` …
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldReason>,
    /// Replays that may have reached the app.
    pub attempts: u32,
    pub amount: i64,
    pub labels: Vec<Field>,
    pub expires_at: At,
    /// Of a declined entry: when a person followed it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_up: Option<At>,
}

/// An entry with all that may be shown of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryDetail {
    #[serde(flatten)]
    pub entry: EntryView,
    pub upstream: String,
    /// The key as the app gets it in `Idempotency-Key`.
    pub key: String,
    /// Digest of whose request it is; the principal itself may be a credential.
    pub principal: String,
    /// What the first attempt said.
    pub cause: String,
    /// Not sent again before this.
    pub not_before: At,
    /// Whether it is replayed in order with others.
    pub in_sequence: bool,
    /// False: its checksum does not fit; it is never sent.
    pub intact: bool,
    pub request: RequestView,
    /// What its client got.
    pub answer: AnswerView,
    pub history: Vec<HistoryView>,
}

/// One line of an entry's history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    pub at: At,
    #[schema(value_type = String)]
    pub state: State,
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldReason>,
    /// `request`, `replay`, `late_answer`, `live_answer`, `start`, or a person's name.
    pub who: String,
    pub why: String,
    /// Number of the attempt; absent when it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What the app answered in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_answer: Option<AnswerView>,
}

impl EntryList {
    pub(crate) fn of(page: &Page) -> Self {
        Self {
            entries: page.entries.iter().map(EntryView::of).collect(),
            next: page.more.map(|seq| seq.0),
        }
    }
}

impl EntryView {
    pub(crate) fn of(entry: &EntrySummary) -> Self {
        Self {
            seq: entry.seq.0,
            receipt: entry.receipt.to_string(),
            request_id: text::line(&entry.request_id),
            received_at: At(entry.received_at),
            route: entry.route.to_string(),
            method: text::line(&entry.method),
            target: text::target(&entry.target),
            reason: entry.reason,
            certainty: entry.certainty,
            state: entry.state,
            outcome: entry.outcome,
            held: entry.held,
            attempts: entry.attempts,
            amount: entry.amount,
            labels: labels(&entry.labels),
            expires_at: At(entry.expires_at),
            followed_up: entry.followed_up.map(At),
        }
    }

    /// The state with its outcome or reason: `held: expired`.
    pub fn state_words(&self) -> String {
        let words = state_words(self.state, self.outcome, self.held);
        if self.followed_up.is_some() { format!("{words}, followed up") } else { words }
    }

    /// The class of its state on the page.
    pub fn badge(&self) -> &'static str {
        if self.followed_up.is_some() { "ended" } else { badge(self.state, self.outcome) }
    }
}

impl EntryDetail {
    pub(crate) fn of(entry: &Entry, history: &[HistoryLine]) -> Self {
        let summary = EntryView {
            seq: entry.seq.0,
            receipt: entry.receipt.to_string(),
            request_id: text::line(&entry.request_id),
            received_at: At(entry.received_at),
            route: entry.route.to_string(),
            method: text::line(&entry.request.method),
            target: text::target(&entry.request.target),
            reason: entry.reason,
            certainty: entry.certainty,
            state: entry.state,
            outcome: entry.outcome,
            held: entry.held,
            attempts: entry.attempts,
            amount: entry.amount,
            labels: labels(&entry.labels),
            expires_at: At(entry.expires_at),
            followed_up: entry.followed_up.map(At),
        };
        Self {
            entry: summary,
            upstream: entry.upstream.to_string(),
            key: text::line(&entry.identity.key_text),
            principal: digest(&entry.identity.principal),
            cause: text::line(&entry.cause),
            not_before: At(entry.not_before),
            in_sequence: entry.sequence.is_some(),
            intact: entry.intact,
            request: RequestView::of(&entry.request),
            answer: AnswerView::of(&entry.answer),
            history: history.iter().map(HistoryView::of).collect(),
        }
    }
}

impl HistoryView {
    pub(crate) fn of(line: &HistoryLine) -> Self {
        Self {
            at: At(line.at),
            state: line.state,
            outcome: line.outcome,
            held: line.held,
            who: text::line(&line.who),
            why: text::line(&line.why),
            attempt: (line.attempt > 0).then_some(line.attempt),
            upstream_answer: line.upstream_answer.as_ref().map(AnswerView::of),
        }
    }

    pub fn state_words(&self) -> String {
        state_words(self.state, self.outcome, self.held)
    }

    /// The class of its state on the page.
    pub fn badge(&self) -> &'static str {
        badge(self.state, self.outcome)
    }
}

fn badge(state: State, outcome: Option<Outcome>) -> &'static str {
    match (state, outcome) {
        (State::Stored | State::Leased | State::Sending, _) => "note",
        (State::Held, _) => "warn",
        (State::Closed, Some(Outcome::Completed | Outcome::AlreadyApplied)) => "good",
        (State::Closed, Some(Outcome::Declined)) => "alarm",
        (State::Closed, Some(Outcome::WrittenOff) | None) => "ended",
    }
}

/// `stored`, `completed`, `held: expired`.
fn state_words(state: State, outcome: Option<Outcome>, held: Option<HeldReason>) -> String {
    let more = match (state, outcome, held) {
        (State::Closed, Some(outcome), _) => return super::word(&outcome).replace('_', " "),
        (State::Held, _, Some(held)) => super::word(&held).replace('_', " "),
        _ => return super::word(&state),
    };
    format!("held: {more}")
}

fn labels(labels: &[(String, String)]) -> Vec<Field> {
    labels
        .iter()
        .map(|(name, value)| Field { name: text::line(name), value: text::line(value) })
        .collect()
}

/// Enough of a digest to see whether two entries are of the same principal.
fn digest(principal: &str) -> String {
    use sha2::{Digest as _, Sha256};
    if principal.is_empty() {
        return String::new();
    }
    Sha256::digest(principal.as_bytes())[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
