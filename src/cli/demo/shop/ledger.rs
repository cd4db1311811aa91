//! The shop's ledger: what was really sold. SQLite, every answer only after an fsync, one thread that commits for all
//! who wait.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::Dedupe;
use crate::time::UnixMillis;

/// Handle of the ledger's thread.
pub(super) struct Ledger {
    jobs: mpsc::Sender<Job>,
}

/// One order as it came in.
pub(super) struct Order {
    /// What makes it a duplicate; none where the shop does not look.
    identity: Option<String>,
    order_id: String,
    key: Option<String>,
    cart_id: String,
    cents: i64,
    body_hash: String,
    replay: bool,
}

/// One change of a cart as it came in.
pub(super) struct CartChange {
    identity: Option<String>,
    cart_id: String,
    body: Vec<u8>,
    replay: bool,
}

/// What became of an order.
pub(super) enum Placed {
    New { order_id: String },
    Duplicate { order_id: String },
    Conflict,
}

/// Why the ledger did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger failed: {0}")]
pub(super) struct LedgerError(String);

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

enum Job {
    Place(Order, Reply<Placed>),
    ChangeCart(CartChange, Reply<i64>),
    Counts(Reply<serde_json::Value>),
}

#[derive(Deserialize)]
struct OrderBody {
    cart_id: String,
    cents: i64,
    currency: String,
}

impl Order {
    /// None where it is not an order.
    pub(super) fn read(head: &http::request::Parts, body: &[u8], dedupe: Dedupe) -> Option<Self> {
        let fields: OrderBody = serde_json::from_slice(body).ok()?;
        if fields.currency.len() != 3 || fields.cents <= 0 {
            return None;
        }
        let order_id =
            field(head, "x-request-id").unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        Some(Self {
            identity: identity(head, dedupe),
            order_id,
            key: key(head),
            cart_id: fields.cart_id,
            cents: fields.cents,
            body_hash: hex(&Sha256::digest(body)),
            replay: head.headers.contains_key("standin-replay"),
        })
    }
}

impl CartChange {
    pub(super) fn read(head: &http::request::Parts, body: &[u8], dedupe: Dedupe) -> Self {
        Self {
            identity: identity(head, dedupe),
            cart_id: head.uri.path().trim_start_matches("/carts/").to_owned(),
            body: body.to_vec(),
            replay: head.headers.contains_key("standin-replay"),
        }
    }
}

