//! The fourth step of the schema: index tables with a row for each term and each open entry become tables of blocks. They
//! are made anew from the log, as far as it was indexed; what was added up stays as it is.

use rusqlite::{OptionalExtension, Transaction};

use super::{INDEXED_TO, SEGMENT, segment::Segment, segment_of};
use crate::store::{StoreError, sqlite::start::number};

pub(in crate::store::sqlite) fn convert(step: &Transaction<'_>) -> Result<(), StoreError> {
    step.execute_batch(include_str!("../../schema/0004.sql"))?;
    let indexed_to = number(step, INDEXED_TO)?.unwrap_or(0);
    let salt = number(step, "salt")?.unwrap_or(0).cast_unsigned();
    let first: Option<i64> = step
        .query_row("SELECT min(seq) FROM log HAVING min(seq) NOT NULL", [], |row| row.get(0))
        .optional()?;
    for number in first.map_or(i64::MAX, segment_of)..indexed_to / SEGMENT {
        let mut segment = Segment::new(number, salt);
        segment.read(step, segment.end())?;
        segment.write_again(step)?;
    }
    step.execute_batch("DROP TABLE term; DROP TABLE brief")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rusqlite::Connection;

    use super::SEGMENT;
    use crate::store::{writer::tests::entry, *};

    const COUNT: u128 = SEGMENT as u128 + 100;

    /// The tables of the third schema, which nobody reads any more.
    const BEFORE: &str = "
        DROP TABLE term_block; DROP TABLE route_block; DROP TABLE brief_block;
        CREATE TABLE term (segment INTEGER NOT NULL, text BLOB NOT NULL, seq INTEGER NOT NULL,
            PRIMARY KEY (segment, text, seq)) STRICT, WITHOUT ROWID;
        CREATE TABLE brief (seq INTEGER PRIMARY KEY, received_at INTEGER NOT NULL) STRICT;
        PRAGMA user_version = 3;";

    fn options(folder: &std::path::Path) -> StoreOptions {
        StoreOptions {
            accept_ephemeral: true,
            synchronous: Synchronous::NormalForTests,
            ..StoreOptions::new(folder.join("standin.db"))
        }
    }

    async fn found(store: &Store, text: &str) -> Vec<Seq> {
        let query = PageQuery { search: Some(text.into()), limit: 10, ..PageQuery::default() };
        store.page(query).await.unwrap().entries.iter().map(|entry| entry.seq).collect()
    }

    async fn closed(store: Store, folder: &std::path::Path) -> Connection {
        store.close().await;
        Connection::open(folder.join("standin.db")).unwrap()
    }

    #[tokio::test]
    async fn index_tables_of_rows_become_blocks_and_a_damaged_block_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(options(folder.path())).unwrap();
        let append = |key| {
            let caps = Arc::new(Caps { open: u64::MAX, ..Caps::default() });
            let labels = vec![("cart".to_owned(), format!("c-{}", key % 5000))];
            let store = &store;
            async move { store.append(NewEntry { caps, labels, ..entry(key) }).await.unwrap() }
        };
        for key in (0..COUNT).collect::<Vec<_>>().chunks(1000) {
            futures_util::future::join_all(key.iter().map(|key| append(*key))).await;
        }
        let lease = store.lease(Seq(7)).unwrap();
        let sending = store.sending(lease).await.unwrap();
        let (outcome, why) = (Outcome::Completed, String::new());
        store.finish(&sending, Verdict::Close { outcome, why, answer: None }).await.unwrap();
        let file = Connection::open(folder.path().join("standin.db")).unwrap();
        let indexed = || -> Option<i64> {
            let sql = "SELECT value FROM meta WHERE name = 'indexed_to'";
            file.query_row(sql, [], |row| row.get(0)).ok()
        };
        while indexed() != Some(SEGMENT) {
            tokio::task::yield_now().await;
        }
        drop(file);
        let (before, open) =
            (store.volumes(1).await.unwrap(), store.totals().routes["checkout"].open);
        let file = closed(store, folder.path()).await;
        file.execute_batch(BEFORE).unwrap();
        drop(file);

        let store = Store::open(options(folder.path())).unwrap();
        assert_eq!(store.totals().routes["checkout"].open, open);
        assert_eq!(found(&store, "c-4999").await, [Seq(15000), Seq(10000), Seq(5000)]);
        assert_eq!(found(&store, "16400").await, [Seq(16401)]);
        assert_eq!(found(&store, "c-5000").await, []);
        assert_eq!(format!("{:?}", store.volumes(1).await.unwrap()), format!("{before:?}"));
        let file = closed(store, folder.path()).await;
        let old = "SELECT count(*) FROM sqlite_schema WHERE name IN ('term', 'brief')";
        assert_eq!(file.query_row(old, [], |row| row.get::<_, i64>(0)), Ok(0));
        let blocks = "SELECT count(*) FROM brief_block";
        assert_eq!(file.query_row(blocks, [], |row| row.get::<_, i64>(0)), Ok(64));
        let damage =
            "UPDATE brief_block SET briefs = CAST(substr(briefs, 1, 100) || x'00' || substr(briefs, 102) AS BLOB)
            WHERE id IN (3, 40)";
        assert_eq!(file.execute(damage, []), Ok(2));
        drop(file);

        let store = Store::open(options(folder.path())).unwrap();
        assert_eq!(store.totals().routes["checkout"].open, open);
        let state = store.key_state(Digest(800), Digest(800));
        assert!(matches!(state, KeyState::Open { seq: Seq(801), same: true, .. }), "{state:?}");
    }
}
