//! What survives: ends at any moment, damaged files, other programs on the file.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;
use crate::support::{damage, empty_the_log};

/// The files as they are at one moment, as after a kill. Only right while no checkpoint runs: the log is short here.
fn copy_as_killed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["standin.db", "standin.db-wal"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn whatever_was_acknowledged_is_there_after_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let mut background = tokio::task::JoinSet::new();
    let other = store.clone();
    background.spawn(async move {
        for key in 1000..1150 {
            append(&other, entry(key)).await;
        }
    });
    for round in 0..10 {
        let seq = append(&store, entry(round)).await.seq();
        let sending = send(&store, seq).await;
        if round % 2 == 0 {
            store.finish(&sending, close(Outcome::Completed)).await.unwrap();
        }
        let copy = copy_as_killed(folder.path());
        let again = Store::open(options(copy.path())).unwrap();
        for key in 0..=round {
            let state = again.key_state(Digest(key), fingerprint(key));
            match state {
                KeyState::Remembered { outcome: Outcome::Completed, .. } if key % 2 == 0 => {}
                KeyState::Open { state: State::Stored, certainty, .. } if key % 2 == 1 => {
                    assert_eq!(certainty, Certainty::SentUnknown, "it was being sent");
                }
                other => panic!("{key}: {other:?}"),
            }
        }
        again.close().await;
    }
    background.join_all().await;
}

#[tokio::test]
async fn an_entry_found_in_sending_is_unknown_and_after_three_times_a_persons() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(folder.path())).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    for start in 1..=3 {
        let sending = send(&store, seq).await;
        assert_eq!(sending.attempt, start);
        store.close().await;
        store = Store::open(options(folder.path())).unwrap();
        let lapsed = store.finish(&sending, close(Outcome::Completed)).await;
        assert!(matches!(lapsed, Err(StoreError::Moved(_))), "that was another life");
        let read = store.load(seq).await.unwrap();
        assert_eq!(read.certainty, Certainty::SentUnknown);
        let expected = if start < 3 { State::Stored } else { State::Held };
        assert_eq!(read.state, expected);
    }
    let read = store.load(seq).await.unwrap();
    assert_eq!(read.held, Some(HeldReason::Attempts));
    let history = store.history(seq).await.unwrap();
    assert_eq!(history.iter().filter(|line| line.who == "start").count(), 3);
    store.release(seq, Duration::ZERO, "ada", "try").await.unwrap();
    let sending = send(&store, seq).await;
    store.finish(&sending, again(Certainty::SentUnknown)).await.unwrap();
    let _sending = send(&store, seq).await;
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.load(seq).await.unwrap().state, State::Stored, "counted anew: in a row");
}

#[tokio::test]
async fn what_was_being_sent_waits_for_the_late_window_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    let _sending = send(&store, seq).await;
    store.close().await;
    let late_window = Duration::from_secs(60);
    let store = Store::open(StoreOptions { late_window, ..options(folder.path()) }).unwrap();
    assert_eq!(due(&store), []);
    let later = UnixMillis::now().plus(late_window);
    assert_eq!(store.due(&Scope::default(), later, 10), [seq]);
}

#[tokio::test]
async fn a_second_standin_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let path = folder.path().join("standin.db");
    match Store::open(options(folder.path())) {
        Err(StoreError::InUse(used)) => assert_eq!(used, path),
        other => panic!("{other:?}"),
    }
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    let other = store.clone();
    drop(store);
    append(&other, entry(1)).await;
    drop(other);
    // The last handle is gone: the writer ends by itself.
    until(async || Store::open(options(folder.path())).ok()).await;
}

