//! HTTP/2 to the app, on an ordinary day and on a slow one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

use super::{HTTP2, SOON, at_once, before, config, request, statuses};
use crate::support::{
    CANCEL, Client, Do, Frames, Http2App, Making, Pki, Raw, Standin, Tinyproxy, eventually,
};

/// The question at the start has a connection of the control thread; the worker has one for all its requests.
const WORKERS_AND_QUESTIONS: usize = 2;

#[tokio::test]
async fn many_requests_share_one_connection_and_each_has_its_own_answer() {
    let app = Http2App::start();
    let standin = before(&app.url(), HTTP2, "").await;
    let bodies: Vec<String> = (0..60).map(|n| format!("{n}:{}", "x".repeat(n * 700))).collect();
    let requests = bodies.iter().map(|body| request(Method::POST, "/slow/100", body.clone()));
    let answers = at_once(&standin, requests).await;
    for (answer, body) in answers.iter().zip(&bodies) {
        let answer = answer.as_ref().unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, &**body));
    }
    assert!(app.most_at_once() > 20, "{} at once", app.most_at_once());
    let seen = app.seen();
    assert_eq!(seen.len(), 60);
    assert!(seen.iter().all(|seen| seen.version == Version::HTTP_2), "{:?}", seen[0]);
    assert_eq!(app.connections(), WORKERS_AND_QUESTIONS);
}

/// What is one hop's business stays behind; the host is the authority; lengths are true.
#[tokio::test]
async fn heads_are_said_in_http2() {
    let app = Http2App::start();
    let standin = before(&app.url(), HTTP2, "").await;
    let mut asked = request(Method::PUT, "/a/b?c=d", "four");
    let headers = asked.headers_mut();
    headers.insert("host", HeaderValue::from_static("shop.example"));
    headers.insert("expect", HeaderValue::from_static("100-continue"));
    headers.insert("x-mine", HeaderValue::from_static("yes"));
    assert_eq!(standin.send(asked).await.text(), "four");
    let head = standin.send(request(Method::HEAD, "/", "")).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let seen = app.seen();
    assert_eq!(seen[0].authority.as_deref(), Some("shop.example"));
    assert_eq!(seen[0].headers["content-length"], "4");
    assert_eq!(seen[0].headers["x-mine"], "yes");
    assert!(seen[0].headers.contains_key("x-request-id"));
    for absent in ["host", "connection", "expect", "transfer-encoding"] {
        assert!(!seen[0].headers.contains_key(absent), "{:?}", seen[0].headers);
    }
    assert!(!seen[1].headers.contains_key("content-length"), "{:?}", seen[1].headers);
}

#[tokio::test]
async fn large_bodies_and_trailers_pass_both_ways() {
    let app = Http2App::start();
    let standin = before(&app.url(), HTTP2, "").await;
    for path in ["/plain", "/orders"] {
        let body = Bytes::from(vec![b'y'; 900_000]);
        let answer = standin.send(request(Method::POST, path, body.clone())).await;
        assert!(answer.body == body, "{path}: {} bytes", answer.body.len());
    }
    let pieces = standin.get("/pieces/300").await;
    assert_eq!(pieces.body.len(), 300 * (16 << 10));

    // A client that takes trailers, and sends some.
    let stream = TcpStream::connect(standin.address()).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("17"));
    let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    let uri = format!("http://{}/pieces/3", standin.address());
    let asked = Request::post(uri).header("te", "trailers").header("trailer", "x-sum");
    let answer = sender.send_request(asked.body(body).unwrap()).await.unwrap();
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["x-sum"], "3");
    assert_eq!(answer.to_bytes().len(), 3 * (16 << 10));
    let seen = app.seen().pop().unwrap();
    assert_eq!(
        (&*seen.body, &seen.headers["te"]),
        (&b"hello"[..], &HeaderValue::from_static("trailers"))
    );
    assert_eq!(seen.trailers.unwrap()["x-sum"], "17");
    assert_eq!(app.connections(), WORKERS_AND_QUESTIONS);
}

