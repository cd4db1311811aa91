//! The app fails in each way there is: what it leaves behind, what the client reads, and that nothing is sent twice.
//! That nothing is promised after SIGTERM is in `drain.rs`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{
    Answer, App, Asked, Behaviour, Client, Http2Client, Raw, Stage, Standin, eventually, millis,
    pair, raw,
};

/// `/orders` is stood in for, everything else passes through.
fn config(endpoints: &[String], upstream: &str, route: &str, stand_in: &str) -> String {
    let endpoints: Vec<String> =
        endpoints.iter().map(|endpoint| format!("\"http://{endpoint}\"")).collect();
    format!(
        r#"
[upstream.app]
endpoints = [{}]
connect_timeout = "500ms"
health = {{ interval = "50ms" }}
{upstream}

[route.orders]
match = "POST /orders"
{route}

[route.orders.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}
{stand_in}

[route.orders.replay]
min_backoff = "50ms"
"#,
        endpoints.join(", ")
    )
}

/// Quick to give up, and the breaker stays out of it.
const PATIENT_BREAKER: &str =
    "timeout = \"400ms\"\nlate_window = \"800ms\"\nbreaker = { failures = 1000 }";
const PROTECTED: &str = r#"app_dedupes = { by = "x-request-id", for = "7d" }"#;
const LATE_WINDOW: i64 = 800;
const SOON: Duration = Duration::from_secs(20);

async fn in_front_of(address: impl ToString, upstream: &str, route: &str, more: &str) -> Standin {
    let standin = Standin::start(&config(&[address.to_string()], upstream, route, more)).await;
    standin.upstream_is("up").await;
    standin
}

async fn on_stage() -> (Standin, Stage) {
    let stage = Stage::start().await;
    let standin = in_front_of(stage.address(), PATIENT_BREAKER, PROTECTED, "").await;
    (standin, stage)
}

/// An answer that standin gave in the app's stead, after it was stored.
#[track_caller]
fn assert_stood_in(answer: &Answer, error: &str) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["status"], "accepted");
    let status = answer.header("proxy-status");
    assert!(status.contains("receipt") && status.contains(error), "{status}");
}

/// An honest error of standin's own.
#[track_caller]
fn assert_honest(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
}

#[track_caller]
fn assert_entry(entry: &Value, reason: &str, certainty: &str) {
    assert_eq!(
        (&entry["reason"], &entry["certainty"]),
        (&reason.into(), &certainty.into()),
        "{entry}"
    );
    let wait = millis(&entry["not_before"]) - millis(&entry["received_at"]);
    if certainty == "sent_unknown" {
        assert!(
            wait >= LATE_WINDOW,
            "sent again {wait} ms after it came, and the app may be at it"
        );
    } else {
        assert!(wait < LATE_WINDOW, "nothing to wait for, yet {wait} ms");
    }
}

/// The app fails an order by `fail`: the client has a stand-in answer, the app got the order once until then, and once
/// more as a replay with the same id, not before the late window is over.
async fn is_stood_in_for_after(
    error: &str,
    reason: &str,
    fail: impl AsyncFnOnce(&mut Asked) -> bool,
) {
    let (standin, mut stage) = on_stage().await;
    let (answer, asked) = tokio::join!(standin.post("/orders", "an order"), async {
        let mut asked = stage.asked().await;
        assert_eq!(asked.body().await, "an order");
        let stays = fail(&mut asked).await;
        (asked.header("x-request-id").unwrap().to_owned(), stays.then_some(asked))
    });
    let sent = Instant::now();
    assert_stood_in(&answer, error);
    assert!(stage.is_left_alone(), "sent twice while the client waited");
    assert_entry(&standin.entry().await, reason, "sent_unknown");

    let (id, still_open) = asked;
    let mut replay = stage.asked().await;
    let waited = sent.elapsed();
    assert!(waited > Duration::from_millis(500), "replayed {waited:?} after the answer");
    assert_eq!(replay.header("standin-replay"), Some("1"));
    assert_eq!(replay.header("x-request-id"), Some(&*id));
    assert_eq!(answer.header("x-request-id"), id);
    assert_eq!(replay.body().await, "an order");
    replay.answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    standin.entry_becomes("completed").await;
    assert!(stage.is_left_alone());
    drop(still_open);
}

