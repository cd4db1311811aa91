//! What handles, writer and readers of one store share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::time::UnixMillis;

use super::{
    Accepting, EntrySummary, Seq, State, StoreError, StoreOptions, open_index::OpenIndex,
    queue::Queue, readers::Readers, receipt::Receipts, sqlite::Live,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: StoreOptions,
    pub(super) receipts: Receipts,
    pub(super) queue: Queue,
    pub(super) readers: Readers,
    pub(super) gate: Gate,
    pub(super) failed: watch::Sender<Option<String>>,
    pub(super) ended: watch::Sender<bool>,
    index: Mutex<OpenIndex>,
    changes: watch::Sender<u64>,
    /// Taken by whoever follows an entry up.
    pub(super) follow_ups: tokio::sync::Mutex<()>,
    known: AtomicBool,
    damaged: AtomicBool,
    bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        options: StoreOptions,
        receipts: Receipts,
        index: OpenIndex,
        ephemeral: Option<String>,
    ) -> Arc<Self> {
        Arc::new(Self::parts(options, receipts, index, ephemeral))
    }

    fn parts(
        options: StoreOptions,
        receipts: Receipts,
        index: OpenIndex,
        ephemeral: Option<String>,
    ) -> Self {
        Self {
            receipts,
            queue: Queue::default(),
            readers: Readers::new(&options.path),
            gate: Gate::new(ephemeral),
            failed: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            known: AtomicBool::new(!index.is_empty()),
            damaged: AtomicBool::new(false),
            follow_ups: tokio::sync::Mutex::default(),
            index: Mutex::new(index),
            changes: watch::Sender::new(0),
            bytes: AtomicU64::new(0),
            options,
        }
    }

    /// Of a store that is not there.
    pub(super) fn without(why: &str) -> Arc<Self> {
        let index = OpenIndex::new(std::time::Duration::ZERO, 0, UnixMillis(0));
        let shared = Arc::new(Self {
            readers: Readers::none(),
            ..Self::parts(StoreOptions::new(""), Receipts::new(0), index, None)
        });
        shared.gate.close(why);
        shared.queue.close(why);
        shared.ended.send_replace(true);
        shared
    }

    /// Short: nobody does IO while holding it.
    pub(super) fn index(&self) -> MutexGuard<'_, OpenIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_leased(&self, seq: Seq) -> bool {
        self.index().row(seq).is_some_and(|row| row.state == State::Leased)
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn anything_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(super) fn note_known(&self, known: bool) {
        if self.known.load(Ordering::Relaxed) != known {
            self.known.store(known, Ordering::Release);
        }
    }

    /// Nothing more is written.
    pub(super) fn found_damaged(&self, why: &str) {
        self.gate.damaged(why);
        if !self.damaged.swap(true, Ordering::AcqRel) {
            tracing::error!(
                why,
                "the store is left as it is: standin forwards, but neither stands in nor replays"
            );
        }
        self.changed();
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn note_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Live for Shared {
    fn in_state(&self, state: State, before: i64, at_most: usize) -> Vec<Seq> {
        self.index().in_state(state, before, at_most)
    }

    fn show(&self, summary: &mut EntrySummary) {
        if summary.state == State::Stored && self.is_leased(summary.seq) {
            summary.state = State::Leased;
        }
    }
}

/// Whether new entries are accepted, and every reason why not.
#[derive(Debug)]
pub(super) struct Gate {
    open: AtomicBool,
    reasons: Mutex<Reasons>,
    accepting: watch::Sender<Accepting>,
}

/// In the order in which they are shown.
#[derive(Debug, Default)]
struct Reasons {
    closed: Option<String>,
    /// It was asked to stop: nothing is wrong.
    is_asked: bool,
    damaged: Option<String>,
    ephemeral: Option<String>,
    broken: Option<String>,
    full: Option<String>,
}

impl Gate {
    fn new(ephemeral: Option<String>) -> Self {
        let gate = Self {
            open: AtomicBool::new(true),
            reasons: Mutex::new(Reasons::default()),
            accepting: watch::Sender::new(Accepting::Yes),
        };
        gate.set(|reasons| reasons.ephemeral = ephemeral);
        gate
    }

    pub(super) fn accepting(&self) -> watch::Receiver<Accepting> {
        self.accepting.subscribe()
    }

    /// Refuses a new entry when it must be.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.open.load(Ordering::Acquire) {
            return Ok(());
        }
        match &*self.accepting.borrow() {
            Accepting::Yes => Ok(()),
            Accepting::No(why) => Err(StoreError::NotAccepting(why.clone())),
        }
    }

    /// For good.
    pub(super) fn close(&self, why: &str) {
        self.set(|reasons| {
            reasons.closed.get_or_insert_with(|| why.to_owned());
        });
    }

    /// For good, because somebody asked for it.
    pub(super) fn stop(&self, why: &str) {
        self.set(|reasons| {
            reasons.is_asked = reasons.closed.is_none();
            reasons.closed.get_or_insert_with(|| why.to_owned());
        });
    }

    /// For good.
    fn damaged(&self, why: &str) {
        self.set(|reasons| {
            reasons.damaged.get_or_insert_with(|| why.to_owned());
        });
    }

    /// Why, if the file is damaged.
    pub(super) fn why_damaged(&self) -> Option<String> {
        if self.open.load(Ordering::Acquire) {
            return None;
        }
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).damaged.clone()
    }

    pub(super) fn broken(&self, why: Option<String>) {
        self.set(|reasons| reasons.broken = why);
    }

    /// Why, if it is the disk that has no room.
    pub(super) fn why_full(&self) -> Option<String> {
        if self.open.load(Ordering::Acquire) {
            return None;
        }
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).full.clone()
    }

    pub(super) fn full(&self, why: Option<String>) {
        self.set(|reasons| reasons.full = why);
    }

    fn set(&self, change: impl FnOnce(&mut Reasons)) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut reasons);
        let Reasons { closed, is_asked, damaged, ephemeral, broken, full } = &*reasons;
        let why = [closed, damaged, ephemeral, broken, full].into_iter().flatten().next().cloned();
        self.open.store(why.is_none(), Ordering::Release);
        let now = why.map_or(Accepting::Yes, Accepting::No);
        // The text of a full disk has changing numbers: only a change between yes and no is news.
        self.accepting.send_if_modified(|accepting| match (&*accepting, &now) {
            (Accepting::Yes, Accepting::Yes) => false,
            (Accepting::No(_), Accepting::No(_)) => {
                *accepting = now;
                false
            }
            _ => {
                match &now {
                    Accepting::Yes => tracing::info!("the store accepts"),
                    Accepting::No(why) if *is_asked => {
                        tracing::info!(why, "the store does not accept any more");
                    }
                    Accepting::No(why) => tracing::warn!(why, "the store does not accept"),
                }
                *accepting = now;
                true
            }
        });
    }
}
