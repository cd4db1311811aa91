//! For the tests of this folder: a real store, a small app, and a replayer between them, on one thread.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests own what they spawn: it ends with their runtime"
)]

use std::{
    cell::{Cell, RefCell},
    fmt::Debug,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{Parts, Replay, RunState, RunView, load};
use crate::{
    config::Config,
    mode::Modes,
    router::{LiveRoutes, Routes},
    store::{
        Appended, Caps, Certainty, Digest, Durable, Entry, Hook, Identity, KeptAnswer, NewEntry,
        Reason, Seq, State, Store, StoreOptions, StoredRequest,
    },
    telemetry::Counters,
    time::UnixMillis,
};

/// See the module.
pub(super) struct Rig {
    pub app: App,
    pub store: Store,
    pub modes: Modes,
    pub replay: Replay,
    parts: Parts,
    _folder: tempfile::TempDir,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// A small app: keeps what it saw, answers as it is told.
#[derive(Clone)]
pub(super) struct App {
    pub address: SocketAddr,
    shared: Rc<AppState>,
}

struct AppState {
    seen: RefCell<Vec<Seen>>,
    behave: RefCell<Rc<Behaviour>>,
    in_flight: Cell<u32>,
    server: RefCell<Option<JoinHandle<()>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
    /// Requests in flight when it came, itself included.
    pub in_flight: u32,
    pub at: tokio::time::Instant,
}

type Behaviour = dyn Fn(&Seen) -> Reply;

/// What the app does with one request.
pub(super) struct Reply {
    pub after: Duration,
    /// None: the connection is cut.
    pub answer: Option<Response<Full<Bytes>>>,
}

/// Runs a test on a runtime of its own, as the server runs the replayer.
pub(super) fn local<T>(test: impl Future<Output = T>) -> T {
    let options = tokio::runtime::LocalOptions::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
    runtime.block_on(async { tokio::time::timeout(LONGEST_TEST, test).await }).unwrap()
}

impl Rig {
    /// One upstream `app`; `routes` is TOML. Nothing is replayed before [`Rig::run`].
    pub(super) async fn new(routes: &str) -> Self {
        let app = App::start().await;
        let text = format!(
            "[upstream.app]\nendpoints = [\"http://{}\"]\ntimeout = \"1s\"\nlate_window = \"200ms\"\n\
             breaker = {{ failures = 1000 }}\n{routes}",
            app.address
        );
        let config: Config = toml::from_str(&text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(options(&folder)).unwrap();
        let modes = Modes::recall(store.clone()).await.unwrap();
        let parts = Parts {
            store: store.clone(),
            routes: LiveRoutes::new(Arc::new(Routes::new(&config).unwrap())),
            modes: modes.clone(),
            counters: Counters::default(),
            request_id_header: http::HeaderName::from_static("x-request-id"),
            signing_key: None,
            hook: Hook::default(),
        };
        parts.counters.worker(parts.routes.now().places());
        let (replay, _) = Replay::new(parts.clone());
        Self { app, store, modes, replay, parts, _folder: folder, running: None }
    }

    /// Starts the replayer.
    pub(super) fn run(&mut self) {
        let (replay, replayer) = Replay::new(self.parts.clone());
        self.replay = replay;
        let (drain, drained) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(replayer.run(async {
            drained.await.ok();
        }));
        self.running = Some((drain, task));
    }

    /// The store seems to take so many entries with each look that the replayer takes. Waits until it has noticed.
    pub(super) async fn seems_to_take(&self, a_look: u64) {
        let load = &self.parts.hook.load;
        let looks = || load.looks.load(Ordering::Relaxed);
        let first = looks();
        load.a_look.store(a_look, Ordering::Relaxed);
        eventually(|| if looks() > first { Ok(()) } else { Err(()) }).await;
        // A rate is what came between two looks, which are so far apart at least.
        tokio::time::sleep(2 * load::WINDOW).await;
        let then = looks();
        eventually(|| if looks() > then + 1 { Ok(()) } else { Err(()) }).await;
    }

    /// Drains the replayer, to the end.
    pub(super) async fn drain(&mut self) {
        let (drain, task) = self.running.take().unwrap();
        drop(drain);
        task.await.unwrap();
    }

    pub(super) async fn append(&self, entry: NewEntry) -> Durable {
        match self.store.append(entry).await.unwrap() {
            Appended::New(durable) => durable,
            other => panic!("{other:?}"),
        }
    }

    /// Stores orders with these bodies, due at once.
    pub(super) async fn orders<const N: usize>(&self, bodies: [&str; N]) -> Vec<Seq> {
        let mut seqs = Vec::new();
        for body in bodies {
            seqs.push(self.append(order(body)).await.seq());
        }
        seqs
    }

    pub(super) async fn entry(&self, seq: Seq) -> Entry {
        self.store.load(seq).await.unwrap()
    }

    /// Waits until the entry is as `wanted` says.
    pub(super) async fn becomes(&self, seq: Seq, wanted: impl Fn(&Entry) -> bool) -> Entry {
        let mut last = None;
        for _ in 0..TRIES {
            let entry = self.entry(seq).await;
            if wanted(&entry) {
                return entry;
            }
            last = Some((entry.state, entry.held, entry.outcome));
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        panic!("the entry never became that: {last:?}, {:?}", self.store.history(seq).await);
    }

    /// Waits until all are closed, each completed.
    pub(super) async fn all_complete(&self, seqs: &[Seq]) {
        for seq in seqs {
            let entry = self.becomes(*seq, |entry| entry.state == State::Closed).await;
            assert_eq!(entry.outcome, Some(crate::store::Outcome::Completed));
        }
    }

    /// Waits until the run is over.
    pub(super) async fn ends(&self, id: &str) -> RunView {
        self.view(id, |view| view.ended_at.is_some()).await
    }

    pub(super) async fn view(&self, id: &str, wanted: impl Fn(&RunView) -> bool) -> RunView {
        eventually(|| {
            let found = self.replay.runs().into_iter().find(|run| run.id == id).unwrap();
            if wanted(&found) { Ok(found) } else { Err(Box::new(found)) }
        })
        .await
    }

    /// Waits until some run waits for a reason that contains `why`.
    pub(super) async fn waits_for(&self, why: &str) -> RunView {
        let waits =
            |run: &RunView| matches!(&run.state, RunState::Waiting(said) if said.contains(why));
        eventually(|| self.replay.runs().into_iter().find(waits).ok_or_else(|| self.replay.runs()))
            .await
    }
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let shared = Rc::new(AppState {
            seen: RefCell::default(),
            behave: RefCell::new(Rc::new(|_| Reply::status(201))),
            in_flight: Cell::new(0),
            server: RefCell::default(),
        });
        let app = Self { address, shared };
        app.open().await;
        app
    }

    /// Listens, on the port it always had.
    pub(super) async fn open(&self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let server = tokio::task::spawn_local(self.clone().serve(socket.listen(64).unwrap()));
        *self.shared.server.borrow_mut() = Some(server);
    }

    /// Refuses connections; those that are open stay.
    pub(super) async fn close(&self) {
        let server = self.shared.server.borrow_mut().take().unwrap();
        server.abort();
        server.await.unwrap_err();
    }

    pub(super) fn behave(&self, behave: impl Fn(&Seen) -> Reply + 'static) {
        *self.shared.behave.borrow_mut() = Rc::new(behave);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.body).collect()
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let app = self.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| app.answer(request));
                let server = hyper::server::conn::http1::Builder::new();
                server.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?;
        let (trailers, body) = (body.trailers().cloned(), body.to_bytes());
        self.shared.in_flight.set(self.shared.in_flight.get() + 1);
        let seen = Seen {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            trailers,
            in_flight: self.shared.in_flight.get(),
            at: tokio::time::Instant::now(),
        };
        self.shared.seen.borrow_mut().push(seen.clone());
        let behave = Rc::clone(&self.shared.behave.borrow());
        let reply = behave(&seen);
        tokio::time::sleep(reply.after).await;
        self.shared.in_flight.set(self.shared.in_flight.get() - 1);
        reply.answer.ok_or_else(|| std::io::Error::other("cut on purpose"))
    }
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        let answer = Response::builder().status(status).body(Full::default()).unwrap();
        Self { after: Duration::ZERO, answer: Some(answer) }
    }

    pub(super) fn cut() -> Self {
        Self { after: Duration::ZERO, answer: None }
    }

    pub(super) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Some(answer) = &mut self.answer {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        self
    }

    pub(super) fn body(self, body: &'static str) -> Self {
        let answer = self.answer.map(|answer| answer.map(|_| Full::from(body)));
        Self { answer, ..self }
    }
}

