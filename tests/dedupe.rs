//! The same key, the same answer: during an outage, while it ends, and after it.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Answer, App, Behaviour, Client, Http2Client, Shop, Stage, Standin, eventually,
};

/// `/checkout` and `/gift` are stood in for; `upstream` and `route` are more of the upstream and of both routes.
fn config(app: impl std::fmt::Display, upstream: &str, route: &str) -> String {
    let mut config = format!(
        r#"
[upstream.app]
endpoints = ["http://{app}"]
connect_timeout = "500ms"
late_window = "300ms"
health = {{ interval = "50ms" }}
{upstream}
"#
    );
    for name in ["checkout", "gift"] {
        config += &format!(
            r#"
[route.{name}]
match = "POST /{name}"
{route}

[route.{name}.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", cart = "{{{{ body.cart_id }}}}" }} }}

[route.{name}.replay]
min_backoff = "50ms"
trigger = "TRIGGER"
"#
        );
    }
    config.replace("TRIGGER", "auto")
}

fn by_hand(config: &str) -> String {
    config.replace("trigger = \"auto\"", "trigger = \"manual\"")
}

const PROTECTED: &str = r#"app_dedupes = { by = "x-request-id", for = "7d" }"#;
const NO_BREAKER: &str = "timeout = \"600ms\"\nbreaker = { failures = 1000 }";
const SOON: Duration = Duration::from_secs(20);

async fn in_front_of(app: &App, upstream: &str, route: &str) -> Standin {
    let standin = Standin::start(&config(app.address(), upstream, route)).await;
    standin.upstream_is("up").await;
    standin
}

fn order(key: &str, cart: &str) -> Request<Bytes> {
    let body = json!({ "cart_id": cart, "cents": 1250, "currency": "USD" });
    let request = Request::post("/checkout").header("content-type", "application/json");
    request.header("idempotency-key", key).body(body.to_string().into()).unwrap()
}

fn with(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn is_stood_in(answer: &Answer) -> bool {
    answer.header("proxy-status").contains("stored, receipt")
}

/// Byte for byte, and the fields that the route and standin set, but for the time.
#[track_caller]
fn assert_same(one: &Answer, other: &Answer) {
    assert_eq!((one.status, &one.body), (other.status, &other.body));
    for name in ["content-type", "x-request-id"] {
        assert_eq!(one.header(name), other.header(name), "{name}");
    }
}

#[track_caller]
fn assert_honest(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
}

fn ids(app: &App) -> Vec<String> {
    let id =
        |seen: &crate::support::Seen| seen.headers["x-request-id"].to_str().unwrap().to_owned();
    app.seen_of(&Method::POST).iter().map(id).collect()
}

#[tokio::test]
async fn the_same_key_has_the_same_answer_and_is_one_entry() {
    let mut app = App::start().await;
    let mut standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    app.stop().await;
    let first = standin.send(order("\"k-1\"", "c")).await;
    assert!(is_stood_in(&first), "{first:?}");
    for key in ["\"k-1\"", "k-1", " k-1 "] {
        let again = standin.send(order(key, "c")).await;
        assert!(is_stood_in(&again));
        assert_same(&first, &again);
    }
    standin.kill();
    let standin = standin.restart().await;
    assert_same(&first, &standin.send(order("k-1", "c")).await);
    assert_eq!(standin.entries().await.len(), 1);
    assert!(!is_same(&first, &standin.send(order("k-2", "c")).await));
    assert_eq!(standin.entries().await.len(), 2);
    app.restart().await;
    eventually(SOON, async || ids(&app).len() == 2).await;
    assert!(ids(&app).contains(&first.header("x-request-id").to_owned()));
}

fn is_same(one: &Answer, other: &Answer) -> bool {
    one.body == other.body || one.header("x-request-id") == other.header("x-request-id")
}

/// A key is used for one request. Whoever has another body for it is told so, also while the first is under way.
#[tokio::test]
async fn a_key_that_was_used_for_another_request_is_refused() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    app.behave(Behaviour::Hang);
    let (first, other) = tokio::join!(standin.send(order("k", "c")), async {
        eventually(SOON, async || ids(&app).len() == 1).await;
        standin.send(order("k", "another cart")).await
    });
    assert!(is_stood_in(&first), "{first:?}");
    assert_honest(&other, 422);
    app.stop().await;
    assert_honest(&standin.send(order("k", "another cart")).await, 422);
    let elsewhere = order("k", "c").map(|body| body);
    let (mut head, body) = elsewhere.into_parts();
    head.uri = "/checkout?for=2".parse().unwrap();
    assert_honest(&standin.send(Request::from_parts(head, body)).await, 422);
    assert_same(&first, &standin.send(order("k", "c")).await);
    assert_eq!(standin.entries().await.len(), 1);
}

/// The app would take the other one for what it has, and never apply it.
#[tokio::test]
async fn a_key_that_the_app_has_answered_is_refused_for_another_request_while_it_is_away() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    let live = standin.send(order("k", "c")).await;
    assert!(live.status.is_success() && !is_stood_in(&live), "{live:?}");
    app.stop().await;
    assert_honest(&standin.send(order("k", "another cart")).await, 422);
    assert!(standin.entries().await.is_empty());
    assert!(is_stood_in(&standin.send(order("k", "c")).await), "the same again is no other");
    app.restart().await;
    eventually(SOON, async || ids(&app).len() == 2).await;
    assert_eq!(ids(&app)[0], ids(&app)[1]);
}