/// TLS decides: an app that agrees on it gets HTTP/2, another one HTTP/1.1; `never` does not ask.
#[tokio::test]
async fn over_tls_alpn_decides() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    for (offered, lines, version) in [
        (&["h2", "http/1.1"][..], "", Version::HTTP_2),
        (&["http/1.1"], "", Version::HTTP_11),
        (&[], "", Version::HTTP_11),
        (&["h2", "http/1.1"], "http2 = \"never\"", Version::HTTP_11),
        (&["h2"], "http2 = \"prior_knowledge\"", Version::HTTP_2),
    ] {
        let tls = Some(Arc::new(pki.server(&pair, offered, false)));
        let app = Http2App::made(Making { tls, streams: None });
        let lines = format!("{lines}\ntls = {{ ca_file = {:?} }}", pki.authority());
        let standin = before(&app.url(), &lines, "").await;
        let requests = (0..20).map(|_| request(Method::POST, "/slow/50", "x"));
        assert_eq!(statuses(&at_once(&standin, requests).await), [200; 20]);
        let seen = app.seen();
        assert!(seen.iter().all(|seen| seen.version == version), "{offered:?} {lines}: {seen:?}");
        let most = if version == Version::HTTP_2 { WORKERS_AND_QUESTIONS } else { 30 };
        assert!(app.connections() <= most, "{offered:?}: {} connections", app.connections());
    }
}

#[tokio::test]
async fn a_websocket_has_a_connection_in_http1_of_its_own() {
    const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    let tls = Some(Arc::new(pki.server(&pair, &["h2", "http/1.1"], false)));
    let ca = format!("tls = {{ ca_file = {:?} }}", pki.authority());
    for (tls, lines) in [(None, HTTP2), (tls, &*ca)] {
        let app = Http2App::made(Making { tls, streams: None });
        // Where one connection is all there is, a tunnel is beside it.
        let standin = before(&app.url(), lines, "max = 1").await;
        assert_eq!(standin.get("/").await.status, 200);
        let mut client = Raw::to(standin.address()).await;
        client.write(UPGRADE).await;
        let head = client.read_until("\r\n\r\n", SOON).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client.write("ab.").await;
        assert_eq!(client.read_until("..", SOON).await.as_deref(), Some("aabb.."));
        assert_eq!(standin.get("/").await.status, 200);
        assert!(app.seen().iter().all(|seen| seen.version == Version::HTTP_2));
    }
}

