//! An ordinary day: the app answers, and standin is not noticed. What is removed and added is in `headers.rs`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Collected, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use crate::{
    framing::wire::{Gone, Wire},
    support::{
        App, Behaviour, Client, Http2Client, NoAnswer, Raw, Stage, Standin, eventually, raw,
    },
};

/// `/stood-in` has a stand-in, everything else has none. One worker, so that there is one pool of connections.
fn config(app: SocketAddr) -> String {
    format!(
        r#"
workers = 1

[upstream.app]
endpoints = ["http://{app}"]
timeout = "10s"
health = {{ interval = "50ms" }}

[route.stood_in]
match = "/stood-in"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.stood_in.stand_in]
accept_if = "true"
answer = {{ status = 201 }}

[route.stood_in.replay]
trigger = "manual"
"#
    )
}

async fn pair() -> (Standin, App) {
    let app = App::start().await;
    let standin = Standin::start(&config(app.address())).await;
    standin.upstream_is("up").await;
    (standin, app)
}

async fn on_stage() -> (Standin, Stage) {
    let stage = Stage::start().await;
    let standin = Standin::start(&config(stage.address())).await;
    standin.upstream_is("up").await;
    (standin, stage)
}

const BOTH: [&str; 2] = ["/plain", "/stood-in"];
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_method_and_its_body_arrive_as_they_were_sent() {
    let (standin, app) = pair().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        for path in BOTH {
            app.forget();
            let body = if method == "GET" { "" } else { "a body" };
            let target = format!("{path}?a=%20b&c");
            let request = Request::builder().method(method).uri(&target).body(body.into()).unwrap();
            let answer = standin.send(request).await;
            assert!(answer.status.is_success(), "{method} {path}: {answer:?}");
            let [seen] = &app.seen()[..] else { panic!("{method}: {:?}", app.seen()) };
            assert_eq!((seen.method.as_str(), &*seen.target), (method, &*target));
            assert_eq!(seen.body, body, "{method} {path}");
        }
    }
    assert!(standin.entries().await.is_empty());
}

/// Around the size up to which a body is read before it is sent on, and well above it.
#[tokio::test]
async fn bodies_of_any_size_arrive_whole_whether_their_length_is_known_or_not() {
    let (standin, app) = pair().await;
    app.answer_with(|seen| Response::new(seen.body.clone()));
    for path in BOTH {
        for size in [0, 1, 65_535, 65_536, 65_537, 1 << 20] {
            let body: Bytes = (0..size).map(|byte| b'a' + (byte % 23) as u8).collect();
            let known = standin.post(path, body.clone()).await;
            assert_eq!(known.status, 200);
            assert!(known.body == body, "{path}: {size} bytes of known length");

            let mut client = Wire::to(standin.address()).await;
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(head).await;
            for chunk in body.chunks(10_000) {
                client.send(format!("{:x}\r\n", chunk.len())).await;
                client.send(chunk).await;
                client.send("\r\n").await;
            }
            client.send("0\r\n\r\n").await;
            let reply = client.reply(false).await.unwrap();
            assert!(reply.body == body, "{path}: {size} bytes of unknown length");
        }
    }
}

