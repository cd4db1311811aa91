//! Modes, and clients that leave.

use std::time::Duration;

use super::{
    LIMIT, as_it_is, assert_honest, entries, order, pair, posts, set_mode, stood_in, the_entry,
};
use crate::support::{Behaviour, Http2Client, eventually};

#[tokio::test]
async fn forced_stands_in_though_the_app_is_well_and_nothing_is_replayed_meanwhile() {
    let (mut standin, app) = pair(as_it_is).await;
    set_mode(&standin, "forced").await;
    assert!(stood_in(&standin.post("/orders", "1").await));
    let entry = the_entry(&standin, |_| true).await;
    assert_eq!((&entry["reason"], &entry["certainty"]), (&"forced".into(), &"not_sent".into()));
    standin.kill();
    let standin = standin.restart().await;
    eventually(LIMIT, async || stood_in(&standin.post("/orders", "2").await)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(posts(&app), 0, "replays wait for the end of `forced`");
    set_mode(&standin, "auto").await;
    app.receives(["1", "2"]).await;
}

#[tokio::test]
async fn pass_through_makes_no_new_entries() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let before = standin.send(order("k", "1")).await;
    set_mode(&standin, "pass_through").await;
    assert_honest(&standin.post("/orders", "2").await, 503);
    let kept = standin.send(order("k", "1")).await;
    assert_eq!(kept.body, before.body, "what was promised before is still promised");
    assert_eq!(entries(&standin).await.len(), 1);
    app.restart().await;
    app.receives(["1"]).await;
}

#[tokio::test]
async fn an_order_whose_client_left_before_its_answer_waits_for_a_person_or_a_retry() {
    // The second kind is replayed in order: it must not wait for itself.
    for (method, path) in [("POST", "/orders"), ("PUT", "/orders/7")] {
        let (standin, app) = pair(|config| {
            config
                .replace(r#"timeout = "2s""#, r#"timeout = "600ms""#)
                .replace("POST /orders", &format!("{method} {path}"))
        })
        .await;
        let order = || {
            let mut order = order("k", "1");
            *order.method_mut() = method.parse().unwrap();
            *order.uri_mut() = path.parse().unwrap();
            order
        };
        app.behave(Behaviour::Hang);
        let client = Http2Client::to(standin.address()).await;
        let sent = tokio::time::timeout(Duration::from_millis(200), client.send(order())).await;
        assert!(sent.is_err() && app.seen().len() == 1);
        drop(client);
        let entry = the_entry(&standin, |entry| entry["state"] == "held").await;
        assert_eq!(entry["held"], "unanswered");
        // The client asks again, and this time it hears: now it is a promise.
        let answer = standin.send(order()).await;
        assert!(stood_in(&answer), "{method}: {answer:?}");
        app.behave(Behaviour::Answer);
        the_entry(&standin, |entry| entry["outcome"] == "completed").await;
    }
}
