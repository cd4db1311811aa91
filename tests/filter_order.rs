//! The order of the filters in `filter_chain.rs` does what its comments say. (That a panic becomes a 500 is tested beside
//! the filter: no request of a client can make one.)

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::support::{App, Behaviour, Client, Standin, eventually, raw};

async fn pair(more: &str) -> (Standin, App) {
    let app = App::start().await;
    let upstream =
        format!("[upstream.app]\nendpoints = [\"http://{}\"]\ntimeout = \"2s\"\n", app.address());
    let config = format!("{more}\n{upstream}");
    let standin = Standin::start(&config).await;
    (standin, app)
}

fn lines_of(standin: &Standin) -> Vec<serde_json::Value> {
    let lines = standin.output();
    let json = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
    json.filter(|line: &serde_json::Value| line["fields"]["message"] == "request").collect()
}

/// The log is outermost: what other filters refuse is logged as what the client got.
#[tokio::test]
async fn the_log_sees_what_others_refuse() {
    let (standin, app) = pair("[log]\naccess = true\nformat = \"json\"\n").await;
    assert_eq!(standin.get("/fine?card=4111111111111111").await.status, 200);
    assert_eq!(standin.get("/cards/4111111111111111").await.status, 200);
    raw(standin.address(), "GET /no-host HTTP/1.1\r\n\r\n").await;
    let via = app.seen()[0].headers["via"].clone();
    let looped = Request::get("/loop").header("via", via).body(Bytes::new()).unwrap();
    assert_eq!(standin.send(looped).await.status, 508);
    let lines = eventually(Duration::from_secs(5), async || {
        let lines = lines_of(&standin);
        if lines.len() == 4 { Ok(lines) } else { Err(standin.output()) }
    })
    .await;
    let field = |path: &str, name: &str| {
        let text =
            |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
        let of = |line: &serde_json::Value| {
            let fields = &line["fields"];
            (fields["path"] == path).then(|| text(&fields[name]))
        };
        lines.iter().find_map(of).unwrap_or_else(|| panic!("{path} in {lines:?}"))
    };
    assert_eq!(field("/fine", "status"), "200");
    assert_eq!(field("/fine", "answered_by"), "app");
    assert_eq!(field("/fine", "request_id").len(), 36);
    assert_eq!(field("/no-host", "status"), "400");
    assert_eq!(field("/loop", "status"), "508");
    assert!(!standin.output().contains("4111"), "no query in the log, nor a card number in a path");
}

/// The limit comes before any work: what is beyond it is not even checked, and its place is free again afterwards.
#[tokio::test]
async fn the_limit_comes_before_the_check() {
    let (standin, app) = pair("[listen.limits]\nin_flight = 1\n").await;
    app.behave(Behaviour::Hang);
    let address = standin.address();
    let waiting = Request::get("/waits").body(Bytes::new()).unwrap();
    let mut client = Client::to(address);
    let beyond = async {
        eventually(Duration::from_secs(2), async || !app.seen().is_empty()).await;
        raw(address, "GET /beyond HTTP/1.1\r\n\r\n").await
    };
    let (waited, beyond) = tokio::join!(client.send(waiting), beyond);
    assert_eq!(waited.unwrap().status, 504);
    assert!(beyond.starts_with("HTTP/1.1 503 "), "{beyond}");
    assert!(beyond.contains("retry-after: 1\r\n"), "{beyond}");

    app.behave(Behaviour::Answer);
    eventually(Duration::from_secs(5), async || standin.get("/after").await.status == 200).await;
    assert!(raw(address, "GET /beyond HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

/// The check comes before the removal: a field that makes a request ambiguous cannot be nominated away first.
#[tokio::test]
async fn the_check_comes_before_the_removal() {
    let (standin, app) = pair("").await;
    for head in [
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: host\r\n\r\n",
    ] {
        let answer = raw(standin.address(), head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}{answer}");
    }
    assert!(app.seen().is_empty());
}

/// The removal comes before `forwarded` and `request_id`: what they add cannot be nominated away.
#[tokio::test]
async fn the_removal_comes_before_what_is_added() {
    let (standin, app) = pair("[request_id]\nheader = \"x-own-id\"\n").await;
    let nominating = Request::get("/")
        .header(
            "connection",
            "x-own-id, via, x-forwarded-for, x-forwarded-host, x-forwarded-proto, x-gone",
        )
        .header("x-gone", "1")
        .body(Bytes::new())
        .unwrap();
    let answer = standin.send(nominating).await;
    let seen = &app.seen()[0].headers;
    for added in ["x-own-id", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
        assert_eq!(seen.get_all(added).iter().count(), 1, "{added}");
    }
    assert!(!seen.contains_key("x-gone"));
    assert_eq!(answer.header("x-own-id"), seen["x-own-id"].to_str().unwrap());
}

/// The answer's removal comes after the app and before what is added: the app cannot nominate our fields away either.
#[tokio::test]
async fn an_app_cannot_nominate_away_what_is_added_to_its_answer() {
    let (standin, app) = pair("").await;
    app.answer_with(|_| {
        http::Response::builder()
            .header("connection", "x-request-id, via, set-cookie, x-gone")
            .header("set-cookie", "a=b")
            .header("x-gone", "1")
            .body(Bytes::new())
            .unwrap()
    });
    let answer = standin.get("/").await;
    assert_eq!(answer.header("x-request-id").len(), 36);
    assert!(answer.header("via").starts_with("1.1 standin-"));
    assert_eq!(answer.header("set-cookie"), "a=b");
    assert!(!answer.headers.contains_key("x-gone"));
}
