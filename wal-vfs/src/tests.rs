//! With SQLite itself: real files, and other connections that know nothing of us.

use std::{cell::RefCell, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{gather, register};

fn open(path: &Path, synchronous: &str) -> Connection {
    let name = register().unwrap();
    let flags = OpenFlags::default();
    let connection = Connection::open_with_flags_and_vfs(path, flags, name).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
             PRAGMA synchronous = {synchronous};
             CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, record BLOB)"
        ))
        .unwrap();
    connection
}

fn insert(connection: &mut Connection, rows: usize) {
    let transaction = connection.transaction().unwrap();
    for _ in 0..rows {
        transaction.execute("INSERT INTO log (record) VALUES (randomblob(1600))", []).unwrap();
    }
    gather(|| transaction.commit()).unwrap();
}

fn count(connection: &Connection) -> usize {
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let rows: u32 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    rows as usize
}

/// Writes that this thread has asked the system for.
fn writes() -> usize {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_commit_is_a_few_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = open(&folder.path().join("db"), "FULL");
    insert(&mut connection, 10);
    let before = writes();
    insert(&mut connection, 100);
    let gathered = writes() - before;
    let transaction = connection.transaction().unwrap();
    for _ in 0..100 {
        transaction.execute("INSERT INTO log (record) VALUES (randomblob(1600))", []).unwrap();
    }
    let before = writes();
    transaction.commit().unwrap();
    let plain = writes() - before;
    assert!(gathered <= 4 && plain >= 40, "{gathered} writes, and {plain} without");
}

#[test]
fn others_see_each_commit_at_once() {
    for synchronous in ["FULL", "NORMAL"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut connection = open(&path, synchronous);
        let other = Connection::open(&path).unwrap();
        for round in 1..=30 {
            insert(&mut connection, round);
            assert_eq!(count(&other), (1..=round).sum::<usize>(), "{synchronous}");
            if round % 7 == 0 {
                other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            }
        }
    }
}

#[test]
fn the_log_is_found_by_whoever_opens_the_file_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut connection = open(&path, "FULL");
    insert(&mut connection, 300);
    // The files as they are now, as after a kill: nothing of this process is asked any more.
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(folder.path().join("db-wal"), folder.path().join("copy-wal")).unwrap();
    assert_eq!(count(&Connection::open(&copy).unwrap()), 300);
}

#[test]
fn a_transaction_larger_than_the_cache_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut connection = open(&path, "NORMAL");
    connection.execute_batch("PRAGMA cache_size = 10").unwrap();
    for round in 1..=3 {
        insert(&mut connection, 500);
        // Frames that were written before the commit, and are written again by it.
        let transaction = connection.transaction().unwrap();
        transaction.execute("UPDATE log SET record = randomblob(1600)", []).unwrap();
        transaction
            .execute("UPDATE log SET record = randomblob(1600) WHERE seq < 300", [])
            .unwrap();
        gather(|| transaction.commit()).unwrap();
        assert_eq!(count(&Connection::open(&path).unwrap()), 500 * round);
    }
}

#[test]
fn what_was_rolled_back_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut connection = open(&path, "FULL");
    connection.execute_batch("PRAGMA cache_size = 10").unwrap();
    insert(&mut connection, 10);
    let transaction = connection.transaction().unwrap();
    transaction
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO log (record) SELECT randomblob(1600) FROM n",
        )
        .unwrap();
    transaction.rollback().unwrap();
    let mut other = Connection::open(&path).unwrap();
    insert(&mut other, 5);
    insert(&mut connection, 5);
    assert_eq!(count(&other), 20);
}

/// A thread drops what it keeps in an order that nobody chooses: what is put together may be gone before the connection is.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the end of a thread is what is tested; it is awaited"
)]
fn a_connection_may_outlive_what_its_thread_keeps() {
    thread_local!(static KEPT: RefCell<Option<Connection>> = const { RefCell::new(None) });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let thread = {
        let path = path.clone();
        std::thread::spawn(move || {
            // Asked first, so dropped last.
            KEPT.with_borrow_mut(|kept| *kept = None);
            let mut connection = open(&path, "FULL");
            insert(&mut connection, 20);
            KEPT.set(Some(connection));
        })
    };
    thread.join().unwrap();
    assert!(!path.with_file_name("db-wal").exists(), "it was closed: its log is in the file");
    assert_eq!(count(&Connection::open(&path).unwrap()), 20);
}
