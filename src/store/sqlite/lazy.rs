//! Index tables built behind the log: what the admin searches by, volumes, and what a start needs of open entries.
//!
//! A segment of entries is read and sorted a portion at a time, then written in that order a portion at a time: each
//! page is written about once, where inserting entry by entry would write random pages over and over. The watermark
//! moves with the last portion. Until then, and for the entries of the unfinished segment, the log itself is searched.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};

use super::{
    Database,
    read::record,
    start::{number, set_number},
};
use crate::store::{StoreError, codec::read_labels, plan::DAY, record::Record};

/// A segment under construction.
#[derive(Debug)]
pub(in crate::store) struct Segment {
    number: i64,
    step: Step,
    terms: Vec<(Vec<u8>, i64)>,
    sums: Sums,
}

/// What comes next: from which entry on, or from which term on.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(i64),
    Terms(usize),
    Brief(i64),
}

/// What is added up over entries: by hour their numbers, by day and route their count and amount.
#[derive(Debug, Default)]
pub(super) struct Sums {
    hours: BTreeMap<i64, (i64, i64)>,
    volumes: BTreeMap<(i64, Arc<str>), (i64, i64)>,
}

impl Database {
    /// Does a portion of what lags behind `last`. True if there is more to do.
    pub(in crate::store) fn index_portion(
        &mut self,
        segment: &mut Option<Segment>,
        last: i64,
    ) -> Result<bool, StoreError> {
        let connection = self.connection()?;
        let Some(building) = segment else {
            let indexed_to = number(connection, INDEXED_TO)?.unwrap_or(0);
            if last - indexed_to < SEGMENT {
                return Ok(false);
            }
            *segment = Some(Segment::new(indexed_to / SEGMENT));
            return Ok(true);
        };
        match building.advance(connection)? {
            Some(next) => building.step = next,
            None => *segment = None,
        }
        Ok(true)
    }
}

impl Segment {
    fn new(number: i64) -> Self {
        let step = Step::Read(number * SEGMENT + 1);
        Self { number, step, terms: Vec::new(), sums: Sums::default() }
    }

    /// Whether an entry belongs to it: if that entry goes, the segment must be built anew.
    pub(in crate::store) fn has(&self, seq: i64) -> bool {
        segment_of(seq) == self.number
    }

    /// The next step; None when the segment is whole.
    fn advance(&mut self, connection: &mut Connection) -> Result<Option<Step>, StoreError> {
        match self.step {
            Step::Read(from) => self.read(connection, from).map(Some),
            Step::Terms(from) => self.write_terms(connection, from).map(Some),
            Step::Brief(from) => self.write_brief(connection, from),
        }
    }

    fn read(&mut self, connection: &Connection, from: i64) -> Result<Step, StoreError> {
        let until = (from + READ).min(self.end());
        let mut statement = connection.prepare_cached(RANGE)?;
        let mut rows = statement.query(params![from, until])?;
        while let Some(row) = rows.next()? {
            let (seq, record) = (row.get(0)?, record(row, 1)?);
            self.terms.extend(terms_of(&record).into_iter().map(|term| (term, seq)));
            self.sums.add(seq, &record);
        }
        if until < self.end() {
            return Ok(Step::Read(until));
        }
        self.terms.sort_unstable();
        self.terms.dedup();
        Ok(Step::Terms(0))
    }

    fn write_terms(&self, connection: &mut Connection, from: usize) -> Result<Step, StoreError> {
        let until = (from + WRITE).min(self.terms.len());
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let sql = "INSERT OR IGNORE INTO term (segment, text, seq) VALUES (?, ?, ?)";
            let mut insert = step.prepare_cached(sql)?;
            for (text, seq) in &self.terms[from..until] {
                insert.execute(params![self.number, text, seq])?;
            }
        }
        step.commit()?;
        let whole = until == self.terms.len();
        Ok(if whole { Step::Brief(self.number * SEGMENT + 1) } else { Step::Terms(until) })
    }

    /// With the last ones the segment counts.
    fn write_brief(
        &self,
        connection: &mut Connection,
        from: i64,
    ) -> Result<Option<Step>, StoreError> {
        let until = (from + READ).min(self.end());
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        briefs(&step, from, until)?;
        let whole = until == self.end();
        if whole {
            self.sums.write(&step)?;
            set_number(&step, INDEXED_TO, until - 1)?;
        }
        step.commit()?;
        Ok((!whole).then_some(Step::Brief(until)))
    }

    /// The first number beyond it.
    fn end(&self) -> i64 {
        (self.number + 1) * SEGMENT + 1
    }
}

