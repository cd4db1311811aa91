//! HTTP/2 requests frame by frame, for what no client library sends.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub struct Case {
    pub name: &'static str,
    /// Fields of the head, pseudo-fields first. `{}` stands for a target of its own.
    pub head: &'static [(&'static str, &'static str)],
    pub body: Body,
    pub expect: Expect,
    pub clause: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Body {
    None,
    Data(&'static [u8]),
    /// Data, then these trailer fields.
    Trailers(&'static [u8], &'static [(&'static str, &'static str)]),
    /// Data, and when that has arrived the stream is reset with this code.
    Reset(&'static [u8], u32),
}

#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// A 4xx or 5xx status, a stream error or a connection error, and never whole at the origin.
    Refused,
    /// Whole at the origin; head and trailers have and lack these; its body is this.
    Passes(&'static [&'static str], &'static [&'static str], &'static [u8]),
}

use Expect::{Passes, Refused};

const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "{}")];

macro_rules! head {
    ($method:literal $(, $name:literal : $value:expr)* $(,)?) => {
        &[(":method", $method), (":scheme", "http"), (":path", "{}"), (":authority", "a") $(, ($name, $value))*]
    };
}

pub const ALL: &[Case] = &[
    case(
        "h2-fine",
        head!("GET"),
        Body::None,
        Passes(
            &["GET /orders/h2-fine. HTTP/1.1\r\n", "host: a\r\n", "via: 2.0 standin-"],
            &[],
            b"",
        ),
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-body",
        head!("POST"),
        Body::Data(b"hello"),
        Passes(&[], &[], b"hello"),
        "RFC 9113 8.1",
    ),
    case(
        "h2-get-with-body",
        head!("GET"),
        Body::Data(b"hello"),
        Passes(&[], &[], b"hello"),
        "RFC 9110 9.3.1",
    ),
    case(
        "h2-host-same",
        head!("GET", "host": "a"),
        Body::None,
        Passes(&["host: a\r\n"], &["host: a\r\nhost"], b""),
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-host-only",
        &[GET[0], GET[1], GET[2], ("host", "a")],
        Body::None,
        Passes(&["host: a\r\n"], &[], b""),
        "RFC 9113 8.3.1",
    ),
    case("h2-host-differs", head!("GET", "host": "b"), Body::None, Refused, "RFC 9113 8.3.1"),
    case(
        "h2-host-two",
        head!("GET", "host": "a", "host": "a"),
        Body::None,
        Refused,
        "RFC 9112 3.2",
    ),
    case("h2-host-none", &GET, Body::None, Refused, "RFC 9113 8.3.1"),
    case(
        "h2-authority-userinfo",
        &[GET[0], GET[1], GET[2], (":authority", "u@a")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-authority-space",
        &[GET[0], GET[1], GET[2], (":authority", "a b")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case("h2-authority-two", head!("GET", ":authority": "b"), Body::None, Refused, "RFC 9113 8.3"),
    case(
        "h2-cookie-crumbs",
        head!("GET", "cookie": "a=1", "cookie": "b=2", "cookie": "c=3"),
        Body::None,
        Passes(&["cookie: a=1; b=2; c=3\r\n"], &[], b""),
        "RFC 9113 8.2.3",
    ),
    case(
        "h2-connection",
        head!("GET", "connection": "x-own", "x-own": "1"),
        Body::None,
        Refused,
        "RFC 9113 8.2.2",
    ),
    case("h2-keep-alive", head!("GET", "keep-alive": "1"), Body::None, Refused, "RFC 9113 8.2.2"),
    case("h2-upgrade", head!("GET", "upgrade": "websocket"), Body::None, Refused, "RFC 9113 8.2.2"),
    case(
        "h2-te-trailers",
        head!("GET", "te": "trailers"),
        Body::None,
        Passes(&["te: trailers\r\n", "connection: te\r\n"], &[], b""),
        "RFC 9110 10.1.4",
    ),
    case("h2-te-gzip", head!("GET", "te": "gzip"), Body::None, Refused, "RFC 9113 8.2.2"),
    case(
        "h2-transfer-encoding",
        head!("POST", "transfer-encoding": "chunked"),
        Body::Data(b"0\r\n\r\n"),
        Refused,
        "RFC 9113 8.2.2",
    ),
    case(
        "h2-length-longer",
        head!("POST", "content-length": "10"),
        Body::Data(b"hello"),
        Refused,
        "RFC 9113 8.1.1",
    ),
    case(
        "h2-length-shorter",
        head!("POST", "content-length": "3"),
        Body::Data(b"hello"),
        Refused,
        "RFC 9113 8.1.1",
    ),
    case(
        "h2-length-without-body",
        head!("POST", "content-length": "3"),
        Body::None,
        Refused,
        "RFC 9113 8.1.1",
    ),
    case(
        "h2-length-two",
        head!("POST", "content-length": "5", "content-length": "6"),
        Body::Data(b"hello"),
        Refused,
        "RFC 9113 8.1.1",
    ),
    case(
        "h2-length-plus",
        head!("POST", "content-length": "+5"),
        Body::Data(b"hello"),
        Refused,
        "RFC 9113 8.1.1",
    ),
    case("h2-reset-in-body", head!("POST"), Body::Reset(b"hello", CANCEL), Refused, "RFC 9113 8.1"),
    // Some proxies say nothing else when their client has left; hyper takes it for the end of the body.
    case(
        "h2-reset-without-error",
        head!("POST"),
        Body::Reset(b"hello", NO_ERROR),
        Refused,
        "RFC 9113 8.1",
    ),
    case(
        "h2-crlf-in-value",
        head!("GET", "x": "a\r\nhost: b"),
        Body::None,
        Refused,
        "RFC 9113 8.2.1",
    ),
    case("h2-lf-in-value", head!("GET", "x": "a\nb"), Body::None, Refused, "RFC 9113 8.2.1"),
    case("h2-nul-in-value", head!("GET", "x": "a\0b"), Body::None, Refused, "RFC 9113 8.2.1"),
    case("h2-upper-case-name", head!("GET", "X-Upper": "1"), Body::None, Refused, "RFC 9113 8.2.1"),
    case("h2-colon-in-name", head!("GET", "x:y": "1"), Body::None, Refused, "RFC 9113 8.2.1"),
    case(
        "h2-crlf-in-name",
        head!("GET", "x: y\r\nhost": "b"),
        Body::None,
        Refused,
        "RFC 9113 8.2.1",
    ),
    case("h2-empty-name", head!("GET", "": "1"), Body::None, Refused, "RFC 9113 8.2.1"),
    case(
        "h2-crlf-in-path",
        &[GET[0], GET[1], (":path", "{} HTTP/1.1\r\nhost: b\r\n"), (":authority", "a")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-space-in-path",
        &[GET[0], GET[1], (":path", "{} x"), (":authority", "a")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-empty-path",
        &[GET[0], GET[1], (":path", ""), (":authority", "a"), ("x-case", "{}")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-path-not-absolute",
        &[GET[0], GET[1], (":path", "orders"), (":authority", "a"), ("x-case", "{}")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-no-path",
        &[GET[0], GET[1], (":authority", "a"), ("x-case", "{}")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-no-method",
        &[GET[1], GET[2], (":authority", "a")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case(
        "h2-no-scheme",
        &[GET[0], GET[2], (":authority", "a")],
        Body::None,
        Refused,
        "RFC 9113 8.3.1",
    ),
    case("h2-two-paths", head!("GET", ":path": "/other"), Body::None, Refused, "RFC 9113 8.3"),
    case("h2-two-methods", head!("GET", ":method": "POST"), Body::None, Refused, "RFC 9113 8.3"),
    case(
        "h2-pseudo-after-field",
        &[GET[0], GET[1], ("x", "1"), GET[2], (":authority", "a")],
        Body::None,
        Refused,
        "RFC 9113 8.3",
    ),
    case("h2-pseudo-unknown", head!("GET", ":other": "x"), Body::None, Refused, "RFC 9113 8.3"),
    case(
        "h2-pseudo-of-an-answer",
        head!("GET", ":status": "200"),
        Body::None,
        Refused,
        "RFC 9113 8.3",
    ),
    case(
        "h2-method-with-space",
        &[
            (":method", "GET /x HTTP/1.1\r\nhost: b\r\n\r\nGET"),
            GET[1],
            GET[2],
            (":authority", "a"),
        ],
        Body::None,
        Refused,
        "RFC 9110 9.1",
    ),
    case(
        "h2-connect",
        &[(":method", "CONNECT"), (":authority", "a:80"), ("x-case", "{}")],
        Body::None,
        Refused,
        "RFC 9113 8.5",
    ),
    case("h2-trace", head!("TRACE"), Body::None, Refused, "RFC 9110 9.3.8"),
    case(
        "h2-asterisk",
        &[GET[0], GET[1], (":path", "*"), (":authority", "a"), ("x-case", "{}")],
        Body::None,
        Refused,
        "RFC 9112 3.2.4",
    ),
    case(
        "h2-trailers",
        head!("POST", "trailer": "x-sum, host"),
        Body::Trailers(
            b"hello",
            &[("x-sum", "1"), ("host", "trailer"), ("x-request-id", "trailer")],
        ),
        Passes(&["x-sum: 1\r\n"], &["host: trailer", "x-request-id: trailer"], b"hello"),
        "RFC 9110 6.5.1",
    ),
    case(
        "h2-trailers-with-pseudo",
        head!("POST"),
        Body::Trailers(b"hello", &[(":path", "/other")]),
        Passes(&[], &["/other"], b"hello"),
        "RFC 9113 8.1",
    ),
    case(
        "h2-id-untrusted",
        head!("GET", "x-request-id": "mine"),
        Body::None,
        Passes(&["x-request-id: 01"], &["mine"], b""),
        "RFC 9110 17.1",
    ),
];

const fn case(
    name: &'static str,
    head: &'static [(&'static str, &'static str)],
    body: Body,
    expect: Expect,
    clause: &'static str,
) -> Case {
    Case { name, head, body, expect, clause }
}

/// What came back for the one stream.
#[derive(Debug)]
pub enum Outcome {
    /// The first byte of the head: statuses that matter have one of their own.
    Answer {
        indexed_status: u8,
        body: Vec<u8>,
    },
    Reset,
    Closed,
    Silent,
}

impl Outcome {
    /// 200, by its place in the table of RFC 7541 A.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Answer { indexed_status: 0x88, .. })
    }

    pub fn text(&self) -> String {
        match self {
            Self::Answer { body, .. } => String::from_utf8_lossy(body).into_owned(),
            Self::Reset | Self::Closed | Self::Silent => String::new(),
        }
    }

    pub fn is_success_of_another_kind(&self) -> bool {
        matches!(self, Self::Answer { indexed_status: 0x89..=0x8a, .. })
    }
}

/// Sends the request on stream 1 of a connection of its own.
pub async fn send(address: SocketAddr, case: &Case, target: &str) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    let head = fields(case.head, target);
    let data = |data: &[u8], flags| frame(DATA, flags, 1, data);
    match case.body {
        Body::None => bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)),
        Body::Data(body) => {
            bytes.extend(frame(HEADERS, END_HEADERS, 1, &head));
            bytes.extend(data(body, END_STREAM));
        }
        Body::Trailers(body, trailers) => {
            bytes.extend(frame(HEADERS, END_HEADERS, 1, &head));
            bytes.extend(data(body, 0));
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(trailers, target)));
        }
        Body::Reset(body, code) => {
            bytes.extend(frame(HEADERS, END_HEADERS, 1, &head));
            bytes.extend(data(body, 0));
            bytes.extend(frame(SETTINGS, ACK, 0, b""));
            bytes.extend(frame(PING, 0, 0, b"arrived?"));
            let _ = stream.write_all(&bytes).await;
            while next_frame(&mut stream).await.is_some_and(|(kind, ..)| kind != PING) {}
            let _ = stream.write_all(&frame(RST_STREAM, 0, 1, &code.to_be_bytes())).await;
            // Nothing comes for a stream that was reset.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Outcome::Reset;
        }
    }
    let _ = stream.write_all(&bytes).await;
    timeout(Duration::from_secs(8), outcome(&mut stream)).await.unwrap_or(Outcome::Silent)
}

async fn outcome(stream: &mut TcpStream) -> Outcome {
    let mut indexed_status = None;
    let mut answer = Vec::new();
    while let Some((kind, flags, id, payload)) = next_frame(stream).await {
        match (kind, id) {
            (SETTINGS, 0) if flags & ACK == 0 => {
                let _ = stream.write_all(&frame(SETTINGS, ACK, 0, b"")).await;
            }
            (HEADERS, 1) if indexed_status.is_none() => {
                // A change of the table's size may come first.
                indexed_status = payload.iter().copied().find(|byte| byte & 0xe0 != 0x20);
            }
            (DATA, 1) => answer.extend(payload),
            (RST_STREAM, 1) => return Outcome::Reset,
            (GOAWAY, _) => return Outcome::Closed,
            _ => {}
        }
        if let (Some(indexed_status), 1, true) = (indexed_status, id, flags & END_STREAM != 0) {
            return Outcome::Answer { indexed_status, body: answer };
        }
    }
    Outcome::Closed
}

pub async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut payload).await.ok()?;
    let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Some((head[3], head[4], id, payload))
}

pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 7541 6.2.2: literal fields without indexing, new names, not compressed.
pub fn fields(fields: &[(&str, &str)], target: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [(*name).to_owned(), value.replace("{}", target)] {
            assert!(text.len() < 127, "a length of one byte");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    block
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
