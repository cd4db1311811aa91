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

/// What is past everything. One upper bound, not two: SQLite takes either for the end of what it reads, and all that is
/// deleted may be remembered for long.
fn forget(step: &Transaction<'_>, forgotten: UnixMillis) -> Result<usize, StoreError> {
    let Some(deleted_at) = number(step, DELETED_AT)? else { return Ok(0) };
    let before = forgotten.0.min(deleted_at.saturating_add(1));
    let mut statement = step.prepare_cached(
        "SELECT seq FROM state WHERE closed_at IS NOT NULL AND closed_at < ?1
             AND (closed_at <> ?2 OR seq <= ?3) ORDER BY closed_at, seq LIMIT ?4",
    )?;
    let deleted_seq = number(step, DELETED_SEQ)?;
    let seqs: Vec<i64> = statement
        .query_map(params![before, deleted_at, deleted_seq, STEP], |row| row.get(0))?
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use rusqlite::Connection;

    use super::*;

    /// How much the database does for a step in which nothing is forgotten, with so many entries deleted.
    fn work(deleted: i64) -> u64 {
        let mut file = Connection::open_in_memory().unwrap();
        for schema in [include_str!("../schema/0001.sql"), include_str!("../schema/0002.sql")] {
            file.execute_batch(schema).unwrap();
        }
        let did = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&did);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        file.progress_handler(1, Some(count)).unwrap();
        let step = file.transaction().unwrap();
        for seq in 1..=deleted {
            let sql = "INSERT INTO state (seq, state, certainty, attempts, interrupted, not_before, expires_at,
                           fence, closed_at) VALUES (?1, 'closed', 'not_sent', 1, 0, 0, 0, 0, 1000 + ?1 / 3)";
            step.prepare_cached(sql).unwrap().execute([seq]).unwrap();
        }
        set_number(&step, DELETED_AT, 1000 + deleted / 3).unwrap();
        set_number(&step, DELETED_SEQ, deleted).unwrap();
        let before = did.load(Ordering::Relaxed);
        assert_eq!(forget(&step, UnixMillis(1000)).unwrap(), 0);
        assert!(old_entries(&step, UnixMillis(i64::MAX)).unwrap().is_empty());
        did.load(Ordering::Relaxed) - before
    }

    #[test]
    fn what_is_remembered_long_after_it_is_deleted_costs_no_step_anything() {
        let few = work(30);
        assert_eq!(few, work(3000));
        assert!((10..500).contains(&few), "{few}");
    }

    #[test]
    fn only_what_is_deleted_is_forgotten_a_few_at_a_time() {
        let mut file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../schema/0001.sql")).unwrap();
        let step = file.transaction().unwrap();
        for seq in 1..=300 {
            let sql = "INSERT INTO state (seq, state, certainty, attempts, interrupted, not_before, expires_at,
                           fence, closed_at) VALUES (?1, 'closed', 'not_sent', 1, 0, 0, 0, 0, 1000 + ?1 / 100)";
            step.execute(sql, [seq]).unwrap();
        }
        let left = || -> (i64, i64) {
            let sql = "SELECT count(*), min(seq) FROM state";
            step.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(forget(&step, UnixMillis(i64::MAX)).unwrap(), 0, "nothing was deleted yet");
        set_number(&step, DELETED_AT, 1002).unwrap();
        set_number(&step, DELETED_SEQ, 250).unwrap();
        assert_eq!(forget(&step, UnixMillis(1001)).unwrap(), 99);
        assert_eq!(left(), (201, 100));
        assert_eq!(forget(&step, UnixMillis(i64::MAX)).unwrap(), 128);
        assert_eq!(forget(&step, UnixMillis(i64::MAX)).unwrap(), 23);
        assert_eq!(left(), (50, 251));
    }
}
