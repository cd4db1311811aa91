//! Replay seen from outside: from the app, and through the admin API.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{App, Behaviour, Shop, Standin, eventually, pair, raw};

const SOON: Duration = Duration::from_secs(20);

/// In front of `app`; `route` goes into the route `orders`, `replay` into its section, `upstream` into the upstream.
fn config(app: impl std::fmt::Display, upstream: &str, route: &str, replay: &str) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{app}"]
timeout = "2s"
connect_timeout = "500ms"
late_window = "300ms"
health = {{ interval = "50ms" }}
breaker = {{ min_open = "50ms", max_open = "200ms" }}
{upstream}

[route.orders]
match = "POST /{{path...}}"
app_dedupes = {{ by = "x-request-id", for = "7d" }}
{route}

[route.orders.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}

[route.orders.replay]
min_backoff = "20ms"
max_backoff = "200ms"
{replay}
"#
    )
}

async fn in_front_of(app: &App, route: &str, replay: &str) -> Standin {
    let standin = Standin::start(&config(app.address(), "", route, replay)).await;
    assert_eq!(standin.get("/").await.status, 200, "the app was seen to answer once");
    standin
}

/// Orders with these bodies are stood in for while the app is down.
async fn stored(standin: &Standin, bodies: impl IntoIterator<Item = impl Into<Bytes>>) {
    for body in bodies {
        assert_eq!(standin.post("/orders", body).await.status, 201);
    }
}

/// Every entry, newest first.
async fn entries(standin: &Standin) -> Vec<Value> {
    let answer = standin.admin_get("/api/v1/entries?limit=200").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["entries"].as_array().unwrap().clone()
}

/// Waits until as many entries as `wanted` says are in each state: `completed`, `declined`, `held(expired)`, `stored` …
async fn become_of(standin: &Standin, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<String, usize> =
        wanted.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect();
    eventually(SOON, async || {
        let mut now = BTreeMap::new();
        for entry in entries(standin).await {
            let state = match (&entry["outcome"], &entry["held"]) {
                (Value::String(outcome), _) => outcome.clone(),
                (_, Value::String(held)) => format!("held({held})"),
                _ => entry["state"].as_str().unwrap().to_owned(),
            };
            *now.entry(state).or_insert(0) += 1;
        }
        if now == wanted { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn runs(standin: &Standin) -> Vec<Value> {
    standin.admin_get("/api/v1/replay/runs").await.json()["runs"].as_array().unwrap().clone()
}

async fn start(standin: &Standin, scope: Value) -> Value {
    let mut asked = json!({ "reason": "asked by a test" });
    asked.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
    let answer = standin.admin_post("/api/v1/replay/runs", &asked).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

fn answer(status: u16) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::new()).unwrap()
}

fn posted(app: &App) -> Vec<String> {
    let text = |body: &Bytes| String::from_utf8_lossy(body).into_owned();
    app.seen_of(&Method::POST).iter().map(|seen| text(&seen.body)).collect()
}

#[tokio::test]
async fn what_was_accepted_during_an_outage_reaches_the_app_once_and_by_itself() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    for body in ["1", "2", "3"] {
        assert_eq!(standin.post("/orders", body).await.status, 201);
    }
    app.restart().await;
    app.receives(["1", "2", "3"]).await;
    become_of(&standin, &[("completed", 3)]).await;
    for seen in app.seen_of(&Method::POST) {
        assert_eq!(seen.headers["standin-replay"], "1");
        assert_eq!(seen.headers["standin-attempt"], "1");
        assert!(seen.headers.contains_key("standin-received-at"));
        assert!(seen.headers.contains_key("idempotency-key"));
    }
    eventually(SOON, async || {
        let runs = runs(&standin).await;
        let done = runs.len() == 1 && runs[0]["state"] == "done" && runs[0]["completed"] == 3;
        if done { Ok(()) } else { Err(runs) }
    })
    .await;
}

#[tokio::test]
async fn one_of_a_sequence_at_a_time_and_a_held_head_blocks_only_its_own() {
    let mut app = App::start().await;
    let by_customer = r#"sequence_by = "request.headers['x-customer']""#;
    let standin = in_front_of(&app, by_customer, "").await;
    app.stop().await;
    for body in ["a1", "b1", "a2", "b2", "a3"] {
        let request = Request::post("/orders").header("x-customer", &body[..1]);
        let answer = standin.send(request.body(Bytes::from(body)).unwrap()).await;
        assert_eq!(answer.status, 201);
    }
    app.answer_with(|seen| answer(if seen.body == "b1" { 401 } else { 201 }));
    app.restart().await;
    become_of(&standin, &[("completed", 3), ("held(credentials)", 1), ("stored", 1)]).await;
    let mut seen = posted(&app);
    seen.retain(|body| body.starts_with('a'));
    assert_eq!(seen, ["a1", "a2", "a3"]);
    assert!(!posted(&app).contains(&"b2".to_owned()));
}

#[tokio::test]
async fn canaries_come_first() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    app.stop().await;
    stored(&standin, (0..40).map(|number| number.to_string())).await;
    app.behave(Behaviour::Slow(Duration::from_millis(400)));
    app.restart().await;
    // Each batch waits for all of the one before: the count stands still for as long as the app takes.
    let (mut steps, mut since): (Vec<usize>, _) = (Vec::new(), Instant::now());
    eventually(SOON, async || {
        let now = app.seen_of(&Method::POST).len();
        if now > steps.last().copied().unwrap_or(0) {
            if since.elapsed() < Duration::from_millis(200) {
                steps.pop(); // still growing
            }
            steps.push(now);
            since = Instant::now();
        }
        now == 40
    })
    .await;
    assert_eq!(steps, [1, 3, 8, 28, 40]);
    become_of(&standin, &[("completed", 40)]).await;
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    app.stop().await;
    stored(&standin, ["1", "2"]).await;
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    app.answer_with(move |seen| {
        if seen.method != Method::POST {
            return answer(200);
        }
        let mut times = times.lock().unwrap();
        times.push(Instant::now());
        match times.len() {
            1 => Response::builder().status(429).header("retry-after", "1").body(Bytes::new()),
            _ => Response::builder().status(201).body(Bytes::new()),
        }
        .unwrap()
    });
    app.restart().await;
    become_of(&standin, &[("completed", 2)]).await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked[1] - asked[0] >= Duration::from_millis(990), "{:?}", asked[1] - asked[0]);
}

