//! Copies the log into the file beside the writer, so that no batch waits for it. The log is full of what has come
//! meanwhile when it is done: the rest, and the log's new beginning, are the writer's (`Database::checkpoint_if_due`).

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, Synchronous, prepare_sync};

/// See the module. Its thread begins with the first round, and ends with it.
#[derive(Debug)]
pub(super) struct Checkpointer {
    path: PathBuf,
    synchronous: Synchronous,
    working: Option<Working>,
}

#[derive(Debug)]
struct Working {
    ask: Sender<()>,
    round: Arc<Round>,
    thread: JoinHandle<()>,
}

/// Whether a round is under way.
#[derive(Debug, Default)]
struct Round {
    on: Mutex<bool>,
    over: Condvar,
}

impl Checkpointer {
    pub(super) fn new(path: PathBuf, synchronous: Synchronous) -> Self {
        Self { path, synchronous, working: None }
    }

    /// Begins a round, unless one is under way.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        let working = match &mut self.working {
            Some(working) => working,
            none => none.insert(Working::start(self.path.clone(), self.synchronous)?),
        };
        let mut on = working.round.lock();
        if !*on {
            *on = true;
            working.ask.send(()).map_err(|_| StoreError::Failed("its thread has ended".into()))?;
        }
        Ok(())
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.working.as_ref().is_some_and(|working| *working.round.lock())
    }

    /// Until the round is over.
    pub(super) fn wait(&self) {
        if let Some(working) = &self.working {
            working.round.wait();
        }
    }

    /// Waits for the round and closes the connection: before the writer's own is closed or wants the file for itself.
    pub(super) fn end(&mut self) {
        if let Some(Working { ask, thread, .. }) = self.working.take() {
            drop(ask);
            if thread.join().is_err() {
                tracing::error!("the thread of checkpoints has panicked");
            }
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Working {
    fn start(path: PathBuf, synchronous: Synchronous) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        prepare_sync(&connection, synchronous)?;
        let (ask, asked) = channel();
        let round = Arc::new(Round::default());
        let of_thread = Arc::clone(&round);
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || work(&connection, &asked, &of_thread))
            .map_err(|error| StoreError::Failed(format!("no thread: {error}")))?;
        Ok(Self { ask, round, thread })
    }
}

fn work(connection: &Connection, asked: &Receiver<()>, round: &Round) {
    while asked.recv().is_ok() {
        // What was copied is told by the log itself, to whoever continues.
        let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = copied {
            // The log keeps everything; the next commit or the next checkpoint meets the fault again.
            tracing::warn!(%error, "checkpoint failed");
        }
        round.end();
    }
    // Whoever waits does not wait for a thread that is gone.
    round.end();
}

impl Round {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        *self.lock() = false;
        self.over.notify_all();
    }

    fn wait(&self) {
        let mut on = self.lock();
        while *on {
            on = self.over.wait(on).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> (PathBuf, Connection) {
        let path = folder.path().join("a.db");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        prepare_sync(&writer, Synchronous::Full).unwrap();
        writer
            .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000))")
            .unwrap();
        (path, writer)
    }

    /// Pages of the log, and how many of them are in the file already.
    fn log(writer: &Connection) -> (i64, i64) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
        writer.query_row("PRAGMA wal_checkpoint(NOOP)", [], row).unwrap()
    }

    #[test]
    fn a_round_copies_what_there_is_and_the_log_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = file(&folder);
        let mut checkpointer = Checkpointer::new(path, Synchronous::Full);
        let (pages, copied) = log(&writer);
        assert!(pages > 20 && copied == 0, "{pages} {copied}");
        checkpointer.begin().unwrap();
        checkpointer.wait();
        assert!(!checkpointer.is_at_work());
        assert_eq!(log(&writer), (pages, pages));
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert!(log(&writer).0 < pages);
    }

    #[test]
    fn one_that_cannot_is_told_and_none_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("none").join("a.db");
        let mut checkpointer = Checkpointer::new(nowhere, Synchronous::Full);
        assert!(checkpointer.begin().is_err());
        checkpointer.wait();
        assert!(!checkpointer.is_at_work());
    }

    #[test]
    fn at_its_end_the_writers_connection_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let (path, writer) = file(&folder);
        let log_file = folder.path().join("a.db-wal");
        let mut checkpointer = Checkpointer::new(path, Synchronous::Full);
        checkpointer.begin().unwrap();
        checkpointer.end();
        // Whoever closes last takes the log away.
        assert!(log_file.exists());
        drop(writer);
        assert!(!log_file.exists());
    }
}
