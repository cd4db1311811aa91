//! Keeps what was promised: a few verbs over one durable log. Knows nobody; SQL stands only in `store/sqlite*.rs`.
//!
//! An append returns only when the row is durable (group commit, one fsync for all that wait). Marks go before
//! captures. Every state change is history.

mod codec;
mod disk;
mod entry;
mod mailbox;
mod mixing;
mod open_index;
mod outbox;
mod plan;
mod queue;
mod readers;
mod receipt;
mod record;
mod shared;
mod sqlite;
mod transition;
mod work;
mod writer;

use std::{
    fmt,
    future::poll_fn,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

pub use codec::Prepared;
pub use entry::*;
pub use mixing::Mixing;
pub use receipt::NotAReceipt;
pub use work::{Work, WorkPage};

use crate::time::UnixMillis;
use disk::{DiskKind, LockFile};
use receipt::Receipts;
use shared::Shared;
use sqlite::{Database, Found, Reader, Started};
use writer::{Capture, Mark, MarkJob, Marked, Writer};

/// How the store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub path: PathBuf,
    pub max_bytes: u64,
    pub retention: Duration,
    pub dedupe_window: Duration,
    pub accept_ephemeral: bool,
    /// How long an entry waits that was being sent when standin ended: its exchange may still be under way at the app.
    pub late_window: Duration,
    pub synchronous: Synchronous,
    /// Called at named points; for tests that end the process there.
    pub hook: Hook,
}

/// When a commit counts. Not in the configuration: anything but `Full` loses acknowledged entries in a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    #[default]
    Full,
    /// For the test that shows that the power-cut test can fail.
    NormalForTests,
}

/// Called at named points: of the store `before_commit`, `after_commit_before_ack`, `after_sending`; of replay `after_app_applied`.
#[derive(Clone, Default)]
pub struct Hook {
    hook: Option<Arc<HookFn>>,
    /// What goes wrong with the next writes.
    #[cfg(test)]
    faults: Arc<std::sync::Mutex<std::collections::VecDeque<Fault>>>,
    #[cfg(test)]
    pub(crate) load: Arc<SeemingLoad>,
}

/// Captures that the replayer is to believe in: no test makes as many on any machine.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct SeemingLoad {
    /// So many more with each look.
    pub a_look: std::sync::atomic::AtomicU64,
    pub taken: std::sync::atomic::AtomicU64,
    pub looks: std::sync::atomic::AtomicU64,
}

type HookFn = dyn Fn(&str) + Send + Sync;

/// What a disk may do to a write.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Earlier entries of customers cannot be read.
    CustomersUnread,
    Full,
    LostBeforeCommit,
    /// The commit is on disk, but its sync said no.
    UnknownAfterCommit,
}

/// Handle of the store; cheap to clone, usable from every thread. The writer thread ends when the last one is dropped.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// Ends the writer when the last one goes.
struct Handle {
    shared: Arc<Shared>,
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

/// An answer that may leave: its entry is on disk. Only the store makes it, or a proof of the store's that the entry is
/// there; nothing else becomes a stand-in answer.
#[derive(Clone, Debug)]
pub struct Kept<A = KeptAnswer> {
    answer: A,
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
        held: Option<HeldReason>,
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
    /// The file is not what was written. It is left as it is.
    #[error("the store: {0}")]
    Damaged(String),
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

/// How far a look for damage came that found none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Sound,
    /// It gave way to the work, or was not wanted any more.
    NotToTheEnd,
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

    /// The answer that was stored with the entry.
    pub fn kept<A>(&self, answer: A) -> Kept<A> {
        Kept { answer, receipt: self.receipt }
    }
}

impl<A> Kept<A> {
    pub fn answer(&self) -> &A {
        &self.answer
    }

