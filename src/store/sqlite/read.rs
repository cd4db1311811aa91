//! What is read from the file: entries, pages, histories, volumes, audit and values.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row as SqlRow,
    types::{FromSqlError, ValueRef},
};

use super::{
    PATIENCE,
    lazy::{INDEXED_TO, Sums},
    start::number,
};
use crate::{
    store::{
        AuditLine, Certainty, Digest, Entry, EntrySummary, HeldReason, HistoryLine, Identity,
        KeptAnswer, Outcome, Reason, Receipt, Seq, State, StoreError, StoredRequest, Volume,
        codec::{Checksum, Summed, read_fields, read_labels},
        plan::DAY,
        receipt::Receipts,
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
            .prepare_cached(&format!("SELECT {ENTRY} {JOINED} WHERE l.seq = ?"))?
            .query_row([seq.0], |row| entry(row, receipt))
            .optional()?
            .ok_or(StoreError::NotFound)
    }

    /// Those of these that are there, in the same order.
    pub(in crate::store) fn summaries(
        &self,
        seqs: &[Seq],
        receipts: Receipts,
    ) -> Result<Vec<EntrySummary>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {SUMMARY} {JOINED} WHERE l.seq = ?"))?;
        let mut found = Vec::with_capacity(seqs.len());
        for seq in seqs {
            found.extend(statement.query_row([seq.0], |row| summary(row, receipts)).optional()?);
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
            .prepare_cached("SELECT received_at, held, reason, cause FROM log WHERE seq = ?")?
            .query_row([seq.0], |row| {
                let held = optional_word(row, 1, HeldReason::from_word)?;
                let (reason, cause): (String, String) = (row.get(2)?, row.get(3)?);
                Ok(HistoryLine {
                    at: UnixMillis(row.get(0)?),
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
                let volume = volumes.entry((Reverse(day), Arc::clone(route))).or_insert(Volume {
                    day: day_text(day),
                    route: Arc::clone(route),
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
            .prepare_cached("SELECT seq, received_at, route, amount FROM log WHERE seq > ?")?;
        let mut rows = statement.query([indexed_to])?;
        let mut sums = Sums::default();
        while let Some(row) = rows.next()? {
            sums.add(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?, row.get(3)?);
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

/// Columns of [`summary`]; the state is that of the file.
pub(super) const SUMMARY: &str = "l.seq, l.request_id, l.received_at, l.route, l.method, l.target, l.reason,
    coalesce(s.certainty, l.certainty),
    coalesce(s.state, CASE WHEN l.held IS NULL THEN 'stored' ELSE 'held' END), s.outcome,
    CASE WHEN s.seq IS NULL THEN l.held ELSE s.held END, coalesce(s.attempts, 0), l.amount,
    coalesce(s.expires_at, l.expires_at), l.labels, coalesce(s.not_before, l.not_before), l.key_text,
    s.followed_up";

/// Columns of [`entry`]; the first ones are those of [`SUMMARY`].
const ENTRY: &str = "l.seq, l.request_id, l.received_at, l.route, l.method, l.target, l.reason,
    coalesce(s.certainty, l.certainty),
    coalesce(s.state, CASE WHEN l.held IS NULL THEN 'stored' ELSE 'held' END), s.outcome,
    CASE WHEN s.seq IS NULL THEN l.held ELSE s.held END, coalesce(s.attempts, 0), l.amount,
    coalesce(s.expires_at, l.expires_at), l.labels, coalesce(s.not_before, l.not_before), l.key_text,
    l.upstream, l.key, l.fingerprint, l.principal, l.sequence, l.cause, l.headers, l.body, l.trailers,
    l.client_ip, l.answer_status, l.answer_headers, l.answer_body, l.checksum, l.expires_at,
    s.followed_up";

pub(super) const JOINED: &str = "FROM log l LEFT JOIN state s ON s.seq = l.seq";

pub(super) fn summary(
    row: &SqlRow<'_>,
    receipts: Receipts,
) -> Result<EntrySummary, rusqlite::Error> {
    let seq = Seq(row.get(0)?);
    Ok(EntrySummary {
        seq,
        receipt: receipts.of(seq),
        request_id: row.get(1)?,
        received_at: UnixMillis(row.get(2)?),
        route: row.get::<_, String>(3)?.into(),
        method: row.get(4)?,
        target: row.get(5)?,
        reason: word(row, 6, Reason::from_word)?,
        certainty: word(row, 7, Certainty::from_word)?,
        state: word(row, 8, State::from_word)?,
        outcome: optional_word(row, 9, Outcome::from_word)?,
        held: optional_word(row, 10, HeldReason::from_word)?,
        attempts: row.get(11)?,
        amount: row.get(12)?,
        expires_at: UnixMillis(row.get(13)?),
        labels: read_labels(row.get_ref(14)?.as_str()?).unwrap_or_default(),
        followed_up: row.get::<_, Option<i64>>(17)?.map(UnixMillis),
    })
}

/// The whole entry. Damage that can be told from the bytes makes it not `intact`; nothing is refused.
fn entry(row: &SqlRow<'_>, receipt: Receipt) -> Result<Entry, rusqlite::Error> {
    let key: u128 = digest(row.get(18)?).0;
    let headers = row.get_ref(23)?.as_blob()?;
    let trailers = row.get_ref(25)?.as_blob()?;
    let body = row.get_ref(24)?.as_blob()?;
    let answer_headers = row.get_ref(28)?.as_blob()?;
    let summed = Checksum::of_row(&Summed {
        request_id: row.get_ref(1)?.as_str()?,
        key,
        key_text: row.get_ref(16)?.as_str()?,
        route: row.get_ref(3)?.as_str()?,
        upstream: row.get_ref(17)?.as_str()?,
        expires_at: row.get(31)?,
        method: row.get_ref(4)?.as_str()?,
        target: row.get_ref(5)?.as_str()?,
        headers,
        trailers,
        body,
        answer_status: row.get(27)?,
        answer_headers,
        answer_body: row.get_ref(29)?.as_blob()?,
    });
    let (read_headers, read_trailers) = (read_fields(headers), read_fields(trailers));
    let intact =
        summed == row.get::<_, i64>(30)? && read_headers.is_some() && read_trailers.is_some();
    Ok(Entry {
        seq: Seq(row.get(0)?),
        receipt,
        request_id: row.get(1)?,
        received_at: UnixMillis(row.get(2)?),
        route: row.get::<_, String>(3)?.into(),
        upstream: row.get::<_, String>(17)?.into(),
        identity: Identity {
            key: Digest(key),
            key_text: row.get(16)?,
            fingerprint: digest(row.get(19)?),
            principal: row.get(20)?,
        },
        sequence: row.get::<_, Option<[u8; 16]>>(21)?.map(digest),
        reason: word(row, 6, Reason::from_word)?,
        certainty: word(row, 7, Certainty::from_word)?,
        cause: row.get(22)?,
        not_before: UnixMillis(row.get(15)?),
        expires_at: UnixMillis(row.get(13)?),
        request: StoredRequest {
            method: row.get(4)?,
            target: row.get(5)?,
            headers: read_headers.unwrap_or_default(),
            body: Bytes::copy_from_slice(body),
            trailers: read_trailers.unwrap_or_default(),
            client_ip: row.get(26)?,
        },
        answer: answer(row, 27)?,
        labels: read_labels(row.get_ref(14)?.as_str()?).unwrap_or_default(),
        amount: row.get(12)?,
        state: word(row, 8, State::from_word)?,
        outcome: optional_word(row, 9, Outcome::from_word)?,
        held: optional_word(row, 10, HeldReason::from_word)?,
        attempts: row.get(11)?,
        followed_up: row.get::<_, Option<i64>>(32)?.map(UnixMillis),
        intact,
    })
}

/// The answer the client got, also of an entry whose log row is gone.
pub(super) fn kept_answer(
    connection: &Connection,
    seq: Seq,
) -> Result<KeptAnswer, rusqlite::Error> {
    let columns = "answer_status, answer_headers, answer_body";
    connection
        .prepare_cached(&format!(
            "SELECT {columns} FROM log WHERE seq = ?1 UNION ALL
             SELECT {columns} FROM kept_answer WHERE seq = ?1 LIMIT 1"
        ))?
        .query_row([seq.0], |row| answer(row, 0))
}

/// Status, headers and body in three columns from `at` on.
fn answer(row: &SqlRow<'_>, at: usize) -> Result<KeptAnswer, rusqlite::Error> {
    Ok(KeptAnswer {
        status: row.get(at)?,
        headers: read_fields(row.get_ref(at + 1)?.as_blob()?).unwrap_or_default(),
        body: Bytes::copy_from_slice(row.get_ref(at + 2)?.as_blob()?),
    })
}

pub(super) fn digest(bytes: [u8; 16]) -> Digest {
    Digest(u128::from_be_bytes(bytes))
}

/// A column that holds one of our words; another word is damage.
pub(super) fn word<T>(
    row: &SqlRow<'_>,
    at: usize,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, rusqlite::Error> {
    let text = row.get_ref(at)?.as_str()?;
    read(text).ok_or_else(|| {
        let error = FromSqlError::Other(format!("unknown word {text:?}").into());
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error.into())
    })
}

pub(super) fn optional_word<T>(
    row: &SqlRow<'_>,
    at: usize,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, rusqlite::Error> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        _ => word(row, at, read).map(Some),
    }
}

/// `2026-11-22`
fn day_text(day: i64) -> String {
    let at = UnixMillis(day.saturating_mul(DAY)).to_string();
    at.split('T').next().unwrap_or_default().to_owned()
}