/// A proxy that passes its clients' ids on is trusted for more than it knows.
#[tokio::test]
async fn an_id_that_the_app_has_answered_is_refused_for_another_request_too() {
    let order = |cart| {
        let mut order = with(order("k", cart), "x-request-id", "an-id-of-a-peer");
        order.headers_mut().remove("idempotency-key");
        order
    };
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    assert!(!is_stood_in(&standin.send(order("c")).await));
    app.stop().await;
    assert_honest(&standin.send(order("another cart")).await, 422);
    assert!(is_stood_in(&standin.send(order("c")).await));
}

#[tokio::test]
async fn a_key_in_doubt_is_refused_for_another_request_too() {
    let mut app = App::start().await;
    let route = format!("{PROTECTED}\ntimeout = \"600ms\"");
    let only_when_away = config(app.address(), "breaker = { failures = 1000 }", &route)
        .replace("accept_if", "on = [\"connect\"]\naccept_if");
    let standin = Standin::start(&only_when_away).await;
    standin.upstream_is("up").await;
    app.behave(Behaviour::Hang);
    assert_honest(&standin.send(order("k", "c")).await, 504);
    assert_honest(&standin.send(order("k", "another cart")).await, 504);
    app.stop().await;
    assert_honest(&standin.send(order("k", "another cart")).await, 422);
    assert!(is_stood_in(&standin.send(order("k", "c")).await));
}

/// Two clicks: the second waits for the first and has its answer; the app was asked once.
#[tokio::test]
async fn the_second_of_a_key_in_flight_waits_for_the_first() {
    let app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    app.behave(Behaviour::Hang);
    let all = join_all((0..5).map(|_| standin.send(order("k", "c")))).await;
    for answer in &all {
        assert!(is_stood_in(answer), "{answer:?}");
        assert_same(&all[0], answer);
    }
    let [entry] = &standin.entries().await[..] else { panic!("more than one entry") };
    assert_eq!(entry["reason"], "timed_out");
    assert_eq!(ids(&app).len(), 1, "the replay is not due yet");
}