    pub fn into_parts(self) -> (A, Receipt) {
        (self.answer, self.receipt)
    }
}

impl Appended {
    /// What the client of an earlier request of the key was told, if this is one.
    pub fn into_kept(self) -> Option<Kept> {
        match self {
            Self::Same { answer, receipt, .. } => Some(Kept { answer, receipt }),
            Self::New(_) | Self::Conflict | Self::CapReached(_) => None,
        }
    }
}

impl Store {
    /// Opens or creates the file, takes its lock, migrates, and starts the writer thread. The open index is rebuilt
    /// before this returns. `Newer`, `InUse` and a damaged file are errors; nothing is ever replaced silently.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let mut lock = LockFile::take(&options.path)?;
        let ephemeral = why_ephemeral(&options)?;
        disk::create(&options.path)
            .map_err(|error| StoreError::Failed(format!("{}: {error}", options.path.display())))?;
        lock.hold(&options.path)?;
        let (started, database) = match open_database(&options) {
            // A full disk must not keep a store closed that has a reserve for just that.
            Err(_) if disk::Ballast::new(&options.path, options.max_bytes).is_kept() => {
                let _ = disk::Ballast::new(&options.path, options.max_bytes).give_up();
                open_database(&options)
            }
            opened => opened,
        }?;
        let receipts = Receipts::new(started.salt);
        let shared = Shared::new(options, receipts, started.index, ephemeral);
        let mut writer = Writer::new(Arc::clone(&shared), database, lock);
        // Before anybody asks: a disk that is full already is no yes.
        writer.upkeep(Instant::now());
        std::thread::Builder::new()
            .name("store writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Failed(format!("no thread for the writer: {error}")))?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Ends the store: what waits is written, the log is moved into the file, the lock is let go. Other handles get
    /// errors from then on.
    pub async fn close(self) {
        let mut ended = self.shared().ended.subscribe();
        self.shared().gate.close("closed");
        self.shared().queue.close("closed");
        // The sender lives in what this handle holds.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Says why when the writer ended by a bug: nothing may be answered any more, the process must end.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared().failed.subscribe()
    }

    /// The receipt of an entry of this store.
    pub fn receipt(&self, seq: Seq) -> Receipt {
        self.shared().receipts.of(seq)
    }

    /// The entry that a receipt names, whether or not there is one.
    pub fn seq_of(&self, receipt: Receipt) -> Seq {
        self.shared().receipts.seq(receipt)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    async fn mark(&self, mark: Mark) -> Result<Marked, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared().queue.push_mark(MarkJob { mark, reply })?;
        answer.await.unwrap_or_else(|_| Err(writer_gone()))
    }

    /// A store that is not there: nothing is accepted, nothing known, nothing kept.
    pub fn without(why: &str) -> Self {
        Self { handle: Arc::new(Handle { shared: Shared::without(why) }) }
    }

    /// A store whose file is damaged already.
    pub fn damaged(why: &str) -> Self {
        let store = Self::without(why);
        store.shared().found_damaged(why);
        store
    }

    /// Looks through the whole file for damage, slowly and beside the work. Damage that it finds is an error, and ends
    /// all writing: nothing new is accepted, nothing is sent, the file stays as it is. Dropped, it ends soon.
    pub async fn check_file(&self) -> Result<Checked, StoreError> {
        let unwanted = Arc::new(AtomicBool::new(false));
        let _guard = SetOnDrop(Arc::clone(&unwanted));
        let options = self.shared().options.clone();
        let read = move |reader: &mut Reader| reader.check(&options, unwanted);
        let checked = match self.shared().readers.read_apart(read).await {
            Err(StoreError::NotFound) => Ok(Checked::Sound),
            checked => checked,
        };
        if let Err(StoreError::Damaged(why)) = &checked {
            self.shared().found_damaged(why);
        }
        checked
    }

    /// Damage was found in the file, at start or since.
    pub fn is_damaged(&self) -> bool {
        self.shared().is_damaged()
    }

    /// Whether new entries are accepted, and why not.
    pub fn accepting(&self) -> watch::Receiver<Accepting> {
        self.shared().gate.accepting()
    }

    /// Changes with every change of any entry: wakes whoever schedules or shows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared().changes()
    }

    /// Ends accepting (SIGTERM): every later `append` is refused, those already queued finish.
    pub fn stop_accepting(&self, why: &str) {
        self.shared().gate.stop(why);
    }

