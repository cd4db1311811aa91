//! An entry as one record: all that was known when it was stored, in one run of bytes with a checksum over them.
//!
//! Made on the caller's thread, so that the writer hands SQLite two values and not thirty. Read leniently: damage makes
//! an entry not intact, and what of it can still be read is shown; nothing is refused.

mod sum;
mod write;

use self::sum::checksum;
pub(super) use self::{
    sum::hash,
    write::{part, write_fields},
};
use super::{Certainty, Digest, HeldReason, Reason};

/// A record's bytes, and where they came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Stands beside the record: a person with a SQL shell finds an entry by it.
    request_id: &'a str,
    bytes: &'a [u8],
    head: &'a [u8; HEAD],
    parts: [&'a [u8]; PARTS],
    body: &'a [u8],
    /// Up to the last of the parts that a start needs.
    beginning: &'a [u8],
    /// Every part was where its length says.
    whole: bool,
}

/// The parts between head and body, in their order.
#[derive(Clone, Copy)]
enum Part {
    Route,
    Upstream,
    Sequence,
    Customer,
    KeyText,
    Principal,
    Cause,
    Labels,
    ClientIp,
    Method,
    Target,
    Headers,
    Trailers,
    AnswerHeaders,
    AnswerBody,
}

const PARTS: usize = Part::AnswerBody as usize + 1;

/// What stands at fixed places: format, reason, certainty, held, flags, status, checksum, times, amount, digests.
const HEAD: usize = 80;
const FORMAT: u8 = 1;
/// The key is the request id.
const KEY_IS_ID: u8 = 1;

const CHECKSUM: std::ops::Range<usize> = 8..16;
const RECEIVED_AT: usize = 16;
const NOT_BEFORE: usize = 24;
const EXPIRES_AT: usize = 32;
const AMOUNT: usize = 40;
const KEY: usize = 48;
const FINGERPRINT: usize = 64;

impl<'a> Record<'a> {
    pub(super) fn of(request_id: &'a str, bytes: &'a [u8]) -> Self {
        let (head, mut rest) = bytes.split_first_chunk().unwrap_or((&[0; HEAD], &[]));
        let mut whole = bytes.len() >= HEAD && head[0] == FORMAT;
        let mut parts = [&[][..]; PARTS];
        let mut beginning = bytes;
        for (place, part) in parts.iter_mut().enumerate() {
            let (found, behind) = split_part(rest);
            (*part, rest) = found.unwrap_or_else(|| {
                whole = false;
                (behind, &[])
            });
            if place == Part::Sequence as usize {
                beginning = &bytes[..bytes.len() - rest.len()];
            }
        }
        Self { request_id, bytes, head, parts, body: rest, beginning, whole }
    }

