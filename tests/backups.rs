//! Another app is asked before anything is stood in for; and never for what the first one may have applied.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

/// `/orders` is stood in for but with `?risky`; the rest is not.
fn config(first: &App, others: &[(&str, &App)], upstream: &str) -> String {
    let others: String = others
        .iter()
        .map(|(name, app)| {
            format!(
                "[upstream.{name}]\nendpoints = [\"http://{}\"]\nbreaker = {{ failures = 2, min_open = \"60s\", \
                 max_open = \"60s\" }}\nhealth = {{ interval = \"60s\" }}\n",
                app.address()
            )
        })
        .collect();
    format!(
        r#"
[upstream.app]
endpoints = ["http://{}"]
default = true
timeout = "500ms"
late_window = "200ms"
health = {{ interval = "50ms", timeout = "500ms" }}
{upstream}
{others}
[route.orders]
match = "POST /orders"
upstream = "app"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.orders.stand_in]
accept_if = "!('risky' in request.query)"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}

[route.orders.replay]
min_backoff = "50ms"
"#,
        first.address()
    )
}

const NEVER_OPEN: &str = "backup = [\"other\"]\nbreaker = { failures = 1000 }";

async fn with_backup(first: &App, second: &App, upstream: &str) -> Standin {
    let standin = Standin::start(&config(first, &[("other", second)], upstream)).await;
    standin.upstream_is("up").await;
    standin
}

async fn send(standin: &Standin, method: Method, path: &str, key: &str, body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    standin.send(request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()).await
}

async fn order(standin: &Standin, key: &str, body: &str) -> Answer {
    send(standin, Method::POST, "/orders", key, body).await
}

fn bodies(app: &App) -> Vec<String> {
    app.seen().iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect()
}

fn is_stood_in(answer: &Answer) -> bool {
    answer.header("proxy-status").contains("receipt")
}

async fn counted(standin: &Standin, outcome: &str) -> f64 {
    let labels = [("upstream", "app"), ("outcome", outcome)];
    standin.metrics().await.sum("standin_backup_requests_total", &labels)
}