#[tokio::test]
async fn the_app_falls_again_half_way() {
    let mut shop = Shop::start().await;
    let standin = Standin::start(&config(shop.address(), "", "", "")).await;
    assert_eq!(standin.get("/").await.status, 200);
    shop.kill();
    for number in 0..60 {
        assert_eq!(checkout(&standin, number).await, 201);
    }
    shop.restart().await;
    eventually(SOON, async || shop.orders().len() >= 10).await;
    shop.kill();
    let so_far = shop.orders().len();
    assert!(so_far < 60, "it was over before the shop could fall");
    for number in 60..70 {
        assert_eq!(checkout(&standin, number).await, 201);
    }
    shop.restart().await;
    become_of(&standin, &[("completed", 70)]).await;
    each_once(&shop, 70);
}

async fn checkout(standin: &Standin, number: usize) -> u16 {
    let order = json!({ "cart_id": format!("cart-{number}"), "cents": 100, "currency": "USD" });
    standin.post_json("/checkout", &order).await.status.as_u16()
}

#[track_caller]
fn each_once(shop: &Shop, count: usize) {
    let mut carts: Vec<String> = shop.orders().into_iter().map(|order| order.cart_id).collect();
    assert_eq!(carts.len(), count);
    carts.sort();
    carts.dedup();
    assert_eq!(carts.len(), count);
}

#[tokio::test]
async fn killed_at_the_worst_points_each_order_is_applied_once() {
    // After `sending` the request may have left before the process ended.
    for (point, duplicates) in [("after_sending", 0..=1), ("after_app_applied", 1..=1)] {
        let mut shop = Shop::start().await;
        let standin = Standin::start(&config(shop.address(), "", "", "")).await;
        assert_eq!(standin.get("/").await.status, 200);
        shop.kill();
        for number in 0..5 {
            assert_eq!(checkout(&standin, number).await, 201);
        }
        let mut standin = standin;
        standin.kill();
        // Up before standin is: its first replay finds it at once.
        shop.restart().await;
        let at_point = |setup: crate::support::Setup| setup.arg("--failpoint").arg(point);
        let mut standin = standin.restart_with(at_point).await;
        standin.ended(SOON).await;
        assert!(standin.output().contains(&format!("failpoint {point} reached")));

        let standin = standin.restart().await;
        become_of(&standin, &[("completed", 5)]).await;
        each_once(&shop, 5);
        let refused = shop.refused_duplicates();
        assert!(duplicates.contains(&refused), "{point}: {refused}");
    }
}

