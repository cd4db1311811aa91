//! A router before an app and its standby, as the example configurations have it: what the app does not answer goes to
//! the standby with the same request id, and in the end the app's ledger holds it exactly once.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use self::router::Router;
use crate::support::{Answer, Client, Shop, Standin, eventually};

pub(crate) mod router;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn haproxy_sends_a_timed_out_order_to_the_standby_and_it_is_applied_once() {
    a_timed_out_order_is_applied_once(Place::with_haproxy().await).await;
}

#[tokio::test]
async fn nginx_sends_a_timed_out_order_to_the_standby_and_it_is_applied_once() {
    a_timed_out_order_is_applied_once(Place::with_nginx().await).await;
}

/// The shop applies the order and answers too slowly.
async fn a_timed_out_order_is_applied_once(place: Place) {
    let by_shop = place.order("seen").await;
    assert_eq!(by_shop.status, StatusCode::CREATED);
    assert_eq!(place.entries().await.len(), 0, "the standby is not asked while the shop answers");

    place.shop.faults(&json!({ "kind": "hang_after" })).await;
    let answer = place.order("slow").await;
    looks_like_the_shops(&answer, &by_shop);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(place.shop.orders()[1].order_id, id, "both were asked under one id");
    let entries = place.entries().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["request_id"], id.as_str());
    assert_eq!(entries[0]["reason"], "standby");
    assert_eq!(entries[0]["certainty"], "sent_unknown");

    place.shop.heal().await;
    place.all_closed().await;
    let orders = place.shop.orders();
    assert_eq!(orders.iter().filter(|order| order.order_id == id).count(), 1, "{orders:?}");
    assert!(!orders[1].replay, "the first try was the one that counted");
    assert!(place.shop.refused_duplicates() >= 1, "the replay came under the same id");
}

#[tokio::test]
async fn haproxy_sends_the_orders_of_a_dead_shop_to_the_standby() {
    orders_of_a_dead_shop_are_applied_once(Place::with_haproxy().await).await;
}

#[tokio::test]
async fn nginx_sends_the_orders_of_a_dead_shop_to_the_standby() {
    orders_of_a_dead_shop_are_applied_once(Place::with_nginx().await).await;
}

