//! The PROXY protocol: a load balancer's word about its client, from those who may give it.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::Secure;
use crate::support::{App, Raw, Standin, TlsClient, eventually, orders_config, raw};

const LIMIT: Duration = Duration::from_secs(20);
const VERSION_1: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n";
const REQUEST: &[u8] = b"GET /p HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";

/// The same client in version 2, who came over TLS.
fn version_2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14".to_vec();
    header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0xdc, 0x04, 1, 0xbb]);
    header.extend([0x20, 0, 5, 1, 0, 0, 0, 0]);
    header
}

async fn behind_a_load_balancer(from: &str) -> (Standin, App) {
    let app = App::start().await;
    let config = orders_config(app.address());
    let config = format!("{config}\n[listen]\nproxy_protocol = {{ from = [{from:?}] }}\n");
    (Standin::start(&config).await, app)
}

#[tokio::test]
async fn the_client_is_the_one_it_names() {
    let (standin, app) = behind_a_load_balancer("127.0.0.0/8").await;
    for (header, proto) in [(VERSION_1.to_vec(), "http"), (version_2(), "https")] {
        app.forget();
        let answer = raw(standin.address(), [&header, REQUEST].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let seen = &app.seen()[0];
        assert_eq!(seen.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(seen.headers["x-forwarded-proto"], proto);
    }
    // In pieces, as a slow network may bring it; a health check of the load balancer itself.
    app.forget();
    let mut slow = Raw::to(standin.address()).await;
    for byte in VERSION_1 {
        slow.write([*byte]).await;
    }
    slow.write(REQUEST).await;
    assert!(slow.read_until("200", LIMIT).await.is_some());
    let health = raw(standin.address(), [b"PROXY UNKNOWN\r\n", REQUEST].concat()).await;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    let clients: Vec<_> =
        app.seen().iter().map(|seen| seen.headers["x-forwarded-for"].clone()).collect();
    assert_eq!(clients, ["192.0.2.7", "127.0.0.1"]);
}

/// A client named in a header is no more trusted than one that connects itself.
#[tokio::test]
async fn the_clients_own_word_does_not_count_for_that() {
    let (standin, app) = behind_a_load_balancer("127.0.0.1/32").await;
    let request =
        b"GET /p HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 1.1.1.1\r\nx-request-id: mine\r\n\r\n";
    let answer = raw(standin.address(), [VERSION_1, request].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = &app.seen()[0];
    assert_eq!(seen.headers["x-forwarded-for"], "192.0.2.7");
    assert_ne!(seen.headers["x-request-id"], "mine");
}

#[tokio::test]
async fn without_a_header_or_from_others_nothing_is_served() {
    let (standin, app) = behind_a_load_balancer("127.0.0.1/32").await;
    for bytes in [REQUEST.to_vec(), b"PROXY TCP4 1 2\r\n".to_vec(), vec![b'x'; 300]] {
        assert_eq!(raw(standin.address(), [&bytes, REQUEST].concat()).await, "");
    }
    let (strict, strict_app) = behind_a_load_balancer("10.0.0.0/8").await;
    assert_eq!(raw(strict.address(), [VERSION_1, REQUEST].concat()).await, "");
    assert!(app.seen().is_empty() && strict_app.seen().is_empty());
    for (standin, why, wanted) in [(&standin, "proxy_header", 3.0), (&strict, "not_a_proxy", 1.0)] {
        eventually(LIMIT, async || {
            let metrics = standin.metrics().await;
            let n = metrics.sum("standin_connections_turned_away_total", &[("why", why)]);
            if (n - wanted).abs() < 0.1 { Ok(()) } else { Err(format!("{why}: {n}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn it_comes_before_tls() {
    let listen = "proxy_protocol = { from = [\"127.0.0.1/32\"] }";
    let Secure { standin, app, pki } = Secure::start_with("", listen).await;
    for header in [VERSION_1.to_vec(), version_2()] {
        app.forget();
        let mut stream = TcpStream::connect(standin.address()).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let config = pki.client(None, &["h2"]);
        let mut client = TlsClient::over(stream, "shop.example", config).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        assert_eq!(app.seen()[0].headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(app.seen()[0].headers["x-forwarded-proto"], "https");
    }
}
