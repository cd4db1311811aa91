//! The toy shop itself: the ledger test believes what it writes down, so it is looked at first.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;

use crate::support::{App, Client, NoAnswer, Shop};

fn order(id: &str, cart: &str) -> Request<Bytes> {
    Request::post("/checkout")
        .header("x-request-id", id)
        .header("idempotency-key", format!("\"key-of-{id}\""))
        .body(json!({ "cart_id": cart, "cents": 1250, "currency": "USD" }).to_string().into())
        .unwrap()
}

#[tokio::test]
async fn an_order_is_in_the_ledger_once_however_often_it_comes() {
    let mut shop = Shop::start().await;
    let mut client = Client::to(shop.address());
    for _ in 0..3 {
        let answer = client.send(order("a", "cart")).await.unwrap();
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json(), json!({ "id": "a", "status": "accepted" }));
    }
    assert_eq!(client.send(order("a", "other")).await.unwrap().status, 422, "another body");
    let orders = shop.orders();
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].key.as_deref(), Some("key-of-a"));
    assert_eq!(shop.refused_duplicates(), 2);

    shop.kill();
    assert!(matches!(
        client.send(order("b", "cart")).await,
        Err(NoAnswer::Connect(_) | NoAnswer::Broken(_))
    ));
    shop.restart().await;
    assert_eq!(client.send(order("a", "cart")).await.unwrap().status, 201);
    assert_eq!(shop.orders(), orders, "the ledger outlives the process");
}

#[tokio::test]
async fn without_its_dedupe_it_doubles() {
    let shop = Shop::that_dedupes_by("none").await;
    let mut client = Client::to(shop.address());
    for _ in 0..2 {
        assert_eq!(client.send(order("a", "cart")).await.unwrap().status, 201);
    }
    assert_eq!(shop.orders().len(), 2);
}

#[tokio::test]
async fn each_fault_does_what_its_name_says() {
    let shop = Shop::start().await;
    let mut client = Client::to(shop.address()).patience(Duration::from_millis(300));
    // Kind, whether the order is applied, status of the answer if there is one.
    let faults = [
        ("drop_before", false, None),
        ("drop_after", true, None),
        ("error_after", true, Some(500)),
        ("unavailable", false, Some(503)),
        ("unauthorized", false, Some(401)),
        ("half_answer", true, None),
        ("hang", false, None),
        ("hang_after", true, None),
        ("maintenance", false, Some(200)),
        ("none", true, Some(201)),
    ];
    for (kind, applied, status) in faults {
        shop.faults(&json!({ "kind": kind })).await;
        let answer = client.send(order(kind, "cart")).await;
        assert_eq!(answer.ok().map(|answer| answer.status.as_u16()), status, "{kind}");
        let found = shop.orders().iter().any(|order| order.order_id == kind);
        assert_eq!(found, applied, "{kind}");
    }
    shop.faults(&json!({ "decline": "bad-cart" })).await;
    assert_eq!(client.send(order("x", "bad-cart")).await.unwrap().status, 422);
    assert_eq!(client.send(order("y", "cart")).await.unwrap().status, 201);
    shop.faults(&json!({ "kind": "unavailable", "every": 2 })).await;
    let mut statuses = Vec::new();
    for id in ["1", "2", "3", "4"] {
        statuses.push(client.send(order(id, "cart")).await.unwrap().status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 503, 503]);
}

#[tokio::test]
async fn the_app_of_the_harness_stops_and_comes_back_on_its_port() {
    let mut app = App::start().await;
    let (mut client, address) = (Client::to(app.address()), app.address());
    let post = |body: &'static str| Request::post("/orders").body(Bytes::from(body)).unwrap();
    assert_eq!(client.send(post("1")).await.unwrap().status, 201);
    app.stop().await;
    assert!(client.send(post("2")).await.is_err());
    app.restart().await;
    assert_eq!(app.address(), address);
    assert_eq!(client.send(post("3")).await.unwrap().status, 201);
    app.receives_in_order(["1", "3"]).await;
    assert!(app.wire()[0].starts_with(b"POST /orders HTTP/1.1\r\n"));
}
