//! What waits for the writer: marks before captures, both bounded, marks with places of their own.
//!
//! Whoever hands something in wakes the writer only when it sleeps: a busy writer costs its callers no system call.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    StoreError,
    writer::{Capture, MarkJob},
};

#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Lanes {
    marks: VecDeque<MarkJob>,
    captures: VecDeque<Capture>,
    capture_bytes: usize,
    asleep: bool,
    closed: Option<String>,
}

/// What one transaction will hold.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) marks: Vec<MarkJob>,
    pub(super) captures: Vec<Capture>,
}

#[derive(Debug)]
pub(super) enum Taken {
    Batch(Batch),
    /// Nothing came for a while.
    Idle,
    /// Closed and empty.
    Closed,
}

impl Queue {
    pub(super) fn push_mark(&self, job: MarkJob) -> Result<(), StoreError> {
        let mut lanes = self.lock();
        if let Some(why) = &lanes.closed {
            return Err(StoreError::NotAccepting(why.clone()));
        }
        if lanes.marks.len() >= MARKS {
            return Err(StoreError::Busy);
        }
        lanes.marks.push_back(job);
        self.wake(lanes);
        Ok(())
    }

    /// What does not fit is answered at once.
    pub(super) fn push_captures(&self, captures: impl IntoIterator<Item = Capture>) {
        let mut refused = Vec::new();
        let mut lanes = self.lock();
        for capture in captures {
            let refusal = match &lanes.closed {
                Some(why) => Some(StoreError::NotAccepting(why.clone())),
                None if lanes.is_full_for(capture.entry.bytes) => Some(StoreError::Busy),
                None => None,
            };
            match refusal {
                Some(why) => refused.push((capture, why)),
                None => {
                    lanes.capture_bytes += capture.entry.bytes;
                    lanes.captures.push_back(capture);
                }
            }
        }
        self.wake(lanes);
        // Whoever hears of it may push again: not under the lock.
        for (capture, why) in refused {
            capture.reply.answer(Err(why));
        }
    }

    /// Everything that waits, up to the size of a transaction: the more waits, the more one fsync serves. No linger.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let mut lanes = self.lock();
        if lanes.is_empty() && lanes.closed.is_none() {
            lanes.asleep = true;
            lanes = match self.wake.wait_timeout(lanes, patience) {
                Ok((lanes, _)) => lanes,
                Err(poisoned) => poisoned.into_inner().0,
            };
            lanes.asleep = false;
        }
        match (lanes.is_empty(), lanes.closed.is_some()) {
            (false, _) => Taken::Batch(lanes.batch()),
            (true, true) => Taken::Closed,
            (true, false) => Taken::Idle,
        }
    }

    /// Captures that wait: none of them will be stored.
    pub(super) fn take_captures(&self) -> VecDeque<Capture> {
        let mut lanes = self.lock();
        lanes.capture_bytes = 0;
        std::mem::take(&mut lanes.captures)
    }

    /// Takes nothing more. What waits is still done.
    pub(super) fn close(&self, why: &str) {
        let mut lanes = self.lock();
        lanes.closed.get_or_insert_with(|| why.to_owned());
        self.wake(lanes);
    }

    /// Drops all that waits: whoever waits for it gets an error.
    pub(super) fn abandon(&self) {
        let mut lanes = self.lock();
        lanes.closed.get_or_insert_with(|| "its writer ended".into());
        lanes.capture_bytes = 0;
        let dropped = (std::mem::take(&mut lanes.marks), std::mem::take(&mut lanes.captures));
        drop(lanes);
        drop(dropped);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    fn wake(&self, mut lanes: MutexGuard<'_, Lanes>) {
        let asleep = std::mem::take(&mut lanes.asleep);
        drop(lanes);
        if asleep {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn is_full_for(&self, bytes: usize) -> bool {
        self.captures.len() >= CAPTURES
            || (self.capture_bytes.saturating_add(bytes) > CAPTURE_BYTES
                && !self.captures.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.captures.is_empty()
    }

    fn batch(&mut self) -> Batch {
        let marks: Vec<MarkJob> = self.marks.drain(..self.marks.len().min(BATCH)).collect();
        let mut captures = Vec::with_capacity(self.captures.len().min(BATCH - marks.len()));
        let mut bytes = 0;
        while marks.len() + captures.len() < BATCH && bytes < BATCH_BYTES {
            let Some(capture) = self.captures.pop_front() else { break };
            bytes += capture.entry.bytes;
            captures.push(capture);
        }
        self.capture_bytes -= bytes;
        Batch { marks, captures }
    }
}

/// Most entries of one transaction.
const BATCH: usize = 1024;
/// About the most bytes of one transaction: the log is to stay small.
const BATCH_BYTES: usize = 8 << 20;
/// Most captures, and bytes of them, that may wait.
const CAPTURES: usize = 4096;
const CAPTURE_BYTES: usize = 64 << 20;
/// Most marks that may wait; captures cannot take these places.
const MARKS: usize = 8192;
