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
        codec::{read_fields, read_labels},
        plan::DAY,
        receipt::Receipts,
        record::Record,
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

/// Columns of [`Stored`].
pub(super) const STORED: &str =
    "l.seq, l.request_id, l.record, s.state, s.outcome, s.held, s.certainty,
    s.attempts, s.not_before, s.expires_at, s.followed_up";

pub(super) const JOINED: &str = "FROM log l LEFT JOIN state s ON s.seq = l.seq";

/// An entry in the file: its record, and where it stands since it moved.
pub(super) struct Stored<'a> {
    pub(super) seq: Seq,
    pub(super) record: Record<'a>,
    state: State,
    outcome: Option<Outcome>,
    held: Option<HeldReason>,
    certainty: Certainty,
    attempts: u32,
    not_before: i64,
    expires_at: i64,
    followed_up: Option<UnixMillis>,
}

impl<'a> Stored<'a> {
    pub(super) fn read(row: &'a SqlRow<'_>) -> Result<Self, rusqlite::Error> {
        let (seq, record) = (Seq(row.get(0)?), record(row, 1)?);
        if let ValueRef::Null = row.get_ref(3)? {
            let held = record.held();
            return Ok(Self {
                seq,
                state: if held.is_some() { State::Held } else { State::Stored },
                outcome: None,
                held,
                certainty: record.certainty(),
                attempts: 0,
                not_before: record.not_before(),
                expires_at: record.expires_at(),
                followed_up: None,
                record,
            });
        }
        Ok(Self {
            seq,
            record,
            state: word(row, 3, State::from_word)?,
            outcome: optional_word(row, 4, Outcome::from_word)?,
            held: optional_word(row, 5, HeldReason::from_word)?,
            certainty: word(row, 6, Certainty::from_word)?,
            attempts: row.get(7)?,
            not_before: row.get(8)?,
            expires_at: row.get(9)?,
            followed_up: row.get::<_, Option<i64>>(10)?.map(UnixMillis),
        })
    }

    pub(super) fn summary(&self, receipts: Receipts) -> EntrySummary {
        let record = &self.record;
        EntrySummary {
            seq: self.seq,
            receipt: receipts.of(self.seq),
            request_id: record.request_id().to_owned(),
            received_at: UnixMillis(record.received_at()),
            route: record.route().into(),
            method: record.method().to_owned(),
            target: record.target().to_owned(),
            reason: self.reason(),
            certainty: self.certainty,
            state: self.state,
            outcome: self.outcome,
            held: self.held,
            attempts: self.attempts,
            amount: record.amount(),
            expires_at: UnixMillis(self.expires_at),
            labels: read_labels(record.labels()).unwrap_or_default(),
            followed_up: self.followed_up,
        }
    }

    /// A word that is damaged is the entry's least trouble: its checksum says so too.
    fn reason(&self) -> Reason {
        self.record.reason().unwrap_or(Reason::ConnectFailed)
    }

    /// The whole entry. Damage that can be told from the bytes makes it not `intact`; nothing is refused.
    fn entry(&self, receipt: Receipt) -> Entry {
        let record = &self.record;
        let (headers, trailers) = (read_fields(record.headers()), read_fields(record.trailers()));
        let intact = record.is_intact() && headers.is_some() && trailers.is_some();
        Entry {
            seq: self.seq,
            receipt,
            request_id: record.request_id().to_owned(),
            received_at: UnixMillis(record.received_at()),
            route: record.route().into(),
            upstream: record.upstream().into(),
            identity: Identity {
                key: record.key(),
                key_text: record.key_text().to_owned(),
                fingerprint: record.fingerprint(),
                principal: record.principal().to_owned(),
            },
            sequence: record.sequence(),
            reason: self.reason(),
            certainty: self.certainty,
            cause: record.cause().to_owned(),
            not_before: UnixMillis(self.not_before),
            expires_at: UnixMillis(self.expires_at),
            request: StoredRequest {
                method: record.method().to_owned(),
                target: record.target().to_owned(),
                headers: headers.unwrap_or_default(),
                body: Bytes::copy_from_slice(record.body()),
                trailers: trailers.unwrap_or_default(),
                client_ip: record.client_ip().to_owned(),
            },
            answer: answer_of(record),
            labels: read_labels(record.labels()).unwrap_or_default(),
            amount: record.amount(),
            state: self.state,
            outcome: self.outcome,
            held: self.held,
            attempts: self.attempts,
            followed_up: self.followed_up,
            intact,
        }
    }
}

/// Request id and record in two columns from `at` on.
pub(super) fn record<'a>(row: &'a SqlRow<'_>, at: usize) -> Result<Record<'a>, rusqlite::Error> {
    // An id that is no text any more: the checksum covers it.
    let id = row.get_ref(at)?.as_str().unwrap_or_default();
    Ok(Record::of(id, row.get_ref(at + 1)?.as_blob()?))
}

/// The answer the client got, also of an entry whose log row is gone.
pub(super) fn kept_answer(
    connection: &Connection,
    seq: Seq,
) -> Result<KeptAnswer, rusqlite::Error> {
    let stored = connection
        .prepare_cached("SELECT request_id, record FROM log WHERE seq = ?")?
        .query_row([seq.0], |row| Ok(answer_of(&record(row, 0)?)))
        .optional()?;
    match stored {
        Some(answer) => Ok(answer),
        None => connection
            .prepare_cached(
                "SELECT answer_status, answer_headers, answer_body FROM kept_answer WHERE seq = ?",
            )?
            .query_row([seq.0], |row| answer(row, 0)),
    }
}

fn answer_of(record: &Record<'_>) -> KeptAnswer {
    KeptAnswer {
        status: record.answer_status(),
        headers: read_fields(record.answer_headers()).unwrap_or_default(),
        body: Bytes::copy_from_slice(record.answer_body()),
    }
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
