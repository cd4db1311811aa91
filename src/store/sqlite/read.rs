//! What is read from the file: entries, pages, histories, volumes, audit and values.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, sync::Arc};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row as SqlRow};

use super::{
    PATIENCE,
    lazy::{INDEXED_TO, Sums},
    start::number,
    stored::{JOINED, STORED, Stored, answer, kept_answer, optional_word, record, word},
};
use crate::{
    store::{
        AuditLine, Entry, EntrySummary, HeldReason, HistoryLine, KeptAnswer, Outcome, Reason,
        Receipt, Seq, State, StoreError, Volume, plan::DAY, receipt::Receipts,
    },
    time::UnixMillis,
};

/// A connection that only reads.
#[derive(Debug)]
pub(in crate::store) struct Reader {
    pub(super) connection: Connection,
}

impl Reader {
    pub(in crate::store) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -4 * 1024)?;
        Ok(Self { connection })
    }

    /// The kept answer, and the outcome if it is closed.
    pub(in crate::store) fn kept_answer(&self, seq: Seq) -> Result<KeptAnswer, StoreError> {
        kept_answer(&self.connection, seq).optional()?.ok_or(StoreError::NotFound)
    }

    pub(in crate::store) fn load(&self, seq: Seq, receipt: Receipt) -> Result<Entry, StoreError> {
        self.connection
            .prepare_cached(&format!("SELECT {STORED} {JOINED} WHERE l.seq = ?"))?
            .query_row([seq.0], |row| Ok(Stored::read(row)?.entry(receipt)))
            .optional()?
            .ok_or(StoreError::NotFound)
    }

    /// Those of these that are there, in the same order.
    pub(in crate::store) fn summaries(
        &self,
        seqs: &[Seq],
        receipts: Receipts,
    ) -> Result<Vec<EntrySummary>, StoreError> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {STORED} {JOINED} WHERE l.seq = ?"))?;
        let mut found = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let summary = |row: &SqlRow<'_>| Ok(Stored::read(row)?.summary(receipts));
            found.extend(statement.query_row([seq.0], summary).optional()?);
        }
        Ok(found)
    }

    /// Declined entries after `after` that nobody has followed up, oldest first.
    pub(in crate::store) fn to_follow_up(
        &self,
        after: Seq,
        at_most: usize,
    ) -> Result<Vec<Seq>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq FROM state WHERE outcome = 'declined' AND followed_up IS NULL AND seq > ?
                 AND EXISTS (SELECT 1 FROM log WHERE log.seq = state.seq) ORDER BY seq LIMIT ?",
        )?;
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let seqs = statement.query_map([after.0, at_most], |row| row.get(0).map(Seq))?;
        Ok(seqs.collect::<Result<_, _>>()?)
    }

    pub(in crate::store) fn history(&self, seq: Seq) -> Result<Vec<HistoryLine>, StoreError> {
        let first = self
            .connection
            .prepare_cached("SELECT request_id, record FROM log WHERE seq = ?")?
            .query_row([seq.0], |row| {
                let record = record(row, 0)?;
                let held = record.held();
                let reason = record.reason().map_or("?", Reason::word).to_owned();
                let cause = record.cause();
                Ok(HistoryLine {
                    at: UnixMillis(record.received_at()),
                    state: if held.is_some() { State::Held } else { State::Stored },
                    outcome: None,
                    held,
                    who: "request".into(),
                    why: if cause.is_empty() { reason } else { format!("{reason}: {cause}") },
                    attempt: 0,
                    upstream_answer: None,
                })
            })
            .optional()?
            .ok_or(StoreError::NotFound)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT at, state, outcome, held, who, why, attempt, answer_status, answer_headers, answer_body
             FROM history WHERE seq = ? ORDER BY line",
        )?;
        let later = statement.query_map([seq.0], |row| {
            Ok(HistoryLine {
                at: UnixMillis(row.get(0)?),
                state: word(row, 1, State::from_word)?,
                outcome: optional_word(row, 2, Outcome::from_word)?,
                held: optional_word(row, 3, HeldReason::from_word)?,
                who: row.get(4)?,
                why: row.get(5)?,
                attempt: row.get(6)?,
                upstream_answer: match row.get::<_, Option<u16>>(7)? {
                    Some(_) => Some(answer(row, 7)?),
                    None => None,
                },
            })
        })?;
        let mut lines = vec![first];
        for line in later {
            lines.push(line?);
        }
        Ok(lines)
    }

    /// Days and routes, newest day first: what is added up already, and the entries beyond the watermark.
    pub(in crate::store) fn volumes(&self, days: u32) -> Result<Vec<Volume>, StoreError> {
        let from = UnixMillis::now().0.div_euclid(DAY) - i64::from(days) + 1;
        let snapshot = self.connection.unchecked_transaction()?;
        let mut volumes: BTreeMap<(Reverse<i64>, Arc<str>), Volume> = BTreeMap::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT day, route, accepted, amount, completed, declined, written_off FROM volume
             WHERE day >= ?",
        )?;
        let mut rows = statement.query([from])?;
        while let Some(row) = rows.next()? {
            let (day, route) = (row.get(0)?, Arc::<str>::from(row.get_ref(1)?.as_str()?));
            let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let volume = Volume {
                day: day_text(day),
                route: Arc::clone(&route),
                accepted: count(2)?,
                amount: row.get(3)?,
                completed: count(4)?,
                declined: count(5)?,
                written_off: count(6)?,
            };
            volumes.insert((Reverse(day), route), volume);
        }
        for (day, route, accepted, amount) in self.not_added_up()?.volumes() {
            if day >= from {
                let volume = volumes.entry((Reverse(day), Arc::clone(&route))).or_insert(Volume {
                    day: day_text(day),
                    route,
                    accepted: 0,
                    completed: 0,
                    declined: 0,
                    written_off: 0,
                    amount: 0,
                });
                volume.accepted += accepted.cast_unsigned();
                volume.amount = volume.amount.saturating_add(amount);
            }
        }
        drop(snapshot);
        Ok(volumes.into_values().collect())
    }

    fn not_added_up(&self) -> Result<Sums, StoreError> {
        let indexed_to = number(&self.connection, INDEXED_TO)?.unwrap_or(0);
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, request_id, record FROM log WHERE seq > ?")?;
        let mut rows = statement.query([indexed_to])?;
        let mut sums = Sums::default();
        while let Some(row) = rows.next()? {
            sums.add(row.get(0)?, &record(row, 1)?);
        }
        Ok(sums)
    }

    pub(in crate::store) fn audit_log(&self, at_most: u32) -> Result<Vec<AuditLine>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT at, who, what, done_to, why FROM audit ORDER BY id DESC LIMIT ?",
        )?;
        let lines = statement.query_map([at_most], |row| {
            Ok(AuditLine {
                at: UnixMillis(row.get(0)?),
                who: row.get(1)?,
                what: row.get(2)?,
                on: row.get(3)?,
                why: row.get(4)?,
            })
        })?;
        Ok(lines.collect::<Result<_, _>>()?)
    }

    pub(in crate::store) fn value(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT value FROM value WHERE name = ?")?
            .query_row([name], |row| row.get(0))
            .optional()?)
    }

    pub(in crate::store) fn values(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT name, value FROM value WHERE name >= ? ORDER BY name")?;
        let mut rows = statement.query([prefix])?;
        let mut values = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if !name.starts_with(prefix) {
                break;
            }
            values.push((name, row.get(1)?));
        }
        Ok(values)
    }
}

/// `2026-11-22`
fn day_text(day: i64) -> String {
    let at = UnixMillis(day.saturating_mul(DAY)).to_string();
    at.split('T').next().unwrap_or_default().to_owned()
}
