//! Index tables built behind the log: what the admin searches by, volumes, and what a start needs of open entries.
//!
//! A segment of entries is gathered in memory as they are stored, and written in blocks of many entries, a portion at a
//! time, once it is whole. The watermark moves with the last portion. Until then, and for the entries of the unfinished
//! segment, the log itself is searched. What was not gathered (after a start) is read from the log.

pub(super) mod briefs;
mod convert;
mod places;
mod segment;
mod sums;

use rusqlite::{Connection, Transaction};

use super::{Database, start::number, stored::record};
use crate::store::{StoreError, codec::Prepared, record::Record};

pub(super) use convert::convert;
pub(super) use places::Sought;
pub(super) use sums::Sums;

use segment::Segment;

/// What is gathered and written.
#[derive(Debug, Default)]
pub(in crate::store) struct Indexer {
    gathered: Option<Segment>,
    /// Whole, and being written.
    written: Option<Segment>,
    /// The watermark, once it was read: it is asked for after each batch.
    indexed_to: Option<i64>,
}

impl Indexer {
    /// Entries that are stored now, in order. What does not follow what was taken before is read from the log later.
    pub(in crate::store) fn take(&mut self, stored: &[(i64, Box<Prepared>)]) {
        for (seq, entry) in stored {
            let next = self.gathered.as_mut().filter(|one| !one.is_whole() && one.next == *seq);
            let Some(gathered) = next else { return };
            gathered.take(*seq, &Record::of(&entry.request_id, &entry.record));
            self.next();
        }
    }

    /// Whether an entry is in memory or half written: if that entry goes, all of it must be gathered anew.
    pub(super) fn has(&self, seq: i64) -> bool {
        let all = [&self.gathered, &self.written];
        all.into_iter().flatten().any(|segment| segment.number == segment_of(seq))
    }

    /// Begins again at the watermark.
    pub(super) fn begin_again(&mut self, step: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        *self = Self::default();
        delete_unfinished(step)
    }

    /// A whole segment is written while the next one is gathered.
    fn next(&mut self) {
        if self.written.is_none()
            && let Some(whole) = self.gathered.take_if(|segment| segment.is_whole())
        {
            self.gathered = Some(whole.following());
            self.written = Some(whole);
        }
    }
}

impl Database {
    /// Does a portion of what lags behind `last`. True if there is more to do.
    pub(in crate::store) fn index_portion(
        &mut self,
        indexer: &mut Indexer,
        last: i64,
    ) -> Result<bool, StoreError> {
        let connection = self.connection()?;
        if let Some(segment) = &mut indexer.written {
            if segment.write(connection)? {
                indexer.written = None;
                indexer.next();
            }
            return Ok(indexer.is_behind(last));
        }
        if indexer.gathered.is_none() {
            let indexed_to = match indexer.indexed_to {
                Some(read) => read,
                None => number(connection, INDEXED_TO)?.unwrap_or(0),
            };
            indexer.indexed_to = Some(indexed_to);
            if last - indexed_to < BEGIN {
                return Ok(false);
            }
            let salt = number(connection, SALT)?.unwrap_or(0).cast_unsigned();
            indexer.gathered = Some(Segment::new(indexed_to / SEGMENT, salt));
        }
        if let Some(segment) = &mut indexer.gathered {
            let until = (segment.next + READ).min(segment.end()).min(last + 1);
            if segment.next < until {
                segment.read(connection, until)?;
            }
        }
        indexer.next();
        Ok(indexer.is_behind(last))
    }
}

impl Indexer {
    fn is_behind(&self, last: i64) -> bool {
        self.written.is_some() || self.gathered.as_ref().is_none_or(|segment| segment.next <= last)
    }
}

/// The entries of a range of the log.
fn for_each(
    connection: &Connection,
    from: i64,
    until: i64,
    mut with: impl FnMut(i64, &Record<'_>),
) -> Result<(), StoreError> {
    let sql = "SELECT seq, request_id, record FROM log WHERE seq >= ? AND seq < ? ORDER BY seq";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([from, until])?;
    while let Some(row) = rows.next()? {
        with(row.get(0)?, &record(row, 1)?);
    }
    Ok(())
}

/// What an unfinished segment left.
pub(super) fn delete_unfinished(step: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let first = number(step, INDEXED_TO)?.unwrap_or(0) / SEGMENT;
    places::delete(step, first, i64::MAX)?;
    let sql = "DELETE FROM brief_block WHERE id >= ?";
    step.prepare_cached(sql)?.execute([first * (SEGMENT / briefs::BLOCK)])?;
    Ok(())
}

/// Forgets the briefs of deleted entries, which are in order, and the places of segments of which nothing is left.
pub(super) fn forget(step: &Transaction<'_>, deleted: &[i64]) -> Result<(), rusqlite::Error> {
    for gone in deleted.chunk_by(|one, next| briefs::block_of(*one) == briefs::block_of(*next)) {
        briefs::remove(step, briefs::block_of(gone[0]), gone)?;
    }
    for gone in deleted.chunk_by(|one, next| segment_of(*one) == segment_of(*next)) {
        let segment = segment_of(gone[0]);
        let sql = "SELECT EXISTS (SELECT 1 FROM log WHERE seq > ? AND seq <= ?)";
        let (first, end) = (segment * SEGMENT, (segment + 1) * SEGMENT);
        let more: bool = step.prepare_cached(sql)?.query_row([first, end], |row| row.get(0))?;
        if !more {
            places::delete(step, segment, segment + 1)?;
        }
    }
    Ok(())
}

pub(super) fn segment_of(seq: i64) -> i64 {
    (seq - 1).div_euclid(SEGMENT)
}

pub(super) const INDEXED_TO: &str = "indexed_to";
pub(super) const SALT: &str = "salt";
/// Entries of a segment: few enough to be searched without an index.
pub(super) const SEGMENT: i64 = 1 << 14;
/// So many entries lie behind the watermark before any are gathered: a store of few entries keeps none in memory.
const BEGIN: i64 = SEGMENT / 2;
pub(super) const HOUR: i64 = 3_600_000;
/// Entries read while captures may wait: a millisecond.
const READ: i64 = 256;