#[tokio::test]
async fn an_app_that_refuses_the_connection() {
    let mut app = App::start().await;
    let standin = in_front_of(app.address(), PATIENT_BREAKER, PROTECTED, "").await;
    app.stop().await;
    assert_stood_in(&standin.post("/orders", "1").await, "connection_refused");
    let entry = standin.entry().await;
    assert_entry(&entry, "connect_failed", "not_sent");
    assert!(entry["cause"].as_str().unwrap().contains("connection refused"), "{entry}");
    app.restart().await;
    app.receives(["1"]).await;
    standin.entry_becomes("completed").await;
}

#[tokio::test]
async fn an_app_that_resets_the_connection_before_a_byte_of_its_answer() {
    is_stood_in_for_after("connection_terminated", "reset", async |asked| {
        let socket = socket2::SockRef::from(&asked.raw.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        false
    })
    .await;
}

#[tokio::test]
async fn an_app_that_closes_the_connection_half_way_through_the_head() {
    is_stood_in_for_after("connection_terminated", "reset", async |asked| {
        asked.answer("HTTP/1.1 201 Created\r\nContent-Le").await;
        false
    })
    .await;
}

#[tokio::test]
async fn an_app_that_answers_nonsense() {
    is_stood_in_for_after("connection_terminated", "reset", async |asked| {
        asked.answer("220 mail.example ESMTP\r\n\r\n").await;
        true
    })
    .await;
}

#[tokio::test]
async fn an_app_that_takes_the_order_and_never_answers() {
    is_stood_in_for_after("http_response_timeout", "timed_out", async |_| true).await;
}

/// What the client saw begin it also sees break off: after the head of an answer nobody else can answer.
#[tokio::test]
async fn an_app_that_breaks_off_within_the_body_of_its_answer() {
    let (standin, mut stage) = on_stage().await;
    let mut client = Client::to(standin.address());
    let order = Request::post("/orders").body(Bytes::from("1")).unwrap();
    let (answer, ()) = tokio::join!(client.send(order), async {
        let mut asked = stage.asked().await;
        asked.answer("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\nhalf").await;
    });
    assert!(answer.is_err(), "{answer:?}");
    assert!(standin.entries().await.is_empty());
    assert!(stage.is_left_alone());
}

/// The deadline is the app's: it begins when the app has the whole request.
#[tokio::test]
async fn a_slow_upload_is_no_timeout() {
    let app = App::start().await;
    let standin = in_front_of(app.address(), PATIENT_BREAKER, PROTECTED, "").await;
    for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = Raw::to(standin.address()).await;
        client.write(format!("POST /orders HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).await;
        let chunked = head.starts_with('T');
        for _ in 0..10 {
            let piece = "x".repeat(10_000);
            client.write(if chunked { format!("2710\r\n{piece}\r\n") } else { piece }).await;
            tokio::time::sleep(Duration::from_millis(100)).await; // in all more than twice the timeout
        }
        if chunked {
            client.write("0\r\n\r\n").await;
        }
        let answer = client.read_until("\r\n\r\n", SOON).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        assert!(!answer.contains("proxy-status"), "the app's own answer: {answer}");
    }
    assert_eq!(app.seen_of(&Method::POST).len(), 2);
    assert!(standin.entries().await.is_empty());
}

/// An address that nobody listens on.
async fn dead() -> String {
    let mut app = App::start().await;
    app.stop().await;
    app.address().to_string()
}

#[tokio::test]
async fn what_was_certainly_not_sent_goes_to_the_next_endpoint_whatever_its_method() {
    let app = App::start().await;
    for dead in [dead().await, "no-such-host.invalid:80".to_owned()] {
        app.forget();
        let endpoints = [dead, app.address().to_string()];
        let standin = Standin::start(&config(&endpoints, PATIENT_BREAKER, PROTECTED, "")).await;
        standin.upstream_is("up").await;
        for number in 0..6 {
            let answer = standin.post("/orders", number.to_string()).await;
            assert_eq!((answer.status.as_u16(), answer.header("proxy-status")), (201, ""));
            assert_eq!(standin.get("/").await.status, 200);
        }
        app.receives(["0", "1", "2", "3", "4", "5"]).await;
        assert_eq!(app.seen_of(&Method::GET).len(), 6);
        assert!(standin.entries().await.is_empty());
    }
}

/// One endpoint breaks what it gets, the other answers: an order goes to one of them, never to both.
#[tokio::test]
async fn what_may_have_been_applied_goes_to_no_other_endpoint() {
    let (app, mut stage) = (App::start().await, Stage::start().await);
    let endpoints = [stage.address().to_string(), app.address().to_string()];
    let in_turns =
        format!("{PATIENT_BREAKER}\nbalance = \"round_robin\"\nejection = {{ failures = 1000 }}");
    let standin = Standin::start(&config(&endpoints, &in_turns, "", "")).await;
    standin.upstream_is("up").await;
    let mut broken = 0;
    for number in 0..8 {
        let order = standin.post("/orders", number.to_string());
        let answer = tokio::select! {
            answer = order => answer,
            // Never ends: breaks whatever comes.
            () = async { loop { drop(stage.asked().await); broken += 1; } } => unreachable!(),
        };
        if answer.status != 201 {
            assert_honest(&answer, 502);
            assert!(answer.text().contains("not known whether the request was applied"));
        }
    }
    assert_eq!(broken + app.seen_of(&Method::POST).len(), 8);
    assert_eq!(broken, 4, "both endpoints took part");
    assert!(standin.entries().await.is_empty(), "nothing protects a replay here");
}

const QUICK_BREAKER: &str = "timeout = \"600ms\"\nlate_window = \"30s\"\n\
    breaker = { failures = 3, min_open = \"60s\", max_open = \"60s\" }";

#[tokio::test]
async fn once_the_app_is_known_to_be_down_nobody_waits_for_it() {
    let app = App::start().await;
    let standin = in_front_of(app.address(), QUICK_BREAKER, PROTECTED, "").await;
    app.behave(Behaviour::Hang);
    for _ in 0..3 {
        let started = Instant::now();
        assert_stood_in(&standin.post("/orders", "slow").await, "http_response_timeout");
        assert!(started.elapsed() >= Duration::from_millis(600));
    }
    standin.upstream_is("down").await;
    let asked = app.seen().len();
    let started = Instant::now();
    for _ in 0..10 {
        assert_stood_in(&standin.post("/orders", "quick").await, "destination_unavailable");
        let answer = standin.get("/").await;
        assert_honest(&answer, 503);
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?} for what takes 12 s where each waits");
    assert_eq!(app.seen().len(), asked, "and the app is left alone");
    let newest = &standin.entries().await[0];
    assert_eq!(
        (&newest["reason"], &newest["certainty"]),
        (&"breaker_open".into(), &"not_sent".into())
    );
}

/// It is back, but how well? One request finds out, the others are spared; then all go again.
#[tokio::test]
async fn a_half_open_breaker_lets_one_trial_through() {
    let mut app = App::start().await;
    let upstream = QUICK_BREAKER.replace("600ms", "10s");
    let standin = in_front_of(app.address(), &upstream, PROTECTED, "").await;
    app.stop().await;
    for _ in 0..3 {
        assert_honest(&standin.get("/").await, 503);
    }
    standin.upstream_is("down").await;
    app.behave(Behaviour::Slow(Duration::from_millis(1500)));
    app.restart().await;
    standin.upstream_is("probing").await;
    let mut statuses: Vec<u16> = join_all((0..10).map(|_| standin.get("/")))
        .await
        .iter()
        .map(|a| a.status.as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[503; 9]].concat());
    assert_eq!(app.seen_of(&Method::GET).len(), 1);
    standin.upstream_is("up").await;
    app.behave(Behaviour::Answer);
    assert!(join_all((0..10).map(|_| standin.get("/"))).await.iter().all(|a| a.status == 200));
}

/// A body that its client breaks is an outage of nobody: the breaker does not count it, and nothing is kept of it.
#[tokio::test]
async fn a_client_that_breaks_its_body_is_no_failure_of_the_app() {
    let mut app = App::start().await;
    let upstream = QUICK_BREAKER.replace("failures = 3", "failures = 2");
    let standin = in_front_of(app.address(), &upstream, PROTECTED, "").await;
    let broken = [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Content-Length: 100\r\n\r\nhello",
        "Content-Length: 100000\r\n\r\nhello",
    ];
    for app_is in ["up", "down"] {
        for broken in broken {
            for path in ["/orders", "/plain"] {
                let mut client = Raw::to(standin.address()).await;
                client.write(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{broken}")).await;
                client.half_close().await;
                let answer = client.read_all(SOON).await;
                let answer = String::from_utf8_lossy(&answer);
                assert!(!answer.contains(" 201 "), "{app_is} {path} {broken:?}: {answer}");
            }
        }
        standin.upstream_is(if app_is == "up" { "up" } else { "down" }).await;
        assert!(standin.entries().await.is_empty());
        if app_is == "up" {
            assert_eq!(standin.post("/orders", "whole").await.header("proxy-status"), "");
            app.stop().await;
            for _ in 0..2 {
                assert_honest(&standin.get("/").await, 503);
            }
        }
    }
    assert_eq!(app.seen_of(&Method::POST).len(), 1, "no half of a request was taken for one");
}

/// Between two pieces of its body a client may take as long as the listener allows. The app is not blamed for it: no
/// timeout, nothing stored, the breaker stays closed.
#[tokio::test]
async fn a_client_that_is_slow_to_send_is_no_outage() {
    let app = App::start().await;
    let upstream = "timeout = \"400ms\"\nbody_idle = \"400ms\"\nbreaker = { failures = 1 }";
    let config = config(&[app.address().to_string()], upstream, PROTECTED, "");
    let standin =
        Standin::start(&format!("{config}\n[listen.limits]\nbody_idle = \"20s\"\n")).await;
    standin.upstream_is("up").await;
    let slow = async |path: &str, size: usize| {
        let piece = "x".repeat(size);
        let mut client = Raw::to(standin.address()).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.write(head).await;
        for _ in 0..2 {
            client.write(format!("{size:x}\r\n{piece}\r\n")).await;
            // What this is about: more than twice what the app would have.
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
        client.write("0\r\n\r\n").await;
        client.read_until("\r\n\r\n", SOON).await.unwrap_or_default()
    };
    let answers =
        join_all([slow("/orders", 5), slow("/elsewhere", 5), slow("/orders", 100_000)]).await;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 201 ") && !answer.contains("receipt"), "{answer}");
    }
    assert_eq!(app.seen_of(&Method::POST).len(), 3);
    assert!(standin.entries().await.is_empty());
    standin.upstream_is("up").await;
}

/// An app that takes no more of a body is another matter: there the client waits for it.
#[tokio::test]
async fn an_app_that_stops_reading_has_timed_out() {
    let mut stage = Stage::start().await;
    let upstream = format!("{PATIENT_BREAKER}\nbody_idle = \"400ms\"");
    let standin = in_front_of(stage.address(), &upstream, PROTECTED, "").await;
    let mut client = Raw::to(standin.address()).await;
    client.write("POST /elsewhere HTTP/1.1\r\nhost: a\r\ncontent-length: 67108864\r\n\r\n").await;
    let (answer, asked) = tokio::join!(
        async {
            let (mut from, mut to) = client.stream.split();
            let mut said = Vec::new();
            let piece = vec![b'x'; 64 << 20];
            let sending = async {
                let sent = tokio::io::AsyncWriteExt::write_all(&mut to, &piece).await;
                sent.expect_err("all of it was taken");
                // standin has answered and closed; what it said is still to be read.
                std::future::pending::<()>().await;
            };
            let reading = async {
                while memchr::memmem::find(&said, b"\r\n\r\n").is_none() {
                    said.push(tokio::io::AsyncReadExt::read_u8(&mut from).await.unwrap());
                }
            };
            tokio::pin!(sending);
            tokio::select! {
                () = &mut sending => unreachable!(),
                read = tokio::time::timeout(SOON, reading) => read.expect("no answer"),
            }
            String::from_utf8_lossy(&said).into_owned()
        },
        stage.asked()
    );
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(asked.header("content-length"), Some("67108864"));
}

/// A name that cannot be resolved is standin's own trouble. Whether the app is down nobody knows.
#[tokio::test]
async fn standins_own_trouble_is_no_outage() {
    let mut app = App::start().await;
    let endpoints = ["no-such-host.invalid:80".to_owned(), app.address().to_string()];
    let standin = Standin::start(&config(&endpoints, QUICK_BREAKER, PROTECTED, "")).await;
    standin.upstream_is("up").await;
    app.stop().await;
    for _ in 0..5 {
        let answer = standin.post("/orders", "1").await;
        assert_honest(&answer, 503);
        assert!(answer.header("proxy-status").contains("proxy_internal_error"), "{answer:?}");
    }
    assert!(standin.entries().await.is_empty());
    standin.upstream_is("up").await;
}

/// Out of files, standin cannot even ask: that is no outage of the app. It goes on when there are some again.
#[tokio::test]
async fn out_of_files_nothing_is_promised_and_it_recovers() {
    let mut app = App::start().await;
    // Nothing is kept alive: each request needs a file of its own.
    app.answer_with(|seen| {
        let status = if seen.method == Method::POST { 201 } else { 200 };
        let closing = http::Response::builder().status(status).header("connection", "close");
        closing.body(Bytes::from_static(b"by the app")).unwrap()
    });
    let config = config(&[app.address().to_string()], "breaker = { failures = 1 }", PROTECTED, "");
    let limited = ["prlimit", "--nofile=96:96", "--"];
    let standin = Standin::with(&config).under(limited).arg("--workers=1").start().await;
    standin.upstream_is("up").await;
    let mut client = Client::to(standin.address());
    let mut order = async || {
        let order = Request::post("/orders").body(Bytes::from_static(b"1")).unwrap();
        client.send(order).await.unwrap()
    };
    assert_eq!(order().await.text(), "by the app");
    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(Raw::to(standin.address()).await);
    }
    eventually(SOON, async || standin.output().contains("cannot accept")).await;
    let mut refused = 0;
    eventually(SOON, async || {
        let answer = order().await;
        // Where a health check has just given its file back, the app is asked and has answered.
        if answer.text() != "by the app" {
            assert_honest(&answer, 503);
            assert!(answer.header("proxy-status").contains("proxy_internal_error"), "{answer:?}");
            refused += 1;
        }
        refused == 10
    })
    .await;
    drop(crowd);
    eventually(SOON, async || standin.post("/orders", "2").await.text() == "by the app").await;
    assert!(standin.entries().await.is_empty());
    standin.upstream_is("up").await;
    app.stop().await;
    assert_stood_in(&standin.post("/orders", "3").await, "error=");
}

/// A wrong address in the configuration must not look like an outage.
#[tokio::test]
async fn before_the_app_was_seen_to_answer_nothing_is_promised() {
    let mut app = App::start().await;
    app.stop().await;
    let address = app.address().to_string();
    let standin = Standin::start(&config(&[address], PATIENT_BREAKER, PROTECTED, "")).await;
    assert_honest(&standin.post("/orders", "1").await, 503);
    assert!(standin.entries().await.is_empty());
    app.restart().await;
    standin.upstream_is("up").await;
    app.stop().await;
    assert_stood_in(&standin.post("/orders", "2").await, "connection_refused");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_an_outage_goes_on_standing_in() {
    // Killed, with an order open.
    let (mut standin, mut app) = pair().await;
    app.stop().await;
    assert_stood_in(&standin.post("/orders", "1").await, "connection_refused");
    standin.kill();
    let mut standin = standin.restart().await;
    assert_eq!(standin.post("/orders", "2").await.status, 201);
    standin.kill();
    let standin = standin.restart().await;
    app.restart().await;
    app.receives(["1", "2"]).await;
    drop(standin);

    // Stopped, with nothing open: it remembers that the app was down.
    let (mut standin, mut app) = pair().await;
    app.stop().await;
    for _ in 0..5 {
        assert_honest(&standin.get("/").await, 503);
    }
    eventually(SOON, async || remembers_an_outage(&standin)).await;
    standin.terminate();
    assert!(standin.ended(SOON).await.success());
    let standin = standin.restart().await;
    assert_eq!(standin.post("/orders", "3").await.status, 201);
}

const LONG_WINDOW: &str =
    "timeout = \"300ms\"\nlate_window = \"3s\"\nbreaker = { failures = 1000 }";

/// The app answers after its client has a stand-in answer already.
async fn answers_late(answer: &str) -> (Standin, Stage, Asked) {
    let mut stage = Stage::start().await;
    let standin = in_front_of(stage.address(), LONG_WINDOW, PROTECTED, "").await;
    let (stood_in, mut asked) = tokio::join!(standin.post("/orders", "1"), stage.asked());
    assert_stood_in(&stood_in, "http_response_timeout");
    standin.entry_becomes("stored").await;
    asked.answer(answer).await;
    (standin, stage, asked)
}

#[tokio::test]
async fn a_late_yes_completes_the_entry_and_it_is_never_replayed() {
    let (standin, mut stage, _asked) =
        answers_late("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nlate").await;
    let entry = standin.entry_becomes("completed").await;
    let last = entry["history"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["who"], &last["upstream_answer"]["status"]),
        (&"late_answer".into(), &201.into())
    );
    // Even when its time would have come, and a person asks for it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let why = serde_json::json!({ "reason": "a test" });
    standin.admin_post(&format!("/api/v1/entries/{}/replay", entry["seq"]), &why).await;
    standin.admin_post("/api/v1/replay/runs", &why).await;
    standin.entry_becomes("completed").await;
    assert!(stage.is_left_alone());
}

#[tokio::test]
async fn a_late_no_declines_the_entry() {
    let (standin, mut stage, _asked) =
        answers_late("HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 0\r\n\r\n").await;
    let entry = standin.entry_becomes("declined").await;
    assert_eq!(entry["answer"]["status"], 201, "what its client was told");
    assert!(stage.is_left_alone());
}

#[tokio::test]
async fn a_late_500_changes_nothing_but_the_history() {
    let (standin, mut stage, _asked) =
        answers_late("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n").await;
    eventually(SOON, async || {
        let entry = standin.entry().await;
        let mut lines = entry["history"].as_array().unwrap().iter();
        lines.any(|line| line["who"] == "late_answer" && line["upstream_answer"]["status"] == 500)
    })
    .await;
    assert_eq!(standin.entry().await["state"], "stored");
    let mut replay = stage.asked().await;
    assert_eq!(replay.header("standin-replay"), Some("1"));
    replay.answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    standin.entry_becomes("completed").await;
}

/// An order whose client leaves as soon as the app has it; the app does not answer.
async fn client_leaves(unanswered: &str) -> (Standin, App) {
    let app = App::start().await;
    let upstream = PATIENT_BREAKER.replace("400ms", "2s"); // time enough to be gone before the decision
    let standin = in_front_of(app.address(), &upstream, PROTECTED, unanswered).await;
    app.behave(Behaviour::Hang);
    let client = Http2Client::to(standin.address()).await;
    tokio::select! {
        answer = client.send(Request::post("/orders").body(Bytes::from("1")).unwrap()) => {
            panic!("{answer:?}")
        }
        () = eventually(SOON, async || app.seen_of(&Method::POST).len() == 1) => {}
    }
    (standin, app) // dropped, the client resets its stream
}

#[tokio::test]
async fn an_order_whose_client_left_is_kept_for_a_person_to_decide() {
    let (standin, app) = client_leaves("").await;
    let entry = standin.entry_becomes("held(unanswered)").await;
    assert_entry(&entry, "timed_out", "sent_unknown");
    app.behave(Behaviour::Answer);
    let why = serde_json::json!({ "reason": "the customer has called" });
    let release = format!("/api/v1/entries/{}/release", entry["seq"]);
    assert!(standin.admin_post(&release, &why).await.status.is_success());
    app.receives(["1", "1"]).await;
    standin.entry_becomes("completed").await;
}

#[tokio::test]
async fn an_order_whose_client_left_is_replayed_where_the_route_says_so() {
    let (standin, app) = client_leaves("unanswered = \"replay\"").await;
    standin.entry_becomes("stored").await;
    app.behave(Behaviour::Answer);
    standin.entry_becomes("completed").await;
    let ids: Vec<_> =
        app.seen_of(&Method::POST).iter().map(|s| s.headers["x-request-id"].clone()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

/// The same over HTTP/1.1, where a client that leaves looks at first like one that has said all and listens.
async fn http1_client(behaviour: Behaviour) -> (Standin, App, Raw) {
    let app = App::start().await;
    let upstream = PATIENT_BREAKER.replace("400ms", "2s"); // time enough to be gone before the decision
    let standin = in_front_of(app.address(), &upstream, PROTECTED, "").await;
    app.behave(behaviour);
    let mut client = Raw::to(standin.address()).await;
    client.write(HTTP1_ORDER).await;
    eventually(SOON, async || app.seen_of(&Method::POST).len() == 1).await;
    (standin, app, client)
}

const HTTP1_ORDER: &str = "POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"order-7\"\r\n\
    Content-Length: 1\r\n\r\n1";

#[tokio::test]
async fn an_order_whose_client_closed_its_connection_is_kept_for_a_person_to_decide() {
    let (standin, app, client) = http1_client(Behaviour::Hang).await;
    drop(client);
    let entry = standin.entry_becomes("held(unanswered)").await;
    assert_entry(&entry, "timed_out", "sent_unknown");
    // It asks again under the same key: now it is promised.
    let mut client = Raw::to(standin.address()).await;
    client.write(HTTP1_ORDER).await;
    let answer = client.read_until("\r\n\r\n", SOON).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    app.behave(Behaviour::Answer);
    standin.entry_becomes("completed").await;
}

#[tokio::test]
async fn an_order_whose_client_reset_its_connection_is_stored_as_held_at_once() {
    let (standin, app, client) = http1_client(Behaviour::Hang).await;
    client.reset();
    let entry = standin.entry_becomes("held(unanswered)").await;
    assert_entry(&entry, "timed_out", "sent_unknown");
    let history = entry["history"].as_array().unwrap();
    assert_eq!((history.len(), &history[0]["state"]), (1, &"held".into()), "{entry}");
    app.behave(Behaviour::Answer);
    let why = serde_json::json!({ "reason": "the customer has called" });
    let release = format!("/api/v1/entries/{}/release", entry["seq"]);
    assert!(standin.admin_post(&release, &why).await.status.is_success());
    standin.entry_becomes("completed").await;
}

/// Several at once on a kept connection: the one that left is not mistaken for the one before, which had its answer.
#[tokio::test]
async fn what_was_answered_before_its_client_left_is_no_unanswered_order() {
    let (standin, app, mut client) = http1_client(Behaviour::Hang).await;
    let answer = client.read_until("\r\n\r\n", SOON).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    client.write(HTTP1_ORDER.replace("order-7", "order-8")).await;
    eventually(SOON, async || app.seen_of(&Method::POST).len() == 2).await;
    drop(client);
    app.behave(Behaviour::Answer);
    eventually(SOON, async || {
        let all = standin.entries().await;
        let at = |n: usize| (all[n]["outcome"].as_str(), all[n]["held"].as_str());
        let right = all.len() == 2
            && at(0) == (None, Some("unanswered"))
            && at(1) == (Some("completed"), None);
        if right { Ok(()) } else { Err(all) }
    })
    .await;
}

/// It has closed its side only: it has its answer, and its order is a promise.
#[tokio::test]
async fn a_client_that_has_said_all_and_listens_has_its_answer() {
    let (standin, app, mut client) = http1_client(Behaviour::Hang).await;
    client.half_close().await;
    let answer = client.read_until("accepted\"}", SOON).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(client.read_all(SOON).await.is_empty());
    app.behave(Behaviour::Answer);
    let entry = standin.entry_becomes("completed").await;
    let history = entry["history"].as_array().unwrap();
    assert!(history.iter().all(|line| line["state"] != "held"), "{entry}");
    app.receives(["1", "1"]).await;
}

/// What a client does before it is even accepted: of its connection nobody has waited for anything.
async fn asked_before_accepted(head: &str) -> (Standin, App, Raw) {
    let mut app = App::start().await;
    let mut standin = in_front_of(app.address(), PATIENT_BREAKER, PROTECTED, "").await;
    app.stop().await;
    // Stopped, standin accepts nothing.
    standin.process().stand_still();
    let mut client = Raw::to(standin.address()).await;
    client.write(HTTP1_ORDER.replace("Host: a", head)).await;
    (standin, app, client)
}

/// On a connection that goes on, and on one that ends with its answer.
const HEADS: [&str; 2] = ["Host: a", "Host: a\r\nConnection: close"];

#[tokio::test]
async fn an_order_whose_client_left_before_it_was_accepted_is_kept_for_a_person_to_decide() {
    for head in HEADS {
        let (mut standin, _app, client) = asked_before_accepted(head).await;
        drop(client);
        standin.process().signal(Signal::CONT);
        standin.entry_becomes("held(unanswered)").await;
    }
}

#[tokio::test]
async fn a_client_that_had_said_all_before_it_was_accepted_has_its_answer() {
    for head in HEADS {
        let (mut standin, mut app, mut client) = asked_before_accepted(head).await;
        client.half_close().await;
        standin.process().signal(Signal::CONT);
        let answer = client.read_until("accepted\"}", SOON).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        assert!(client.read_all(SOON).await.is_empty());
        app.restart().await;
        let entry = standin.entry_becomes("completed").await;
        let history = entry["history"].as_array().unwrap();
        assert!(history.iter().all(|line| line["state"] != "held"), "{entry}");
        app.receives(["1"]).await;
    }
}

/// The kernel hands its connection over nevertheless, with what was said before the reset.
#[tokio::test]
async fn an_order_whose_client_reset_before_it_was_accepted_is_no_promise() {
    for head in HEADS {
        let (mut standin, _app, client) = asked_before_accepted(head).await;
        client.reset();
        standin.process().signal(Signal::CONT);
        assert_eq!(standin.post("/orders", "2").await.status, 201);
        eventually(SOON, async || {
            let all = standin.entries().await;
            let held = all.iter().filter(|entry| entry["held"] == "unanswered").count();
            if (all.len(), held) == (2, 1) { Ok(()) } else { Err(all) }
        })
        .await;
    }
}

/// The app was asked and has answered: whether the client heard it changes nothing.
#[tokio::test]
async fn an_order_that_the_app_has_answered_is_not_stored_because_its_client_left() {
    let mut stage = Stage::start().await;
    let standin = in_front_of(stage.address(), LONG_WINDOW, PROTECTED, "").await;
    let client = Http2Client::to(standin.address()).await;
    let mut asked = tokio::select! {
        answer = client.send(Request::post("/orders").body(Bytes::from("1")).unwrap()) => {
            panic!("{answer:?}")
        }
        asked = stage.asked() => asked,
    };
    drop(client);
    asked.answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(600)).await; // twice the timeout
    assert!(standin.entries().await.is_empty());
    assert!(stage.is_left_alone());
}

#[tokio::test]
async fn of_a_client_that_leaves_before_its_request_is_complete_nothing_is_stored() {
    let mut app = App::start().await;
    let standin =
        in_front_of(app.address(), PATIENT_BREAKER, PROTECTED, "unanswered = \"replay\"").await;
    app.stop().await;
    for head in [
        "Content-Length: 10\r\n\r\n12345",
        "Content-Length: 100000\r\n\r\n12345",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ] {
        for reset in [true, false] {
            let mut client = Raw::to(standin.address()).await;
            client.write(format!("POST /orders HTTP/1.1\r\nHost: a\r\n{head}")).await;
            eventually(SOON, async || in_flight(&standin).await == 1).await;
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            eventually(SOON, async || in_flight(&standin).await == 0).await;
        }
    }
    let answer = raw(
        standin.address(),
        "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwhole",
    )
    .await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {}", StatusCode::CREATED.as_u16())), "{answer}");
    assert_eq!(standin.entries().await.len(), 1, "the whole one");
    app.restart().await;
    app.receives(["whole"]).await;
}

async fn in_flight(standin: &Standin) -> u64 {
    let status = standin.admin_get("/api/v1/status").await.json();
    status["requests_in_flight"].as_u64().unwrap()
}

/// What waits for a person says nothing of the app: entries that are held, or stored on a route that is replayed by
/// hand, are no outage that goes on.
#[tokio::test]
async fn what_waits_for_a_person_is_no_outage_that_goes_on() {
    for trigger in ["auto", "manual"] {
        let mut app = App::start().await;
        let config = config(&[app.address().to_string()], PATIENT_BREAKER, PROTECTED, "");
        let mut standin = Standin::start(&format!("{config}trigger = \"{trigger}\"\n")).await;
        standin.upstream_is("up").await;
        app.stop().await;
        assert_stood_in(&standin.post("/orders", "1").await, "connection_refused");
        let waits = if trigger == "manual" { "stored" } else { "held(by_person)" };
        if trigger == "auto" {
            let receipt = standin.entry().await["receipt"].as_str().unwrap().to_owned();
            let why = serde_json::json!({ "reason": "a test" });
            let held = format!("/api/v1/entries/{receipt}/hold");
            // Not while a replay has it in hand.
            eventually(SOON, async || standin.admin_post(&held, &why).await.status.is_success())
                .await;
        }
        app.restart().await;
        standin.upstream_is("up").await;
        eventually(SOON, async || !remembers_an_outage(&standin)).await;
        standin.kill();
        app.stop().await;
        let standin = standin.restart().await;
        assert_honest(&standin.post("/orders", "2").await, 503);
        standin.entry_becomes(waits).await;
    }
}

/// Whether a standin that starts on this store would know that its app is down.
fn remembers_an_outage(standin: &Standin) -> bool {
    let database = rusqlite::Connection::open(standin.database()).unwrap();
    let sql = "SELECT value FROM value WHERE name = 'outage/app'";
    database.query_row(sql, [], |row| row.get::<_, String>(0)).is_ok_and(|since| !since.is_empty())
}
