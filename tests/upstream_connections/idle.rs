//! Connections that something between standin and the app has forgotten.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use super::{HTTP2, SOON, before, request};
use crate::support::{App, Client, Http2App, Middlebox, Standin, eventually};

/// Everything that is not used at once is doubted.
const DOUBTFUL: &str = "trust_idle = \"150ms\"\nidle_time = \"60s\"";

/// A standin whose connection to the app was used, and then forgotten on the way, while nobody used it.
async fn forgotten(
    app: std::net::SocketAddr,
    lines: &str,
    reset: bool,
) -> (Standin, Middlebox, usize) {
    let between = Middlebox::before(app).await;
    let standin = before(&format!("http://{}", between.address()), lines, DOUBTFUL).await;
    assert_eq!(standin.post("/plain", "before").await.status.as_u16() / 100, 2);
    if reset {
        between.forget_and_reset();
    } else {
        between.forget();
    }
    let quiet_from = Instant::now();
    eventually(SOON, async || quiet_from.elapsed() > Duration::from_millis(200)).await;
    let connections = between.connections();
    (standin, between, connections)
}

/// A POST never goes on a connection that may be cut: it reaches the app once, at once, and its client sees no error.
#[tokio::test]
async fn what_may_not_be_sent_twice_does_not_go_on_a_connection_that_may_be_cut() {
    for reset in [false, true] {
        let app = App::start().await;
        let (standin, between, connections) = forgotten(app.address(), "", reset).await;
        let began = Instant::now();
        assert_eq!(standin.post("/plain", "after").await.status, 201);
        assert!(began.elapsed() < Duration::from_millis(450), "{:?}", began.elapsed());
        assert_eq!((between.connections(), between.swallowed()), (connections + 1, 0));
        app.receives(["before", "after"]).await;
        // Used just now: it is believed.
        assert_eq!(standin.post("/plain", "more").await.status, 201);
        assert_eq!(between.connections(), connections + 1);
    }
}

