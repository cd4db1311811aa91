//! Standin answers for the app: what it takes, what it never takes, how much, and what its answer looks like.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, Client, Raw, Standin, eventually, pair, raw};

/// `/checkout` is stood in for; `route` goes into the route, `stand_in` into its section.
fn config(app: &App, route: &str, stand_in: &str) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{}"]
timeout = "400ms"
late_window = "400ms"
health = {{ interval = "50ms" }}
breaker = {{ failures = 1000 }}

[route.checkout]
match = "POST /checkout"
{route}

[route.checkout.stand_in]
accept_if = 'body.cents > 0 && body.cents <= 5000'
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}
{stand_in}
"#,
        app.address()
    )
}

const PROTECTED: &str = r#"app_dedupes = { by = "x-request-id", for = "7d" }"#;
const SOON: Duration = Duration::from_secs(20);

/// The app was seen to answer, and is down now.
async fn in_an_outage(route: &str, stand_in: &str) -> (Standin, App) {
    let mut app = App::start().await;
    let standin = Standin::start(&config(&app, route, stand_in)).await;
    standin.upstream_is("up").await;
    app.stop().await;
    (standin, app)
}

fn checkout(body: &Value) -> Request<Bytes> {
    let request = Request::post("/checkout").header("content-type", "application/json");
    request.body(body.to_string().into()).unwrap()
}

async fn order(standin: &Standin, cents: i64) -> StatusCode {
    standin.send(checkout(&json!({ "cents": cents }))).await.status
}

fn is_stood_in(answer: &Answer) -> bool {
    answer.header("proxy-status").contains("stored, receipt")
}

#[track_caller]
fn assert_honest(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
}

/// The client is told what the app would have told it; only `Proxy-Status` says who speaks.
#[tokio::test]
async fn the_answer_looks_like_the_apps_own() {
    let (standin, mut app) = pair().await;
    let by_app = standin.post("/orders", "1").await;
    app.stop().await;
    let stood_in = standin.post("/orders", "2").await;
    assert!(!is_stood_in(&by_app) && is_stood_in(&stood_in));
    assert_eq!(stood_in.status, by_app.status);
    assert_eq!(stood_in.header("content-type"), by_app.header("content-type"));
    let keys =
        |answer: &Answer| answer.json().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&stood_in), keys(&by_app));
    assert_eq!(stood_in.json()["id"], stood_in.header("x-request-id"));
    assert!(stood_in.header("date").ends_with(" GMT"), "{stood_in:?}");
    let receipt = standin.entry().await["receipt"].as_str().unwrap().to_owned();
    let status =
        format!("standin; error=connection_refused; details=\"stored, receipt {receipt}\"");
    assert_eq!(stood_in.header("proxy-status"), status);
}

