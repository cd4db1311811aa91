//! Follows the raw bytes of an HTTP/1 client from head to head and reports what hyper makes disappear: a
//! `Content-Length` beside a `Transfer-Encoding` (RFC 9112 6.1), and a `#` in the target.
//!
//! hyper decides such a head one way and drops the other field, so that nobody behind it can refuse the request. What
//! hyper refuses itself is of no interest here; what it accepts must be followed exactly, or a head could hide in what
//! looks like a body. Where that is not certain the watch is lost and says so: from then on a request with a
//! `Transfer-Encoding` is refused, for it could have had a `Content-Length`, too, while one without has nothing to hide.

mod line;

use filters::request_check::{FramingFault, FramingVerdict};

use self::line::{Line, Partial};

/// One connection's observer. Keeps no more than the beginning of a line that was cut by a read.
#[derive(Debug)]
pub struct FramingWatch {
    verdict: FramingVerdict,
    state: State,
    partial: Partial,
    head: Head,
    /// Nothing was read yet but empty lines: here, and only here, may the HTTP/2 preface come.
    is_first: bool,
    /// Heads that ended so far.
    heads: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a request line, with any number of empty lines before it.
    RequestLine,
    Fields,
    /// Bytes of a body with a length, still to come.
    Length(u64),
    ChunkSize,
    /// Bytes of a chunk, still to come.
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// HTTP/2, or reported already: nothing more to find.
    Off,
    Lost,
}

/// What the fields of the head so far say about the body.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<Length>,
    /// Whether the last transfer coding so far is `chunked`.
    chunked: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Of(u64),
    /// Not a number, or two that differ.
    Unclear,
}

impl FramingWatch {
    pub fn new(verdict: FramingVerdict) -> Self {
        Self {
            verdict,
            state: State::RequestLine,
            partial: Partial::new(),
            head: Head::default(),
            is_first: true,
            heads: 0,
        }
    }

    /// A head, or more of one, comes next; or it is not known what comes.
    pub fn awaits_head(&self) -> bool {
        matches!(self.state, State::RequestLine | State::Fields | State::Lost)
    }

    /// Nothing has come since the last message ended; certain of it.
    pub fn is_between_messages(&self) -> bool {
        self.state == State::RequestLine && self.partial.is_empty()
    }

    /// To be called with all bytes that come from the client, in order, before hyper sees them. True when a head ended
    /// in them, or where that is not known.
    pub fn observe(&mut self, mut bytes: &[u8]) -> bool {
        let heads = self.heads;
        while !bytes.is_empty() {
            match self.state {
                State::Off | State::Lost => return true,
                State::Length(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 { State::RequestLine } else { State::Length(left) };
                }
                State::ChunkData(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                }
                _ => self.observe_line(&mut bytes),
            }
        }
        heads != self.heads
    }

    fn observe_line(&mut self, bytes: &mut &[u8]) {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.look_for_fragment(bytes);
            self.partial.push(bytes);
            *bytes = &[];
            return;
        };
        let (piece, rest) = bytes.split_at(end + 1);
        *bytes = rest;
        self.look_for_fragment(piece);
        if self.partial.is_empty() {
            self.line(Line::whole(piece));
        } else {
            let mut partial = std::mem::replace(&mut self.partial, Partial::new());
            partial.push(piece);
            self.line(partial.line());
        }
    }

    /// RFC 9112 3.2: no form of the request target has a fragment.
    fn look_for_fragment(&mut self, piece: &[u8]) {
        if self.state == State::RequestLine && memchr::memchr(b'#', piece).is_some() {
            self.verdict.report(FramingFault::Fragment);
        }
    }

    fn line(&mut self, line: Line<'_>) {
        match self.state {
            State::RequestLine if line.is_empty() => {}
            State::RequestLine => {
                let is_http2 = self.is_first && line.text == b"PRI * HTTP/2.0";
                self.is_first = false;
                self.head = Head::default();
                self.state = if is_http2 { State::Off } else { State::Fields };
            }
            State::Fields if line.is_empty() => self.head_ends(),
            State::Fields => self.head.field(line),
            State::ChunkSize => match line.chunk_size() {
                Some(0) => self.state = State::Trailers,
                Some(size) => self.state = State::ChunkData(size),
                None => self.lose(),
            },
            State::ChunkEnd if line.is_empty() && line.crlf => self.state = State::ChunkSize,
            State::ChunkEnd => self.lose(),
            // In a trailer section hyper takes a bare LF for part of a line, unlike in a head.
            State::Trailers if !line.crlf => self.lose(),
            State::Trailers if line.is_empty() => self.state = State::RequestLine,
            State::Trailers => {}
            State::Length(_) | State::ChunkData(_) | State::Off | State::Lost => {}
        }
    }

    /// RFC 9112 6.3, as hyper does it: the coding wins over the length, one that does not end in `chunked` is refused.
    fn head_ends(&mut self) {
        self.heads = self.heads.wrapping_add(1);
        self.state = match (self.head.length, self.head.chunked) {
            (Some(_), Some(_)) => {
                self.verdict.report(FramingFault::LengthAndEncoding);
                State::Off
            }
            (None, Some(true)) => State::ChunkSize,
            (None | Some(Length::Of(0)), None) => State::RequestLine,
            (Some(Length::Of(length)), None) => State::Length(length),
            (None, Some(false)) | (Some(Length::Unclear), None) => return self.lose(),
        };
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.verdict.report(FramingFault::Lost);
    }
}

