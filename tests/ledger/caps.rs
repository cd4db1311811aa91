//! Whether more was ever promised than the caps allow: asked of standin all the while, and counted afterwards from
//! what customers heard and when the shop applied it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use tokio::task::JoinHandle;

use super::{
    OPEN, OPEN_SUM, PER_CUSTOMER, WITHIN_SECONDS,
    customers::{Log, customer},
};
use crate::support::{Client, LedgerRow};

/// Asks the status page again and again.
pub struct Watch {
    over: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// The most that was ever seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub looks: usize,
    pub most_open: i64,
    pub most_open_sum: i64,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "awaited in end()")]
    pub fn over(admin: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(watch(admin, Arc::clone(&over)));
        Self { over, task }
    }

    pub async fn end(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn watch(admin: SocketAddr, over: Arc<AtomicBool>) -> Seen {
    let mut client = Client::to(admin).patience(Duration::from_secs(5));
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let status = Request::get("/api/v1/status").body(Bytes::new()).unwrap();
        // A standin that was just killed does not answer.
        if let Ok(answer) = client.send(status).await {
            assert_eq!(answer.status, 200, "{answer:?}");
            let status = answer.json();
            let route =
                status["routes"].as_array().unwrap().iter().find(|r| r["name"] == "checkout");
            let route = route.unwrap_or_else(|| panic!("no route in {status}"));
            seen.looks += 1;
            seen.most_open = seen.most_open.max(route["open"].as_i64().unwrap());
            seen.most_open_sum = seen.most_open_sum.max(route["open_sum"].as_i64().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen
}

/// What was promised and not yet applied, at the worst moment. An order counts from the moment its customer heard yes
/// until it is in the ledger: standin itself counts it for longer, so the caps must hold for this all the more.
#[derive(Debug, Default)]
pub struct Exposure {
    pub most_open: i64,
    pub most_open_sum: i64,
    pub most_per_customer: usize,
}

impl Exposure {
    pub fn of(log: &Log, ledger: &[LedgerRow]) -> Self {
        let applied: HashMap<&str, i64> =
            ledger.iter().map(|row| (&*row.cart_id, row.at)).collect();
        // Time, whether it grows (what shrinks comes first within a millisecond), by how many cents.
        let mut changes: Vec<(i64, bool, i64)> = Vec::new();
        let mut by_customer: HashMap<String, Vec<i64>> = HashMap::new();
        log.with(|orders| {
            for order in orders.values() {
                let Some(told) = order.told.iter().find(|told| told.stood_in) else { continue };
                by_customer.entry(customer(&order.cart_id)).or_default().push(told.at);
                let applied = applied[&*order.cart_id];
                if applied > told.at {
                    changes.push((told.at, true, order.cents));
                    changes.push((applied, false, -order.cents));
                }
            }
        });
        changes.sort_unstable();
        let (mut exposure, mut open, mut open_sum) = (Self::default(), 0, 0);
        for (_, grows, cents) in changes {
            open += if grows { 1 } else { -1 };
            open_sum += cents;
            exposure.most_open = exposure.most_open.max(open);
            exposure.most_open_sum = exposure.most_open_sum.max(open_sum);
        }
        for times in by_customer.values_mut() {
            times.sort_unstable();
            // A little less than the window: customers hear later than standin counts, by a varying time.
            let window = (WITHIN_SECONDS - 3) * 1000;
            for (from, first) in times.iter().enumerate() {
                let within = times[from..].iter().take_while(|time| **time < first + window);
                exposure.most_per_customer = exposure.most_per_customer.max(within.count());
            }
        }
        exposure
    }

    pub fn within(&self) -> bool {
        self.most_open <= OPEN
            && self.most_open_sum <= OPEN_SUM
            && self.most_per_customer <= PER_CUSTOMER
    }
}
