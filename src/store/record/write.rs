//! Writes the record of an entry. Refuses what could not be read back as it was.

use memchr::memchr3;

use super::{CHECKSUM, FORMAT, KEY_IS_ID, checksum};
use crate::store::{Certainty, Digest, Draft, Fields, HeldReason, Reason, StoreError};

impl Draft<'_> {
    /// The record of this entry.
    pub(in crate::store) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let labels = match self.labels {
            [] => String::new(),
            labels => serde_json::to_string(labels)
                .map_err(|error| StoreError::Failed(format!("labels: {error}")))?,
        };
        let size =
            ROOM + labels.len() + self.headers.size() + self.answer_body.len() + self.body.len();
        if size > LARGEST {
            return Err(StoreError::Failed(format!("an entry of {size} bytes is too large")));
        }
        let mut record = Vec::with_capacity(size);
        let key_is_id = self.key_text == self.request_id;
        record.extend_from_slice(&[
            FORMAT,
            code(Reason::ALL, self.reason),
            code(Certainty::ALL, self.certainty),
            self.held.map_or(0, |held| code(HeldReason::ALL, held)),
            if key_is_id { KEY_IS_ID } else { 0 },
            0,
        ]);
        record.extend_from_slice(&self.answer_status.to_le_bytes());
        record.extend_from_slice(&[0; 8]);
        for number in [self.received_at.0, self.not_before.0, self.expires_at.0, self.amount] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(&self.key.0.to_be_bytes());
        record.extend_from_slice(&self.fingerprint.0.to_be_bytes());
        let digest = |digest: Option<Digest>| digest.map(|digest| digest.0.to_be_bytes());
        part(&mut record, self.home.route.as_bytes());
        part(&mut record, self.home.upstream.as_bytes());
        part(&mut record, digest(self.sequence).as_ref().map_or(&[], |bytes| &bytes[..]));
        part(&mut record, digest(self.customer).as_ref().map_or(&[], |bytes| &bytes[..]));
        part(&mut record, if key_is_id { b"" } else { self.key_text.as_bytes() });
        for text in [self.principal, self.cause, &labels, self.client_ip, self.method, self.target]
        {
            part(&mut record, text.as_bytes());
        }
        for fields in [self.headers, self.trailers, self.answer_headers] {
            fields.write(&mut record)?;
        }
        part(&mut record, self.answer_body);
        record.extend_from_slice(self.body);
        let sum = checksum(self.request_id, &record);
        record[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
        Ok(record)
    }
}

impl Fields<'_> {
    /// About the bytes of the lines.
    fn size(&self) -> usize {
        match self {
            Self::Pairs(pairs) => {
                pairs.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
            }
            Self::Parsed(headers, _) => headers.len() * TYPICAL_FIELD,
        }
    }

    /// Their lines, with the length before them.
    fn write(&self, record: &mut Vec<u8>) -> Result<(), StoreError> {
        // The length is known last: lines of up to 16 KiB take two bytes for it.
        let at = record.len();
        record.extend_from_slice(&[0, 0]);
        write_fields(self, record)?;
        let length = record.len() - at - 2;
        if length < 1 << 14 {
            record[at] = 0x80 | (length & 0x7f) as u8;
            record[at + 1] = (length >> 7) as u8;
        } else {
            let lines = record.split_off(at + 2);
            record.truncate(at);
            part(record, &lines);
        }
        Ok(())
    }
}

/// `name: value` lines, in order, as HTTP writes them. One with a line break in it is refused rather than written
/// ambiguously.
pub(in crate::store) fn write_fields(
    fields: &Fields<'_>,
    lines: &mut Vec<u8>,
) -> Result<(), StoreError> {
    match fields {
        Fields::Pairs(pairs) => {
            for (name, value) in *pairs {
                if memchr3(b'\r', b'\n', b':', name.as_bytes()).is_some()
                    || memchr3(b'\r', b'\n', 0, value).is_some()
                {
                    return Err(StoreError::Failed("a header field holds a line break".into()));
                }
                line(lines, name, value);
            }
        }
        // What http's types hold has none.
        Fields::Parsed(headers, left_out) => {
            for (name, value) in *headers {
                if !left_out(name) {
                    line(lines, name.as_str(), value.as_bytes());
                }
            }
        }
    }
    Ok(())
}

fn line(record: &mut Vec<u8>, name: &str, value: &[u8]) {
    record.extend_from_slice(name.as_bytes());
    record.extend_from_slice(b": ");
    record.extend_from_slice(value);
    record.extend_from_slice(b"\r\n");
}

/// A length in groups of seven bits, the lowest first, and the bytes.
pub(in crate::store) fn part(record: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        record.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    record.push(length as u8);
    record.extend_from_slice(bytes);
}

/// 0 stands for none.
fn code<T: PartialEq>(all: &[T], of: T) -> u8 {
    all.iter().position(|one| *one == of).map_or(0, |place| place as u8 + 1)
}

/// For the head, lengths and short texts.
const ROOM: usize = 512;
/// Bytes of a header field, as a guess.
const TYPICAL_FIELD: usize = 56;
/// Far above any `max_body`, far below what a row may hold.
const LARGEST: usize = 256 << 20;
