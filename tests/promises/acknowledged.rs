//! What is stored, when, and what is never stored.

use std::os::unix::fs::PermissionsExt;

use http::StatusCode;

use super::{LIMIT, as_it_is, assert_honest, entries, pair, stood_in, the_entry};
use crate::support::{App, Behaviour, Standin, eventually, orders_config};

#[tokio::test]
async fn nothing_is_stood_in_for_before_the_app_was_seen() {
    let mut app = App::start().await;
    let config = orders_config(app.address());
    app.stop().await;
    let standin = Standin::start(&config).await;
    assert_honest(&standin.post("/orders", "1").await, 503);
    assert!(entries(&standin).await.is_empty());
    app.restart().await;
    eventually(LIMIT, async || standin.get("/").await.status == 200).await;
    app.stop().await;
    assert!(stood_in(&standin.post("/orders", "2").await));
}

#[tokio::test]
async fn an_outage_that_was_going_on_still_is_after_a_restart() {
    let (mut standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    assert!(stood_in(&standin.post("/orders", "1").await));
    standin.kill();
    let standin = standin.restart().await;
    eventually(LIMIT, async || stood_in(&standin.post("/orders", "2").await)).await;
    app.restart().await;
    app.receives(["1", "2"]).await;
}

#[tokio::test]
async fn on_a_disk_that_will_not_live_it_only_forwards() {
    let shm = tempfile::Builder::new().prefix("standin-").tempdir_in("/dev/shm").unwrap();
    let store = shm.path().join("standin.db");
    let of = |ephemeral: &str, app: &App| {
        let config = orders_config(app.address());
        format!("{config}\n[store]\npath = \"{}\"\nephemeral = \"{ephemeral}\"\n", store.display())
    };
    let mut app = App::start().await;
    let standin = Standin::start(&of("refuse", &app)).await;
    assert_eq!(standin.post("/orders", "1").await.status, 201, "forwarded");
    assert_eq!(standin.admin_get("/readyz").await.status, 200, "it can forward");
    app.stop().await;
    assert_honest(&standin.post("/orders", "2").await, 503);
    app.restart().await;
    drop(standin);

    let standin = Standin::start(&of("accept_loss", &app)).await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    assert!(stood_in(&standin.post("/orders", "3").await));
}

#[tokio::test]
async fn card_data_is_never_stored() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let json = |body: &str| {
        http::Request::post("/orders")
            .header("content-type", "application/json")
            .body(bytes::Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    };
    for body in [
        r#"{"number":"4111 1111 1111 1111"}"#,
        r#"{"pay":{"note":"5555555555554444"}}"#,
        r#"{"cvv":"123"}"#,
    ] {
        assert_honest(&standin.send(json(body)).await, 503);
    }
    assert!(stood_in(&standin.send(json(r#"{"number":"4111 1111 1111 1112"}"#)).await), "no card");
    for name in ["standin.db", "standin.db-wal"] {
        let bytes = std::fs::read(standin.folder().join(name)).unwrap_or_default();
        for secret in ["4111 1111 1111 1111", "5555555555554444"] {
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn the_files_of_the_store_are_their_owners_alone() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    assert!(stood_in(&standin.post("/orders", "1").await));
    for file in std::fs::read_dir(standin.folder()).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name.starts_with("standin.db") {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{name}");
        }
    }
}

#[tokio::test]
async fn a_second_standin_on_the_same_store_is_refused() {
    let (standin, app) = pair(as_it_is).await;
    let config = orders_config(app.address());
    let file = standin.folder().join("second.toml");
    let more = format!(
        "{config}\n[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [store]\npath = \"{}\"\nephemeral = \"accept_loss\"\n",
        standin.database().display()
    );
    std::fs::write(&file, more).unwrap();
    let mut second = std::process::Command::new(crate::support::binary());
    let ended = second.arg("run").arg("-c").arg(&file).output().unwrap();
    assert_eq!(ended.status.code(), Some(4), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(standin.post("/orders", "1").await.status, 201, "the first goes on");
}

#[tokio::test]
async fn a_large_or_doubtful_request_is_not_stored() {
    let (standin, mut app) = pair(as_it_is).await;
    app.stop().await;
    let request = |name: &'static str, value: &'static str, body: &'static str| {
        let request = http::Request::post("/orders").header(name, value);
        request.body(bytes::Bytes::from_static(body.as_bytes())).unwrap()
    };
    for doubtful in [
        request("content-type", "application/json", r#"{"cents":1,"cents":2}"#),
        request("content-encoding", "gzip", "not gzip, but who knows"),
        request("range", "bytes=0-1", "x"),
        request("if-match", "\"a\"", "x"),
    ] {
        let shown = format!("{doubtful:?}");
        let answer = standin.send(doubtful).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{shown}");
    }
    assert_honest(&standin.get("/orders").await, 503);
    assert!(entries(&standin).await.is_empty());
}

#[tokio::test]
async fn without_protection_only_what_never_reached_the_app_is_stored() {
    let (standin, mut app) =
        pair(|config| config.replace("app_dedupes = { by = \"x-request-id\", for = \"7d\" }", ""))
            .await;
    app.behave(Behaviour::Cut);
    assert_honest(&standin.post("/orders", "cut").await, 502);
    assert!(entries(&standin).await.is_empty());
    app.stop().await;
    let stored = standin.post("/orders", "refused").await;
    assert!(stood_in(&stored), "{stored:?}");
    let entry = the_entry(&standin, |_| true).await;
    assert_eq!(entry["certainty"], "not_sent");
}