/// Each of these is refused honestly and not kept; the order before and after them is taken.
#[tokio::test]
async fn what_is_not_low_risk_is_refused_and_not_kept() {
    let (standin, mut app) = in_an_outage(PROTECTED, "max_body = \"2KiB\"").await;
    let good = r#"{"cents":100}"#;
    let long = format!(r#"{{"cents":100,"note":"{}"}}"#, "x".repeat(2048));
    let with = |body: &'static str| checkout(&Value::Null).map(|_| Bytes::from(body));
    let and_header = |name: &'static str, value: &'static str| {
        let mut request = with(good);
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let at = |target: &'static str| {
        let mut request = with(good);
        *request.uri_mut() = target.parse().unwrap();
        request
    };
    let risky = [
        ("the rule says no", with(r#"{"cents":5001}"#)),
        ("the rule has no value", with(r#"{"amount":1}"#)),
        ("the rule meets a text", with(r#"{"cents":"100"}"#)),
        ("no body", with("")),
        ("no JSON", with(r#"{"cents":100"#)),
        ("a key twice", with(r#"{"cents":100,"cents":9999}"#)),
        ("no number that all read alike", with(r#"{"cents":1e2}"#)),
        ("a card number", with(r#"{"cents":100,"card":"4111111111111111"}"#)),
        ("a card number in pieces", with(r#"{"cents":100,"card":"4111 1111 1111 1111"}"#)),
        ("a CVV", with(r#"{"cents":100,"cvv":"123"}"#)),
        ("a card number in a header", and_header("x-card", "4111111111111111")),
        ("a card number as its key", and_header("idempotency-key", "4111111111111111")),
        ("a card number as its id", and_header("x-request-id", "\"4111-1111-1111-1111\"")),
        ("a card number in a cookie", and_header("cookie", "a=b; card=4111%201111%201111%201111")),
        ("a CVV in a header", and_header("x-cvv", "123")),
        ("a CVV in a cookie", and_header("cookie", "a=b; cvv=123")),
        ("a card number in the target", at("/checkout?card=4111111111111111")),
        ("too large", checkout(&Value::Null).map(|_| Bytes::from(long.clone()))),
        ("gzip", and_header("content-encoding", "gzip")),
        ("another type", and_header("content-type", "application/octet-stream")),
        ("a range", and_header("range", "bytes=0-1")),
        ("a condition", and_header("if-match", "\"1\"")),
        ("an expectation that nobody knows", and_header("expect", "200-maybe")),
        ("another protocol", and_header("upgrade", "h2c")),
        ("an encoded letter in the path", at("/%63heckout")),
        ("a path in other words", at("/x/../checkout")),
        ("an empty segment", at("//checkout")),
    ];
    assert!(is_stood_in(&standin.send(with(good)).await));
    for (what, request) in risky {
        let answer = standin.send(request).await;
        assert!(!is_stood_in(&answer), "{what}");
        assert_honest(&answer, 503);
        assert!(answer.headers.contains_key("retry-after"), "{what}: {answer:?}");
    }
    assert!(is_stood_in(&standin.send(with(good)).await));
    assert_eq!(standin.entries().await.len(), 2);
    let metrics = standin.metrics().await;
    for why in ["rule_said_no", "rule_fault", "body_unreadable", "card_data"] {
        let count = metrics.sum("standin_not_stood_in_total", &[("why", why)]);
        assert!(count > 0.0, "{why} is not counted in\n{}", metrics.0);
    }
    app.restart().await;
    app.receives_in_order([good, good]).await;
}

/// Many apps do not mind letter case nor a slash at the end: what a strict route guards is not taken by a looser one next
/// to it because it is spelled otherwise.
#[tokio::test]
async fn a_strict_route_is_not_walked_around_by_spelling() {
    let mut app = App::start().await;
    let rule = "accept_if = \"body.cents <= 5000\"\nanswer = { status = 201 }";
    let standin = Standin::start(&format!(
        "[upstream.shop]\nendpoints = [\"http://{}\"]\n\
         [route.transfers]\nmatch = \"POST /pay/transfers/{{id}}\"\n\
         [route.pay]\nmatch = \"POST /pay/{{rest...}}\"\n{PROTECTED}\n[route.pay.stand_in]\n{rule}\n",
        app.address()
    ))
    .await;
    standin.upstream_is("up").await;
    app.stop().await;
    let to = |path: &'static str| {
        let mut request = checkout(&json!({ "cents": 100 }));
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    for path in ["/pay/transfers/1", "/pay/transfers/1/", "/pay/Transfers/1", "/PAY/transfers/1"] {
        let answer = standin.send(to(path)).await;
        assert!(answer.status.is_server_error() && !is_stood_in(&answer), "{path}: {answer:?}");
    }
    for path in ["/pay/bills/1", "/pay/bills/1/", "/pay/transfers/1/receipt"] {
        assert!(is_stood_in(&standin.send(to(path)).await), "{path}");
    }
}

/// Trailers are kept as headers are, so they are searched as headers are, by value and by name.
#[tokio::test]
async fn card_data_in_trailers_is_not_kept() {
    let (standin, _app) = in_an_outage(PROTECTED, "").await;
    let order = |trailer: &str| {
        let head = "POST /checkout HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        let framing = "Connection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-any\r\n\r\n";
        format!("{head}{framing}b\r\n{{\"cents\":1}}\r\n0\r\n{trailer}\r\n\r\n")
    };
    for trailer in ["x-card: 4111111111111111", "x-note: 4111 1111 1111 1111", "x-cvv: 123"] {
        let answer = raw(standin.address(), order(trailer)).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{trailer}: {answer}");
    }
    let answer = raw(standin.address(), order("x-any: a canary that is kept")).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let mut in_the_file = Vec::new();
    for name in ["standin.db", "standin.db-wal"] {
        in_the_file.extend(std::fs::read(standin.folder().join(name)).unwrap());
    }
    let holds = |text: &str| memchr::memmem::find(&in_the_file, text.as_bytes()).is_some();
    assert!(holds("a canary that is kept"), "what is stored would be seen");
    assert!(!holds("4111111111111111") && !holds("4111 1111 1111 1111") && !holds("x-cvv"));
}

/// A key that is not one is the client's mistake, outage or not.
#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let (standin, mut app) = in_an_outage(PROTECTED, "").await;
    for _ in 0..2 {
        for key in ["", "\"", "a b", "a,b", &"x".repeat(300)] {
            let mut request = checkout(&json!({ "cents": 1 }));
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
            assert_honest(&standin.send(request).await, 400);
        }
        app.restart().await;
        app.stop().await;
    }
    assert!(standin.entries().await.is_empty() && app.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to() {
    let (standin, _app) = in_an_outage(PROTECTED, "").await;
    let mut client = Raw::to(standin.address()).await;
    let head =
        "Host: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 13";
    client.write(format!("POST /checkout HTTP/1.1\r\n{head}\r\n\r\n")).await;
    let interim = client.read_until("\r\n\r\n", SOON).await;
    assert_eq!(interim.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.write(r#"{"cents":100}"#).await;
    let answer = client.read_until("\r\n\r\n", SOON).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

/// How many of these orders are taken when 50 clients send them at once.
async fn taken(standin: &Standin, orders: Vec<Value>) -> usize {
    let mut shares = vec![Vec::new(); 50];
    for (number, body) in orders.into_iter().enumerate() {
        shares[number % 50].push(body);
    }
    let clients = shares.into_iter().map(async |share| {
        let (mut client, mut taken) = (Client::to(standin.address()), 0);
        for body in share {
            let answer = client.send(checkout(&body)).await.unwrap();
            if answer.status == 201 {
                assert!(is_stood_in(&answer));
                taken += 1;
            } else {
                assert_honest(&answer, 503);
            }
        }
        taken
    });
    join_all(clients).await.into_iter().sum()
}

/// The app is back, takes what is open, and goes again.
async fn drain(standin: &Standin, app: &mut App) {
    app.restart().await;
    eventually(Duration::from_secs(60), async || {
        let status = standin.admin_get("/api/v1/status").await.json();
        let open = status["routes"][0]["open"].as_u64().unwrap();
        if open == 0 { Ok(()) } else { Err(format!("{open} still open")) }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn the_cap_on_open_entries_is_exact_and_released_on_close() {
    let (standin, mut app) = in_an_outage(PROTECTED, "at_most = { open = 17 }").await;
    for _ in 0..2 {
        assert_eq!(taken(&standin, vec![json!({ "cents": 1 }); 150]).await, 17);
        drain(&standin, &mut app).await;
    }
    assert_eq!(app.seen_of(&Method::POST).len(), 34);
}

#[tokio::test]
async fn the_cap_on_the_open_sum_is_exact_and_released_on_close() {
    let at_most = "at_most = { open_sum = 1000, sum_of = \"body.cents\" }";
    let (standin, mut app) = in_an_outage(PROTECTED, at_most).await;
    for _ in 0..2 {
        assert_eq!(taken(&standin, vec![json!({ "cents": 70 }); 150]).await, 14, "of 70 each");
        assert_eq!(order(&standin, 21).await, 503, "20 are left");
        assert_eq!(order(&standin, 20).await, 201);
        assert_eq!(order(&standin, 1).await, 503);
        drain(&standin, &mut app).await;
    }
}

/// Within the window, closed ones included: an app that comes and goes makes no more room for one customer.
#[tokio::test]
async fn the_cap_per_customer_is_exact_and_a_window() {
    let at_most = "at_most = { per_customer = { count = 3, within = \"1h\", by = \"body.who\" } }";
    let (standin, mut app) = in_an_outage(PROTECTED, at_most).await;
    let orders = (0..200).map(|number| json!({ "cents": 1, "who": format!("c{}", number % 5) }));
    assert_eq!(taken(&standin, orders.clone().collect()).await, 15, "three of each of five");
    drain(&standin, &mut app).await;
    assert_eq!(taken(&standin, orders.collect()).await, 0);
    let other = checkout(&json!({ "cents": 1, "who": "somebody else" }));
    assert_eq!(standin.send(other).await.status, 201);
}

#[tokio::test]
async fn without_a_cap_of_its_own_a_route_takes_a_thousand() {
    let (standin, _app) = in_an_outage(PROTECTED, "").await;
    assert_eq!(taken(&standin, vec![json!({ "cents": 1 }); 1100]).await, 1000);
}

#[tokio::test]
async fn an_app_that_answers_5xx_has_answered_unless_the_route_says_otherwise() {
    let app = App::start().await;
    let standin = Standin::start(&config(&app, PROTECTED, "")).await;
    standin.upstream_is("up").await;
    app.behave(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(order(&standin, 1).await, 500);
    assert!(standin.entries().await.is_empty());

    let standin = Standin::start(&config(&app, PROTECTED, "on = [\"5xx\"]")).await;
    app.behave(Behaviour::Answer);
    standin.upstream_is("up").await;
    for status in [500, 502, 503, 504, 501, 400, 429] {
        app.behave(Behaviour::Status(StatusCode::from_u16(status).unwrap()));
        let answer = standin.send(checkout(&json!({ "cents": status }))).await;
        let stands_in = matches!(status, 500 | 502 | 503 | 504);
        assert_eq!(is_stood_in(&answer), stands_in, "{status}: {answer:?}");
        assert_eq!(answer.status, if stands_in { 201 } else { status }, "{answer:?}");
    }
    for entry in standin.entries().await {
        assert_eq!(
            (&entry["reason"], &entry["certainty"]),
            (&"bad_status".into(), &"sent_unknown".into())
        );
    }
    // And what it refused to stand in for, because the rule said no, is the app's own answer.
    app.behave(Behaviour::Status(StatusCode::BAD_GATEWAY));
    assert_eq!(order(&standin, 9999).await, 502);
}

/// An app that sheds load says so: what the route declares as "not applied" is as good as not sent, live and in replays,
/// so that even a route without protection may stand in for it.
#[tokio::test]
async fn a_503_that_the_route_declares_safe_was_not_sent() {
    let app = App::start().await;
    let sheds = "on = [\"connect\", \"5xx\"]\n[route.checkout.replay]\nmin_backoff = \"50ms\"\n\
        not_applied = 'response.status == 503 && \"retry-after\" in response.headers'";
    let standin = Standin::start(&config(&app, "", sheds)).await;
    standin.upstream_is("up").await;
    let keyed = |key: &'static str, cents: i64| {
        let mut request = checkout(&json!({ "cents": cents }));
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        request
    };
    let saying = |status: u16, field: &'static str| {
        app.answer_with(move |seen| {
            let status = if seen.method == Method::POST { status } else { 200 };
            http::Response::builder().status(status).header(field, "1").body(Bytes::new()).unwrap()
        });
    };
    // A 503 of anybody else's says nothing: the app's own answer, and the key is in doubt from now on.
    saying(503, "x-other");
    assert_eq!(standin.send(keyed("doubtful", 1)).await.status, 503);
    saying(503, "retry-after");
    let shed = standin.send(keyed("shed", 2)).await;
    assert!(is_stood_in(&shed), "{shed:?}");
    let entry = standin.entry().await;
    assert_eq!((&entry["reason"], &entry["certainty"]), (&"bad_status".into(), &"not_sent".into()));
    let doubtful = standin.send(keyed("doubtful", 1)).await;
    assert!(doubtful.status == 503 && !is_stood_in(&doubtful), "{doubtful:?}");
    // What the rule turns down is the app's own no.
    assert_eq!(standin.send(keyed("too-much", 9999)).await.status, 503);
    // Its replay meets the same, and is sent again, though nothing protects it.
    let seen = app.seen_of(&Method::POST).len();
    eventually(SOON, async || app.seen_of(&Method::POST).len() > seen + 1).await;
    assert_eq!(standin.entry().await["certainty"], "not_sent");
    app.behave(Behaviour::Answer);
    standin.entry_becomes("completed").await;
}

/// By its own rules a route can also say that a 5xx is the app's final word: then it is not stood in for.
#[tokio::test]
async fn a_5xx_that_the_route_declares_final_is_an_answer() {
    let app = App::start().await;
    let says = "on = [\"5xx\"]\n[route.checkout.replay]\ndeclined = [500]";
    let standin = Standin::start(&config(&app, PROTECTED, says)).await;
    standin.upstream_is("up").await;
    app.behave(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(order(&standin, 1).await, 500);
    app.behave(Behaviour::Status(StatusCode::BAD_GATEWAY));
    assert!(is_stood_in(&standin.send(checkout(&json!({ "cents": 2 }))).await));
}

/// Nothing protects its replays: it takes only what certainly never reached the app.
#[tokio::test]
async fn a_route_whose_app_refuses_no_duplicates_takes_only_what_was_not_sent() {
    let mut app = App::start().await;
    let unprotected = config(&app, "", "").replace("failures = 1000", "failures = 3");
    let standin = Standin::start(&unprotected).await;
    standin.upstream_is("up").await;
    app.behave(Behaviour::Hang);
    assert_honest(&standin.send(checkout(&json!({ "cents": 1 }))).await, 504);
    app.behave(Behaviour::Cut);
    assert_honest(&standin.send(checkout(&json!({ "cents": 2 }))).await, 502);
    assert!(standin.entries().await.is_empty());
    app.stop().await;
    assert_eq!(order(&standin, 3).await, 201, "no connection");
    standin.upstream_is("down").await;
    assert_eq!(order(&standin, 4).await, 201, "known to be down");
    let entries = standin.entries().await;
    let reasons: Vec<_> = entries.iter().map(|entry| entry["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["breaker_open", "connect_failed"]);
    assert!(entries.iter().all(|entry| entry["certainty"] == "not_sent"));
}

/// `on = ["always"]`: accepted first, applied when the app can; what is not low risk is asked of the app directly.
#[tokio::test]
async fn a_deferred_order_is_stored_while_the_app_is_up_and_replayed_at_once() {
    let app = App::start().await;
    let standin = Standin::start(&config(&app, PROTECTED, "on = [\"always\"]")).await;
    standin.upstream_is("up").await;
    let answer = standin.send(checkout(&json!({ "cents": 1 }))).await;
    assert!(is_stood_in(&answer) && answer.status == 201, "{answer:?}");
    let entry = standin.entry_becomes("completed").await;
    assert_eq!(entry["reason"], "deferred");
    let [seen] = &app.seen_of(&Method::POST)[..] else { panic!("{:?}", app.seen()) };
    assert_eq!(seen.headers["standin-replay"], "1");
    assert_eq!(seen.headers["x-request-id"], answer.header("x-request-id"));

    let risky = standin.send(checkout(&json!({ "cents": 9999 }))).await;
    assert!(risky.status == 201 && !is_stood_in(&risky), "{risky:?}");
    assert_eq!(standin.entries().await.len(), 1);
}

/// The big red button: the app is left alone, replays wait, and a restart changes nothing about it.
#[tokio::test]
async fn forced_stands_in_and_holds_replays_until_somebody_takes_it_back() {
    let app = App::start().await;
    let mut standin = Standin::start(&config(&app, PROTECTED, "")).await;
    standin.upstream_is("up").await;
    standin.mode("forced", json!({ "for": "1h" })).await;
    let answer = standin.send(checkout(&json!({ "cents": 1 }))).await;
    assert!(is_stood_in(&answer), "{answer:?}");
    assert_honest(&standin.send(checkout(&json!({ "cents": 9999 }))).await, 503);
    assert_eq!(standin.get("/elsewhere").await.status, 200, "routes without a stand-in go on");
    standin.kill();
    let standin = standin.restart().await;
    let mode = standin.admin_get("/api/v1/mode").await.json();
    assert_eq!(mode["all"]["mode"], "forced", "{mode}");
    assert_eq!(order(&standin, 2).await, 201);
    let reasons: Vec<_> =
        standin.entries().await.iter().map(|entry| entry["reason"].clone()).collect();
    assert_eq!(reasons, ["forced", "forced"]);
    tokio::time::sleep(Duration::from_millis(700)).await; // replays would have had their time
    assert!(app.seen_of(&Method::POST).is_empty(), "{:?}", app.seen());

    standin.mode("auto", json!({})).await;
    app.receives([r#"{"cents":1}"#, r#"{"cents":2}"#]).await;
    assert_eq!(order(&standin, 3).await, 201);
    assert_eq!(app.seen_of(&Method::POST).len(), 3);
}

#[tokio::test]
async fn forced_ends_by_itself() {
    let app = App::start().await;
    let standin = Standin::start(&config(&app, PROTECTED, "")).await;
    standin.upstream_is("up").await;
    standin.mode("forced", json!({ "for": "2s" })).await;
    assert_eq!(order(&standin, 1).await, 201);
    assert!(app.seen_of(&Method::POST).is_empty());
    app.receives([r#"{"cents":1}"#]).await;
    let live = standin.send(checkout(&json!({ "cents": 2 }))).await;
    assert!(live.status == 201 && !is_stood_in(&live), "{live:?}");
    for longer in ["25h", "0s"] {
        let asked = json!({ "mode": "forced", "for": longer, "reason": "a test" });
        assert!(standin.admin_post("/api/v1/mode", &asked).await.status.is_client_error());
    }
}

#[tokio::test]
async fn pass_through_makes_no_new_entries_and_one_route_can_be_set_apart() {
    let mut app = App::start().await;
    let second = r#"
[route.gift]
match = "POST /gift"
app_dedupes = { by = "x-request-id", for = "7d" }
stand_in = { accept_if = "true", answer = { status = 202 } }
"#;
    let standin = Standin::start(&(config(&app, PROTECTED, "") + second)).await;
    standin.upstream_is("up").await;
    app.stop().await;
    let gift = async || standin.post("/gift", "{}").await.status.as_u16();
    standin.mode("pass_through", json!({})).await;
    assert_eq!((order(&standin, 1).await.as_u16(), gift().await), (503, 503));
    standin.mode("auto", json!({ "route": "gift" })).await;
    assert_eq!((order(&standin, 1).await.as_u16(), gift().await), (503, 202));
    standin.mode("auto", json!({})).await;
    assert_eq!((order(&standin, 1).await.as_u16(), gift().await), (201, 202));
    standin.mode("pass_through", json!({ "route": "checkout" })).await;
    assert_eq!((order(&standin, 1).await.as_u16(), gift().await), (503, 202));
    app.restart().await;
    standin.upstream_is("up").await;
    assert_eq!(order(&standin, 1).await, 201, "the app's own");
    assert_eq!(standin.entries().await.len(), 4);
}

/// Asked by a router, it answers from its own rules; the app hears from it in replays only.
#[tokio::test]
async fn a_standby_never_asks_the_app_for_live_traffic() {
    let app = App::start().await;
    let config = format!("role = \"standby\"\n{}", config(&app, PROTECTED, ""));
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    let answer = standin.send(checkout(&json!({ "cents": 1 }))).await;
    assert!(is_stood_in(&answer), "{answer:?}");
    assert_honest(&standin.send(checkout(&json!({ "cents": 9999 }))).await, 503);
    assert_honest(&standin.get("/").await, 503);
    let entry = standin.entry().await;
    assert_eq!(
        (&entry["reason"], &entry["certainty"]),
        (&"standby".into(), &"sent_unknown".into())
    );
    standin.entry_becomes("completed").await;
    let seen = app.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].headers["standin-replay"], "1");
}

#[tokio::test]
async fn support_finds_an_entry_by_its_labels_and_its_receipt() {
    let labels = "labels = { cart = \"body.cart\", email = \"body.email\" }";
    let (standin, _app) = in_an_outage(&format!("{PROTECTED}\n{labels}"), "").await;
    for number in 0..5 {
        let email = format!("c{number}@mail.example");
        let body = json!({ "cents": 1, "cart": format!("cart-{number}"), "email": email });
        assert_eq!(standin.send(checkout(&body)).await.status, 201);
    }
    let receipt = standin.entries().await[2]["receipt"].as_str().unwrap().to_owned();
    for search in ["cart-2", "c2%40mail.example", &receipt] {
        let found = standin.admin_get(&format!("/api/v1/entries?search={search}")).await.json();
        let found = found["entries"].as_array().unwrap();
        assert_eq!(found.len(), 1, "{search}: {found:?}");
        assert_eq!(
            found[0]["labels"],
            json!([{ "name": "cart", "value": "cart-2" }, { "name": "email", "value": "c2@mail.example" }])
        );
    }
    let none = standin.admin_get("/api/v1/entries?search=cart-9").await.json();
    assert_eq!(none["entries"], json!([]));
}

/// They are kept, for a replay needs them: in a file that only its owner can read, and nowhere else.
#[tokio::test]
async fn credentials_are_in_the_file_and_nowhere_else() {
    const SECRETS: [&str; 3] =
        ["canary-of-the-token", "canary-of-the-cookie", "canary-of-the-password"];
    let (mut standin, mut app) = in_an_outage(PROTECTED, "").await;
    let mut request = checkout(&json!({ "cents": 1, "password": SECRETS[2] }));
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {}", SECRETS[0]).parse().unwrap());
    request.headers_mut().insert("cookie", format!("session={}", SECRETS[1]).parse().unwrap());
    let answer = standin.send(request).await;
    assert!(is_stood_in(&answer), "{answer:?}");
    let entry = standin.entry().await;
    let number = &entry["seq"];
    let mut shown = vec![answer.text(), format!("{:?}", answer.headers), entry.to_string()];
    for path in [
        "/",
        "/entries",
        &format!("/entries/{number}"),
        "/worklist",
        "/replay",
        "/audit",
        "/metrics",
        "/api/v1/entries",
        &format!("/api/v1/entries/{number}/history"),
        "/api/v1/status",
        "/api/v1/audit",
    ] {
        let page = standin.admin_get(path).await;
        assert_eq!(page.status, 200, "{path}");
        shown.push(page.text());
    }
    app.restart().await;
    standin.entry_becomes("completed").await;
    let seen = app.seen_of(&Method::POST).pop().unwrap();
    assert_eq!(seen.headers["authorization"], format!("Bearer {}", SECRETS[0]));
    standin.terminate();
    assert!(standin.ended(SOON).await.success());
    shown.push(standin.output());
    for secret in SECRETS {
        let leaks: Vec<_> = shown.iter().filter(|text| text.contains(secret)).collect();
        assert!(leaks.is_empty(), "{secret} in {leaks:?}");
    }
    let file = std::fs::read(standin.database()).unwrap();
    for secret in &SECRETS[..2] {
        assert!(memchr::memmem::find(&file, secret.as_bytes()).is_some(), "{secret} is kept");
    }
    for file in std::fs::read_dir(standin.folder()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("standin.db") {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
        }
    }
}

/// What is redacted is not kept either.
#[tokio::test]
async fn what_a_route_redacts_is_not_in_the_file() {
    let replay = "\n[route.checkout.replay]\nredact = [\"authorization\", \"x-token\"]\n";
    let (mut standin, mut app) = in_an_outage(PROTECTED, replay).await;
    let order = "POST /checkout HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
        Connection: close\r\nAuthorization: Bearer canary-of-the-token\r\nTrailer: x-token, x-sum\r\n\
        Transfer-Encoding: chunked\r\n\r\nb\r\n{\"cents\":1}\r\n0\r\n\
        x-token: canary-in-a-trailer\r\nx-sum: kept\r\n\r\n";
    let answer = raw(standin.address(), order).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    app.restart().await;
    standin.entry_becomes("completed").await;
    let [replay] = &app.seen_of(&Method::POST)[..] else { panic!("not one replay") };
    assert!(!replay.headers.contains_key("authorization"));
    let trailers = replay.trailers.as_ref().unwrap();
    assert!(trailers.contains_key("x-sum") && !trailers.contains_key("x-token"), "{trailers:?}");
    standin.terminate();
    assert!(standin.ended(SOON).await.success());
    let file = std::fs::read(standin.database()).unwrap();
    for secret in [&b"canary-of-the-token"[..], b"canary-in-a-trailer"] {
        assert!(memchr::memmem::find(&file, secret).is_none());
    }
}

/// A promise on a disk that is gone with the machine is none: no stand-ins there, while the app is served as ever.
#[tokio::test]
async fn on_a_disk_that_does_not_last_nothing_is_promised_unless_that_is_accepted() {
    let folder = tempfile::Builder::new().prefix("standin-").tempdir_in("/dev/shm").unwrap();
    let mut app = App::start().await;
    for (ephemeral, status) in [("refuse", 503), ("accept_loss", 201)] {
        let config =
            format!("{}\n[store]\nephemeral = \"{ephemeral}\"\n", config(&app, PROTECTED, ""));
        let mut standin = Standin::with(&config).folder(folder.path()).start().await;
        standin.upstream_is("up").await;
        assert_eq!(order(&standin, 1).await, 201, "the app is up");
        app.stop().await;
        assert_eq!(order(&standin, 2).await, status, "{ephemeral}");
        let status = standin.admin_get("/api/v1/status").await.json();
        assert_eq!(status["store"]["accepting"], ephemeral == "accept_loss", "{status}");
        assert_eq!(standin.admin_get("/readyz").await.status, 200, "it can forward");
        app.restart().await;
        standin.terminate();
        assert!(standin.ended(SOON).await.success());
    }
}

/// Bytes on the wire, for those who read them: one answer, whole, and the connection goes on.
#[tokio::test]
async fn a_stand_in_answer_is_a_whole_answer_on_the_wire() {
    let (standin, _app) = in_an_outage(PROTECTED, "").await;
    let body = r#"{"cents":100}"#;
    let head =
        format!("Host: a\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    let order = format!("POST /checkout HTTP/1.1\r\n{head}\r\n\r\n{body}");
    let last = order.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answers = raw(standin.address(), format!("{order}{order}{last}")).await;
    assert_eq!(answers.matches("HTTP/1.1 201 Created\r\n").count(), 3, "{answers}");
    assert_eq!(answers.matches("content-length: ").count(), 3, "{answers}");
    assert_eq!(standin.entries().await.len(), 3);
}
