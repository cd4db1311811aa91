//! Reads open entries into the index, from their briefs where there are any.

use rusqlite::{Connection, Row as SqlRow};

use super::{Names, number};
use crate::store::{
    Certainty, Digest, HeldReason, State, StoreError,
    open_index::{OpenIndex, Row},
    record::Record,
    sqlite::{
        lazy::{INDEXED_TO, briefs},
        stored::{optional_word, record, word},
    },
};

/// See the module.
pub(super) struct OpenRows<'a> {
    pub(super) connection: &'a Connection,
    pub(super) index: &'a mut OpenIndex,
    pub(super) names: Names,
    /// The block of briefs that was read last: entries that moved lie between those that did not.
    pub(super) block: Option<(i64, Vec<u8>)>,
}

/// A row of `state`.
pub(super) struct Moved {
    pub(super) seq: i64,
    pub(super) state: State,
    held: Option<HeldReason>,
    certainty: Certainty,
    attempts: u32,
    interrupted: u8,
    not_before: i64,
    expires_at: i64,
    fence: u64,
}

impl OpenRows<'_> {
    /// Entries that never moved, of a range.
    pub(super) fn untouched(&mut self, from: i64, until: i64) -> Result<(), StoreError> {
        if from >= until {
            return Ok(());
        }
        let indexed_to = number(self.connection, INDEXED_TO)?.unwrap_or(0);
        let mut next = from;
        while next < until.min(indexed_to + 1) {
            let end = ((briefs::block_of(next) + 1) * briefs::BLOCK + 1).min(until);
            self.indexed(next, end)?;
            next = end;
        }
        self.logged(from.max(indexed_to + 1), until)
    }

    /// A range within one block.
    fn indexed(&mut self, from: i64, until: i64) -> Result<(), StoreError> {
        let id = briefs::block_of(from);
        let block = match self.block.take().filter(|(read, _)| *read == id) {
            Some((_, block)) => block,
            None => match briefs::stored(self.connection, id)? {
                Some(block) => block,
                None => return Ok(()),
            },
        };
        match briefs::entries(id, &block) {
            Some(entries) => {
                let range = |seq| (from..until).contains(&seq);
                for (seq, brief) in entries.into_iter().filter(|(seq, _)| range(*seq)) {
                    let stored = self.stored(seq, &Record::of("", brief));
                    self.insert(stored, None);
                }
            }
            None => self.logged(from, until)?,
        }
        self.block = Some((id, block));
        Ok(())
    }

    /// A range of which there are no briefs.
    fn logged(&mut self, from: i64, until: i64) -> Result<(), StoreError> {
        let sql = "SELECT seq, request_id, record FROM log WHERE seq >= ? AND seq < ? ORDER BY seq";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([from, until])?;
        while let Some(row) = rows.next()? {
            let stored = self.stored(row.get(0)?, &record(row, 1)?);
            self.insert(stored, None);
        }
        Ok(())
    }

    pub(super) fn moved(&mut self, moved: &Moved) -> Result<(), StoreError> {
        let sql = "SELECT request_id, record FROM log WHERE seq = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([moved.seq])?;
        match rows.next()? {
            Some(row) => {
                let stored = self.stored(moved.seq, &record(row, 0)?);
                self.insert(stored, Some(moved));
            }
            // Never seen; a row of the log that is gone cannot be replayed, and must not stop the others.
            None => tracing::error!(seq = moved.seq, "an open entry has no row in the log"),
        }
        Ok(())
    }

    fn stored(&mut self, seq: i64, record: &Record<'_>) -> (Row, Option<Digest>) {
        let (route, upstream) =
            (self.names.name(record.route()), self.names.name(record.upstream()));
        let (sequence, held) = (record.sequence(), record.held());
        let stored = Row {
            seq,
            lane: self.index.lane(&route, &upstream),
            key: record.key().into(),
            fingerprint: record.fingerprint().into(),
            in_sequence: sequence.is_some(),
            received_at: record.received_at(),
            amount: record.amount(),
            not_before: record.not_before(),
            expires_at: record.expires_at(),
            certainty: record.certainty(),
            state: if held.is_some() { State::Held } else { State::Stored },
            held,
            attempts: 0,
            interrupted: 0,
            fence: 0,
        };
        (stored, sequence)
    }

    fn insert(&mut self, (untouched, sequence): (Row, Option<Digest>), moved: Option<&Moved>) {
        let row = match moved {
            None => untouched,
            Some(moved) => Row {
                state: moved.state,
                held: moved.held,
                certainty: moved.certainty,
                attempts: moved.attempts,
                interrupted: moved.interrupted,
                not_before: moved.not_before,
                expires_at: moved.expires_at,
                fence: moved.fence,
                ..untouched
            },
        };
        // Customers are counted apart: closed entries count too.
        self.index.insert(row, sequence, None);
    }
}

impl Moved {
    pub(super) fn read(row: &SqlRow<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            seq: row.get(0)?,
            state: word(row, 1, State::from_word)?,
            held: optional_word(row, 2, HeldReason::from_word)?,
            certainty: word(row, 3, Certainty::from_word)?,
            attempts: row.get(4)?,
            interrupted: row.get(5)?,
            not_before: row.get(6)?,
            expires_at: row.get(7)?,
            fence: row.get::<_, i64>(8)?.cast_unsigned(),
        })
    }
}
