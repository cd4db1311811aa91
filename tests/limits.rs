//! Each bound of the configuration, met from outside: the answer is honest, the app is spared, and what is within the
//! bound still works.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tokio::{io::AsyncReadExt, task::JoinSet};

use crate::support::{
    App, Behaviour, Client, Http2Client, Raw, Standin, eventually, orders_config, raw,
};

/// A standin with these `[listen.limits]` in front of an app.
async fn limited(limits: &str) -> (Standin, App) {
    let app = App::start().await;
    let config = format!("{}\n[listen.limits]\n{limits}", orders_config(app.address()));
    let standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.forget();
    (standin, app)
}

#[tokio::test]
async fn head() {
    let (standin, app) = limited("head = \"16KiB\"").await;
    let with_field_of = |size: usize| {
        let field = "x".repeat(size);
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {field}\r\nconnection: close\r\n\r\n")
    };
    assert_status(&raw(standin.address(), with_field_of(10_000)).await, 200);
    assert_status(&raw(standin.address(), with_field_of(40_000)).await, 431);
    let long = Request::get("/").header("x-long", "x".repeat(40_000)).body(Bytes::new()).unwrap();
    let answer = Http2Client::to(standin.address()).await.send(long).await;
    assert!(answer.is_err() || answer.unwrap().status == 431, "HTTP/2");
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn headers() {
    let (standin, app) = limited("headers = 20").await;
    let with_fields = |count: usize| {
        let fields: String = (0..count).map(|number| format!("x-{number}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}connection: close\r\n\r\n")
    };
    assert_status(&raw(standin.address(), with_fields(15)).await, 200);
    assert_status(&raw(standin.address(), with_fields(25)).await, 431);
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn uri() {
    let (standin, app) = limited("head = \"256KiB\"").await;
    let asking = |length: usize| {
        let path = "p".repeat(length);
        format!("GET /{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    };
    assert_status(&raw(standin.address(), asking(30_000)).await, 200);
    assert_status(&raw(standin.address(), asking(70_000)).await, 414);
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn head_timeout() {
    let (standin, app) = limited("head_timeout = \"400ms\"").await;
    let mut slow = Raw::to(standin.address()).await;
    slow.write("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
    let mut said = Vec::new();
    let closed = slow.stream.read_to_end(&mut said);
    tokio::time::timeout(LIMIT, closed).await.expect("closed by standin").unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");

    let mut kept_alive = Raw::to(standin.address()).await;
    kept_alive.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut all = Vec::new();
    let closed = kept_alive.stream.read_to_end(&mut all);
    tokio::time::timeout(LIMIT, closed).await.expect("closed by standin").unwrap();
    assert_status(&String::from_utf8_lossy(&all), 200);
    assert_eq!(app.seen().len(), 1);
}

/// Not a word, or not enough to tell HTTP/1 from HTTP/2: the place is given back all the same.
#[tokio::test]
async fn silent_connections() {
    let (standin, app) = limited("head_timeout = \"400ms\"").await;
    for words in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = Raw::to(standin.address()).await;
        client.write(words).await;
        let mut said = Vec::new();
        let closed = client.stream.read_to_end(&mut said);
        let closed = tokio::time::timeout(LIMIT, closed).await;
        assert!(closed.is_ok(), "after {words:?} the connection stays open");
    }
    assert!(app.seen().is_empty());
}

/// One byte before each silence is over would hold a place for ever.
#[tokio::test]
async fn min_rate() {
    let (standin, app) = limited("min_rate = 1000").await;
    let mut client = Raw::to(standin.address()).await;
    let head = "POST /elsewhere HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    client.write(head).await;
    let (mut reading, mut writing) = client.stream.into_split();
    let mut said = [0; 64];
    let dripping = async {
        loop {
            if tokio::io::AsyncWriteExt::write_all(&mut writing, b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let answer = tokio::select! {
        read = reading.read(&mut said) => read.unwrap(),
        () = dripping => unreachable!(),
        () = tokio::time::sleep(LIMIT) => panic!("it drips on"),
    };
    assert_status(&String::from_utf8_lossy(&said[..answer]), 408);
    assert!(app.seen().is_empty());
}

/// The same of an answer: a client that takes a little now and then.
#[tokio::test]
async fn min_rate_of_answers() {
    let (standin, app) = limited("min_rate = 10000000").await;
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    app.answer_with(move |_| Response::new(large.clone()));
    let mut client = Raw::to(standin.address()).await;
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut buffer = vec![0; 256 << 10];
    let (mut read, deadline) = (0, tokio::time::Instant::now() + LIMIT);
    let ended = loop {
        assert!(tokio::time::Instant::now() < deadline, "it trickles on");
        match client.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break read,
            Ok(more) => read += more,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(ended < 64 << 20, "all of it came");
}

#[tokio::test]
async fn connections_per_client() {
    let (standin, _app) = limited("connections_per_client = 3").await;
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::to(standin.address()).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.read_until("accepted\"}", LIMIT).await.is_some());
        holders.push(client);
    }
    let mut fourth = Raw::to(standin.address()).await;
    fourth.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(fourth.read_all(LIMIT).await, b"", "closed without a word");
    // Another client is none of its business.
    let local = tokio::net::TcpSocket::new_v4().unwrap();
    local.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = local.connect(standin.address()).await.unwrap();
    let mut other = Raw { stream };
    other.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(other.read_until("accepted\"}", LIMIT).await.is_some());
    holders.pop();
    eventually(LIMIT, async || {
        let mut again = Raw::to(standin.address()).await;
        again.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        again.read_until("accepted\"}", Duration::from_secs(2)).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn body() {
    let (standin, app) = limited("body = \"64KiB\"").await;
    for path in ["/orders", "/elsewhere"] {
        let fits = standin.post(path, "x".repeat(60_000)).await;
        assert_eq!(fits.status, 201, "{path}");
        let announced = standin.post(path, "x".repeat(70_000)).await;
        assert_eq!(announced.status, 413, "{path}: {announced:?}");
        let chunk = format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000));
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
        );
        assert_status(&raw(standin.address(), chunked).await, 413);
    }
    assert_eq!(app.seen().len(), 2, "what is too large never comes whole");
}

#[tokio::test]
async fn body_idle() {
    let (standin, app) = limited("body_idle = \"400ms\"").await;
    for path in ["/orders", "/elsewhere"] {
        let mut client = Raw::to(standin.address()).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n");
        client.write(head + "some").await;
        let answer = client.read_until("\r\n\r\n", LIMIT).await.unwrap_or_default();
        assert_status(&answer, 408);
    }
    assert!(app.seen().is_empty());
}

/// A client that drips more slowly than the whole takes, yet never pauses for long, is served.
#[tokio::test]
async fn body_idle_is_about_silence_and_not_about_length() {
    let (standin, app) = limited("body_idle = \"600ms\"").await;
    let mut client = Raw::to(standin.address()).await;
    client.write("POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write("x").await;
    }
    let answer = client.read_until("\r\n\r\n", LIMIT).await.unwrap_or_default();
    assert_status(&answer, 201);
    app.receives(["xxxxxxxxxx"]).await;
}

#[tokio::test]
async fn write_idle() {
    let (standin, app) = limited("write_idle = \"400ms\"").await;
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    app.answer_with(move |_| Response::new(large.clone()));
    let mut client = Raw::to(standin.address()).await;
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually(LIMIT, async || app.seen().len() == 1).await;
    // It reads nothing at all. Standin lets go of it: its side of the connection is not established any more.
    let here = client.stream.local_addr().unwrap().port();
    let there = standin.address().port();
    assert!(established(there).contains(&here));
    eventually(LIMIT, async || !established(there).contains(&here)).await;
    let rest = client.read_all(Duration::from_secs(2)).await;
    assert!(rest.len() < 64 << 20, "{} bytes came all the same", rest.len());
}

#[tokio::test]
async fn in_flight() {
    let (standin, app) = limited("in_flight = 3").await;
    app.behave(Behaviour::Slow(Duration::from_millis(800)));
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let mut client = Client::to(standin.address());
        let request = Request::get("/slow").body(Bytes::new()).unwrap();
        waiting.spawn(async move { client.send(request).await.unwrap().status });
    }
    eventually(LIMIT, async || app.seen().len() == 3).await;
    let fourth = standin.get("/one-too-many").await;
    assert_eq!(fourth.status, 503, "{fourth:?}");
    assert_eq!(fourth.header("content-type"), "application/problem+json");
    assert!(fourth.headers.contains_key("retry-after"));
    assert_eq!(waiting.join_all().await, [StatusCode::OK; 3]);
    assert_eq!(standin.get("/again").await.status, 200);
    assert_eq!(app.seen().len(), 4, "the fourth of the five did not reach the app");
}

/// Above the limit a connection waits in the kernel's queue: it is served when another one ends.
#[tokio::test]
async fn connections() {
    let (standin, app) = limited("connections = 4\nhead_timeout = \"60s\"").await;
    let mut holders = Vec::new();
    for _ in 0..4 {
        let mut client = Raw::to(standin.address()).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.read_until("accepted\"}", LIMIT).await.is_some());
        holders.push(client);
    }
    let mut fifth = Raw::to(standin.address()).await;
    fifth.write("GET /fifth HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let early = fifth.read_until("\r\n\r\n", Duration::from_millis(500)).await;
    assert_eq!(early, None, "served beyond the limit");
    assert_eq!(app.seen().len(), 4);
    holders.pop();
    let answer = fifth.read_until("\r\n\r\n", LIMIT).await.unwrap_or_default();
    assert_status(&answer, 200);
}

/// Past `max_body` standin cannot have kept the request, so it never answers for it; it forwards it all the same.
#[tokio::test]
async fn max_body() {
    let mut app = App::start().await;
    let config =
        orders_config(app.address()).replace("accept_if =", "max_body = \"10KiB\"\naccept_if =");
    let standin = Standin::start(&config).await;
    let (small, large) = ("x".repeat(9_000), "x".repeat(11_000));
    assert_eq!(standin.post("/orders", large.clone()).await.status, 201, "the app is up");
    app.stop().await;
    let refused = standin.post("/orders", large.clone()).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let accepted = standin.post("/orders", small.clone()).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
    app.restart().await;
    app.receives([&large, &small]).await;
}

/// When all memory for copies is in use, requests are forwarded but not stood in for.
#[tokio::test]
async fn copied_bodies() {
    let mut app = App::start().await;
    let config = orders_config(app.address())
        .replace("accept_if =", "max_body = \"100KiB\"\naccept_if =")
        + "\n[listen.limits]\ncopied_bodies = \"128KiB\"\n";
    let standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    let body = "x".repeat(90_000);
    // One that is half-way holds its copy.
    let mut holder = Raw::to(standin.address()).await;
    holder.write("POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    holder.write(&body).await;
    let wire_of = |app: &App| app.wire().iter().map(Vec::len).max().unwrap_or_default();
    eventually(LIMIT, async || wire_of(&app) > 90_000).await;
    assert_eq!(standin.post("/orders", body.clone()).await.status, 201, "forwarded");
    app.stop().await;
    let refused = standin.post("/orders", body.clone()).await;
    assert_eq!(refused.status, 503, "stood in for what it cannot have kept: {refused:?}");
    assert_eq!(standin.post("/orders", "small").await.status, 201);
    drop(holder);
    // The memory comes back with the end of the one that held it.
    eventually(LIMIT, async || standin.post("/orders", body.clone()).await.status == 201).await;
}

/// A body in small pieces takes more memory than it has bytes: it counts for what it takes.
#[tokio::test]
async fn copied_bodies_in_small_pieces() {
    let mut app = App::start().await;
    let config = orders_config(app.address()) + "\n[listen.limits]\ncopied_bodies = \"128KiB\"\n";
    let config = config.replace("accept_if =", "max_body = \"64KiB\"\naccept_if =");
    let standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    for (pieces, status) in [(1000, "201"), (4000, "503"), (1000, "201")] {
        let mut client = Raw::to(standin.address()).await;
        client
            .write("POST /orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        client.write(&("1\r\nx\r\n".repeat(pieces) + "0\r\n\r\n")).await;
        let answer = client.read_until("\r\n\r\n", LIMIT).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{pieces} pieces: {answer}");
    }
}

/// An answer whose body pauses for too long ends, broken, so that nobody takes it for whole.
#[tokio::test]
async fn the_bodies_of_answers_may_not_pause_for_ever() {
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[upstream.app]\nendpoints = [\"http://{}\"]\nbody_idle = \"400ms\"\n",
        app.local_addr().unwrap()
    );
    let standin = Standin::start(&config).await;
    let mut client = Raw::to(standin.address()).await;
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut all = Vec::new();
    tokio::select! {
        () = half_answers(app) => {}
        // A reset is as good an end as a close.
        _ = client.stream.read_to_end(&mut all) => {}
        () = tokio::time::sleep(LIMIT) => panic!("standin does not let go"),
    }
    let all = String::from_utf8_lossy(&all);
    assert!(all.ends_with("half"), "{all}");
}

/// Sends half of an answer on every connection, and nothing after it.
async fn half_answers(app: tokio::net::TcpListener) {
    let mut open = Vec::new();
    loop {
        let (mut connection, _) = app.accept().await.unwrap();
        // An answer before its request would be no answer.
        if connection.read(&mut [0; 1024]).await.is_ok_and(|read| read == 0) {
            continue;
        }
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        tokio::io::AsyncWriteExt::write_all(&mut connection, half.as_bytes()).await.unwrap();
        open.push(connection);
    }
}

/// The app's patience is limited: `timeout` is met by an honest error where nobody stands in.
#[tokio::test]
async fn timeout() {
    let app = App::start().await;
    let config = orders_config(app.address()).replace(r#"timeout = "2s""#, r#"timeout = "300ms""#);
    let standin = Standin::start(&config).await;
    app.behave(Behaviour::Hang);
    let answer = standin.get("/").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(answer.header("proxy-status").contains("http_response_timeout"), "{answer:?}");
    assert_eq!(app.seen_of(&Method::GET).len(), 1, "it was not sent twice");
}

fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer:.300}");
}

/// Line ends between requests are nothing (RFC 9112 2.2): neither a request, nor work for a worker that has others to serve.
#[tokio::test]
async fn line_ends_on_a_connection_that_rests_cost_nothing() {
    let app = App::start().await;
    let standin = Standin::start(&format!(
        "workers = 1\n[upstream.app]\nendpoints = [\"http://{}\"]\n",
        app.address()
    ))
    .await;
    let mut client = Raw::to(standin.address()).await;
    for before in ["", "\r\n", "\r\n\r\n"] {
        client.write(before).await;
        let quiet_from = tokio::time::Instant::now();
        eventually(LIMIT, async || quiet_from.elapsed() > Duration::from_millis(1500)).await;
        assert_eq!(standin.get("/other").await.status, 200, "after {before:?}");
        client.write("GET /one HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.read_until("\r\n\r\n", LIMIT).await;
        assert!(answer.is_some_and(|answer| answer.contains(" 200 ")), "after {before:?}");
    }
    client.write("\r\n").await;
    drop(client);
    assert_eq!(standin.get("/other").await.status, 200);
}

/// Ports of the peers with which a local port has established connections.
fn established(port: u16) -> Vec<u16> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port_of = |address: &str| u16::from_str_radix(address.split(':').nth(1)?, 16).ok();
    let peer = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = port_of(fields.get(1)?) == Some(port) && *fields.get(3)? == "01";
        is_ours.then(|| port_of(fields[2])).flatten()
    };
    table.lines().skip(1).filter_map(peer).collect()
}

const LIMIT: Duration = Duration::from_secs(20);