/// The first bytes are at the app before the last have left the client.
#[tokio::test]
async fn a_request_streams() {
    let (standin, mut stage) = on_stage().await;
    for path in BOTH {
        let half = "x".repeat(100_000);
        let mut client = Raw::to(standin.address()).await;
        client
            .write(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"))
            .await;
        client.write(&half).await;
        let mut asked = stage.asked().await;
        assert_eq!(
            asked.bytes(half.len()).await,
            half,
            "the first half, while the second is with the client"
        );
        client.write(&half).await;
        assert_eq!(asked.bytes(half.len()).await, half);
        asked.answer(EMPTY).await;
        assert!(client.read_until("\r\n\r\n", LIMIT).await.unwrap().starts_with("HTTP/1.1 200 "));

        let chunked =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut client = Raw::to(standin.address()).await;
        client.write(chunked + "5\r\nfirst\r\n").await;
        let mut asked = stage.asked().await;
        asked.until("first").await;
        client.write("4\r\nlast\r\n0\r\n\r\n").await;
        asked.until("last\r\n0\r\n\r\n").await;
        asked.answer(EMPTY).await;
        assert!(client.read_until("\r\n\r\n", LIMIT).await.unwrap().starts_with("HTTP/1.1 200 "));
    }
}

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The first bytes are at the client before the last have left the app.
#[tokio::test]
async fn an_answer_streams() {
    let (standin, mut stage) = on_stage().await;
    for path in BOTH {
        for (first, last) in [
            ("Content-Length: 9\r\n\r\nfirst", "last"),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", "4\r\nlast\r\n0\r\n\r\n"),
        ] {
            let mut client = Raw::to(standin.address()).await;
            client
                .write(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
                .await;
            let mut asked = stage.asked().await;
            asked.answer(format!("HTTP/1.1 200 OK\r\n{first}")).await;
            assert!(client.read_until("first", LIMIT).await.is_some(), "{path} {first:?}");
            asked.answer(last).await;
            assert!(client.read_until("last", LIMIT).await.is_some(), "{path} {last:?}");
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (standin, mut stage) = on_stage().await;
    for path in BOTH {
        let mut client = Wire::to(standin.address()).await;
        let head = "Host: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked";
        let body = "5\r\nhello\r\n0\r\nx-sum: 17\r\n\r\n";
        client.send(format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n{body}")).await;
        let mut asked = stage.asked().await;
        asked.until("x-sum: 17\r\n\r\n").await;
        assert_eq!(
            (asked.header("te"), asked.header("connection")),
            (Some("trailers"), Some("te")),
            "{path}: many apps send trailers to those only that ask for them"
        );
        let head = "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n";
        asked.answer(format!("{head}{}", body.replace("17", "18"))).await;
        let reply = client.reply(false).await.unwrap();
        assert_eq!((reply.text().as_str(), &*reply.trailers), ("hello", "x-sum: 18\r\n"), "{path}");
    }
}

/// Such a body is read to its end before the app is asked: its trailers go on all the same.
#[tokio::test]
async fn trailers_pass_while_entries_of_the_route_are_open() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    assert_eq!(standin.post("/stood-in", "1").await.status, 201);
    app.restart().await;
    assert_eq!(standin.get("/plain").await.status, 200);
    let head = "Host: a\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "5\r\nhello\r\n0\r\nx-sum: 17\r\n\r\n";
    let answer = raw(standin.address(), format!("POST /stood-in HTTP/1.1\r\n{head}{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    post_with_trailers(&standin, "/stood-in").await;
    let seen = app.seen_of(&Method::POST);
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.body, "hello");
        assert_eq!(seen.trailers.unwrap()["x-sum"], "17");
    }
}

/// HEAD, 204 and 304 have no body, whatever their fields say; the next answer on the connection is not mistaken for one.
#[tokio::test]
async fn answers_without_a_body() {
    let (standin, mut stage) = on_stage().await;
    let mut client = Wire::to(standin.address()).await;
    let mut asked = None;
    for (method, answer) in [
        ("HEAD", "200 OK\r\nContent-Length: 1000"),
        ("GET", "204 No Content"),
        ("GET", "304 Not Modified\r\nContent-Length: 1000\r\nETag: \"1\""),
        ("GET", "200 OK\r\nContent-Length: 0"),
    ] {
        client.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let mut on = match asked.take() {
            None => stage.asked().await,
            Some(kept) => next_on(kept).await,
        };
        on.answer(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        let reply = client.reply(method == "HEAD").await.unwrap();
        assert!(reply.head.contains(&answer[..3]), "{reply:?}");
        assert!(reply.body.is_empty());
        asked = Some(on);
    }
    assert!(stage.is_left_alone(), "all four came on one connection");
}

/// The next request on the connection of the last.
async fn next_on(mut asked: crate::support::Asked) -> crate::support::Asked {
    asked.head = asked.until("\r\n\r\n").await;
    asked
}

#[tokio::test]
async fn interim_answers_of_the_app_are_not_taken_for_the_answer() {
    let (standin, mut stage) = on_stage().await;
    for interim in ["100 Continue", "102 Processing", "103 Early Hints\r\nLink: </a.css>"] {
        let mut client = Wire::to(standin.address()).await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut asked = stage.asked().await;
        asked.answer(format!("HTTP/1.1 {interim}\r\n\r\n")).await;
        asked
            .answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfinal")
            .await;
        let reply = client.reply(false).await.unwrap();
        assert_eq!((reply.status, &*reply.text()), (200, "final"), "{interim}");
    }
}

/// A client that asks first sends nothing until it is told to, then the body streams.
#[tokio::test]
async fn expect_100_continue() {
    let (standin, app) = pair().await;
    app.answer_with(|seen| Response::new(seen.body.len().to_string().into()));
    for path in BOTH {
        for length in [5, 300_000] {
            let mut client = Raw::to(standin.address()).await;
            let fields = format!("Host: a\r\nExpect: 100-continue\r\nContent-Length: {length}");
            client.write(format!("POST {path} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
            let interim = client.read_until("\r\n\r\n", LIMIT).await;
            assert_eq!(
                interim.as_deref(),
                Some("HTTP/1.1 100 Continue\r\n\r\n"),
                "{path} {length}"
            );
            client.write("x".repeat(length)).await;
            let answer = client.read_until(&format!("\r\n\r\n{length}"), LIMIT).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_and_let_go() {
    let (standin, app) = pair().await;
    let answer = raw(standin.address(), "GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\"status\":\"accepted\"}"), "{answer}");
    assert_eq!(app.seen()[0].version, http::Version::HTTP_11, "to the app standin speaks its own");
}

#[tokio::test]
async fn connections_to_the_app_are_used_again() {
    let (standin, app) = pair().await;
    for number in 0..30 {
        let (path, body) = (BOTH[number % 2], number.to_string());
        assert_eq!(standin.post(path, body).await.status, 201);
    }
    let ours = |wire: &Vec<u8>| memchr::memmem::find(wire, b"POST ").is_some();
    assert_eq!(app.wire().iter().filter(|wire| ours(wire)).count(), 1);
}

/// An app ends idle connections when it likes. The next request finds that out, and goes over a fresh one.
#[tokio::test]
async fn an_app_that_closes_idle_connections_costs_no_client_an_error() {
    let (standin, mut stage) = on_stage().await;
    for number in 0..40 {
        let path = BOTH[number % 2];
        let (answer, asked) = tokio::join!(standin.post(path, "order"), async {
            let mut asked = stage.asked().await;
            assert_eq!(asked.body().await, "order");
            asked.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            asked
        });
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "ok"), "request {number}");
        drop(asked);
        // Until standin's side of the kernel knows it: a request that crosses with the close is another story.
        eventually(LIMIT, async || !is_closing(stage.address().port())).await;
    }
}

/// Whether a connection of this port was closed and the other side has not taken note (`FIN_WAIT1`).
fn is_closing(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next().unwrap_or_default(), fields.nth(1));
        local.ends_with(&format!(":{port:04X}")) && state == Some("04")
    })
}

#[tokio::test]
async fn http2_streams_share_a_connection_and_do_not_wait_for_each_other() {
    let (standin, app) = pair().await;
    app.behave(Behaviour::Slow(Duration::from_millis(500)));
    let client = Http2Client::to(standin.address()).await;
    let started = Instant::now();
    let answers = join_all((0..20).map(|number| {
        let body = Bytes::from(number.to_string().repeat(10_000));
        client.send(Request::post(BOTH[number % 2]).body(body).unwrap())
    }));
    for answer in answers.await {
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), answer.version), (201, http::Version::HTTP_2));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "one after the other takes 10 s");
    let mut bodies: Vec<usize> =
        app.seen_of(&Method::POST).iter().map(|seen| seen.body.len()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [[10_000; 10], [20_000; 10]].concat());
}

#[tokio::test]
async fn http2_bodies_stream_and_have_trailers_both_ways() {
    let (standin, mut stage) = on_stage().await;
    for path in BOTH {
        let (body, ()) = tokio::join!(post_with_trailers(&standin, path), async {
            let mut asked = stage.asked().await;
            asked.until("hello").await;
            asked.until("x-sum: 17\r\n\r\n").await;
            let head = "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n";
            asked.answer(format!("{head}5\r\nworld\r\n0\r\nx-sum: 18\r\n\r\n")).await;
        });
        assert_eq!(
            body.trailers().map(|trailers| &trailers["x-sum"]),
            Some(&HeaderValue::from_static("18")),
            "{path}"
        );
        assert_eq!(body.to_bytes(), "world");
    }
}

/// Over HTTP/2, where nothing but the frames says that trailers follow.
async fn post_with_trailers(standin: &Standin, path: &str) -> Collected<Bytes> {
    let stream = TcpStream::connect(standin.address()).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("17"));
    let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let uri = format!("http://{}{path}", standin.address());
    let request = Request::post(uri).header("te", "trailers").header("trailer", "x-sum");
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    answer.into_body().collect().await.unwrap()
}