    /// What a start needs of it: a record without its end.
    pub(super) fn beginning(&self) -> &'a [u8] {
        self.beginning
    }

    /// Nothing of it has changed since it was stored.
    pub(super) fn is_intact(&self) -> bool {
        self.whole
            && self.word::<8>(CHECKSUM.start) == checksum(self.request_id, self.bytes).to_le_bytes()
    }

    pub(super) fn request_id(&self) -> &'a str {
        self.request_id
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        decode(Reason::ALL, self.head[1])
    }

    pub(super) fn certainty(&self) -> Certainty {
        // Of two, the one that promises less.
        decode(Certainty::ALL, self.head[2]).unwrap_or(Certainty::SentUnknown)
    }

    pub(super) fn held(&self) -> Option<HeldReason> {
        match self.head[3] {
            0 => None,
            code => Some(decode(HeldReason::ALL, code).unwrap_or(HeldReason::Damaged)),
        }
    }

    pub(super) fn answer_status(&self) -> u16 {
        u16::from_le_bytes(self.word(6))
    }

    pub(super) fn received_at(&self) -> i64 {
        i64::from_le_bytes(self.word(RECEIVED_AT))
    }

    pub(super) fn not_before(&self) -> i64 {
        i64::from_le_bytes(self.word(NOT_BEFORE))
    }

    pub(super) fn expires_at(&self) -> i64 {
        i64::from_le_bytes(self.word(EXPIRES_AT))
    }

    pub(super) fn amount(&self) -> i64 {
        i64::from_le_bytes(self.word(AMOUNT))
    }

    pub(super) fn key(&self) -> Digest {
        Digest(u128::from_be_bytes(self.word(KEY)))
    }

    pub(super) fn fingerprint(&self) -> Digest {
        Digest(u128::from_be_bytes(self.word(FINGERPRINT)))
    }

    pub(super) fn sequence(&self) -> Option<Digest> {
        self.digest(Part::Sequence)
    }

    pub(super) fn customer(&self) -> Option<Digest> {
        self.digest(Part::Customer)
    }

    pub(super) fn route(&self) -> &'a str {
        self.text(Part::Route)
    }

    pub(super) fn upstream(&self) -> &'a str {
        self.text(Part::Upstream)
    }

    pub(super) fn key_text(&self) -> &'a str {
        if self.head[4] & KEY_IS_ID != 0 { self.request_id } else { self.text(Part::KeyText) }
    }

    pub(super) fn principal(&self) -> &'a str {
        self.text(Part::Principal)
    }

    pub(super) fn cause(&self) -> &'a str {
        self.text(Part::Cause)
    }

    /// JSON, or empty.
    pub(super) fn labels(&self) -> &'a str {
        self.text(Part::Labels)
    }

    pub(super) fn client_ip(&self) -> &'a str {
        self.text(Part::ClientIp)
    }

    pub(super) fn method(&self) -> &'a str {
        self.text(Part::Method)
    }

    pub(super) fn target(&self) -> &'a str {
        self.text(Part::Target)
    }

    pub(super) fn headers(&self) -> &'a [u8] {
        self.bytes_of(Part::Headers)
    }

    pub(super) fn trailers(&self) -> &'a [u8] {
        self.bytes_of(Part::Trailers)
    }

    pub(super) fn answer_headers(&self) -> &'a [u8] {
        self.bytes_of(Part::AnswerHeaders)
    }

    pub(super) fn answer_body(&self) -> &'a [u8] {
        self.bytes_of(Part::AnswerBody)
    }

    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        self.head[at..].first_chunk().copied().unwrap_or([0; N])
    }

    fn digest(&self, part: Part) -> Option<Digest> {
        let bytes = self.bytes_of(part).first_chunk()?;
        Some(Digest(u128::from_be_bytes(*bytes)))
    }

    fn bytes_of(&self, part: Part) -> &'a [u8] {
        self.parts[part as usize]
    }

    /// What is no text any more is shown up to there.
    fn text(&self, part: Part) -> &'a str {
        let bytes = self.bytes_of(part);
        std::str::from_utf8(bytes).unwrap_or_else(|damage| {
            std::str::from_utf8(&bytes[..damage.valid_up_to()]).unwrap_or_default()
        })
    }
}

/// Makes it a record that is not intact: it was made of an entry that was not.
pub(super) fn spoil(record: &mut [u8]) {
    record[CHECKSUM].iter_mut().for_each(|byte| *byte = !*byte);
}

/// The first part of `rest` and what is behind it; if its length leads beyond the end, the bytes without that length.
pub(super) fn split_part(rest: &[u8]) -> (Option<(&[u8], &[u8])>, &[u8]) {
    // Most are short.
    if let [length @ 0..0x80, behind @ ..] = rest {
        return (behind.split_at_checked(usize::from(*length)), behind);
    }
    let (mut length, mut shift) = (0_usize, 0);
    for (at, byte) in rest.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let behind = &rest[at + 1..];
            return (behind.split_at_checked(length), behind);
        }
    }
    (None, rest)
}