#[tokio::test]
async fn nothing_is_sent_past_its_expiry() {
    let mut app = App::start().await;
    let text = config(app.address(), "", "", "")
        .replace("[route.orders.stand_in]", "[route.orders.stand_in]\nexpires = \"1s\"");
    let standin = Standin::start(&text).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    stored(&standin, ["1"]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    app.restart().await;
    become_of(&standin, &[("held(expired)", 1)]).await;
    assert!(posted(&app).is_empty());
}

/// Nobody has to wait for the app to learn that a customer waits in vain. Also on a route that waits for a person.
#[tokio::test]
async fn what_expires_while_the_app_is_down_is_held_then_and_still_counted() {
    for trigger in ["", "trigger = \"manual\""] {
        let mut app = App::start().await;
        let text = config(app.address(), "", "", trigger)
            .replace("[route.orders.stand_in]", "[route.orders.stand_in]\nexpires = \"1s\"");
        let standin = Standin::start(&text).await;
        assert_eq!(standin.get("/").await.status, 200);
        app.stop().await;
        stored(&standin, ["1", "2"]).await;
        become_of(&standin, &[("held(expired)", 2)]).await;
        let status = standin.admin_get("/api/v1/status").await.json();
        let route = &status["routes"][0];
        assert_eq!((&route["open"], &route["held"]), (&2.into(), &2.into()), "{route}");

        // A person may still want it sent.
        let release = format!("/api/v1/entries/{}/release", standin.entries().await[1]["seq"]);
        let why = serde_json::json!({ "reason": "the customer still wants it", "extend": "1h" });
        assert_eq!(standin.admin_post(&release, &why).await.status, 200);
        app.restart().await;
        if !trigger.is_empty() {
            let why = serde_json::json!({ "reason": "a test" });
            assert_eq!(standin.admin_post("/api/v1/replay/runs", &why).await.status, 202);
        }
        become_of(&standin, &[("completed", 1), ("held(expired)", 1)]).await;
        assert_eq!(posted(&app), ["1"]);
    }
}

#[tokio::test]
async fn a_no_is_declined_and_refused_credentials_wait_for_a_person() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    app.stop().await;
    stored(&standin, ["401", "422", "201", "303"]).await;
    app.answer_with(|seen| answer(std::str::from_utf8(&seen.body).unwrap().parse().unwrap_or(200)));
    app.restart().await;
    become_of(&standin, &[("completed", 1), ("declined", 1), ("held(credentials)", 2)]).await;
    assert_eq!(posted(&app).len(), 4, "each was asked once");
}

#[tokio::test]
async fn a_maintenance_page_is_no_success() {
    let mut app = App::start().await;
    let rule = r#"success = "response.status == 201 && response.body.status == 'accepted'""#;
    let standin = in_front_of(&app, "", rule).await;
    app.stop().await;
    stored(&standin, ["1"]).await;
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    app.answer_with(move |_| match is_open.load(Ordering::Relaxed) {
        false => Response::new(Bytes::from_static(b"<h1>Back soon</h1>")),
        true => {
            let body = Bytes::from_static(br#"{"status": "accepted"}"#);
            Response::builder().status(StatusCode::CREATED).body(body).unwrap()
        }
    });
    app.restart().await;
    eventually(SOON, async || posted(&app).len() >= 2).await;
    open.store(true, Ordering::Relaxed);
    become_of(&standin, &[("completed", 1)]).await;
}

#[tokio::test]
async fn a_manual_route_waits_for_a_person_and_two_starts_are_one_run() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "trigger = \"manual\"").await;
    app.stop().await;
    stored(&standin, ["1", "2"]).await;
    app.behave(Behaviour::Slow(Duration::from_millis(300)));
    app.restart().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(posted(&app).is_empty());

    let run = start(&standin, json!({ "route": "orders" })).await;
    assert_eq!(start(&standin, json!({ "route": "orders" })).await["id"], run["id"]);
    become_of(&standin, &[("completed", 2)]).await;
    assert_eq!(posted(&app).len(), 2);
    assert_eq!(runs(&standin).await.len(), 1);
}

#[tokio::test]
async fn a_stopped_run_sends_no_more_until_somebody_starts_one() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "pace = 1").await;
    app.stop().await;
    stored(&standin, ["1", "2", "3", "4"]).await;
    app.behave(Behaviour::Slow(Duration::from_millis(300)));
    app.restart().await;
    eventually(SOON, async || !posted(&app).is_empty()).await;
    let id = runs(&standin).await[0]["id"].as_str().unwrap().to_owned();
    let why = json!({ "reason": "wrong prices" });
    let stopped = standin.admin_post(&format!("/api/v1/replay/runs/{id}/stop"), &why).await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    eventually(SOON, async || runs(&standin).await[0]["state"] == "stopped").await;
    let sent = posted(&app).len();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(posted(&app).len(), sent);
    become_of(&standin, &[("completed", sent), ("stored", 4 - sent)]).await;

    start(&standin, json!({})).await;
    become_of(&standin, &[("completed", 4)]).await;
    assert_eq!(posted(&app).len(), 4);
}