impl Head {
    fn field(&mut self, line: Line<'_>) {
        // Nearly all other fields are told by their first letter.
        if !matches!(line.text.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        if let Some(value) = line.value_of(b"content-length:") {
            let length = number(value).filter(|_| !line.cut);
            self.length = Some(match (self.length, length) {
                (None, Some(length)) => Length::Of(length),
                (Some(Length::Of(before)), Some(length)) if before == length => Length::Of(length),
                _ => Length::Unclear,
            });
        } else if let Some(value) = line.value_of(b"transfer-encoding:") {
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            self.chunked = Some(is_chunked && !line.cut);
        }
    }
}

/// Goes past at most `left` bytes; gives what is left of them.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[here..];
    left - here as u64
}

/// Digits only, as hyper reads a length.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        io,
        pin::Pin,
        sync::{Arc, Mutex},
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::{
        body::Incoming,
        rt::{Read, ReadBufCursor, Write},
        server::conn::http1,
        service::service_fn,
    };
    use proptest::prelude::*;

    use super::*;

    fn watch(bytes: &[u8]) -> (Option<FramingFault>, State) {
        let verdict = FramingVerdict::default();
        let mut watch = FramingWatch::new(verdict.clone());
        watch.observe(bytes);
        (verdict.fault(), watch.state)
    }

    #[test]
    fn both_fields_in_one_head_are_seen_in_any_order_and_place() {
        let both = Some(FramingFault::LengthAndEncoding);
        for (stream, fault) in [
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", both),
            ("POST / HTTP/1.1\ntransfer-encoding:chunked\nx: y\nCONTENT-LENGTH:5\n\n", both),
            ("POST / HTTP/1.1\r\nContent-Length: x\r\nTransfer-Encoding: x\r\n\r\n", both),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", None),
            ("POST / HTTP/1.1\r\nX-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
                 POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nT: x\r\n\r\n\
                 \r\n\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                both,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 69\r\n\r\n\
                 POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                None,
            ),
        ] {
            assert_eq!(watch(stream.as_bytes()).0, fault, "{stream:?}");
        }
    }

    #[test]
    fn a_fragment_is_seen_even_in_pieces() {
        assert_eq!(watch(b"GET /a#b HTTP/1.1\r\n\r\n").0, Some(FramingFault::Fragment));
        assert_eq!(watch(b"GET /a HTTP/1.1\r\nX: #\r\n\r\n").0, None);
        let verdict = FramingVerdict::default();
        let mut pieces = FramingWatch::new(verdict.clone());
        for piece in [&b"GE"[..], b"T /", &[b'a'; 500], b"#b HTT", b"P/1.1\r", b"\n\r\n"] {
            pieces.observe(piece);
        }
        assert_eq!(verdict.fault(), Some(FramingFault::Fragment));
        assert_eq!(pieces.state, State::RequestLine);
    }

    #[test]
    fn http2_is_none_of_its_business() {
        assert_eq!(watch(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (None, State::Off));
        let later = b"GET / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\n";
        assert_eq!(watch(later).1, State::RequestLine);
    }

    #[test]
    fn what_is_not_certain_is_lost() {
        let chunked = |rest: &str| {
            let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            watch(format!("{head}{rest}").as_bytes())
        };
        let lost = (Some(FramingFault::Lost), State::Lost);
        assert_eq!(chunked("x\r\n"), lost);
        assert_eq!(chunked("\r\n"), lost);
        assert_eq!(chunked("5\n"), lost);
        assert_eq!(chunked("0x5\r\n"), lost);
        assert_eq!(chunked("10000000000000000\r\n"), lost);
        assert_eq!(chunked("1\r\nab\r\n"), lost);
        assert_eq!(chunked("0\r\nX: y\n\r\n"), lost, "hyper reads on");
        assert_eq!(chunked("5 \t;x\r\n"), (None, State::ChunkData(5)));
        assert_eq!(chunked("ffffffffffffffff\r\n"), (None, State::ChunkData(u64::MAX)));
        let length = |length: &str| {
            watch(format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").as_bytes())
        };
        for unclear in ["", "+5", "-5", "0x5", "5, 5", "5_0", "18446744073709551616"] {
            assert_eq!(length(unclear), lost, "{unclear}");
        }
        assert_eq!(length("5\r\nContent-Length: 6"), lost);
        assert_eq!(length("5\r\nContent-Length: 05"), (None, State::Length(5)));
        assert_eq!(
            watch(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"),
            lost
        );
    }

    /// One request as the generator made it.
    #[derive(Clone, Debug)]
    struct Made {
        bytes: Vec<u8>,
        conflict: bool,
    }

    fn line_end() -> impl Strategy<Value = &'static str> {
        prop_oneof![4 => Just("\r\n"), 1 => Just("\n")]
    }

    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,12}: [ -~]{0,20}".prop_filter("frames nothing", |field| {
                !["content-", "transfer-", "connection", "expect", "upgrade", "te:", "host"]
                    .iter()
                    .any(|start| field.starts_with(start))
            }),
            "x-[a-z]{60,120}: [a-z]{0,200}",
            Just("X-Content-Length: 7".to_owned()),
            Just("X: Transfer-Encoding: chunked".to_owned()),
        ]
    }

    fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
        let chunk =
            (prop::collection::vec(any::<u8>(), 1..40), 0..3_usize, "(;[a-z=]{0,9}|[ \t]{0,2})");
        let chunks = prop::collection::vec(chunk, 0..4);
        let trailers = prop::collection::vec("x-[a-z]{1,9}: [a-z]{0,9}", 0..3);
        (chunks, trailers).prop_map(|(chunks, trailers)| {
            let mut body = Vec::new();
            for (data, zeros, extension) in chunks {
                body.extend(
                    format!("{}{:x}{extension}\r\n", "0".repeat(zeros), data.len()).bytes(),
                );
                body.extend(data);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n");
            for trailer in trailers {
                body.extend(format!("{trailer}\r\n").bytes());
            }
            body.extend(b"\r\n");
            body
        })
    }

    fn request() -> impl Strategy<Value = Made> {
        let body = prop_oneof![
            Just((vec![], vec![], false)),
            prop::collection::vec(any::<u8>(), 0..80).prop_map(|body| {
                (vec![format!("Content-Length: {}", body.len())], body, false)
            }),
            chunked_body().prop_map(|body| (
                vec!["transfer-ENCODING: Chunked".to_owned()],
                body,
                false
            )),
            (chunked_body(), any::<bool>(), 0..200_u64).prop_map(|(body, first, length)| {
                let mut fields = vec![
                    "Transfer-Encoding: chunked".to_owned(),
                    format!("content-length: {length}"),
                ];
                if first {
                    fields.reverse();
                }
                (fields, body, true)
            }),
        ];
        let empty_lines = prop_oneof![4 => Just(""), 1 => Just("\r\n"), 1 => Just("\n\r\n")];
        (body, prop::collection::vec(field(), 0..6), line_end(), empty_lines, any::<u64>())
            .prop_map(|((framing, body, conflict), mut fields, end, empty_lines, place)| {
                for field in framing {
                    let place = usize::try_from(place).unwrap_or(0) % (fields.len() + 1);
                    fields.insert(place, field);
                }
                fields.push(format!("x-truth: {conflict}"));
                let mut bytes =
                    format!("{empty_lines}POST /x HTTP/1.1{end}Host: a{end}").into_bytes();
                for field in fields {
                    bytes.extend(format!("{field}{end}").bytes());
                }
                bytes.extend(end.bytes());
                bytes.extend(body);
                Made { bytes, conflict }
            })
    }

    /// Cuts a stream where the numbers say.
    fn pieces(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn valid_streams_are_followed_to_their_end(
            requests in prop::collection::vec(request(), 1..6),
            cuts in prop::collection::vec(any::<usize>(), 0..30),
        ) {
            let stream = requests.iter().flat_map(|made| made.bytes.clone()).collect::<Vec<_>>();
            let verdict = FramingVerdict::default();
            let mut watch = FramingWatch::new(verdict.clone());
            for piece in pieces(&stream, &cuts) {
                watch.observe(&piece);
            }
            if requests.iter().any(|made| made.conflict) {
                prop_assert_eq!(verdict.fault(), Some(FramingFault::LengthAndEncoding));
                prop_assert_eq!(watch.state, State::Off);
            } else {
                prop_assert_eq!(verdict.fault(), None);
                prop_assert_eq!(watch.state, State::RequestLine);
            }
        }

        #[test]
        fn how_a_stream_is_cut_makes_no_difference(
            stream in prop::collection::vec(
                prop_oneof![
                    any::<u8>().prop_map(|byte| vec![byte]),
                    prop::sample::select(vec![
                        "\r\n", "\n", "\r", "POST / HTTP/1.1\r\n", "Content-Length: 3\r\n", "0\r\n\r\n",
                        "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n", "#", "PRI * HTTP/2.0\r\n",
                    ]).prop_map(|text| text.as_bytes().to_vec()),
                ],
                0..40,
            ),
            cuts in prop::collection::vec(any::<usize>(), 0..30),
        ) {
            let stream = stream.concat();
            let verdict = FramingVerdict::default();
            let mut cut = FramingWatch::new(verdict.clone());
            for piece in pieces(&stream, &cuts) {
                cut.observe(&piece);
            }
            prop_assert_eq!(watch(&stream), (verdict.fault(), cut.state));
        }

        /// The parser that counts is hyper: whatever a client does to the bytes before it, no request that has both
        /// fields gets past both the verdict and the check.
        #[test]
        fn hyper_never_hands_on_what_the_watch_has_missed(
            requests in prop::collection::vec(request(), 1..6),
            damage in prop::collection::vec((any::<usize>(), 0..4_u8, any::<u8>()), 0..4),
            cuts in prop::collection::vec(any::<usize>(), 0..10),
        ) {
            let mut stream = Vec::new();
            for made in &requests {
                let mut bytes = made.bytes.clone();
                if !made.conflict {
                    damage_some(&mut bytes, &damage);
                }
                stream.extend(bytes);
            }
            for (has_both, is_encoded, fault) in handed_on(pieces(&stream, &cuts)) {
                if has_both {
                    prop_assert!(fault == Some(FramingFault::LengthAndEncoding)
                        || is_encoded && fault.is_some());
                }
            }
        }
    }

    /// A trailer section that ends later for hyper than for who takes a bare LF for a line's end: what looks like a head
    /// with a long body still belongs to it, and the head with both fields is the next one.
    #[test]
    fn a_head_cannot_hide_behind_a_trailer_section() {
        let stream =
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n\
            POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n\
            POST / HTTP/1.1\r\nHost: a\r\nx-truth: true\r\n\
            Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let handed_on = handed_on(vec![stream.to_vec()]);
        assert_eq!(handed_on.len(), 2, "hyper reads it so: {handed_on:?}");
        assert!(matches!(handed_on[1], (true, true, Some(_))), "{handed_on:?}");
    }

    fn damage_some(bytes: &mut Vec<u8>, damage: &[(usize, u8, u8)]) {
        for &(place, kind, byte) in damage {
            let place = place % bytes.len();
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, b"\r\n:;0 "[usize::from(byte) % 6]),
                2 => bytes.insert(place, b'\n'),
                _ => {
                    bytes.remove(place);
                }
            }
            if bytes.is_empty() {
                return;
            }
        }
    }

    type HandedOn = (bool, bool, Option<FramingFault>);

    /// What hyper makes of a stream: for each request whether it truly had both fields, whether it has a
    /// `Transfer-Encoding`, and the verdict at that moment.
    fn handed_on(pieces: Vec<Vec<u8>>) -> Vec<HandedOn> {
        let verdict = FramingVerdict::default();
        let stream = Watched {
            pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(),
            watch: FramingWatch::new(verdict.clone()),
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let service = service_fn(|request: Request<Incoming>| {
            let has_both = request.headers().get("x-truth").is_some_and(|truth| truth == "true");
            let is_encoded = request.headers().contains_key("transfer-encoding");
            seen.lock().unwrap().push((has_both, is_encoded, verdict.fault()));
            async move {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let connection = http1::Builder::new().serve_connection(stream, service);
        let _ = runtime.block_on(connection);
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    /// A client that sends pieces and takes whatever it is told.
    struct Watched {
        pieces: VecDeque<Vec<u8>>,
        watch: FramingWatch,
    }

    impl Read for Watched {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            mut buffer: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            let room = buffer.remaining();
            if let Some(mut piece) = self.pieces.pop_front() {
                if piece.len() > room {
                    let rest = piece.split_off(room);
                    self.pieces.push_front(rest);
                }
                self.watch.observe(&piece);
                buffer.put_slice(&piece);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Watched {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
