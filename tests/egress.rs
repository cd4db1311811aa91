//! Real egress proxies (tinyproxy): turns, sessions, who may take which, what rests, what is removed; and whose failure
//! it was.

mod changes;
mod failing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{App, Client, NobodyThere, Pki, Seen, Standin, Tinyproxy, TlsApp, eventually};

const SOON: Duration = Duration::from_secs(20);

/// `POST /orders` and `POST /reports` of `app`, by way of these proxies; `pool`, `orders` and `more` go into their
/// places.
fn config(app: &App, proxies: &[String], pool: &str, orders: &str, more: &str) -> String {
    let proxies = proxies.join(", ");
    format!(
        r#"
workers = 3
[upstream.app]
endpoints = ["http://{}"]
timeout = "5s"
connect_timeout = "500ms"
late_window = "500ms"
health = {{ interval = "50ms" }}
breaker = {{ failures = 3, min_open = "50ms", max_open = "200ms" }}
egress = "ways"

[egress.ways]
proxies = [{proxies}]
{pool}

[route.orders]
match = "POST /orders"
app_dedupes = {{ by = "x-request-id", for = "7d" }}
{orders}

[route.orders.replay]
min_backoff = "50ms"

[route.reports]
match = "POST /reports"
{more}
"#,
        app.address()
    )
}

/// A stand-in for `orders`.
const STAND_IN: &str = r#"
[route.orders.stand_in]
accept_if = "true"
answer = { status = 201, json = { id = "{{ request.id }}" } }
"#;

async fn proxies<const N: usize>(names: [&str; N]) -> Vec<Tinyproxy> {
    let mut all = Vec::new();
    for name in names {
        all.push(Tinyproxy::start(name).await);
    }
    all
}

fn urls(proxies: &[Tinyproxy]) -> Vec<String> {
    proxies.iter().map(Tinyproxy::url).collect()
}

/// The egress proxy through which the app got it.
fn via(seen: &Seen) -> String {
    let via = seen.headers.get_all("via").iter().map(|via| via.to_str().unwrap());
    let via = via.flat_map(|via| via.split(',')).find(|via| via.contains("tinyproxy"));
    via.map_or_else(String::new, |via| via.split_whitespace().nth(1).unwrap().to_owned())
}

/// How many of the app's requests came through which proxy.
fn shares(app: &App) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for seen in app.seen() {
        *shares.entry(via(&seen)).or_default() += 1;
    }
    shares
}

fn post(path: &str, session: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let request = Request::builder().method(Method::POST).uri(path).header("x-session", session);
    request.body(body.into()).unwrap()
}

impl Standin {
    async fn pool(&self) -> Value {
        self.admin_get("/api/v1/egress/ways").await.json()
    }

    async fn proxy(&self, name: &str) -> Value {
        let pool = self.pool().await;
        let proxies = pool["proxies"].as_array().unwrap().clone();
        proxies.into_iter().find(|proxy| proxy["name"] == name).unwrap_or_else(|| panic!("{pool}"))
    }

    /// Its health question has been answered: no turn is taken by it any more.
    async fn is_up(&self) {
        eventually(SOON, async || {
            let status = self.admin_get("/api/v1/status").await.json();
            let condition = status["upstreams"][0]["condition"].clone();
            if condition == "up" { Ok(()) } else { Err(status) }
        })
        .await;
    }

