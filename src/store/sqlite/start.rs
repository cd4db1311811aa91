//! What a start does: a new incarnation, claims and sends of the last one settled, the open index rebuilt.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{
    Connection, OptionalExtension, Row as SqlRow, Transaction, TransactionBehavior, params,
};

use super::{
    Database,
    read::{digest, word},
};
use crate::{
    store::{
        Certainty, HeldReason, Outcome, State, StoreError, StoreOptions,
        open_index::{Closed, OpenIndex, Row},
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
        let salt = match number(&step, "salt")? {
            Some(salt) => salt,
            None => {
                let salt = (uuid::Uuid::now_v7().as_u128() as u64).cast_signed();
                set_number(&step, "salt", salt)?;
                salt
            }
        };
        let incarnation = number(&step, "incarnation")?.unwrap_or(0) + 1;
        set_number(&step, "incarnation", incarnation)?;
        settle_sends(&step, options, running, now)?;
        step.commit()?;
        let mut index = OpenIndex::new(options.dedupe_window, incarnation);
        rebuild(connection, &mut index, options, now)?;
        Ok(Started { index, salt: salt.cast_unsigned() })
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
        if let Some(running) = running {
            let goes_on = running.index().row(crate::store::Seq(seq)).is_some_and(|row| {
                row.state == State::Sending && row.fence == fence.cast_unsigned()
            });
            if !goes_on {
                // Its replayer was told that it must not send.
                let why = "the store failed before it was sent";
                let change = "state = 'stored', attempts = max(attempts - 1, 0)";
                step.execute(&format!("UPDATE state SET {change} WHERE seq = ?"), [seq])?;
                line(step, seq, now, State::Stored, None, why, attempts)?;
            }
            continue;
        }
        let interrupted = interrupted + 1;
        let state = after(State::Sending, Event::Start).unwrap_or(State::Stored);
        let (state, held, why) = if interrupted >= INTERRUPTED {
            (
                State::Held,
                Some(HeldReason::Attempts),
                "standin ended while sending it, 3 times in a row",
            )
        } else {
            (state, None, "standin ended while sending it: it may have been applied")
        };
        step.execute(
            "UPDATE state SET state = ?2, held = ?3, certainty = ?4, interrupted = ?5,
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
    }
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

/// Fills the index from the file, in the order of the log.
fn rebuild(
    connection: &Connection,
    index: &mut OpenIndex,
    options: &StoreOptions,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let forgotten = now.minus(options.dedupe_window).0;
    let mut names = Names::default();
    let mut closed: Vec<Closed> = Vec::new();
    let mut declined: HashMap<Arc<str>, u64> = HashMap::new();
    let mut statement = connection.prepare(
        "SELECT l.seq, l.route, l.upstream, l.key, l.fingerprint, l.sequence, l.customer, l.received_at,
             coalesce(s.not_before, l.not_before), coalesce(s.expires_at, l.expires_at), l.amount,
             coalesce(s.state, CASE WHEN l.held IS NULL THEN 'stored' ELSE 'held' END),
             CASE WHEN s.seq IS NULL THEN l.held ELSE s.held END,
             coalesce(s.certainty, l.certainty), coalesce(s.attempts, 0), coalesce(s.interrupted, 0),
             coalesce(s.fence, 0), s.outcome, s.closed_at
         FROM log l LEFT JOIN state s ON s.seq = l.seq ORDER BY l.seq",
    )?;
    let mut rows = statement.query([])?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        let route = names.name(row, 1)?;
        let received_at: i64 = row.get(7)?;
        let customer = row.get::<_, Option<[u8; 16]>>(6)?.map(digest);
        last = row.get(0)?;
        let state: State = word(row, 11, State::from_word)?;
        if state != State::Closed {
            let lane = index.lane(&route, &names.name(row, 2)?);
            index.insert(open_row(row, lane, state)?, customer);
            continue;
        }
        if let Some(customer) = customer {
            index.count_customer(&route, customer, received_at);
        }
        let outcome: Outcome = word(row, 17, Outcome::from_word)?;
        let closed_at: i64 = row.get(18)?;
        if outcome == Outcome::Declined {
            *declined.entry(route).or_default() += 1;
        }
        if closed_at > forgotten {
            let (key, fingerprint) = (digest(row.get(3)?), digest(row.get(4)?));
            closed.push(Closed { seq: last, key, fingerprint, outcome, closed_at });
        }
    }
    closed.extend(remembered(connection, index, &mut names, forgotten)?);
    closed.sort_unstable_by_key(|closed| closed.closed_at);
    closed.into_iter().for_each(|closed| index.remember(closed));
    for (route, declined) in declined {
        index.set_declined(&route, declined);
    }
    let last = last.max(number(connection, "last_seq")?.unwrap_or(0));
    index.continue_after(last);
    Ok(())
}

fn open_row(
    row: &SqlRow<'_>,
    lane: crate::store::open_index::LaneId,
    state: State,
) -> Result<Row, rusqlite::Error> {
    let held: Option<String> = row.get(12)?;
    Ok(Row {
        seq: row.get(0)?,
        key: digest(row.get(3)?),
        fingerprint: digest(row.get(4)?),
        sequence: row.get::<_, Option<[u8; 16]>>(5)?.map(digest),
        lane,
        received_at: row.get(7)?,
        not_before: row.get(8)?,
        expires_at: row.get(9)?,
        amount: row.get(10)?,
        state,
        held: held.as_deref().and_then(HeldReason::from_word),
        certainty: word(row, 13, Certainty::from_word)?,
        attempts: row.get(14)?,
        interrupted: row.get(15)?,
        fence: row.get::<_, i64>(16)?.cast_unsigned(),
    })
}

/// Keys of closed entries whose log rows are gone.
fn remembered(
    connection: &Connection,
    index: &mut OpenIndex,
    names: &mut Names,
    forgotten: i64,
) -> Result<Vec<Closed>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT seq, route, key, fingerprint, customer, received_at, outcome, closed_at
         FROM remembered WHERE closed_at > ?",
    )?;
    let mut rows = statement.query([forgotten])?;
    let mut closed = Vec::new();
    while let Some(row) = rows.next()? {
        let route = names.name(row, 1)?;
        if let Some(customer) = row.get::<_, Option<[u8; 16]>>(4)? {
            index.count_customer(&route, digest(customer), row.get(5)?);
        }
        closed.push(Closed {
            seq: row.get(0)?,
            key: digest(row.get(2)?),
            fingerprint: digest(row.get(3)?),
            outcome: word(row, 6, Outcome::from_word)?,
            closed_at: row.get(7)?,
        });
    }
    Ok(closed)
}

/// Each name is kept once.
#[derive(Default)]
struct Names(HashMap<String, Arc<str>>);

impl Names {
    fn name(&mut self, row: &SqlRow<'_>, column: usize) -> Result<Arc<str>, rusqlite::Error> {
        let name = row.get_ref(column)?.as_str()?;
        if let Some(known) = self.0.get(name) {
            return Ok(Arc::clone(known));
        }
        let shared: Arc<str> = name.into();
        self.0.insert(name.to_owned(), Arc::clone(&shared));
        Ok(shared)
    }
}

pub(super) fn number(connection: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0))
        .optional()
}

pub(super) fn set_number(
    connection: &Connection,
    name: &str,
    value: i64,
) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET value = ?2";
    connection.execute(sql, params![name, value])?;
    Ok(())
}

/// Starts in a row that may find an entry in `sending`; then a person looks at it: it may be what ends standin.
const INTERRUPTED: u32 = 3;
