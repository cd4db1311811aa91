//! The app says that it is not to be stood in for.

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, Seen, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

/// `/orders` and `/letters` are stood in for, `/search` is not.
fn config(app: &App, upstream: &str, stand_in: &str) -> String {
    let route = |name: &str| {
        format!(
            r#"
[route.{name}]
match = "POST /{name}"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.{name}.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}
{stand_in}

[route.{name}.replay]
min_backoff = "50ms"
"#
        )
    };
    format!(
        r#"
[upstream.app]
endpoints = ["http://{}"]
timeout = "300ms"
late_window = "5s"
health = {{ interval = "50ms", timeout = "500ms" }}
breaker = {{ failures = 1000 }}
{upstream}
{}{}
[route.search]
match = "POST /search"
"#,
        app.address(),
        route("orders"),
        route("letters"),
    )
}

async fn in_front_of(app: &App, upstream: &str, stand_in: &str) -> Standin {
    let standin = Standin::start(&config(app, upstream, stand_in)).await;
    standin.upstream_is("up").await;
    standin
}

/// In answers to POST; a question of health says nothing.
fn says(app: &App, veto: &'static str) {
    app.answer_with(move |seen| answer(seen, veto));
}

fn answer(seen: &Seen, veto: &str) -> Response<Bytes> {
    let posted = seen.method == Method::POST;
    let mut answer = Response::builder().status(if posted { 201 } else { 200 });
    if posted {
        answer = answer.header("standin-veto", veto);
    }
    answer.body(Bytes::new()).unwrap()
}

async fn veto(standin: &Standin, route: &str) -> Value {
    let status = standin.admin_get("/api/v1/status").await.json();
    let routes = status["routes"].as_array().unwrap();
    routes.iter().find(|one| one["name"] == route).unwrap()["veto"].clone()
}

async fn is_stood_in_for(standin: &Standin, path: &str, body: &'static str) -> bool {
    let answer = standin.post(path, body).await;
    let receipt = answer.header("proxy-status").contains("receipt");
    if !receipt {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    receipt
}

#[tokio::test]
async fn an_app_that_says_no_is_not_stood_in_for_over_a_restart_too() {
    let mut app = App::start().await;
    let mut standin = in_front_of(&app, "", "").await;
    for word in ["never", "600"] {
        says(&app, word);
        let answer = standin.post("/orders", "1").await;
        assert_eq!((answer.status.as_u16(), answer.header("standin-veto")), (201, ""));
        for killed in [true, false] {
            let said = veto(&standin, "orders").await;
            assert_eq!(said["until"].is_null(), word == "never", "{said}");
            assert!(!said["since"].is_null(), "{said}");
            if killed {
                standin.kill();
            } else {
                standin.terminate();
                assert!(standin.ended(SOON).await.success());
            }
            standin = standin.restart().await;
        }
        standin.upstream_is("up").await;
        app.stop().await;
        assert!(!is_stood_in_for(&standin, "/orders", "2").await);
        standin.mode("forced", json!({ "for": "1h" })).await;
        assert!(!is_stood_in_for(&standin, "/orders", "2").await, "not even if forced");
        standin.mode("auto", json!({})).await;
        assert!(standin.entries().await.is_empty());
        let metrics = standin.metrics().await;
        let vetoed = [("why", "vetoed"), ("route", "orders")];
        assert_eq!(metrics.sum("standin_not_stood_in_total", &vetoed), 2.0);
        assert_eq!(metrics.sum("standin_vetoed", &[("route", "orders")]), 1.0);
        let page = standin.admin_get("/").await.text();
        assert!(page.contains("orders is not stood in for: its app said no"), "{page}");
        assert!(page.contains("the app says no"), "{page}");
        app.restart().await;
    }
    says(&app, "none");
    assert_eq!(standin.post("/orders", "3").await.status, 201);
    assert_eq!(veto(&standin, "orders").await, Value::Null);
    standin.kill();
    let standin = standin.restart().await;
    standin.upstream_is("up").await;
    app.stop().await;
    assert!(is_stood_in_for(&standin, "/orders", "4").await);
}

#[tokio::test]
async fn a_no_takes_back_no_promise() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    let with_key = |body: &'static str| {
        let request = http::Request::post("/orders").header("idempotency-key", "k-1");
        request.body(Bytes::from(body)).unwrap()
    };
    app.stop().await;
    let promised = standin.send(with_key("promised")).await;
    assert!(promised.header("proxy-status").contains("receipt"), "{promised:?}");
    says(&app, "never");
    app.restart().await;
    app.receives(["promised"]).await;
    standin.entry_becomes("completed").await;
    // The answer to the replay said it.
    assert!(!veto(&standin, "orders").await.is_null());
    app.stop().await;
    assert!(!is_stood_in_for(&standin, "/orders", "new").await);
    let again = standin.send(with_key("promised")).await;
    assert_eq!((again.status, again.text()), (promised.status, promised.text()), "kept");
}

#[tokio::test]
async fn only_the_app_itself_can_say_no() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "endpoint_is = \"proxy\"", "").await;
    // A proxy's own error, and an answer that it passed on, of the app of another route.
    app.answer_with(|seen| {
        let mut answer = answer(seen, "never");
        if seen.target == "/orders" {
            *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
        }
        answer
    });
    assert!(is_stood_in_for(&standin, "/orders", "1").await);
    assert_eq!(standin.post("/letters", "1").await.status, 201);
    let passed = standin.post("/search", "1").await;
    assert_eq!(passed.header("standin-veto"), "never", "without a stand-in it means nothing");
    assert_eq!(veto(&standin, "orders").await, Value::Null);
    assert!(!veto(&standin, "letters").await.is_null());
    app.stop().await;
    assert!(!is_stood_in_for(&standin, "/letters", "2").await);
    let asked = http::Request::post("/orders").header("standin-veto", "never");
    let answer = standin.send(asked.body(Bytes::from("2")).unwrap()).await;
    assert!(answer.header("proxy-status").contains("receipt"), "a client has no say: {answer:?}");
}

#[tokio::test]
async fn a_late_answer_says_no_too() {
    let app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    app.answer_with(move |seen| {
        if seen.method == Method::POST {
            wait.lock().unwrap().recv().unwrap_err();
        }
        answer(seen, "600")
    });
    assert!(is_stood_in_for(&standin, "/orders", "late").await);
    drop(go);
    eventually(SOON, async || {
        let said = veto(&standin, "orders").await;
        if said.is_null() { Err("nothing is said") } else { Ok(()) }
    })
    .await;
    standin.entry_becomes("completed").await;
}

#[tokio::test]
async fn a_reload_keeps_the_no_and_a_deferred_route_asks_its_app_again() {
    let app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    says(&app, "never");
    assert_eq!(standin.post("/orders", "1").await.status, 201);
    app.behave(Behaviour::Answer);
    standin.rewrite_config(&config(&app, "", "on = [\"always\", \"connect\"]"));
    let why = json!({ "reason": "a test" });
    let reloaded = standin.admin_post("/api/v1/reload", &why).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert!(!veto(&standin, "orders").await.is_null());
    let answer = standin.post("/orders", "2").await;
    assert_eq!((answer.status.as_u16(), answer.header("proxy-status")), (201, ""));
    let answer = standin.post("/letters", "3").await;
    assert!(answer.header("proxy-status").contains("receipt"), "{answer:?}");
}