const UPGRADE: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_websocket_goes_through_where_nobody_stands_in() {
    let (standin, mut stage) = on_stage().await;
    let mut client = Raw::to(standin.address()).await;
    client.write(format!("GET /chat HTTP/1.1\r\n{UPGRADE}")).await;
    let mut asked = stage.asked().await;
    assert_eq!(asked.header("upgrade"), Some("websocket"));
    asked
        .answer(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
    let head = client.read_until("\r\n\r\n", LIMIT).await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    // Whoever speaks first, and both at once.
    asked.answer("welcome").await;
    assert_eq!(client.read_until("welcome", LIMIT).await.as_deref(), Some("welcome"));
    for number in 0..10 {
        client.write(format!("ping {number}.")).await;
        assert_eq!(asked.until(".").await, format!("ping {number}."));
        asked.answer(format!("pong {number}.")).await;
        assert_eq!(client.read_until(".", LIMIT).await, Some(format!("pong {number}.")));
    }
    drop(client);
    assert_eq!(
        asked.raw.read_until(".", LIMIT).await,
        None,
        "the app learns that the client has left"
    );
}

/// Of a connection that is quiet for a moment the listener keeps little more than its socket. Nobody notices.
#[tokio::test]
async fn a_connection_that_was_quiet_for_long_goes_on_like_any_other() {
    tokio::join!(quiet_now_and_then("/plain"), quiet_now_and_then("/stood-in"));
}

async fn quiet_now_and_then(path: &str) {
    // Longer than it takes until the connection is let go of.
    let a_while = async || tokio::time::sleep(Duration::from_millis(1300)).await;
    let well = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell";
    let (standin, mut stage) = on_stage().await;
    let mut client = Raw::to(standin.address()).await;
    a_while().await;
    let get = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    for (asks, is_slow) in [(&get, false), (&post, false), (&get, true), (&post, true)] {
        client.write(asks).await;
        let mut asked = stage.asked().await;
        if is_slow {
            a_while().await;
        }
        asked.answer(well).await;
        let answer = client.read_until("well", LIMIT).await;
        assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 ")), "{asks}");
        a_while().await;
    }
    // Pauses within a head, within a body and within an answer.
    for piece in [&post[..10], &post[10..post.len() - 2], &post[post.len() - 2..]] {
        a_while().await;
        client.write(piece).await;
    }
    let mut asked = stage.asked().await;
    assert_eq!(asked.body().await, "body");
    asked.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    assert!(client.read_until("half\r\n", LIMIT).await.is_some());
    a_while().await;
    asked.answer("4\r\nwell\r\n0\r\n\r\n").await;
    assert_eq!(
        client.read_until("0\r\n\r\n", LIMIT).await.as_deref(),
        Some("4\r\nwell\r\n0\r\n\r\n")
    );
    a_while().await;
    // Two at once, the first of them slow.
    client.write(format!("{get}{get}")).await;
    for is_slow in [true, false] {
        let mut asked = stage.asked().await;
        if is_slow {
            a_while().await;
        }
        asked.answer(well).await;
        assert!(client.read_until("well", LIMIT).await.is_some());
    }
    a_while().await;
    // What follows an upgrade is not HTTP: it may be quiet as long as it likes.
    if path == "/plain" {
        client.write(format!("GET {path} HTTP/1.1\r\n{UPGRADE}")).await;
        let mut asked = stage.asked().await;
        asked.answer("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert!(client.read_until("\r\n\r\n", LIMIT).await.is_some());
        for _ in 0..2 {
            a_while().await;
            client.write("ping.").await;
            assert_eq!(asked.until(".").await, "ping.");
            asked.answer("pong.").await;
            assert_eq!(client.read_until(".", LIMIT).await.as_deref(), Some("pong."));
        }
    }
    assert!(standin.entries().await.is_empty());
}

/// Where standin may have to answer for the app, an upgrade is an ordinary request: it cannot be replayed.
#[tokio::test]
async fn a_route_with_a_stand_in_does_not_upgrade() {
    let (standin, mut stage) = on_stage().await;
    let mut client = Wire::to(standin.address()).await;
    client.send(format!("GET /stood-in HTTP/1.1\r\n{UPGRADE}")).await;
    let mut asked = stage.asked().await;
    assert_eq!(asked.header("upgrade"), None, "{}", asked.head);
    asked.answer("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.reply(false).await.unwrap().status, 426);
}

/// An app may refuse a request by its first bytes. The client learns that without sending the rest.
#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_rest_of_the_body() {
    let (standin, mut stage) = on_stage().await;
    for path in BOTH {
        let mut client = Wire::to(standin.address()).await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"))
            .await;
        client.send("x".repeat(100_000)).await;
        let mut asked = stage.asked().await;
        asked.answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await;
        let reply = client.reply(false).await.unwrap();
        assert_eq!((reply.status, &*reply.text()), (413, "large"), "{path}");
    }
    assert!(standin.entries().await.is_empty());
}

/// A client that does not read slows the app; standin does not keep in memory what nobody takes.
#[tokio::test]
async fn a_slow_reader_slows_the_app_and_fills_no_memory() {
    const LENGTH: usize = 64 << 20;
    let (mut standin, mut stage) = on_stage().await;
    let before = standin.process().memory();
    let mut client = Raw::to(standin.address()).await;
    client.write("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut asked = stage.asked().await;
    let written = Arc::new(AtomicUsize::new(0));
    let (count, mut app) = (Arc::clone(&written), JoinSet::new());
    app.spawn(async move {
        asked.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..LENGTH / piece.len() {
            asked.raw.stream.write_all(&piece).await.unwrap();
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
        asked
    });
    let (mut last, mut since) = (0, Instant::now());
    eventually(LIMIT, async || {
        let now = written.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > Duration::from_millis(500)
    })
    .await;
    assert!(last < LENGTH / 2, "the app got rid of {last} bytes that nobody took");
    let mut rest = vec![0; 1 << 20];
    let mut read = 0;
    while let Ok(bytes @ 1..) = client.stream.read(&mut rest).await {
        read += bytes;
    }
    assert!(read > LENGTH, "{read} bytes with the head");
    let growth = standin.process().peak_memory().saturating_sub(before);
    assert!(growth < 16 << 20, "memory grew by {growth} bytes");
}

/// Half an answer is never taken for a whole one.
#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let (standin, mut stage) = on_stage().await;
    for path in BOTH {
        for (half, reset) in [
            ("Content-Length: 100\r\n\r\nhalf", false),
            ("Content-Length: 100\r\n\r\nhalf", true),
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
        ] {
            let mut client = Wire::to(standin.address()).await;
            client
                .send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1"))
                .await;
            let mut asked = stage.asked().await;
            assert_eq!(asked.body().await, "1");
            asked.answer(format!("HTTP/1.1 201 Created\r\n{half}")).await;
            cut(asked, reset);
            let gone = client.reply(false).await.unwrap_err();
            assert!(matches!(gone, Gone::Closed(_)), "{path} {half:?}: {gone:?}");

            let client = Http2Client::to(standin.address()).await;
            let request = Request::post(path).body(Bytes::from("1")).unwrap();
            let (answer, ()) = tokio::join!(client.send(request), async {
                let mut asked = stage.asked().await;
                assert_eq!(asked.body().await, "1");
                asked.answer(format!("HTTP/1.1 201 Created\r\n{half}")).await;
                cut(asked, reset);
            });
            assert!(matches!(answer, Err(NoAnswer::Broken(_))), "{path} {half:?}: {answer:?}");
        }
    }
    assert!(stage.is_left_alone(), "nothing was sent twice");
    assert!(standin.entries().await.is_empty());
}

fn cut(asked: crate::support::Asked, reset: bool) {
    if reset {
        asked.raw.reset();
    }
}

#[tokio::test]
async fn an_app_that_is_down_is_an_honest_error_where_nobody_stands_in() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let request =
            Request::builder().method(&method).uri("/plain").body(Bytes::from("1")).unwrap();
        let answer = Client::to(standin.address()).send(request).await.unwrap();
        assert_eq!(answer.status, 503, "{method}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
        assert!(answer.header("proxy-status").starts_with("standin; error="), "{answer:?}");
        assert_eq!(answer.json()["status"], 503);
    }
    assert!(standin.entries().await.is_empty());
    app.restart().await;
    eventually(LIMIT, async || standin.get("/plain").await.status == 200).await;
}
