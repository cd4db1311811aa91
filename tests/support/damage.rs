//! A database file that goes bad under its owner.

use std::{os::unix::fs::FileExt, path::Path, time::Duration};

use super::eventually;

/// Overwrites headers of b-tree pages in the middle, in place. Gives what the file holds then.
pub fn damage(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    let pages = bytes.len() / 8192;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for page in pages / 2..pages / 2 + 8 {
        bytes[page * 8192..][..16].fill(0xee);
        file.write_all_at(&bytes[page * 8192..][..16], page as u64 * 8192).unwrap();
    }
    bytes
}

/// Moves all that the log holds into the file, as happens by itself when a store has grown.
pub async fn empty_the_log(path: &Path) {
    let file = rusqlite::Connection::open(path).unwrap();
    eventually(Duration::from_secs(20), async || {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        file.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|busy| busy == 0)
    })
    .await;
}
