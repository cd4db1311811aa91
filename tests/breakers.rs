//! One route of an app fails while the others answer: who is stood in for, who is not, and what is said of it.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{App, Behaviour, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

/// `/orders` is stood in for, `/search` is not; the rest has no route.
fn config(app: &App, upstream: &str, breaker: &str) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{}"]
health = {{ interval = "50ms", timeout = "500ms" }}
{upstream}

[upstream.app.breaker]
{breaker}

[route.orders]
match = "POST /orders"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.orders.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}

[route.orders.replay]
min_backoff = "50ms"

[route.search]
match = "POST /search"
"#,
        app.address()
    )
}

const QUICK: &str = "timeout = \"300ms\"\nlate_window = \"400ms\"";
const LONG_OPEN: &str = "failures = 3\nmin_open = \"60s\"\nmax_open = \"60s\"";
const SHORT_OPEN: &str = "failures = 3\nmin_open = \"100ms\"\nmax_open = \"300ms\"";

async fn in_front_of(app: &App, upstream: &str, breaker: &str) -> Standin {
    let standin = Standin::start(&config(app, upstream, breaker)).await;
    standin.upstream_is("up").await;
    standin
}

async fn route(standin: &Standin, name: &str) -> Value {
    let status = standin.admin_get("/api/v1/status").await.json();
    let routes = status["routes"].as_array().unwrap();
    routes.iter().find(|route| route["name"] == name).unwrap().clone()
}

async fn breaker_is(standin: &Standin, name: &str, wanted: &str) {
    eventually(SOON, async || {
        let now = route(standin, name).await["breaker"].clone();
        if now["state"] == wanted { Ok(()) } else { Err(format!("{now}, not {wanted}")) }
    })
    .await;
}

/// The switches so far, oldest first: of whom, to what, and why.
async fn switches(standin: &Standin) -> Vec<(String, String, String)> {
    let status = standin.admin_get("/api/v1/status").await.json();
    let text = |value: &Value| value.as_str().unwrap_or("the app").to_owned();
    let all = status["switches"].as_array().unwrap().iter().rev();
    all.map(|one| (text(&one["route"]), text(&one["to"]), text(&one["why"]))).collect()
}

/// Answered by the app, without waiting for anything.
async fn is_well(standin: &Standin, path: &str) {
    for _ in 0..5 {
        let answer = standin.post(path, "1").await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("proxy-status"), "");
    }
}

#[tokio::test]
async fn a_route_that_hangs_does_not_open_the_breaker_of_the_others() {
    let app = App::start().await;
    let standin = in_front_of(&app, QUICK, LONG_OPEN).await;
    app.behave(Behaviour::HangOn("/orders"));
    for number in 0..3 {
        let answer = standin.post("/orders", number.to_string()).await;
        assert!(answer.header("proxy-status").contains("http_response_timeout"), "{answer:?}");
        is_well(&standin, "/search").await;
    }
    breaker_is(&standin, "orders", "open").await;
    let (asked, started) = (app.seen().len(), Instant::now());
    for number in 3..13 {
        let answer = standin.post("/orders", number.to_string()).await;
        assert_eq!(answer.status, 201);
        assert!(answer.header("proxy-status").contains("destination_unavailable"), "{answer:?}");
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?} for what takes 3 s where each waits");
    assert_eq!(app.seen().len(), asked, "its breaker is open, so nothing of it is replayed either");
    is_well(&standin, "/search").await;
    assert_eq!(standin.get("/").await.status, 200);
    breaker_is(&standin, "search", "closed").await;
    standin.upstream_is("up").await;

    let switches = switches(&standin).await;
    assert_eq!(switches.len(), 1, "{switches:?}");
    let (of, to, why) = &switches[0];
    assert_eq!((&**of, &**to), ("orders", "opened"));
    let expected = "3 failures in a row (limit 3), last: no answer from app within 300ms";
    assert_eq!(why, expected);
    assert!(standin.output().contains(expected), "the log says the same");
    let page = standin.admin_get("/").await.text();
    assert!(page.contains("breaker of orders opened"), "{page}");
}

