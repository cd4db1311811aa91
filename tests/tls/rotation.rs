//! Certificates that change while requests run.

use std::{
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::{Secure, listen_tls};
use crate::support::{App, Pair, Pki, Standin, TlsClient, eventually, orders_config};

const LIMIT: Duration = Duration::from_secs(30);

/// Clients that open a connection, ask three times and leave, again and again, over the whole of a rotation.
#[tokio::test]
async fn a_rotation_under_load_fails_no_request() {
    let Secure { standin, app: _app, pki } = Secure::start("").await;
    let before = shown(&standin, &pki).await;
    let (stop, done, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut clients = JoinSet::new();
    for number in 0..6 {
        let alpn: &[&str] = if number % 2 == 0 { &["h2"] } else { &["http/1.1"] };
        let config = pki.client(None, alpn);
        let (stop, done, failed) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&failed));
        let address = standin.address();
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let client = TlsClient::to(address, "shop.example", config.clone()).await;
                let Ok(mut client) = client else {
                    failed.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                for _ in 0..3 {
                    let fine = client.get("/").await.is_ok_and(|answer| answer.status == 200);
                    if fine { &done } else { &failed }.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    // Certificate first, key a moment later, as a careless script does it.
    let (cert, key) = pki.pem(&["shop.example"], 2035);
    std::fs::write(pki.folder().join("shop.pem"), cert).unwrap();
    std::fs::write(pki.folder().join("shop.key"), key).unwrap();
    eventually(LIMIT, async || shown(&standin, &pki).await != before).await;
    let at_the_change = done.load(Ordering::Relaxed);
    eventually(LIMIT, async || done.load(Ordering::Relaxed) > at_the_change + 100).await;
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {}", done.load(Ordering::Relaxed));
    assert!(at_the_change > 100, "{at_the_change} requests before the change are no load");
    assert!(standin.output().contains("certificates read again"));
}

/// A secret mounted by Kubernetes: files are links into `..data`, which is a link that is swapped.
#[tokio::test]
async fn a_swapped_link_is_a_change() {
    let (app, pki) = (App::start().await, Pki::new());
    let mount = pki.folder().join("mount");
    let write = |version: &str, year| {
        let folder = mount.join(version);
        std::fs::create_dir_all(&folder).unwrap();
        let (cert, key) = pki.pem(&["shop.example"], year);
        std::fs::write(folder.join("tls.crt"), cert).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        symlink(version, mount.join("..new")).unwrap();
        std::fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    };
    write("..2026_1", 2031);
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    let pair = Pair { cert: mount.join("tls.crt"), key: mount.join("tls.key") };
    let config = format!("{}\n{}", orders_config(app.address()), listen_tls(&pair));
    let standin = Standin::start(&config).await;
    let before = shown(&standin, &pki).await;
    let end = |metrics: &crate::support::Metrics| {
        metrics.sum("standin_certificate_end_seconds", &[("section", "listen.tls")])
    };
    assert!((end(&standin.metrics().await) - 1_924_992_000.0).abs() < 1.0, "2031-01-01");
    write("..2026_2", 2032);
    eventually(LIMIT, async || shown(&standin, &pki).await != before).await;
    assert!((end(&standin.metrics().await) - 1_956_528_000.0).abs() < 1.0, "2032-01-01");
}

#[tokio::test]
async fn a_bad_change_is_told_and_changes_nothing() {
    let Secure { standin, app: _app, pki } = Secure::start("").await;
    let before = shown(&standin, &pki).await;
    let good = std::fs::read(pki.folder().join("shop.pem")).unwrap();
    let refused = async || {
        standin.metrics().await.sum("standin_tls_files_refused", &[("section", "listen.tls")]) > 0.5
    };
    assert!(!refused().await);
    std::fs::write(pki.folder().join("shop.pem"), "not a certificate").unwrap();
    eventually(LIMIT, refused).await;
    assert_eq!(shown(&standin, &pki).await, before);
    let status = standin.admin_get("/api/v1/status").await.json();
    let said = status["sentences"][0]["text"].as_str().unwrap();
    assert!(said.contains("listen.tls") && said.contains("shop.pem"), "{said}");
    let page = standin.admin_get("/").await.text();
    assert!(page.contains("changed files are not used"), "{page}");
    assert!(standin.output().contains("the changed files of TLS are not used"));

    std::fs::write(pki.folder().join("shop.pem"), good).unwrap();
    eventually(LIMIT, async || !refused().await).await;
}

/// The certificate that a new client is shown; it must get its answer, too.
async fn shown(standin: &Standin, pki: &Pki) -> Vec<u8> {
    let config = pki.client(None, &[]);
    let mut client = TlsClient::to(standin.address(), "shop.example", config).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().status, 200);
    client.certificate.to_vec()
}
