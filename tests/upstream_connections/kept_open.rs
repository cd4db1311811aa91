//! Connections that are open before anybody needs them, and open again when they are gone.

use std::time::Duration;

use tokio::time::Instant;

use super::{HTTP2, SOON, before, config};
use crate::support::{App, Http2App, Standin, eventually};

/// `keep_open` connections, besides that of the question at the start, which ends with its idle time.
#[tokio::test]
async fn they_are_open_before_the_first_request_and_stay() {
    for lines in ["", HTTP2] {
        let app = Http2App::start();
        let idle = "keep_open = 3\nidle_time = \"300ms\"";
        let standin = before(&app.url(), lines, idle).await;
        eventually(SOON, async || app.open() == 3).await;
        assert_eq!(standin.get("/").await.status, 200);
        let (from, opened) = (Instant::now(), app.connections());
        eventually(SOON, async || from.elapsed() > Duration::from_secs(3)).await;
        assert_eq!((app.open(), app.connections()), (3, opened), "{lines}");
    }
}

/// What is open and what is in use is in the metrics, and what is gone is not.
#[tokio::test]
async fn connections_are_counted_for_each_endpoint() {
    for lines in ["", HTTP2] {
        let app = Http2App::start();
        // The question at the start has one of its own, which ends soon.
        let idle = "keep_open = 3\nidle_time = \"300ms\"";
        let standin = before(&app.url(), lines, idle).await;
        let count = async |state: &str| {
            let labels = [("upstream", "app"), ("state", state)];
            standin.metrics().await.sum("standin_endpoint_connections", &labels)
        };
        let counted = async |idle: f64, in_use: f64| {
            eventually(SOON, async || {
                let now = (count("idle").await, count("in_use").await);
                if now == (idle, in_use) { Ok(()) } else { Err(format!("{lines} {now:?}")) }
            })
            .await;
        };
        counted(3.0, 0.0).await;
        let address = standin.address();
        let mut hanging = tokio::task::JoinSet::new();
        hanging.spawn(async move {
            let hangs = super::request(http::Method::GET, "/slow/5000", "");
            crate::support::Client::to(address).send(hangs).await.is_ok()
        });
        counted(2.0, 1.0).await;
        drop(hanging);
        let opened = standin.metrics().await;
        let opened =
            opened.sum("standin_endpoint_connections_opened_total", &[("upstream", "app")]);
        assert!(opened >= 4.0, "{opened}");
    }
}

/// One endpoint is gone: the other goes on, and when it is back so are its connections, without any request for it.
#[tokio::test]
async fn they_come_back_with_the_app_while_the_others_work_on() {
    let (mut gone, stays) = (App::start().await, App::start().await);
    let endpoints = format!("http://{}\", \"http://{}", gone.address(), stays.address());
    let standin = Standin::start(&config(&endpoints, "", "keep_open = 2")).await;
    standin.upstream_is("up").await;
    eventually(SOON, async || gone.wire().len() >= 2).await;
    gone.stop().await;
    gone.forget();
    for _ in 0..20 {
        assert_eq!(standin.get("/").await.status, 200);
    }
    gone.restart().await;
    eventually(SOON, async || gone.wire().len() >= 2).await;
}

/// After a while nobody knocks any more, until a request asks for the app.
#[tokio::test]
async fn the_next_try_is_a_requests_when_all_others_failed() {
    let mut app = App::start().await;
    let config = config(&format!("http://{}", app.address()), "", "keep_open = 1")
        .replace(
            "min_open = \"50ms\", max_open = \"200ms\"",
            "min_open = \"10m\", max_open = \"10m\"",
        )
        .replace("interval = \"50ms\"", "interval = \"10m\"");
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    eventually(SOON, async || app.wire().len() >= 2).await;
    app.stop().await;
    let from = Instant::now();
    // Longer than all its tries take.
    let long = Duration::from_secs(20);
    eventually(long * 2, async || from.elapsed() > long).await;
    app.restart().await;
    app.forget();
    let from = Instant::now();
    eventually(SOON, async || from.elapsed() > Duration::from_secs(3)).await;
    assert_eq!(app.wire().len(), 0, "somebody knocked");
    assert_eq!(standin.get("/").await.status, 200);
    eventually(SOON, async || !app.wire().is_empty()).await;
}
