//! Writes one batch: one transaction, one sync.

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior,
    params,
};

use super::{
    Database,
    start::{CUSTOMER_WINDOW, set_number},
    stored::{self, record},
};
#[cfg(test)]
use crate::store::Fault;
use crate::store::{
    AuditLine, KeptAnswer, Outcome,
    codec::{self, Prepared},
    open_index::Row,
    plan::{Decided, Line, Plan, Write},
};
use crate::time::UnixMillis;

/// Why a batch is not written.
#[derive(Debug)]
pub(in crate::store) enum WriteError {
    /// The disk is full; nothing of the batch is there.
    Full,
    /// Nothing of the batch is there; another one may succeed.
    Refused(String),
    /// Nobody knows what of it is on disk.
    Broken(String),
}

impl Database {
    /// Writes all of it durably, or says why not. Gives the kept answers that captures of known keys ask for.
    pub(in crate::store) fn write(
        &mut self,
        plan: &Plan,
    ) -> Result<Vec<Option<KeptAnswer>>, WriteError> {
        #[cfg(test)]
        let fault = self.hook.faults.lock().unwrap().pop_front();
        #[cfg(test)]
        match fault {
            Some(Fault::Full) => return Err(WriteError::Full),
            Some(Fault::LostBeforeCommit) => return Err(WriteError::Broken("a test".into())),
            Some(Fault::UnknownAfterCommit | Fault::CustomersUnread | Fault::None) | None => {}
        }
        let connection =
            self.connection().map_err(|error| WriteError::Broken(error.to_string()))?;
        let written = try_write(connection, plan);
        #[cfg(test)]
        if matches!(fault, Some(Fault::UnknownAfterCommit)) {
            return Err(WriteError::Broken("a test".into()));
        }
        if written.is_err() && !connection.is_autocommit() {
            connection
                .execute_batch("ROLLBACK")
                .map_err(|error| WriteError::Broken(error.to_string()))?;
        }
        written
    }
}