#[tokio::test]
async fn a_backup_is_asked_before_anything_is_stood_in_for() {
    let (mut first, mut second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.stop().await;
    for path in ["/orders", "/without-a-route"] {
        let answer = standin.post(path, path).await;
        assert_eq!((answer.status.as_u16(), answer.header("proxy-status")), (201, ""), "{path}");
        let seen = second.seen().pop().unwrap();
        assert_eq!((&*seen.target, &seen.body[..]), (path, path.as_bytes()));
        let id = seen.headers["x-request-id"].to_str().unwrap();
        assert_eq!(answer.header("x-request-id"), id, "under the same id");
    }
    assert!(standin.entries().await.is_empty());
    assert_eq!(counted(&standin, "answered").await, 2.0);
    second.stop().await;
    let answer = order(&standin, "", "stored").await;
    assert!(is_stood_in(&answer), "{answer:?}");
    let entry = standin.entry().await;
    assert_eq!((&entry["certainty"], &entry["upstream"]), (&"not_sent".into(), &"app".into()));
    assert_eq!(counted(&standin, "nobody").await, 1.0);
    second.restart().await;
    first.restart().await;
    first.receives(["stored"]).await;
    standin.entry_becomes("completed").await;
    assert_eq!(second.seen().len(), 2, "replays go to the first app alone");
}

#[tokio::test]
async fn what_may_have_been_applied_goes_to_no_backup() {
    let (first, second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.behave(Behaviour::Cut);
    assert!(is_stood_in(&order(&standin, "", "1").await));
    assert_eq!(send(&standin, Method::PUT, "/cart", "", "2").await.status, 502);
    assert!(second.seen().is_empty());
    assert_eq!(standin.get("/cart").await.status, 200, "what only reads goes on");
    assert_eq!(second.seen().len(), 1);
    first.behave(Behaviour::Hang);
    assert_eq!(standin.get("/cart").await.status, 504, "after a deadline nobody else is asked");
    assert_eq!(second.seen().len(), 1);
}

#[tokio::test]
async fn what_is_known_of_a_key_keeps_it_from_the_backup() {
    let (mut first, second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.behave(Behaviour::Cut);
    let risky = async |body| send(&standin, Method::POST, "/orders?risky", "k-1", body).await;
    assert_eq!(risky("in doubt").await.status, 502);
    let stored = order(&standin, "k-2", "stored").await;
    assert!(is_stood_in(&stored));
    first.stop().await;
    let again = risky("in doubt").await;
    assert_eq!(again.status, 503);
    assert!(again.text().contains("not known whether the request was applied"), "{again:?}");
    let again = order(&standin, "k-2", "stored").await;
    assert_eq!((again.status, again.text()), (stored.status, stored.text()));
    assert!(second.seen().is_empty(), "{:?}", bodies(&second));
    assert_eq!(order(&standin, "k-3", "new").await.status, 201);
    assert_eq!(bodies(&second), ["new"]);
}

#[tokio::test]
async fn what_a_backup_may_have_applied_is_not_stood_in_for() {
    let (mut first, second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.stop().await;
    second.behave(Behaviour::Cut);
    let answer = order(&standin, "k-1", "in doubt").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.text().contains("not known whether the request was applied"));
    assert!(standin.entries().await.is_empty());
    assert_eq!(counted(&standin, "in_doubt").await, 1.0);
    // Its client asks again, when both are there: the one that may have it knows it again.
    second.behave(Behaviour::Answer);
    first.restart().await;
    second.forget();
    assert_eq!(order(&standin, "k-1", "in doubt").await.status, 201);
    assert_eq!(bodies(&second), ["in doubt"]);
    assert!(first.seen().is_empty());
}

#[tokio::test]
async fn a_key_that_a_backup_has_had_stays_with_it() {
    let (mut first, mut second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.stop().await;
    assert_eq!(order(&standin, "k-1", "1").await.status, 201);
    first.restart().await;
    assert_eq!(order(&standin, "k-1", "1").await.status, 201);
    assert_eq!(order(&standin, "k-2", "2").await.status, 201);
    assert_eq!((bodies(&first), bodies(&second)), (vec!["2".into()], vec!["1".into(), "1".into()]));
    second.stop().await;
    standin.mode("forced", json!({ "for": "1h" })).await;
    let answer = order(&standin, "k-1", "1").await;
    assert_eq!(answer.status, 503, "not even forced: {answer:?}");
    assert!(answer.text().contains("not known whether the request was applied"));
    assert!(is_stood_in(&order(&standin, "k-3", "3").await));
    assert_eq!(bodies(&first), ["2"]);
}

/// Whose answer was lost asks again, when its app is away: another app would apply it a second time.
#[tokio::test]
async fn a_key_that_its_app_has_answered_goes_to_no_backup() {
    let (mut first, second) = (App::start().await, App::start().await);
    let mut standin = with_backup(&first, &second, NEVER_OPEN).await;
    let risky = async |standin: &Standin| {
        send(standin, Method::POST, "/orders?risky", "k-1", "answered").await
    };
    assert_eq!(risky(&standin).await.status, 201);
    first.answer_with(|_| http::Response::builder().status(422).body(Bytes::new()).unwrap());
    assert_eq!(order(&standin, "k-2", "declined").await.status, 422);
    first.stop().await;
    assert_eq!(risky(&standin).await.status, 503);
    assert!(second.seen().is_empty(), "{:?}", bodies(&second));
    assert_eq!(order(&standin, "k-2", "declined").await.status, 201, "it took nothing");
    assert_eq!(bodies(&second), ["declined"]);
    standin.kill();
    standin = standin.restart().await;
    assert_eq!(risky(&standin).await.status, 503);
    assert_eq!(bodies(&second), ["declined"]);
}

/// Killed while the backup has it in hand, or after its answer: the next one knows where it was.
#[tokio::test]
async fn a_key_that_a_backup_has_had_stays_with_it_over_a_restart() {
    let (mut first, second) = (App::start().await, App::start().await);
    let mut standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.stop().await;
    assert_eq!(order(&standin, "k-1", "1").await.status, 201);
    second.behave(Behaviour::Hang);
    let address = standin.address();
    let mut hanging = tokio::task::JoinSet::new();
    hanging.spawn(async move {
        let request = Request::post("/orders").header("idempotency-key", "k-2");
        let request = request.body(Bytes::from_static(b"2")).unwrap();
        crate::support::Client::to(address).send(request).await
    });
    eventually(SOON, async || if second.seen().len() == 2 { Ok(()) } else { Err("not yet") }).await;
    standin.kill();
    standin = standin.restart().await;
    second.behave(Behaviour::Answer);
    first.restart().await;
    for (key, body) in [("k-1", "1"), ("k-2", "2"), ("k-3", "3")] {
        assert_eq!(order(&standin, key, body).await.status, 201);
    }
    assert_eq!(
        (bodies(&first), bodies(&second)),
        (vec!["3".into()], ["1", "2", "1", "2"].map(String::from).to_vec())
    );
}

/// What did not reach the backup either is stored for its own app, and a restart does not make it the backup's.
#[tokio::test]
async fn a_key_that_no_backup_took_is_its_own_apps_after_a_restart() {
    let (mut first, mut second) = (App::start().await, App::start().await);
    let mut standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.stop().await;
    second.stop().await;
    assert!(is_stood_in(&order(&standin, "k-1", "stored").await));
    standin.kill();
    second.restart().await;
    standin = standin.restart().await;
    assert!(is_stood_in(&order(&standin, "k-1", "stored").await));
    first.restart().await;
    first.receives(["stored"]).await;
    assert!(second.seen().is_empty(), "{:?}", bodies(&second));
}

#[tokio::test]
async fn a_key_in_doubt_goes_to_no_backup_after_a_restart_either() {
    let (mut first, second) = (App::start().await, App::start().await);
    let mut standin = with_backup(&first, &second, NEVER_OPEN).await;
    first.behave(Behaviour::Cut);
    let risky = async |standin: &Standin| {
        send(standin, Method::POST, "/orders?risky", "k-1", "in doubt").await
    };
    assert_eq!(risky(&standin).await.status, 502);
    standin.kill();
    first.stop().await;
    standin = standin.restart().await;
    assert_eq!(risky(&standin).await.status, 503);
    assert!(second.seen().is_empty(), "{:?}", bodies(&second));
}

#[tokio::test]
async fn backups_are_asked_in_their_order_as_their_breakers_let_in() {
    let mut first = App::start().await;
    let (mut second, third) = (App::start().await, App::start().await);
    let upstream = "backup = [\"second\", \"third\"]\n\
                    breaker = { failures = 1, min_open = \"60s\", max_open = \"60s\" }\n";
    let others = [("second", &second), ("third", &third)];
    let config =
        config(&first, &others, upstream).replace("interval = \"50ms\"", "interval = \"60s\"");
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    first.stop().await;
    let answer = order(&standin, "", "1").await;
    assert_eq!(answer.status, 201);
    standin.upstream_is("down").await;
    assert_eq!(order(&standin, "", "2").await.status, 201, "past the open breaker");
    assert_eq!(bodies(&second), ["1", "2"]);
    let page = standin.admin_get("/").await.text();
    assert!(page.contains("second is asked what did not reach it"), "{page}");
    second.stop().await;
    for number in 3..=5 {
        assert_eq!(order(&standin, "", &number.to_string()).await.status, 201);
    }
    assert_eq!(bodies(&third), ["3", "4", "5"]);
    eventually(SOON, async || {
        let status = standin.admin_get("/api/v1/status").await.json();
        let all = status["upstreams"].as_array().unwrap();
        let now: Vec<&Value> = all.iter().map(|one| &one["condition"]).collect();
        if now == ["down", "down", "up"] { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let status = standin.admin_get("/api/v1/status").await.json();
    assert_eq!(status["upstreams"][0]["backups"], json!(["second", "third"]));
    assert_eq!(status["upstreams"][0]["by_backups"], 5);
    assert!(standin.entries().await.is_empty());
}

#[tokio::test]
async fn what_finds_no_place_at_its_app_goes_to_the_backup() {
    let (first, second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, &format!("{NEVER_OPEN}\nin_flight = 1")).await;
    first.behave(Behaviour::Hang);
    let address = standin.address();
    let mut hanging = tokio::task::JoinSet::new();
    hanging.spawn(async move {
        let request = Request::get("/hangs").body(Bytes::new()).unwrap();
        crate::support::Client::to(address).send(request).await
    });
    eventually(SOON, async || if first.seen().is_empty() { Err("not there yet") } else { Ok(()) })
        .await;
    for path in ["/orders", "/cart"] {
        assert_eq!(standin.post(path, path).await.status, 201);
    }
    assert_eq!(bodies(&second), ["/orders", "/cart"]);
    assert_eq!(hanging.join_next().await.unwrap().unwrap().unwrap().status, 504);
}

#[tokio::test]
async fn a_reload_adds_a_backup_and_a_loop_is_refused() {
    let (mut first, second) = (App::start().await, App::start().await);
    let standin = with_backup(&first, &second, "breaker = { failures = 1000 }").await;
    first.stop().await;
    assert_eq!(standin.post("/cart", "1").await.status, 503);
    let reload = async |text: &str| {
        standin.rewrite_config(text);
        standin.admin_post("/api/v1/reload", &json!({ "reason": "a test" })).await
    };
    let linked = config(&first, &[("other", &second)], NEVER_OPEN);
    let back = linked.replace("interval = \"60s\" }", "interval = \"60s\" }\nbackup = [\"app\"]");
    let refused = reload(&back).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    assert!(refused.text().contains("leads back to `app`"), "{}", refused.text());
    assert_eq!(reload(&linked).await.status, 200);
    assert_eq!(standin.post("/cart", "2").await.status, 201);
    assert_eq!(bodies(&second), ["2"]);
}
