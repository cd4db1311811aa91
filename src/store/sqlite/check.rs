//! Looks for damage within the file: in a moment at start, to the end once a day beside the work. Mends nothing.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use super::Reader;
use crate::store::{Checked, StoreError, StoreOptions, disk};

/// Not for ever: nobody is served meanwhile.
pub(super) fn at_start(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let until = Instant::now() + AT_START;
    let checked = quick_check(connection, path, move || Instant::now() <= until)?;
    if checked == Checked::NotToTheEnd {
        tracing::info!(path = %path.display(), "too large for a whole check at start");
    }
    Ok(())
}

impl Reader {
    /// The whole file, slowly: works a little, rests longer. Gives way where the log could not be emptied because of it,
    /// and when nobody wants to know any more.
    pub(in crate::store) fn check(
        &mut self,
        options: &StoreOptions,
        unwanted: Arc<AtomicBool>,
    ) -> Result<Checked, StoreError> {
        let path = options.path.clone();
        let log = disk::beside(&path, "-wal");
        let log = move || log.metadata().map_or(0, |log| log.len());
        let longest_log = log() + disk::wal_bytes(&path, options.max_bytes) * LOGS;
        let began = Instant::now();
        let mut slice = began;
        quick_check(&mut self.connection, &options.path, move || {
            if unwanted.load(Ordering::Relaxed) {
                return false;
            }
            let worked = slice.elapsed();
            if worked < SLICE {
                return true;
            }
            std::thread::sleep((worked * RESTS).min(LONGEST_REST));
            slice = Instant::now();
            // Pages of the log that this reader may still need are not written over.
            began.elapsed() < LONGEST && log() <= longest_log
        })
    }
}

/// `go_on` is asked now and then.
fn quick_check(
    connection: &mut Connection,
    path: &Path,
    mut go_on: impl FnMut() -> bool + Send + 'static,
) -> Result<Checked, StoreError> {
    connection.progress_handler(STEPS, Some(move || !go_on()))?;
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    let damaged = |why: &dyn std::fmt::Display| {
        Err(StoreError::Damaged(format!("{} is damaged: {why}", path.display())))
    };
    match found {
        Ok(verdict) if verdict == "ok" => Ok(Checked::Sound),
        Ok(damage) => damaged(&damage),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Ok(Checked::NotToTheEnd),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(&error),
            _ => Err(error.into()),
        },
    }
}

/// SQLite's steps between two questions whether to go on.
const STEPS: i32 = 1_000;
const AT_START: Duration = Duration::from_secs(1);
/// Work in one go, and how many times as long the rest is.
const SLICE: Duration = Duration::from_millis(5);
const RESTS: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(200);
/// How many times its usual length the log may grow meanwhile.
const LOGS: u64 = 8;
const LONGEST: Duration = Duration::from_secs(3600);
