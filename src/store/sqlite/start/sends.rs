//! Sends that were under way when the process ended, or when the store failed.

use rusqlite::{Transaction, params};

use super::number;
use crate::{
    store::{
        Certainty, HeldReason, Seq, State, StoreError, StoreOptions,
        shared::Shared,
        sqlite::retention::OLDEST_OPEN,
        transition::{Event, after},
    },
    time::UnixMillis,
};

/// Entries found in `sending`: nobody waits for them any more. What was sent may have been applied.
pub(super) fn settle_sends(
    step: &Transaction<'_>,
    options: &StoreOptions,
    running: Option<&Shared>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut found = step.prepare(
        "SELECT seq, fence, attempts, interrupted FROM state WHERE state = 'sending' AND seq >= ?
             ORDER BY seq",
    )?;
    // All below it are closed, and there may be millions.
    let oldest_open = number(step, OLDEST_OPEN)?.unwrap_or(0);
    let found: Vec<(i64, i64, u32, u32)> = found
        .query_map([oldest_open], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
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

/// Starts in a row that may find an entry in `sending`; then a person looks at it: it may be what ends standin.
const INTERRUPTED: u32 = 3;