#[tokio::test]
async fn a_newer_file_a_foreign_file_and_a_damaged_file_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(options(folder.path())).unwrap().close().await;
    sql(folder.path()).pragma_update(None, "user_version", 99).unwrap();
    let newer = Store::open(options(folder.path()));
    assert!(matches!(newer, Err(StoreError::Newer(_, 99))), "{newer:?}");

    let foreign = tempfile::tempdir().unwrap();
    sql(foreign.path()).execute_batch("CREATE TABLE a (b)").unwrap();
    let others = foreign.path().join("standin.db");
    std::fs::set_permissions(&others, Permissions::from_mode(0o664)).unwrap();
    let refused = Store::open(options(foreign.path()));
    assert!(
        matches!(&refused, Err(StoreError::Failed(why)) if why.contains("no store of standin"))
    );
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&others), 0o664, "its own users go on reading it");

    let no_file = tempfile::tempdir().unwrap();
    let folder_in_its_place = no_file.path().join("standin.db");
    std::fs::create_dir(&folder_in_its_place).unwrap();
    std::fs::set_permissions(&folder_in_its_place, Permissions::from_mode(0o755)).unwrap();
    assert!(Store::open(options(no_file.path())).is_err());
    assert_eq!(mode(&folder_in_its_place), 0o755);

    let missing = foreign.path().join("missing");
    let refused = Store::open(options(&missing));
    assert!(matches!(&refused, Err(StoreError::Failed(why)) if why.contains("its folder")));
    assert!(!missing.exists(), "a disk that is not mounted is not papered over");

    let damaged = tempfile::tempdir().unwrap();
    let path = damaged.path().join("standin.db");
    let bytes = vec![0x5a; 100_000];
    std::fs::write(&path, &bytes).unwrap();
    let refused = Store::open(options(damaged.path()));
    assert!(
        matches!(&refused, Err(StoreError::Damaged(why)) if why.contains("damaged")),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn damage_within_the_file_is_found_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    append_all(&store, (0..500).map(entry)).await;
    store.close().await;
    let path = folder.path().join("standin.db");
    let bytes = damage(&path);
    let refused = Store::open(options(folder.path()));
    assert!(
        matches!(&refused, Err(StoreError::Damaged(why)) if why.contains("damaged")),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it is");
}

#[tokio::test]
async fn damage_while_it_runs_ends_all_writing_and_leaves_the_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let first = append_all(&store, (0..500).map(entry)).await[0].seq();
    let lease = store.lease(first).unwrap();
    assert_eq!(store.check_file().await.unwrap(), Checked::Sound);
    assert_eq!(*store.accepting().borrow(), Accepting::Yes);
    // All of the log into the file, as it is once a store has grown.
    empty_the_log(&folder.path().join("standin.db")).await;
    let bytes = damage(&folder.path().join("standin.db"));

    let found = store.check_file().await;
    assert!(matches!(&found, Err(StoreError::Damaged(_))), "{found:?}");
    assert!(store.is_damaged());
    let why = store.accepting().borrow().clone();
    assert!(matches!(&why, Accepting::No(why) if why.contains("damaged")), "{why:?}");
    let refused = store.append(entry(1000)).await;
    assert!(matches!(refused, Err(StoreError::NotAccepting(_))), "{refused:?}");
    assert!(store.due(&Scope::default(), UnixMillis(i64::MAX), 10).is_empty());
    assert!(store.sending(lease).await.is_err(), "without an intent on disk nothing is sent");
    assert!(store.remember("a", "b").await.is_err());
    assert!(
        matches!(store.key_state(Digest(1), fingerprint(1)), KeyState::Open { .. }),
        "still known"
    );
    store.close().await;
    assert_eq!(std::fs::read(folder.path().join("standin.db")).unwrap(), bytes);
}