#[tokio::test]
async fn the_second_of_a_key_does_not_wait_for_ever() {
    let app = App::start().await;
    let standin = in_front_of(&app, "timeout = \"30s\"", PROTECTED).await;
    app.behave(Behaviour::Slow(Duration::from_secs(13)));
    let started = Instant::now();
    let (first, second) = tokio::join!(standin.send(order("k", "c")), async {
        eventually(SOON, async || ids(&app).len() == 1).await;
        let second = standin.send(order("k", "c")).await;
        assert!(started.elapsed() < Duration::from_millis(12_800), "before the first was through");
        second
    });
    assert_honest(&second, 409);
    assert!(second.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(first.status == 201 && !is_stood_in(&first), "{first:?}");
    assert_eq!(ids(&app).len(), 1);
}

/// Nobody meets the entry of another by choosing the other's key.
#[tokio::test]
async fn a_key_belongs_to_a_principal_and_a_route() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    app.stop().await;
    let mut gift = order("k", "c");
    *gift.uri_mut() = "/gift".parse().unwrap();
    let requests = [
        order("k", "c"),
        with(order("k", "c"), "authorization", "Bearer one"),
        with(order("k", "c"), "authorization", "Bearer two"),
        // Who may not even send another body under the key of somebody else.
        with(order("k", "other"), "authorization", "Bearer three"),
        gift,
    ];
    let mut ids = Vec::new();
    for request in &requests {
        let answer = standin.send(request.clone()).await;
        assert!(is_stood_in(&answer), "{answer:?}");
        ids.push(answer.header("x-request-id").to_owned());
        let again = standin.send(request.clone()).await;
        assert_eq!(again.header("x-request-id"), *ids.last().unwrap());
    }
    assert_eq!(standin.entries().await.len(), requests.len());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), requests.len());
}

#[tokio::test]
async fn a_route_can_say_itself_what_makes_two_requests_the_same() {
    let mut app = App::start().await;
    let route = format!("{PROTECTED}\ndedupe_by = \"body.cart_id\"");
    let standin = in_front_of(&app, NO_BREAKER, &route).await;
    // The same while the app is up: by the id that the app gets.
    for key in ["a", "b"] {
        assert!(!is_stood_in(&standin.send(order(key, "cart")).await));
    }
    assert_eq!(ids(&app)[0], ids(&app)[1]);
    app.stop().await;
    let first = standin.send(order("a", "cart-1")).await;
    assert!(is_stood_in(&first), "{first:?}");
    assert_same(&first, &standin.send(order("b", "cart-1")).await);
    let mut changed = order("a", "cart-1");
    *changed.body_mut() = changed.body().iter().chain(b" ").copied().collect();
    assert_honest(&standin.send(changed).await, 422);
    assert!(!is_same(&first, &standin.send(order("a", "cart-2")).await));
    assert_eq!(standin.entries().await.len(), 2);
    // Nothing says which order this is: good enough for the app to judge, not for standin.
    let mut nameless = order("a", "");
    *nameless.body_mut() = Bytes::from("{}");
    assert_honest(&standin.send(nameless).await, 503);
}

/// Stored is stored: while its entry waits the app does not hear of the order a second way.
#[tokio::test]
async fn a_retry_of_a_stored_order_is_not_forwarded() {
    let mut app = App::start().await;
    let standin = Standin::start(&by_hand(&config(app.address(), NO_BREAKER, PROTECTED))).await;
    standin.upstream_is("up").await;
    app.stop().await;
    let first = standin.send(order("k", "c")).await;
    app.restart().await;
    assert_eq!(standin.get("/").await.status, 200);
    for _ in 0..3 {
        assert_same(&first, &standin.send(order("k", "c")).await);
    }
    assert!(ids(&app).is_empty());
    let other = standin.send(order("k-2", "c")).await;
    assert!(other.status == 201 && !is_stood_in(&other), "others go to the app: {other:?}");
    let why = json!({ "reason": "a test" });
    assert_eq!(standin.admin_post("/api/v1/replay/runs", &why).await.status, 202);
    standin.entry_becomes("completed").await;
    assert_eq!(ids(&app).len(), 2);
    assert_eq!(ids(&app)[1], first.header("x-request-id"));
}

