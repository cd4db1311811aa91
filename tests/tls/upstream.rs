//! TLS to the app: a private authority, names, client certificates, and what is no outage.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Pair, Pki, Standin, TlsApp, eventually, orders_config};

const LIMIT: Duration = Duration::from_secs(20);

/// A standin before an app at `url`, with these lines of `[upstream.app.tls]`.
fn config(url: &str, tls: &str) -> String {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let orders = orders_config(any).replace(&format!("http://{any}"), url);
    format!("{orders}\n[upstream.app.tls]\n{tls}\n")
}

fn key(name: &str, path: &Path) -> String {
    format!("{name} = {path:?}\n")
}

#[tokio::test]
async fn a_private_authority_is_believed() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    let app = TlsApp::start(pki.server(&pair, &["http/1.1"], false));
    let standin = Standin::start(&config(&app.url(), &key("ca_file", &pki.authority()))).await;
    let mut client = Client::to(standin.address());
    let get = |path: &str| Request::get(path).body(Bytes::new()).unwrap();
    for path in ["/", "/bytes/300000"] {
        let answer = client.send(get(path)).await.unwrap();
        assert_eq!(answer.status, 200);
        let length = path.strip_prefix("/bytes/").map_or(8, |n| n.parse().unwrap());
        assert_eq!(answer.body.len(), length);
    }
    let body = "x".repeat(200_000);
    assert_eq!(standin.post("/upload", body.clone()).await.status, 200);
    assert_eq!(standin.post("/orders", "one").await.status, 200);
    let seen = app.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[2].body, body);
    // One connection of a worker serves many requests: two workers, and the question at the start.
    assert!(app.handshakes() <= 3, "{} handshakes", app.handshakes());
}

/// Neither a stranger's certificate nor a wrong name is an outage: nothing is stood in for, and nothing reaches the app.
#[tokio::test]
async fn a_certificate_that_is_not_believed_is_our_own_trouble() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let right = pki.issue("right", &["127.0.0.1"]);
    let server = |pair: &Pair, pki: &Pki| pki.server(pair, &["http/1.1"], false);
    let app = TlsApp::start(server(&right, &pki));
    // Each request has a connection, and so a handshake, of its own.
    let config = config(&app.url(), &key("ca_file", &pki.authority()))
        .replace("[upstream.app]", "[upstream.app]\nconnections = { idle = 0 }");
    let standin = Standin::start(&config).await;
    assert_eq!(standin.post("/orders", "seen").await.status, 200);
    standin.upstream_is("up").await;

    let wrong_name = pki.issue("wrong", &["other.example"]);
    let expired = pki.issue_until("old", &["127.0.0.1"], 2021);
    for (pair, of) in [
        (&stranger.issue("stranger", &["127.0.0.1"]), &stranger),
        (&wrong_name, &pki),
        (&expired, &pki),
    ] {
        app.speak(server(pair, of));
        let refused = standin.post("/orders", "not now").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert!(standin.entries().await.is_empty());
        let status = standin.admin_get("/api/v1/status").await.json();
        assert_eq!(status["upstreams"][0]["condition"], "up", "no outage");
        app.speak(server(&right, &pki));
        assert_eq!(standin.post("/orders", "again").await.status, 200);
    }
}

#[tokio::test]
async fn a_name_can_be_given() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["shop.example"]);
    let app = TlsApp::start(pki.server(&pair, &["http/1.1"], false));
    let tls = key("ca_file", &pki.authority()) + "server_name = \"shop.example\"\n";
    let standin = Standin::start(&config(&app.url(), &tls)).await;
    assert_eq!(standin.get("/").await.status, 200);
    let nameless = Standin::start(&config(&app.url(), &key("ca_file", &pki.authority()))).await;
    assert_eq!(nameless.get("/").await.status, 503);
}

#[tokio::test]
async fn an_app_that_asks_for_a_certificate_gets_it() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    let mine = pki.issue("standin", &["standin"]);
    let app = TlsApp::start(pki.server(&pair, &[], true));
    let ca = key("ca_file", &pki.authority());
    let tls = ca.clone() + &key("cert", &mine.cert) + &key("key", &mine.key);
    let standin = Standin::start(&config(&app.url(), &tls)).await;
    assert_eq!(standin.get("/").await.status, 200);

    // With TLS 1.3 the app's no comes after the handshake. It is no outage either: nothing is stood in for.
    let without = Standin::start(&config(&app.url(), &ca)).await;
    for _ in 0..3 {
        let refused = without.post("/orders", "one").await;
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    assert!(without.entries().await.is_empty());
    assert!(app.seen().iter().all(|seen| seen.body.is_empty()));
}