    /// Whether any entry of the route is open or any key remembered: one atomic load when there is nothing.
    pub fn anything_known(&self) -> bool {
        self.shared().anything_known()
    }

    /// Whether anything is known of a key: its fingerprint is only needed then.
    pub fn knows(&self, key: Digest) -> bool {
        !matches!(self.key_state(key, Digest(0)), KeyState::Unknown)
    }

    /// What is known of a key.
    pub fn key_state(&self, key: Digest, fingerprint: Digest) -> KeyState {
        if !self.anything_known() {
            return KeyState::Unknown;
        }
        self.shared().index().key_state(key, fingerprint, UnixMillis::now())
    }

    /// What is known of a sequence.
    pub fn sequence_state(&self, sequence: Digest) -> SequenceState {
        if !self.anything_known() {
            return SequenceState::Free;
        }
        self.shared().index().sequence_state(sequence)
    }

    /// The kept answer of an entry, and its receipt.
    pub async fn kept_answer(&self, seq: Seq) -> Result<Kept, StoreError> {
        let answer = self.shared().readers.read(move |reader| reader.kept_answer(seq)).await?;
        Ok(Kept { answer, receipt: self.receipt(seq) })
    }

    /// Stores a request. Returns when it is durable, or says why it is not stored. Once this future was polled the
    /// append finishes, whatever becomes of the caller.
    pub async fn append(&self, entry: NewEntry) -> Result<Appended, StoreError> {
        let entry = entry.draft(&entry.home()).prepare()?;
        self.append_prepared(entry).await
    }

    /// [`append`](Self::append) for callers that made the row themselves.
    pub async fn append_prepared(&self, entry: Box<Prepared>) -> Result<Appended, StoreError> {
        self.shared().gate.check()?;
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let (reply, answer) = mailbox::ticket(waker);
        outbox::put(self.shared(), Capture { entry, reply });
        answer.await
    }

    /// Closes an entry that is still `stored`, by its own token (late answer). `Moved` if it is not `stored` any more:
    /// then this is history only.
    pub async fn close_late(
        &self,
        entry: &Durable,
        outcome: Outcome,
        why: &str,
        answer: KeptAnswer,
    ) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.mark(Mark::CloseLate { seq: entry.seq, outcome, why, answer }).await.map(drop)
    }

    /// A final live answer to an open key closes its entry if that is `stored` or held.
    pub async fn close_live(
        &self,
        key: Digest,
        outcome: Outcome,
        why: &str,
        answer: KeptAnswer,
    ) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.mark(Mark::CloseLive { key, outcome, why, answer }).await.map(drop)
    }

    /// A live attempt of a key may have reached the app: if the key is open, its entry is `sent_unknown` from now on.
    pub async fn worsen(
        &self,
        key: Digest,
        not_before: UnixMillis,
        cause: &str,
    ) -> Result<(), StoreError> {
        let cause = cause.to_owned();
        self.mark(Mark::Worsen { key, not_before, cause }).await.map(drop)
    }

    /// The answer certainly never left: `stored → held(unanswered)`.
    pub async fn hold_unanswered(&self, entry: &Durable) -> Result<(), StoreError> {
        self.mark(Mark::HoldUnanswered { seq: entry.seq }).await.map(drop)
    }

    /// Adds a line to an entry's history without changing its state.
    pub async fn note(
        &self,
        seq: Seq,
        who: &str,
        why: &str,
        answer: Option<KeptAnswer>,
    ) -> Result<(), StoreError> {
        let (who, why) = (who.to_owned(), why.to_owned());
        self.mark(Mark::Note { seq, who, why, answer }).await.map(drop)
    }
}

/// What replay does with entries.
impl Store {
    /// Stored entries of the scope that may be sent now, heads of their sequences only, oldest first. No IO.
    pub fn due(&self, scope: &Scope, now: UnixMillis, at_most: usize) -> Vec<Seq> {
        if self.is_damaged() {
            return Vec::new();
        }
        self.shared().index().due(scope, now, at_most)
    }

