//! The one thread that writes: takes all that waits, decides it, writes it in one transaction, and answers after the
//! commit has returned. Between batches it looks after the disk and what is old.

mod cleaning;
mod job;
mod upkeep;

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Appended, Durable, KeptAnswer, Sending, StoreError, Verdict,
    disk::LockFile,
    mailbox::{self, Delivered, Post},
    plan::{Decided, Plan, Write},
    queue::{Batch, Taken},
    shared::Shared,
    sqlite::{Database, WriteError},
};
use crate::time::UnixMillis;
pub(super) use job::{Capture, Mark, MarkJob, Marked, Reply};
use upkeep::Upkeep;

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) database: Database,
    pub(super) upkeep: Upkeep,
    /// Mailboxes to be looked at again.
    delivered: Vec<Delivered>,
    /// Let go of last.
    pub(super) lock: LockFile,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, database: Database, lock: LockFile) -> Self {
        Self { shared, database, upkeep: Upkeep::default(), delivered: Vec::new(), lock }
    }

    pub(super) fn run(mut self) {
        let guard = EndGuard(Arc::clone(&self.shared));
        loop {
            match self.shared.queue.take(self.patience()) {
                Taken::Batch(batch) => match self.shared.gate.why_damaged() {
                    None => self.store(batch),
                    Some(why) => refuse_all(batch, &why),
                },
                Taken::Idle => {}
                Taken::Closed => break,
            }
            self.look_again();
            if self.shared.is_damaged() {
                self.database.leave_as_it_is();
            } else {
                self.upkeep(Instant::now());
            }
        }
        self.database.close();
        guard.ended_well();
        drop(self.lock);
    }

    fn patience(&self) -> Duration {
        let others = if self.delivered.is_empty() { IDLE } else { mailbox::PATIENCE };
        if self.shared.is_damaged() {
            return others;
        }
        self.upkeep.is_behind(Instant::now()).min(others)
    }

    /// Whoever was to wake others had its time.
    fn look_again(&mut self) {
        let now = Instant::now();
        self.delivered.retain_mut(|delivered| {
            now.duration_since(delivered.at) < mailbox::PATIENCE || delivered.look_again(now)
        });
    }

    /// One batch: decide, write, answer.
    fn store(&mut self, mut batch: Batch) {
        self.refuse_if_full(&mut batch);
        let window = self.look_further_back(&mut batch);
        let mut plan = self.decide(batch);
        plan.writes.extend(window.map(Write::CustomerWindow));
        let bytes = plan.bytes();
        if plan.last_new.is_some() {
            self.shared.options.hook.at("before_commit");
        }
        match self.database.write(&plan) {
            Ok(kept) => {
                if plan.last_new.is_some() {
                    self.shared.options.hook.at("after_commit_before_ack");
                }
                self.show(&plan);
                let stored = std::mem::take(&mut plan.entries);
                self.answer(plan, kept);
                self.upkeep.indexer.take(&stored);
                self.database.checkpoint_if_due();
                self.upkeep.note_written(bytes);
                self.upkeep.cleaning.note_stored(stored.len());
            }
            Err(WriteError::Refused(why)) => self.refuse(plan, &why),
            Err(WriteError::Full) => self.full(plan),
            Err(WriteError::Broken(why)) => {
                // First the gate: whoever hears of the failure finds it closed.
                self.shared.gate.broken(Some(why.clone()));
                self.refuse(plan, &why);
                self.recover(&why);
            }
        }
    }

    /// Captures that were already waiting when the disk became full.
    fn refuse_if_full(&self, batch: &mut Batch) {
        if let Some(why) = self.shared.gate.why_full() {
            for capture in batch.captures.drain(..) {
                capture.reply.answer(Err(StoreError::NotAccepting(why.clone())));
            }
        }
    }

    /// A cap per customer may ask further back than was counted so far: once per change of the configuration. Without
    /// the whole count nobody can say whether such a cap is reached, so nothing that has one is stored then.
    fn look_further_back(&mut self, batch: &mut Batch) -> Option<i64> {
        let mut index = self.shared.index();
        let asked = batch.captures.iter().filter_map(Capture::looks_back).max();
        let asked = asked.filter(|asked| *asked > index.customer_window())?;
        let since = UnixMillis(UnixMillis::now().0.saturating_sub(asked));
        let Err(error) = self.database.count_customers(&mut index, since) else {
            index.set_customer_window(asked);
            return Some(asked);
        };
        tracing::error!(%error, "earlier entries of customers could not be counted");
        let counted = index.customer_window();
        drop(index);
        let beyond = |capture: &mut Capture| capture.looks_back() > Some(counted);
        for capture in batch.captures.extract_if(.., beyond) {
            let why = "earlier entries of customers could not be counted";
            capture.reply.answer(Err(StoreError::NotAccepting(why.into())));
        }
        None
    }

    /// Decides in portions, so that nobody waits long for the index.
    fn decide(&mut self, batch: Batch) -> Plan {
        let now = UnixMillis::now();
        let (receipts, late_window) = (self.shared.receipts, self.shared.options.late_window);
        let mut plan = Plan::new(now, receipts, late_window, batch.captures.len());
        let mut marks = batch.marks.into_iter();
        while marks.len() > 0 {
            let mut index = self.shared.index();
            marks.by_ref().take(PORTION).for_each(|job| plan.mark(&mut index, job));
        }
        let mut captures = batch.captures.into_iter();
        let anything_new = captures.len() > 0;
        while captures.len() > 0 {
            let mut index = self.shared.index();
            index.forget(now, PORTION);
            index.ripen(now);
            captures.by_ref().take(PORTION).for_each(|capture| plan.capture(&mut index, capture));
        }
        // Before it is durable: whoever comes next has to look. Marks are of entries that are known.
        if anything_new {
            self.shared.note_known(true);
        }
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
        // Whoever does not listen any more has a durable entry without an answer: it will be replayed.
        let mut post = Post::default();
        for ((ticket, decided), kept) in plan.captures.into_iter().zip(kept) {
            post.add(ticket, decided.appended(kept));
        }
        self.delivered.extend(post.deliver());
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
            reply.answer(Err(StoreError::Failed(why.to_owned())));
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

impl Capture {
    /// How far back its cap per customer counts, in milliseconds.
    fn looks_back(&self) -> Option<i64> {
        let (_, window) = self.entry.home.caps.per_customer?;
        Some(i64::try_from(window.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Of a damaged file: nothing is decided any more.
fn refuse_all(batch: Batch, why: &str) {
    let no = || StoreError::NotAccepting(why.to_owned());
    for job in batch.marks {
        let _ = job.reply.send(Err(no()));
    }
    for capture in batch.captures {
        capture.reply.answer(Err(no()));
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
        self.0.ended.send_replace(true);
    }
}

/// How long the writer sleeps at most; then it looks after disk, retention and forgotten keys.
const IDLE: Duration = Duration::from_millis(500);
/// Entries decided while the index is locked.
const PORTION: usize = 128;

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use crate::store::*;

    async fn opened(folder: &std::path::Path) -> (Store, Hook) {
        let hook = Hook::default();
        let options = StoreOptions {
            accept_ephemeral: true,
            hook: hook.clone(),
            ..StoreOptions::new(folder.join("standin.db"))
        };
        (Store::open(options).unwrap(), hook)
    }

    pub(in crate::store) fn entry(key: u128) -> NewEntry {
        NewEntry {
            request_id: key.to_string(),
            received_at: UnixMillis::now(),
            route: "checkout".into(),
            upstream: "shop".into(),
            identity: Identity {
                key: Digest(key),
                key_text: key.to_string(),
                fingerprint: Digest(key),
                principal: String::new(),
            },
            sequence: None,
            reason: Reason::TimedOut,
            certainty: Certainty::NotSent,
            cause: String::new(),
            not_before: UnixMillis(0),
            expires_at: UnixMillis(i64::MAX),
            request: StoredRequest {
                method: "POST".into(),
                target: "/".into(),
                headers: vec![],
                body: bytes::Bytes::new(),
                trailers: vec![],
                client_ip: String::new(),
            },
            answer: KeptAnswer { status: 201, headers: vec![], body: bytes::Bytes::new() },
            labels: vec![],
            amount: 10,
            customer: Some(Digest(1)),
            caps: Arc::new(Caps {
                open: 3,
                open_sum: Some(30),
                per_customer: Some((3, Duration::from_secs(60))),
            }),
            held: None,
        }
    }

    async fn append(store: &Store, key: u128) -> Result<Seq, StoreError> {
        match store.append(entry(key)).await? {
            Appended::New(durable) => Ok(durable.seq()),
            other => panic!("{other:?}"),
        }
    }

    async fn accepts(store: &Store) {
        let mut accepting = store.accepting();
        accepting.wait_for(|accepting| *accepting == Accepting::Yes).await.unwrap();
    }

    fn again() -> Verdict {
        Verdict::Again {
            not_before: UnixMillis(0),
            certainty: Certainty::SentUnknown,
            counts: true,
            why: String::new(),
            answer: None,
        }
    }

    #[tokio::test]
    async fn a_failed_commit_is_no_yes_and_what_it_left_is_accepted_without_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let (store, hook) = opened(folder.path()).await;
        append(&store, 1).await.unwrap();
        hook.fail_next(&[Fault::UnknownAfterCommit]);
        assert!(matches!(append(&store, 2).await, Err(StoreError::Failed(_))));
        accepts(&store).await;
        let found = store.key_state(Digest(2), Digest(2));
        assert!(matches!(found, KeyState::Open { state: State::Stored, .. }), "{found:?}");
        hook.fail_next(&[Fault::LostBeforeCommit]);
        assert!(matches!(append(&store, 3).await, Err(StoreError::Failed(_))));
        accepts(&store).await;
        assert_eq!(store.key_state(Digest(3), Digest(3)), KeyState::Unknown);
        // Caps are exact again: two are open, one fits.
        assert_eq!(store.totals().routes["checkout"].open, 2);
        let seq = append(&store, 4).await.unwrap();
        assert_eq!(seq, Seq(3));
        let full = store.append(entry(5)).await.unwrap();
        assert!(matches!(full, Appended::CapReached(Cap::Open)));
    }

    #[tokio::test]
    async fn a_send_that_its_replayer_knows_of_outlives_a_failure_and_another_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (store, hook) = opened(folder.path()).await;
        let (known, unknown) = (append(&store, 1).await.unwrap(), append(&store, 2).await.unwrap());
        let sending = store.sending(store.lease(known).unwrap()).await.unwrap();
        hook.fail_next(&[Fault::UnknownAfterCommit]);
        let refused = store.sending(store.lease(unknown).unwrap()).await;
        assert!(matches!(refused, Err(StoreError::Failed(_))));
        accepts(&store).await;
        assert_eq!(store.load(known).await.unwrap().state, State::Sending);
        let read = store.load(unknown).await.unwrap();
        assert_eq!((read.state, read.certainty), (State::Stored, Certainty::NotSent));
        assert_eq!(read.attempts, 0, "nothing was sent");
        store.finish(&sending, again()).await.unwrap();
        let lease = store.lease(unknown).unwrap();
        assert!(lease.fence > sending.fence);
        let sending = store.sending(lease).await.unwrap();
        assert_eq!(sending.attempt, 1);
    }

    #[tokio::test]
    async fn a_result_whose_write_failed_can_be_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, hook) = opened(folder.path()).await;
        for (key, fault) in [(1, Fault::UnknownAfterCommit), (2, Fault::LostBeforeCommit)] {
            let seq = append(&store, key).await.unwrap();
            let sending = store.sending(store.lease(seq).unwrap()).await.unwrap();
            hook.fail_next(&[fault]);
            let failed = store.finish(&sending, again()).await;
            assert!(matches!(failed, Err(StoreError::Failed(_))));
            store.finish(&sending, again()).await.unwrap();
            accepts(&store).await;
            assert_eq!(store.load(seq).await.unwrap().attempts, 1);
            assert_eq!(store.history(seq).await.unwrap().len(), 3, "written once");
        }
    }

    #[tokio::test]
    async fn on_a_full_disk_captures_are_refused_and_marks_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let (store, hook) = opened(folder.path()).await;
        let seq = append(&store, 1).await.unwrap();
        let (lease, reserve) =
            (store.lease(seq).unwrap(), folder.path().join("standin.db.reserve"));
        hook.fail_next(&[Fault::Full]);
        // In one batch.
        let (sending, refused) = tokio::join!(store.sending(lease), store.append(entry(2)));
        assert!(matches!(refused, Err(StoreError::NotAccepting(_))), "{refused:?}");
        let sending = sending.unwrap();
        assert_eq!(reserve.metadata().unwrap().len(), 0, "given up");
        assert!(matches!(&*store.accepting().borrow(), Accepting::No(why) if why.contains("full")));
        store.finish(&sending, again()).await.unwrap();
        accepts(&store).await;
        assert!(reserve.metadata().unwrap().len() > 0, "kept again");
        append(&store, 3).await.unwrap();
        assert_eq!(store.totals().routes["checkout"].open, 2);
        // Not even the reserve helps: the claim goes back.
        hook.fail_next(&[Fault::Full, Fault::Full]);
        let failed = store.sending(store.lease(seq).unwrap()).await;
        assert!(matches!(failed, Err(StoreError::Failed(_))));
        accepts(&store).await;
        store.lease(seq).unwrap();
    }

    fn one_per_customer(key: u128, within: Duration) -> NewEntry {
        let caps = Caps { open: 10, open_sum: None, per_customer: Some((1, within)) };
        NewEntry { caps: Arc::new(caps), ..entry(key) }
    }

    #[tokio::test]
    async fn no_cap_is_exceeded_because_earlier_entries_cannot_be_read() {
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = Duration::from_secs(3600);
        let folder = tempfile::tempdir().unwrap();
        let (store, hook) = opened(folder.path()).await;
        let first = store.append(one_per_customer(1, MINUTE)).await.unwrap();
        assert!(matches!(first, Appended::New(_)));
        let uncapped = NewEntry {
            caps: Arc::new(Caps { open: 10, open_sum: None, per_customer: None }),
            ..entry(2)
        };
        hook.fail_next(&[Fault::CustomersUnread]);
        let unknown = store.append(one_per_customer(3, HOUR)).await;
        assert!(matches!(unknown, Err(StoreError::NotAccepting(_))), "{unknown:?}");
        // What was known stays known, and what does not depend on it goes on.
        let reached = store.append(one_per_customer(4, MINUTE)).await.unwrap();
        assert!(matches!(reached, Appended::CapReached(Cap::PerCustomer)), "{reached:?}");
        assert!(matches!(store.append(uncapped).await.unwrap(), Appended::New(_)));
        let reached = store.append(one_per_customer(5, HOUR)).await.unwrap();
        assert!(matches!(reached, Appended::CapReached(Cap::PerCustomer)), "{reached:?}");
    }

    #[tokio::test]
    async fn a_writer_that_fails_says_so_and_nothing_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let hook = Hook::new(|point| assert_ne!(point, "after_commit_before_ack", "a bug"));
        let options = StoreOptions {
            accept_ephemeral: true,
            hook,
            ..StoreOptions::new(folder.path().join("standin.db"))
        };
        let store = Store::open(options).unwrap();
        let mut failed = store.failed();
        assert!(matches!(append(&store, 1).await, Err(StoreError::Failed(_))));
        failed.wait_for(Option::is_some).await.unwrap();
        assert!(matches!(append(&store, 2).await, Err(StoreError::NotAccepting(_))));
        assert!(matches!(*store.accepting().borrow(), Accepting::No(_)));
    }
}