impl Ledger {
    #[expect(clippy::disallowed_methods, reason = "the ledger is the shop's own thread")]
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        let (jobs, waiting) = mpsc::channel(1024);
        std::thread::spawn(move || keep(connection, waiting));
        Ok(Self { jobs })
    }

    /// Returns when the order is on disk.
    pub(super) async fn place(&self, order: Order) -> Result<Placed, LedgerError> {
        self.ask(|reply| Job::Place(order, reply)).await
    }

    pub(super) async fn change_cart(&self, change: CartChange) -> Result<i64, LedgerError> {
        self.ask(|reply| Job::ChangeCart(change, reply)).await
    }

    pub(super) async fn counts(&self) -> Result<serde_json::Value, LedgerError> {
        self.ask(Job::Counts).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, LedgerError> {
        let gone = || LedgerError("its thread ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// One commit for all that wait; nobody hears of it before it returned.
fn keep(mut connection: Connection, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while waiting.blocking_recv_many(&mut jobs, MOST_AT_ONCE) > 0 {
        let done = in_one_transaction(&mut connection, jobs.drain(..));
        match done {
            Ok(answers) => answers.into_iter().for_each(|answer| answer(Ok(()))),
            Err((error, answers)) => {
                let error = LedgerError(error.to_string());
                answers.into_iter().for_each(|answer| answer(Err(error.clone())));
            }
        }
    }
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce(Result<(), LedgerError>)>;

fn in_one_transaction(
    connection: &mut Connection,
    jobs: impl Iterator<Item = Job>,
) -> Result<Vec<Answer>, (rusqlite::Error, Vec<Answer>)> {
    let mut answers: Vec<Answer> = Vec::new();
    let transaction = match connection.transaction() {
        Ok(transaction) => transaction,
        Err(error) => return Err((error, answers)),
    };
    for job in jobs {
        answers.push(match job {
            Job::Place(order, reply) => after_commit(reply, place(&transaction, &order)),
            Job::ChangeCart(change, reply) => {
                after_commit(reply, change_cart(&transaction, &change))
            }
            Job::Counts(reply) => after_commit(reply, counts(&transaction)),
        });
    }
    match transaction.commit() {
        Ok(()) => Ok(answers),
        Err(error) => Err((error, answers)),
    }
}

fn after_commit<T: 'static>(reply: Reply<T>, result: rusqlite::Result<T>) -> Answer {
    let result = result.map_err(|error| LedgerError(error.to_string()));
    Box::new(move |committed| {
        // A customer that left does not wait any more.
        let _ = reply.send(committed.and(result));
    })
}

fn place(db: &Connection, order: &Order) -> rusqlite::Result<Placed> {
    let first: Option<(String, String)> = match &order.identity {
        Some(identity) => db
            .prepare_cached("SELECT order_id, body_hash FROM orders WHERE identity = ?1")?
            .query_row([identity], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?,
        None => None,
    };
    let at = UnixMillis::now().0;
    if let Some((order_id, body_hash)) = first {
        if body_hash != order.body_hash {
            return Ok(Placed::Conflict);
        }
        db.prepare_cached(
            "INSERT INTO refused_duplicates (order_id, key, cart_id, replay, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![order.order_id, order.key, order.cart_id, order.replay, at])?;
        return Ok(Placed::Duplicate { order_id });
    }
    db.prepare_cached(
        "INSERT INTO orders (identity, order_id, key, cart_id, cents, body_hash, replay, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        order.identity,
        order.order_id,
        order.key,
        order.cart_id,
        order.cents,
        order.body_hash,
        order.replay,
        at
    ])?;
    Ok(Placed::New { order_id: order.order_id.clone() })
}

fn change_cart(db: &Connection, change: &CartChange) -> rusqlite::Result<i64> {
    let known = db
        .prepare_cached("SELECT version FROM cart_changes WHERE identity = ?1")?
        .query_row([&change.identity], |row| row.get(0))
        .optional()?;
    if let Some(version) = known {
        return Ok(version);
    }
    db.prepare_cached(
        "INSERT INTO cart_changes (identity, cart_id, body, replay, at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        change.identity,
        change.cart_id,
        change.body,
        change.replay,
        UnixMillis::now().0
    ])?;
    Ok(db.last_insert_rowid())
}

fn counts(db: &Connection) -> rusqlite::Result<serde_json::Value> {
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    Ok(json!({
        "orders": count("SELECT count(*) FROM orders")?,
        "refused_duplicates": count("SELECT count(*) FROM refused_duplicates")?,
        "cart_changes": count("SELECT count(*) FROM cart_changes")?,
    }))
}

fn identity(head: &http::request::Parts, dedupe: Dedupe) -> Option<String> {
    match dedupe {
        Dedupe::RequestId => field(head, "x-request-id"),
        Dedupe::IdempotencyKey => key(head),
        Dedupe::Nothing => None,
    }
}

/// The key is a structured string in the draft and often bare in practice.
fn key(head: &http::request::Parts) -> Option<String> {
    field(head, "idempotency-key").map(|key| key.trim_matches('"').to_owned())
}

fn field(head: &http::request::Parts, name: &str) -> Option<String> {
    head.headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MOST_AT_ONCE: usize = 256;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY,
    identity TEXT UNIQUE,
    order_id TEXT NOT NULL,
    key TEXT,
    cart_id TEXT NOT NULL,
    cents INTEGER NOT NULL,
    body_hash TEXT NOT NULL,
    replay INTEGER NOT NULL,
    at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS refused_duplicates (
    number INTEGER PRIMARY KEY,
    order_id TEXT NOT NULL,
    key TEXT,
    cart_id TEXT NOT NULL,
    replay INTEGER NOT NULL,
    at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS cart_changes (
    version INTEGER PRIMARY KEY,
    identity TEXT UNIQUE,
    cart_id TEXT NOT NULL,
    body BLOB NOT NULL,
    replay INTEGER NOT NULL,
    at INTEGER NOT NULL
);
";
