//! How many connections there are, how many requests each serves, and who waits for one.

use std::{sync::Arc, time::Duration};

use http::{Method, Version};

use super::{HTTP2, SOON, at_once, before, config, request, statuses};
use crate::support::{App, Behaviour, Client, Http2App, Making, Pki, Standin, TlsApp, eventually};

fn connections_of(app: &Http2App) -> usize {
    let mut connections: Vec<_> = app.seen().iter().map(|seen| seen.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    connections.len()
}

#[tokio::test]
async fn no_more_than_the_limit_are_open_and_who_waits_is_served() {
    let app = Http2App::start();
    let standin = before(&app.url(), "", "max = 2").await;
    let requests = (0..8).map(|n| request(Method::POST, "/slow/50", n.to_string()));
    assert_eq!(statuses(&at_once(&standin, requests).await), [200; 8]);
    assert_eq!((connections_of(&app), app.most_at_once()), (2, 2));
}

/// Time and number of those who wait have an end; what was refused was not sent.
#[tokio::test]
async fn waiting_has_an_end() {
    let app = Http2App::start();
    let standin = before(&app.url(), "", "max = 1\nqueue = 2").await;
    let (first, ()) = tokio::join!(standin.get("/slow/1500"), async {
        eventually(SOON, async || app.seen().len() == 1).await;
        let requests = (0..5).map(|n| request(Method::POST, "/plain", n.to_string()));
        let answers = at_once(&standin, requests).await;
        assert_eq!(statuses(&answers), [503; 5]);
        let texts: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().text()).collect();
        assert!(texts.iter().all(|text| text.contains("was not applied")), "{texts:?}");
    });
    assert_eq!(first.status, 200);
    assert_eq!(app.seen().len(), 1, "none of them reached the app");
    assert_eq!(standin.get("/").await.status, 200);
    // It is no outage, and nobody's fault but ours.
    standin.upstream_is("up").await;
}

/// A listener before an app that takes its time with each connection.
async fn slowly(app: std::net::SocketAddr, time: Duration) -> (String, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut all = tokio::task::JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            all.spawn(async move {
                tokio::time::sleep(time).await;
                let mut app = tokio::net::TcpStream::connect(app).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut app).await.ok();
            });
        }
    });
    (url, tasks)
}

/// Who waited for its turn to open a connection has not used up the app's time to take it.
#[tokio::test]
async fn a_wait_in_the_queue_takes_no_time_from_the_app() {
    let pki = Pki::new();
    let app = TlsApp::start(pki.server(&pki.issue("app", &["127.0.0.1"]), &["http/1.1"], false));
    let (url, _slow) = slowly(app.address(), Duration::from_millis(700)).await;
    let connections = "max = 1\nmax_requests = 1\nqueue = 9\n";
    let tls = format!("{connections}[upstream.app.tls]\nca_file = {:?}", pki.authority());
    let config = super::config(&url, "", &tls)
        .replace("connect_timeout = \"500ms\"", "connect_timeout = \"2s\"")
        .replace("timeout = \"3s\"", "timeout = \"9s\"")
        .replace("interval = \"50ms\"", "interval = \"50ms\", timeout = \"5s\"");
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    // The third one has its turn when less is left than a connection takes.
    let answers = at_once(&standin, (0..3).map(|_| request(Method::POST, "/plain", "x"))).await;
    assert_eq!(statuses(&answers), [200, 200, 200]);
}

/// Where standin may answer for the app, it does: nothing was sent.
#[tokio::test]
async fn who_waits_in_vain_may_be_stood_in_for() {
    let app = Http2App::start();
    let standin = before(&app.url(), "", "max = 1").await;
    let (first, ()) = tokio::join!(standin.get("/slow/1500"), async {
        eventually(SOON, async || app.seen().len() == 1).await;
        let answer = standin.post("/orders", "one").await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(standin.entry().await["certainty"], "not_sent");
    });
    assert_eq!(first.status, 200);
}

/// A client that waits and leaves takes nobody else's turn.
#[tokio::test]
async fn who_leaves_the_queue_passes_its_turn_on() {
    let app = Http2App::start();
    let lines = "connect_timeout = \"10s\"";
    let config = config(&app.url(), "", "max = 1").replace("connect_timeout = \"500ms\"", lines);
    let standin = Standin::start(&config).await;
    standin.upstream_is("up").await;
    let (first, (), last) = tokio::join!(
        standin.get("/slow/700"),
        async {
            let mut leaves = Client::to(standin.address()).patience(Duration::from_millis(300));
            eventually(SOON, async || app.seen().len() == 1).await;
            assert!(leaves.send(request(Method::GET, "/", "")).await.is_err());
        },
        async {
            eventually(SOON, async || app.seen().len() == 1).await;
            standin.get("/").await
        }
    );
    assert_eq!((first.status.as_u16(), last.status.as_u16()), (200, 200));
}