async fn orders_of_a_dead_shop_are_applied_once(mut place: Place) {
    let by_shop = place.order("seen").await;
    place.shop.kill();
    let mut told = BTreeSet::new();
    for number in 0..12 {
        let answer = place.order(&format!("cart-{number}")).await;
        looks_like_the_shops(&answer, &by_shop);
        told.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(told.len(), 12, "each order has an id of its own");
    // Too large a sum for the standby: an honest error, and nothing is kept.
    let large = place.send(checkout("large", 900_000)).await;
    assert_eq!(large.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(large.header("content-type"), "application/problem+json");
    // What the standby could only refuse is not sent there: the error is the router's.
    for path in ["/", "/checkout"] {
        let page = place.send(Request::get(path).body(Bytes::new()).unwrap()).await;
        assert!(page.status.is_server_error(), "{path}: {page:?}");
        assert_eq!(page.header("proxy-status"), "", "{path}: {page:?}");
    }

    place.shop.restart().await;
    place.all_closed().await;
    let replayed: Vec<String> =
        place.shop.orders().into_iter().filter(|order| order.replay).map(|o| o.order_id).collect();
    assert_eq!(replayed.len(), 12);
    assert_eq!(replayed.into_iter().collect::<BTreeSet<_>>(), told);
}

#[tokio::test]
async fn haproxy_sends_an_order_whose_connection_broke_to_the_standby() {
    an_order_whose_connection_broke_is_applied_once(Place::with_haproxy().await).await;
}

#[tokio::test]
async fn nginx_sends_an_order_whose_connection_broke_to_the_standby() {
    an_order_whose_connection_broke_is_applied_once(Place::with_nginx().await).await;
}

/// Applied or not, 503 or a broken connection: the client sees none of it.
async fn an_order_whose_connection_broke_is_applied_once(place: Place) {
    place.order("seen").await;
    let mut told = Vec::new();
    for kind in ["drop_before", "drop_after", "unavailable"] {
        place.shop.faults(&json!({ "kind": kind })).await;
        // Larger than one packet, and well within what the routers keep for a second try.
        let mut order = checkout(kind, 1250);
        let padding = format!("{{\"note\":\"{}\",", "x".repeat(20_000));
        *order.body_mut() = order
            .body()
            .strip_prefix(b"{")
            .map_or_else(Bytes::new, |rest| [padding.as_bytes(), rest].concat().into());
        let answer = place.send(order).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{kind}: {answer:?}");
        told.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    place.shop.heal().await;
    place.all_closed().await;
    let orders = place.shop.orders();
    for id in &told {
        assert_eq!(orders.iter().filter(|order| order.order_id == *id).count(), 1, "{orders:?}");
    }
}

#[tokio::test]
async fn a_client_that_tries_again_is_known_by_its_key() {
    for router in ["haproxy", "nginx"] {
        let place = Place::new(router, "idempotency-key").await;
        place.order("seen").await;
        place.shop.faults(&json!({ "kind": "hang_after" })).await;
        let with_key = || {
            let mut order = checkout("again", 1250);
            order.headers_mut().insert("idempotency-key", "\"k-1\"".parse().unwrap());
            order
        };
        let first = place.send(with_key()).await;
        let second = place.send(with_key()).await;
        assert_eq!(first.status, StatusCode::CREATED, "{router}: {first:?}");
        assert_eq!(second.body, first.body, "{router}: the kept answer");
        assert_eq!(place.entries().await.len(), 1, "{router}");
        // The third try finds the shop well: it goes there, before or after the replay.
        place.shop.heal().await;
        eventually(LONG, async || place.send(with_key()).await.header("proxy-status").is_empty())
            .await;
        place.all_closed().await;
        let orders = place.shop.orders();
        let same = orders.iter().filter(|order| order.key.as_deref() == Some("k-1")).count();
        assert_eq!(same, 1, "{router}: {orders:?}");
    }
}

/// An app that knows requests by their id alone: the client's key must not lead to another one.
#[tokio::test]
async fn a_key_changes_nothing_about_the_id_that_the_router_gave() {
    let place = Place::with_haproxy().await;
    place.order("seen").await;
    place.shop.faults(&json!({ "kind": "hang_after" })).await;
    let mut order = checkout("keyed", 1250);
    order.headers_mut().insert("idempotency-key", "\"k-1\"".parse().unwrap());
    let answer = place.send(order).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-request-id"), id);
    assert_eq!(place.shop.orders()[1].order_id, id, "what the shop applied already");
    place.shop.heal().await;
    place.all_closed().await;
    assert_eq!(place.shop.orders().len(), 2, "{:?}", place.shop.orders());
}

#[tokio::test]
async fn an_id_is_believed_from_our_own_proxies_only() {
    for router in ["haproxy", "nginx"] {
        let mut place = Place::new(router, "x-request-id").await;
        let with_ids = |ids: &[&str]| {
            let mut order = checkout("cart", 1250);
            for id in ids {
                order.headers_mut().append("x-request-id", id.parse().unwrap());
            }
            order
        };
        let id_of = |answer: Answer| answer.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(id_of(place.send(with_ids(&["mine-1"])).await), "mine-1", "{router}");
        place.router = place.router.that_believes_nobody().await;
        let other = id_of(place.send(with_ids(&["mine-2"])).await);
        assert!(other != "mine-2" && other.len() >= 32, "{router}: {other}");
        assert_eq!(place.shop.orders()[1].order_id, other);
    }
}

#[tokio::test]
async fn haproxy_sends_what_it_cannot_keep_only_once() {
    let place = Place::with_haproxy().await;
    place.order("seen").await;
    place.shop.faults(&json!({ "kind": "hang_after" })).await;
    let mut order = checkout("huge", 1250);
    *order.body_mut() =
        format!("{{\"note\":\"{}\",\"cents\":1,\"currency\":\"USD\"}}", "x".repeat(100_000)).into();
    let answer = place.send(order).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "an honest error: {answer:?}");
    assert_eq!(place.entries().await.len(), 0);
}

/// A shop, its standby, and a router before both.
struct Place {
    shop: Shop,
    standby: Standin,
    router: Router,
}

impl Place {
    async fn with_haproxy() -> Self {
        Self::new("haproxy", "x-request-id").await
    }

    async fn with_nginx() -> Self {
        Self::new("nginx", "x-request-id").await
    }

    async fn new(router: &str, dedupes_by: &str) -> Self {
        let shop = Shop::that_dedupes_by(dedupes_by).await;
        let config = CONFIG
            .replace("{shop}", &shop.address().to_string())
            .replace("{dedupes_by}", dedupes_by);
        let standby = Standin::start(&config).await;
        eventually(LONG, async || {
            standby.metrics().await.sum("standin_upstream_up", &[("upstream", "shop")]) == 1.0
        })
        .await;
        let router = Router::start(router, shop.address(), standby.address()).await;
        Self { shop, standby, router }
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        Client::to(self.router.address()).send(request).await.unwrap()
    }

    async fn order(&self, cart: &str) -> Answer {
        self.send(checkout(cart, 1250)).await
    }

    async fn entries(&self) -> Vec<Value> {
        let list = self.standby.admin_get("/api/v1/entries").await.json();
        list["entries"].as_array().unwrap().clone()
    }

    /// Every entry of the standby has ended well.
    async fn all_closed(&self) {
        eventually(LONG, async || {
            let entries = self.entries().await;
            let open = entries.iter().find(|entry| entry["state"] != "closed");
            open.map_or(Ok(()), |open| Err(open.to_string()))
        })
        .await;
        for entry in self.entries().await {
            assert_eq!(entry["outcome"], "completed", "{entry}");
        }
    }
}

fn checkout(cart: &str, cents: u64) -> Request<Bytes> {
    let body = json!({ "cart_id": cart, "cents": cents, "currency": "USD" }).to_string();
    let request = Request::post("/checkout").header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

/// Status, content type and keys are those of the shop's own answer; and it says who answered.
fn looks_like_the_shops(answer: &Answer, by_shop: &Answer) {
    let keys = |answer: &Answer| -> Vec<String> {
        answer.json().as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(answer.status, by_shop.status, "{answer:?}");
    assert_eq!(answer.header("content-type"), by_shop.header("content-type"));
    assert_eq!(keys(answer), keys(by_shop));
    assert!(answer.header("proxy-status").starts_with("standin"), "{answer:?}");
}

const CONFIG: &str = r#"
role = "standby"

[request_id]
trust = ["127.0.0.1/32"]

[upstream.shop]
endpoints = ["http://{shop}"]
timeout = "2s"
connect_timeout = "500ms"
late_window = "300ms"
health = { interval = "50ms" }
breaker = { min_open = "50ms", max_open = "200ms" }

[route.checkout]
match = "POST /checkout"
app_dedupes = { by = "{dedupes_by}", for = "7d" }

[route.checkout.stand_in]
accept_if = 'body.currency == "USD" && body.cents <= 5000'
answer = { status = 201, json = { id = "{{ request.id }}", status = "accepted" } }

[route.checkout.replay]
min_backoff = "50ms"
max_backoff = "500ms"
max_attempts = 100
"#;