/// The id by which the app refuses duplicates is the same live, in the replay, and in every retry after it.
#[tokio::test]
async fn after_closing_the_app_speaks_for_itself_and_knows_the_order_by_its_id() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    app.behave(Behaviour::Hang);
    let first = standin.send(order("k", "c")).await;
    assert!(is_stood_in(&first));
    app.behave(Behaviour::Answer);
    standin.entry_becomes("completed").await;
    let live = standin.send(order("k", "c")).await;
    assert!(!is_stood_in(&live), "forwarded: {live:?}");
    let ids = ids(&app);
    assert_eq!(ids.len(), 3, "timed out, replayed, retried");
    assert!(ids.iter().all(|id| id == first.header("x-request-id")), "{ids:?}");
    for seen in app.seen_of(&Method::POST) {
        assert_eq!(seen.headers["idempotency-key"], "k");
    }

    app.stop().await;
    // While the breaker still lets requests through and each finds out for itself.
    for _ in 0..2 {
        assert_same(&first, &standin.send(order("k", "c")).await);
    }
    assert_honest(&standin.send(order("k", "another cart")).await, 422);
    assert_eq!(standin.entries().await.len(), 1);
}

/// An app that knows duplicates by key gets the key that the route gives: a client that sends a new one with each try of
/// its order, live, in doubt, stored or afterwards, has it applied once.
#[tokio::test]
async fn the_app_gets_one_key_for_what_the_route_calls_the_same() {
    let mut app = App::start().await;
    let route = r#"
app_dedupes = { by = "idempotency-key", for = "7d" }
dedupe_by = "body.cart_id"
"#;
    let standin = in_front_of(&app, NO_BREAKER, route).await;
    app.behave(Behaviour::Cut);
    let in_doubt = standin.send(order("a", "c")).await;
    assert!(is_stood_in(&in_doubt), "{in_doubt:?}");
    app.stop().await;
    assert_same(&in_doubt, &standin.send(order("b", "c")).await);
    app.behave(Behaviour::Answer);
    app.restart().await;
    standin.entry_becomes("completed").await;
    let live = standin.send(order("d", "c")).await;
    assert!(!is_stood_in(&live), "the app speaks for itself: {live:?}");
    let keys: BTreeSet<_> = app
        .seen_of(&Method::POST)
        .iter()
        .map(|seen| seen.headers["idempotency-key"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["c"]);
}

/// What `dedupe_by` gives is carried to the app whatever it is made of: an order that was accepted can be sent.
#[tokio::test]
async fn a_key_that_no_header_can_carry_goes_as_its_hash() {
    let mut app = App::start().await;
    let route = format!("{PROTECTED}\ndedupe_by = \"body.cart_id\"");
    let standin = in_front_of(&app, NO_BREAKER, &route).await;
    app.stop().await;
    let keyless = |cart| {
        let mut order = order("k", cart);
        order.headers_mut().remove("idempotency-key");
        order
    };
    assert!(is_stood_in(&standin.send(keyless("two\nlines")).await));
    assert_honest(&standin.send(keyless("")).await, 503);
    app.restart().await;
    standin.entry_becomes("completed").await;
    let seen = app.seen_of(&Method::POST);
    let key = seen[0].headers["idempotency-key"].to_str().unwrap().to_owned();
    assert!(key.starts_with("sha256:"), "{key}");
    assert!(!is_stood_in(&standin.send(keyless("two\nlines")).await));
    assert_eq!(app.seen_of(&Method::POST)[1].headers["idempotency-key"], *key);
}

/// Nothing would stop an app without protection from applying a stored and replayed order again, so its client's retry
/// has the kept answer while the key is remembered, also when the app is up; a declined one has an honest no.
#[tokio::test]
async fn after_closing_an_unprotected_app_is_not_asked_again() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, "").await;
    app.answer_with(|seen| {
        let declined = seen.headers.get("idempotency-key").is_some_and(|key| key == "no");
        let status = if declined { 422 } else { 201 };
        http::Response::builder().status(status).body(Bytes::new()).unwrap()
    });
    app.stop().await;
    let first = standin.send(order("yes", "c")).await;
    assert!(is_stood_in(&first), "{first:?}");
    assert!(is_stood_in(&standin.send(order("no", "c")).await));
    app.restart().await;
    eventually(SOON, async || {
        let entries = standin.entries().await;
        let ended = |outcome: &str| entries.iter().any(|entry| entry["outcome"] == outcome);
        ended("completed") && ended("declined")
    })
    .await;
    standin.upstream_is("up").await;
    assert_eq!(ids(&app).len(), 2);
    for _ in 0..2 {
        assert_same(&first, &standin.send(order("yes", "c")).await);
        assert_honest(&standin.send(order("no", "c")).await, 409);
        assert_honest(&standin.send(order("yes", "another cart")).await, 422);
    }
    assert_eq!(ids(&app).len(), 2, "each order once");
    let live = standin.send(order("other", "c")).await;
    assert!(live.status == 201 && !is_stood_in(&live), "others go to the app: {live:?}");
    assert_eq!(standin.entries().await.len(), 2);
}