/// An order of the route `orders` with that body: never sent, due at once, good for a day.
pub(super) fn order(body: &str) -> NewEntry {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let now = UnixMillis::now();
    NewEntry {
        request_id: format!("id-{number}"),
        received_at: now,
        route: "orders".into(),
        upstream: "app".into(),
        identity: Identity {
            key: Digest(number),
            key_text: format!("key-{number}"),
            fingerprint: Digest(number),
            principal: String::new(),
        },
        sequence: None,
        reason: Reason::ConnectFailed,
        certainty: Certainty::NotSent,
        cause: "connection refused".into(),
        not_before: UnixMillis(0),
        expires_at: now.plus(Duration::from_secs(86_400)),
        request: StoredRequest {
            method: "POST".into(),
            target: "/orders?a=%20b".into(),
            headers: vec![("host".into(), Bytes::from_static(b"shop.example"))],
            body: Bytes::copy_from_slice(body.as_bytes()),
            trailers: Vec::new(),
            client_ip: "192.0.2.1".into(),
        },
        answer: KeptAnswer { status: 201, headers: Vec::new(), body: Bytes::new() },
        labels: Vec::new(),
        amount: 0,
        customer: None,
        caps: Arc::new(Caps { open: 10_000, ..Caps::default() }),
        held: None,
    }
}

/// Asks again until the answer is `Ok`, and says what it was when it never is.
pub(super) async fn eventually<T, E: Debug>(ask: impl Fn() -> Result<T, E>) -> T {
    let mut last = None;
    for _ in 0..TRIES {
        match ask() {
            Ok(value) => return value,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    panic!("never: {last:?}");
}

fn options(folder: &tempfile::TempDir) -> StoreOptions {
    let path = folder.path().join("standin.db");
    StoreOptions { accept_ephemeral: true, ..StoreOptions::new(path) }
}

const TRIES: u32 = 1000;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);
const LONGEST_TEST: Duration = Duration::from_secs(60);
