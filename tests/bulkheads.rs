//! A route that hangs takes its share of the app and no more: what finds no place, what is not hurt by it, and when a
//! place is free again.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::json;

use crate::support::{App, Asked, Behaviour, Http2Client, Raw, Stage, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

fn config(address: impl ToString, upstream: &str, more: &str) -> String {
    format!(
        "[upstream.app]\nendpoints = [\"http://{}\"]\nhealth = {{ interval = \"50ms\" }}\n\
         {upstream}\n{more}",
        address.to_string()
    )
}

async fn in_front_of(address: impl ToString, upstream: &str, more: &str) -> Standin {
    let standin = Standin::start(&config(address, upstream, more)).await;
    standin.upstream_is("up").await;
    standin
}

/// A client whose request is under way.
async fn asks(standin: &Standin, method: &str, path: &str) -> Raw {
    let mut client = Raw::to(standin.address()).await;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(client.write(head).await);
    client
}

/// The app gets it, and hangs.
async fn hangs(standin: &Standin, stage: &mut Stage, path: &str) -> (Raw, Asked) {
    let client = asks(standin, "GET", path).await;
    let asked = stage.asked().await;
    assert!(asked.head.starts_with(&format!("GET {path} ")), "{}", asked.head);
    (client, asked)
}

async fn is_answered(standin: &Standin, stage: &mut Stage, path: &str) {
    let (mut client, mut asked) = hangs(standin, stage, path).await;
    asked.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = client.read_until("ok", SOON).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// An honest error, at once, and the app is left alone.
async fn finds_no_place(standin: &Standin, stage: &mut Stage, path: &str) {
    let answer = standin.get(path).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.header("proxy-status").contains("connection_limit_reached"), "{answer:?}");
    assert_eq!(answer.json()["detail"], "The request was not applied. It can be sent again.");
    assert!(stage.is_left_alone());
}

async fn has_inside(standin: &Standin, of: &str, wanted: f64) {
    eventually(SOON, async || {
        let inside = standin.metrics().await.sum("standin_bulkhead_in_flight", &[("of", of)]);
        if inside == wanted { Ok(()) } else { Err(format!("{inside} in flight, not {wanted}")) }
    })
    .await;
}

#[tokio::test]
async fn a_route_that_hangs_leaves_another_of_the_same_app_untouched() {
    let mut stage = Stage::start().await;
    let slow = "[route.slow]\nmatch = \"/slow/{n}\"\nin_flight = 3\n\
                [route.fast]\nmatch = \"/fast\"";
    // Two refusals in a row would open a breaker, if they counted; one exchange that the app breaks does not.
    let standin = in_front_of(stage.address(), "breaker = { failures = 2 }", slow).await;
    let mut hanging = Vec::new();
    for n in 0..3 {
        hanging.push(hangs(&standin, &mut stage, &format!("/slow/{n}")).await);
    }
    for _ in 0..5 {
        finds_no_place(&standin, &mut stage, "/slow/x").await;
        is_answered(&standin, &mut stage, "/fast").await;
        is_answered(&standin, &mut stage, "/without-a-route").await;
    }
    standin.upstream_is("up").await; // it is no failure of the app
    let metrics = standin.metrics().await;
    assert_eq!(metrics.sum("standin_bulkhead_refused_total", &[("name", "slow")]), 5.0);

    // An answer makes room when it has ended, not before.
    let (mut client, mut asked) = hanging.pop().unwrap();
    asked.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbe").await;
    assert!(client.read_until("be", SOON).await.is_some());
    finds_no_place(&standin, &mut stage, "/slow/x").await;
    asked.answer("en").await;
    assert!(client.read_until("en", SOON).await.is_some());
    has_inside(&standin, "route", 2.0).await;
    is_answered(&standin, &mut stage, "/slow/x").await;
    // So does an exchange that the app breaks.
    drop(hanging.pop());
    has_inside(&standin, "route", 1.0).await;
    is_answered(&standin, &mut stage, "/slow/x").await;
}

#[tokio::test]
async fn the_limit_is_exact_however_many_come_at_once() {
    let app = App::start().await;
    let slow = "workers = 4\n[route.slow]\nmatch = \"/slow\"\nin_flight = 3\n";
    let config = format!("{slow}{}", config(app.address(), "", ""));
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    let request = || Request::get("http://a/slow").body(Bytes::new()).unwrap();
    for _ in 0..5 {
        app.behave(Behaviour::Hang);
        app.forget();
        let (mut tasks, mut clients) = (tokio::task::JoinSet::new(), Vec::new());
        for _ in 0..40 {
            let address = standin.address();
            clients.push(tasks.spawn(async move {
                let answer = Http2Client::to(address).await.send(request()).await;
                assert!(answer.is_ok_and(|answer| answer.status == 503));
            }));
        }
        eventually(SOON, async || {
            let over = clients.iter().filter(|client| client.is_finished()).count();
            let seen = app.seen().iter().filter(|seen| seen.target == "/slow").count();
            if (over, seen) == (37, 3) {
                Ok(())
            } else {
                Err(format!("{over} refused, {seen} seen"))
            }
        })
        .await;
        // Clients that leave give their places back.
        clients.iter().for_each(tokio::task::AbortHandle::abort);
        while let Some(ended) = tasks.join_next().await {
            assert!(ended.err().is_none_or(|error| error.is_cancelled()));
        }
        has_inside(&standin, "route", 0.0).await;
        app.behave(Behaviour::Answer);
        assert_eq!(standin.get("/slow").await.status, 200);
    }
}

#[tokio::test]
async fn the_limit_of_an_upstream_is_for_all_its_routes() {
    let mut stage = Stage::start().await;
    let routes = "[route.a]\nmatch = \"/a\"\n[route.b]\nmatch = \"/b\"\nin_flight = 2";
    let standin = in_front_of(stage.address(), "in_flight = 2", routes).await;
    let first = hangs(&standin, &mut stage, "/a").await;
    let _second = hangs(&standin, &mut stage, "/without-a-route").await;
    for path in ["/a", "/b", "/c"] {
        finds_no_place(&standin, &mut stage, path).await;
    }
    drop(first);
    has_inside(&standin, "upstream", 1.0).await;
    is_answered(&standin, &mut stage, "/b").await;

    // Over a reload those in flight still count.
    standin.rewrite_config(&config(stage.address(), "in_flight = 1", routes));
    eventually(SOON, async || {
        let limit = standin.metrics().await.sum("standin_bulkhead_limit", &[("of", "upstream")]);
        if limit == 1.0 { Ok(()) } else { Err(format!("{limit}")) }
    })
    .await;
    finds_no_place(&standin, &mut stage, "/a").await;
}

#[tokio::test]
async fn what_finds_no_place_is_stood_in_for_and_a_late_exchange_still_counts() {
    let mut stage = Stage::start().await;
    let orders = r#"
[route.orders]
match = "POST /orders"
in_flight = 1
app_dedupes = { by = "x-request-id", for = "7d" }
stand_in = { accept_if = "true", answer = { status = 201, json = { id = "{{ request.id }}" } } }
replay = { trigger = "manual" }
"#;
    let upstream = "timeout = \"300ms\"\nlate_window = \"1h\"\nbreaker = { failures = 1000 }";
    let standin = in_front_of(stage.address(), upstream, orders).await;
    // The first one is over for its client, and not for the app.
    let (first, mut asked) = tokio::join!(standin.post("/orders", "a"), stage.asked());
    assert_eq!(first.status, 201, "{first:?}");
    has_inside(&standin, "route", 1.0).await;
    let second = standin.post("/orders", "b").await;
    assert_eq!(second.status, 201, "{second:?}");
    assert!(second.header("proxy-status").contains("receipt"), "{second:?}");
    assert!(stage.is_left_alone());

    let entries = standin.entries().await;
    let reasons: Vec<_> =
        entries.iter().map(|entry| (&entry["reason"], &entry["certainty"])).collect();
    let of_second = (&json!("breaker_open"), &json!("not_sent"));
    assert_eq!(reasons, [of_second, (&json!("timed_out"), &json!("sent_unknown"))]);
    let detail = format!("/api/v1/entries/{}", entries[0]["receipt"].as_str().unwrap());
    let detail = standin.admin_get(&detail).await.text();
    assert!(detail.contains("1 requests of this route are in flight"), "{detail}");
    standin.upstream_is("up").await;

    asked.answer("HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    has_inside(&standin, "route", 0.0).await;
    let third = tokio::join!(standin.post("/orders", "c"), async {
        stage.asked().await.answer("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await;
    });
    assert!(third.0.status == 202 || third.0.status == 201, "{third:?}"); // it was asked: that is the point
}
