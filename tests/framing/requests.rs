//! Requests as bytes, what must become of each, and why. `{}` stands for a target of its own (`/orders/NAME.`).

use Expect::{Broken, Passes, Refused};

pub type Case = (&'static str, &'static [u8], Expect, &'static str);

/// What must become of a request.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// One of these statuses, the connection closed, and nothing of it reaches the origin.
    Refused(&'static [u16]),
    /// Its body is broken (the client sends no more): never whole at the origin, 400, 408 or no answer at all.
    Broken,
    /// It reaches the origin whole, once; its head and trailers have and lack these, its body is this.
    Passes(&'static [&'static str], &'static [&'static str], &'static [u8]),
}

const BAD: Expect = Refused(&[400]);
/// Passes without further conditions.
const FINE: Expect = Passes(&[], &[], b"");
const HELLO: Expect = Passes(&[], &[], b"hello");

/// `GET` with these fields besides a Host.
macro_rules! get {
    ($fields:literal) => {
        concat!("GET {} HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n").as_bytes()
    };
}

/// `POST` with these fields besides a Host, and these bytes after the head.
macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!("POST {} HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n", $body).as_bytes()
    };
}

/// A chunked `POST` with these bytes after the head.
macro_rules! chunked {
    ($body:literal) => {
        post!("Transfer-Encoding: chunked\r\n", $body)
    };
}

/// `GET` with this Host field value.
macro_rules! host {
    ($host:literal) => {
        concat!("GET {} HTTP/1.1\r\nHost: ", $host, "\r\n\r\n").as_bytes()
    };
}

