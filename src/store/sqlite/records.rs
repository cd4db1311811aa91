//! The third step of the schema: entries that lie in 29 columns become records (`store/record.rs`), each as it is. One
//! that had changed by itself stays recognisable as that.

use std::sync::Arc;

use rusqlite::{Row, Transaction, params};

use super::stored::{digest, optional_word, word};
use crate::{
    store::{
        Caps, Certainty, Draft, Fields, HeldReason, Home, Reason, StoreError,
        codec::{read_fields, read_labels},
    },
    time::UnixMillis,
};

const CREATE: &str = "
-- The append log: one row per entry, written once with one insert, in order, without secondary indexes.
-- State words are those of the product; times are milliseconds since 1970 UTC.
CREATE TABLE log (
    seq        INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    record     BLOB NOT NULL           -- all else, with a checksum: src/store/record.rs
) STRICT";

const COLUMNS: &str = "seq, request_id, received_at, route, upstream, key, fingerprint, sequence,
    customer, amount, not_before, expires_at, reason, certainty, held, key_text, principal, cause, labels,
    client_ip, method, target, headers, trailers, answer_status, answer_headers, answer_body, checksum,
    body";

pub(super) fn convert(step: &Transaction<'_>) -> Result<(), StoreError> {
    let has_records =
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info('log') WHERE name = 'record')";
    if step.query_row(has_records, [], |row| row.get(0))? {
        return Ok(());
    }
    step.execute_batch("ALTER TABLE log RENAME TO columns")?;
    step.execute_batch(CREATE)?;
    {
        let mut insert =
            step.prepare("INSERT INTO log (seq, request_id, record) VALUES (?, ?, ?)")?;
        let mut select = step.prepare(&format!("SELECT {COLUMNS} FROM columns ORDER BY seq"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let record = record(row)?;
            insert.execute(params![row.get::<_, i64>(0)?, row.get_ref(1)?.as_str()?, record])?;
        }
    }
    step.execute_batch("DROP TABLE columns")?;
    Ok(())
}

fn record(row: &Row<'_>) -> Result<Vec<u8>, StoreError> {
    let text = |at| row.get_ref(at)?.as_str().map_err(rusqlite::Error::from);
    let bytes = |at| row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from);
    let (route, upstream) = (text(3)?.into(), text(4)?.into());
    let home = Arc::new(Home { route, upstream, caps: Caps::default() });
    let fields = |at| Ok::<_, rusqlite::Error>(read_fields(bytes(at)?));
    let (headers, trailers, answer_headers) = (fields(22)?, fields(23)?, fields(25)?);
    let labels = read_labels(text(18)?);
    let readable = headers.is_some() && trailers.is_some() && answer_headers.is_some();
    let intact = readable && Columns::checksum(row)? == row.get::<_, i64>(27)?;
    let optional = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 16]>>(at)?.map(digest));
    let draft = Draft {
        request_id: text(1)?,
        received_at: UnixMillis(row.get(2)?),
        home: &home,
        key: digest(row.get(5)?),
        fingerprint: digest(row.get(6)?),
        sequence: optional(7)?,
        customer: optional(8)?,
        amount: row.get(9)?,
        not_before: UnixMillis(row.get(10)?),
        expires_at: UnixMillis(row.get(11)?),
        reason: word(row, 12, Reason::from_word)?,
        certainty: word(row, 13, Certainty::from_word)?,
        held: optional_word(row, 14, HeldReason::from_word)?,
        key_text: text(15)?,
        principal: text(16)?,
        cause: text(17)?,
        labels: &labels.unwrap_or_default(),
        client_ip: text(19)?,
        method: text(20)?,
        target: text(21)?,
        headers: Fields::Pairs(&headers.unwrap_or_default()),
        trailers: Fields::Pairs(&trailers.unwrap_or_default()),
        answer_status: row.get(24)?,
        answer_headers: Fields::Pairs(&answer_headers.unwrap_or_default()),
        answer_body: bytes(26)?,
        body: bytes(28)?,
    };
    let mut record = draft.encode()?;
    if !intact {
        crate::store::record::spoil(&mut record);
    }
    Ok(record)
}

/// The checksum that rows of columns had.
struct Columns(u64);

