//! Three endpoints under steady load, in two runs: endpoints are killed and restarted at random (who loses a request, and
//! is an order applied twice?), and one endpoint is ten times slower (who gets the requests, and how long do they take?).
//!
//! `cargo bench --bench endpoints -- [--seconds N] [--rate N]`. Ends with 1 when a promise does not hold.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{client::conn::http1::SendRequest, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

const CLIENTS: u64 = 64;

fn main() -> ExitCode {
    let (seconds, rate) = arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let held = runtime.block_on(async {
        let killed = killed_at_random(Duration::from_secs(seconds), rate).await;
        let skewed = one_is_slow(Duration::from_secs(seconds.min(20)), rate / 4).await;
        killed && skewed
    });
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> (u64, u64) {
    let (mut seconds, mut rate) = (30, 2000);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match name.as_str() {
            "--seconds" => seconds = number(),
            "--rate" => rate = number(),
            _ => {} // what cargo passes
        }
    }
    (seconds, rate)
}

/// Endpoints are killed and restarted, one or two at a time.
async fn killed_at_random(time: Duration, rate: u64) -> bool {
    let mut apps = [App::start().await, App::start().await, App::start().await];
    // Long enough that a kill finds requests in hand.
    apps.iter().for_each(|app| app.shared.takes_ms.store(2, Ordering::Relaxed));
    let more = "breaker = { failures = 1000 }\nejection = { time = \"200ms\", max_time = \"2s\" }\n\
                slow_start = \"500ms\"\nretry_budget = { percent = 100, per_second = 1000 }\n";
    let standin = Standin::start(&apps, more).await;
    let (stop, mut kills) = (Instant::now() + time, 0);
    let load = load(standin.address, rate, stop);
    let killing = async {
        let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |most: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % most
        };
        while Instant::now() < stop {
            let (one, pause) = (below(3) as usize, 50 + below(400));
            let other = (one + 1 + below(2) as usize) % 3;
            apps[one].kill().await;
            kills += 1;
            if below(3) == 0 {
                apps[other].kill().await;
                kills += 1;
                tokio::time::sleep(Duration::from_millis(50 + below(100))).await;
                apps[other].restart().await;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            apps[one].restart().await;
            tokio::time::sleep(Duration::from_millis(below(300))).await;
        }
    };
    let (asked, ()) = tokio::join!(load, killing);
    let applied = applied(&apps);
    let lost = asked.iter().filter(|one| one.status.is_none()).count();
    let gets = asked.iter().filter(|one| one.body.is_none());
    let wrong_gets = gets.filter(|one| one.status.is_some_and(|status| status != 200)).count();
    let orders: Vec<_> = asked.iter().filter(|one| one.body.is_some()).collect();
    let with =
        |status: u16| orders.iter().filter(|one| one.status.is_some_and(|s| s == status)).count();
    let twice = applied.values().filter(|times| **times > 1).count();
    let missing = orders
        .iter()
        .filter(|one| one.status.is_some_and(|status| status == 201))
        .filter(|one| !one.body.as_ref().is_some_and(|body| applied.contains_key(body)))
        .count();
    println!("{} requests in {time:?}, {kills} kills; {}", asked.len(), times(&asked));
    println!(
        "GET: {wrong_gets} errors. POST: {} of {} answered, {} not sent (503), {} unknown (502), {} in time-out",
        with(201),
        orders.len(),
        with(503),
        with(502),
        with(504)
    );
    println!(
        "applied twice: {twice}; said to be applied and not: {missing}; connections of clients lost: {lost}"
    );
    wrong_gets + with(503) + twice + missing + lost == 0 && kills > 0
}

/// 5, 5 and 50 ms, by load and in turns, one after the other.
async fn one_is_slow(time: Duration, rate: u64) -> bool {
    let mut p99 = Vec::new();
    let mut held = true;
    for balance in ["least_loaded", "round_robin"] {
        let apps = [App::start().await, App::start().await, App::start().await];
        for (app, millis) in apps.iter().zip([5, 5, 50]) {
            app.shared.takes_ms.store(millis, Ordering::Relaxed);
        }
        let standin = Standin::start(&apps, &format!("balance = \"{balance}\"\n")).await;
        let asked = load(standin.address, rate, Instant::now() + time).await;
        let shares: Vec<u64> =
            apps.iter().map(|app| app.shared.asked.load(Ordering::Relaxed)).collect();
        let all: u64 = shares.iter().sum();
        let share = 300 * shares[2] / all;
        println!("{balance}: the slow one got {share} % of an equal share; {}", times(&asked));
        held &= balance == "round_robin" || share < 33;
        p99.push(quantile(&asked, 0.99));
    }
    held && p99[0] < p99[1]
}

/// One request and what came of it.
struct Asked {
    /// The order, if it is one.
    body: Option<String>,
    status: Option<StatusCode>,
    took: Duration,
}

