//! How a request and an answer lie in a row: header fields as HTTP writes them (a person with a SQL shell can read
//! them), labels as JSON, and a checksum over everything that would be sent or answered.

use bytes::Bytes;
use memchr::memchr3;

use super::{NewEntry, StoreError};

/// A new entry in the form of its row, made on the caller's thread so that the writer only has to insert.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) entry: NewEntry,
    pub(super) labels: String,
    pub(super) headers: Vec<u8>,
    pub(super) trailers: Vec<u8>,
    pub(super) answer_headers: Vec<u8>,
    pub(super) checksum: i64,
    /// About what the row takes.
    pub(super) bytes: usize,
}

impl Prepared {
    pub(super) fn new(entry: NewEntry) -> Result<Self, StoreError> {
        let headers = fields(&entry.request.headers)?;
        let trailers = fields(&entry.request.trailers)?;
        let answer_headers = fields(&entry.answer.headers)?;
        let labels = match entry.labels.as_slice() {
            [] => String::new(),
            labels => serde_json::to_string(labels)
                .map_err(|error| StoreError::Failed(format!("labels: {error}")))?,
        };
        let checksum = Checksum::of_row(&Summed {
            request_id: &entry.request_id,
            key: entry.identity.key.0,
            key_text: &entry.identity.key_text,
            route: &entry.route,
            upstream: &entry.upstream,
            expires_at: entry.expires_at.0,
            method: &entry.request.method,
            target: &entry.request.target,
            headers: &headers,
            trailers: &trailers,
            body: &entry.request.body,
            answer_status: entry.answer.status,
            answer_headers: &answer_headers,
            answer_body: &entry.answer.body,
        });
        let bytes = ROW_OVERHEAD
            + labels.len()
            + headers.len()
            + trailers.len()
            + answer_headers.len()
            + entry.request.target.len()
            + entry.request.body.len()
            + entry.answer.body.len();
        if bytes > LARGEST_ROW {
            return Err(StoreError::Failed(format!("an entry of {bytes} bytes is too large")));
        }
        Ok(Self { entry, labels, headers, trailers, answer_headers, checksum, bytes })
    }
}

/// `name: value` lines. The names and values are those of a parsed request: without line breaks. One that has any is
/// refused rather than written ambiguously.
pub(super) fn fields(fields: &[(String, Bytes)]) -> Result<Vec<u8>, StoreError> {
    let length = fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut lines = Vec::with_capacity(length);
    for (name, value) in fields {
        if memchr3(b'\r', b'\n', b':', name.as_bytes()).is_some()
            || memchr3(b'\r', b'\n', 0, value).is_some()
        {
            return Err(StoreError::Failed("a header field holds a line break".into()));
        }
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    }
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

/// What the checksum covers: everything that is sent or answered, and what decides about it.
#[derive(Debug)]
pub(super) struct Summed<'a> {
    pub(super) request_id: &'a str,
    pub(super) key: u128,
    pub(super) key_text: &'a str,
    pub(super) route: &'a str,
    pub(super) upstream: &'a str,
    pub(super) expires_at: i64,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) headers: &'a [u8],
    pub(super) trailers: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) answer_status: u16,
    pub(super) answer_headers: &'a [u8],
    pub(super) answer_body: &'a [u8],
}

/// 64 bits over words of 8 bytes. Each step is a bijection of the sum for a given word and of the word for a given sum:
/// damage within one word is always found, any other is missed once in 2^64. It finds damage, not forgery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn of_row(row: &Summed<'_>) -> i64 {
        let mut sum = Self(START);
        sum.bytes(row.request_id.as_bytes());
        sum.bytes(&row.key.to_le_bytes());
        sum.bytes(row.key_text.as_bytes());
        sum.bytes(row.route.as_bytes());
        sum.bytes(row.upstream.as_bytes());
        sum.word(row.expires_at.cast_unsigned());
        sum.bytes(row.method.as_bytes());
        sum.bytes(row.target.as_bytes());
        sum.bytes(row.headers);
        sum.bytes(row.trailers);
        sum.bytes(row.body);
        sum.word(u64::from(row.answer_status));
        sum.bytes(row.answer_headers);
        sum.bytes(row.answer_body);
        (sum.0 ^ (sum.0 >> 32)).cast_signed()
    }

    /// Length first, so that bytes cannot wander from one column to the next unseen.
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(ODD).rotate_left(29);
    }
}

const START: u64 = 0x6a09_e667_f3bc_c908;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
const ROW_OVERHEAD: usize = 400;
/// Far above any `max_body`, far below what a row may hold.
const LARGEST_ROW: usize = 256 << 20;

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

    #[test]
    fn every_changed_bit_is_found() {
        let body = vec![7; 100];
        let row = |body: &[u8]| {
            Checksum::of_row(&Summed {
                request_id: "id",
                key: 1,
                key_text: "k",
                route: "r",
                upstream: "u",
                expires_at: 5,
                method: "POST",
                target: "/",
                headers: b"host: a\r\n",
                trailers: b"",
                body,
                answer_status: 201,
                answer_headers: b"",
                answer_body: b"{}",
            })
        };
        let right = row(&body);
        for bit in 0..body.len() * 8 {
            let mut wrong = body.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(row(&wrong), right);
        }
        assert_ne!(row(&body[..99]), right);
    }
}
