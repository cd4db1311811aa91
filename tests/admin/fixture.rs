//! An admin listener on a real socket over a real store and replayer handle, without a proxy in front: what it shows
//! was appended by the test itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use standin::{
    admin::{self, Handles},
    clocks::Clocks,
    config::{AdminConfig, Config, Role},
    mode::Modes,
    record::Records,
    reload::Reload,
    replay::{Parts, Replay, Replayer},
    router::{LiveRoutes, Routes},
    store::{
        Appended, Caps, Certainty, Digest, Durable, HeldReason, Hook, Identity, KeptAnswer,
        NewEntry, Outcome, Reason, Store, StoreOptions, StoredRequest, Synchronous, Verdict,
    },
    telemetry::{Counters, WorkerCounters},
    time::UnixMillis,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::support::{Answer, Client, Pair, Pki};

pub struct Fixture {
    pub address: SocketAddr,
    pub health: SocketAddr,
    pub store: Store,
    pub replay: Replay,
    pub worker: Arc<WorkerCounters>,
    pub draining: watch::Sender<bool>,
    pub tasks: JoinSet<std::io::Result<()>>,
    pub stop: watch::Sender<bool>,
    pub records: Records,
    handles: Handles,
    /// Kept and never run: nothing is sent.
    _replayer: Replayer,
    _folder: tempfile::TempDir,
}

/// Two routes, one of which never stands in.
pub const CONFIG: &str = r#"
[upstream.shop]
endpoints = ["http://127.0.0.1:9"]

[route.checkout]
match = "POST /checkout"
app_dedupes = { by = "x-request-id", for = "7d" }
[route.checkout.stand_in]
accept_if = "true"
at_most = { open = 500, open_sum = 1_000_000, sum_of = "body.cents" }
answer = { status = 201 }

[route.reports]
match = "GET /reports"
"#;

impl Fixture {
    pub async fn start() -> Self {
        Self::with(AdminConfig::default(), Role::Inline).await
    }

    pub async fn with(admin: AdminConfig, role: Role) -> Self {
        Self::with_more("", admin, role).await
    }