    /// Stored entries that nothing may send any more because they are past `expires`, among some from `from` on; and
    /// where to look on, if there are more to look at. No IO.
    pub fn expired(&self, from: Seq, now: UnixMillis) -> (Vec<Seq>, Option<Seq>) {
        if self.is_damaged() {
            return (Vec::new(), None);
        }
        self.shared().index().expired(from, now, LOOK_AT)
    }

    /// When the next stored entry of the scope falls due, if none is due now. No IO.
    pub fn next_due(&self, scope: &Scope, now: UnixMillis) -> Option<UnixMillis> {
        if self.is_damaged() {
            return None;
        }
        self.shared().index().next_due(scope, now)
    }

    /// Open entries of the scope (stored, leased, sending; not held). No IO.
    pub fn open_in(&self, scope: &Scope) -> u64 {
        self.shared().index().open_in(scope)
    }

    /// How many entries were ever taken. No IO.
    pub fn taken(&self) -> u64 {
        self.shared().index().last().cast_unsigned()
    }

    /// Claims one entry: `stored → leased`. None if somebody else has it, or it moved. No IO.
    pub fn lease(&self, seq: Seq) -> Option<Lease> {
        let fence = self.shared().index().lease(seq)?;
        Some(Lease { seq, fence })
    }

    /// Gives a claim back unsent: `leased → stored`.
    pub fn give_back(&self, lease: Lease) {
        if self.shared().index().give_back(lease.seq, lease.fence) {
            self.shared().changed();
        }
    }

    /// Reads an entry.
    pub async fn load(&self, seq: Seq) -> Result<Entry, StoreError> {
        let receipt = self.receipt(seq);
        let mut entry = self.shared().readers.read(move |reader| reader.load(seq, receipt)).await?;
        // A claim is only in memory.
        if entry.state == State::Stored && self.shared().is_leased(seq) {
            entry.state = State::Leased;
        }
        Ok(entry)
    }

    /// Reads a claimed entry as it stands by all that was decided before the claim, on disk already or not: what another
    /// attempt left behind a moment ago counts. `Moved` when the claim is void.
    pub async fn load_claimed(&self, lease: &Lease) -> Result<Entry, StoreError> {
        let entry = self.load(lease.seq).await?;
        let row = self.shared().index().row(lease.seq).filter(|row| row.fence == lease.fence);
        let Some(row) = row else { return Err(StoreError::Moved(entry.state)) };
        Ok(Entry {
            state: row.state,
            held: row.held,
            certainty: row.certainty,
            attempts: row.attempts,
            not_before: UnixMillis(row.not_before),
            expires_at: UnixMillis(row.expires_at),
            ..entry
        })
    }

    /// Writes the intent: `leased → sending`, durable when this returns. If it fails, nothing may be sent, and the
    /// claim is given back.
    pub async fn sending(&self, lease: Lease) -> Result<Sending, StoreError> {
        let Lease { seq, fence } = lease;
        match self.mark(Mark::Sending { seq, fence }).await {
            Ok(Marked::Sending(sending)) => Ok(sending),
            Ok(Marked::Done) => Err(StoreError::Failed("no proof of the intent".into())),
            Err(error) => {
                self.give_back(Lease { seq, fence });
                Err(error)
            }
        }
    }

    /// Holds a claimed entry without sending it (expired, unclear, route gone, damaged): `leased → held`.
    pub async fn hold_leased(
        &self,
        lease: Lease,
        reason: HeldReason,
        why: &str,
    ) -> Result<(), StoreError> {
        let Lease { seq, fence } = lease;
        let held = self.mark(Mark::HoldLeased { seq, fence, reason, why: why.to_owned() }).await;
        if held.is_err() {
            self.give_back(Lease { seq, fence });
        }
        held.map(drop)
    }

    /// Writes what became of a send. After `Busy` or `Failed` it may be called again with the same proof; after
    /// `Moved` somebody else decided meanwhile.
    pub async fn finish(&self, sending: &Sending, verdict: Verdict) -> Result<(), StoreError> {
        let Sending { seq, attempt, fence } = *sending;
        self.mark(Mark::Finish { seq, fence, attempt, verdict }).await.map(drop)
    }
}