/// A client that leaves: its stream is reset, and the others on the connection go on.
#[tokio::test]
async fn who_leaves_costs_one_stream_and_nothing_else() {
    let app = Http2App::start();
    let standin = before(&app.url(), HTTP2, "").await;
    let (stays, ()) = tokio::join!(standin.get("/slow/600"), async {
        let mut leaves = Client::to(standin.address()).patience(Duration::from_millis(200));
        assert!(leaves.send(request(Method::GET, "/hang", "")).await.is_err());
        eventually(SOON, async || app.given_up() == 1).await;
    });
    assert_eq!(stays.status, 200);
    // Within the body of an answer, too.
    let mut leaves = Raw::to(standin.address()).await;
    leaves.write("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(leaves.read_until("xxxx", SOON).await.is_some());
    drop(leaves);
    assert_eq!(standin.get("/").await.status, 200);
    assert_eq!(app.connections(), WORKERS_AND_QUESTIONS);
}

#[tokio::test]
async fn a_request_that_is_given_up_is_reset_by_name() {
    let app = Frames::start(|_| vec![]);
    let standin = before(&format!("http://{}", app.address()), HTTP2, "").await;
    let mut leaves = Client::to(standin.address()).patience(Duration::from_millis(200));
    assert!(leaves.send(request(Method::POST, "/plain", "x")).await.is_err());
    eventually(SOON, async || app.resets() == [CANCEL]).await;
}

/// The app makes no room for the body: the client is not read from beyond what standin may hold.
#[tokio::test]
async fn an_app_that_takes_nothing_holds_the_client_back() {
    const LENGTH: usize = 64 << 20;
    let app = Frames::start(|posted| if posted.whole { vec![Do::Answer] } else { vec![] });
    app.take_bodies(false);
    let mut standin = before(&format!("http://{}", app.address()), HTTP2, "").await;
    let before = standin.process().memory();
    let mut client = Raw::to(standin.address()).await;
    let head = format!("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write(head).await;
    let all = vec![b'x'; LENGTH];
    let sent = tokio::time::timeout(Duration::from_secs(1), client.write(&all)).await;
    assert!(sent.is_err(), "the client could send everything");
    // The window that HTTP/2 begins with.
    assert_eq!(app.body_bytes(), 65_535);
    let grown = standin.process().memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

/// An answer that comes after its deadline, on a connection that others use meanwhile.
#[tokio::test]
async fn a_late_answer_closes_its_entry() {
    let app = Http2App::start();
    let lines = format!("{HTTP2}\n");
    let config = config(&app.url(), &lines, "").replace("timeout = \"3s\"", "timeout = \"300ms\"");
    let config = config.replace("POST /orders", "POST /slow/{n}");
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    let answer = standin.post("/slow/900", "late").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(standin.get("/").await.status, 200);
    let entry = standin.entry_becomes("completed").await;
    assert_eq!(entry["outcome"], "completed", "{entry}");
    assert_eq!(app.seen_of("/slow/900"), 1);
    assert_eq!(app.connections(), WORKERS_AND_QUESTIONS);
}

/// HTTP/1.1 in clear is not spoken to in HTTP/2 by mistake: it is a matter of configuration, and nothing was sent.
#[tokio::test]
async fn an_app_that_does_not_speak_it_gets_nothing() {
    let app = crate::support::App::start().await;
    let standin = Standin::start(&config(&format!("http://{}", app.address()), HTTP2, "")).await;
    let refused = standin.post("/plain", "x").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("was not applied"), "{}", refused.text());
    assert!(app.seen().is_empty());
}

/// By way of egress proxies each tunnel is a connection that many requests share.
#[tokio::test]
async fn within_the_tunnel_of_a_proxy_too() {
    let pki = Pki::new();
    let tls = Some(Arc::new(pki.server(&pki.issue("app", &["127.0.0.1"]), &["h2"], false)));
    let app = Http2App::made(Making { tls, streams: None });
    let (one, two) = (Tinyproxy::start("one").await, Tinyproxy::start("two").await);
    let proxies: Vec<_> =
        [&one, &two].map(|proxy| format!("\"http://{}#{}\"", proxy.address(), proxy.name())).into();
    let lines = format!("egress = \"ways\"\ntls = {{ ca_file = {:?} }}", pki.authority());
    let ways = format!("\n[egress.ways]\nproxies = [{}]\n", proxies.join(", "));
    let standin = Standin::start(&(config(&app.url(), &lines, "") + &ways)).await;
    standin.upstream_is("up").await;
    let mut client = Client::to(standin.address());
    for _ in 0..4 {
        assert_eq!(client.send(request(Method::POST, "/plain", "x")).await.unwrap().status, 200);
    }
    let before = app.connections();
    let requests = (0..40).map(|n| request(Method::POST, "/slow/100", n.to_string()));
    assert_eq!(statuses(&at_once(&standin, requests).await), [200; 40]);
    assert_eq!(app.connections(), before, "a tunnel through each proxy is enough");
    let seen = app.seen();
    assert!(seen.iter().all(|seen| seen.version == Version::HTTP_2));
    let mut tunnels: Vec<_> = seen.iter().map(|seen| seen.connection).collect();
    tunnels.sort_unstable();
    tunnels.dedup();
    assert_eq!(tunnels.len(), 2);
    for proxy in [&one, &two] {
        assert!(proxy.output().contains("CONNECT 127.0.0.1:"), "{}", proxy.output());
    }
}
