//! A proxy stands between standin and the app: its errors are not the app's, and one that nobody told of is warned of.

mod gateway;

use std::net::SocketAddr;

use serde_json::Value;

use self::gateway::Gateway;
use crate::support::{App, Behaviour, Seen, Standin};

/// `/orders` is stood in for, `/search` is not.
fn config(address: SocketAddr, upstream: &str) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{address}"]
health = {{ interval = "50ms", timeout = "500ms", path = "/healthz" }}
late_window = "200ms"
breaker = {{ failures = 1000 }}
{upstream}

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
"#
    )
}

async fn in_front_of(address: SocketAddr, upstream: &str) -> Standin {
    let standin = Standin::start(&config(address, upstream)).await;
    standin.upstream_is("up").await;
    standin
}

const PROXY: &str = "endpoint_is = \"proxy\"";

/// An app is stopped, and then hangs, behind a proxy.
async fn what_a_gateway_says_is_no_answer(gateway: Gateway, mut app: App) {
    let standin = in_front_of(gateway.address(), PROXY).await;
    assert_eq!(standin.post("/orders", "0").await.header("proxy-status"), "");
    app.stop().await;
    let answer = standin.post("/orders", "1").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(answer.header("proxy-status").contains("receipt"), "{answer:?}");
    let entry = standin.entry().await;
    assert_eq!((&entry["reason"], &entry["certainty"]), (&"reset".into(), &"sent_unknown".into()));
    assert!(entry["cause"].as_str().unwrap().contains("a proxy before the app answered 50"));
    let passed_on = standin.post("/search", "1").await;
    assert!([502, 503].contains(&passed_on.status.as_u16()), "{passed_on:?}");
    app.restart().await;
    app.receives(["0", "1"]).await;
    standin.entry_becomes("completed").await;

    app.behave(Behaviour::HangOn("/orders"));
    let answer = standin.post("/orders", "2").await;
    assert!(answer.header("proxy-status").contains("receipt"), "{answer:?}");
    let entry = &standin.entries().await[0];
    assert_eq!(entry["reason"], "timed_out", "{entry}");
    let status = standin.admin_get("/api/v1/status").await.json();
    assert_eq!(status["upstreams"][0]["unexpected_proxy"], Value::Null, "it is known of");
}

#[tokio::test]
async fn what_nginx_says_of_an_app_that_is_gone_counts_as_no_answer() {
    let app = App::start().await;
    what_a_gateway_says_is_no_answer(Gateway::nginx(app.address()).await, app).await;
}

#[tokio::test]
async fn what_haproxy_says_of_an_app_that_is_gone_counts_as_no_answer() {
    let app = App::start().await;
    what_a_gateway_says_is_no_answer(Gateway::haproxy(app.address()).await, app).await;
}

#[tokio::test]
async fn what_envoy_merely_passed_on_is_the_apps_own_answer() {
    let app = App::start().await;
    let standin = in_front_of(app.address(), PROXY).await;
    let passed_on = |passed_on: bool| {
        move |_: &Seen| {
            let answer = http::Response::builder().status(503).header("server", "envoy");
            let answer = match passed_on {
                true => answer.header("x-envoy-upstream-service-time", "3"),
                false => answer,
            };
            answer.body(bytes::Bytes::new()).unwrap()
        }
    };
    app.answer_with(passed_on(true));
    assert_eq!(standin.post("/orders", "1").await.status, 503);
    assert!(standin.entries().await.is_empty());
    app.answer_with(passed_on(false));
    assert_eq!(standin.post("/orders", "2").await.status, 201);
}

#[tokio::test]
async fn a_proxy_that_nobody_told_of_is_warned_of_once() {
    let mut app = App::start().await;
    let gateway = Gateway::nginx(app.address()).await;
    let standin = in_front_of(gateway.address(), "").await;
    app.stop().await;
    for number in 0..3 {
        assert_eq!(standin.post("/orders", number.to_string()).await.status, 502, "an answer");
    }
    assert!(standin.entries().await.is_empty());
    let warned = || standin.output().matches("look like a proxy's").count();
    assert_eq!(warned(), 1, "{}", standin.output());
    let page = standin.admin_get("/").await.text();
    assert!(page.contains("A proxy seems to stand before app (Server: nginx/"), "{page}");
    let found = async || {
        let metrics = standin.metrics().await;
        metrics.sum("standin_unexpected_proxy", &[("upstream", "app")])
    };
    assert_eq!(found().await, 1.0);
    // Another difference leaves it warned of; the answer to the warning ends it, and the next order is stood in for.
    standin.rewrite_config(&config(gateway.address(), "timeout = \"9s\""));
    reload(&standin).await;
    assert_eq!((warned(), found().await), (1, 1.0));
    standin.rewrite_config(&config(gateway.address(), PROXY));
    reload(&standin).await;
    assert_eq!(found().await, 0.0);
    let answer = standin.post("/orders", "9").await;
    assert!(answer.header("proxy-status").contains("receipt"), "{answer:?}");
}

#[tokio::test]
async fn an_app_that_shows_no_sign_is_not_warned_of() {
    let app = App::start().await;
    let standin = in_front_of(app.address(), "").await;
    app.behave(Behaviour::Status(http::StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(standin.post("/orders", "1").await.status, 503);
    assert!(!standin.output().contains("look like a proxy's"));
    assert_eq!(standin.metrics().await.sum("standin_unexpected_proxy", &[]), 0.0);
}

async fn reload(standin: &Standin) {
    let why = serde_json::json!({ "reason": "a test" });
    let answer = standin.admin_post("/api/v1/reload", &why).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