/// What people do and see. Every change carries who and why, and goes into history and audit.
impl Store {
    /// `stored → held(by_person)`.
    pub async fn hold(&self, seq: Seq, who: &str, why: &str) -> Result<(), StoreError> {
        let (who, why) = (who.to_owned(), why.to_owned());
        self.mark(Mark::Hold { seq, who, why }).await.map(drop)
    }

    /// `held → stored`, due at once, its attempts counted anew; `expires_at` moved to now + `extend` when it is past.
    /// Whoever releases an entry that was held as unclear vouches that it was not applied: its certainty is `not_sent`.
    pub async fn release(
        &self,
        seq: Seq,
        extend: Duration,
        who: &str,
        why: &str,
    ) -> Result<(), StoreError> {
        let (who, why) = (who.to_owned(), why.to_owned());
        self.mark(Mark::Release { seq, extend, who, why }).await.map(drop)
    }

    /// `held | stored → closed(written_off)`.
    pub async fn write_off(&self, seq: Seq, who: &str, why: &str) -> Result<(), StoreError> {
        let (who, why) = (who.to_owned(), why.to_owned());
        self.mark(Mark::WriteOff { seq, who, why }).await.map(drop)
    }

    /// One page of entries, newest first, by keyset. A page that had to look at very many may hold fewer than asked for
    /// (even none) and still have `more`.
    pub async fn page(&self, mut query: PageQuery) -> Result<Page, StoreError> {
        let limit = query.limit.clamp(1, LONGEST_PAGE) as usize;
        let (mut entries, mut looked) = (Vec::new(), 0);
        let looked_down_to = loop {
            let (shared, asked) = (Arc::clone(&self.handle.shared), query.clone());
            let at_most = limit + 1 - entries.len();
            let read = self
                .shared()
                .readers
                .read(move |reader| reader.page(&asked, shared.receipts, &*shared, at_most));
            let found: Found = or_empty(read.await)?;
            entries.extend(found.entries);
            looked += found.looked;
            if found.looked_down_to.is_none() || entries.len() > limit || looked >= LOOKS {
                break found.looked_down_to;
            }
            query.before = found.looked_down_to;
        };
        let more = if entries.len() > limit {
            entries.truncate(limit);
            entries.last().map(|entry| entry.seq)
        } else {
            looked_down_to
        };
        Ok(Page { entries, more })
    }

    /// An entry's history, oldest first.
    pub async fn history(&self, seq: Seq) -> Result<Vec<HistoryLine>, StoreError> {
        self.shared().readers.read(move |reader| reader.history(seq)).await
    }

    /// Counts of today by memory: open, held, caps used, per route. No IO.
    pub fn totals(&self) -> Totals {
        Totals { routes: self.shared().index().totals(), bytes: self.shared().bytes() }
    }

    /// Accepted, completed, declined, written off per UTC day and route, newest first.
    pub async fn volumes(&self, days: u32) -> Result<Vec<Volume>, StoreError> {
        or_empty(self.shared().readers.read(move |reader| reader.volumes(days)).await)
    }

    /// Writes a line of the audit log.
    pub async fn audit(&self, line: AuditLine) -> Result<(), StoreError> {
        self.mark(Mark::Audit(line)).await.map(drop)
    }

    /// The newest `at_most` lines of the audit log, newest first.
    pub async fn audit_log(&self, at_most: u32) -> Result<Vec<AuditLine>, StoreError> {
        or_empty(self.shared().readers.read(move |reader| reader.audit_log(at_most)).await)
    }

    /// A small durable value by name: modes, what was seen of upstreams, finished runs.
    pub async fn remember(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.mark(Mark::Remember { name: name.to_owned(), value: value.to_owned() }).await.map(drop)
    }

    /// Remembers what somebody decided, with its line of the audit log: both or neither.
    pub async fn decree(&self, name: &str, value: &str, line: AuditLine) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.mark(Mark::Decree { name, value, line }).await.map(drop)
    }

    /// See [`Store::remember`].
    pub async fn recall(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        or_empty(self.shared().readers.read(move |reader| reader.value(&name)).await)
    }

    /// All remembered values whose name starts with `prefix`, by name.
    pub async fn recall_all(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let prefix = prefix.to_owned();
        or_empty(self.shared().readers.read(move |reader| reader.values(&prefix)).await)
    }
}