fn quantile(asked: &[Asked], part: f64) -> Duration {
    let mut times: Vec<_> = asked.iter().map(|one| one.took).collect();
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

fn times(asked: &[Asked]) -> String {
    let of = |part| quantile(asked, part);
    format!("p50 {:.1?}, p99 {:.1?}, longest {:.1?}", of(0.5), of(0.99), of(1.0))
}

/// `rate` requests a second, evenly, whatever becomes of those before; times count from when each was due.
async fn load(standin: SocketAddr, rate: u64, stop: Instant) -> Vec<Asked> {
    let mut clients = JoinSet::new();
    let start = Instant::now() + Duration::from_millis(100);
    for client in 0..CLIENTS {
        clients.spawn(async move {
            let mut asked = Vec::new();
            let mut connection: Option<(SendRequest<Full<Bytes>>, JoinSet<()>)> = None;
            for turn in 0.. {
                let number = turn * CLIENTS + client;
                let due = start + Duration::from_micros(1_000_000 * number / rate);
                if due >= stop {
                    return asked;
                }
                tokio::time::sleep_until(due).await;
                let body = number.is_multiple_of(4).then(|| number.to_string());
                let status = exchange(&mut connection, standin, body.as_deref()).await;
                if status.is_none() {
                    connection = None;
                }
                asked.push(Asked { body, status, took: due.elapsed() });
            }
            asked
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

async fn exchange(
    connection: &mut Option<(SendRequest<Full<Bytes>>, JoinSet<()>)>,
    standin: SocketAddr,
    body: Option<&str>,
) -> Option<StatusCode> {
    if connection.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
        let stream = TcpStream::connect(standin).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let mut task = JoinSet::new();
        task.spawn(async move { driver.await.unwrap_or_default() });
        *connection = Some((sender, task));
    }
    let (sender, _) = connection.as_mut()?;
    sender.ready().await.ok()?;
    let (method, path) =
        if body.is_some() { (Method::POST, "/orders") } else { (Method::GET, "/") };
    let body = Full::new(Bytes::from(body.unwrap_or_default().to_owned()));
    let request =
        Request::builder().method(method).uri(path).header("host", "a").body(body).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status();
    answer.into_body().collect().await.ok()?;
    Some(status)
}

/// An endpoint that counts what it is asked.
struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    takes_ms: AtomicU64,
    asked: AtomicU64,
    orders: Mutex<HashMap<String, u32>>,
}

impl App {
    async fn start() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut app = Self { address: any, shared: Arc::default(), serving: JoinSet::new() };
        app.restart().await;
        app
    }

    /// Its listener and all of its connections are gone when this returns.
    async fn kill(&mut self) {
        self.serving.shutdown().await;
    }

    async fn restart(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("its option");
        socket.bind(self.address).expect("its port");
        let listener = socket.listen(1024).expect("a listener");
        self.address = listener.local_addr().expect("its address");
        self.serving.spawn(serve(listener, Arc::clone(&self.shared)));
    }
}

fn applied(apps: &[App]) -> HashMap<String, u32> {
    let mut all = HashMap::new();
    for app in apps {
        for (body, times) in &*app.shared.orders.lock().expect("nobody panicked") {
            *all.entry(body.clone()).or_default() += times;
        }
    }
    all
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, io::Error> {
    let is_order = request.method() == Method::POST;
    let is_health = request.headers().contains_key("user-agent");
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    if is_order {
        let body = String::from_utf8_lossy(&body).into_owned();
        *shared.orders.lock().expect("nobody panicked").entry(body).or_default() += 1;
    }
    if !is_health {
        shared.asked.fetch_add(1, Ordering::Relaxed);
    }
    let takes = shared.takes_ms.load(Ordering::Relaxed);
    if takes > 0 {
        tokio::time::sleep(Duration::from_millis(takes)).await;
    }
    let status = if is_order { StatusCode::CREATED } else { StatusCode::OK };
    http::Response::builder().status(status).body(Full::default()).map_err(io::Error::other)
}

/// The program itself, in front of the apps.
struct Standin {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Standin {
    async fn start(apps: &[App], more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let endpoints: Vec<_> =
            apps.iter().map(|app| format!("\"http://{}\"", app.address)).collect();
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [upstream.app]\nendpoints = [{}]\nhealth = {{ interval = \"100ms\" }}\n{more}",
            endpoints.join(", ")
        );
        let path = folder.path().join("standin.toml");
        std::fs::write(&path, text).expect("a file");
        let mut process = Command::new(env!("CARGO_BIN_EXE_standin"))
            .args(["run", "-c"])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("standin");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("a line").expect("text");
        let address = first.rsplit(' ').next().and_then(|text| text.parse().ok());
        let address = address.expect("listening on ADDRESS");
        // Until it has asked the apps.
        tokio::time::sleep(Duration::from_millis(500)).await;
        io::stdout().flush().ok();
        Self { process, address, _folder: folder }
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
