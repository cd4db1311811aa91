//! A segment of entries, gathered in memory until it is whole, then written a portion at a time.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    INDEXED_TO, SEGMENT, briefs,
    places::{PARTS, Places},
    sums::Sums,
};
use crate::store::{StoreError, record::Record, sqlite::start::set_number};

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: i64,
    /// The entry that it takes next.
    pub(super) next: i64,
    salt: u64,
    places: Places,
    briefs: Vec<Vec<u8>>,
    sums: Sums,
    step: Step,
}

/// What is written next: from which part, or which block, on.
#[derive(Clone, Copy, Debug)]
enum Step {
    Places(usize),
    Briefs(usize),
}

impl Segment {
    pub(super) fn new(number: i64, salt: u64) -> Self {
        Self {
            number,
            next: number * SEGMENT + 1,
            salt,
            places: Places::default(),
            briefs: vec![Vec::new(); BLOCKS],
            sums: Sums::default(),
            step: Step::Places(0),
        }
    }

    /// The next one.
    pub(super) fn following(&self) -> Self {
        Self::new(self.number + 1, self.salt)
    }

    /// The first number beyond it.
    pub(super) fn end(&self) -> i64 {
        (self.number + 1) * SEGMENT + 1
    }

    pub(super) fn is_whole(&self) -> bool {
        self.next == self.end()
    }

    /// The next entry, of which there may be some that are gone before.
    pub(super) fn take(&mut self, seq: i64, record: &Record<'_>) {
        let place = seq - 1 - self.number * SEGMENT;
        self.places.take(self.salt, place as u16, record);
        briefs::add(&mut self.briefs[(place / briefs::BLOCK) as usize], seq, record);
        self.sums.add(seq, record);
        self.next = seq + 1;
    }

    /// Takes what is in the log from `next` on, below `until`.
    pub(super) fn read(&mut self, connection: &Connection, until: i64) -> Result<(), StoreError> {
        super::for_each(connection, self.next, until, |seq, record| self.take(seq, record))?;
        self.next = until;
        Ok(())
    }

    /// The next portion of a whole one. True if that was all: with it the segment counts.
    pub(super) fn write(&mut self, connection: &mut Connection) -> Result<bool, StoreError> {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let next = self.write_portion(&step)?;
        if next.is_none() {
            self.sums.write(&step)?;
            set_number(&step, INDEXED_TO, self.end() - 1)?;
        }
        wal_vfs::gather(|| step.commit())?;
        Ok(match next {
            Some(next) => {
                self.step = next;
                false
            }
            None => true,
        })
    }

    /// Places and briefs at once, and no sums: they were added up when the entries were indexed first.
    pub(super) fn write_again(&mut self, step: &Transaction<'_>) -> Result<(), StoreError> {
        while let Some(next) = self.write_portion(step)? {
            self.step = next;
        }
        Ok(())
    }

    fn write_portion(&mut self, step: &Transaction<'_>) -> Result<Option<Step>, StoreError> {
        match self.step {
            Step::Places(from) => {
                let until = (from + PARTS_AT_ONCE).min(PARTS);
                self.places.write_parts(step, self.number, from..until)?;
                if until < PARTS {
                    return Ok(Some(Step::Places(until)));
                }
                self.places.write_routes(step, self.number)?;
                Ok(Some(Step::Briefs(0)))
            }
            Step::Briefs(from) => {
                let until = (from + BLOCKS_AT_ONCE).min(BLOCKS);
                let first = self.number * BLOCKS as i64 + from as i64;
                briefs::write(step, first, &self.briefs[from..until])?;
                Ok((until < BLOCKS).then_some(Step::Briefs(until)))
            }
        }
    }
}

/// Blocks of briefs.
const BLOCKS: usize = (SEGMENT / briefs::BLOCK) as usize;
/// Rows written while captures may wait: about a millisecond.
const PARTS_AT_ONCE: usize = 32;
const BLOCKS_AT_ONCE: usize = 16;
