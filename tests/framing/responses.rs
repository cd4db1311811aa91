//! Answers of the origin as bytes, what the client must get of each, and why.

use Expect::{Bad, BadOrCut, Whole};

use super::origin::{
    Script,
    Then::{self, Close, Keep},
};

pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub script: Script,
    pub expect: Expect,
    pub clause: &'static str,
}

/// What the client must get.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// Whole, with this status and body; its head has and lacks these.
    Whole(u16, &'static [u8], &'static [&'static str], &'static [&'static str]),
    /// An error of ours: 502.
    Bad,
    /// That, or an answer that is visibly not whole: nobody may take it for the app's.
    BadOrCut,
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const HELLO: Expect = Whole(200, b"hello", &[], &[]);
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

pub fn all() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(chunks());
    cases.extend(heads());
    cases.extend(interim());
    cases
}

fn lengths() -> Vec<Case> {
    let many = |fields: &str| format!("{OK}{fields}\r\nhello");
    vec![
        case("r-length", many("Content-Length: 5\r\n"), Keep, HELLO, "RFC 9112 6.3"),
        case("r-length-longer", many("Content-Length: 10\r\n"), Close, BadOrCut, "RFC 9112 8"),
        case(
            "r-length-shorter",
            many("Content-Length: 3\r\n"),
            Keep,
            Whole(200, b"hel", &[], &[]),
            "RFC 9112 6.3",
        ),
        case(
            "r-length-list",
            many("Content-Length: 5, 5\r\n"),
            Keep,
            Whole(200, b"hello", &["content-length: 5\r\n"], &["5, 5"]),
            "RFC 9110 8.6",
        ),
        case(
            "r-length-twice",
            many("Content-Length: 5\r\nContent-Length: 5\r\n"),
            Keep,
            Whole(
                200,
                b"hello",
                &["content-length: 5\r\n"],
                &["content-length: 5\r\ncontent-length"],
            ),
            "RFC 9110 8.6",
        ),
        case(
            "r-length-differs",
            many("Content-Length: 5\r\nContent-Length: 6\r\n"),
            Close,
            Bad,
            "RFC 9112 6.3",
        ),
        case("r-length-list-differs", many("Content-Length: 5, 6\r\n"), Close, Bad, "RFC 9112 6.3"),
        case("r-length-plus", many("Content-Length: +5\r\n"), Close, Bad, "RFC 9110 8.6"),
        case("r-length-minus", many("Content-Length: -5\r\n"), Close, Bad, "RFC 9110 8.6"),
        case("r-length-hex", many("Content-Length: 0x5\r\n"), Close, Bad, "RFC 9110 8.6"),
        case(
            "r-length-overflow",
            many("Content-Length: 18446744073709551621\r\n"),
            Close,
            Bad,
            "RFC 9110 8.6",
        ),
        case("r-length-none", many(""), Close, HELLO, "RFC 9112 6.3"),
        case(
            "r-length-zero-with-body",
            format!("{OK}Content-Length: 0\r\n\r\n{EVIL}"),
            Keep,
            Whole(200, b"", &[], &[]),
            "RFC 9112 6.3",
        ),
        case(
            "r-surplus-answer",
            format!("{OK}Content-Length: 5\r\n\r\nhello{EVIL}"),
            Keep,
            HELLO,
            "RFC 9112 9.2",
        ),
        case(
            "r-surplus-bytes",
            format!("{OK}Content-Length: 5\r\n\r\nhello\0\0\0"),
            Keep,
            HELLO,
            "RFC 9112 9.2",
        ),
        case(
            "r-204-with-body",
            format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"),
            Keep,
            Whole(204, b"", &[], &[]),
            "RFC 9110 15.3.5",
        ),
        case(
            "r-204-with-length",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            Keep,
            Whole(204, b"", &[], &[]),
            "RFC 9110 8.6",
        ),
        case(
            "r-304-with-length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_owned(),
            Keep,
            Whole(304, b"", &[], &[]),
            "RFC 9110 15.4.5",
        ),
        case(
            "r-304-with-body",
            format!("HTTP/1.1 304 Not Modified\r\n\r\n{EVIL}"),
            Keep,
            Whole(304, b"", &[], &[]),
            "RFC 9110 15.4.5",
        ),
        Case {
            method: "HEAD",
            ..case(
                "r-head",
                format!("{OK}Content-Length: 5\r\n\r\n"),
                Keep,
                Whole(200, b"", &["content-length: 5\r\n"], &[]),
                "RFC 9110 9.3.2",
            )
        },
        Case {
            method: "HEAD",
            ..case(
                "r-head-with-body",
                many("Content-Length: 5\r\n"),
                Keep,
                Whole(200, b"", &[], &[]),
                "RFC 9110 9.3.2",
            )
        },
        Case {
            method: "HEAD",
            ..case(
                "r-head-with-answer",
                format!("{OK}Content-Length: 45\r\n\r\n{EVIL}"),
                Keep,
                Whole(200, b"", &[], &[]),
                "RFC 9110 9.3.2",
            )
        },
    ]
}

fn chunks() -> Vec<Case> {
    let chunked = |body: &str| format!("{OK}Transfer-Encoding: chunked\r\n\r\n{body}");
    vec![
        case(
            "r-chunks",
            chunked("3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n"),
            Keep,
            HELLO,
            "RFC 9112 7.1",
        ),
        case(
            "r-chunks-and-length",
            format!(
                "{OK}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
            Keep,
            Whole(200, b"hello", &[], &["content-length"]),
            "RFC 9112 6.3",
        ),
        case(
            "r-length-and-chunks",
            format!(
                "{OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
            Keep,
            Whole(200, b"hello", &[], &["content-length"]),
            "RFC 9112 6.3",
        ),
        case("r-chunks-truncated", chunked("5\r\nhello\r\n"), Close, BadOrCut, "RFC 9112 8"),
        case(
            "r-chunks-truncated-in-end",
            chunked("5\r\nhello\r\n0\r\n"),
            Close,
            BadOrCut,
            "RFC 9112 8",
        ),
        case(
            "r-chunks-bad-size",
            chunked("5\r\nhello\r\nxyz\r\n0\r\n\r\n"),
            Keep,
            BadOrCut,
            "RFC 9112 7.1",
        ),
        case(
            "r-chunks-no-end-of-data",
            chunked("5\r\nhelloX\r\n0\r\n\r\n"),
            Keep,
            BadOrCut,
            "RFC 9112 7.1",
        ),
        case(
            "r-chunks-overflow",
            chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            Keep,
            BadOrCut,
            "RFC 9112 7.1",
        ),
        case(
            "r-chunks-surplus-answer",
            format!("{}{EVIL}", chunked("5\r\nhello\r\n0\r\n\r\n")),
            Keep,
            HELLO,
            "RFC 9112 9.2",
        ),
        case(
            "r-chunks-trailers",
            chunked("5\r\nhello\r\n0\r\nContent-Length: 99\r\nSet-Cookie: a=b\r\n\r\n"),
            Keep,
            Whole(200, b"hello", &[], &["content-length", "set-cookie"]),
            "RFC 9110 6.5.1",
        ),
        case(
            "r-coding-unknown",
            format!("{OK}Transfer-Encoding: gzip\r\n\r\nhello"),
            Close,
            HELLO,
            "RFC 9112 6.3",
        ),
    ]
}

fn heads() -> Vec<Case> {
    let with = |fields: &str| format!("{OK}{fields}Content-Length: 5\r\n\r\nhello");
    vec![
        case("r-not-http", "hello, world\r\n\r\n".to_owned(), Close, Bad, "RFC 9112 4"),
        case("r-no-version", "200 OK\r\n\r\n".to_owned(), Close, Bad, "RFC 9112 4"),
        case(
            "r-version-2",
            "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Close,
            Bad,
            "RFC 9112 2.3",
        ),
        case(
            "r-status-letters",
            "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Close,
            Bad,
            "RFC 9112 4",
        ),
        case(
            "r-status-two-digits",
            "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Close,
            Bad,
            "RFC 9112 4",
        ),
        case(
            "r-status-four-digits",
            "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Close,
            Bad,
            "RFC 9112 4",
        ),
        case(
            "r-status-099",
            "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Close,
            Bad,
            "RFC 9110 15",
        ),
        case("r-nothing", String::new(), Close, Bad, "RFC 9112 8"),
        case("r-half-a-head", format!("{OK}Content-Le"), Close, Bad, "RFC 9112 8"),
        case("r-nul-in-value", with("X: a\0b\r\n"), Close, Bad, "RFC 9110 5.5"),
        case("r-bare-cr-in-value", with("X: a\rSet-Cookie: b\r\n"), Close, Bad, "RFC 9112 2.2"),
        case("r-folded", with("X: a\r\n Set-Cookie: b\r\n"), Close, Bad, "RFC 9112 5.2"),
        case("r-space-before-colon", with("X : a\r\n"), Close, Bad, "RFC 9112 5.1"),
        case("r-space-in-name", with("X y: a\r\n"), Close, Bad, "RFC 9110 5.1"),
        case("r-no-colon", with("Xyz\r\n"), Close, Bad, "RFC 9112 5"),
        case(
            "r-bare-lf",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello".to_owned(),
            Keep,
            HELLO,
            "RFC 9112 2.2",
        ),
        case("r-too-many-fields", with(&"X: y\r\n".repeat(1000)), Close, Bad, "RFC 9110 5.4"),
        case(
            "r-huge-field",
            with(&format!("X: {}\r\n", "y".repeat(1_000_000))),
            Close,
            Bad,
            "RFC 9110 5.4",
        ),
        case(
            "r-one-hop",
            with(
                "Connection: keep-alive, X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\n",
            ),
            Keep,
            Whole(
                200,
                b"hello",
                &["x-kept: 1"],
                &["x-own", "keep-alive", "proxy-authenticate", "upgrade"],
            ),
            "RFC 9110 7.6.1",
        ),
        case(
            "r-nominates-what-is-for-all",
            with(
                "Connection: Set-Cookie, Content-Type\r\nSet-Cookie: a=b\r\nContent-Type: text/plain\r\n",
            ),
            Keep,
            Whole(200, b"hello", &["set-cookie: a=b", "content-type: text/plain"], &[]),
            "RFC 9110 7.6.1",
        ),
        case(
            "r-two-cookies",
            with("Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n"),
            Keep,
            Whole(200, b"hello", &["set-cookie: a=b\r\nset-cookie: c=d\r\n"], &[]),
            "RFC 6265 3",
        ),
        case("r-closes", with("Connection: close\r\n"), Close, HELLO, "RFC 9112 9.6"),
        case(
            "r-http10",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            Close,
            Whole(200, b"hello", &["via: 1.0 standin-"], &[]),
            "RFC 9110 7.6.3",
        ),
        case(
            "r-via",
            with("Via: 1.1 app\r\n"),
            Keep,
            Whole(200, b"hello", &["via: 1.1 app\r\n", "via: 1.1 standin-"], &[]),
            "RFC 9110 7.6.3",
        ),
        case(
            "r-id-of-the-app",
            with("X-Request-Id: theirs\r\n"),
            Keep,
            Whole(200, b"hello", &["x-request-id: 01"], &["theirs"]),
            "RFC 9110 17.1",
        ),
    ]
}

fn interim() -> Vec<Case> {
    let then = |interim: &str| format!("{interim}{OK}Content-Length: 5\r\n\r\nhello");
    vec![
        case("r-100", then("HTTP/1.1 100 Continue\r\n\r\n"), Keep, HELLO, "RFC 9110 15.2.1"),
        case(
            "r-103",
            then("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
            Keep,
            HELLO,
            "RFC 8297 2",
        ),
        case(
            "r-interim-then-nothing",
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
            Close,
            Bad,
            "RFC 9110 15.2",
        ),
        case(
            "r-interim-flood",
            then(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(5000)),
            Keep,
            Bad,
            "RFC 9110 15.2",
        ),
        case(
            "r-interim-many",
            then(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)),
            Keep,
            HELLO,
            "RFC 9110 15.2",
        ),
        case(
            "r-interim-one-too-many",
            then(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(101)),
            Keep,
            Bad,
            "RFC 9110 15.2",
        ),
        case(
            "r-101-unasked",
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{EVIL}"
            ),
            Keep,
            Bad,
            "RFC 9110 15.2.2",
        ),
        case(
            "r-101-without-protocol",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
            Keep,
            Bad,
            "RFC 9110 15.2.2",
        ),
    ]
}

fn case(
    name: &'static str,
    bytes: impl Into<String>,
    then: Then,
    expect: Expect,
    clause: &'static str,
) -> Case {
    let script = Script { bytes: bytes.into().into_bytes(), then };
    Case { name, method: "GET", script, expect, clause }
}