/// What the app has declined since is not promised again: neither before nor after the breaker has opened.
#[tokio::test]
async fn the_kept_answer_of_a_declined_order_is_not_given_again() {
    let mut app = App::start().await;
    let breaker =
        "timeout = \"400ms\"\nbreaker = { failures = 3, min_open = \"60s\", max_open = \"60s\" }";
    let standin = in_front_of(&app, breaker, PROTECTED).await;
    app.stop().await;
    assert!(is_stood_in(&standin.send(order("k", "c")).await));
    app.answer_with(|seen| {
        let status = if seen.method == Method::POST { 422 } else { 200 };
        http::Response::builder().status(status).body(Bytes::new()).unwrap()
    });
    app.restart().await;
    standin.entry_becomes("declined").await;
    assert_eq!(standin.send(order("k", "c")).await.status, 422, "the app's own no");
    app.stop().await;
    for number in 0..6 {
        let answer = standin.send(order("k", "c")).await;
        assert_honest(&answer, 409);
        assert!(!is_stood_in(&answer), "{number}: {answer:?}");
    }
    standin.upstream_is("down").await;
    assert_eq!(standin.entries().await.len(), 1);
}

/// Nobody had the answer, so the entry waits for a person. Its client asks again, has it now, and it goes on.
#[tokio::test]
async fn an_unanswered_order_goes_on_when_its_client_asks_again() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, PROTECTED).await;
    app.behave(Behaviour::Hang);
    let client = Http2Client::to(standin.address()).await;
    tokio::select! {
        answer = client.send(order("k", "c")) => panic!("{answer:?}"),
        () = eventually(SOON, async || ids(&app).len() == 1) => {}
    }
    standin.entry_becomes("held(unanswered)").await;
    app.stop().await;
    let answer = standin.send(order("k", "c")).await;
    assert!(is_stood_in(&answer), "{answer:?}");
    standin.entry_becomes("stored").await;
    app.behave(Behaviour::Answer);
    app.restart().await;
    standin.entry_becomes("completed").await;
    assert_eq!(ids(&app), [answer.header("x-request-id"), answer.header("x-request-id")]);
}

/// The same, and the app is back: it speaks for itself, and what it says closes the entry.
#[tokio::test]
async fn an_unanswered_order_is_closed_by_the_apps_answer_to_its_retry() {
    let mut stage = Stage::start().await;
    let standin = Standin::start(&config(stage.address(), NO_BREAKER, PROTECTED)).await;
    standin.upstream_is("up").await;
    let client = Http2Client::to(standin.address()).await;
    let asked = tokio::select! {
        answer = client.send(order("k", "c")) => panic!("{answer:?}"),
        asked = stage.asked() => asked,
    };
    standin.entry_becomes("held(unanswered)").await;
    let (answer, ()) = tokio::join!(standin.send(order("k", "c")), async {
        let mut retry = stage.asked().await;
        assert_eq!(retry.header("x-request-id"), asked.header("x-request-id"));
        retry.answer("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok").await;
    });
    assert_eq!((answer.status.as_u16(), &*answer.text()), (201, "ok"));
    standin.entry_becomes("completed").await;
    assert!(stage.is_left_alone());
}