    async fn change_proxy(&self, name: &str, act: &str, more: Value) -> Value {
        let path = format!("/api/v1/egress/ways/{name}/{act}");
        let mut body = json!({ "reason": "because" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.admin_post(&path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

#[tokio::test]
async fn each_proxy_has_its_turn_under_concurrency_and_the_app_gets_what_was_sent() {
    let app = App::start().await;
    let mut ways = proxies(["one", "two"]).await;
    ways.push(Tinyproxy::with("three", "BasicAuth anna Hunter2pw").await);
    let mut all = urls(&ways);
    all[2] = all[2].replace("http://", "http://anna:Hunter2pw@");
    let standin = Standin::start(&config(&app, &all, "", "", "")).await;
    standin.is_up().await;
    let clients = (0..6).map(|client| {
        let address = standin.address();
        async move {
            let mut connection = Client::to(address);
            for order in 0..25 {
                let answer =
                    connection.send(post("/orders", "", format!("{client}-{order}"))).await;
                assert_eq!(answer.unwrap().status, 201);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let shares = shares(&app);
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert!(shares.values().all(|share| *share == 50), "{shares:?}");
    let bodies: BTreeSet<Bytes> = app.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 150);
    for seen in app.seen() {
        assert_eq!(seen.headers["host"], app.address().to_string());
        assert_eq!(seen.headers["x-forwarded-host"], standin.address().to_string());
        assert!(!seen.headers.contains_key("proxy-authorization"));
    }
    // Nothing that is shown shows the password.
    let shown = [
        standin.admin_get("/api/v1/egress").await.text(),
        standin.admin_get("/api/v1/status").await.text(),
        standin.admin_get("/egress").await.text(),
        standin.admin_get("/metrics").await.text(),
        standin.output(),
    ];
    assert!(
        shown
            .iter()
            .all(|text| !text.contains("Hunter2pw") && !text.contains("YW5uYTpIdW50ZXIycHc"))
    );
    let metrics = standin.metrics().await;
    let requests = metrics.sum("standin_egress_requests_total", &[("pool", "ways")]);
    assert!(requests >= 151.0, "with the health question {requests}");
}

/// Five real proxies; one is retired and one added while jobs of three requests each run.
#[tokio::test]
async fn jobs_see_one_proxy_each_and_none_is_used_after_its_removal() {
    const JOBS: usize = 500;
    let app = App::start().await;
    let ways = proxies(["a", "b", "c", "d", "e", "f"]).await;
    let pool = "session = 'request.headers[\"x-session\"]'";
    let standin = Standin::start(&config(&app, &urls(&ways[..5]), pool, "", "")).await;
    standin.is_up().await;
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..8).map(|_| {
        let (address, next) = (standin.address(), Arc::clone(&next));
        async move {
            let mut connection = Client::to(address);
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job >= JOBS {
                    return;
                }
                for part in 0..3 {
                    let request = post("/orders", &format!("job-{job}"), format!("{part}"));
                    assert_eq!(connection.send(request).await.unwrap().status, 201);
                }
            }
        }
    });
    let begun = |number| {
        let next = Arc::clone(&next);
        async move { eventually(SOON * 3, async || next.load(Ordering::Relaxed) >= number).await }
    };
    let changes = async {
        begun(JOBS / 3).await;
        // Its sessions finish; then it goes for good.
        standin.change_proxy("c", "drain", json!({})).await;
        eventually(SOON, async || {
            // In this order: what was in flight is seen.
            let c = standin.proxy("c").await;
            let mut parts: BTreeMap<String, usize> = BTreeMap::new();
            for seen in app.seen().iter().filter(|seen| via(seen) == "c") {
                *parts
                    .entry(seen.headers["x-session"].to_str().unwrap().to_owned())
                    .or_default() += 1;
            }
            let finished = parts.values().all(|parts| *parts == 3);
            if finished && c["in_flight"] == 0 { Ok(()) } else { Err(c) }
        })
        .await;
        standin.change_proxy("c", "retire", json!({})).await;
        let when = app.seen().len();
        begun(JOBS * 2 / 3).await;
        let add = json!({ "url": ways[5].bare_url(), "reason": "one more" });
        assert_eq!(standin.admin_post("/api/v1/egress/ways/add", &add).await.status, 200);
        when
    };
    let (_, removed_at) = tokio::join!(futures_util::future::join_all(workers), changes);
    let seen = app.seen();
    assert_eq!(seen.len(), JOBS * 3);
    let late = seen[removed_at..].iter().filter(|seen| via(seen) == "c").count();
    assert_eq!(late, 0, "a removed proxy was used");
    let mut jobs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for seen in &seen {
        let job = seen.headers["x-session"].to_str().unwrap().to_owned();
        jobs.entry(job).or_default().insert(via(seen));
    }
    assert_eq!(jobs.len(), JOBS);
    assert!(jobs.values().all(|ways| ways.len() == 1), "a job saw two proxies");
    let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
    for ways in jobs.values() {
        *turns.entry(ways.first().unwrap()).or_default() += 1;
    }
    let stayed = ["a", "b", "d", "e"].map(|name| turns[name]);
    let (least, most) = (stayed.iter().min().unwrap(), stayed.iter().max().unwrap());
    assert!(most - least <= 1, "{turns:?}");
    assert!(
        turns["c"] > 0 && turns["c"] < *least && turns["f"] > 0 && turns["f"] < *least,
        "{turns:?}"
    );
}

#[tokio::test]
async fn routes_take_what_they_may_and_a_proxy_can_be_one_routes_own() {
    let app = App::start().await;
    let ways = proxies(["one", "two", "own"]).await;
    let mut all = urls(&ways);
    all[2] = format!("{{ url = {}, only_for = [\"reports\"] }}", all[2]);
    let orders = "egress = { deny = [\"two\"] }";
    let more = "[route.carts]\nmatch = \"POST /carts\"\negress = { only = [\"two\"] }";
    let standin = Standin::start(&config(&app, &all, "", orders, more)).await;
    standin.is_up().await;
    for (path, expected) in [
        ("/orders", vec![("one", 6)]),
        ("/carts", vec![("two", 6)]),
        ("/reports", vec![("one", 2), ("own", 2), ("two", 2)]),
        ("/elsewhere", vec![("one", 3), ("two", 3)]),
    ] {
        app.forget();
        for order in 0..6 {
            assert_eq!(standin.post(path, order.to_string()).await.status, 201);
        }
        let expected: BTreeMap<String, usize> =
            expected.into_iter().map(|(name, share)| (name.to_owned(), share)).collect();
        assert_eq!(shares(&app), expected, "{path}");
    }
}

#[tokio::test]
async fn a_replay_takes_the_proxy_of_its_session() {
    let app = App::start().await;
    let ways = proxies(["one", "two", "three"]).await;
    let pool = "session = 'request.headers[\"x-session\"]'";
    let standin = Standin::start(&config(&app, &urls(&ways), pool, "", STAND_IN)).await;
    standin.is_up().await;
    let mut client = Client::to(standin.address());
    for session in ["s0", "s1", "s2"] {
        assert_eq!(client.send(post("/orders", session, "live")).await.unwrap().status, 201);
    }
    let forced = json!({ "mode": "forced", "reason": "test" });
    assert_eq!(standin.admin_post("/api/v1/mode", &forced).await.status, 200);
    for session in ["s2", "s0", "s1"] {
        assert_eq!(client.send(post("/orders", session, "kept")).await.unwrap().status, 201);
    }
    assert_eq!(app.seen().len(), 3);
    let auto = json!({ "mode": "auto", "reason": "test" });
    assert_eq!(standin.admin_post("/api/v1/mode", &auto).await.status, 200);
    let run = json!({ "reason": "test" });
    standin.admin_post("/api/v1/replay/runs", &run).await;
    eventually(SOON, async || app.seen().len() == 6).await;
    let mut sessions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in app.seen() {
        let session = seen.headers["x-session"].to_str().unwrap().to_owned();
        sessions.entry(session).or_default().push(via(&seen));
    }
    let firsts: BTreeSet<&String> = sessions.values().map(|ways| &ways[0]).collect();
    assert_eq!(firsts.len(), 3, "{sessions:?}");
    assert!(sessions.values().all(|ways| ways.len() == 2 && ways[0] == ways[1]), "{sessions:?}");
}

#[tokio::test]
async fn through_a_tunnel_the_app_gets_the_request_as_it_came_and_connections_are_kept() {
    let app = App::start().await;
    let ways = proxies(["one", "two", "three"]).await;
    let standin = Standin::start(&config(&app, &urls(&ways), "tunnel = \"always\"", "", "")).await;
    standin.is_up().await;
    app.forget();
    let mut client = Client::to(standin.address());
    for order in 0..30 {
        assert_eq!(client.send(post("/orders", "", order.to_string())).await.unwrap().status, 201);
    }
    for seen in app.seen() {
        assert_eq!(via(&seen), "", "nobody looks into a tunnel");
        assert_eq!(seen.headers["host"], standin.address().to_string());
        assert_eq!(seen.target, "/orders");
    }
    // One client is on one worker: a connection for each proxy, and no more.
    assert_eq!(app.wire().len(), 3);
    for name in ["one", "two", "three"] {
        let proxy = standin.proxy(name).await;
        assert!((10..=12).contains(&proxy["requests"].as_u64().unwrap()), "{proxy}");
    }
}

/// Nobody on the way sees into TLS; which proxy it was, the proxies' own logs tell.
#[tokio::test]
async fn https_goes_through_a_tunnel_of_each_proxy_in_turn() {
    let (nobody, pki) = (App::start().await, Pki::new());
    let pair = pki.issue("app", &["127.0.0.1"]);
    let app = TlsApp::start(pki.server(&pair, &["http/1.1"], false));
    let ways = proxies(["one", "two", "three"]).await;
    let tls = format!("[upstream.app.tls]\nca_file = {:?}\n", pki.authority());
    let config = config(&nobody, &urls(&ways), "", "", &tls)
        .replace(&format!("http://{}", nobody.address()), &app.url())
        .replace("[upstream.app]", "[upstream.app]\nconnections = { idle = 3 }");
    let standin = Standin::start(&config).await;
    standin.is_up().await;
    let mut client = Client::to(standin.address());
    for order in 0..30 {
        assert_eq!(client.send(post("/orders", "", order.to_string())).await.unwrap().status, 200);
    }
    assert_eq!(app.seen().len(), 30);
    for seen in app.seen() {
        assert_eq!(seen.headers["host"], standin.address().to_string());
        assert!(!seen.headers.contains_key("proxy-authorization"));
    }
    // One client is on one worker: a tunnel through each proxy, and that of the question at the start.
    assert!(app.handshakes() <= 4, "{} handshakes", app.handshakes());
    for proxy in &ways {
        let output = proxy.output();
        assert!(output.contains("CONNECT 127.0.0.1:"), "{output}");
        assert!(!output.contains("/orders"), "{output}");
        let requests = standin.proxy(proxy.name()).await["requests"].as_u64().unwrap();
        assert!((10..=12).contains(&requests), "{requests}");
    }
    assert!(nobody.seen().is_empty());
}

/// What one proxy is told, to pass a request on, is not told the app through the next one's tunnel.
#[tokio::test]
async fn what_a_proxy_that_failed_was_told_does_not_go_on_to_the_app() {
    let (in_clear, pki) = (App::start().await, Pki::new());
    let over_tls =
        TlsApp::start(pki.server(&pki.issue("app", &["127.0.0.1"]), &["http/1.1"], false));
    let (gone, there) = (NobodyThere::new(), Tinyproxy::start("there").await);
    let ways = [format!("\"http://anna:Hunter2pw@{}#gone\"", gone.address()), there.url()];
    let tls = format!("[upstream.app.tls]\nca_file = {:?}\n", pki.authority());
    let config = config(&in_clear, &ways, "cooling = { failures = 1000 }", "", &tls)
        .replace("endpoints = [", &format!("endpoints = [\"{}\", ", over_tls.url()))
        .replace("workers = 3", "workers = 1");
    let standin = Standin::start(&config).await;
    standin.is_up().await;
    for order in 0..8 {
        assert_eq!(standin.post("/orders", order.to_string()).await.status.as_u16() / 100, 2);
    }
    assert!(standin.proxy("gone").await["failed"].as_u64().unwrap() >= 3);
    assert!(over_tls.seen().len() >= 2 && in_clear.seen_of(&Method::POST).len() >= 2);
    for seen in over_tls.seen() {
        assert!(!seen.headers.contains_key("proxy-authorization"), "{:?}", seen.headers);
        assert_eq!(seen.headers["host"], standin.address().to_string());
    }
}

/// A certificate that is not believed is a matter of configuration: no failure of a proxy, and no outage.
#[tokio::test]
async fn a_certificate_that_is_not_believed_rests_no_proxy() {
    let (nobody, pki, stranger) = (App::start().await, Pki::new(), Pki::new());
    let app = TlsApp::start(pki.server(&pki.issue("app", &["127.0.0.1"]), &["http/1.1"], false));
    let ways = proxies(["one", "two", "three"]).await;
    let tls = format!("{STAND_IN}\n[upstream.app.tls]\nca_file = {:?}\n", pki.authority());
    let config = config(&nobody, &urls(&ways), "", "", &tls)
        .replace(&format!("http://{}", nobody.address()), &app.url())
        .replace("[upstream.app]", "[upstream.app]\nconnections = { idle = 0 }");
    let standin = Standin::start(&config).await;
    standin.is_up().await;
    app.speak(stranger.server(&stranger.issue("app", &["127.0.0.1"]), &["http/1.1"], false));
    for order in 0..6 {
        assert_eq!(standin.post("/orders", order.to_string()).await.status, 503);
    }
    let pool = standin.pool().await;
    let proxies = pool["proxies"].as_array().unwrap();
    let well = |proxy: &Value| proxy["state"] == "active" && proxy["failed"] == 0;
    assert!(proxies.iter().all(well), "{pool}");
    assert!(standin.entries().await.is_empty() && app.seen().is_empty());
    standin.is_up().await;
}
