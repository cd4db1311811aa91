//! The toy shop as a process: killed, restarted on the same port, made to misbehave, its ledger read.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{Client, Process, folder, process::binary};

/// A running (or killed) shop and its ledger.
pub struct Shop {
    process: Process,
    address: SocketAddr,
    control: SocketAddr,
    dedupe: String,
    folder: tempfile::TempDir,
}

/// One order in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub order_id: String,
    pub key: Option<String>,
    pub cart_id: String,
    pub cents: i64,
    /// Whether it came as a replay.
    pub replay: bool,
    /// When it was applied, in milliseconds since 1970.
    pub at: i64,
}

impl Shop {
    /// A shop that refuses duplicates by `x-request-id`.
    pub async fn start() -> Self {
        Self::that_dedupes_by("x-request-id").await
    }

    /// `x-request-id`, `idempotency-key` or `none`.
    pub async fn that_dedupes_by(dedupe: &str) -> Self {
        let folder = folder();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (process, address, control) = run(&ledger_in(&folder), dedupe, any, any).await;
        Self { process, address, control, dedupe: dedupe.to_owned(), folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again with the same ledger on the same port, without faults.
    pub async fn restart(&mut self) {
        let ledger = ledger_in(&self.folder);
        let (process, ..) = run(&ledger, &self.dedupe, self.address, self.control).await;
        self.process = process;
    }

    /// From now on: fields of `Faults`, for example `json!({"kind": "drop_after", "every": 10})`.
    pub async fn faults(&self, faults: &Value) {
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/faults")
            .body(Bytes::from(faults.to_string()))
            .unwrap();
        let answer = Client::to(self.control).send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// No faults any more.
    pub async fn heal(&self) {
        self.faults(&json!({})).await;
    }

    pub fn ledger_file(&self) -> PathBuf {
        ledger_in(&self.folder)
    }

    /// All orders, in the order in which they were applied.
    pub fn orders(&self) -> Vec<LedgerRow> {
        let ledger = self.open_ledger();
        let sql = "SELECT order_id, key, cart_id, cents, replay, at FROM orders ORDER BY number";
        let mut select = ledger.prepare(sql).unwrap();
        let rows = select.query_map([], |row| {
            Ok(LedgerRow {
                order_id: row.get(0)?,
                key: row.get(1)?,
                cart_id: row.get(2)?,
                cents: row.get(3)?,
                replay: row.get(4)?,
                at: row.get(5)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// How many duplicates it refused to apply.
    pub fn refused_duplicates(&self) -> i64 {
        let sql = "SELECT count(*) FROM refused_duplicates";
        self.open_ledger().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Body of each change of `cart`, in the order in which they were applied.
    pub fn cart_changes(&self, cart: &str) -> Vec<String> {
        let ledger = self.open_ledger();
        let sql = "SELECT CAST(body AS TEXT) FROM cart_changes WHERE cart_id = ?1 ORDER BY version";
        let mut select = ledger.prepare(sql).unwrap();
        let rows = select.query_map([cart], |row| row.get(0));
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn open_ledger(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.ledger_file()).unwrap()
    }
}

fn ledger_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("shop.db")
}

async fn run(
    ledger: &std::path::Path,
    dedupe: &str,
    address: SocketAddr,
    control: SocketAddr,
) -> (Process, SocketAddr, SocketAddr) {
    let mut command = Command::new(binary());
    command.arg("toy-shop").arg("--ledger").arg(ledger).arg("--dedupe").arg(dedupe);
    command.arg("--listen").arg(address.to_string()).arg("--control").arg(control.to_string());
    let mut process = Process::spawn("the shop", &mut command);
    let control = process.says("control on ").await.parse().unwrap();
    let address = process.says("listening on ").await.parse().unwrap();
    (process, address, control)
}
