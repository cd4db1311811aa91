//! Promises of docs/GUARANTEES.md that no other file holds: seen from outside, one test each.

mod acknowledged;
mod answers;
mod identity;
mod people;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Answer, App, Standin, eventually, orders_config};

const LIMIT: Duration = Duration::from_secs(20);

/// A standin in front of a running app that was seen to answer.
async fn pair(change: impl FnOnce(String) -> String) -> (Standin, App) {
    let app = App::start().await;
    let standin = Standin::start(&change(orders_config(app.address()))).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.forget();
    (standin, app)
}

fn as_it_is(config: String) -> String {
    config
}

fn order(key: &str, body: &str) -> Request<Bytes> {
    Request::post("/orders")
        .header("idempotency-key", format!("\"{key}\""))
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .unwrap()
}

/// By standin, newly stored or again: it says so itself.
fn stood_in(answer: &Answer) -> bool {
    answer.status.is_success() && answer.header("proxy-status").starts_with("standin")
}

fn assert_honest(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
}

async fn entries(standin: &Standin) -> Vec<Value> {
    let list = standin.admin_get("/api/v1/entries?limit=200").await.json();
    list["entries"].as_array().unwrap().clone()
}

/// The only entry, once it is as wanted.
async fn the_entry(standin: &Standin, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(LIMIT, async || {
        let mut entries = entries(standin).await;
        match entries.pop() {
            Some(entry) if entries.is_empty() && wanted(&entry) => Ok(entry),
            other => Err(format!("{other:?} and {} more", entries.len())),
        }
    })
    .await
}

/// What the app got by POST.
fn posts(app: &App) -> usize {
    app.seen_of(&Method::POST).len()
}

async fn set_mode(standin: &Standin, mode: &str) {
    let set = standin.admin_post("/api/v1/mode", &json!({ "mode": mode, "reason": "test" })).await;
    assert_eq!(set.status, 200, "{}", set.text());
}