/// Customers click on while replays run: the shop's ledger has each order once, and each customer one order id.
#[tokio::test]
async fn replays_and_retries_race_and_each_order_is_applied_once() {
    const ORDERS: usize = 40;
    let mut shop = Shop::start().await;
    let standin = Standin::start(&config(shop.address(), NO_BREAKER, PROTECTED)).await;
    standin.upstream_is("up").await;
    shop.kill();
    let keys: Vec<String> = (0..ORDERS).map(|number| format!("k-{number}")).collect();
    let first = join_all(keys.iter().map(|key| standin.send(order(key, key)))).await;
    assert!(first.iter().all(is_stood_in));
    shop.restart().await;
    let until = Instant::now() + Duration::from_secs(3);
    let click = async |key: &String| {
        let (mut client, mut ids) = (Client::to(standin.address()), Vec::new());
        while Instant::now() < until {
            let answer = client.send(order(key, key)).await.unwrap();
            assert_eq!(answer.status, 201, "{answer:?}");
            ids.push(answer.json()["id"].as_str().unwrap().to_owned());
        }
        ids
    };
    let told = join_all(keys.iter().map(click)).await;
    eventually(SOON, async || {
        let entries = standin.entries().await;
        entries.iter().all(|entry| entry["outcome"] == "completed")
    })
    .await;
    let orders = shop.orders();
    assert_eq!(orders.len(), ORDERS);
    assert!(orders.iter().any(|order| order.replay), "some came as replays");
    for (number, key) in keys.iter().enumerate() {
        let of_it: Vec<_> = orders.iter().filter(|order| order.cart_id == *key).collect();
        assert_eq!(of_it.len(), 1, "{key}");
        let id = first[number].json()["id"].clone();
        assert_eq!(Value::from(of_it[0].order_id.clone()), id);
        assert!(told[number].iter().all(|told| **told == id), "{key}: {:?}", told[number]);
    }
}

/// Nothing protects its replays. What an earlier try of the key may have applied is not accepted a second time, though
/// this try certainly reached nobody.
#[tokio::test]
async fn after_a_doubtful_try_an_unprotected_route_does_not_stand_in_for_the_key() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, "").await;
    app.behave(Behaviour::Hang);
    assert_honest(&standin.send(order("timed-out", "c")).await, 504);
    app.behave(Behaviour::Cut);
    assert_honest(&standin.send(order("reset", "c")).await, 502);
    app.behave(Behaviour::Status(http::StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(standin.send(order("failed", "c")).await.status, 500);
    app.behave(Behaviour::Hang);
    assert_honest(&standin.send(order("settled", "c")).await, 504);
    app.behave(Behaviour::Answer);
    assert_eq!(standin.send(order("settled", "c")).await.status, 201);
    app.behave(Behaviour::Hang);
    assert_honest(&standin.send(order("denied", "c")).await, 504);
    app.behave(Behaviour::Status(http::StatusCode::UNPROCESSABLE_ENTITY));
    assert_eq!(standin.send(order("denied", "c")).await.status, 422);
    app.stop().await;
    for key in ["timed-out", "reset", "failed", "settled", "denied"] {
        assert_honest(&standin.send(order(key, "c")).await, 503);
    }
    assert!(standin.entries().await.is_empty());
    assert!(is_stood_in(&standin.send(order("fresh", "c")).await));
}

/// The app has applied it, said so, and would apply it a second time: its retry is no order for the store, whatever the
/// app has said in between. One that was declined and nothing else may be tried again.
#[tokio::test]
async fn what_an_unprotected_app_has_answered_is_not_stood_in_for() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "breaker = { failures = 5, min_open = \"1s\" }", "").await;
    for key in ["applied", "applied-then-denied"] {
        assert_eq!(standin.send(order(key, "c")).await.status, 201);
    }
    app.behave(Behaviour::Status(http::StatusCode::UNPROCESSABLE_ENTITY));
    for key in ["denied", "applied-then-denied"] {
        assert_eq!(standin.send(order(key, "c")).await.status, 422);
    }
    app.behave(Behaviour::Answer);
    app.stop().await;
    // While each finds out for itself, and when the app is known to be down.
    for number in 0..8 {
        let key = ["applied", "applied-then-denied"][number % 2];
        let answer = standin.send(order(key, "c")).await;
        assert_honest(&answer, 503);
        assert!(answer.text().contains("It is not known whether"), "{answer:?}");
    }
    standin.upstream_is("down").await;
    assert!(is_stood_in(&standin.send(order("denied", "c")).await));
    app.restart().await;
    standin.entry_becomes("completed").await;
    assert_eq!(ids(&app).len(), 5, "four live, one replayed");
}

