//! A configuration that changes while standin runs: taken up whole or refused whole, and no request is dropped for it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{App, Behaviour, Client, Standin, binary, eventually, folder, orders_config};

const LIMIT: Duration = Duration::from_secs(20);

/// One upstream and a plain route to it.
fn config(app: &App) -> String {
    format!("[upstream.shop]\nendpoints = [\"http://{}\"]\n", app.address())
}

async fn reload(standin: &Standin) -> (u16, serde_json::Value) {
    let answer = standin.admin_post("/api/v1/reload", &json!({ "reason": "a test" })).await;
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test]
async fn another_endpoint_is_taken_up_and_no_request_is_dropped() {
    let (before, after) = (App::start().await, App::start().await);
    let standin = Standin::start(&config(&before)).await;
    assert_eq!(standin.get("/").await.status, 200);
    let go_on = Arc::new(AtomicBool::new(true));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (mut client, go_on) = (Client::to(standin.address()), Arc::clone(&go_on));
        clients.spawn(async move {
            let mut answered = 0;
            while go_on.load(Ordering::Relaxed) {
                let request = Request::get("/").body(Bytes::new()).unwrap();
                assert_eq!(client.send(request).await.unwrap().status, 200);
                answered += 1;
            }
            answered
        });
    }
    // One that is under way when the app it went to is no longer in the configuration.
    before.behave(Behaviour::Slow(Duration::from_millis(700)));
    let seen = before.seen().len();
    eventually(LIMIT, async || before.seen().len() > seen).await;
    standin.rewrite_config(&config(&after));
    let (status, state) = reload(&standin).await;
    assert_eq!((status, &state["generation"]), (200, &json!(2)), "{state}");
    assert!(state["last"]["changes"][0].as_str().unwrap().contains("upstream.shop.endpoints"));
    eventually(LIMIT, async || after.seen().len() > 20).await;
    let at_old = before.seen().len();
    let at_new = after.seen().len();
    eventually(LIMIT, async || after.seen().len() > at_new + 20).await;
    assert_eq!(before.seen().len(), at_old, "nothing new goes to the old endpoint");
    go_on.store(false, Ordering::Relaxed);
    assert!(clients.join_all().await.into_iter().sum::<usize>() > 40);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_whole_and_the_old_one_goes_on() {
    let app = App::start().await;
    let standin = Standin::start(&config(&app)).await;
    let wrong = format!("{}[route.orders]\nmatch = \"POST\"\ntimeuot = \"1s\"\n", config(&app));
    standin.rewrite_config(&wrong);
    let (status, problem) = reload(&standin).await;
    assert_eq!(status, 422);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("timeuot") && detail.contains("match"), "all faults at once: {detail}");
    assert_eq!(standin.get("/").await.status, 200);
    let ready = standin.admin_get("/readyz").await;
    assert_eq!(ready.status, 200, "it can forward");
    assert!(ready.text().contains("the new configuration is refused"), "{}", ready.text());
    let page = standin.admin_get("/").await.text();
    assert!(page.contains("timeuot"), "the fault is on the page");
    let metrics = standin.metrics().await;
    assert_eq!(metrics.sum("standin_config_last_reload_successful", &[]), 0.0);
    // Mended, all of that is over.
    standin.rewrite_config(&config(&app));
    assert_eq!(reload(&standin).await.0, 200);
    let ready = standin.admin_get("/readyz").await.text();
    assert!(!ready.contains("configuration"), "{ready}");
    assert_eq!(standin.metrics().await.sum("standin_config_last_reload_successful", &[]), 1.0);
}

#[tokio::test]
async fn what_needs_a_restart_is_named() {
    let app = App::start().await;
    let standin = Standin::start(&config(&app)).await;
    standin.rewrite_config(&format!("drain = \"1s\"\n{}timeout = \"3s\"\n", config(&app)));
    let (status, problem) = reload(&standin).await;
    assert_eq!(status, 422);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("need a restart: drain"), "{detail}");
    let state = standin.admin_get("/api/v1/status").await.json();
    assert_eq!(state["config"]["generation"], 1, "not even the timeout changed");
}

/// Whoever starts it may ask it at once: as soon as it says where it listens.
#[tokio::test]
async fn a_signal_right_after_the_start_ends_nothing() {
    let folder = folder();
    let file = folder.path().join("standin.toml");
    let text = "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
                [upstream.a]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    std::fs::write(&file, text).unwrap();
    for _ in 0..12 {
        let mut command = Command::new(binary());
        command.args(["run", "-c"]).arg(&file).current_dir(folder.path());
        let mut standin = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(standin.stdout.take().unwrap());
        // Read here and now: whoever polls for it comes too late.
        let mut line = String::new();
        while !line.starts_with("listening on ") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0);
        }
        let pid = rustix::process::Pid::from_child(&standin);
        rustix::process::kill_process(pid, Signal::HUP).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        let request = Request::get("/").body(Bytes::new()).unwrap();
        let answer = Client::to(address).send(request).await;
        assert_eq!(standin.try_wait().unwrap(), None);
        standin.kill().unwrap();
        standin.wait().unwrap();
        assert_eq!(answer.unwrap().status, 503);
    }
}

#[tokio::test]
async fn a_signal_and_a_changed_file_do_the_same() {
    let app = App::start().await;
    let mut standin = Standin::start(&config(&app)).await;
    let generation = async |standin: &Standin| {
        standin.admin_get("/api/v1/status").await.json()["config"]["generation"].as_u64()
    };
    standin.rewrite_config(&format!("{}timeout = \"3s\"\n", config(&app)));
    eventually(LIMIT, async || generation(&standin).await == Some(2)).await;
    standin.rewrite_config(&format!("{}timeout = \"4s\"\n", config(&app)));
    standin.process().signal(Signal::HUP);
    eventually(LIMIT, async || generation(&standin).await == Some(3)).await;
    assert!(standin.output().contains("upstream.shop.timeout"), "the difference is in the log");
}

/// Caps, keys in flight, entries and modes are no part of the configuration: they are there before and after.
#[tokio::test]
async fn what_was_promised_before_a_reload_is_kept_after_it() {
    let mut app = App::start().await;
    let standin = Standin::start(&orders_config(app.address())).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    let order = |key: &str| {
        Request::post("/orders")
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(Bytes::from_static(b"{\"currency\":\"USD\",\"cents\":100}"))
            .unwrap()
    };
    let first = standin.send(order("one")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let slower = orders_config(app.address()).replacen(
        "[upstream.",
        "[route.extra]\nmatch = \"GET /extra\"\n[upstream.",
        1,
    );
    standin.rewrite_config(&slower);
    let (status, state) = reload(&standin).await;
    assert_eq!((status, &state["generation"]), (200, &json!(2)), "{state}");
    // The app is down since before, and the same key has the same answer.
    let again = standin.send(order("one")).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    let other = standin.send(order("two")).await;
    assert_eq!(other.status, 201, "{}", other.text());
    app.restart().await;
    eventually(LIMIT, async || {
        let metrics = standin.metrics().await;
        metrics.sum("standin_open_entries", &[]) == 0.0
    })
    .await;
    let orders = app.seen().iter().filter(|seen| seen.target == "/orders").count();
    assert_eq!(orders, 2, "each of the two was applied once");
    let audit = standin.admin_get("/api/v1/audit").await.text();
    assert!(audit.contains("\"reload\"") && audit.contains("route.extra"), "{audit}");
}