impl Sums {
    pub(super) fn add(&mut self, seq: i64, record: &Record<'_>) {
        let received_at = record.received_at();
        let hour = self.hours.entry(received_at.div_euclid(HOUR)).or_insert((seq, seq));
        *hour = (hour.0.min(seq), hour.1.max(seq));
        let of = (received_at.div_euclid(DAY), record.route().into());
        let volume = self.volumes.entry(of).or_default();
        volume.0 += 1;
        volume.1 = volume.1.saturating_add(record.amount());
    }

    pub(super) fn write(&self, step: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        for (hour, (first, last)) in &self.hours {
            step.prepare_cached(
                "INSERT INTO hour (hour, first, last) VALUES (?1, ?2, ?3)
                 ON CONFLICT (hour) DO UPDATE SET first = min(first, ?2), last = max(last, ?3)",
            )?
            .execute(params![hour, first, last])?;
        }
        self.write_volumes(step)
    }

    /// An entry that goes before its segment is whole takes its volume along otherwise.
    pub(super) fn write_volumes(&self, step: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        for ((day, route), (accepted, amount)) in &self.volumes {
            let sql = "SELECT amount FROM volume WHERE day = ? AND route = ?";
            let before: i64 = step
                .prepare_cached(sql)?
                .query_row(params![day, &**route], |row| row.get(0))
                .unwrap_or(0);
            step.prepare_cached(
                "INSERT INTO volume (day, route, accepted, amount) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (day, route) DO UPDATE SET accepted = accepted + ?3, amount = ?4",
            )?
            .execute(params![
                day,
                &**route,
                accepted,
                before.saturating_add(*amount)
            ])?;
        }
        Ok(())
    }

    pub(super) fn volumes(&self) -> impl Iterator<Item = (i64, &Arc<str>, i64, i64)> {
        self.volumes.iter().map(|((day, route), (count, amount))| (*day, route, *count, *amount))
    }
}

/// What a start needs of the open entries of a range.
fn briefs(step: &Transaction<'_>, from: i64, until: i64) -> Result<(), rusqlite::Error> {
    let mut insert = step.prepare_cached(
        "INSERT OR REPLACE INTO brief (seq, received_at, route, upstream, key, fingerprint, sequence,
             customer, amount, not_before, expires_at, certainty, held)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut open = step.prepare_cached(
        "SELECT seq, request_id, record FROM log WHERE seq >= ? AND seq < ? AND NOT EXISTS
             (SELECT 1 FROM state WHERE state.seq = log.seq AND state = 'closed')",
    )?;
    let mut rows = open.query([from, until])?;
    while let Some(row) = rows.next()? {
        let record = record(row, 1)?;
        insert.execute(params![
            row.get::<_, i64>(0)?,
            record.received_at(),
            record.route(),
            record.upstream(),
            record.key().0.to_be_bytes(),
            record.fingerprint().0.to_be_bytes(),
            record.sequence().map(|sequence| sequence.0.to_be_bytes()),
            record.customer().map(|customer| customer.0.to_be_bytes()),
            record.amount(),
            record.not_before(),
            record.expires_at(),
            record.certainty().word(),
            record.held().map(|held| held.word()),
        ])?;
    }
    Ok(())
}

/// All that an entry is found by.
pub(super) fn terms_of(record: &Record<'_>) -> Vec<Vec<u8>> {
    let labels = read_labels(record.labels()).unwrap_or_default();
    let mut terms =
        vec![route_term(record.route()), term(record.request_id()), term(record.key_text())];
    terms.extend(labels.iter().map(|(_, value)| term(value)));
    terms
}

const RANGE: &str =
    "SELECT seq, request_id, record FROM log WHERE seq >= ? AND seq < ? ORDER BY seq";

/// A text as it lies in the index: order is kept, because ids and order numbers that grow with time keep their
/// neighbours then. What is found is compared with the entry itself.
pub(super) fn term(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    if bytes.len() <= LONGEST_TERM {
        return bytes.to_vec();
    }
    let mut term = bytes[..LONGEST_TERM - 8].to_vec();
    term.extend_from_slice(&Sha256::digest(bytes)[..8]);
    term
}

/// Apart from what people search for.
pub(super) fn route_term(route: &str) -> Vec<u8> {
    let mut term = vec![0xff];
    term.extend_from_slice(&self::term(route));
    term
}

pub(super) fn segment_of(seq: i64) -> i64 {
    (seq - 1).div_euclid(SEGMENT)
}

pub(super) const INDEXED_TO: &str = "indexed_to";
/// Entries of a segment: few enough to be searched without an index.
pub(super) const SEGMENT: i64 = 1 << 14;
pub(super) const HOUR: i64 = 3_600_000;
const LONGEST_TERM: usize = 48;
/// Entries read, and rows written, while captures may wait: a millisecond or two.
const READ: i64 = 256;
const WRITE: usize = 1024;