/// Rules over status and headers are asked of live answers too, so that a plain success is none that nobody understands;
/// where a rule would have to look into the body, which only passes through, a success is left as it is.
#[tokio::test]
async fn a_live_success_under_a_rule_in_cel_is_no_doubt() {
    let mut app = App::start().await;
    for rule in [
        "response.status == 201",
        "response.status == 201 && response.headers['content-type'].startsWith('application/')",
        "body.cents > 0 && response.status == 201",
        "response.status == 201 && response.body.status == 'accepted'",
    ] {
        let rule = format!("trigger = \"auto\"\nsuccess = \"{rule}\"");
        let config = config(app.address(), NO_BREAKER, PROTECTED);
        let standin = Standin::start(&config.replace("trigger = \"auto\"", &rule)).await;
        standin.upstream_is("up").await;
        assert_eq!(standin.send(order("k", "c")).await.status, 201);
        app.answer_with(|seen| {
            let status = if seen.method == Method::POST { 202 } else { 200 };
            http::Response::builder().status(status).body(Bytes::new()).unwrap()
        });
        assert_eq!(standin.send(order("other", "c")).await.status, 202);
        app.stop().await;
        assert!(is_stood_in(&standin.send(order("k", "c")).await), "{rule}");
        assert_eq!(standin.entry().await["certainty"], "not_sent", "{rule}");
        assert!(is_stood_in(&standin.send(order("other", "c")).await), "{rule}");
        let entries = standin.entries().await;
        let unknown = entries.iter().filter(|entry| entry["certainty"] == "sent_unknown").count();
        let seen_through = !rule.contains("response.body");
        assert_eq!(unknown, usize::from(seen_through), "{rule}: 202 is not what it asks for");
        app.behave(Behaviour::Answer);
        app.restart().await;
    }
}

/// The same where nothing protects: what the app may have applied is not stood in for, whether a rule sees it or not.
#[tokio::test]
async fn an_unprotected_success_that_no_rule_can_judge_is_not_stood_in_for() {
    let mut app = App::start().await;
    let rule = "trigger = \"auto\"\nsuccess = \"response.body.status == 'accepted'\"";
    let config = config(app.address(), NO_BREAKER, "").replace("trigger = \"auto\"", rule);
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    assert_eq!(standin.send(order("k", "c")).await.status, 201);
    app.stop().await;
    assert_honest(&standin.send(order("k", "c")).await, 503);
    assert!(is_stood_in(&standin.send(order("fresh", "c")).await));
}

/// A router before standin gives the id, and keeps it over its own tries.
#[tokio::test]
async fn a_doubtful_try_of_a_trusted_peers_id_is_a_doubt_too() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, NO_BREAKER, "").await;
    let with_id = |id: &str| {
        let mut request = order("unused", "c");
        request.headers_mut().remove("idempotency-key");
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    app.behave(Behaviour::Cut);
    assert_honest(&standin.send(with_id("router-1")).await, 502);
    app.stop().await;
    assert_honest(&standin.send(with_id("router-1")).await, 503);
    assert!(is_stood_in(&standin.send(with_id("router-2")).await));
}