/// The certificate that standin shows is read again, as its own are.
#[tokio::test]
async fn a_client_certificate_is_read_again() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    let app = TlsApp::start(pki.server(&pair, &[], true));
    // Not yet one that the app knows.
    let mine = pki.folder().join("mine.pem");
    let stranger = Pki::new();
    let (cert, private) = stranger.pem(&["standin"], 2040);
    std::fs::write(&mine, cert + &private).unwrap();
    let tls = key("ca_file", &pki.authority()) + &key("cert", &mine) + &key("key", &mine);
    let standin = Standin::start(&config(&app.url(), &tls)).await;
    assert_eq!(standin.get("/").await.status, 503);
    let (cert, private) = pki.pem(&["standin"], 2040);
    std::fs::write(&mine, cert + &private).unwrap();
    eventually(LIMIT, async || standin.get("/").await.status == 200).await;
    let labels = [("section", "upstream.app.tls")];
    assert!(standin.metrics().await.sum("standin_certificate_end_seconds", &labels) > 1.0);
}

/// A listener that takes connections and breaks the handshake is an app that is not there.
#[tokio::test]
async fn a_broken_handshake_is_an_outage_and_nothing_was_sent() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["127.0.0.1"]);
    let app = TlsApp::start(pki.server(&pair, &["http/1.1"], false));
    let broken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", broken.local_addr().unwrap());
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut stream, _) = broken.accept().await.unwrap();
            let mut hello = [0; 16];
            drop(stream.read(&mut hello).await);
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let ca = key("ca_file", &pki.authority());
    let standin = Standin::start(&config(&app.url(), &ca)).await;
    assert_eq!(standin.get("/").await.status, 200);
    drop(standin);
    // Seen before, in the same store: its outage is stood in for.
    let both = config(&app.url(), &ca).replace(&app.url(), &format!("{url}\", \"{}", app.url()));
    let standin = Standin::start(&both).await;
    assert_eq!(standin.get("/").await.status, 200);
    // Its connections are gone with it: on one that is about to close the order might have been sent.
    drop(app);
    let answer = standin.post("/orders", "one").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let entry = standin.entry().await;
    assert_eq!(entry["certainty"], "not_sent", "{entry}");
}

#[tokio::test]
async fn no_certificate_is_looked_at_only_with_a_loud_warning() {
    let pki = Pki::new();
    let pair = pki.issue("app", &["somebody.example"]);
    let app = TlsApp::start(pki.server(&pair, &["http/1.1"], false));
    let config = config(&app.url(), "insecure_accept_any_certificate = true");
    let standin = Standin::start(&config).await;
    assert_eq!(standin.get("/").await.status, 200);
    assert!(standin.output().contains("NOBODY'S CERTIFICATE IS LOOKED AT"));
    let status = standin.admin_get("/api/v1/status").await.json();
    assert_eq!(status["severity"], "alarm", "{status}");
    assert!(status["sentences"][0]["text"].as_str().unwrap().contains("anybody can pose"));
    assert!(standin.admin_get("/").await.text().contains("anybody is believed"));
    let file = standin.folder().join("standin.toml");
    let mut check = std::process::Command::new(crate::support::binary());
    let out = check.args(["check", "-c"]).arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("NOBODY'S CERTIFICATE"), "{out:?}");
}

#[test]
fn keys_without_effect_and_files_without_sense_are_told() {
    use standin::config::Config;
    let fault = |endpoint: &str, tls: &str| {
        let text = format!("[upstream.a]\nendpoints = [\"{endpoint}\"]\n[upstream.a.tls]\n{tls}\n");
        Config::parse(&text, "standin.toml").err().map(|faults| faults.to_string())
    };
    for (endpoint, tls, what) in [
        ("http://a:1", "min_version = \"1.3\"", "no endpoint begins with https://"),
        ("https://a:1", "cert = \"a.pem\"", "has no effect without `key`"),
        ("https://a:1", "ca_file = \"/nowhere/ca.pem\"", "/nowhere/ca.pem"),
        ("https://a:1", "server_name = \"a b\"", "cannot stand in a certificate"),
    ] {
        let told = fault(endpoint, tls).unwrap_or_default();
        assert!(told.contains(what), "{what} is not in {told}");
    }
}
