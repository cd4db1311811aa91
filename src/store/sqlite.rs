//! SQLite under the verbs: one connection that writes, in WAL mode with a sync at every commit, and some that only read.
//! Frames of a commit reach the log together (`wal-vfs/`).
//!
//! `check` looks for damage, `checkpointer` moves the log into the file, `start` rebuilds the open index, `write` writes batches, `read`
//! and `page` answer questions, `stored` reads rows, `lazy` builds index tables behind the log, `retention` deletes.

mod check;
mod checkpointer;
mod lazy;
mod page;
mod read;
mod records;
mod retention;
mod start;
mod stored;
mod write;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, config::DbConfig};

use super::{
    StoreError, StoreOptions, Synchronous,
    disk::{self, Places},
};

use checkpointer::Checkpointer;
pub(super) use lazy::Indexer;
pub(super) use page::{Found, Live};
pub(super) use read::Reader;
pub(super) use start::Started;
pub(super) use write::WriteError;

/// The connection that writes. Only the writer thread has it.
#[derive(Debug)]
pub(super) struct Database {
    connection: Option<Connection>,
    places: Places,
    wal_pages: Arc<AtomicI32>,
    /// Pages that the log may have.
    most_wal_pages: i32,
    checkpointer: Checkpointer,
    /// The checkpointer has copied what there was: the rest is to be copied here.
    was_begun: bool,
    #[cfg(test)]
    hook: super::Hook,
}

impl Database {
    /// Opens or creates the file and brings its schema up to date. Refuses what is not ours, is newer, or is damaged;
    /// changes nothing then.
    pub(super) fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        // Older ones can lose committed transactions when a checkpoint races a write.
        if rusqlite::version_number() < OLDEST_SQLITE {
            let version = rusqlite::version();
            return Err(StoreError::Failed(format!("SQLite {version} is too old")));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let log = wal_vfs::register()
            .map_err(|code| StoreError::Failed(rusqlite::ffi::code_to_str(code).into()))?;
        let mut connection = Connection::open_with_flags_and_vfs(&options.path, flags, log)?;
        check_owner(&connection, &options.path)?;
        disk::secure(&options.path)
            .map_err(|error| StoreError::Failed(format!("{}: {error}", options.path.display())))?;
        let most_wal_pages = disk::wal_bytes(&options.path, options.max_bytes) / PAGE;
        let most_wal_pages = i32::try_from(most_wal_pages).unwrap_or(i32::MAX);
        prepare(&connection, options, most_wal_pages)?;
        check::at_start(&mut connection, &options.path)?;
        migrate(&mut connection)?;
        let wal_pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&wal_pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            connection: Some(connection),
            places: Places::of(&options.path),
            wal_pages,
            most_wal_pages,
            checkpointer: Checkpointer::new(options.path.clone(), options.synchronous),
            was_begun: false,
            #[cfg(test)]
            hook: options.hook.clone(),
        })
    }

    /// Why what is written now would be gone with the process: a file lost its name.
    pub(super) fn why_moved(&mut self) -> Option<String> {
        self.places.why_moved()
    }

    /// Moves the log into the file before it is too long. Most of it is copied beside the batches; what came meanwhile is
    /// copied here, after a batch was answered, so that the log can begin anew.
    pub(super) fn checkpoint_if_due(&mut self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if self.checkpointer.is_at_work() {
            if pages < self.most_wal_pages {
                return;
            }
            self.checkpointer.wait();
        }
        if pages < self.most_wal_pages / 2 {
            // Where nothing came meanwhile it began anew by itself.
            self.was_begun = false;
            return;
        }
        if !std::mem::take(&mut self.was_begun) {
            match self.checkpointer.begin() {
                Ok(()) => {
                    self.was_begun = true;
                    return;
                }
                Err(error) => tracing::warn!(%error, "no checkpoint beside the writer"),
            }
        }
        if let Err(error) = self.checkpoint("PASSIVE") {
            // The log keeps everything; the next commit or the next checkpoint meets the fault again.
            tracing::warn!(%error, "checkpoint failed");
        }
    }

    /// Empties the log and gives its room back, if that can be done now.
    pub(super) fn shrink(&mut self) -> bool {
        self.checkpoint("TRUNCATE").unwrap_or(false)
    }

    /// After a failed sync, what the log's pages hold in memory may never reach the disk. Copying all of them into the
    /// file and starting an empty log makes sure that nothing new is written behind them.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.checkpoint("TRUNCATE")? {
            Ok(())
        } else {
            Err(StoreError::Failed("the log is in use and cannot be emptied".into()))
        }
    }

    /// Empties the log and closes.
    pub(super) fn close(&mut self) {
        if self.connection.is_some()
            && let Err(error) = self.checkpoint("TRUNCATE")
        {
            tracing::warn!(%error, "the log could not be emptied at the end; the next start reads it");
        }
        self.abandon();
    }

    /// Lets go of a damaged file without another write: what the log holds stays in the log.
    pub(super) fn leave_as_it_is(&mut self) {
        self.checkpointer.end();
        if let Some(connection) = &self.connection
            && let Err(error) =
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "the log may be moved into the damaged file");
        }
        self.abandon();
    }

    /// Lets go of the connection as it is.
    pub(super) fn abandon(&mut self) {
        self.checkpointer.end();
        if let Some(connection) = self.connection.take()
            && let Err((_, error)) = connection.close()
        {
            tracing::warn!(%error, "the connection did not close");
        }
    }

    /// Bytes of the file that deleted rows have left free.
    pub(super) fn free_bytes(&self) -> u64 {
        let pragma = |name| -> Option<u64> {
            let value: i64 =
                self.connection.as_ref()?.pragma_query_value(None, name, |row| row.get(0)).ok()?;
            u64::try_from(value).ok()
        };
        pragma("freelist_count").zip(pragma("page_size")).map_or(0, |(pages, size)| pages * size)
    }

    /// True if all of the log is in the file now.
    fn checkpoint(&mut self, how: &str) -> Result<bool, StoreError> {
        self.checkpointer.wait();
        let (busy, log, done) =
            self.connection()?.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })?;
        let complete = busy == 0 && log == done;
        if complete {
            self.wal_pages.store(0, Ordering::Relaxed);
        }
        Ok(complete)
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        self.connection.as_mut().ok_or_else(|| StoreError::Failed("the file is not open".into()))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn check_owner(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = match number("PRAGMA application_id") {
        Ok(application) => application,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            let path = path.display();
            return Err(StoreError::Damaged(format!("{path} is damaged, or no SQLite file")));
        }
        Err(error) => return Err(error.into()),
    };
    let version = number("PRAGMA user_version")?;
    let empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    if application != APPLICATION_ID && !(application == 0 && empty) {
        return Err(StoreError::Failed(format!("{} is no store of standin", path.display())));
    }
    match u32::try_from(version) {
        Ok(version) if version as usize <= MIGRATIONS.len() => Ok(()),
        _ => Err(StoreError::Newer(path.to_owned(), u32::try_from(version).unwrap_or(u32::MAX))),
    }
}

