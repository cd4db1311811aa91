//! What rests, what is tried next, and that no failure of a proxy is taken for an outage of the app.

use std::sync::atomic::AtomicBool;

use http::Response;

use super::*;
use crate::support::NobodyThere;

fn assert_no_way_out(answer: &crate::support::Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.header("proxy-status").contains("proxy_internal_error"), "{answer:?}");
    assert!(answer.text().contains(says), "{}", answer.text());
}

#[tokio::test]
async fn what_the_far_side_blocks_rests_and_comes_back() {
    let app = App::start().await;
    let ways = proxies(["one", "two", "three"]).await;
    let blocks = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&blocks);
    app.answer_with(move |seen| {
        let blocked = asked.load(Ordering::Relaxed) && via(seen) == "two";
        let answer = Response::builder().status(if blocked { 429 } else { 201 });
        answer.header("retry-after", "1").body(Bytes::new()).unwrap()
    });
    let standin = Standin::start(&config(&app, &urls(&ways), "", "", "")).await;
    let mut statuses = Vec::new();
    for order in 0..12 {
        statuses.push(standin.post("/orders", order.to_string()).await.status.as_u16());
        blocks.store(!statuses.contains(&429), Ordering::Relaxed);
    }
    // The answer was the app's; after it the proxy was left alone.
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 1, "{statuses:?}");
    let two = standin.proxy("two").await;
    assert_eq!((&two["blocked"], &two["failed"]), (&json!(1), &json!(0)));
    if shares(&app)["two"] == 1 {
        assert_eq!(two["state"], "cooling", "{two}");
        assert_eq!(two["why"], "the far side answered 429");
    }
    // Its time is over by itself, and it has its turns again.
    eventually(SOON, async || {
        standin.post("/orders", "again").await;
        shares(&app)["two"] >= 2
    })
    .await;
    assert_eq!(standin.proxy("two").await["state"], "active");
}

#[tokio::test]
async fn when_all_rest_the_error_is_honest_and_says_how_long() {
    let app = App::start().await;
    let ways = proxies(["one", "two"]).await;
    app.answer_with(|_| Response::builder().status(403).body(Bytes::new()).unwrap());
    let standin = Standin::start(&config(&app, &urls(&ways), "", "", STAND_IN)).await;
    // A health question may have been the first to be refused.
    eventually(SOON, async || {
        standin.post("/orders", "1").await;
        let pool = standin.pool().await;
        pool["proxies"].as_array().unwrap().iter().all(|proxy| proxy["state"] == "cooling")
    })
    .await;
    app.forget();
    let answer = standin.post("/orders", "3").await;
    assert_no_way_out(&answer, 503, "The request was not applied");
    let after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((30..=60).contains(&after), "{after}");
    assert!(app.seen().is_empty() && standin.entries().await.is_empty());
    let status = standin.admin_get("/api/v1/status").await.json();
    assert!(status["sentences"][0]["text"].as_str().unwrap().contains("No way out through ways"));
}

#[tokio::test]
async fn a_dead_proxy_costs_nobody_an_error_and_is_no_outage() {
    let app = App::start().await;
    let ways = proxies(["one", "two"]).await;
    let nobody = NobodyThere::new();
    let all = [vec![nobody.url("dead")], urls(&ways)].concat();
    let standin = Standin::start(&config(&app, &all, "", "", STAND_IN)).await;
    standin.is_up().await;
    app.forget();
    for order in 0..30 {
        assert_eq!(standin.post("/orders", order.to_string()).await.status, 201);
    }
    assert_eq!(app.seen().len(), 30, "each came to the app");
    let shares = shares(&app);
    assert_eq!(shares["one"] + shares["two"], 30);
    let dead = standin.proxy("dead").await;
    assert_eq!((&dead["state"], &dead["why"]), (&json!("cooling"), &json!("connection refused")));
    assert!(standin.entries().await.is_empty(), "the app answered");
    standin.is_up().await;
}

#[tokio::test]
async fn without_any_way_out_nothing_is_stood_in_for_unless_the_route_asks() {
    let app = App::start().await;
    let mut ways = proxies(["one", "two", "three"]).await;
    let more = format!(
        "{STAND_IN}\n[route.carts]\nmatch = \"POST /carts\"\napp_dedupes = {{ by = \"x-request-id\", for = \"7d\" }}\n\
         [route.carts.stand_in]\non = [\"egress\"]\naccept_if = \"true\"\nanswer = {{ status = 202 }}\n"
    );
    let pool = "cooling = { after_failure = \"50ms\", max_after_failure = \"200ms\" }";
    let standin = Standin::start(&config(&app, &urls(&ways), pool, "", &more)).await;
    standin.is_up().await;
    ways.iter_mut().for_each(Tinyproxy::kill);
    for order in 0..5 {
        let answer = standin.post("/orders", order.to_string()).await;
        assert_no_way_out(&answer, 503, "The request was not applied");
    }
    assert!(standin.entries().await.is_empty());
    // Our own trouble opened no breaker.
    standin.is_up().await;
    assert_eq!(standin.post("/carts", "kept").await.status, 202);
    let entry = standin.entry().await;
    assert_eq!((&entry["reason"], &entry["certainty"]), (&json!("no_way_out"), &json!("not_sent")));
    // A new way out, and what was kept is sent.
    app.forget();
    let four = Tinyproxy::start("four").await;
    let add = json!({ "url": four.bare_url(), "reason": "a new one" });
    assert_eq!(standin.admin_post("/api/v1/egress/ways/add", &add).await.status, 200);
    standin.admin_post("/api/v1/replay/runs", &json!({ "reason": "test" })).await;
    standin.entry_becomes("completed").await;
    assert_eq!(shares(&app), BTreeMap::from([("four".to_owned(), 1)]));
}

