//! hyper's client and this exchange, given the same bytes, come to the same result.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::script::{Body, Outcome, Script, fields, outcome, poll_often};

/// The same exchange by hyper, with the limits that standin gave it.
fn by_hyper(method: &str, app: Script) -> Outcome {
    let mut cx = Context::from_waker(Waker::noop());
    let mut builder = http1::Builder::new();
    builder.max_buf_size(256 << 10).max_headers(256);
    let handshake = pin!(builder.handshake::<_, Empty<Bytes>>(TokioIo::new(app)));
    let Poll::Ready(Ok((mut sender, connection))) = handshake.poll(&mut cx) else {
        panic!("nothing to wait for")
    };
    let mut connection = pin!(connection.with_upgrades());
    let mut ended = false;
    let mut drive = |cx: &mut Context<'_>| {
        ended = ended || connection.as_mut().poll(cx).is_ready();
    };
    let request = http::Request::builder().method(method).uri("/orders?a=b").header("host", "a");
    let mut sending = pin!(sender.send_request(request.body(Empty::new()).unwrap()));
    let response = poll_often(|cx| {
        drive(cx);
        sending.as_mut().poll(cx)
    });
    let (head, mut body) = match response {
        None => return Outcome::Waits,
        Some(Err(_)) => return Outcome::NoAnswer,
        Some(Ok(response)) => response.into_parts(),
    };
    let (mut bytes, mut trailers) = (Vec::new(), Vec::new());
    let body = loop {
        let frame = poll_often(|cx| {
            drive(cx);
            Pin::new(&mut body).poll_frame(cx)
        });
        match frame {
            None => break Body::Waits,
            Some(None) => break Body::Whole(bytes, trailers),
            Some(Some(Err(_))) => break Body::Broken,
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = fields(&frame.into_trailers().unwrap()),
            },
        }
    };
    (0..50).for_each(|_| drive(&mut cx));
    let reason = head.extensions.get::<hyper::ext::ReasonPhrase>();
    Outcome::Answered {
        status: head.status.as_u16(),
        version: head.version,
        reason: reason.map(|reason| reason.as_bytes().to_vec()),
        fields: fields(&head.headers),
        body,
        reusable: sender.is_ready(),
    }
}

/// hyper may notice the end of the stream behind the answer; here the next who takes the connection does.
fn same(ours: Outcome, hypers: Outcome, ends: bool) -> bool {
    let (mut ours, mut hypers) = (ours, hypers);
    if ends {
        for outcome in [&mut ours, &mut hypers] {
            if let Outcome::Answered { reusable, .. } = outcome {
                *reusable = false;
            }
        }
    }
    ours == hypers
}

fn check(method: &'static str, pieces: &[&[u8]], ends: bool) -> Result<(), TestCaseError> {
    let ours = outcome(method, Script::new(pieces.iter().copied(), ends));
    let hypers = by_hyper(method, Script::new(pieces.iter().copied(), ends));
    // hyper reads no `Connection` that is not ASCII; here a "close" beside such a name still closes: the safe side.
    let unclear = matches!(&ours, Outcome::Answered { fields, .. }
        if fields.iter().any(|(name, value)| name == "connection" && !value.is_ascii()));
    prop_assert!(
        same(ours.clone(), hypers.clone(), ends || unclear),
        "{method} {:?} {ends}\nours:   {ours:?}\nhyper's: {hypers:?}",
        pieces.concat().escape_ascii().to_string()
    );
    Ok(())
}

/// `bytes` in pieces.
pub(super) fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn status_line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 201 Made",
        "HTTP/1.1 404 ",
        "HTTP/1.1 500",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.0 200 OK",
        "HTTP/1.0 302 Found",
        "HTTP/1.1 101 Switching Protocols",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 999 High",
        "HTTP/1.1  200 OK",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
    ])
}

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Content-Length: 5",
        "Content-Length: 5",
        "content-length:5",
        "Content-Length: 0",
        "Content-Length: 12",
        "Content-Length: 5, 5",
        "Content-Length: 5,",
        "Content-Length: +5",
        "Content-Length: 05",
        "Content-Length: 18446744073709551615",
        "Content-Length: 18446744073709551616",
        "Content-Length: ",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked ",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: Close, X-Own",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Set-Cookie: a=b",
        "Set-Cookie: c=d",
        "X:",
        "X: \ty \t",
        "X: caf\u{e9}",
        "X y: z",
        "X : z",
        " folded",
        "no-colon",
        "Trailer: X-Sum",
    ])
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("hello".to_owned()),
        1 => Just(String::new()),
        1 => "[a-z]{0,20}",
        4 => chunks(),
        1 => Just("helloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_owned()),
    ]
}

