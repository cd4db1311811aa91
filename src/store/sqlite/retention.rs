//! Deletes closed entries that are old enough, a few at a time. Open ones are never deleted.

use std::collections::BTreeMap;

use rusqlite::{Transaction, TransactionBehavior, params};

use super::{
    Database,
    lazy::{self, INDEXED_TO, Indexer, Sums},
    start::{number, set_number},
    stored::record,
};
use crate::{store::StoreError, time::UnixMillis};

/// What one step deleted.
#[derive(Debug, Default)]
pub(in crate::store) struct Deleted {
    pub(in crate::store) more: bool,
    /// Declined ones per route that nobody has followed up.
    pub(in crate::store) declined: BTreeMap<String, u64>,
}

impl Database {
    /// Deletes the requests that closed before `retention`. What closed after `forgotten` leaves its key, and its kept
    /// answer, until then.
    pub(in crate::store) fn delete_old(
        &mut self,
        retention: UnixMillis,
        forgotten: UnixMillis,
        indexer: &mut Indexer,
    ) -> Result<Deleted, StoreError> {
        let step = self.connection()?.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut deleted = Deleted::default();
        let old = old_entries(&step, retention)?;
        let indexed_to = number(&step, INDEXED_TO)?.unwrap_or(0);
        let mut sums = Sums::default();
        for entry in &old {
            if entry.declined {
                *deleted.declined.entry(entry.route.clone()).or_default() += 1;
            }
            entry.delete(&step, forgotten, indexed_to, &mut sums)?;
        }
        if old.iter().any(|entry| indexer.has(entry.seq)) {
            indexer.begin_again(&step)?;
        }
        let mut seqs: Vec<i64> = old.iter().map(|entry| entry.seq).collect();
        seqs.sort_unstable();
        lazy::forget(&step, &seqs)?;
        sums.write_volumes(&step)?;
        if let Some(last) = old.last() {
            set_number(&step, DELETED_AT, last.closed_at)?;
            set_number(&step, DELETED_SEQ, last.seq)?;
        }
        let forgotten = forget(&step, retention.min(forgotten))?;
        deleted.more = old.len() as i64 == STEP || forgotten as i64 == STEP;
        if old.is_empty() && forgotten == 0 {
            return Ok(deleted);
        }
        wal_vfs::gather(|| step.commit())?;
        Ok(deleted)
    }

    /// Every entry below is closed: a start need not look at them one by one.
    pub(in crate::store) fn note_oldest_open(&mut self, oldest: i64) -> Result<(), StoreError> {
        let connection = self.connection()?;
        if number(connection, OLDEST_OPEN)?.unwrap_or(0) < oldest {
            set_number(connection, OLDEST_OPEN, oldest)?;
        }
        Ok(())
    }
}

struct Old {
    seq: i64,
    closed_at: i64,
    declined: bool,
    route: String,
}

/// The next ones in the order of closing. Where the last step ended is kept, because what stays of an entry looks the
/// same before and after.
fn old_entries(step: &Transaction<'_>, retention: UnixMillis) -> Result<Vec<Old>, StoreError> {
    let after = (number(step, DELETED_AT)?.unwrap_or(i64::MIN), number(step, DELETED_SEQ)?);
    let mut statement = step.prepare_cached(
        "SELECT seq, closed_at, outcome = 'declined' AND followed_up IS NULL, route FROM state
         WHERE closed_at IS NOT NULL AND closed_at >= ?1 AND (closed_at > ?1 OR seq > ?2)
             AND closed_at < ?3 ORDER BY closed_at, seq LIMIT ?4",
    )?;
    let old = statement.query_map(params![after.0, after.1, retention.0, STEP], |row| {
        Ok(Old {
            seq: row.get(0)?,
            closed_at: row.get(1)?,
            declined: row.get(2)?,
            route: row.get(3)?,
        })
    })?;
    Ok(old.collect::<Result<_, _>>()?)
}

impl Old {
    fn delete(
        &self,
        step: &Transaction<'_>,
        forgotten: UnixMillis,
        indexed_to: i64,
        sums: &mut Sums,
    ) -> Result<(), rusqlite::Error> {
        let seq = self.seq;
        let mut statement =
            step.prepare_cached("SELECT request_id, record FROM log WHERE seq = ?")?;
        let mut rows = statement.query([seq])?;
        if let Some(row) = rows.next()? {
            let record = record(row, 0)?;
            if seq > indexed_to {
                sums.add(seq, &record);
            }
            if self.closed_at > forgotten.0 {
                step.prepare_cached("INSERT OR REPLACE INTO kept_answer VALUES (?, ?, ?, ?)")?
                    .execute(params![
                        seq,
                        record.answer_status(),
                        record.answer_headers(),
                        record.answer_body()
                    ])?;
            }
        }
        drop(rows);
        for table in ["log", "history"] {
            step.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?"))?.execute([seq])?;
        }
        Ok(())
    }
}

/// What is past everything.
fn forget(step: &Transaction<'_>, forgotten: UnixMillis) -> Result<usize, StoreError> {
    let deleted = (number(step, DELETED_AT)?, number(step, DELETED_SEQ)?);
    let mut statement = step.prepare_cached(
        "SELECT seq FROM state WHERE closed_at IS NOT NULL AND closed_at < ?1
             AND (closed_at < ?2 OR (closed_at = ?2 AND seq <= ?3)) ORDER BY closed_at, seq LIMIT ?4",
    )?;
    let seqs: Vec<i64> = statement
        .query_map(params![forgotten.0, deleted.0, deleted.1, STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if let Some(highest) = seqs.iter().max() {
        // Numbers are never used again, even when nothing of them is left.
        set_number(step, LAST_SEQ, number(step, LAST_SEQ)?.unwrap_or(0).max(*highest))?;
    }
    for seq in &seqs {
        for table in ["state", "kept_answer"] {
            step.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?"))?.execute([seq])?;
        }
    }
    Ok(seqs.len())
}

pub(super) const LAST_SEQ: &str = "last_seq";
pub(super) const OLDEST_OPEN: &str = "oldest_open";
pub(super) const DELETED_AT: &str = "deleted_at";
const DELETED_SEQ: &str = "deleted_seq";
/// Entries of one step: some milliseconds.
const STEP: i64 = 128;