#[tokio::test]
async fn a_replay_is_the_request_byte_for_byte() {
    let mut app = App::start().await;
    let standin = in_front_of(&app, "", "").await;
    let body = "{\"a\": 1.0,\t\"b\":\"\u{e4}\"} ";
    let request = format!(
        "POST /order-1?a=%20b&&c=%C3%A4 HTTP/1.1\r\nHost: shop.example\r\nX-B: 2\r\nX-A: one,two\r\n\
         Cookie: a=b; c=\"d\"\r\nX-B: 3\r\nAccept: */*\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(raw(standin.address(), &request).await.starts_with("HTTP/1.1 201"));
    let live = posted_bytes(&app);
    app.stop().await;
    app.forget();
    assert!(raw(standin.address(), &request).await.starts_with("HTTP/1.1 201"));
    app.restart().await;
    become_of(&standin, &[("completed", 1)]).await;
    let replay = posted_bytes(&app);

    assert!(live.0.starts_with("POST /order-1?a=%20b&&c=%C3%A4 HTTP/1.1"), "{live:?}");
    // The length belongs to the hop; `posted_bytes` has read the body by it.
    let added = |line: &&String| {
        let name = line.split(':').next().unwrap_or_default();
        let by_standin = ["x-request-id", "idempotency-key", "content-length"];
        name.starts_with("standin-") || by_standin.contains(&name)
    };
    let same = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !added(line)).cloned().collect()
    };
    assert_eq!(replay.0, live.0);
    assert_eq!(same(&replay.1), same(&live.1));
    assert_eq!((replay.2.as_str(), live.2.as_str()), (body, body));
}

/// Request line, header lines in order, and body of the one POST that the app got, as they came over the wire.
fn posted_bytes(app: &App) -> (String, Vec<String>, String) {
    let wire = app.wire().concat();
    let text = String::from_utf8(wire).unwrap();
    let post = &text[text.find("POST ").unwrap()..];
    let (head, rest) = post.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let request_line = lines.next().unwrap();
    let headers: Vec<String> = lines.map(|line| line.to_ascii_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let body = rest[..length.parse().unwrap()].to_owned();
    (request_line, headers, body)
}

#[tokio::test]
async fn a_signed_replay_of_another_standin_is_never_stood_in_for() {
    let mut app = App::start().await;
    let key = "0123456789abcdef";
    let text =
        format!("{}\n[replay]\nsigning_key = \"{key}\"\n", config(app.address(), "", "", ""));
    let standin = Standin::start(&text).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    let replay = |key: &str, body: &'static str| {
        let request = Request::post("/orders")
            .header("x-request-id", format!("id-of-{body}"))
            .header("standin-replay", "1")
            .header("standin-attempt", "1")
            .header("standin-received-at", "2026-11-22T14:02:05.250Z");
        let mut request = request.body(Bytes::from(body)).unwrap();
        let (key, headers) = (standin::config::SigningKey(key.to_owned()), request.headers_mut());
        let signature = standin::signature::sign(&key, &headers["x-request-id"], headers).unwrap();
        headers.insert("standin-signature", signature);
        request
    };
    let refused = standin.send(replay(key, "genuine")).await;
    assert_eq!(refused.status.as_u16() / 100, 5, "the other one keeps the promise");
    let forged = standin.send(replay("another key, as long", "forged")).await;
    assert_eq!(forged.status, 201, "an order like any other");
    app.restart().await;
    become_of(&standin, &[("completed", 1)]).await;
    assert_eq!(posted(&app), ["forged"]);

    // With the app there, a genuine one passes with its marks; standin signs its own replays.
    assert_eq!(standin.send(replay(key, "genuine")).await.status, 201);
    let seen = app.seen_of(&Method::POST);
    let key = standin::config::SigningKey(key.to_owned());
    for (seen, attempt) in seen.iter().zip(["1", "1"]) {
        assert_eq!(seen.headers["standin-attempt"], attempt);
        let id = http::HeaderName::from_static("x-request-id");
        assert!(standin::signature::is_genuine(&key, &id, &seen.headers), "{seen:?}");
    }
    assert_eq!(seen.len(), 2);
}
