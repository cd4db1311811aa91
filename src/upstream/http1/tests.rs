use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::prelude::*;

use super::{
    Exchange, Fault,
    script::{Outcome, Script, outcome, poll_often, request},
};
use crate::upstream::{
    body_copy::WholeBody,
    request_body::{BodyFault, Progress, RequestBody},
};

fn post(body: RequestBody, fields: &[(&'static str, &str)]) -> Request<RequestBody> {
    let mut request = request("POST").map(|_| body);
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn whole(bytes: impl Into<Bytes>) -> RequestBody {
    RequestBody::from(WholeBody { bytes: bytes.into(), trailers: None })
}

/// A body that passes through, as it comes from a client.
fn streamed(frames: Vec<Result<Frame<Bytes>, BodyFault>>) -> RequestBody {
    let body = StreamBody::new(stream::iter(frames));
    RequestBody::Streamed(Box::pin(body), Rc::new(Progress::default()))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BodyFault> {
    Ok(Frame::data(Bytes::from(text)))
}

/// What the app got of a request that it answered.
async fn sent(request: Request<RequestBody>) -> (String, usize) {
    let mut exchange = Exchange::new(Script::says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    exchange.begin(request);
    let answered = poll_often(|cx| exchange.poll_answer(cx)).expect("an answer");
    assert!(answered.is_ok(), "{answered:?}");
    assert!(exchange.is_at_rest());
    let app = exchange.stream();
    (String::from_utf8(std::mem::take(&mut app.written)).unwrap(), app.writes)
}

const LINE: &str = "POST /orders?a=b HTTP/1.1\r\nhost: a\r\n";

#[tokio::test]
async fn a_body_that_is_here_leaves_with_the_head_in_one_write() {
    for body in ["hello".to_owned(), "x".repeat(100_000)] {
        let length = body.len();
        let expected = format!("{LINE}content-length: {length}\r\n\r\n{body}");
        assert_eq!(sent(post(whole(body), &[])).await, (expected, 1));
    }
    let (text, writes) = sent(post(streamed(vec![data("he"), data("llo")]), &[])).await;
    let chunks = "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
    assert_eq!((text, writes), (format!("{LINE}{chunks}"), 1));
}

#[tokio::test]
async fn what_marks_the_body_off_comes_from_the_body() {
    let with = |body, fields: &'static [(&'static str, &str)]| async move {
        let (text, _) = sent(post(body, fields)).await;
        text.strip_prefix(LINE).unwrap().to_owned()
    };
    let lies =
        with(whole("hello"), &[("content-length", "7"), ("content-length", "9"), ("x", "y")]);
    assert_eq!(lies.await, "content-length: 5\r\nx: y\r\n\r\nhello");
    let empty = with(RequestBody::Empty, &[("content-length", "7")]);
    assert_eq!(empty.await, "content-length: 0\r\n\r\n");
    assert_eq!(with(RequestBody::Empty, &[]).await, "\r\n");
    let coded = with(RequestBody::Empty, &[("transfer-encoding", "chunked")]);
    assert_eq!(coded.await, "\r\n");
    let both = with(whole("hello"), &[("content-length", "5"), ("transfer-encoding", "chunked")]);
    assert_eq!(both.await, "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn only_announced_trailers_go_on() {
    let trailers = || {
        let all = [("x-sum", "1"), ("x-else", "2"), ("content-length", "3")];
        let map = all.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Ok(Frame::trailers(HeaderMap::from_iter(map)))
    };
    let announced = [("trailer", "X-Sum, content-length")];
    let (text, _) = sent(post(streamed(vec![data("a"), trailers()]), &announced)).await;
    assert!(text.ends_with("\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"), "{text}");
    let (text, _) = sent(post(streamed(vec![data("a"), trailers()]), &[])).await;
    assert!(text.ends_with("\r\n1\r\na\r\n0\r\n\r\n"), "{text}");
}

#[test]
fn nothing_left_means_that_the_request_comes_back_whole() {
    let unsent = |body| {
        let mut exchange = Exchange::new(Script { takes: Some(0), ..Script::default() });
        exchange.begin(post(body, &[]));
        assert!(matches!(poll_often(|cx| exchange.poll_answer(cx)), Some(Err(Fault::Io(_)))));
        assert_eq!(exchange.written(), 0);
        exchange.take_again()
    };
    assert!(matches!(unsent(RequestBody::Empty).unwrap().into_body(), RequestBody::Empty));
    for size in [10, 100_000] {
        let RequestBody::Whole(body) = unsent(whole(vec![b'x'; size])).unwrap().into_body() else {
            panic!("not whole")
        };
        assert_eq!(body.bytes.len(), size);
    }
    assert!(unsent(streamed(vec![data("a")])).is_none(), "what was read from the client is gone");
    let pending = StreamBody::new(stream::pending());
    let untouched = RequestBody::Streamed(Box::pin(pending), Rc::default());
    assert!(unsent(untouched).is_some());

    let mut some = Exchange::new(Script { takes: Some(1), ..Script::default() });
    some.begin(post(whole("hello"), &[]));
    assert!(poll_often(|cx| some.poll_answer(cx)).unwrap().is_err());
    assert_eq!(some.written(), 1);
    let again = some.take_again().unwrap();
    assert!(matches!(again.into_body(), RequestBody::Whole(body) if &body.bytes[..] == b"hello"));
}

#[test]
fn over_tls_what_is_longer_than_a_record_may_have_left_in_part_when_its_write_fails() {
    for (size, written) in [(10, 0), (100_000, 1)] {
        let script = Script { takes: Some(0), sends_records: true, ..Script::default() };
        let mut exchange = Exchange::new(script);
        exchange.begin(post(whole(vec![b'x'; size]), &[]));
        assert!(matches!(poll_often(|cx| exchange.poll_answer(cx)), Some(Err(Fault::Io(_)))));
        assert_eq!(exchange.written(), written);
    }
}

/// What was meant for whoever asked before (a timeout, a surplus answer) is not taken for the answer of who asks now.
#[test]
fn what_comes_before_anything_has_left_is_no_answer() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut exchange =
        Exchange::new(Script { takes: Some(0), pause: true, ..Script::says(surplus) });
    exchange.begin(post(whole("hello"), &[]));
    assert!(matches!(poll_often(|cx| exchange.poll_answer(cx)), Some(Err(Fault::Closed))));
    assert_eq!(exchange.written(), 0);
    assert!(exchange.take_again().is_some() && !exchange.is_at_rest());
}

#[test]
fn once_an_answer_has_begun_the_request_does_not_come_back() {
    for (answer, comes_back) in [
        ("", true),
        ("HTTP/1.1 20", false),
        ("HTTP/1.1 103 Hint\r\n\r\n", false),
        ("nonsense\r\n\r\n", false),
    ] {
        let mut exchange = Exchange::new(Script::new([answer.as_bytes()], true));
        exchange.begin(post(whole("hello"), &[("x-kept", "1")]));
        assert!(poll_often(|cx| exchange.poll_answer(cx)).unwrap().is_err(), "{answer}");
        let again = exchange.take_again();
        assert_eq!(again.is_some(), comes_back, "{answer}");
        assert!(again.is_none_or(|again| again.headers()["x-kept"] == "1"));
    }
}

#[test]
fn a_body_that_breaks_off_is_the_clients_fault_and_ends_the_connection() {
    let broken = Err(BodyFault::Idle);
    for body in [vec![data("a"), broken], vec![]] {
        let length = [("content-length", "9")];
        let mut exchange = Exchange::new(Script::default());
        let body = http_body_util::StreamBody::new(stream::iter(body));
        let body = SizedBody(body, 9);
        let body = RequestBody::Streamed(Box::pin(body), Rc::default());
        exchange.begin(post(body, &length));
        let answer = poll_often(|cx| exchange.poll_answer(cx));
        assert!(matches!(answer, Some(Err(Fault::Client))), "{answer:?}");
        assert!(!exchange.is_at_rest());
    }
}

#[tokio::test]
async fn never_more_leaves_than_was_announced() {
    let body = SizedBody(StreamBody::new(stream::iter(vec![data("hello"), data("more")])), 7);
    let body = RequestBody::Streamed(Box::pin(body), Rc::default());
    let (text, _) = sent(post(body, &[])).await;
    assert_eq!(text, format!("{LINE}content-length: 7\r\n\r\nhellomo"));
}

/// Announces a length, whatever it has.
struct SizedBody<B>(B, u64);

impl<B: http_body::Body + Unpin> http_body::Body for SizedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

/// RFC 9112 9.5: an answer may come before the request is over; its connection serves nobody else then.
#[test]
fn an_early_answer_is_read_while_the_request_still_goes_out() {
    let endless = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BodyFault>>());
    let body = RequestBody::Streamed(Box::pin(endless), Rc::default());
    let answer = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno";
    let mut exchange = Exchange::new(Script::says(answer));
    exchange.begin(post(body, &[]));
    let response = poll_often(|cx| exchange.poll_answer(cx)).unwrap().unwrap();
    assert_eq!(response.status(), 413);
    let frame = poll_often(|cx| exchange.poll_body(cx)).unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "no");
    assert!(exchange.is_answer_over() && !exchange.is_at_rest());
}

#[test]
fn an_answer_that_came_before_the_app_closed_counts() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let mut exchange =
        Exchange::new(Script { takes: Some(10), pause: true, ..Script::says(answer) });
    exchange.begin(post(whole("hello"), &[]));
    let response = poll_often(|cx| exchange.poll_answer(cx)).unwrap().unwrap();
    assert_eq!(response.status(), 503);
    assert!(!exchange.is_at_rest());
}

