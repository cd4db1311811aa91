//! Keeps what was promised: a few verbs over one durable log. Knows nobody; SQL stands only in `store/sqlite*.rs`.
//!
//! An append returns only when the row is durable (group commit, one fsync for all that wait). Marks go before
//! captures. Every state change is history.

mod entry;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use entry::*;

use crate::time::UnixMillis;

/// How the store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub path: PathBuf,
    pub max_bytes: u64,
    pub retention: Duration,
    pub dedupe_window: Duration,
    pub accept_ephemeral: bool,
}

/// Handle of the store; cheap to clone, usable from every thread. The writer thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    #[expect(dead_code, reason = "contract")]
    inner: Arc<()>,
}

/// What an append came to. Decided atomically with all others.
#[derive(Debug)]
pub enum Appended {
    /// Durable now. The token is the right to answer, and to close this entry and no other.
    New(Durable),
    /// The key is open or remembered with the same fingerprint: its kept answer, and where it stands.
    Same { seq: Seq, receipt: Receipt, answer: KeptAnswer, state: State, outcome: Option<Outcome> },
    /// The key is open or remembered with another fingerprint.
    Conflict,
    /// A cap is reached: nothing stored.
    CapReached(Cap),
}

/// Which cap was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    Open,
    OpenSum,
    PerCustomer,
}

/// Proof that an entry is on disk. Only the store makes it.
#[derive(Clone, Debug)]
pub struct Durable {
    seq: Seq,
    receipt: Receipt,
}

/// What the open index knows of a key, without IO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    Unknown,
    /// Open under this key. `same`: the fingerprint is the same.
    Open {
        seq: Seq,
        same: bool,
        state: State,
        certainty: Certainty,
    },
    /// Closed within the dedupe window.
    Remembered {
        seq: Seq,
        same: bool,
        outcome: Outcome,
    },
}

/// What the open index knows of a sequence, without IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceState {
    Free,
    /// Entries of it are open; its head is not held.
    Queued,
    /// Its first entry is held for a person.
    HeadHeld,
}

/// Which entries a replay run takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only this route.
    pub route: Option<Arc<str>>,
    /// Only this upstream.
    pub upstream: Option<Arc<str>>,
    /// Only this entry.
    pub seq: Option<Seq>,
}

/// The claim of one replayer on one entry (fence): void after a restart or when a person acted meanwhile.
#[derive(Debug)]
pub struct Lease {
    pub seq: Seq,
    fence: u64,
}

/// Proof that the intent to send is on disk: now, and only now, bytes may leave.
#[derive(Debug)]
pub struct Sending {
    pub seq: Seq,
    pub attempt: u32,
    fence: u64,
}

/// What became of a send.
#[derive(Clone, Debug)]
pub enum Verdict {
    Close {
        outcome: Outcome,
        why: String,
        answer: Option<KeptAnswer>,
    },
    /// Back to `stored`. `certainty` is of this attempt: what it left behind at the app. `counts`: whether it is one
    /// of `max_attempts`; an app that refuses (429) was asked, though nothing was left behind.
    Again {
        not_before: UnixMillis,
        certainty: Certainty,
        counts: bool,
        why: String,
        answer: Option<KeptAnswer>,
    },
    Hold {
        reason: HeldReason,
        certainty: Certainty,
        why: String,
        answer: Option<KeptAnswer>,
    },
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is accepted now: full, failed, ephemeral, rebuilding, closing. The text says which.
    #[error("the store does not accept: {0}")]
    NotAccepting(String),
    /// Written, but whether it is durable is not known. Never answer on it.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The queue to the writer is full.
    #[error("the store is busy")]
    Busy,
    /// The entry is not in a state that allows this, or the fence is old.
    #[error("the entry is {0:?} now")]
    Moved(State),
    #[error("no such entry")]
    NotFound,
    /// Another standin holds the file.
    #[error("{0} is in use by another standin")]
    InUse(PathBuf),
    #[error("{0} was written by a newer standin (schema {1})")]
    Newer(PathBuf, u32),
}

/// Whether new entries are accepted; published on a watch channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepting {
    Yes,
    /// Why not, in words for the page and the log.
    No(String),
}

impl Durable {
    pub fn seq(&self) -> Seq {
        self.seq
    }

    pub fn receipt(&self) -> Receipt {
        self.receipt
    }
}