/// What may be sent twice goes on it; silence or a reset costs a second sending, and no client an error.
#[tokio::test]
async fn what_may_be_sent_twice_is_sent_again_if_it_was_cut() {
    for reset in [false, true] {
        let app = App::start().await;
        let (standin, between, _) = forgotten(app.address(), "", reset).await;
        let answer = standin.send(request(Method::PUT, "/plain", "after")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(between.swallowed() > 0, "it went on the kept connection first");
        assert_eq!(app.seen_of(&Method::PUT).len(), 1);
    }
}

/// An HTTP/2 connection is asked first: what it does not answer costs no request, whatever its method.
#[tokio::test]
async fn a_shared_connection_is_asked_before_it_is_used_again() {
    for (method, reset) in
        [(Method::POST, false), (Method::POST, true), (Method::GET, false), (Method::GET, true)]
    {
        let app = Http2App::start();
        let (standin, between, connections) = forgotten(app.address(), HTTP2, reset).await;
        let answer = standin.send(request(method.clone(), "/after", "")).await;
        assert_eq!(answer.status, 200, "{method} {reset}: {answer:?}");
        assert_eq!(app.seen_of("/after"), 1);
        assert_eq!(between.connections(), connections + 1);
        // The ping is all that went there.
        assert!((1..100).contains(&between.swallowed()), "{}", between.swallowed());
    }
}

/// One that is there answers, and goes on being used.
#[tokio::test]
async fn a_shared_connection_that_answers_is_used_again() {
    let app = Http2App::start();
    let standin = before(&app.url(), HTTP2, DOUBTFUL).await;
    let mut client = Client::to(standin.address());
    for _ in 0..4 {
        assert_eq!(client.send(request(Method::POST, "/plain", "x")).await.unwrap().status, 200);
        let quiet_from = Instant::now();
        eventually(SOON, async || quiet_from.elapsed() > Duration::from_millis(200)).await;
    }
    let seen = app.seen();
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");
}

/// All that were kept open are cut: the next request of each kind is answered all the same.
#[tokio::test]
async fn however_many_were_cut_no_client_sees_an_error() {
    for (lines, reset) in [("", false), ("", true), (HTTP2, false), (HTTP2, true)] {
        let app = Http2App::start();
        let between = Middlebox::before(app.address()).await;
        let connections = format!("{DOUBTFUL}\nkeep_open = 3\nmax = 3");
        let url = format!("http://{}", between.address());
        let standin = before(&url, lines, &connections).await;
        eventually(SOON, async || app.open() >= 3).await;
        assert_eq!(standin.get("/").await.status, 200);
        if reset {
            between.forget_and_reset();
        } else {
            between.forget();
        }
        let quiet_from = Instant::now();
        eventually(SOON, async || quiet_from.elapsed() > Duration::from_millis(200)).await;
        for method in [Method::PUT, Method::POST, Method::GET] {
            let answer = standin.send(request(method.clone(), "/after", "")).await;
            assert_eq!(answer.status, 200, "{lines} {reset} {method}: {answer:?}");
        }
        assert_eq!(app.seen_of("/after"), 3);
    }
}

/// Never believed without a question, not even if it was heard of just now: each request asks once and is answered.
#[tokio::test]
async fn a_shared_connection_may_be_doubted_each_time() {
    let app = Http2App::start();
    let standin = before(&app.url(), HTTP2, "trust_idle = \"0s\"").await;
    let mut client = Client::to(standin.address()).patience(Duration::from_secs(5));
    for _ in 0..4 {
        assert_eq!(client.send(request(Method::POST, "/plain", "x")).await.unwrap().status, 200);
    }
    let seen = app.seen();
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");
}

/// An app that takes what comes on a kept connection, says nothing more and is not there for anybody else.
async fn falls_silent(
    listener: TcpListener,
    silent: Arc<AtomicBool>,
    taken: Arc<Mutex<String>>,
) -> tokio::task::JoinSet<()> {
    let mut connections = tokio::task::JoinSet::new();
    while !silent.load(Ordering::SeqCst) {
        let accepted = tokio::time::timeout(Duration::from_millis(10), listener.accept()).await;
        let Ok(Ok((mut stream, _))) = accepted else { continue };
        let (silent, taken) = (Arc::clone(&silent), Arc::clone(&taken));
        connections.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if silent.load(Ordering::SeqCst) {
                    let text = String::from_utf8_lossy(&buffer[..read]);
                    taken.lock().unwrap().push_str(&text);
                    continue;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        });
    }
    connections
}

/// What may be sent twice and was sent once: that nobody takes the second sending does not undo the first one.
#[tokio::test]
async fn what_went_on_a_silent_connection_may_have_been_applied_even_if_the_next_one_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = Arc::new(AtomicBool::new(false));
    let taken: Arc<Mutex<String>> = Arc::default();
    let mut app = tokio::task::JoinSet::new();
    app.spawn(falls_silent(listener, Arc::clone(&silent), Arc::clone(&taken)));
    // Nothing protects its replay: only what was certainly not sent is stood in for.
    let config = super::config(&url, "", DOUBTFUL).replace("app_dedupes", "# app_dedupes");
    let standin = Standin::start(&config.replace("POST /orders", "PUT /cart")).await;
    standin.upstream_is("up").await;
    assert_eq!(standin.send(request(Method::PUT, "/cart", "before")).await.status, 200);
    silent.store(true, Ordering::SeqCst);
    let _open = app.join_next().await.unwrap().unwrap();
    let quiet_from = Instant::now();
    eventually(SOON, async || quiet_from.elapsed() > Duration::from_millis(200)).await;
    let answer = standin.send(request(Method::PUT, "/cart", "do it")).await;
    let taken = taken.lock().unwrap().clone();
    assert!(taken.starts_with("PUT /cart") && taken.ends_with("do it"), "{taken}");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.text().contains("not known whether the request was applied"), "{answer:?}");
    assert!(standin.entries().await.is_empty());
}