    /// With more of a configuration.
    pub async fn with_more(more: &str, admin: AdminConfig, role: Role) -> Self {
        let folder = crate::support::folder();
        let store = Store::open(StoreOptions {
            path: folder.path().join("standin.db"),
            max_bytes: 1 << 30,
            retention: Duration::from_secs(7 * 86_400),
            dedupe_window: Duration::from_secs(7 * 86_400),
            accept_ephemeral: true,
            late_window: Duration::ZERO,
            synchronous: Synchronous::default(),
            hook: Hook::default(),
        })
        .unwrap();
        let config = Config::parse(&format!("{CONFIG}{more}"), "test.toml").unwrap();
        let routes = Arc::new(Routes::new(&config).unwrap());
        let modes = Modes::recall(store.clone()).await.unwrap();
        let counters = Counters::default();
        let worker = counters.worker(routes.places());
        let routes = LiveRoutes::new(routes);
        let (replay, replayer) = Replay::new(Parts {
            store: store.clone(),
            routes: routes.clone(),
            modes: modes.clone(),
            counters: counters.clone(),
            request_id_header: HeaderName::from_static("x-request-id"),
            signing_key: None,
            hook: Hook::default(),
        });
        let pki = Pki::new();
        let Pair { cert, key } = pki.issue("shop", &["shop.example"]);
        let tls = format!("cert = {cert:?}\nkey = {key:?}");
        let tls = standin::tls::server::load(&toml::from_str(&tls).unwrap(), true).unwrap();
        let (draining, is_draining) = watch::channel(false);
        let records = Records::default();
        let handles = Handles {
            records: records.clone(),
            store: store.clone(),
            replay: replay.clone(),
            modes,
            routes,
            reload: Reload::never(UnixMillis::now()),
            counters,
            clocks: Clocks::default(),
            role,
            tls: Some(Arc::new(tls)),
            started_at: UnixMillis::now(),
            draining: is_draining,
            version: "0.0.0-test",
        };
        let (stop, stopping) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let health_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, health) =
            (listener.local_addr().unwrap(), health_listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::serve(listener, handles.clone(), admin, stopped(stopping.clone())));
        tasks.spawn(admin::serve_health(health_listener, handles.clone(), stopped(stopping)));
        Self {
            address,
            health,
            store,
            replay,
            _replayer: replayer,
            worker,
            draining,
            tasks,
            stop,
            records,
            handles,
            _folder: folder,
        }
    }

    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }

    /// Stores an entry made by [`order`] and changed by `change`.
    pub async fn append(&self, n: u64, change: impl FnOnce(&mut NewEntry)) -> Durable {
        let mut entry = order(n);
        change(&mut entry);
        match self.store.append(entry).await.unwrap() {
            Appended::New(durable) => durable,
            other => panic!("{other:?}"),
        }
    }

    /// Stores an entry and lets the app decline it.
    pub async fn declined(&self, n: u64, answer: KeptAnswer) -> Durable {
        let durable = self.append(n, |_| {}).await;
        let lease = self.store.lease(durable.seq()).unwrap();
        let sending = self.store.sending(lease).await.unwrap();
        let verdict = Verdict::Close {
            outcome: Outcome::Declined,
            why: "the app answered 422".into(),
            answer: Some(answer),
        };
        self.store.finish(&sending, verdict).await.unwrap();
        durable
    }

    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        Client::to(self.address).send(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.send(post(path, body)).await
    }

    /// As a browser sends a form of the page, whose referrer policy makes the origin `null`.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = request(Method::POST, path, body.into());
        let headers = request.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        headers.insert(header::ORIGIN, HeaderValue::from_static("null"));
        self.send(request).await
    }
}

pub fn request(method: Method, path: &str, body: Bytes) -> Request<Bytes> {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

pub fn get(path: &str) -> Request<Bytes> {
    request(Method::GET, path, Bytes::new())
}

pub fn post(path: &str, body: &serde_json::Value) -> Request<Bytes> {
    let mut request = request(Method::POST, path, body.to_string().into());
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request
}

/// An ordinary order, number `n`.
pub fn order(n: u64) -> NewEntry {
    let now = UnixMillis::now();
    let body = format!(r#"{{"cart_id":"cart-{n}","cents":1999}}"#);
    NewEntry {
        request_id: format!("request-{n}"),
        received_at: now,
        route: "checkout".into(),
        upstream: "shop".into(),
        identity: Identity {
            key: Digest(u128::from(n) + 1),
            key_text: format!("key-{n}"),
            fingerprint: Digest(u128::from(n) + 1),
            principal: String::new(),
        },
        sequence: None,
        reason: Reason::ConnectFailed,
        certainty: Certainty::NotSent,
        cause: "connection refused".into(),
        not_before: now,
        expires_at: now.plus(Duration::from_secs(86_400)),
        request: StoredRequest {
            method: "POST".into(),
            target: "/checkout".into(),
            headers: vec![
                ("host".into(), Bytes::from_static(b"shop.example")),
                ("content-type".into(), Bytes::from_static(b"application/json")),
            ],
            body: body.into(),
            trailers: Vec::new(),
            client_ip: "192.0.2.7".into(),
        },
        answer: KeptAnswer {
            status: 201,
            headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
            body: Bytes::from_static(br#"{"status":"accepted"}"#),
        },
        labels: vec![("email".into(), format!("customer-{n}@example.com"))],
        amount: 1999,
        customer: None,
        caps: Arc::new(Caps { open: 500, open_sum: Some(1_000_000), per_customer: None }),
        held: None,
    }
}

/// Held from the start.
pub fn held(entry: &mut NewEntry) {
    entry.held = Some(HeldReason::Unanswered);
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}