pub const LENGTH_AND_CODING: &[Case] = &[
    ("clte-basic", post!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nX"), BAD, "RFC 9112 6.1"),
    ("tecl-basic", post!("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nX"), BAD, "RFC 9112 6.1"),
    (
        "tecl-smuggled",
        post!(
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "2a\r\nGET /orders/smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n"
        ),
        BAD,
        "RFC 9112 11.2",
    ),
    (
        "clte-two-lengths",
        post!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nX"),
        BAD,
        "RFC 9112 6.1",
    ),
    ("clte-zero", post!("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.1"),
    ("clte-length-invalid", post!("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.3"),
    (
        "clte-any-case",
        post!("CONTENT-LENGTH: 5\r\ntransfer-encoding: CHUNKED\r\n", "0\r\n\r\n"),
        BAD,
        "RFC 9110 5.1",
    ),
    (
        "clte-bare-lf",
        b"POST {} HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
        BAD,
        "RFC 9112 2.2",
    ),
    (
        "clte-far-apart",
        post!(
            "Content-Length: 5\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n"
        ),
        BAD,
        "RFC 9112 6.1",
    ),
    (
        "clte-get",
        b"GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 6.1",
    ),
    ("clte-identity", post!("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"), BAD, "RFC 9112 6.1"),
    (
        "clte-nominated",
        post!("Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        BAD,
        "RFC 9110 7.6.1",
    ),
    (
        "clte-behind-a-trailer-section",
        b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n\
          POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n\
          POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 7.1.2",
    ),
    ("te-xchunked", post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.1"),
    ("te-identity", post!("Transfer-Encoding: identity\r\n", "hello"), BAD, "RFC 9112 6.1"),
    ("te-gzip", post!("Transfer-Encoding: gzip\r\n", "hello"), BAD, "RFC 9112 6.3"),
    ("te-gzip-chunked", post!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), Refused(&[400, 501]), "RFC 9112 6.1"),
    ("te-chunked-gzip", post!("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.3"),
    ("te-twice-in-one", post!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.1"),
    (
        "te-two-fields",
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        BAD,
        "RFC 9112 6.1",
    ),
    (
        "te-identity-and-chunked",
        post!("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        BAD,
        "RFC 9112 6.1",
    ),
    ("te-leading-comma", post!("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"), BAD, "RFC 9110 5.6.1"),
    ("te-trailing-comma", post!("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"), BAD, "RFC 9110 5.6.1"),
    ("te-quoted", post!("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.1"),
    ("te-parameter", post!("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), BAD, "RFC 9112 7"),
    ("te-vertical-tab", post!("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), BAD, "RFC 9110 5.5"),
    ("te-form-feed", post!("Transfer-Encoding: \x0cchunked\r\n", "0\r\n\r\n"), BAD, "RFC 9110 5.5"),
    ("te-nbsp", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", BAD, "RFC 9110 5.5"),
    ("te-nul", post!("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n"), BAD, "RFC 9110 5.5"),
    ("te-kelvin-sign", post!("Transfer-Encoding: chun\u{212a}ed\r\n", "0\r\n\r\n"), BAD, "RFC 9110 5.5"),
    ("te-empty", post!("Transfer-Encoding: \r\n", "0\r\n\r\n"), BAD, "RFC 9112 6.1"),
    ("te-space-before-colon", post!("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), BAD, "RFC 9112 5.1"),
    ("te-tab-before-colon", post!("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), BAD, "RFC 9112 5.1"),
    ("te-folded", post!("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), BAD, "RFC 9112 5.2"),
    ("te-bare-cr", post!("Transfer-Encoding: chunked\rX: y\r\n", "0\r\n\r\n"), BAD, "RFC 9112 2.2"),
    (
        "te-http10",
        b"POST {} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 6.1",
    ),
    ("te-mixed-case", post!("tRaNsFeR-eNcOdInG: cHuNkEd\r\n", "5\r\nhello\r\n0\r\n\r\n"), HELLO, "RFC 9112 7"),
    ("te-tab-around", post!("Transfer-Encoding:\tchunked\t\r\n", "5\r\nhello\r\n0\r\n\r\n"), HELLO, "RFC 9110 5.5"),
    (
        "te-underscore",
        post!("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        HELLO,
        "RFC 9110 5.1",
    ),
    (
        "te-nominated",
        post!("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        HELLO,
        "RFC 9110 7.6.1",
    ),
    (
        "te-get",
        b"GET {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        HELLO,
        "RFC 9112 6",
    ),
];

pub const LENGTH: &[Case] = &[
    ("cl-same-twice", post!("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), HELLO, "RFC 9110 8.6"),
    ("cl-differs", post!("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), BAD, "RFC 9112 6.3"),
    ("cl-list-same", post!("Content-Length: 5, 5\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-list-differs", post!("Content-Length: 5, 6\r\n", "hello!"), BAD, "RFC 9112 6.3"),
    ("cl-plus", post!("Content-Length: +5\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-minus", post!("Content-Length: -5\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-hex", post!("Content-Length: 0x5\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-underscore", post!("Content-Length: 5_0\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-empty", post!("Content-Length: \r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-space-inside", post!("Content-Length: 5 5\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-letter", post!("Content-Length: 5a\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-decimal", post!("Content-Length: 5.0\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-comma", post!("Content-Length: ,\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-nul", post!("Content-Length: 5\0\r\n", "hello"), BAD, "RFC 9110 5.5"),
    ("cl-arabic-digit", post!("Content-Length: \u{665}\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-2-to-64", post!("Content-Length: 18446744073709551616\r\n", "hello"), BAD, "RFC 9110 8.6"),
    (
        "cl-2-to-64-less-1",
        post!("Content-Length: 18446744073709551615\r\n", "hello"),
        Refused(&[400, 413, 431]),
        "RFC 9110 8.6",
    ),
    ("cl-wraps-to-5", post!("Content-Length: 18446744073709551621\r\n", "hello"), BAD, "RFC 9110 8.6"),
    ("cl-space-before-colon", post!("Content-Length : 5\r\n", "hello"), BAD, "RFC 9112 5.1"),
    ("cl-folded", post!("Content-Length:\r\n 5\r\n", "hello"), BAD, "RFC 9112 5.2"),
    ("cl-leading-zeros", post!("Content-Length: 005\r\n", "hello"), HELLO, "RFC 9110 8.6"),
    ("cl-tab", post!("Content-Length:\t5\r\n", "hello"), HELLO, "RFC 9110 5.5"),
    ("cl-nominated", post!("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"), HELLO, "RFC 9110 7.6.1"),
    ("cl-get", b"GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", HELLO, "RFC 9110 9.3.1"),
    ("cl-delete", b"DELETE {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", HELLO, "RFC 9110 9.3.5"),
    ("cl-zero", post!("Content-Length: 0\r\n", ""), FINE, "RFC 9110 8.6"),
    ("cl-none", post!("", ""), FINE, "RFC 9112 6.3"),
    ("cl-http10", b"POST {} HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", HELLO, "RFC 9112 6.3"),
    ("cl-truncated", post!("Content-Length: 10\r\n", "hello"), Broken, "RFC 9112 8"),
    ("cl-truncated-before-the-first-byte", post!("Content-Length: 10\r\n", ""), Broken, "RFC 9112 8"),
    (
        "cl-body-is-a-request",
        b"GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 41\r\n\r\nGET /orders/inner HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
        Passes(&[], &[], b"GET /orders/inner HTTP/1.1\r\nHost: a\r\n\r\n\r\n"),
        "RFC 9112 6.3",
    ),
    // Answered before the body is read: what is left of it must not become the next request.
    (
        "cl0-trace",
        b"TRACE {} HTTP/1.1\r\nHost: a\r\nContent-Length: 41\r\n\r\nGET /orders/inner HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
        Refused(&[405]),
        "RFC 9112 9.3",
    ),
    (
        "cl0-bad-host",
        b"POST {} HTTP/1.1\r\nHost: a b\r\nContent-Length: 41\r\n\r\nGET /orders/inner HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
        BAD,
        "RFC 9112 9.3",
    ),
    (
        "te0-bad-host",
        b"POST {} HTTP/1.1\r\nHost: a b\r\nTransfer-Encoding: chunked\r\n\r\n29\r\n\
          GET /orders/inner HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n0\r\n\r\n",
        BAD,
        "RFC 9112 9.3",
    ),
    (
        "cl0-expect",
        b"TRACE {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 41\r\n\r\n\
          GET /orders/inner HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
        Refused(&[405]),
        "RFC 9110 10.1.1",
    ),
    (
        "expect-continue",
        post!("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
        Passes(&[], &["expect:"], b"hello"),
        "RFC 9110 10.1.1",
    ),
    (
        "expect-obfuscated",
        post!("Expect: y 100-continue\r\nContent-Length: 5\r\n", "hello"),
        Passes(&[], &["expect:"], b"hello"),
        "RFC 9110 10.1.1",
    ),
];

pub const CHUNKS: &[Case] = &[
    ("chunk-one", chunked!("5\r\nhello\r\n0\r\n\r\n"), HELLO, "RFC 9112 7.1"),
    ("chunk-several", chunked!("1\r\nh\r\n2\r\nel\r\n2\r\nlo\r\n0\r\n\r\n"), HELLO, "RFC 9112 7.1"),
    ("chunk-none", chunked!("0\r\n\r\n"), FINE, "RFC 9112 7.1"),
    (
        "chunk-upper-case",
        chunked!("A\r\n0123456789\r\n0\r\n\r\n"),
        Passes(&[], &[], b"0123456789"),
        "RFC 9112 7.1",
    ),
    ("chunk-leading-zeros", chunked!("0000005\r\nhello\r\n000\r\n\r\n"), HELLO, "RFC 9112 7.1"),
    ("chunk-trailing-space", chunked!("5 \r\nhello\r\n0\r\n\r\n"), HELLO, "RFC 9112 7.1.1"),
    ("chunk-extension", chunked!("5;a=b\r\nhello\r\n0;c\r\n\r\n"), HELLO, "RFC 9112 7.1.1"),
    (
        "chunk-extension-quoted",
        chunked!("5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
        HELLO,
        "RFC 9112 7.1.1",
    ),
    ("chunk-extension-empty", chunked!("5;\r\nhello\r\n0\r\n\r\n"), HELLO, "RFC 9112 7.1.1"),
    ("chunk-leading-space", chunked!(" 5\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-hex-prefix", chunked!("0x5\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-plus", chunked!("+5\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-minus", chunked!("-5\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-underscore", chunked!("5_\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-letter", chunked!("5g\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-space-inside", chunked!("0 5\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-no-size", chunked!("\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-only-extension", chunked!(";a\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-overflow", chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    (
        "chunk-overflow-all-f",
        chunked!("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        Broken,
        "RFC 9112 7.1",
    ),
    ("chunk-bare-lf", chunked!("5\nhello\n0\n\n"), Broken, "RFC 9112 7.1"),
    ("chunk-bare-lf-after-size", chunked!("5\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-bare-lf-after-data", chunked!("5\r\nhello\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-bare-cr-after-size", chunked!("5\rhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-lf-in-extension", chunked!("5;a\nb\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1.1"),
    ("chunk-cr-in-extension", chunked!("5;a\rb\r\nhello\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1.1"),
    ("chunk-no-end-of-data", chunked!("5\r\nhello0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-data-longer", chunked!("5\r\nhello!\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-data-shorter", chunked!("5\r\nhi\r\n0\r\n\r\n"), Broken, "RFC 9112 7.1"),
    ("chunk-truncated-at-once", chunked!(""), Broken, "RFC 9112 8"),
    ("chunk-truncated-in-size", chunked!("5"), Broken, "RFC 9112 8"),
    ("chunk-truncated-in-data", chunked!("5\r\nhel"), Broken, "RFC 9112 8"),
    ("chunk-truncated-after-data", chunked!("5\r\nhello\r\n"), Broken, "RFC 9112 8"),
    ("chunk-truncated-in-last", chunked!("5\r\nhello\r\n0"), Broken, "RFC 9112 8"),
    ("chunk-truncated-before-end", chunked!("5\r\nhello\r\n0\r\n"), Broken, "RFC 9112 8"),
    ("chunk-truncated-in-end", chunked!("5\r\nhello\r\n0\r\n\r"), Broken, "RFC 9112 8"),
    ("chunk-truncated-in-trailer", chunked!("5\r\nhello\r\n0\r\nX: y\r\n"), Broken, "RFC 9112 8"),
    (
        "chunk-trailer-not-a-field",
        chunked!("5\r\nhello\r\n0\r\nno colon\r\n\r\n"),
        Broken,
        "RFC 9112 7.1.2",
    ),
    (
        "chunk-trailer-space-in-name",
        chunked!("5\r\nhello\r\n0\r\na b: c\r\n\r\n"),
        Broken,
        "RFC 9112 7.1.2",
    ),
    (
        "chunk-trailer",
        post!(
            "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
        ),
        Passes(&["x-sum: 1\r\n"], &[], b"hello"),
        "RFC 9110 6.5",
    ),
    (
        "chunk-trailer-forbidden",
        post!(
            "Trailer: Content-Length, Host, X-Request-Id, Authorization\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nContent-Length: 99\r\nHost: trailer\r\nX-Request-Id: trailer\r\nAuthorization: trailer\r\n\r\n"
        ),
        Passes(
            &[],
            &[
                "content-length: 99",
                "host: trailer",
                "x-request-id: trailer",
                "authorization: trailer",
            ],
            b"hello",
        ),
        "RFC 9110 6.5.1",
    ),
];

pub const FIELDS: &[Case] = &[
    ("f-obs-fold", get!("X: a\r\n b\r\n"), BAD, "RFC 9112 5.2"),
    ("f-obs-fold-tab", get!("X: a\r\n\tb\r\n"), BAD, "RFC 9112 5.2"),
    ("f-first-line-folded", b"GET {} HTTP/1.1\r\n Host: a\r\n\r\n", BAD, "RFC 9112 2.2"),
    ("f-space-before-colon", get!("X : a\r\n"), BAD, "RFC 9112 5.1"),
    ("f-tab-before-colon", get!("X\t: a\r\n"), BAD, "RFC 9112 5.1"),
    ("f-no-colon", get!("Xyz\r\n"), BAD, "RFC 9112 5"),
    ("f-empty-name", get!(": a\r\n"), BAD, "RFC 9110 5.1"),
    ("f-space-in-name", get!("X y: a\r\n"), BAD, "RFC 9110 5.1"),
    ("f-paren-in-name", get!("X(y): a\r\n"), BAD, "RFC 9110 5.1"),
    ("f-quote-in-name", get!("\"X\": a\r\n"), BAD, "RFC 9110 5.1"),
    ("f-nul-in-name", get!("X\0: a\r\n"), BAD, "RFC 9110 5.1"),
    ("f-high-byte-in-name", b"GET {} HTTP/1.1\r\nHost: a\r\nX\xff: a\r\n\r\n", BAD, "RFC 9110 5.1"),
    ("f-nul-in-value", get!("X: a\0b\r\n"), BAD, "RFC 9110 5.5"),
    ("f-control-in-value", get!("X: a\x01b\r\n"), BAD, "RFC 9110 5.5"),
    ("f-del-in-value", get!("X: a\x7fb\r\n"), BAD, "RFC 9110 5.5"),
    ("f-bare-cr-in-value", get!("X: a\rb\r\n"), BAD, "RFC 9112 2.2"),
    ("f-bare-cr-as-line-end", get!("X: a\rY: b\r\n"), BAD, "RFC 9112 2.2"),
    (
        "f-bare-lf",
        b"GET {} HTTP/1.1\nHost: a\nX: b\n\n",
        Passes(&["x: b\r\n"], &[], b""),
        "RFC 9112 2.2",
    ),
    (
        "f-high-byte-in-value",
        b"GET {} HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n",
        FINE,
        "RFC 9110 5.5",
    ),
    ("f-empty-value", get!("X:\r\n"), Passes(&["x: \r\n"], &[], b""), "RFC 9110 5.5"),
    ("f-empty-lines-before", b"\r\n\r\nGET {} HTTP/1.1\r\nHost: a\r\n\r\n", FINE, "RFC 9112 2.2"),
    (
        "f-same-name-in-order",
        get!("X: 1\r\nX: 2\r\n"),
        Passes(&["x: 1\r\nx: 2\r\n"], &[], b""),
        "RFC 9110 5.3",
    ),
    ("line-no-version", b"GET {}\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3"),
    ("line-http-09", b"GET {}\r\n\r\n", BAD, "RFC 9112 2.3"),
    ("line-http-12", b"GET {} HTTP/1.2\r\nHost: a\r\n\r\n", Refused(&[400, 505]), "RFC 9112 2.3"),
    ("line-http-2", b"GET {} HTTP/2.0\r\nHost: a\r\n\r\n", Refused(&[400, 505]), "RFC 9112 2.3"),
    (
        "line-http-11-long",
        b"GET {} HTTP/1.10\r\nHost: a\r\n\r\n",
        Refused(&[400, 505]),
        "RFC 9112 2.3",
    ),
    (
        "line-lower-case",
        b"GET {} http/1.1\r\nHost: a\r\n\r\n",
        Refused(&[400, 505]),
        "RFC 9112 2.3",
    ),
    ("line-two-spaces", b"GET  {} HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3"),
    ("line-two-spaces-behind", b"GET {}  HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3"),
    ("line-tab", b"GET\t{} HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3"),
    (
        "line-trailing-space",
        b"GET {} HTTP/1.1 \r\nHost: a\r\n\r\n",
        Refused(&[400, 505]),
        "RFC 9112 3",
    ),
    ("line-leading-space", b" GET {} HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3"),
    ("line-bare-cr", b"GET {} HTTP/1.1\rHost: a\r\n\r\n", BAD, "RFC 9112 2.2"),
    (
        "method-connect",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nX-Case: {}\r\n\r\n",
        Refused(&[405, 501]),
        "RFC 9110 9.3.6",
    ),
    ("method-trace", b"TRACE {} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[405]), "RFC 9110 9.3.8"),
    (
        "method-33",
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG {} HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(&[501]),
        "RFC 9112 3.1",
    ),
    ("method-not-a-token", b"GE(T {} HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9110 9.1"),
    ("method-none", b"{} HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3"),
    (
        "method-lower-case",
        b"get {} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["get /orders"], &[], b""),
        "RFC 9110 9.1",
    ),
    (
        "method-own",
        b"BREW {} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["BREW /orders"], &[], b""),
        "RFC 9110 9.1",
    ),
    ("method-options", b"OPTIONS {} HTTP/1.1\r\nHost: a\r\n\r\n", FINE, "RFC 9110 9.3.7"),
];

pub const HOST_AND_TARGET: &[Case] = &[
    ("host-none", b"GET {} HTTP/1.1\r\n\r\n", BAD, "RFC 9112 3.2"),
    (
        "host-none-http10",
        b"GET {} HTTP/1.0\r\n\r\n",
        Passes(&["\r\nhost: "], &[], b""),
        "RFC 9112 3.2",
    ),
    ("host-twice", b"GET {} HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3.2"),
    ("host-two", b"GET {} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BAD, "RFC 9112 3.2"),
    ("host-two-http10", b"GET {} HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BAD, "RFC 9112 3.2"),
    ("host-empty", host!(""), BAD, "RFC 9110 4.2.1"),
    ("host-space", host!("a b"), BAD, "RFC 9112 3.2"),
    ("host-slash", host!("a/b"), BAD, "RFC 9112 3.2"),
    ("host-question", host!("a?b"), BAD, "RFC 9112 3.2"),
    ("host-hash", host!("a#b"), BAD, "RFC 9112 3.2"),
    ("host-backslash", host!("a\\b"), BAD, "RFC 9112 3.2"),
    ("host-userinfo", host!("user@a"), BAD, "RFC 9110 4.2.4"),
    ("host-userinfo-port", host!("a:80@b"), BAD, "RFC 9110 4.2.4"),
    ("host-markup", host!("<script>"), BAD, "RFC 9112 3.2"),
    ("host-list", host!("a, b"), BAD, "RFC 9112 3.2"),
    ("host-percent", host!("a%00b"), BAD, "RFC 9112 3.2"),
    ("host-utf8", host!("b\u{fc}cher"), BAD, "RFC 9112 3.2"),
    ("host-port-letters", host!("a:80x"), BAD, "RFC 9112 3.2"),
    ("host-port-too-large", host!("a:65536"), BAD, "RFC 9112 3.2"),
    ("host-port-negative", host!("a:-1"), BAD, "RFC 9112 3.2"),
    ("host-only-port", host!(":80"), BAD, "RFC 9112 3.2"),
    ("host-ipv6-open", host!("[::1"), BAD, "RFC 9112 3.2"),
    ("host-ipv6-bare", host!("::1"), BAD, "RFC 9112 3.2"),
    ("host-space-before-colon", b"GET {} HTTP/1.1\r\nHost : a\r\n\r\n", BAD, "RFC 9112 5.1"),
    ("host-folded", b"GET {} HTTP/1.1\r\nHost:\r\n a\r\n\r\n", BAD, "RFC 9112 5.2"),
    ("host-ipv6", host!("[::1]:80"), Passes(&["host: [::1]:80\r\n"], &[], b""), "RFC 9112 3.2"),
    (
        "host-case",
        host!("Shop.Example"),
        Passes(&["host: Shop.Example\r\n"], &[], b""),
        "RFC 9110 7.2",
    ),
    ("host-tab-around", host!("\ta\t"), Passes(&["host: a\r\n"], &[], b""), "RFC 9110 5.5"),
    (
        "target-absolute-wins",
        b"GET http://b:81{} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["GET /orders/", "host: b:81\r\n"], &["host: a\r\n", "http://"], b""),
        "RFC 9112 3.2.2",
    ),
    (
        "target-absolute-https",
        b"GET https://b{} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["GET /orders/", "host: b\r\n"], &[], b""),
        "RFC 9112 3.2.2",
    ),
    (
        "target-absolute-no-path",
        b"GET http://a?{} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["GET /?/orders/"], &[], b""),
        "RFC 9112 3.2.1",
    ),
    ("target-absolute-no-host", b"GET http://a{} HTTP/1.1\r\n\r\n", BAD, "RFC 9112 3.2"),
    (
        "target-absolute-userinfo",
        b"GET http://u:p@a{} HTTP/1.1\r\nHost: a\r\n\r\n",
        BAD,
        "RFC 9110 4.2.4",
    ),
    (
        "target-absolute-bad-port",
        b"GET http://a:99999{} HTTP/1.1\r\nHost: a\r\n\r\n",
        BAD,
        "RFC 9112 3.2",
    ),
    ("target-absolute-ftp", b"GET ftp://a{} HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3.2"),
    (
        "target-authority",
        b"GET a:80 HTTP/1.1\r\nHost: a\r\nX-Case: {}\r\n\r\n",
        BAD,
        "RFC 9112 3.2.3",
    ),
    ("target-name", b"GET orders HTTP/1.1\r\nHost: a\r\nX-Case: {}\r\n\r\n", BAD, "RFC 9112 3.2"),
    (
        "target-asterisk-get",
        b"GET * HTTP/1.1\r\nHost: a\r\nX-Case: {}\r\n\r\n",
        BAD,
        "RFC 9112 3.2.4",
    ),
    (
        "target-asterisk-options",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nX-Case: {}\r\n\r\n",
        Passes(&["OPTIONS * HTTP/1.1\r\n"], &[], b""),
        "RFC 9112 3.2.4",
    ),
    ("target-fragment", b"GET {}#x HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 9112 3.2"),
    (
        "target-fragment-absolute",
        b"GET http://a{}#x HTTP/1.1\r\nHost: a\r\n\r\n",
        BAD,
        "RFC 9112 3.2",
    ),
    ("target-empty", b"GET  HTTP/1.1\r\nHost: a\r\nX-Case: {}\r\n\r\n", BAD, "RFC 9112 3.2"),
    ("target-space", b"GET {} x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[400, 505]), "RFC 9112 3.2"),
    ("target-control", b"GET {}\x01 HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 3986 3.3"),
    ("target-nul", b"GET {}\0 HTTP/1.1\r\nHost: a\r\n\r\n", BAD, "RFC 3986 3.3"),
    (
        "target-dots",
        b"GET /x/..{} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["GET /x/../orders/target-dots. HTTP/1.1\r\n"], &[], b""),
        "RFC 9110 7.7",
    ),
    (
        "target-encoded",
        b"GET /%2e%2E/%00%2F{} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["GET /%2e%2E/%00%2F/orders/target-encoded. HTTP/1.1\r\n"], &[], b""),
        "RFC 9110 7.7",
    ),
    (
        "target-two-slashes",
        b"GET //evil{} HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["GET //evil/orders/target-two-slashes. HTTP/1.1\r\n", "host: a\r\n"], &[], b""),
        "RFC 9112 3.2.1",
    ),
    (
        "target-query",
        b"GET {}?a=b&c=%20;?/ HTTP/1.1\r\nHost: a\r\n\r\n",
        Passes(&["?a=b&c=%20;?/ HTTP/1.1\r\n"], &[], b""),
        "RFC 9110 7.7",
    ),
];

pub const ONE_HOP: &[Case] = &[
    (
        "hop-nominated",
        get!("Connection: X-Own\r\nX-Own: 1\r\nX-Kept: 1\r\n"),
        Passes(&["x-kept: 1"], &["x-own", "connection:"], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-two-connection-fields",
        get!("Connection: X-One\r\nConnection: keep-alive, X-Two\r\nX-One: 1\r\nX-Two: 2\r\n"),
        Passes(&[], &["x-one", "x-two"], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-fields",
        get!(
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authorization: Basic eA==\r\nTE: trailers, deflate\r\n"
        ),
        Passes(&[], &["keep-alive", "proxy-", "te:"], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-te",
        get!("Connection: X-Own, TE\r\nX-Own: 1\r\nTE: trailers, deflate\r\n"),
        Passes(&["te: trailers\r\n", "connection: te\r\n"], &["x-own", "deflate"], b""),
        "RFC 9110 10.1.4",
    ),
    (
        "hop-junk",
        get!("Connection: ,, \"x\", a b, ;\r\nX: 1\r\n"),
        Passes(&["x: 1"], &["connection:"], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-host-nominated",
        get!("Connection: Host\r\n"),
        Passes(&["host: a\r\n"], &[], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-credentials-nominated",
        get!("Connection: Authorization, Cookie\r\nAuthorization: Bearer x\r\nCookie: a=b\r\n"),
        Passes(&["authorization: Bearer x\r\n", "cookie: a=b\r\n"], &[], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-key-nominated",
        get!("Connection: Idempotency-Key\r\nIdempotency-Key: k1\r\n"),
        Passes(&["idempotency-key: k1\r\n"], &[], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-our-own-nominated",
        get!("Connection: X-Forwarded-For, X-Forwarded-Host, Via\r\n"),
        Passes(
            &["x-forwarded-for: 127.0.0.1\r\n", "x-forwarded-host: a\r\n", "via: 1.1 standin-"],
            &[],
            b"",
        ),
        "RFC 9110 7.6.1",
    ),
    (
        "hop-close",
        get!("Connection: close\r\n"),
        Passes(&[], &["connection: close"], b""),
        "RFC 9112 9.6",
    ),
    (
        "id-nominated",
        get!("Connection: X-Request-Id\r\nX-Request-Id: mine\r\n"),
        Passes(&["x-request-id: 01"], &["mine"], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "id-nominated-without-one",
        get!("Connection: close, x-REQUEST-id\r\n"),
        Passes(&["x-request-id: 01"], &[], b""),
        "RFC 9110 7.6.1",
    ),
    (
        "id-untrusted",
        get!("X-Request-Id: mine\r\n"),
        Passes(&["x-request-id: 01"], &["mine"], b""),
        "RFC 9110 17.1",
    ),
    (
        "id-two-fields",
        get!("X-Request-Id: mine\r\nX-Request-Id: other\r\n"),
        Passes(&["x-request-id: 01"], &["mine", "other"], b""),
        "RFC 9110 5.3",
    ),
    (
        "id-any-case",
        get!("X-REQUEST-ID: mine\r\n"),
        Passes(&["x-request-id: 01"], &["mine"], b""),
        "RFC 9110 5.1",
    ),
    (
        "id-markup",
        get!("X-Request-Id: <script>mine</script>\r\n"),
        Passes(&["x-request-id: 01"], &["mine"], b""),
        "RFC 9110 17.1",
    ),
    ("id-folded", get!("X-Request-Id: mi\r\n ne\r\n"), BAD, "RFC 9112 5.2"),
    (
        "id-in-trailer",
        post!(
            "Trailer: X-Request-Id\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nX-Request-Id: mine\r\n\r\n"
        ),
        Passes(&["x-request-id: 01"], &["mine"], b"hello"),
        "RFC 9110 6.5.1",
    ),
    (
        "mark-replay",
        get!(
            "Standin-Replay: 1\r\nstandin-attempt: 2\r\nStandin-Received-At: x\r\nStandin-Signature: y\r\n"
        ),
        Passes(
            &[],
            &["standin-replay", "standin-attempt", "standin-received-at", "standin-signature"],
            b"",
        ),
        "RFC 9110 17.1",
    ),
    (
        "forwarded-untrusted",
        get!(
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: evil\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n"
        ),
        Passes(
            &[
                "x-forwarded-for: 127.0.0.1\r\n",
                "x-forwarded-proto: http\r\n",
                "x-forwarded-host: a\r\n",
            ],
            &["1.1.1.1", "2.2.2.2", "https", "evil"],
            b"",
        ),
        "RFC 7239 8.1",
    ),
    (
        "via-kept",
        get!("Via: 1.0 fred\r\n"),
        Passes(&["via: 1.0 fred\r\n", "via: 1.1 standin-"], &[], b""),
        "RFC 9110 7.6.3",
    ),
    (
        "upgrade-h2c",
        get!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        ),
        Passes(&[], &["upgrade", "http2-settings"], b""),
        "RFC 9113 3.1",
    ),
    (
        "upgrade-not-nominated",
        get!("Upgrade: websocket\r\n"),
        Passes(&[], &["upgrade"], b""),
        "RFC 9110 7.8",
    ),
    (
        "upgrade-http10",
        b"GET {} HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        Passes(&[], &["upgrade"], b""),
        "RFC 9110 7.8",
    ),
    (
        "upgrade-two-protocols",
        get!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        Passes(&[], &["upgrade"], b""),
        "RFC 9110 7.8",
    ),
    (
        "upgrade-post",
        post!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "hello"),
        Passes(&[], &["upgrade"], b"hello"),
        "RFC 6455 4.1",
    ),
    (
        "upgrade-tls",
        get!("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
        Passes(&[], &["upgrade"], b""),
        "RFC 2817 3.1",
    ),
    // The origin answers 200: no tunnel, and what follows is HTTP again.
    (
        "upgrade-websocket-declined",
        get!("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        Passes(&["connection: upgrade\r\n", "upgrade: websocket\r\n"], &[], b""),
        "RFC 9110 7.8",
    ),
];

/// Those that are too large to be written down.
pub fn large() -> Vec<(&'static str, Vec<u8>, Expect, &'static str)> {
    let head = |first: &str, fields: &str| {
        format!("{first} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
    };
    let long = |length: usize| "x".repeat(length);
    let fields =
        |number: usize| -> String { (0..number).map(|n| format!("X-{n}: {n}\r\n")).collect() };
    let chunk = |line: &str| {
        let mut bytes = head("POST {}", "Transfer-Encoding: chunked\r\n");
        bytes.extend(format!("{line}\r\nhello\r\n0\r\n\r\n").bytes());
        bytes
    };
    vec![
        (
            "large-field-fits",
            head("GET {}", &format!("X: {}\r\n", long(8000))),
            FINE,
            "RFC 9110 5.4",
        ),
        (
            "large-field",
            head("GET {}", &format!("X: {}\r\n", long(80_000))),
            Refused(&[431]),
            "RFC 6585 5",
        ),
        (
            "large-head",
            head("GET {}", &format!("X: {}\r\n", long(2000)).repeat(50)),
            Refused(&[431]),
            "RFC 6585 5",
        ),
        ("large-number-fits", head("GET {}", &fields(90)), FINE, "RFC 9110 5.4"),
        ("large-number", head("GET {}", &fields(101)), Refused(&[431]), "RFC 6585 5"),
        (
            "large-target",
            head(&format!("GET {{}}?{}", long(70_000)), ""),
            Refused(&[414, 431]),
            "RFC 9112 3",
        ),
        (
            "large-method",
            head(&format!("{} {{}}", "A".repeat(100_000)), ""),
            Refused(&[400, 431, 501]),
            "RFC 9112 3.1",
        ),
        (
            "large-length-with-zeros",
            {
                let mut bytes =
                    head("POST {}", &format!("Content-Length: {}5\r\n", "0".repeat(500)));
                bytes.extend(b"hello");
                bytes
            },
            HELLO,
            "RFC 9110 8.6",
        ),
        (
            "large-chunk-size-with-zeros",
            chunk(&format!("{}5", "0".repeat(4000))),
            HELLO,
            "RFC 9112 7.1",
        ),
        ("large-chunk-extension", chunk(&format!("5;{}", long(20_000))), Broken, "RFC 9112 7.1.1"),
        (
            "large-trailer",
            {
                let mut bytes = head("POST {}", "Transfer-Encoding: chunked\r\n");
                bytes.extend(format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", long(100_000)).bytes());
                bytes
            },
            Broken,
            "RFC 9110 6.5",
        ),
    ]
}

pub fn all() -> impl Iterator<Item = &'static Case> {
    [LENGTH_AND_CODING, LENGTH, CHUNKS, FIELDS, HOST_AND_TARGET, ONE_HOP].into_iter().flatten()
}