#[test]
fn interim_answers_are_skipped_but_not_for_ever() {
    let interim = |count| {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(count);
        outcome("GET", Script::says(&format!("{early}HTTP/1.1 204 No Content\r\n\r\n")))
    };
    assert!(matches!(interim(100), Outcome::Answered { status: 204, reusable: true, .. }));
    assert_eq!(interim(101), Outcome::NoAnswer);
}

#[test]
fn a_head_has_a_limit() {
    let fields = |count| {
        let text = format!("HTTP/1.1 204 No Content\r\n{}\r\n", "X: y\r\n".repeat(count));
        outcome("GET", Script::says(&text))
    };
    assert!(matches!(fields(256), Outcome::Answered { status: 204, .. }));
    assert_eq!(fields(257), Outcome::NoAnswer);
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(300_000));
    assert_eq!(outcome("GET", Script::says(&endless)), Outcome::NoAnswer);
}

#[test]
fn one_connection_serves_many_exchanges_and_keeps_little_memory() {
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(200_000));
    let mut exchange = Exchange::new(Script::says(&answer.repeat(3)));
    for _ in 0..3 {
        // The next answer comes only when it was asked for.
        let later = exchange.stream().pieces.pop_front().unwrap();
        let (now, later) = (later.slice(..answer.len()), later.slice(answer.len()..));
        exchange.stream().pieces.push_back(now);
        exchange.begin(post(whole(vec![b'x'; 50_000]), &[]));
        poll_often(|cx| exchange.poll_answer(cx)).unwrap().unwrap();
        let mut length = 0;
        while let Some(frame) = poll_often(|cx| exchange.poll_body(cx)).unwrap() {
            length += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(length, 200_000);
        assert!(exchange.is_at_rest());
        exchange.rest();
        assert!(exchange.received.capacity() <= 16 << 10);
        exchange.stream().pieces.push_back(later);
    }
}

#[tokio::test]
async fn after_a_101_the_bytes_behind_it_are_kept() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\0first";
    let mut exchange = Exchange::new(Script::says(switch));
    exchange.begin(request("GET"));
    let response = poll_fn(|cx| Poll::Ready(poll_often(|_| exchange.poll_answer(cx)))).await;
    assert_eq!(response.unwrap().unwrap().status(), 101);
    assert_eq!(exchange.into_tunnel().1, "\0first");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The same bytes in any pieces are the same answer.
    #[test]
    fn pieces_make_no_difference(
        (method, bytes, _) in super::differential::answers(),
        cuts in prop::collection::vec(0..400_usize, 0..12),
    ) {
        let whole = outcome(method, Script::new([&bytes[..]], true));
        let pieces = super::differential::cut(&bytes, &cuts);
        prop_assert_eq!(outcome(method, Script::new(pieces, true)), whole, "{}", bytes.escape_ascii());
    }
}
