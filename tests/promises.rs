//! Promises of docs/GUARANTEES.md that no other file holds, seen from outside.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use tokio::task::JoinSet;

use crate::support::{
    Answer, App, Behaviour, Client, Http2Client, Standin, binary, eventually, orders_config, pair,
};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn card_data_is_never_in_the_file() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    let order = |body: &'static str| {
        let json = Request::post("/orders").header("content-type", "application/json");
        json.body(Bytes::from_static(body.as_bytes())).unwrap()
    };
    for body in [r#"{"number":"4111 1111 1111 1111"}"#, r#"{"pay":{"note":"5555555555554444"}}"#] {
        assert_eq!(standin.send(order(body)).await.status, 503);
    }
    let no_card = standin.send(order(r#"{"number":"4111 1111 1111 1112"}"#)).await;
    assert!(is_stood_in(&no_card), "{no_card:?}");
    let mut in_the_file = Vec::new();
    for name in ["standin.db", "standin.db-wal"] {
        in_the_file.extend(std::fs::read(standin.folder().join(name)).unwrap());
    }
    let holds = |text: &str| memchr::memmem::find(&in_the_file, text.as_bytes()).is_some();
    assert!(holds("4111 1111 1111 1112"), "what is stored would be seen");
    assert!(!holds("4111 1111 1111 1111") && !holds("5555555555554444"));
}

#[tokio::test]
async fn the_files_of_the_store_are_their_owners_alone() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    assert!(is_stood_in(&standin.post("/orders", "1").await));
    let mut files = 0;
    for file in std::fs::read_dir(standin.folder()).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name.starts_with("standin.db") {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{name}");
            files += 1;
        }
    }
    assert!(files >= 3, "the file, its log and its lock");
}

#[tokio::test]
async fn a_second_standin_on_the_same_store_is_refused() {
    let (standin, app) = pair().await;
    let file = standin.folder().join("second.toml");
    let config = format!(
        "{}\n[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [store]\npath = \"{}\"\nephemeral = \"accept_loss\"\n",
        orders_config(app.address()),
        standin.database().display()
    );
    std::fs::write(&file, config).unwrap();
    let refused = || {
        let mut second = Command::new("timeout");
        let second =
            second.arg("10").arg(binary()).arg("run").arg("-c").arg(&file).output().unwrap();
        assert_eq!(second.status.code(), Some(4), "{}", String::from_utf8_lossy(&second.stderr));
    };
    refused();
    // Somebody took it for a left-over.
    std::fs::remove_file(standin.folder().join("standin.db.lock")).unwrap();
    refused();
    assert_eq!(standin.post("/orders", "1").await.status, 201, "the first goes on");
}

#[tokio::test]
async fn on_files_that_were_taken_away_nothing_more_is_promised() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    assert!(is_stood_in(&standin.post("/orders", "before").await));
    for name in ["standin.db", "standin.db-wal"] {
        let (place, elsewhere) = (standin.folder().join(name), standin.folder().join("elsewhere"));
        std::fs::rename(&place, &elsewhere).unwrap();
        eventually(LIMIT, async || standin.post("/orders", "into nothing?").await.status == 503)
            .await;
        let ready = standin.admin_get("/readyz").await.text();
        assert!(ready.contains(&format!("{name} was moved, removed or replaced")), "{ready}");
        std::fs::rename(&elsewhere, &place).unwrap();
        eventually(LIMIT, async || is_stood_in(&standin.post("/orders", "after").await)).await;
    }
    app.restart().await;
    let arrived = async || app.seen().iter().any(|request| &request.body[..] == b"before");
    eventually(LIMIT, arrived).await;
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_is_stored_and_all_hear_the_same() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let mut client = Client::to(standin.address());
        let order = Request::post("/orders").header("idempotency-key", "\"k\"");
        let order = order.body(Bytes::from_static(b"1")).unwrap();
        clients.spawn(async move { client.send(order).await.unwrap() });
    }
    let answers = clients.join_all().await;
    assert!(answers.iter().all(is_stood_in));
    let bodies: BTreeSet<Bytes> = answers.into_iter().map(|answer| answer.body).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(standin.entries().await.len(), 1);
}

/// PUT goes in the order of its target, without a word in the configuration.
async fn pair_of_changes() -> (Standin, App) {
    let app = App::start().await;
    let config = orders_config(app.address())
        .replace("match = \"POST /orders\"", "match = \"PUT /orders/{id}\"")
        .replace("timeout = \"2s\"", "timeout = \"600ms\"");
    let standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.forget();
    (standin, app)
}

#[tokio::test]
async fn changes_of_one_thing_reach_the_app_in_their_order() {
    let (standin, mut app) = pair_of_changes().await;
    let put = |body: &'static str| Request::put("/orders/7").body(Bytes::from(body)).unwrap();
    app.stop().await;
    for body in ["1", "2"] {
        assert!(is_stood_in(&standin.send(put(body)).await));
    }
    app.restart().await;
    // While earlier ones are stored it goes behind them, else live.
    let answer = standin.send(put("3")).await;
    assert!(answer.status.is_success(), "{answer:?}");
    eventually(LIMIT, async || {
        let seen = app.seen_of(&Method::PUT);
        let bodies: Vec<Bytes> = seen.into_iter().map(|seen| seen.body).collect();
        if bodies == ["1", "2", "3"] { Ok(()) } else { Err(bodies) }
    })
    .await;
}

/// The first one may still be applied when it is replayed: a later one that went live before would be undone by it.
#[tokio::test]
async fn a_change_that_hangs_is_not_overtaken_by_the_next() {
    let (standin, app) = pair_of_changes().await;
    let put = |body: &'static str| Request::put("/orders/7").body(Bytes::from(body)).unwrap();
    let bodies =
        || -> Vec<Bytes> { app.seen_of(&Method::PUT).into_iter().map(|seen| seen.body).collect() };
    app.behave(Behaviour::Hang);
    let second = async {
        eventually(LIMIT, async || if bodies() == ["1"] { Ok(()) } else { Err(bodies()) }).await;
        app.behave(Behaviour::Answer);
        standin.send(put("2")).await
    };
    let (first, second) = tokio::join!(standin.send(put("1")), second);
    assert!(is_stood_in(&first) && is_stood_in(&second), "{first:?} {second:?}");
    eventually(LIMIT, async || {
        let seen = bodies();
        if seen == ["1", "1", "2"] { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// A change that is held because nobody heard its answer is the head of its sequence: its own retry is not behind it.
#[tokio::test]
async fn an_unanswered_change_does_not_wait_for_itself() {
    let (standin, app) = pair_of_changes().await;
    let put = || {
        let put = Request::put("/orders/7").header("idempotency-key", "\"k\"");
        put.body(Bytes::from_static(b"1")).unwrap()
    };
    app.behave(Behaviour::Hang);
    let client = Http2Client::to(standin.address()).await;
    let sent = tokio::time::timeout(Duration::from_millis(200), client.send(put())).await;
    assert!(sent.is_err(), "{sent:?}");
    drop(client);
    standin.entry_becomes("held(unanswered)").await;
    let answer = standin.send(put()).await;
    assert!(is_stood_in(&answer), "{answer:?}");
    app.behave(Behaviour::Answer);
    standin.entry_becomes("completed").await;
}

fn is_stood_in(answer: &Answer) -> bool {
    answer.status.is_success() && answer.header("proxy-status").starts_with("standin")
}