/// The proxy is there, the app is not: the proxy's own page is no answer of the app.
#[tokio::test]
async fn what_a_proxy_answers_itself_is_not_taken_for_the_app() {
    let mut app = App::start().await;
    let ways = proxies(["one", "two", "three"]).await;
    let standin = Standin::start(&config(&app, &urls(&ways), "", "", STAND_IN)).await;
    standin.is_up().await;
    app.stop().await;
    for order in 0..4 {
        let answer = standin.post("/orders", order.to_string()).await;
        assert_no_way_out(&answer, 502, "not known whether the request was applied");
        assert!(!answer.text().contains("tinyproxy"));
    }
    assert!(standin.entries().await.is_empty());
    standin.is_up().await;
    // The proxies are well: none of them rests, and the first order after the outage goes through.
    let pool = standin.pool().await;
    let proxies = pool["proxies"].as_array().unwrap();
    assert!(proxies.iter().all(|proxy| proxy["state"] == "active"), "{pool}");
    let failed: u64 = proxies.iter().map(|proxy| proxy["failed"].as_u64().unwrap()).sum();
    assert_eq!(failed, 4, "{pool}");
    app.restart().await;
    assert_eq!(standin.post("/orders", "5").await.status, 201);
}

/// The app is there for all but one: then it is that one's own failure.
#[tokio::test]
async fn a_proxy_that_alone_does_not_reach_the_app_rests() {
    let app = App::start().await;
    let mut ways = proxies(["one", "two"]).await;
    let behind = NobodyThere::new();
    let upstream = format!("Upstream http {}", behind.address());
    ways.push(Tinyproxy::with("lost", &upstream).await);
    let standin = Standin::start(&config(&app, &urls(&ways), "", "", "")).await;
    standin.is_up().await;
    let mut refused = 0;
    for order in 0..20 {
        refused += usize::from(standin.post("/orders", order.to_string()).await.status != 201);
    }
    assert!((1..=3).contains(&refused), "{refused}");
    assert_eq!(standin.proxy("lost").await["state"], "cooling");
    standin.is_up().await;
}

#[tokio::test]
async fn a_proxy_that_does_not_know_us_passes_nothing_on() {
    let app = App::start().await;
    let known = Tinyproxy::start("known").await;
    let stranger = Tinyproxy::with("stranger", "BasicAuth anna secret").await;
    let all = [stranger.url().replace("http://", "http://anna:Wrong-one@"), known.url()];
    let standin = Standin::start(&config(&app, &all, "", "", "")).await;
    standin.is_up().await;
    app.forget();
    let mut refused = 0;
    for order in 0..8 {
        let answer = standin.post("/orders", order.to_string()).await;
        if answer.status != 201 {
            assert_no_way_out(&answer, 503, "The request was not applied");
            refused += 1;
        }
    }
    assert!(refused <= 2 && app.seen().len() == 8 - refused);
    let stranger = standin.proxy("stranger").await;
    assert_eq!(
        (&stranger["state"], &stranger["why"]),
        (&json!("cooling"), &json!("it answered 401 itself"))
    );
    assert!(!standin.output().contains("Wrong-one"));
}

/// A proxy that gives no tunnel has failed before a byte was sent: the next one is taken.
#[tokio::test]
async fn a_tunnel_that_is_refused_costs_nobody_an_error() {
    let app = App::start().await;
    let good = Tinyproxy::start("good").await;
    let bad = Tinyproxy::with("bad", "ConnectPort 1").await;
    let stranger = Tinyproxy::with("stranger", "BasicAuth anna secret").await;
    let all = [bad.url(), stranger.url(), good.url()];
    let standin = Standin::start(&config(&app, &all, "tunnel = \"always\"", "", STAND_IN)).await;
    for order in 0..9 {
        assert_eq!(standin.post("/orders", order.to_string()).await.status, 201);
    }
    assert_eq!(app.seen().len(), 9);
    for (name, why) in
        [("bad", "it answered 403 to CONNECT"), ("stranger", "it answered 407 to CONNECT")]
    {
        let proxy = standin.proxy(name).await;
        assert_eq!((&proxy["state"], &proxy["why"]), (&json!("cooling"), &json!(why)), "{proxy}");
    }
    assert!(standin.entries().await.is_empty());
}
