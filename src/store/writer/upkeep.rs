//! What the writer does besides batches: watches the disk, gives up room for marks, recovers after a failed write,
//! deletes what is old.

use std::time::Duration;

use tokio::time::Instant;

use super::{PORTION, Writer, cleaning::Cleaning};
use crate::{
    store::{
        StoreError,
        disk::{self, Ballast, Room},
        plan::Plan,
        sqlite::{Database, Indexer, WriteError},
    },
    time::UnixMillis,
};

/// When what is due.
#[derive(Debug, Default)]
pub(in crate::store) struct Upkeep {
    ballast: Option<Ballast>,
    next_look: Option<Instant>,
    pub(super) cleaning: Cleaning,
    /// Bytes since the last look, and after how many to look again: the sooner the fewer are left.
    written: u64,
    look_after: u64,
    pub(super) indexer: Indexer,
    /// Whether index tables lag.
    lags: bool,
}

impl Upkeep {
    pub(super) fn note_written(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// How long until something can be done while nothing waits.
    pub(super) fn is_behind(&self, now: Instant) -> Duration {
        if self.lags { Duration::ZERO } else { self.cleaning.due_in(now) }
    }
}

impl Writer {
    pub(in crate::store) fn upkeep(&mut self, now: Instant) {
        let much = self.upkeep.written > 0 && self.upkeep.written >= self.upkeep.look_after;
        if much || self.upkeep.next_look.is_none_or(|at| at <= now) {
            self.upkeep.next_look = Some(now + LOOK);
            self.upkeep.written = 0;
            self.look_at_disk();
        }
        if self.upkeep.cleaning.is_due(now) {
            let more = self.clean();
            self.upkeep.cleaning.stepped(now, Instant::now(), more);
        }
        self.build_indexes();
    }

    /// A portion, if there is one: whoever waits for the next batch waits a millisecond longer for it, once in a while.
    fn build_indexes(&mut self) {
        if self.shared.gate.why_full().is_some() {
            return;
        }
        let last = self.shared.index().last();
        match self.database.index_portion(&mut self.upkeep.indexer, last) {
            Ok(more) => self.upkeep.lags = more,
            Err(error) => {
                tracing::error!(%error, "index tables could not be written");
                (self.upkeep.indexer, self.upkeep.lags) = (Indexer::default(), false);
            }
        }
        self.database.checkpoint_if_due();
    }

    /// Stops accepting before the disk is full, and begins again by itself.
    fn look_at_disk(&mut self) {
        if let Some(why) = self.database.why_moved() {
            self.shared.gate.full(Some(why));
            return;
        }
        let room = match disk::room(&self.shared.options.path) {
            Ok(room) => room,
            Err(error) => {
                self.shared.gate.full(Some(format!("the disk cannot be looked at: {error}")));
                return;
            }
        };
        self.shared.note_bytes(room.used);
        let mut full = self.why_full(room);
        if full.is_some() {
            // The log's own room may be what is missing.
            self.database.shrink();
        } else if !self.ballast().is_kept() && self.ballast().keep().is_err() {
            full = Some("no room for the reserve of marks".into());
        }
        self.shared.gate.full(full);
    }

    fn why_full(&mut self, room: Room) -> Option<String> {
        let max = self.shared.options.max_bytes;
        let used = room.used.saturating_sub(self.database.free_bytes());
        if used >= max / 10 * 9 {
            self.upkeep.look_after = 0;
            return Some(format!("full: {used} of max_bytes {max} are used"));
        }
        let reserve = if self.ballast().is_kept() { 0 } else { self.ballast().bytes() };
        let low = room.low_water(self.shared.index().open()) + reserve;
        let left = room.free.saturating_sub(low).min(max / 10 * 9 - used);
        self.upkeep.look_after = (left / 4).min(LOOK_BYTES);
        (room.free < low)
            .then(|| format!("the disk is full: {} bytes are free, {low} are needed", room.free))
    }

    fn ballast(&mut self) -> &Ballast {
        let options = &self.shared.options;
        self.upkeep.ballast.get_or_insert_with(|| Ballast::new(&options.path, options.max_bytes))
    }

