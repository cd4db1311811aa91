//! Failed exchanges are kept for support, without what must not be kept, and nobody waits for it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

/// `/orders` and `/search` are recorded, only the first one is stood in for; the rest is neither.
fn config(app: &App, record: &str) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{}"]
timeout = "300ms"
health = {{ interval = "50ms", timeout = "500ms" }}
breaker = {{ failures = 1000 }}

[route.orders]
match = "POST /orders"
app_dedupes = {{ by = "x-request-id", for = "7d" }}
{record}

[route.orders.stand_in]
on = ["connect", "timeout", "reset", "5xx"]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}" }} }}

[route.search]
match = "/search"
{record}
"#,
        app.address()
    )
}

const RECORD: &str = "watch = { record = \"errors\" }";

async fn in_front_of(app: &App, record: &str) -> Standin {
    let standin = Standin::start(&config(app, record)).await;
    standin.upstream_is("up").await;
    standin
}

fn post(path: &str, body: &str) -> Request<Bytes> {
    Request::post(path)
        .header("content-type", "application/json")
        .header("authorization", "Bearer abcdefghijkl")
        .header("cookie", "sid=mnopqrstuvw")
        .header("x-shop", "south")
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .unwrap()
}

/// Once there are so many, newest first.
async fn records(standin: &Standin, count: usize) -> Vec<Value> {
    eventually(SOON, async || {
        let list = standin.admin_get("/api/v1/records").await.json();
        let all = list["records"].as_array().unwrap().clone();
        if all.len() == count { Ok(all) } else { Err(format!("{} records", all.len())) }
    })
    .await
}

async fn record(standin: &Standin, id: &Value) -> Value {
    let answer = standin.admin_get(&format!("/api/v1/records/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_failed_exchange_is_kept_with_what_was_asked_and_answered() {
    let app = App::start().await;
    let standin = in_front_of(&app, RECORD).await;
    assert_eq!(standin.send(post("/search", "{}")).await.status, 201);
    app.answer_with(|_| {
        let answer = Response::builder().status(500).header("content-type", "application/json");
        let answer = answer.header("set-cookie", "sid=xyzxyzxyz");
        answer.body(Bytes::from(r#"{"error":"no stock","token":"t-1234567"}"#)).unwrap()
    });
    let answer =
        standin.send(post("/search?page=2", r#"{"what":"shoes","password":"p-123"}"#)).await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("t-1234567"), "the answer itself is as the app gave it");
    let all = records(&standin, 1).await;
    let kept = record(&standin, &all[0]["id"]).await;
    assert_eq!((&kept["status"], &kept["route"]), (&500.into(), &"search".into()), "{kept}");
    assert_eq!(kept["request_id"], answer.header("x-request-id"));
    assert_eq!(kept["request"]["target"], "/search?page=(not kept)");
    let body =
        |of: &str| -> Value { serde_json::from_str(kept[of]["body"].as_str().unwrap()).unwrap() };
    assert_eq!(body("request"), json!({ "what": "shoes", "password": "(not kept)" }));
    assert_eq!(body("answer"), json!({ "error": "no stock", "token": "(not kept)" }));
    assert!(kept.to_string().contains("south"), "{kept}");
    let page = standin.admin_get(&format!("/records/{}", all[0]["id"])).await.text();
    assert!(page.contains("no stock") && page.contains("shoes"), "{page}");
    for secret in ["abcdefghijkl", "mnopqrstuvw", "p-123", "t-1234567", "xyzxyzxyz"] {
        assert!(!kept.to_string().contains(secret) && !page.contains(secret), "{secret}");
    }
    let audit = standin.admin_get("/api/v1/audit").await.json();
    let looked = audit.as_array().unwrap().iter().filter(|line| line["what"] == "record").count();
    assert_eq!(looked, 2, "{audit}");
    assert_eq!(standin.admin_get("/api/v1/records/99").await.status, 404);
    assert!(standin.admin_get("/records").await.text().contains("the app answered 500"));
    let shown = crate::cli::asks(&standin, &["records", "list"]).await;
    assert!(shown.contains("the app answered 500") && !shown.contains("no stock"), "{shown}");
    let id = all[0]["id"].to_string();
    let shown = crate::cli::asks(&standin, &["records", "show", &id]).await;
    assert!(shown.contains("no stock") && shown.contains("shoes"), "{shown}");
}

#[tokio::test]
async fn what_got_no_answer_is_kept_whether_it_is_stood_in_for_or_not() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, RECORD).await;
    app.behave(Behaviour::Hang);
    assert_eq!(standin.send(post("/orders", r#"{"n":1}"#)).await.status, 201);
    app.behave(Behaviour::Status(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(standin.send(post("/orders", r#"{"n":2}"#)).await.status, 201);
    app.stop().await;
    assert_eq!(standin.send(post("/search", r#"{"n":3}"#)).await.status, 503);
    assert_eq!(standin.send(post("/elsewhere", r#"{"n":4}"#)).await.status, 503);
    let all = records(&standin, 3).await;
    let cause = |at: usize| all[at]["cause"].as_str().unwrap().to_owned();
    assert!(cause(0).contains("could not connect") && all[0]["certainty"] == "not_sent", "{all:?}");
    assert!(cause(1).contains("503 Service Unavailable, and standin instead"), "{all:?}");
    assert!(cause(2).contains("no answer from"), "{all:?}");
    for (at, n) in [(0, 3), (1, 2), (2, 1)] {
        let kept = record(&standin, &all[at]["id"]).await;
        assert_eq!(kept["request"]["body"], format!("{{\"n\":{n}}}"));
        assert_eq!(kept["answer"].is_null(), at != 1);
    }
}

#[tokio::test]
async fn card_data_is_never_kept_and_a_flood_is_counted_and_not_waited_for() {
    let app = App::start().await;
    let standin = in_front_of(&app, RECORD).await;
    app.behave(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let card =
        standin.send(post("/search?c=4111111111111111", r#"{"c":"4111111111111111"}"#)).await;
    assert_eq!(card.status, 500);
    let all = records(&standin, 1).await;
    let kept = record(&standin, &all[0]["id"]).await;
    assert!(!kept.to_string().contains("4111"), "{kept}");
    assert_eq!(kept["request"]["no_body"], "there was card data");
    for number in 0..300 {
        assert_eq!(standin.send(post("/search", &number.to_string())).await.status, 500);
    }
    // Each is kept, or counted among those that were not.
    eventually(SOON, async || {
        let metrics = standin.metrics().await;
        let kept = metrics.sum("standin_records", &[]);
        let dropped = metrics.sum("standin_records_dropped_total", &[]);
        let is_all = (2.0..=200.0).contains(&kept) && kept + dropped == 301.0;
        if is_all { Ok(()) } else { Err(format!("{kept} kept, {dropped} dropped")) }
    })
    .await;
}

#[tokio::test]
async fn a_route_that_does_not_ask_for_it_keeps_nothing() {
    let app = App::start().await;
    let standin = in_front_of(&app, "").await;
    app.behave(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(standin.send(post("/search", "{}")).await.status, 500);
    assert!(!standin.admin_get("/").await.text().contains("href=\"/records\""));
    standin.rewrite_config(&config(&app, RECORD));
    let why = json!({ "reason": "a test" });
    assert_eq!(standin.admin_post("/api/v1/reload", &why).await.status, 200);
    assert!(standin.admin_get("/").await.text().contains("href=\"/records\""));
    assert_eq!(standin.send(post("/search", "{}")).await.status, 500);
    records(&standin, 1).await;
}