fn prepare(
    connection: &Connection,
    options: &StoreOptions,
    most_wal_pages: i32,
) -> Result<(), StoreError> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "page_size", PAGE.cast_signed())?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!("write-ahead log refused: journal_mode is {mode}")));
    }
    prepare_sync(connection, options.synchronous)?;
    connection.pragma_update(
        None,
        "journal_size_limit",
        i64::from(most_wal_pages) * PAGE.cast_signed() * 2,
    )?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    // What was deleted is overwritten where that costs no further write.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    Ok(())
}

/// How whoever writes, or copies what was written, makes sure of it.
fn prepare_sync(connection: &Connection, synchronous: Synchronous) -> Result<(), StoreError> {
    let synchronous = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::NormalForTests => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // Checkpoints are ours (`checkpoint_if_due`).
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Applies what is missing, each step in a transaction of its own. A loop of ten lines: the migration crates want an
/// older rusqlite or a table of their own, and `user_version` is what SQLite has for this.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (number, migration) in MIGRATIONS.iter().enumerate() {
        let number = i64::try_from(number + 1).unwrap_or(i64::MAX);
        if number > version {
            let step = connection.transaction()?;
            match migration {
                Migration::Sql(sql) => step.execute_batch(sql)?,
                Migration::Code(code) => code(&step)?,
            }
            step.pragma_update(None, "application_id", APPLICATION_ID)?;
            step.pragma_update(None, "user_version", number)?;
            step.commit()?;
        }
    }
    Ok(())
}

/// The schema, step by step.
enum Migration {
    Sql(&'static str),
    Code(fn(&Transaction<'_>) -> Result<(), StoreError>),
}

const MIGRATIONS: &[Migration] = &[
    Migration::Sql(include_str!("schema/0001.sql")),
    Migration::Sql(include_str!("schema/0002.sql")),
    Migration::Code(records::convert),
    Migration::Code(lazy::convert),
];
/// 3.51.3.
const OLDEST_SQLITE: i32 = 3_051_003;
/// `stin`.
const APPLICATION_ID: i64 = 0x7374_696e;
const PAGE: u64 = 8192;
/// How long another program (a person with a SQL shell) may hold the file's write lock.
const PATIENCE: Duration = Duration::from_secs(2);