impl StoreOptions {
    /// What a configuration without a `[store]` section gives.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            path: path.into(),
            max_bytes: 10 << 30,
            retention: 30 * DAY,
            dedupe_window: 7 * DAY,
            accept_ephemeral: false,
            late_window: Duration::from_secs(60),
            synchronous: Synchronous::Full,
            hook: Hook::default(),
        }
    }
}

impl Hook {
    pub fn new(hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::from(Some(Arc::new(hook) as Arc<HookFn>))
    }

    pub(crate) fn at(&self, point: &str) {
        if let Some(hook) = &self.hook {
            hook(point);
        }
    }
}

#[cfg(test)]
impl Hook {
    /// What goes wrong with the next batches, one each.
    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        let mut all = self.faults.lock().unwrap();
        all.clear();
        all.extend(faults);
    }

    /// Whether this is what goes wrong next; if so, it has gone wrong now.
    fn fails(&self, fault: Fault) -> bool {
        let mut faults = self.faults.lock().unwrap();
        let next = faults.front() == Some(&fault);
        if next {
            faults.pop_front();
        }
        next
    }
}

#[cfg(test)]
impl SeemingLoad {
    /// The replayer looks.
    pub(crate) fn look(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        self.looks.fetch_add(1, Relaxed);
        self.taken.fetch_add(self.a_look.load(Relaxed), Relaxed)
    }
}

impl From<Option<Arc<HookFn>>> for Hook {
    fn from(hook: Option<Arc<HookFn>>) -> Self {
        Self {
            hook,
            #[cfg(test)]
            faults: Arc::default(),
            #[cfg(test)]
            load: Arc::default(),
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() { "Hook(set)" } else { "Hook(none)" })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.shared().options.path).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close("closed");
    }
}

/// Tells work on another thread that nobody waits for it any more.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn open_database(options: &StoreOptions) -> Result<(Started, Database), StoreError> {
    let mut database = Database::open(options)?;
    let started = database.start(options, None)?;
    Ok((started, database))
}

/// Why nothing may be promised on this disk.
fn why_ephemeral(options: &StoreOptions) -> Result<Option<String>, StoreError> {
    let kind = disk::kind(&options.path)
        .map_err(|error| StoreError::Failed(format!("{}: {error}", options.path.display())))?;
    Ok(match kind {
        DiskKind::Lasting => None,
        DiskKind::Ephemeral(name) if options.accept_ephemeral => {
            tracing::warn!(
                disk = name,
                "entries will not outlive this disk: accepted by the configuration"
            );
            None
        }
        DiskKind::Ephemeral(name) => Some(format!("the store lies on {name}, which does not last")),
        DiskKind::Network(name) => {
            Some(format!("the store lies on {name}: a network file system cannot hold it"))
        }
    })
}

/// A store that is not there has nothing in it.
fn or_empty<T: Default>(read: Result<T, StoreError>) -> Result<T, StoreError> {
    match read {
        Err(StoreError::NotFound) => Ok(T::default()),
        read => read,
    }
}

fn writer_gone() -> StoreError {
    StoreError::Failed("the store's writer ended".into())
}

/// Open entries looked at while the index is locked.
const LOOK_AT: usize = 2048;

/// Most entries of a page.
const LONGEST_PAGE: u32 = 200;
/// Entries looked at for one page: well under a second.
const LOOKS: usize = 50_000;

/// What a page of entries shows.
#[derive(Clone, Debug, Default)]
pub struct PageQuery {
    pub route: Option<String>,
    pub state: Option<State>,
    pub outcome: Option<Outcome>,
    pub held: Option<HeldReason>,
    /// Whether a person has followed up what the app declined.
    pub followed_up: Option<bool>,
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
    /// Of a declined entry: when a person followed it up.
    pub followed_up: Option<UnixMillis>,
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
    /// Declined within the retention and not followed up: a person must do it.
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