    /// The disk was full in the middle of a batch. Captures are refused; marks get the reserve.
    pub(super) fn full(&mut self, mut plan: Plan) {
        self.shared.gate.full(Some("the disk is full".into()));
        self.upkeep.next_look = Some(Instant::now() + LOOK);
        for (reply, _) in plan.drop_captures(&mut self.shared.index()) {
            reply.answer(Err(StoreError::NotAccepting("the disk is full".into())));
        }
        self.give_up_ballast();
        self.database.shrink();
        match self.database.write(&plan) {
            Ok(kept) => {
                self.show(&plan);
                self.answer(plan, kept);
            }
            Err(WriteError::Full) => self.refuse(plan, "the disk is full"),
            Err(WriteError::Refused(why)) => self.refuse(plan, &why),
            Err(WriteError::Broken(why)) => {
                self.shared.gate.broken(Some(why.clone()));
                self.refuse(plan, &why);
                self.recover(&why);
            }
        }
    }

    fn give_up_ballast(&mut self) {
        if let Err(error) = self.ballast().give_up() {
            tracing::error!(%error, "the reserve of marks could not be given up");
        }
    }

    /// A write failed and nobody knows what of it is on disk. The connection is dropped, the file is opened anew with
    /// recovery, the index is rebuilt from what is there: an entry found that nobody was told of is accepted without
    /// an answer and will be replayed.
    pub(super) fn recover(&mut self, why: &str) {
        for capture in self.shared.queue.take_captures() {
            capture.reply.answer(Err(StoreError::NotAccepting(why.to_owned())));
        }
        while !self.shared.queue.is_closed() {
            match self.reopen() {
                Ok(()) => {
                    tracing::warn!("the store works again");
                    self.shared.gate.broken(None);
                    self.shared.changed();
                    return;
                }
                Err(StoreError::Damaged(why)) => return self.shared.found_damaged(&why),
                Err(error) => {
                    tracing::error!(%error, "the store cannot be opened again yet");
                    self.give_up_ballast();
                }
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.shared.readers.renew();
        self.database.abandon();
        let mut database = Database::open(&self.shared.options)?;
        database.settle()?;
        let started = database.start(&self.shared.options, Some(&self.shared))?;
        *self.shared.index() = started.index;
        self.database = database;
        self.upkeep.indexer = Indexer::default();
        Ok(())
    }

    /// Deletes closed entries past the retention, a few at a time. True if there is more.
    fn clean(&mut self) -> bool {
        let now = UnixMillis::now();
        let options = &self.shared.options;
        // Many may have closed within one minute, and nobody is to wait until all their keys are forgotten.
        let keys = (0..PORTIONS).all(|_| self.shared.index().forget(now, PORTION));
        let window = self.shared.index().customer_window();
        let counted = UnixMillis(now.0.saturating_sub(window));
        let customers = (0..PORTIONS).all(|_| self.shared.index().forget_customers(counted));
        let (oldest, empty) = {
            let index = self.shared.index();
            (index.oldest_open(), index.is_empty())
        };
        self.shared.note_known(!empty);
        if let Err(error) = self.database.note_oldest_open(oldest) {
            tracing::error!(%error, "the oldest open entry could not be noted");
        }
        let retention = now.minus(options.retention);
        let forgotten = now.minus(options.dedupe_window).min(counted);
        match self.database.delete_old(retention, forgotten, &mut self.upkeep.indexer) {
            Ok(deleted) => {
                let mut index = self.shared.index();
                for (route, declined) in &deleted.declined {
                    index.declined_gone(route, *declined);
                }
                deleted.more || keys || customers
            }
            Err(error) => {
                tracing::error!(%error, "closed entries could not be deleted");
                false
            }
        }
    }
}

/// Or after so many bytes, whichever comes first.
const LOOK_BYTES: u64 = 16 << 20;
const LOOK: Duration = Duration::from_millis(500);
/// Portions of keys, and of customers, that are looked at in one step.
const PORTIONS: usize = 16;
const AGAIN: Duration = Duration::from_secs(1);
