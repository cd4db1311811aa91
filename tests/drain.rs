//! SIGTERM: what is in flight finishes, what is queued is served, nothing is cut before the deadline, and nothing new
//! is promised.

use std::time::Duration;

use http::{Method, Request};
use rustix::process::Signal;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{App, Behaviour, Client, Raw, Standin, eventually, orders_config};

#[tokio::test]
async fn requests_in_flight_are_answered_and_the_exit_is_clean() {
    let app = App::start().await;
    let mut standin = Standin::start(&orders_config(app.address())).await;
    app.behave(Behaviour::Slow(Duration::from_millis(700)));
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let mut client = Client::to(standin.address());
        let request = Request::get("/slow").body(bytes::Bytes::new()).unwrap();
        clients.spawn(async move { client.send(request).await });
    }
    eventually(LIMIT, async || app.seen().len() == 20).await;
    standin.terminate();
    for answer in clients.join_all().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert!(standin.ended(LIMIT).await.success());
}

/// Connections that the kernel has accepted for standin were not refused: they are served, whenever the signal comes.
#[tokio::test]
async fn connections_in_the_queue_are_served() {
    let app = App::start().await;
    let mut standin = Standin::start(&orders_config(app.address())).await;
    assert_eq!(standin.get("/").await.status, 200);
    // Stopped, standin accepts nothing: all of these wait in the kernel's queue.
    standin.process().stand_still();
    let request = "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    let mut queued = Vec::new();
    for number in 0..64 {
        let mut client = Raw::to(standin.address()).await;
        if number % 2 == 0 {
            assert!(client.write(request).await);
        }
        queued.push(client);
    }
    standin.process().signal(Signal::TERM);
    standin.process().signal(Signal::CONT);
    // Some had connected and not spoken yet.
    for client in queued.iter_mut().skip(1).step_by(2) {
        client.write(request).await;
    }
    let mut unserved = 0;
    for client in &mut queued {
        let answer = client.read_until("\r\n\r\n", LIMIT).await.unwrap_or_default();
        unserved += usize::from(!answer.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(unserved, 0, "of 64 queued connections");
    assert!(standin.ended(LIMIT).await.success());
}

/// The drain waits for an exchange whose client has its stand-in answer already: its outcome is worth knowing.
#[tokio::test]
async fn a_late_exchange_may_still_answer() {
    let app = App::start().await;
    let config = orders_config(app.address())
        .replace(r#"timeout = "2s""#, r#"timeout = "200ms""#)
        .replace(r#"late_window = "500ms""#, r#"late_window = "10s""#);
    let mut standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.behave(Behaviour::Slow(Duration::from_millis(1500)));
    let answer = standin.post("/orders", "late").await;
    assert_eq!(answer.status, 201);
    assert!(answer.header("proxy-status").starts_with("standin"), "{answer:?}");
    standin.terminate();
    assert!(standin.ended(LIMIT).await.success());

    app.behave(Behaviour::Answer);
    let standin = standin.restart().await;
    let status = standin.admin_get("/api/v1/status").await.json();
    let open = &status["routes"].as_array().unwrap()[0]["open"];
    assert_eq!(open, 0, "the late answer closed it: {status}");
    assert_eq!(app.seen_of(&Method::POST).len(), 1, "and nothing was sent again");
}

#[tokio::test]
async fn what_never_ends_is_cut_at_the_deadline_and_not_before() {
    let app = App::start().await;
    let config = format!("drain = \"1500ms\"\n{}", orders_config(app.address()))
        .replace(r#"timeout = "2s""#, r#"timeout = "60s""#);
    let mut standin = Standin::start(&config).await;
    app.behave(Behaviour::Hang);
    let mut client = Client::to(standin.address());
    let request = Request::get("/never").body(bytes::Bytes::new()).unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let answer = client.send(request).await;
        (answer.is_err(), Instant::now())
    });
    eventually(LIMIT, async || app.seen().len() == 1).await;
    let asked = Instant::now();
    standin.terminate();
    standin.ended(Duration::from_secs(6)).await;
    let (cut, at) = waiting.join_next().await.unwrap().unwrap();
    assert!(cut);
    let after = at - asked;
    assert!(after >= Duration::from_millis(1400), "cut {after:?} after SIGTERM");
}

/// Nothing is wrong then: whoever looks for warnings does not find one at each stop.
#[tokio::test]
async fn a_stop_that_was_asked_for_warns_of_nothing() {
    let app = App::start().await;
    let mut standin = Standin::start(&orders_config(app.address())).await;
    assert_eq!(standin.get("/").await.status, 200);
    let before = warnings(&standin.process().output());
    standin.terminate();
    assert!(standin.ended(LIMIT).await.success());
    let output = standin.process().whole_output();
    assert!(output.contains("the store does not accept any more"), "{output}");
    assert_eq!(warnings(&output), before, "{output}");
}

fn warnings(output: &str) -> usize {
    output.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count()
}

#[tokio::test]
async fn after_sigterm_nothing_new_is_promised() {
    let app = App::start().await;
    let config = orders_config(app.address()).replace(r#"timeout = "2s""#, r#"timeout = "700ms""#);
    let mut standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.behave(Behaviour::Hang);
    let mut client = Client::to(standin.address());
    let order = Request::post("/orders").body("1".into()).unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.send(order).await });
    eventually(LIMIT, async || app.seen_of(&Method::POST).len() == 1).await;
    standin.terminate();
    let answer = waiting.join_next().await.unwrap().unwrap().unwrap();
    assert!(answer.status.is_server_error(), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(standin.ended(LIMIT).await.success());
}

const LIMIT: Duration = Duration::from_secs(20);

/// A disk that hangs in the middle of an append: nobody knows whether the order is kept, so nobody is told.
#[tokio::test]
async fn an_append_that_hangs_is_never_answered_and_the_drain_ends() {
    for (point, kept) in [("before_commit", false), ("after_commit_before_ack", true)] {
        let mut app = App::start().await;
        let config = format!("drain = \"1500ms\"\n{}", orders_config(app.address()));
        let setup = Standin::with(&config).arg("--hang").arg(format!("{point}:2"));
        let mut standin = setup.start().await;
        assert_eq!(standin.get("/").await.status, 200);
        app.stop().await;
        assert_eq!(standin.post("/orders", "kept").await.status, 201);
        let mut client = Client::to(standin.address());
        let order = Request::post("/orders").body(bytes::Bytes::from_static(b"hangs")).unwrap();
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { (client.send(order).await, Instant::now()) });
        standin.process().says_somewhere(&format!("failpoint {point} reached")).await;
        let asked = Instant::now();
        standin.terminate();
        let (answer, at) = waiting.join_next().await.unwrap().unwrap();
        assert!(answer.is_err(), "{point}: an answer without its commit: {answer:?}");
        let after = at - asked;
        assert!(after >= Duration::from_millis(1400), "{point}: cut {after:?} after SIGTERM");
        standin.ended(LIMIT).await;

        app.restart().await;
        let standin = standin.restart().await;
        if kept {
            app.receives(["kept", "hangs"]).await;
        } else {
            app.receives(["kept"]).await;
        }
        assert_eq!(standin.entries().await.len(), 1 + usize::from(kept), "{point}");
    }
}