impl Store {
    /// Opens or creates the file, takes its lock, migrates, and starts the writer thread. The open index is rebuilt
    /// before this returns. `Newer`, `InUse` and a damaged file are errors; nothing is ever replaced silently.
    pub fn open(_options: StoreOptions) -> Result<Self, StoreError> {
        Err(StoreError::NotAccepting("not built".into()))
    }

    /// A store that is not there: nothing is accepted, nothing known.
    pub fn without(_why: &str) -> Self {
        Self { inner: Arc::new(()) }
    }

    /// Whether new entries are accepted, and why not.
    pub fn accepting(&self) -> tokio::sync::watch::Receiver<Accepting> {
        unimplemented!()
    }

    /// Changes with every change of any entry: wakes whoever schedules or shows.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }

    /// Ends accepting (SIGTERM): every later `append` is refused, those already queued finish.
    pub fn stop_accepting(&self, _why: &str) {}

    /// Whether any entry of the route is open or any key remembered: one atomic load when there is nothing.
    pub fn anything_known(&self) -> bool {
        false
    }

    /// What is known of a key.
    pub fn key_state(&self, _key: Digest, _fingerprint: Digest) -> KeyState {
        KeyState::Unknown
    }

    /// What is known of a sequence.
    pub fn sequence_state(&self, _sequence: Digest) -> SequenceState {
        SequenceState::Free
    }

    /// The kept answer of an entry, its receipt and where it stands.
    pub async fn kept_answer(&self, _seq: Seq) -> Result<(KeptAnswer, Receipt), StoreError> {
        Err(StoreError::NotFound)
    }

    /// Stores a request. Returns when it is durable, or says why it is not stored. Once this future was polled the
    /// append finishes, whatever becomes of the caller.
    pub async fn append(&self, _entry: NewEntry) -> Result<Appended, StoreError> {
        Err(StoreError::NotAccepting("not built".into()))
    }

    /// Closes an entry that is still `stored`, by its own token (late answer). `Moved` if it is not `stored` any more:
    /// then this is history only.
    pub async fn close_late(
        &self,
        _entry: &Durable,
        _outcome: Outcome,
        _why: &str,
        _answer: KeptAnswer,
    ) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// A final live answer to an open key closes its entry if that is `stored` or held.
    pub async fn close_live(
        &self,
        _key: Digest,
        _outcome: Outcome,
        _why: &str,
        _answer: KeptAnswer,
    ) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// The answer certainly never left: `stored → held(unanswered)`.
    pub async fn hold_unanswered(&self, _entry: &Durable) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// Adds a line to an entry's history without changing its state.
    pub async fn note(
        &self,
        _seq: Seq,
        _who: &str,
        _why: &str,
        _answer: Option<KeptAnswer>,
    ) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }
}

/// What replay does with entries.
impl Store {
    /// Stored entries of the scope that may be sent now, heads of their sequences only, oldest first. No IO.
    pub fn due(&self, _scope: &Scope, _now: UnixMillis, _at_most: usize) -> Vec<Seq> {
        Vec::new()
    }

    /// When the next stored entry of the scope falls due, if none is due now. No IO.
    pub fn next_due(&self, _scope: &Scope, _now: UnixMillis) -> Option<UnixMillis> {
        None
    }

    /// Open entries of the scope (stored, leased, sending; not held). No IO.
    pub fn open_in(&self, _scope: &Scope) -> u64 {
        0
    }

    /// Claims one entry: `stored → leased`. None if somebody else has it, or it moved. No IO.
    pub fn lease(&self, _seq: Seq) -> Option<Lease> {
        None
    }

    /// Gives a claim back unsent: `leased → stored`.
    pub fn give_back(&self, _lease: Lease) {}

    /// Reads an entry.
    pub async fn load(&self, _seq: Seq) -> Result<Entry, StoreError> {
        Err(StoreError::NotFound)
    }

    /// Writes the intent: `leased → sending`, durable when this returns. If it fails, nothing may be sent, and the
    /// claim is given back.
    pub async fn sending(&self, _lease: Lease) -> Result<Sending, StoreError> {
        Err(StoreError::NotFound)
    }

    /// Holds a claimed entry without sending it (expired, unclear, route gone, damaged): `leased → held`.
    pub async fn hold_leased(
        &self,
        _lease: Lease,
        _reason: HeldReason,
        _why: &str,
    ) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// Writes what became of a send. After `Busy` or `Failed` it may be called again with the same proof; after
    /// `Moved` somebody else decided meanwhile.
    pub async fn finish(&self, _sending: &Sending, _verdict: Verdict) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }
}