impl Columns {
    fn checksum(row: &Row<'_>) -> Result<i64, rusqlite::Error> {
        let mut sum = Self(0x6a09_e667_f3bc_c908);
        let text = |at| Ok::<_, rusqlite::Error>(row.get_ref(at)?.as_str()?.as_bytes());
        let bytes = |at| Ok::<_, rusqlite::Error>(row.get_ref(at)?.as_blob()?);
        sum.bytes(text(1)?);
        let key: [u8; 16] = row.get(5)?;
        sum.bytes(&digest(key).0.to_le_bytes());
        sum.bytes(text(15)?);
        sum.bytes(text(3)?);
        sum.bytes(text(4)?);
        sum.word(row.get::<_, i64>(11)?.cast_unsigned());
        sum.bytes(text(20)?);
        sum.bytes(text(21)?);
        sum.bytes(bytes(22)?);
        sum.bytes(bytes(23)?);
        sum.bytes(bytes(28)?);
        sum.word(row.get::<_, u16>(24)?.into());
        sum.bytes(bytes(25)?);
        sum.bytes(bytes(26)?);
        Ok((sum.0 ^ (sum.0 >> 32)).cast_signed())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rusqlite::Connection;

    use super::*;
    use crate::store::*;

    /// A file as the first schema made it, with one entry that is intact and one that is not.
    fn of_columns(path: &std::path::Path) {
        let file = Connection::open(path).unwrap();
        file.execute_batch(include_str!("../schema/0001.sql")).unwrap();
        file.pragma_update(None, "application_id", 0x7374_696e).unwrap();
        file.pragma_update(None, "user_version", 1).unwrap();
        for seq in [7, 8] {
            file.execute(
                "INSERT INTO log VALUES (?1, 1000, 'checkout', 'shop', ?2, ?3, ?3, NULL, 250, 2000,
                     9000000000000, 'timed_out', 'sent_unknown', 'unanswered', 'id-' || ?1, 'cart-1',
                     'ann', 'no answer', '[[\"cart\",\"c-1\"]]', '192.0.2.1', 'POST', '/a?b', ?4, x'',
                     201, x'', ?5, 0, ?6)",
                params![seq, [1_u8; 16], [2_u8; 16], &b"host: a\r\n"[..], &b"{}"[..], &b"body"[..]],
            )
            .unwrap();
        }
        let columns = COLUMNS.replace("checksum", "0");
        let sum = file
            .query_row(&format!("SELECT {columns} FROM log WHERE seq = 7"), [], Columns::checksum)
            .unwrap();
        file.execute("UPDATE log SET checksum = ?", [sum]).unwrap();
    }

    #[tokio::test]
    async fn entries_in_columns_become_records_with_all_that_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("standin.db");
        of_columns(&path);
        let options = StoreOptions { accept_ephemeral: true, ..StoreOptions::new(&path) };
        let store = Store::open(options).unwrap();
        let entry = store.load(Seq(7)).await.unwrap();
        assert!(entry.intact);
        // The same sum under another id.
        assert!(!store.load(Seq(8)).await.unwrap().intact);
        assert_eq!(
            (&*entry.request_id, &*entry.route, &*entry.upstream),
            ("id-7", "checkout", "shop")
        );
        assert_eq!(entry.received_at, UnixMillis(1000));
        assert_eq!((entry.not_before, entry.amount), (UnixMillis(2000), 250));
        assert_eq!(entry.expires_at, UnixMillis(9_000_000_000_000));
        let Identity { key, key_text, fingerprint, principal } = entry.identity;
        assert_eq!(key, digest([1; 16]));
        assert_eq!(fingerprint, digest([2; 16]));
        assert_eq!((&*key_text, &*principal), ("cart-1", "ann"));
        assert_eq!((entry.reason, entry.certainty), (Reason::TimedOut, Certainty::SentUnknown));
        assert_eq!((entry.state, entry.held), (State::Held, Some(HeldReason::Unanswered)));
        assert_eq!(entry.cause, "no answer");
        assert_eq!(entry.labels, [("cart".to_owned(), "c-1".to_owned())]);
        assert_eq!(entry.sequence, Some(digest([2; 16])));
        let request = entry.request;
        assert_eq!((&*request.method, &*request.target), ("POST", "/a?b"));
        assert_eq!((&*request.client_ip, &request.body[..]), ("192.0.2.1", &b"body"[..]));
        assert_eq!(request.headers, [("host".to_owned(), Bytes::from_static(b"a"))]);
        assert_eq!((entry.answer.status, &entry.answer.body[..]), (201, &b"{}"[..]));
        assert!(matches!(store.key_state(key, fingerprint), KeyState::Open { same: true, .. }));
        store.close().await;
        let file = Connection::open(&path).unwrap();
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'columns'";
        assert_eq!(file.query_row(tables, [], |row| row.get::<_, i64>(0)), Ok(0));
    }
}