fn chunks() -> impl Strategy<Value = String> {
    let size = prop::sample::select(vec!["", "0", "00", ";x", ";x=\"y\"", " ", "\t ;a", "x", "\n"]);
    let chunk = ("[a-z]{1,30}", size).prop_map(|(data, behind)| {
        let (before, behind) = if behind.starts_with('0') { (behind, "") } else { ("", behind) };
        format!("{before}{:x}{behind}\r\n{data}\r\n", data.len())
    });
    let trailers = prop::sample::select(vec![
        "",
        "",
        "X-Sum: 1\r\n",
        "X-Sum: 1\r\nX-Sum: 2\r\n",
        "X-Sum: 1\n",
        "bad\r\n",
        "X: y\rz\r\n",
        "\n",
    ]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "", "\r", "\r\nmore"]);
    (prop::collection::vec(chunk, 0..4), trailers, end)
        .prop_map(|(chunks, trailers, end)| format!("{}0\r\n{trailers}{end}", chunks.concat()))
}

/// A method, what an app might answer, and whether its stream ends then.
pub(super) fn answers() -> impl Strategy<Value = (&'static str, Vec<u8>, bool)> {
    let method = prop::sample::select(vec!["GET", "GET", "HEAD", "POST"]);
    let line_end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"]);
    let interim = prop::sample::select(vec![
        "",
        "",
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
    ]);
    let fields = prop::collection::vec(field(), 0..4);
    let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    let whole = (interim, status_line(), fields, line_end, body());
    (method, whole, change, any::<bool>()).prop_map(|(method, whole, change, ends)| {
        let (interim, line, fields, line_end, body) = whole;
        let mut text = format!("{interim}{line}{line_end}");
        for field in fields {
            text += field;
            text += line_end;
        }
        let mut bytes = format!("{text}{line_end}{body}").into_bytes();
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        (method, bytes, ends)
    })
}

/// hyper does not find the end of a head in pieces where a bare LF stands before the empty line's CR LF.
fn puzzles_hyper(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|bytes| bytes.ends_with(b"\n\r\n") && bytes[0] != b'\r')
}

proptest! {
    // The same answers each time; others by PROPTEST_RNG_SEED.
    #![proptest_config(ProptestConfig {
        cases: 3000,
        rng_seed: match ProptestConfig::default().rng_seed {
            RngSeed::Random => RngSeed::Fixed(9112),
            fixed => fixed,
        },
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_answer_is_the_same_to_hyper_and_to_us(
        (method, bytes, ends) in answers(),
        cuts in prop::collection::vec(0..400_usize, 0..6),
    ) {
        let cuts = if puzzles_hyper(&bytes) { &[] } else { &cuts[..] };
        check(method, &cut(&bytes, cuts), ends)?;
    }
}

#[test]
fn large_heads_trailers_and_extensions_have_the_same_limits() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut all = vec![];
    for count in [255, 256, 257] {
        all.push(format!("HTTP/1.1 204 No Content\r\n{}\r\n", "X: y\r\n".repeat(count)));
        all.push(format!("{chunked}0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    }
    for size in [16_370, 16_375, 16_376, 16_377, 16_380, 16_383, 16_384, 16_385, 20_000] {
        all.push(format!("{chunked}5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(size)));
        all.push(format!("{chunked}0\r\nX: {}\r\n\r\n", "y".repeat(size)));
    }
    all.push(format!("{chunked}{}0\r\n\r\n", "1;abcdefgh\r\nx\r\n".repeat(3000)));
    all.push(format!("HTTP/1.1 204 No Content\r\nX: {}\r\n\r\n", "y".repeat(200_000)));
    for text in all {
        for ends in [true, false] {
            check("GET", &[text.as_bytes()], ends).unwrap();
        }
    }
}