#[tokio::test]
async fn an_app_that_hangs_for_all_is_found_out_by_the_first_route_that_fails() {
    let app = App::start().await;
    let standin = in_front_of(&app, QUICK, LONG_OPEN).await;
    app.behave(Behaviour::Hang);
    for number in 0..3 {
        standin.post("/orders", number.to_string()).await;
    }
    standin.upstream_is("down").await;
    // Nobody waits any more, on routes that have not failed yet either.
    let asked = app.seen().len();
    assert_eq!(standin.post("/search", "1").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(standin.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.seen().len(), asked);
    let switches = switches(&standin).await;
    let of: Vec<_> = switches.iter().map(|(of, to, _)| (&**of, &**to)).collect();
    assert_eq!(of, [("orders", "opened"), ("the app", "opened")]);
    assert!(switches[1].2.contains("nor to the health question"), "{switches:?}");
}

#[tokio::test]
async fn failures_spread_over_routes_raise_the_question_too() {
    let app = App::start().await;
    let standin = in_front_of(&app, QUICK, LONG_OPEN).await;
    app.behave(Behaviour::Hang);
    standin.post("/orders", "1").await;
    standin.post("/search", "1").await;
    standin.get("/").await;
    standin.upstream_is("down").await;
    breaker_is(&standin, "orders", "closed").await;
}

#[tokio::test]
async fn a_route_that_is_back_closes_its_breaker_by_a_canary_and_its_orders_follow() {
    let app = App::start().await;
    let standin = in_front_of(&app, QUICK, SHORT_OPEN).await;
    app.behave(Behaviour::HangOn("/orders"));
    for number in 0..4 {
        standin.post("/orders", number.to_string()).await;
    }
    assert_ne!(route(&standin, "orders").await["breaker"]["state"], "closed");
    app.behave(Behaviour::Answer);
    // No client comes: a replay is the canary.
    breaker_is(&standin, "orders", "closed").await;
    eventually(SOON, async || {
        let open = route(&standin, "orders").await["open"].clone();
        if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
    standin.upstream_is("up").await;
    is_well(&standin, "/orders").await;
    let switches = switches(&standin).await;
    assert!(switches.iter().all(|(of, ..)| of == "orders"), "{switches:?}");
    assert_eq!(switches.last().unwrap().1, "closed");
}

#[tokio::test]
async fn a_route_whose_answers_have_become_slow_is_set_aside() {
    let app = App::start().await;
    let slow = format!("{LONG_OPEN}\nslow = {{ quantile = 0.5, above = \"500ms\", of_last = 4 }}");
    let standin = in_front_of(&app, "timeout = \"20s\"", &slow).await;
    app.behave(Behaviour::SlowOn("/orders", Duration::from_millis(600)));
    for number in 0..4 {
        let answer = standin.post("/orders", number.to_string()).await;
        assert_eq!(answer.header("proxy-status"), "", "the app's own, if late");
    }
    breaker_is(&standin, "orders", "open").await;
    let answer = standin.post("/orders", "5").await;
    assert!(answer.header("proxy-status").contains("destination_unavailable"), "{answer:?}");
    is_well(&standin, "/search").await;
    let why = &switches(&standin).await[0].2;
    assert_eq!(why, "4 of the last 4 answers took more than 500ms (limit 2: quantile 0.5)");
}

#[tokio::test]
async fn a_stand_in_that_a_late_answer_made_needless_is_counted_as_spurious() {
    let app = App::start().await;
    let patient = "timeout = \"300ms\"\nlate_window = \"20s\"";
    let standin = in_front_of(&app, patient, "failures = 1000").await;
    app.behave(Behaviour::SlowOn("/orders", Duration::from_millis(900)));
    let answer = standin.post("/orders", "1").await;
    assert!(answer.header("proxy-status").contains("receipt"), "{answer:?}");
    standin.entry_becomes("completed").await;
    assert_eq!(app.seen().len(), 1, "it was no replay that completed it");
    app.behave(Behaviour::HangOn("/orders"));
    assert!(standin.post("/orders", "2").await.header("proxy-status").contains("receipt"));
    assert_eq!(route(&standin, "orders").await["spurious"], 1);
    let labels = [("route", "orders")];
    assert_eq!(standin.metrics().await.sum("standin_spurious_stand_ins_total", &labels), 1.0);
    assert!(standin.admin_get("/").await.text().contains("1 spurious"));
}
