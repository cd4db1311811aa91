//! Deletes closed entries that are old enough, a few at a time. Open ones are never deleted.

use std::collections::BTreeMap;

use rusqlite::{TransactionBehavior, params};

use super::{
    Database,
    start::{number, set_number},
};
use crate::{store::StoreError, time::UnixMillis};

/// What one step deleted.
#[derive(Debug, Default)]
pub(in crate::store) struct Deleted {
    pub(in crate::store) more: bool,
    /// Declined ones per route.
    pub(in crate::store) declined: BTreeMap<String, u64>,
}

impl Database {
    /// Deletes what closed before `retention`. Of those that closed after `forgotten` the key and the kept answer stay.
    pub(in crate::store) fn delete_old(
        &mut self,
        retention: UnixMillis,
        forgotten: UnixMillis,
    ) -> Result<Deleted, StoreError> {
        let step = self.connection()?.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut deleted = Deleted::default();
        let old: Vec<i64> = step
            .prepare_cached(
                "SELECT seq FROM state WHERE closed_at IS NOT NULL AND closed_at <= ?
                 ORDER BY closed_at LIMIT ?",
            )?
            .query_map(params![retention.0, STEP], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let forgotten_rows = step
            .prepare_cached(
                "DELETE FROM remembered WHERE seq IN
                     (SELECT seq FROM remembered WHERE closed_at <= ? LIMIT ?)",
            )?
            .execute(params![forgotten.0, STEP])?;
        deleted.more = old.len() as i64 == STEP || forgotten_rows as i64 == STEP;
        if old.is_empty() {
            if forgotten_rows > 0 {
                step.commit()?;
            }
            return Ok(deleted);
        }
        // Numbers are never used again, even if the last entry goes.
        let last: i64 = step.query_row("SELECT max(seq) FROM log", [], |row| row.get(0))?;
        set_number(&step, "last_seq", last.max(number(&step, "last_seq")?.unwrap_or(0)))?;
        for seq in old {
            let gone: Option<String> = step
                .prepare_cached(
                    "SELECT CASE WHEN s.outcome = 'declined' THEN l.route END
                     FROM state s JOIN log l ON l.seq = s.seq WHERE s.seq = ?",
                )?
                .query_row([seq], |row| row.get(0))?;
            if let Some(route) = gone {
                *deleted.declined.entry(route).or_default() += 1;
            }
            step.prepare_cached(
                "INSERT OR REPLACE INTO remembered
                 SELECT l.seq, l.received_at, l.route, l.key, l.fingerprint, l.customer, s.outcome,
                     s.closed_at, l.answer_status, l.answer_headers, l.answer_body
                 FROM log l JOIN state s ON s.seq = l.seq WHERE l.seq = ?1 AND s.closed_at > ?2",
            )?
            .execute(params![seq, forgotten.0])?;
            for table in ["log", "state", "history"] {
                step.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?"))?
                    .execute([seq])?;
            }
        }
        step.commit()?;
        Ok(deleted)
    }
}

/// Entries of one step: some milliseconds.
const STEP: i64 = 128;
