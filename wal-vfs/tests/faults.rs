//! What a disk may do to each write of a commit: refuse it, be full, take a part of it. A commit is then there as a whole or
//! it is not there at all, as whoever opens the files sees it, and the next one is.
//!
//! A process of its own: the system's `pwrite` is put aside for all of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    fs::{self, File, OpenOptions},
    os::fd::AsRawFd,
    path::Path,
    ptr::null,
    sync::{LazyLock, Once},
};

use rusqlite::{
    Connection, OpenFlags, Transaction,
    ffi::{sqlite3_initialize, sqlite3_syscall_ptr, sqlite3_vfs_find},
};
use wal_vfs::{gather, register};

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Full,
    Refused,
    /// Half of it is taken; the next write goes on there.
    Short,
    /// Half of it is taken, and then no more.
    ShortThenFull,
}

const FAULTS: [Fault; 4] = [Fault::Full, Fault::Refused, Fault::Short, Fault::ShortThenFull];

thread_local! {
    /// Writes of this thread that still go well, and what happens then.
    static NEXT: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
}

unsafe extern "C" {
    fn pwrite(file: c_int, bytes: *const c_void, length: usize, at: i64) -> isize;
}

static FULL: LazyLock<File> =
    LazyLock::new(|| OpenOptions::new().write(true).open("/dev/full").unwrap());

unsafe extern "C" fn faulty_pwrite(
    file: c_int,
    bytes: *const c_void,
    length: usize,
    at: i64,
) -> isize {
    let (file, length) = match NEXT.get() {
        None => (file, length),
        Some((0, fault)) => {
            NEXT.set((fault == Fault::ShortThenFull).then_some((0, Fault::Full)));
            match fault {
                Fault::Full => (FULL.as_raw_fd(), length),
                Fault::Refused => (-1, length),
                Fault::Short | Fault::ShortThenFull => (file, length / 2),
            }
        }
        Some((left, fault)) => {
            NEXT.set(Some((left - 1, fault)));
            (file, length)
        }
    };
    // SAFETY: the arguments are those of the call, but for a length that is less or a file that takes nothing.
    unsafe { pwrite(file, bytes, length, at) }
}

/// Puts the system's `pwrite` aside, before anybody writes.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        LazyLock::force(&FULL);
        // SAFETY: nobody uses SQLite yet; the system's table stays where it is; the function has the type of `pwrite`.
        unsafe {
            assert_eq!(sqlite3_initialize(), 0);
            let system = sqlite3_vfs_find(null());
            let set = (*system).xSetSystemCall.unwrap();
            let ours =
                std::mem::transmute::<*const (), sqlite3_syscall_ptr>(faulty_pwrite as *const ());
            assert_eq!(set(system, c"pwrite".as_ptr(), ours), 0);
        }
    });
}

/// `is_torn`: as on a disk that tears sectors, for which SQLite fills up the last one with more frames.
fn open(path: &Path, synchronous: &str, is_torn: bool) -> Connection {
    let flags = OpenFlags::default();
    let name = format!("file:{}?psow={}", path.display(), u8::from(!is_torn));
    let connection = Connection::open_with_flags_and_vfs(name, flags, register().unwrap()).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
             PRAGMA synchronous = {synchronous}; PRAGMA cache_size = 10;
             CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, record BLOB)"
        ))
        .unwrap();
    connection
}

fn insert(transaction: &Transaction<'_>, rows: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
               INSERT INTO log (record) SELECT randomblob(1600) FROM n";
    transaction.execute(sql, [rows]).unwrap();
}

/// What is there, all of it sound.
fn count(connection: &Connection) -> u32 {
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap()
}

/// What somebody finds who opens the files as they are now, as after a kill.
fn count_after_a_kill(path: &Path) -> u32 {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("db");
    fs::copy(path, &to).unwrap();
    fs::copy(path.with_file_name("db-wal"), copy.path().join("db-wal")).unwrap();
    count(&Connection::open(&to).unwrap())
}

/// Commits with the given fault at each of its writes in turn. `large`: frames are written before the commit, and again.
fn meets_each_fault(fault: Fault, synchronous: &str, rows: u32, large: bool) {
    for is_torn in [false, true] {
        meets_each_fault_on(fault, synchronous, is_torn, rows, large);
    }
}

fn meets_each_fault_on(fault: Fault, synchronous: &str, is_torn: bool, rows: u32, large: bool) {
    prepare();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut connection = open(&path, synchronous, is_torn);
    let other = Connection::open(&path).unwrap();
    let mut there = 0;
    // Where there are many, most are alike.
    for good in (0..8).chain((8..).step_by(23)) {
        let transaction = connection.transaction().unwrap();
        insert(&transaction, rows);
        if large {
            transaction.execute("UPDATE log SET record = randomblob(1600)", []).unwrap();
        }
        let committed = gather(|| {
            NEXT.set(Some((good, fault)));
            let committed = transaction.commit();
            committed.map(|()| NEXT.take().is_some())
        });
        NEXT.set(None);
        let case = format!("{fault:?} at write {good}, {synchronous}, torn: {is_torn}");
        let untouched = match committed {
            Ok(untouched) => {
                assert!(untouched || fault == Fault::Short, "{case}: committed");
                there += rows;
                untouched
            }
            Err(error) => {
                assert!(fault != Fault::Short, "{case}: {error}");
                assert!(connection.is_autocommit(), "{case}");
                false
            }
        };
        assert_eq!(count(&other), there, "{case}");
        // What fills up a sector comes behind the commit's last frame: with or without us, one that failed only there may
        // be found after a kill.
        let after_a_kill = count_after_a_kill(&path);
        assert!(after_a_kill == there || is_torn && after_a_kill == there + rows, "{case}");
        // Others may write there, and so may we.
        for next in [&mut Connection::open(&path).unwrap(), &mut connection] {
            let transaction = next.transaction().unwrap();
            insert(&transaction, 3);
            gather(|| transaction.commit()).unwrap();
            there += 3;
        }
        assert_eq!(count(&other), there, "{case}");
        assert_eq!(count_after_a_kill(&path), there, "{case}");
        if untouched {
            assert!(good > 0, "nothing was written");
            return;
        }
        connection.execute("DELETE FROM log WHERE seq > 10", []).unwrap();
        there = count(&other);
        if good % 3 == 2 {
            // The log begins anew, with a header of its own.
            other.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        }
    }
}

#[test]
fn a_commit_that_meets_a_fault_is_not_there_and_the_next_one_is() {
    for fault in FAULTS {
        for synchronous in ["FULL", "NORMAL"] {
            meets_each_fault(fault, synchronous, 4, false);
            // More than is gathered at once.
            meets_each_fault(fault, synchronous, 300, false);
        }
    }
}

#[test]
fn frames_that_are_written_again_meet_faults_too() {
    for fault in FAULTS {
        meets_each_fault(fault, "FULL", 150, true);
    }
}
