//! What a start does: a new incarnation, sends of the last one settled, the open index rebuilt.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{
    Connection, OptionalExtension, Row as SqlRow, Transaction, TransactionBehavior, params,
};

use super::{
    Database,
    lazy::{self, INDEXED_TO, SALT, briefs},
    read::{digest, optional_word, record, word},
    retention::{DELETED_AT, LAST_SEQ, OLDEST_OPEN},
};
use crate::{
    store::{
        Certainty, Digest, HeldReason, Outcome, Seq, State, StoreError, StoreOptions,
        open_index::{Closed, OpenIndex, Row},
        record::Record,
        shared::Shared,
        transition::{Event, after},
    },
    time::UnixMillis,
};

#[derive(Debug)]
pub(in crate::store) struct Started {
    pub(in crate::store) index: OpenIndex,
    pub(in crate::store) salt: u64,
}

impl Database {
    /// `running` is given when the file is opened again within the life of a process: sends that its replayers know
    /// of go on.
    pub(in crate::store) fn start(
        &mut self,
        options: &StoreOptions,
        running: Option<&Shared>,
    ) -> Result<Started, StoreError> {
        let now = UnixMillis::now();
        let connection = self.connection()?;
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let salt = match number(&step, SALT)? {
            Some(salt) => salt,
            None => {
                let salt = (uuid::Uuid::now_v7().as_u128() as u64).cast_signed();
                set_number(&step, SALT, salt)?;
                salt
            }
        };
        let incarnation = number(&step, "incarnation")?.unwrap_or(0) + 1;
        set_number(&step, "incarnation", incarnation)?;
        settle_sends(&step, options, running, now)?;
        lazy::delete_unfinished(&step)?;
        step.commit()?;
        let mut index = OpenIndex::new(options.dedupe_window, incarnation, now);
        rebuild(connection, &mut index, options, now)?;
        Ok(Started { index, salt: salt.cast_unsigned() })
    }

    /// Counts per customer further back than was asked for so far. If it fails, what was counted before stands.
    pub(in crate::store) fn count_customers(
        &mut self,
        index: &mut OpenIndex,
        since: UnixMillis,
    ) -> Result<(), StoreError> {
        #[cfg(test)]
        let fails = self.hook.fails(crate::store::Fault::CustomersUnread);
        #[cfg(not(test))]
        let fails = false;
        let connection = self.connection()?;
        let before = index.take_customers();
        let counted = if fails {
            Err(StoreError::Failed("a test".into()))
        } else {
            count_customers(connection, index, since)
        };
        if counted.is_err() {
            index.put_customers_back(before);
        }
        counted
    }
}

/// Entries found in `sending`: nobody waits for them any more. What was sent may have been applied.
fn settle_sends(
    step: &Transaction<'_>,
    options: &StoreOptions,
    running: Option<&Shared>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut found = step.prepare(
        "SELECT seq, fence, attempts, interrupted FROM state WHERE state = 'sending' ORDER BY seq",
    )?;
    let found: Vec<(i64, i64, u32, u32)> = found
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    for (seq, fence, attempts, interrupted) in found {
        let Some(running) = running else {
            interrupted_send(step, options, now, seq, attempts, interrupted + 1)?;
            continue;
        };
        let goes_on = running
            .index()
            .row(Seq(seq))
            .is_some_and(|row| row.state == State::Sending && row.fence == fence.cast_unsigned());
        if !goes_on {
            // Its replayer was told that it must not send.
            let change = "state = 'stored', attempts = max(attempts - 1, 0), fence = 0";
            step.execute(&format!("UPDATE state SET {change} WHERE seq = ?"), [seq])?;
            let why = "the store failed before it was sent";
            line(step, seq, now, State::Stored, None, why, attempts)?;
        }
    }
    Ok(())
}

fn interrupted_send(
    step: &Transaction<'_>,
    options: &StoreOptions,
    now: UnixMillis,
    seq: i64,
    attempts: u32,
    interrupted: u32,
) -> Result<(), StoreError> {
    let (state, held, why) = if interrupted >= INTERRUPTED {
        let why = "standin ended while sending it, 3 times in a row";
        (State::Held, Some(HeldReason::Attempts), why)
    } else {
        let state = after(State::Sending, Event::Start).unwrap_or(State::Stored);
        (state, None, "standin ended while sending it: it may have been applied")
    };
    step.execute(
        "UPDATE state SET state = ?2, held = ?3, certainty = ?4, interrupted = ?5, fence = 0,
             not_before = max(not_before, ?6) WHERE seq = ?1",
        params![
            seq,
            state.word(),
            held.map(HeldReason::word),
            Certainty::SentUnknown.word(),
            interrupted,
            now.plus(options.late_window).0,
        ],
    )?;
    line(step, seq, now, state, held, why, attempts)?;
    Ok(())
}

fn line(
    step: &Transaction<'_>,
    seq: i64,
    now: UnixMillis,
    state: State,
    held: Option<HeldReason>,
    why: &str,
    attempt: u32,
) -> Result<(), rusqlite::Error> {
    step.execute(
        "INSERT INTO history (seq, line, at, state, held, who, why, attempt)
         VALUES (?1, 1 + coalesce((SELECT max(line) FROM history WHERE seq = ?1), 0), ?2, ?3, ?4,
             'start', ?5, ?6)",
        params![seq, now.0, state.word(), held.map(HeldReason::word), why, attempt],
    )?;
    Ok(())
}

