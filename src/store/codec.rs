//! Header fields as HTTP writes them, labels as JSON, and a new entry in the form in which the writer takes it.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Certainty, Digest, Draft, Fields, HeldReason, Home, StoreError,
    record::{Record, write_fields},
};
use crate::time::UnixMillis;

/// A new entry, ready to be written: its record made on the caller's thread, and what the writer decides by.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request_id: String,
    pub(super) record: Vec<u8>,
    pub(super) home: Arc<Home>,
    pub(super) key: Digest,
    pub(super) fingerprint: Digest,
    pub(super) sequence: Option<Digest>,
    pub(super) customer: Option<Digest>,
    pub(super) amount: i64,
    pub(super) received_at: UnixMillis,
    pub(super) not_before: UnixMillis,
    pub(super) expires_at: UnixMillis,
    pub(super) certainty: Certainty,
    pub(super) held: Option<HeldReason>,
    /// About what the row takes.
    pub(super) bytes: usize,
}

impl Draft<'_> {
    /// Everything that can be done before the writer has to decide.
    pub fn prepare(&self) -> Result<Box<Prepared>, StoreError> {
        let record = self.encode()?;
        Ok(Box::new(Prepared {
            request_id: self.request_id.to_owned(),
            bytes: ROW_OVERHEAD + record.len(),
            record,
            home: Arc::clone(self.home),
            key: self.key,
            fingerprint: self.fingerprint,
            sequence: self.sequence,
            customer: self.customer,
            amount: self.amount,
            received_at: self.received_at,
            not_before: self.not_before,
            expires_at: self.expires_at,
            certainty: self.certainty,
            held: self.held,
        }))
    }
}

impl Prepared {
    pub(super) fn cause(&self) -> &str {
        Record::of(&self.request_id, &self.record).cause()
    }
}

/// `name: value` lines; fields that would be read back differently are refused.
pub(super) fn fields(fields: &[(String, Bytes)]) -> Result<Vec<u8>, StoreError> {
    let mut lines = Vec::new();
    write_fields(&Fields::Pairs(fields), &mut lines)?;
    Ok(lines)
}

/// Reads what [`fields`] wrote; None if it is damaged.
pub(super) fn read_fields(mut lines: &[u8]) -> Option<Vec<(String, Bytes)>> {
    let mut fields = Vec::new();
    while !lines.is_empty() {
        let colon = memchr::memchr(b':', lines)?;
        let end = memchr::memchr(b'\r', lines)?;
        let name = std::str::from_utf8(&lines[..colon]).ok()?;
        let value = lines.get(colon + 2..end)?;
        fields.push((name.to_owned(), Bytes::copy_from_slice(value)));
        lines = lines.get(end + 2..)?;
    }
    Some(fields)
}

/// Reads the labels' column; None if it is damaged.
pub(super) fn read_labels(labels: &str) -> Option<Vec<(String, String)>> {
    if labels.is_empty() { Some(Vec::new()) } else { serde_json::from_str(labels).ok() }
}

/// What a row takes in the file besides its record.
const ROW_OVERHEAD: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &'static [u8]) -> (String, Bytes) {
        (name.to_owned(), Bytes::from_static(value))
    }

    #[test]
    fn fields_come_back_as_they_were() {
        let given = vec![field("host", b"a"), field("x", b""), field("x", b"b: \xff c ")];
        let lines = fields(&given).unwrap();
        assert_eq!(lines, b"host: a\r\nx: \r\nx: b: \xff c \r\n");
        assert_eq!(read_fields(&lines).unwrap(), given);
        assert_eq!(read_fields(b"").unwrap(), vec![]);
        assert_eq!(read_fields(b"no colon"), None);
        assert_eq!(read_fields(b"a: b"), None);
    }

    #[test]
    fn a_line_break_is_refused() {
        assert!(fields(&[field("x", b"a\r\nb: c")]).is_err());
        assert!(fields(&[field("a:b", b"c")]).is_err());
    }
}
