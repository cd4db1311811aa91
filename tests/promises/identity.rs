//! What makes two requests the same, and what the second one gets.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::task::JoinSet;

use super::{LIMIT, as_it_is, assert_honest, entries, order, pair, posts, stood_in, the_entry};
use crate::support::{Behaviour, Client, eventually};

#[tokio::test]
async fn a_retry_of_an_open_key_gets_the_same_answer_and_no_second_entry() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let first = standin.send(order("k", "1")).await;
    let second = standin.send(order("k", "1")).await;
    assert!(stood_in(&first) && stood_in(&second), "{first:?} {second:?}");
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert_eq!(second.header("x-request-id"), first.header("x-request-id"));
    assert_honest(&standin.send(order("k", "another body")).await, 422);
    let bare = Request::post("/orders").header("idempotency-key", "k").body(Bytes::from("1"));
    assert_eq!(standin.send(bare.unwrap()).await.body, first.body, "with or without quotes");
    assert_eq!(entries(&standin).await.len(), 1);
}

#[tokio::test]
async fn an_open_key_is_not_sent_to_the_app_that_is_back() {
    let (standin, mut app) = pair(|config| {
        config.replace("[route.orders.replay]", "[route.orders.replay]\ntrigger = \"manual\"")
    })
    .await;
    app.stop().await;
    let first = standin.send(order("k", "1")).await;
    app.restart().await;
    eventually(LIMIT, async || standin.get("/").await.status == 200).await;
    let again = standin.send(order("k", "1")).await;
    assert_eq!(again.body, first.body);
    assert!(stood_in(&again));
    assert_eq!(posts(&app), 0, "it waits for its replay");
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_is_stored_and_all_hear_the_same() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let mut client = Client::to(standin.address());
        clients.spawn(async move { client.send(order("k", "1")).await.unwrap() });
    }
    let answers = clients.join_all().await;
    assert!(answers.iter().all(stood_in));
    let bodies: BTreeSet<Bytes> = answers.into_iter().map(|answer| answer.body).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(entries(&standin).await.len(), 1);
}

#[tokio::test]
async fn a_closed_key_is_remembered() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let first = standin.send(order("done", "1")).await;
    app.restart().await;
    the_entry(&standin, |entry| entry["outcome"] == "completed").await;
    // The app is up: it answers for itself.
    let forwarded = eventually(LIMIT, async || {
        let answer = standin.send(order("done", "1")).await;
        (!stood_in(&answer)).then_some(answer)
    })
    .await;
    assert_eq!(forwarded.status, 201);
    app.stop().await;
    let kept = standin.send(order("done", "1")).await;
    assert_eq!(kept.body, first.body, "{kept:?}");
    assert_eq!(entries(&standin).await.len(), 1, "nothing new was promised");
    assert_honest(&standin.send(order("done", "2")).await, 422);
}

#[tokio::test]
async fn a_key_that_was_declined_is_not_accepted_again() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    assert!(stood_in(&standin.send(order("no", "1")).await));
    app.restart().await;
    app.behave(Behaviour::Status(http::StatusCode::UNPROCESSABLE_ENTITY));
    the_entry(&standin, |entry| entry["outcome"] == "declined").await;
    app.stop().await;
    // Before the app is known to be down, and when it is.
    for _ in 0..8 {
        assert_honest(&standin.send(order("no", "1")).await, 409);
    }
}

#[tokio::test]
async fn keys_of_different_people_never_meet() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let of = |who: &str, body: &str| {
        let mut order = order("k", body);
        order.headers_mut().insert("authorization", format!("Bearer {who}").parse().unwrap());
        order
    };
    let (ann, bob) = (standin.send(of("ann", "a")).await, standin.send(of("bob", "b")).await);
    assert!(stood_in(&ann) && stood_in(&bob));
    assert_ne!(ann.body, bob.body);
    assert_eq!(entries(&standin).await.len(), 2);
}

#[tokio::test]
async fn every_try_carries_the_same_id_and_key() {
    let (standin, app) =
        pair(|config| config.replace(r#"late_window = "500ms""#, r#"late_window = "10ms""#)).await;
    app.behave(Behaviour::Cut);
    let answer = standin.send(order("k", "1")).await;
    eventually(LIMIT, async || posts(&app) >= 3).await;
    app.behave(Behaviour::Answer);
    the_entry(&standin, |entry| entry["outcome"] == "completed").await;
    let seen = app.seen_of(&http::Method::POST);
    for post in &seen {
        assert_eq!(post.headers["x-request-id"], answer.header("x-request-id"));
        assert_eq!(post.headers["idempotency-key"], "\"k\"");
        assert_eq!((post.target.as_str(), &post.body[..]), ("/orders", &b"1"[..]));
    }
    assert!(!seen[0].headers.contains_key("standin-replay"));
    assert_eq!(seen[2].headers["standin-replay"], "1");
    assert_eq!(seen[1].headers["standin-attempt"], "1");
    assert_eq!(seen[2].headers["standin-attempt"], "2");
}

#[tokio::test]
async fn changes_of_one_thing_reach_the_app_in_their_order() {
    let (standin, mut app) =
        pair(|config| config.replace("match = \"POST /orders\"", "match = \"PUT /orders/{id}\""))
            .await;
    let put = |body: &'static str| Request::put("/orders/7").body(Bytes::from(body)).unwrap();
    app.stop().await;
    for body in ["1", "2"] {
        let answer = standin.send(put(body)).await;
        assert!(stood_in(&answer), "{answer:?}");
    }
    app.restart().await;
    // While earlier ones are stored, a live one goes behind them; then the app gets it live.
    let answer = standin.send(put("3")).await;
    assert!(answer.status.is_success(), "{answer:?}");
    eventually(LIMIT, async || {
        let bodies: Vec<Bytes> =
            app.seen_of(&http::Method::PUT).into_iter().map(|seen| seen.body).collect();
        if bodies == ["1", "2", "3"] { Ok(()) } else { Err(bodies) }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(app.seen_of(&http::Method::PUT).len(), 3, "each once");
}
