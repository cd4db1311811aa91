//! Clients over TLS.

use std::{process::Command, time::Duration};

use bytes::Bytes;
use http::{Request, Version};
use tokio::time::{Instant, timeout};

use super::Secure;
use crate::support::{Pki, Raw, Standin, TlsClient, eventually};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn both_versions_of_http_as_agreed_on() {
    let Secure { standin, app, pki } = Secure::start("").await;
    for (alpn, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        app.forget();
        let config = pki.client(None, alpn);
        let mut client = TlsClient::to(standin.address(), "shop.example", config).await.unwrap();
        for _ in 0..2 {
            let body = Bytes::from_static(b"one order");
            let request = Request::post("/orders").header("x-forwarded-proto", "ftp");
            let answer = client.send(request.body(body).unwrap()).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.version), (201, version), "{alpn:?}");
        }
        let seen = app.seen();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(seen[0].body, "one order");
    }
}

/// The address is loopback and so trusted with its own word; what it does not say is filled in.
#[tokio::test]
async fn the_app_is_told_of_https() {
    let Secure { standin, app, pki } = Secure::start("").await;
    let config = pki.client(None, &["http/1.1"]);
    let mut client = TlsClient::to(standin.address(), "shop.example", config).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status, 200);
    assert_eq!(app.seen()[0].headers["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn curl_speaks_both() {
    let Secure { standin, app: _app, pki } = Secure::start("").await;
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let out = curl(&standin, &pki, &[option, "-w", "\n%{http_version} %{http_code}"]);
        assert!(out.ends_with(&format!("\n{version} 200")), "{out}");
    }
    // Whoever does not know the authority does not believe.
    let url = url(&standin);
    let resolve = resolve(&standin);
    let stranger =
        Command::new("curl").args(["-sS", "--resolve", &resolve, &url]).output().unwrap();
    assert_eq!(stranger.status.code(), Some(60), "{stranger:?}");
}

#[tokio::test]
async fn an_old_version_is_refused_where_the_configuration_says_so() {
    let Secure { standin, app: _app, pki } = Secure::start("min_version = \"1.3\"").await;
    let out = curl(&standin, &pki, &["-w", "%{http_code}", "--tls-max", "1.2"]);
    assert!(out.contains("000"), "{out}");
    assert!(curl(&standin, &pki, &["-w", "%{http_code}"]).ends_with("200"));
    let metrics = standin.metrics().await;
    let turned_away = metrics.sum("standin_connections_turned_away_total", &[("why", "tls")]);
    assert!(turned_away >= 1.0, "{}", metrics.0);

    let Secure { standin, app: _app, pki } = Secure::start("").await;
    assert!(curl(&standin, &pki, &["-w", "%{http_code}", "--tls-max", "1.2"]).ends_with("200"));
}

#[tokio::test]
async fn clients_must_show_a_certificate_where_one_is_required() {
    let secure = Secure::start("client_ca = \"{ca}\"").await;
    let Secure { standin, app, pki } = &secure;
    let mine = pki.issue("client", &["a-client"]);
    let other = Pki::new();
    let foreign = other.issue("client", &["a-client"]);
    let ask = async |pair| {
        let config = pki.client(pair, &["h2"]);
        let mut client = TlsClient::to(standin.address(), "shop.example", config).await.ok()?;
        client.get("/").await.ok().map(|answer| answer.status.as_u16())
    };
    assert_eq!(ask(None).await, None);
    assert_eq!(ask(Some(&foreign)).await, None);
    assert!(app.seen().is_empty());
    assert_eq!(ask(Some(&mine)).await, Some(200));
}

#[tokio::test]
async fn an_optional_certificate_must_be_good_all_the_same() {
    let secure = Secure::start("client_ca = \"{ca}\"\nclient_auth = \"optional\"").await;
    let Secure { standin, pki, .. } = &secure;
    let other = Pki::new();
    let foreign = other.issue("client", &["a-client"]);
    for (pair, wanted) in [(None, Some(200)), (Some(&foreign), None)] {
        let config = pki.client(pair, &[]);
        let answer = match TlsClient::to(standin.address(), "shop.example", config).await {
            Ok(mut client) => client.get("/").await.ok().map(|answer| answer.status.as_u16()),
            Err(_) => None,
        };
        assert_eq!(answer, wanted);
    }
}

