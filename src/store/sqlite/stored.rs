//! Rows of the file as entries: the record, and where the entry stands since it moved.

use bytes::Bytes;
use rusqlite::{
    Connection, OptionalExtension, Row as SqlRow,
    types::{FromSqlError, ValueRef},
};

use crate::{
    store::{
        Certainty, Digest, Entry, EntrySummary, HeldReason, Identity, KeptAnswer, Outcome, Reason,
        Receipt, Seq, State, StoredRequest,
        codec::{read_fields, read_labels},
        receipt::Receipts,
        record::Record,
    },
    time::UnixMillis,
};

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
    pub(super) fn entry(&self, receipt: Receipt) -> Entry {
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
pub(super) fn answer(row: &SqlRow<'_>, at: usize) -> Result<KeptAnswer, rusqlite::Error> {
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
