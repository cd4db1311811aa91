//! A standin that is stopped for a while (SIGSTOP, SIGCONT), as a paused guest or a machine without memory is. All its
//! timeouts are over when it goes on.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use standin::time::UnixMillis;

use crate::support::{Shop, Stage, Standin, eventually, millis};

/// The shop applies whatever comes, and the route says so: what may have been applied must never go out again.
#[tokio::test]
async fn replays_that_a_stop_falls_into_are_applied_once_even_by_an_app_that_refuses_no_duplicates()
{
    let mut shop = Shop::that_dedupes_by("none").await;
    let config = config(shop.address(), "");
    let mut standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    shop.kill();
    for number in 0..ORDERS {
        let order = json!({ "cart_id": number.to_string(), "cents": 1, "currency": "USD" });
        assert_eq!(standin.post_json("/checkout", &order).await.status, 201);
    }
    shop.restart().await;
    shop.faults(&json!({ "delay_after_ms": 100 })).await;
    for wanted in [1, 5, 15, 30] {
        eventually(LIMIT, async || applied(&shop).len() >= wanted).await;
        stop(&mut standin).await;
    }
    // Whatever a stop broke off may have been applied: it waits for a person.
    let ended = eventually(LIMIT, async || {
        let entries = standin.entries().await;
        let open = entries.iter().filter(|entry| entry["state"] != "closed");
        let waiting = open.filter(|entry| entry["held"] != "unclear").count();
        if waiting == 0 { Ok(entries) } else { Err(format!("{waiting} entries are on their way")) }
    })
    .await;
    assert_eq!(ended.len(), ORDERS);
    let applied = applied(&shop);
    let twice: Vec<_> = applied.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "applied more than once: {twice:?}");
    let completed = ended.iter().filter(|entry| entry["outcome"] == "completed").count();
    println!("{completed} completed, {} applied", applied.len());
    assert!(completed > ORDERS * 3 / 4, "only {completed} of {ORDERS} went through");
    assert!(completed <= applied.len());
    // Both clocks go on while a process is stopped.
    assert_eq!(standin.metrics().await.sum("standin_clock_jumps_total", &[]), 0.0);
}

/// An attempt that was given up after the stop leaves the app its whole late window before the next.
#[tokio::test]
async fn after_a_stop_no_second_attempt_comes_before_its_time() {
    let mut stage = Stage::start().await;
    let protected = r#"app_dedupes = { by = "x-request-id", for = "7d" }"#;
    let mut standin = Standin::start(&config(stage.address(), protected)).await;
    standin.upstream_is("up").await;
    standin.mode("forced", json!({})).await;
    assert_eq!(standin.post("/checkout", "{}").await.status, 201);
    standin.mode("auto", json!({})).await;
    let first = stage.asked().await;
    let goes_on = stop(&mut standin).await;
    assert!(stage.is_left_alone(), "nothing comes from a standin that is stopped");

    let mut second = stage.asked().await;
    assert_eq!(second.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(second.header("standin-attempt"), Some("2"));
    second.answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    let entry = standin.entry_becomes("completed").await;
    let lines = entry["history"].as_array().unwrap();
    let at = |state: &str, attempt: u64| -> i64 {
        let is = |line: &&Value| line["state"] == state && line["attempt"] == attempt;
        let line = lines.iter().find(is).unwrap_or_else(|| panic!("no {state} {attempt}: {entry}"));
        millis(&line["at"])
    };
    assert!(at("sending", 1) < goes_on.0 && goes_on.0 <= at("stored", 1), "{entry}");
    // It was given up after the stop, so its late window began then at the earliest.
    assert!(at("sending", 2) >= goes_on.plus(LATE_WINDOW).0, "{entry}");
    assert!(stage.is_left_alone());
}

fn config(app: std::net::SocketAddr, route: &str) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{app}"]
timeout = "500ms"
connect_timeout = "500ms"
late_window = "{LATE_WINDOW:?}"
health = {{ interval = "50ms" }}
breaker = {{ min_open = "50ms", max_open = "200ms" }}

[route.orders]
match = "POST /checkout"
{route}

[route.orders.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}" }} }}

[route.orders.replay]
min_backoff = "20ms"
max_backoff = "200ms"
"#
    )
}

/// For longer than each of its timeouts; when it went on.
async fn stop(standin: &mut Standin) -> UnixMillis {
    standin.process().stand_still();
    // Not to wait for something: that time passes is the point.
    tokio::time::sleep(STOPPED).await;
    let goes_on = UnixMillis::now();
    standin.process().signal(Signal::CONT);
    goes_on
}

/// How often each cart is in the ledger.
fn applied(shop: &Shop) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for order in shop.orders() {
        *times.entry(order.cart_id).or_default() += 1;
    }
    times
}

const ORDERS: usize = 60;
const STOPPED: Duration = Duration::from_millis(1500);
const LATE_WINDOW: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(30);