/// What people do and see. Every change carries who and why, and goes into history and audit.
impl Store {
    /// `stored → held(by_person)`.
    pub async fn hold(&self, _seq: Seq, _who: &str, _why: &str) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// `held → stored`, due at once, its attempts counted anew; `expires_at` moved to now + `extend` when it is past.
    pub async fn release(
        &self,
        _seq: Seq,
        _extend: Duration,
        _who: &str,
        _why: &str,
    ) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// `held | stored → closed(written_off)`.
    pub async fn write_off(&self, _seq: Seq, _who: &str, _why: &str) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// One page of entries, newest first, by keyset.
    pub async fn page(&self, _query: PageQuery) -> Result<Page, StoreError> {
        Err(StoreError::NotFound)
    }

    /// An entry's history, oldest first.
    pub async fn history(&self, _seq: Seq) -> Result<Vec<HistoryLine>, StoreError> {
        Err(StoreError::NotFound)
    }

    /// Counts of today by memory: open, held, caps used, per route. No IO.
    pub fn totals(&self) -> Totals {
        Totals::default()
    }

    /// Accepted, completed, declined, written off per UTC day and route, newest first.
    pub async fn volumes(&self, _days: u32) -> Result<Vec<Volume>, StoreError> {
        Ok(Vec::new())
    }

    /// Writes a line of the audit log.
    pub async fn audit(&self, _line: AuditLine) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// The newest `at_most` lines of the audit log, newest first.
    pub async fn audit_log(&self, _at_most: u32) -> Result<Vec<AuditLine>, StoreError> {
        Ok(Vec::new())
    }

    /// A small durable value by name: modes, what was seen of upstreams, finished runs.
    pub async fn remember(&self, _name: &str, _value: &str) -> Result<(), StoreError> {
        Err(StoreError::NotFound)
    }

    /// See [`Store::remember`].
    pub async fn recall(&self, _name: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// All remembered values whose name starts with `prefix`, by name.
    pub async fn recall_all(&self, _prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        Ok(Vec::new())
    }
}

/// What a page of entries shows.
#[derive(Clone, Debug, Default)]
pub struct PageQuery {
    pub route: Option<String>,
    pub state: Option<State>,
    pub outcome: Option<Outcome>,
    pub held: Option<HeldReason>,
    /// A receipt (with or without hyphen, any case), a label's value, a request id or a key: exact.
    pub search: Option<String>,
    pub received_from: Option<UnixMillis>,
    pub received_until: Option<UnixMillis>,
    /// Older than this entry.
    pub before: Option<Seq>,
    /// At most 200.
    pub limit: u32,
}

/// See [`PageQuery`].
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub entries: Vec<EntrySummary>,
    /// Give this as `before` for the next page.
    pub more: Option<Seq>,
}

/// An entry without its bytes.
#[derive(Clone, Debug)]
pub struct EntrySummary {
    pub seq: Seq,
    pub receipt: Receipt,
    pub request_id: String,
    pub received_at: UnixMillis,
    pub route: Arc<str>,
    pub method: String,
    pub target: String,
    pub reason: Reason,
    pub certainty: Certainty,
    pub state: State,
    pub outcome: Option<Outcome>,
    pub held: Option<HeldReason>,
    pub attempts: u32,
    pub amount: i64,
    pub labels: Vec<(String, String)>,
    pub expires_at: UnixMillis,
}

/// What is open now.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub routes: std::collections::BTreeMap<Arc<str>, RouteTotals>,
    /// Size of the file with its log, in bytes.
    pub bytes: u64,
}

/// See [`Totals`].
#[derive(Clone, Debug, Default)]
pub struct RouteTotals {
    /// Open: stored, leased, sending and held.
    pub open: u64,
    pub held: u64,
    /// Sum of the amounts of open entries.
    pub open_sum: i64,
    pub oldest_open: Option<UnixMillis>,
    /// Declined within the retention: a person must follow up.
    pub declined: u64,
}

/// See [`Store::volumes`].
#[derive(Clone, Debug)]
pub struct Volume {
    /// `2026-11-22`, UTC.
    pub day: String,
    pub route: Arc<str>,
    pub accepted: u64,
    pub completed: u64,
    pub declined: u64,
    pub written_off: u64,
    pub amount: i64,
}

/// Who did what, and why.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AuditLine {
    pub at: UnixMillis,
    pub who: String,
    /// `mode`, `replay`, `hold`, `release`, `write_off` …
    pub what: String,
    /// What it was done to: a receipt, a route, `all`.
    pub on: String,
    pub why: String,
}