fn try_write(
    connection: &mut Connection,
    plan: &Plan,
) -> Result<Vec<Option<KeptAnswer>>, WriteError> {
    if plan.entries.is_empty() && plan.writes.is_empty() {
        return Ok(kept_answers(connection, plan)?);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut statements = Statements::new(&transaction)?;
    for (seq, entry) in &plan.entries {
        statements.entry(*seq, entry)?;
    }
    for write in &plan.writes {
        statements.write(write, plan.now)?;
    }
    drop(statements);
    write_volumes(&transaction, plan)?;
    let kept = kept_answers(&transaction, plan)?;
    wal_vfs::gather(|| transaction.commit())?;
    Ok(kept)
}

fn kept_answers(
    connection: &Connection,
    plan: &Plan,
) -> Result<Vec<Option<KeptAnswer>>, rusqlite::Error> {
    plan.captures
        .iter()
        .map(|(_, decided)| match decided {
            Decided::Same { seq, .. } => stored::kept_answer(connection, *seq).optional(),
            _ => Ok(None),
        })
        .collect()
}

/// Prepared once per batch.
struct Statements<'a> {
    connection: &'a Transaction<'a>,
    entry: CachedStatement<'a>,
    moved: CachedStatement<'a>,
    closed: CachedStatement<'a>,
    stored: CachedStatement<'a>,
    line: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    fn new(connection: &'a Transaction<'a>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            connection,
            entry: connection.prepare_cached(
                "INSERT INTO log (seq, request_id, record) VALUES (?, ?, ?)",
            )?,
            moved: connection.prepare_cached(
                "INSERT INTO state (seq, state, held, certainty, attempts, interrupted, not_before,
                     expires_at, fence)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (seq) DO UPDATE SET state = ?2, held = ?3, certainty = ?4, attempts = ?5,
                     interrupted = ?6, not_before = ?7, expires_at = ?8, fence = ?9",
            )?,
            closed: connection.prepare_cached(
                "INSERT OR REPLACE INTO state (seq, state, outcome, certainty, attempts, interrupted,
                     not_before, expires_at, fence, closed_at, key, fingerprint, route, customer, received_at)
                 VALUES (?, 'closed', ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?,
            stored: connection.prepare_cached("SELECT request_id, record FROM log WHERE seq = ?")?,
            line: connection.prepare_cached(
                "INSERT INTO history (seq, line, at, state, outcome, held, who, why, attempt,
                     answer_status, answer_headers, answer_body)
                 VALUES (?1, 1 + coalesce((SELECT max(line) FROM history WHERE seq = ?1), 0),
                     ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?,
        })
    }

    fn write(&mut self, write: &Write, now: UnixMillis) -> Result<(), WriteError> {
        match write {
            Write::Move { row, closed, line } => {
                match *closed {
                    None => self.moved(row)?,
                    Some((outcome, at)) => self.closed(row, outcome, at)?,
                }
                self.line(row.seq, line, now)
            }
            Write::Line { seq, line } => self.line(*seq, line, now),
            Write::FollowedUp { seq } => Ok(self.followed_up(*seq, now)?),
            Write::Audit(line) => Ok(self.audit(line)?),
            Write::Value { name, value } => Ok(self.value(name, value)?),
            Write::CustomerWindow(window) => {
                Ok(set_number(self.connection, CUSTOMER_WINDOW, *window)?)
            }
        }
    }

    fn entry(&mut self, seq: i64, entry: &Prepared) -> Result<(), rusqlite::Error> {
        self.entry.execute(params![seq, entry.request_id, entry.record])?;
        Ok(())
    }

    fn moved(&mut self, row: &Row) -> Result<(), rusqlite::Error> {
        self.moved.execute(params![
            row.seq,
            row.state.word(),
            row.held.map(|held| held.word()),
            row.certainty.word(),
            row.attempts,
            row.interrupted,
            row.not_before,
            row.expires_at,
            row.fence.cast_signed(),
        ])?;
        Ok(())
    }

    fn closed(&mut self, row: &Row, outcome: Outcome, at: UnixMillis) -> Result<(), WriteError> {
        let mut found = self.stored.query([row.seq])?;
        let Some(stored) = found.next()? else {
            return Err(WriteError::Broken(format!("entry {} has no row in the log", row.seq)));
        };
        let record = record(stored, 0)?;
        self.closed.execute(params![
            row.seq,
            outcome.word(),
            row.certainty.word(),
            row.attempts,
            row.not_before,
            row.expires_at,
            row.fence.cast_signed(),
            at.0,
            record.key().0.to_be_bytes(),
            record.fingerprint().0.to_be_bytes(),
            record.route(),
            record.customer().map(|customer| customer.0.to_be_bytes()),
            record.received_at(),
        ])?;
        Ok(())
    }

    fn line(&mut self, seq: i64, line: &Line, now: UnixMillis) -> Result<(), WriteError> {
        let headers = line.answer.as_ref().map(|answer| codec::fields(&answer.headers));
        let headers =
            headers.transpose().map_err(|error| WriteError::Refused(error.to_string()))?;
        self.line.execute(params![
            seq,
            now.0,
            line.state.word(),
            line.outcome.map(|outcome| outcome.word()),
            line.held.map(|held| held.word()),
            line.who,
            line.why,
            line.attempt,
            line.answer.as_ref().map(|answer| answer.status),
            headers,
            line.answer.as_ref().map(|answer| &answer.body[..]),
        ])?;
        Ok(())
    }

    fn followed_up(&self, seq: i64, now: UnixMillis) -> Result<(), rusqlite::Error> {
        let sql = "UPDATE state SET followed_up = ? WHERE seq = ? AND outcome = 'declined'";
        self.connection.prepare_cached(sql)?.execute([now.0, seq])?;
        Ok(())
    }

    fn audit(&self, line: &AuditLine) -> Result<(), rusqlite::Error> {
        let sql = "INSERT INTO audit (at, who, what, done_to, why) VALUES (?, ?, ?, ?, ?)";
        self.connection
            .prepare_cached(sql)?
            .execute(params![line.at.0, line.who, line.what, line.on, line.why])?;
        Ok(())
    }

    fn value(&self, name: &str, value: &str) -> Result<(), rusqlite::Error> {
        let sql = "INSERT INTO value (name, value) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET value = ?2";
        self.connection.prepare_cached(sql)?.execute(params![name, value])?;
        Ok(())
    }
}

/// One statement per day, route and outcome of the batch, in the transaction of the marks: exact after any crash.
fn write_volumes(transaction: &Transaction<'_>, plan: &Plan) -> Result<(), rusqlite::Error> {
    for ((day, route, outcome), count) in &plan.volumes {
        let column = match outcome {
            Outcome::Completed | Outcome::AlreadyApplied => "completed",
            Outcome::Declined => "declined",
            Outcome::WrittenOff => "written_off",
        };
        let sql = format!(
            "INSERT INTO volume (day, route, {column}) VALUES (?1, ?2, ?3)
             ON CONFLICT (day, route) DO UPDATE SET {column} = {column} + ?3"
        );
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        transaction.prepare_cached(&sql)?.execute(params![day, &**route, count])?;
    }
    Ok(())
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode as C;
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(C::DiskFull) => Self::Full,
            Some(
                C::DatabaseBusy
                | C::DatabaseLocked
                | C::TooBig
                | C::OutOfMemory
                | C::TypeMismatch
                | C::ApiMisuse
                | C::ParameterOutOfRange,
            ) => Self::Refused(why),
            // A number that is there already: the index and the file differ. Reading the file again settles it.
            Some(_) => Self::Broken(why),
            None => Self::Refused(why),
        }
    }
}