/// Fills the index. Open entries are those that `state` does not call closed; whole stretches of closed ones, and of
/// deleted ones, are passed over.
fn rebuild(
    connection: &Connection,
    index: &mut OpenIndex,
    options: &StoreOptions,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut open = OpenRows { connection, index, names: Names::default(), block: None };
    let mut next = number(connection, OLDEST_OPEN)?.unwrap_or(0);
    let mut last_moved = 0;
    let mut statement = connection.prepare(
        "SELECT seq, state, held, certainty, attempts, interrupted, not_before, expires_at, fence
         FROM state WHERE seq >= ? ORDER BY seq",
    )?;
    let mut rows = statement.query([next])?;
    while let Some(row) = rows.next()? {
        let moved = Moved::read(row)?;
        open.untouched(next, moved.seq)?;
        next = moved.seq + 1;
        last_moved = moved.seq;
        if moved.state != State::Closed {
            open.moved(&moved)?;
        }
    }
    open.untouched(next, i64::MAX)?;
    let names = open.names;
    remember_closed(connection, index, names, now.minus(options.dedupe_window))?;
    let window = number(connection, CUSTOMER_WINDOW)?.unwrap_or(0);
    if window > 0 {
        index.set_customer_window(window);
        count_customers(connection, index, UnixMillis(now.0.saturating_sub(window)))?;
    }
    index.no_closing_before(number(connection, DELETED_AT)?.unwrap_or(0));
    let last: Option<i64> =
        connection.query_row("SELECT max(seq) FROM log", [], |row| row.get(0))?;
    let ever = number(connection, LAST_SEQ)?.unwrap_or(0);
    index.continue_after(last.unwrap_or(0).max(last_moved).max(ever));
    Ok(())
}

/// Reads open entries into the index, from their briefs where there are any.
struct OpenRows<'a> {
    connection: &'a Connection,
    index: &'a mut OpenIndex,
    names: Names,
    /// The block of briefs that was read last: entries that moved lie between those that did not.
    block: Option<(i64, Vec<u8>)>,
}

/// A row of `state`.
struct Moved {
    seq: i64,
    state: State,
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
    fn untouched(&mut self, from: i64, until: i64) -> Result<(), StoreError> {
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

    fn moved(&mut self, moved: &Moved) -> Result<(), StoreError> {
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
    fn read(row: &SqlRow<'_>) -> Result<Self, rusqlite::Error> {
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

/// Keys of closed entries within the dedupe window, and how many declined ones are kept.
fn remember_closed(
    connection: &Connection,
    index: &mut OpenIndex,
    mut names: Names,
    forgotten: UnixMillis,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(
        "SELECT seq, key, fingerprint, outcome, closed_at FROM state
         WHERE closed_at IS NOT NULL AND closed_at > ? ORDER BY closed_at, seq",
    )?;
    let mut rows = statement.query([forgotten.0])?;
    while let Some(row) = rows.next()? {
        index.remember(Closed {
            seq: row.get(0)?,
            key: digest(row.get(1)?).into(),
            fingerprint: digest(row.get(2)?).into(),
            outcome: word(row, 3, Outcome::from_word)?,
            closed_at: row.get(4)?,
        });
    }
    let mut statement = connection.prepare(
        "SELECT s.route, count(*) FROM state s WHERE s.outcome = 'declined' AND s.followed_up IS NULL
             AND EXISTS (SELECT 1 FROM log l WHERE l.seq = s.seq) GROUP BY s.route",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let declined: i64 = row.get(1)?;
        index.set_declined(&names.name(row.get_ref(0)?.as_str()?), declined.cast_unsigned());
    }
    Ok(())
}

fn count_customers(
    connection: &Connection,
    index: &mut OpenIndex,
    since: UnixMillis,
) -> Result<(), StoreError> {
    let mut names = Names::default();
    let mut statement = connection.prepare("SELECT request_id, record FROM log")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let record = record(row, 0)?;
        if let Some(customer) = record.customer()
            && record.received_at() > since.0
        {
            let route = names.name(record.route());
            index.count_customer(&route, customer, record.received_at());
        }
    }
    let mut statement = connection.prepare(
        "SELECT route, customer, received_at FROM state
         WHERE closed_at IS NOT NULL AND closed_at > ?1 AND customer IS NOT NULL AND received_at > ?1
             AND NOT EXISTS (SELECT 1 FROM log WHERE log.seq = state.seq)",
    )?;
    let mut rows = statement.query([since.0])?;
    while let Some(row) = rows.next()? {
        let route = names.name(row.get_ref(0)?.as_str()?);
        index.count_customer(&route, digest(row.get(1)?), row.get(2)?);
    }
    Ok(())
}

/// Each name is kept once.
#[derive(Default)]
struct Names(HashMap<String, Arc<str>>);

impl Names {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.0.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }
}

pub(super) fn number(connection: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn set_number(
    connection: &Connection,
    name: &str,
    value: i64,
) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET value = ?2";
    connection.prepare_cached(sql)?.execute(params![name, value])?;
    Ok(())
}

/// Milliseconds: the longest window over which entries per customer were ever counted.
pub(super) const CUSTOMER_WINDOW: &str = "customer_window";
/// Starts in a row that may find an entry in `sending`; then a person looks at it: it may be what ends standin.
const INTERRUPTED: u32 = 3;