#[tokio::test]
async fn a_row_that_changed_by_itself_is_not_intact() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seqs: Vec<Seq> =
        append_all(&store, (0..9).map(entry)).await.iter().map(Durable::seq).collect();
    store.close().await;
    let file = sql(folder.path());
    // Body, target, a header, the status of the answer (201), whom it belongs to, when it expires.
    for (found, changed, seq) in [
        (&b"\"cents\""[..], &b"\"pence\""[..], seqs[0]),
        (b"/checkout?a=b", b"/checkout?a=c", seqs[1]),
        (b"shop.example", b"shop.exarple", seqs[2]),
        (&201_u16.to_le_bytes(), &500_u16.to_le_bytes(), seqs[3]),
        (b"someone", b"anyone!", seqs[4]),
        (b"someone", b"", seqs[5]),
    ] {
        let sql = "SELECT record FROM log WHERE seq = ?";
        let record: Vec<u8> = file.query_row(sql, [seq.0], |row| row.get(0)).unwrap();
        let at = record.windows(found.len()).position(|bytes| bytes == found).unwrap();
        let record = [&record[..at], changed, &record[at + found.len()..]].concat();
        let sql = "UPDATE log SET record = ? WHERE seq = ?";
        file.execute(sql, rusqlite::params![record, seq.0]).unwrap();
    }
    file.execute("UPDATE log SET request_id = 'id-0' WHERE seq = ?", [seqs[6].0]).unwrap();
    file.execute("UPDATE log SET record = X'01' WHERE seq = ?", [seqs[7].0]).unwrap();
    drop(file);
    let store = Store::open(options(folder.path())).unwrap();
    for seq in &seqs[..8] {
        assert!(!store.load(*seq).await.unwrap().intact, "{seq:?}");
    }
    assert!(store.load(seqs[8]).await.unwrap().intact);
    assert_eq!(
        store.page(PageQuery { limit: 20, ..PageQuery::default() }).await.unwrap().entries.len(),
        9,
        "all are shown"
    );
}

#[tokio::test]
async fn all_files_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    append(&store, entry(1)).await;
    until(async || folder.path().join("standin.db.reserve").exists().then_some(())).await;
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn another_programs_lock_on_the_file_is_an_honest_error_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    append(&store, entry(1)).await;
    let other = sql(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.append(entry(2)).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.key_state(Digest(2), fingerprint(2)), KeyState::Unknown);
    append(&store, entry(2)).await;
}

#[tokio::test]
async fn the_hook_is_called_between_commit_and_answer() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let hook = Hook::new(move |point| note.lock().unwrap().push(point.to_owned()));
    let store = Store::open(StoreOptions { hook, ..options(folder.path()) }).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    assert_eq!(*seen.lock().unwrap(), ["before_commit", "after_commit_before_ack"]);
    let _sending = send(&store, seq).await;
    until(async || (seen.lock().unwrap().len() == 3).then_some(())).await;
    assert_eq!(seen.lock().unwrap()[2], "after_sending");
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seqs: Vec<Seq> =
        append_all(&store, (0..3).map(entry)).await.iter().map(Durable::seq).collect();
    finish(&store, seqs[0], Outcome::Declined).await;
    store.close().await;
    sql(folder.path())
        .execute_batch(
            "DROP INDEX state_to_follow_up; ALTER TABLE state DROP COLUMN followed_up;
             DROP TABLE term_block; DROP TABLE route_block; DROP TABLE brief_block;
             CREATE TABLE term (segment INTEGER); CREATE TABLE brief (seq INTEGER);
             PRAGMA user_version = 1",
        )
        .unwrap();

    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.work_count(Work::Declined), 1);
    assert_eq!(store.work(Work::Declined, None, 10).await.unwrap().entries[0].seq, seqs[0]);
    store.follow_up(seqs[0], "anna", "called").await.unwrap();
    let again = store.follow_up(seqs[0], "ben", "called, too").await;
    assert!(matches!(again, Err(StoreError::Moved(State::Closed))), "{again:?}");
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.work_count(Work::Declined), 0);
    let followed_up = store.load(seqs[0]).await.unwrap();
    assert_eq!(followed_up.outcome, Some(Outcome::Declined));
    assert!(followed_up.followed_up.is_some());
    assert_eq!(due(&store), seqs[1..]);
}