#[tokio::test]
async fn each_name_gets_its_certificate() {
    let pki = Pki::new();
    let other = pki.issue("other", &["other.example"]);
    let more = format!("more = [{{ cert = {:?}, key = {:?} }}]", other.cert, other.key);
    let secure = Secure::start(&more).await;
    let config = || pki.client(None, &[]);
    let address = secure.standin.address();
    let mut client = TlsClient::to(address, "other.example", config()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status, 200);
    // An authority of its own for each: the first certificate is not believed by the second's clients.
    assert!(TlsClient::to(address, "shop.example", config()).await.is_err());
    let first = secure.pki.client(None, &[]);
    assert!(TlsClient::to(address, "shop.example", first).await.is_ok());
}

/// Whoever says nothing, or begins a handshake and stops, is turned away in time, and does not hold up a drain.
#[tokio::test]
async fn a_handshake_that_never_ends_is_bounded() {
    let limits = "[listen.limits]\nhead_timeout = \"700ms\"\nconnections = 2\n";
    let secure = Secure::start_with("", limits).await;
    let address = secure.standin.address();
    let began = Instant::now();
    let (mut silent, mut stopped) = (Raw::to(address).await, Raw::to(address).await);
    // The beginning of a record.
    stopped.write([22, 3, 1, 2, 0, 1, 0]).await;
    eventually(LIMIT, async || {
        secure.standin.metrics().await.sum("standin_connections_open", &[]) > 1.5
    })
    .await;
    // Both have a place: a third must wait for one.
    let config = secure.pki.client(None, &[]);
    let mut third = TlsClient::to(address, "shop.example", config).await.unwrap();
    assert_eq!(third.get("/").await.unwrap().status, 200);
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    for connection in [&mut silent, &mut stopped] {
        timeout(LIMIT, connection.read_all(LIMIT)).await.expect("it was closed");
    }
    let metrics = secure.standin.metrics().await;
    let late = metrics.sum("standin_connections_turned_away_total", &[("why", "late")]);
    assert!((late - 2.0).abs() < 0.1, "{late}");
    drop(third);

    let mut secure = Secure::start_with("", "[listen.limits]\nhead_timeout = \"60s\"\n").await;
    let _silent = Raw::to(secure.standin.address()).await;
    eventually(LIMIT, async || {
        secure.standin.metrics().await.sum("standin_connections_open", &[]) > 0.5
    })
    .await;
    let began = Instant::now();
    secure.standin.terminate();
    assert!(secure.standin.ended(LIMIT).await.success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_wrong_with_files_is_told_before_the_start() {
    let (pki, folder) = (Pki::new(), crate::support::folder());
    let (one, two) = (pki.issue("one", &["one"]), pki.issue("two", &["two"]));
    let check = |tls: String| {
        let file = folder.path().join("standin.toml");
        let app = "[upstream.app]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        std::fs::write(&file, format!("{app}[listen.tls]\n{tls}")).unwrap();
        let mut command = Command::new(crate::support::binary());
        let out = command.args(["check", "-c"]).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (out.status.success(), text + &String::from_utf8_lossy(&out.stderr))
    };
    let tls = |cert: &std::path::Path, key: &std::path::Path, more: &str| {
        check(format!("cert = {cert:?}\nkey = {key:?}\n{more}"))
    };
    assert!(tls(&one.cert, &one.key, "").0);
    for (what, (fine, text), line) in [
        ("nowhere", tls(&one.cert, &folder.path().join("nowhere"), ""), 5),
        ("KeyMismatch", tls(&one.cert, &two.key, ""), 4),
        ("BEGIN CERTIFICATE", tls(&one.key, &one.key, ""), 4),
        ("without `client_ca`", tls(&one.cert, &one.key, "client_auth = \"optional\""), 6),
        ("did you mean `1.2`", tls(&one.cert, &one.key, "min_version = \"1.1\""), 6),
    ] {
        assert!(!fine && text.contains(what), "{what} is not in {text}");
        assert!(text.contains(&format!("standin.toml:{line}:")), "{what}: line {line}: {text}");
    }
}

fn url(standin: &Standin) -> String {
    format!("https://shop.example:{}/", standin.address().port())
}

fn resolve(standin: &Standin) -> String {
    format!("shop.example:{}:127.0.0.1", standin.address().port())
}

fn curl(standin: &Standin, pki: &Pki, options: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--resolve", &resolve(standin), "--cacert"]);
    let out = curl.arg(pki.authority()).args(options).arg(url(standin)).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}