#[tokio::test]
async fn a_connection_is_replaced_after_its_requests() {
    for (lines, version) in [("", Version::HTTP_11), (HTTP2, Version::HTTP_2)] {
        let app = Http2App::start();
        let standin = before(&app.url(), lines, "max_requests = 5").await;
        let mut client = Client::to(standin.address());
        for _ in 0..20 {
            let answer = client.send(request(Method::POST, "/plain", "x")).await.unwrap();
            assert_eq!(answer.status, 200);
        }
        let seen = app.seen();
        assert!(seen.iter().all(|seen| seen.version == version));
        assert_eq!(connections_of(&app), 4, "{version:?}");
    }
}

/// One multiplexed connection to each address, always on: opened at the start, with whatever comes on it.
#[tokio::test]
async fn one_connection_carries_everything() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    let tls = Some(Arc::new(pki.server(&pair, &["h2"], false)));
    let ca = format!("tls = {{ ca_file = {:?} }}", pki.authority());
    for (tls, lines) in [(None, HTTP2), (tls, &*ca)] {
        let app = Http2App::made(Making { tls, streams: Some(10) });
        let standin = before(&app.url(), lines, "max = 1\nkeep_open = 1").await;
        // The control thread's question has one of its own for a while.
        eventually(SOON, async || app.open() == 1).await;
        let requests = (0..40).map(|n| request(Method::POST, "/slow/20", n.to_string()));
        assert_eq!(statuses(&at_once(&standin, requests).await), [200; 40]);
        assert_eq!((connections_of(&app), app.most_at_once()), (1, 10));
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    for lines in ["", HTTP2] {
        let app = Http2App::start();
        let idle = "idle_time = \"300ms\"\ntrust_idle = \"300ms\"";
        let standin = before(&app.url(), lines, idle).await;
        assert_eq!(standin.get("/").await.status, 200);
        assert!(app.open() >= 1);
        eventually(SOON, async || app.open() == 0).await;
        assert_eq!(standin.get("/").await.status, 200);
    }
}

/// The kernel is told to ask whether the other end is still there.
#[tokio::test]
async fn tcp_asks_whether_the_other_end_is_there() {
    for (lines, asks) in [("", true), ("tcp_keepalive = \"0s\"", false)] {
        let app = App::start().await;
        let url = format!("http://{}", app.address());
        let mut standin = before(&url, "", lines).await;
        app.behave(Behaviour::Hang);
        let pid = standin.process().pid();
        let (_, ()) = tokio::join!(standin.get("/"), async {
            eventually(SOON, async || !app.seen().is_empty()).await;
            let timers = timers(pid, app.address().port());
            assert!(!timers.is_empty());
            assert_eq!(timers.iter().all(|timer| timer == "02"), asks, "{lines}: {timers:?}");
        });
    }
}

/// Which timer runs on each connection of this process to that port (`proc(5)`; 02: keep-alive).
fn timers(pid: u32, port: u16) -> Vec<String> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let to = format!(":{port:04X}");
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns
        .filter(|columns| columns.len() > 5 && columns[2].ends_with(&to) && columns[3] == "01")
        .map(|columns| columns[5].split(':').next().unwrap().to_owned())
        .collect()
}

/// A reload changes how the app is spoken to; what is under way ends as it began.
#[tokio::test]
async fn a_reload_changes_protocol_and_limits() {
    let app = Http2App::start();
    let standin = before(&app.url(), "", "").await;
    assert_eq!(standin.get("/").await.status, 200);
    let (under_way, ()) = tokio::join!(standin.get("/slow/800"), async {
        eventually(SOON, async || app.seen().len() == 2).await;
        standin.rewrite_config(&config(&app.url(), HTTP2, "max = 1\nkeep_open = 1"));
        let why = serde_json::json!({ "reason": "a test" });
        let reloaded = standin.admin_post("/api/v1/reload", &why).await;
        assert_eq!(reloaded.json()["generation"], 2, "{}", reloaded.text());
        eventually(SOON, async || {
            assert_eq!(standin.get("/").await.status, 200);
            app.seen().last().unwrap().version == Version::HTTP_2
        })
        .await;
    });
    assert_eq!(under_way.status, 200);
    assert_eq!(app.seen()[1].version, Version::HTTP_11);
    let before = app.seen().len();
    let requests = (0..20).map(|n| request(Method::POST, "/slow/20", n.to_string()));
    assert_eq!(statuses(&at_once(&standin, requests).await), [200; 20]);
    let on: Vec<_> = app.seen()[before..].iter().map(|seen| seen.connection).collect();
    assert!(on.iter().all(|one| *one == on[0]), "{on:?}");
    // The old ones go.
    eventually(SOON, async || app.open() == 1).await;
}