/// 0 stands for none.
fn decode<T: Copy>(all: &[T], code: u8) -> Option<T> {
    all.get(usize::from(code).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{
        super::{Caps, Draft, Fields, Home, codec::read_fields},
        *,
    };
    use crate::time::UnixMillis;

    struct Sample {
        headers: Vec<(String, Bytes)>,
        home: Arc<Home>,
        labels: Vec<(String, String)>,
    }

    impl Sample {
        fn new() -> Self {
            Self {
                headers: vec![("host".into(), Bytes::from_static(b"a"))],
                home: Arc::new(Home {
                    route: "checkout".into(),
                    upstream: "shop".into(),
                    caps: Caps::default(),
                }),
                labels: vec![("cart".into(), "c\"1".into())],
            }
        }

        fn draft<'a>(&'a self, key_text: &'a str, body: &'a [u8]) -> Draft<'a> {
            Draft {
                request_id: "id-1",
                received_at: UnixMillis(1),
                home: &self.home,
                key: Digest(u128::MAX - 1),
                key_text,
                fingerprint: Digest(2),
                principal: "ann",
                sequence: Some(Digest(3)),
                reason: Reason::TimedOut,
                certainty: Certainty::SentUnknown,
                cause: "no answer",
                not_before: UnixMillis(-4),
                expires_at: UnixMillis(5),
                method: "POST",
                target: "/a?b",
                headers: Fields::Pairs(&self.headers),
                body,
                trailers: Fields::Pairs(&[]),
                client_ip: "::1",
                answer_status: 201,
                answer_headers: Fields::Pairs(&self.headers),
                answer_body: b"{}",
                labels: &self.labels,
                amount: i64::MIN,
                customer: None,
                held: Some(HeldReason::Unanswered),
            }
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let mut sample = Sample::new();
        for headers in [1, 20, 2000] {
            sample.headers = vec![("x-name".into(), Bytes::from_static(b"value")); headers];
            for key in ["id-1", "another", ""] {
                let bytes = sample.draft(key, b"body").encode().unwrap();
                let record = Record::of("id-1", &bytes);
                assert!(record.whole && record.is_intact());
                let numbers = (
                    record.received_at(),
                    record.not_before(),
                    record.expires_at(),
                    record.amount(),
                );
                assert_eq!(numbers, (1, -4, 5, i64::MIN));
                assert_eq!(
                    (record.key(), record.fingerprint()),
                    (Digest(u128::MAX - 1), Digest(2))
                );
                assert_eq!((record.sequence(), record.customer()), (Some(Digest(3)), None));
                assert_eq!((record.route(), record.upstream()), ("checkout", "shop"));
                assert_eq!((record.request_id(), record.key_text()), ("id-1", key));
                assert_eq!((record.principal(), record.cause()), ("ann", "no answer"));
                assert_eq!(record.reason(), Some(Reason::TimedOut));
                assert_eq!(record.certainty(), Certainty::SentUnknown);
                assert_eq!(record.held(), Some(HeldReason::Unanswered));
                assert_eq!(record.labels(), r#"[["cart","c\"1"]]"#);
                let said = (record.method(), record.target(), record.client_ip());
                assert_eq!(said, ("POST", "/a?b", "::1"));
                assert_eq!(read_fields(record.headers()).unwrap(), sample.headers);
                assert_eq!(read_fields(record.answer_headers()).unwrap(), sample.headers);
                assert_eq!(record.trailers(), b"");
                assert_eq!((record.answer_status(), record.answer_body()), (201, &b"{}"[..]));
                assert_eq!(record.body(), b"body");
            }
        }
    }

    #[test]
    fn parsed_fields_are_written_as_given_ones() {
        let mut parsed = http::HeaderMap::new();
        parsed.append("x-a", "1".parse().unwrap());
        parsed.append("gone", "x".parse().unwrap());
        parsed.append("x-b", "2".parse().unwrap());
        parsed.append("x-a", "3".parse().unwrap());
        let gone = |name: &http::HeaderName| name == "gone";
        let mut lines = Vec::new();
        write_fields(&Fields::Parsed(&parsed, &gone), &mut lines).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        assert!(!lines.contains("gone") && lines.contains("x-b: 2\r\n"), "{lines}");
        assert!(lines.find("x-a: 1\r\n") < lines.find("x-a: 3\r\n"), "{lines}");
    }

    /// They stand in files: a new word goes to the end.
    #[test]
    fn codes_never_change() {
        let all = |words: &[&str]| words.join(" ");
        let reasons: Vec<_> = Reason::ALL.iter().map(|word| word.word()).collect();
        assert_eq!(
            all(&reasons),
            "connect_failed timed_out reset bad_status breaker_open forced deferred standby sequence_held no_way_out"
        );
        let certainties: Vec<_> = Certainty::ALL.iter().map(|word| word.word()).collect();
        assert_eq!(all(&certainties), "not_sent sent_unknown");
        let held: Vec<_> = HeldReason::ALL.iter().map(|word| word.word()).collect();
        assert_eq!(
            all(&held),
            "attempts expired credentials unclear unanswered route_gone damaged by_person"
        );
    }

    #[test]
    fn every_changed_bit_and_every_missing_byte_is_found() {
        let sample = Sample::new();
        let body = [7; 100];
        let right = sample.draft("key", &body).encode().unwrap();
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!Record::of("id-1", &wrong).is_intact(), "bit {bit}");
        }
        for length in 0..right.len() {
            assert!(!Record::of("id-1", &right[..length]).is_intact(), "{length} bytes");
        }
        assert!(!Record::of("id-2", &right).is_intact());
        assert!(Record::of("id-1", &right).is_intact());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            damage in proptest::collection::vec((0_usize..500, any::<u8>()), 0..4),
        ) {
            let sample = Sample::new();
            let mut damaged = sample.draft("key", b"body").encode().unwrap();
            for (at, byte) in damage {
                if let Some(place) = damaged.get_mut(at) {
                    *place = byte;
                }
            }
            for bytes in [bytes, damaged] {
                let record = Record::of("id", &bytes);
                let _ = (record.is_intact(), record.key_text(), record.labels(), record.held());
                let _ = (record.sequence(), record.reason(), record.answer_status(), record.body());
            }
        }
    }
}
