//! The one thread that writes: takes all that waits, decides it, writes it in one transaction, and answers after the
//! commit has returned. Between batches it looks after the disk and what is old.

mod upkeep;

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Appended, AuditLine, Digest, Durable, HeldReason, KeptAnswer, Outcome, Sending, Seq,
    StoreError, Verdict,
    codec::Prepared,
    disk::LockFile,
    plan::{Decided, Plan, Write},
    queue::{Batch, Taken},
    shared::Shared,
    sqlite::{Database, WriteError},
};
use crate::time::UnixMillis;
use upkeep::Upkeep;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A new entry that waits to be stored.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) entry: Box<Prepared>,
    pub(super) reply: Reply<Appended>,
}

/// Everything else that waits to be written.
#[derive(Debug)]
pub(super) struct MarkJob {
    pub(super) mark: Mark,
    pub(super) reply: Reply<Marked>,
}

#[derive(Debug)]
pub(super) enum Mark {
    Sending { seq: Seq, fence: u64 },
    HoldLeased { seq: Seq, fence: u64, reason: HeldReason, why: String },
    Finish { seq: Seq, fence: u64, attempt: u32, verdict: Verdict },
    CloseLate { seq: Seq, outcome: Outcome, why: String, answer: KeptAnswer },
    CloseLive { key: Digest, outcome: Outcome, why: String, answer: KeptAnswer },
    HoldUnanswered { seq: Seq },
    Note { seq: Seq, who: String, why: String, answer: Option<KeptAnswer> },
    Hold { seq: Seq, who: String, why: String },
    Release { seq: Seq, extend: Duration, who: String, why: String },
    WriteOff { seq: Seq, who: String, why: String },
    Audit(AuditLine),
    Remember { name: String, value: String },
}

