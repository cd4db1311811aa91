//! What clients are told, and how long they wait.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use tokio::time::Instant;

use super::{LIMIT, as_it_is, assert_honest, entries, pair, posts, stood_in, the_entry};
use crate::support::{App, Behaviour, Standin, eventually, orders_config};

#[tokio::test]
async fn a_stand_in_answer_looks_like_the_apps_and_says_who_gave_it() {
    let (standin, mut app) = pair(as_it_is).await;
    let by_app = standin.post("/orders", "1").await;
    app.stop().await;
    let instead = standin.post("/orders", "2").await;
    assert_eq!(instead.status, by_app.status);
    assert_eq!(instead.header("content-type"), by_app.header("content-type"));
    let keys = |answer: &crate::support::Answer| -> Vec<String> {
        answer.json().as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&instead), keys(&by_app));
    assert_eq!(instead.json()["id"], instead.header("x-request-id"));
    assert!(!instead.header("date").is_empty());
    assert!(stood_in(&instead) && !stood_in(&by_app));
}

#[tokio::test]
async fn a_500_is_the_apps_answer_unless_the_route_says_otherwise() {
    let (standin, app) = pair(as_it_is).await;
    app.behave(Behaviour::Status(http::StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(standin.post("/orders", "1").await.status, 500);
    assert!(entries(&standin).await.is_empty());

    let (standin, app) =
        pair(|config| config.replace("accept_if =", "on = [\"connect\", \"5xx\"]\naccept_if ="))
            .await;
    app.behave(Behaviour::Status(http::StatusCode::INTERNAL_SERVER_ERROR));
    assert!(stood_in(&standin.post("/orders", "1").await));
    let entry = the_entry(&standin, |_| true).await;
    assert_eq!(
        (&entry["reason"], &entry["certainty"]),
        (&"bad_status".into(), &"sent_unknown".into())
    );
}

#[tokio::test]
async fn an_app_known_to_be_down_costs_nobody_its_timeout() {
    let (standin, app) = pair(|config| {
        let config = config.replace(r#"timeout = "2s""#, r#"timeout = "400ms""#);
        config
            .replace(
                r#"min_open = "50ms", max_open = "200ms""#,
                r#"min_open = "60s", max_open = "60s""#,
            )
            .replace(r#"health = { interval = "50ms" }"#, r#"health = { interval = "60s" }"#)
            .replace(r#"late_window = "500ms""#, r#"late_window = "60s""#)
    })
    .await;
    app.behave(Behaviour::Hang);
    for number in 0..5 {
        assert!(stood_in(&standin.post("/orders", format!("slow-{number}")).await));
    }
    let began = Instant::now();
    for number in 0..20 {
        assert!(stood_in(&standin.post("/orders", format!("quick-{number}")).await));
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(20 * 400), "{took:?} for 20");
    assert_eq!(posts(&app), 5, "the app was not asked any more");
    // A route without a stand-in gets its honest error as quickly.
    assert_honest(&standin.get("/").await, 503);
}

#[tokio::test]
async fn what_may_have_been_applied_is_not_sent_again_while_the_client_waits() {
    let (one, mut other) = (App::start().await, App::start().await);
    let both = format!("\"http://{}\", \"http://{}\"", one.address(), other.address());
    let config = orders_config(one.address())
        .replace(&format!("\"http://{}\"", one.address()), &both)
        .replace("late_window = \"500ms\"", "late_window = \"60s\"");
    let standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    for app in [&one, &other] {
        app.behave(Behaviour::Cut);
    }
    assert!(stood_in(&standin.post("/orders", "cut").await));
    assert_eq!(posts(&one) + posts(&other), 1, "one try at one endpoint");

    // An endpoint that takes no connection got nothing: the next one is asked, and nobody stands in.
    one.behave(Behaviour::Answer);
    other.stop().await;
    for number in 0..4 {
        let answer = standin.post("/orders", format!("next-{number}")).await;
        assert_eq!(answer.status, 201);
        assert!(!stood_in(&answer), "{answer:?}");
    }
}

#[tokio::test]
async fn a_late_answer_closes_the_entry_and_nothing_is_replayed() {
    let (standin, app) = pair(|config| {
        config
            .replace(r#"timeout = "2s""#, r#"timeout = "300ms""#)
            .replace(r#"late_window = "500ms""#, r#"late_window = "10s""#)
    })
    .await;
    app.behave(Behaviour::Slow(Duration::from_millis(900)));
    assert!(stood_in(&standin.post("/orders", "slow").await));
    let entry = the_entry(&standin, |entry| entry["state"] == "closed").await;
    assert_eq!(entry["outcome"], "completed");
    assert_eq!(entry["attempts"], 0);
    assert_eq!(posts(&app), 1);
    // A final no is an outcome, too: for a person.
    app.answer_with(|_| {
        std::thread::sleep(Duration::from_millis(900));
        Response::builder().status(422).body(Bytes::from_static(b"{}")).unwrap()
    });
    assert!(stood_in(&standin.post("/orders", "declined").await));
    eventually(LIMIT, async || {
        entries(&standin).await.iter().any(|entry| entry["outcome"] == "declined")
    })
    .await;
}

#[tokio::test]
async fn our_own_trouble_is_no_outage() {
    let app = App::start().await;
    let config = orders_config(app.address())
        .replace(&format!("http://{}", app.address()), "http://no-such-name.invalid:80");
    let standin = Standin::start(&config).await;
    assert_honest(&standin.post("/orders", "1").await, 503);
    assert!(entries(&standin).await.is_empty());
    let app_asked = app.seen_of(&Method::POST);
    assert!(app_asked.is_empty());
}
