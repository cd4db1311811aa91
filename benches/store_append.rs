//! How many appends a second the store acknowledges as durable: callers on two current-thread runtimes, as the workers
//! are, beside a bare SQLite loop that inserts the same rows with as many per commit, in the same run.
//!
//! `cargo bench --bench store_append -- [--dir FOLDER] [--seconds N] [--rounds N]`

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use standin::{store::*, time::UnixMillis};
use tokio::time::Instant;

const RUNTIMES: usize = 2;
const CALLERS: [usize; 2] = [64, 256];

fn main() {
    let arguments = Arguments::read();
    println!(
        "callers | raw rows/s | µs CPU | appends/s | µs CPU | of raw | p50 ms | p99 ms | max ms"
    );
    for callers in CALLERS {
        let (mut raw, mut store) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            raw.push(raw_loop(&arguments, callers));
            store.push(appends(&arguments, callers));
        }
        raw.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        store.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let (raw, store) = (&raw[raw.len() / 2], &store[store.len() / 2]);
        println!(
            "{callers:7} | {:10.0} | {:6.1} | {:9.0} | {:6.1} | {:6.2} | {:6.2} | {:6.2} | {:6.1}",
            raw.rate,
            raw.cpu,
            store.rate,
            store.cpu,
            store.rate / raw.rate,
            store.at(0.5),
            store.at(0.99),
            store.at(1.0),
        );
    }
}

struct Arguments {
    folder: PathBuf,
    time: Duration,
    rounds: usize,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self { folder: PathBuf::from("."), time: Duration::from_secs(3), rounds: 3 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--dir" => read.folder = arguments.next().expect("--dir FOLDER").into(),
                "--seconds" => read.time = Duration::from_secs(number(arguments.next())),
                "--rounds" => read.rounds = number(arguments.next()) as usize,
                // Given by cargo.
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        read
    }
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("a number")
}

struct Result {
    rate: f64,
    /// Microseconds of the whole process per row, the callers' own work included.
    cpu: f64,
    micros: Vec<u32>,
}

impl Result {
    fn at(&self, share: f64) -> f64 {
        let last = self.micros.len() - 1;
        f64::from(self.micros[(last as f64 * share) as usize]) / 1000.0
    }
}

/// The store's own verbs.
fn appends(arguments: &Arguments, callers: usize) -> Result {
    let folder = tempfile::tempdir_in(&arguments.folder).expect("a folder");
    let options = StoreOptions {
        accept_ephemeral: true,
        max_bytes: 1 << 40,
        ..StoreOptions::new(folder.path().join("standin.db"))
    };
    let store = Store::open(options).expect("a store");
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (start, cpu) = (Instant::now(), cpu_micros());
    let threads: Vec<_> = (0..RUNTIMES)
        .map(|_| {
            let (store, stop, next) = (store.clone(), Arc::clone(&stop), Arc::clone(&next));
            std::thread::Builder::new()
                .spawn(move || runtime(&store, &stop, &next, callers / RUNTIMES))
                .expect("a thread")
        })
        .collect();
    std::thread::sleep(arguments.time);
    stop.store(true, Ordering::Relaxed);
    let mut micros: Vec<u32> =
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    let rate = micros.len() as f64 / start.elapsed().as_secs_f64();
    let cpu = (cpu_micros() - cpu) / micros.len() as f64;
    micros.sort_unstable();
    Result { rate, cpu, micros }
}

/// User and system time of this process so far.
fn cpu_micros() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at| after_name.split_whitespace().nth(at).and_then(|n| n.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) * 10_000.0
}

fn runtime(
    store: &Store,
    stop: &Arc<AtomicBool>,
    next: &Arc<AtomicU64>,
    callers: usize,
) -> Vec<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..callers {
            let (store, stop, next) = (store.clone(), Arc::clone(stop), Arc::clone(next));
            tasks.spawn(async move {
                let mut micros = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let entry = entry(next.fetch_add(1, Ordering::Relaxed));
                    let start = Instant::now();
                    match store.append(entry).await {
                        Ok(Appended::New(_)) => {}
                        other => panic!("{other:?}"),
                    }
                    micros.push(start.elapsed().as_micros() as u32);
                }
                micros
            });
        }
        tasks.join_all().await.concat()
    })
}

/// About what a stand-in for a checkout stores.
fn entry(number: u64) -> NewEntry {
    let text = uuid::Uuid::now_v7().to_string();
    let field =
        |name: &str, value: &'static str| (name.to_owned(), Bytes::from_static(value.as_bytes()));
    NewEntry {
        request_id: text.clone(),
        received_at: UnixMillis::now(),
        route: "checkout".into(),
        upstream: "shop".into(),
        identity: Identity {
            key: Digest(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
            key_text: text,
            fingerprint: Digest(number.into()),
            principal: "c-4711".into(),
        },
        sequence: None,
        reason: Reason::BreakerOpen,
        certainty: Certainty::NotSent,
        cause: "the breaker is open".into(),
        not_before: UnixMillis(0),
        expires_at: UnixMillis(i64::MAX),
        request: StoredRequest {
            method: "POST".into(),
            target: "/api/orders".into(),
            headers: vec![
                field("host", "shop.example"),
                field("content-type", "application/json"),
                field("idempotency-key", "6f1b1e0c-7f0e-4c3a-9a55-0f6a4f1f2c11"),
                field("user-agent", "Mozilla/5.0"),
                field("accept", "application/json"),
            ],
            body: Bytes::from_static(&[b'x'; 1024]),
            trailers: vec![],
            client_ip: "192.0.2.7".into(),
        },
        answer: KeptAnswer {
            status: 201,
            headers: vec![field("content-type", "application/json")],
            body: Bytes::from_static(br#"{"id":"0193","status":"accepted"}"#),
        },
        labels: vec![],
        amount: 1250,
        customer: None,
        caps: Arc::new(Caps { open: u64::MAX, open_sum: Some(i64::MAX), per_customer: None }),
        held: None,
    }
}

/// SQLite alone on one thread: the same bytes in four columns, a commit with a sync for every `batch` rows.
fn raw_loop(arguments: &Arguments, batch: usize) -> Result {
    let folder = tempfile::tempdir_in(&arguments.folder).expect("a folder");
    let connection = raw_connection(&folder.path().join("raw.db"));
    let entry = entry(1);
    let head = vec![b'h'; 500];
    let (start, cpu) = (Instant::now(), cpu_micros());
    let mut rows = 0;
    while start.elapsed() < arguments.time {
        let commit = connection.unchecked_transaction().expect("a transaction");
        {
            let sql = "INSERT INTO log (received_at, id, head, body) VALUES (?, ?, ?, ?)";
            let mut insert = commit.prepare_cached(sql).expect("SQL");
            for _ in 0..batch {
                let row = (entry.received_at.0, &entry.request_id, &head, &entry.request.body[..]);
                insert.execute(row).expect("a row");
            }
        }
        commit.commit().expect("a commit");
        rows += batch;
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    Result { rate, cpu: (cpu_micros() - cpu) / rows as f64, micros: Vec::new() }
}

fn raw_connection(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).expect("a file");
    connection
        .execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 500;
             CREATE TABLE log (seq INTEGER PRIMARY KEY, received_at, id, head, body)",
        )
        .expect("a table");
    connection
}