#[derive(Debug)]
pub(super) enum Marked {
    Done,
    Sending(Sending),
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) database: Database,
    pub(super) upkeep: Upkeep,
    /// Let go of last.
    pub(super) lock: LockFile,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, database: Database, lock: LockFile) -> Self {
        Self { shared, database, upkeep: Upkeep::default(), lock }
    }

    pub(super) fn run(mut self) {
        let guard = EndGuard(Arc::clone(&self.shared));
        self.upkeep(Instant::now());
        loop {
            let behind = self.upkeep.is_behind(Instant::now());
            match self.shared.queue.take(if behind { Duration::ZERO } else { IDLE }) {
                Taken::Batch(batch) => self.store(batch),
                Taken::Idle => {}
                Taken::Closed => break,
            }
            self.upkeep(Instant::now());
        }
        self.database.close();
        guard.ended_well();
        drop(self.lock);
        self.shared.ended.send_replace(true);
    }

    /// One batch: decide, write, answer.
    fn store(&mut self, mut batch: Batch) {
        self.refuse_if_full(&mut batch);
        let window = self.look_further_back(&batch);
        let mut plan = self.decide(batch);
        plan.writes.extend(window.map(Write::CustomerWindow));
        let bytes = plan.bytes();
        match self.database.write(&plan) {
            Ok(kept) => {
                if plan.last_new.is_some() {
                    self.shared.options.hook.at("after_commit_before_ack");
                }
                self.show(&plan);
                self.answer(plan, kept);
                self.database.checkpoint_if_due();
                self.upkeep.note_written(bytes);
            }
            Err(WriteError::Refused(why)) => self.refuse(plan, &why),
            Err(WriteError::Full) => self.full(plan),
            Err(WriteError::Broken(why)) => {
                self.refuse(plan, &why);
                self.recover(&why);
            }
        }
    }

    /// Captures that were already waiting when the disk became full.
    fn refuse_if_full(&self, batch: &mut Batch) {
        if let Some(why) = self.shared.gate.why_full() {
            for capture in batch.captures.drain(..) {
                let _ = capture.reply.send(Err(StoreError::NotAccepting(why.clone())));
            }
        }
    }

    /// A cap per customer may ask further back than was counted so far: once per change of the configuration.
    fn look_further_back(&mut self, batch: &Batch) -> Option<i64> {
        let asked = batch.captures.iter().filter_map(|capture| {
            let (_, window) = capture.entry.entry.caps.per_customer?;
            Some(i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
        });
        let mut index = self.shared.index();
        let asked = asked.max().filter(|asked| *asked > index.customer_window())?;
        let since = UnixMillis(UnixMillis::now().0.saturating_sub(asked));
        if let Err(error) = self.database.count_customers(&mut index, since) {
            tracing::error!(%error, "earlier entries of customers could not be counted");
            return None;
        }
        index.set_customer_window(asked);
        Some(asked)
    }

    /// Decides in portions, so that nobody waits long for the index.
    fn decide(&mut self, batch: Batch) -> Plan {
        let now = UnixMillis::now();
        let mut plan = Plan::new(now, self.shared.receipts);
        let mut marks = batch.marks.into_iter();
        while marks.len() > 0 {
            let mut index = self.shared.index();
            marks.by_ref().take(PORTION).for_each(|job| plan.mark(&mut index, job));
        }
        let mut captures = batch.captures.into_iter();
        while captures.len() > 0 {
            let mut index = self.shared.index();
            index.forget(now, PORTION);
            captures.by_ref().take(PORTION).for_each(|capture| plan.capture(&mut index, capture));
        }
        self.shared.note_known(true);
        plan
    }

    /// What is durable now may be seen.
    fn show(&self, plan: &Plan) {
        let empty = {
            let mut index = self.shared.index();
            if let Some(last) = plan.last_new {
                index.show_up_to(last);
            }
            index.is_empty()
        };
        self.shared.note_known(!empty);
    }

    fn answer(&mut self, plan: Plan, kept: Vec<Option<KeptAnswer>>) {
        self.shared.changed();
        let mut sent = false;
        for (reply, marked) in plan.marks {
            sent |= matches!(marked, Ok(Marked::Sending(_)));
            if let Err(Ok(Marked::Sending(unheard))) = reply.send(marked) {
                self.unsend(&unheard);
            }
        }
        if sent {
            self.shared.options.hook.at("after_sending");
        }
        for ((reply, decided), kept) in plan.captures.into_iter().zip(kept) {
            // Whoever does not listen any more has a durable entry without an answer: it will be replayed.
            let _ = reply.send(decided.appended(kept));
        }
    }

    /// The replayer left before it heard that it may send, so nothing was sent.
    fn unsend(&self, sending: &Sending) {
        let (reply, _) = oneshot::channel();
        let mark = Mark::Finish {
            seq: sending.seq,
            fence: sending.fence,
            attempt: sending.attempt,
            verdict: Verdict::Again {
                not_before: UnixMillis::now(),
                certainty: super::Certainty::NotSent,
                counts: false,
                why: "given up before it was sent".into(),
                answer: None,
            },
        };
        let _ = self.shared.queue.push_mark(MarkJob { mark, reply });
    }

    /// Nothing of the batch was written.
    fn refuse(&mut self, mut plan: Plan, why: &str) {
        tracing::error!(why, "a batch could not be written");
        self.take_back(&mut plan);
        for (reply, marked) in plan.marks {
            let _ = reply.send(match marked {
                Err(moved) => Err(moved),
                Ok(_) => Err(StoreError::Failed(why.to_owned())),
            });
        }
        for (reply, _) in plan.captures {
            let _ = reply.send(Err(StoreError::Failed(why.to_owned())));
        }
        self.shared.changed();
    }

    fn take_back(&self, plan: &mut Plan) {
        let mut index = self.shared.index();
        plan.undo(&mut index);
        for (_, marked) in &plan.marks {
            if let Ok(Marked::Sending(sending)) = marked {
                index.give_back(sending.seq, sending.fence);
            }
        }
        let empty = index.is_empty();
        drop(index);
        self.shared.note_known(!empty);
    }
}

impl Decided {
    fn appended(self, kept: Option<KeptAnswer>) -> Result<Appended, StoreError> {
        Ok(match self {
            Self::New { seq, receipt } => Appended::New(Durable { seq, receipt }),
            Self::Same { seq, receipt, state, outcome } => {
                let answer = kept.ok_or_else(|| {
                    StoreError::Failed(format!("the kept answer of entry {} is gone", seq.0))
                })?;
                Appended::Same { seq, receipt, answer, state, outcome }
            }
            Self::Conflict => Appended::Conflict,
            Self::CapReached(cap) => Appended::CapReached(cap),
        })
    }
}

/// If the thread ends unasked, nothing more may be answered: says so to whoever watches.
struct EndGuard(Arc<Shared>);

impl EndGuard {
    fn ended_well(&self) {
        self.0.gate.close("closed");
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.gate.close("its writer failed");
            self.0.failed.send_replace(Some("the store's writer ended by a bug".into()));
        }
        self.0.queue.abandon();
    }
}

/// How long the writer sleeps at most; then it looks after disk, retention and forgotten keys.
const IDLE: Duration = Duration::from_millis(500);
/// Entries decided while the index is locked.
const PORTION: usize = 128;
