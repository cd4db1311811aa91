//! What a start does: a new incarnation, sends of the last one settled, the open index rebuilt.

mod open_rows;
mod sends;

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use self::{
    open_rows::{Moved, OpenRows},
    sends::settle_sends,
};
use super::{
    Database,
    lazy::{self, HOUR, INDEXED_TO, SALT},
    retention::{DELETED_AT, LAST_SEQ, OLDEST_OPEN},
    stored::{digest, record, word},
};
use crate::{
    store::{
        Outcome, State, StoreError, StoreOptions,
        open_index::{Closed, OpenIndex},
        shared::Shared,
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
        index.remember(&Closed {
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
    // All that came since then has this number or a higher one; beyond the watermark nothing is known of hours.
    let first: Option<i64> = connection.query_row(
        "SELECT min(first) FROM hour WHERE hour >= ?",
        [since.0.div_euclid(HOUR)],
        |row| row.get(0),
    )?;
    let indexed_to = number(connection, INDEXED_TO)?.unwrap_or(0);
    let first = first.unwrap_or(i64::MAX).min(indexed_to + 1);
    let mut statement = connection.prepare("SELECT request_id, record FROM log WHERE seq >= ?")?;
    let mut rows = statement.query([first])?;
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
