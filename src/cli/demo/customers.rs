//! The customers: concurrent clients over real sockets who write down what they sent and what they were told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// What the customers know; counted against the ledger at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Line>>>);

/// One order from its customer's side.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) cart_id: String,
    pub(super) told: Told,
    at: Instant,
}

/// What a customer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// 201 with this order number, by the shop.
    Accepted(String),
    /// 201 with this order number, by standin in the shop's stead.
    StoodIn(String),
    /// An honest error.
    Declined,
    /// Nothing.
    Nothing,
}

/// Customers in the shop; they leave when told.
pub(super) struct Customers {
    closing: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// A place in the log.
pub(super) struct Mark {
    log: Log,
    from: usize,
}

/// How orders went since a mark.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: usize,
    pub(super) by_shop: usize,
    pub(super) stood_in: usize,
    pub(super) declined: usize,
    pub(super) nothing: usize,
    first_stand_in: Option<Instant>,
}

impl Customers {
    pub(super) fn enter(door: SocketAddr, log: &Log) -> Self {
        let closing = Arc::new(AtomicBool::new(false));
        let orders = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..CUSTOMERS {
            let customer = Customer { door, connection: None, driver: JoinSet::new() };
            tasks.spawn(customer.shop(Arc::clone(&orders), log.clone(), Arc::clone(&closing)));
        }
        Self { closing, tasks }
    }

    /// Each waits for the answer to its last order.
    pub(super) async fn leave(mut self) {
        self.closing.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Customer {
    door: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    driver: JoinSet<()>,
}

impl Customer {
    async fn shop(mut self, orders: Arc<AtomicU64>, log: Log, closing: Arc<AtomicBool>) {
        let mut ticks = interval(BETWEEN_ORDERS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !closing.load(Ordering::Relaxed) {
            ticks.tick().await;
            let number = orders.fetch_add(1, Ordering::Relaxed);
            let (cart_id, key) = (format!("cart-{number}"), uuid::Uuid::now_v7().to_string());
            let mut told = Told::Nothing;
            for _ in 0..TRIES {
                told = self.order(&cart_id, &key, cents(number)).await;
                if told != Told::Nothing {
                    break;
                }
            }
            log.write(Line { cart_id, told, at: Instant::now() });
        }
    }

    /// The same cart and key again when there was no answer, as a browser's retry would.
    async fn order(&mut self, cart_id: &str, key: &str, cents: u64) -> Told {
        let body = json!({ "cart_id": cart_id, "cents": cents, "currency": "USD" }).to_string();
        let told = timeout(PATIENCE, self.exchange(key, body)).await.ok().flatten();
        if told.is_none() {
            self.connection = None;
        }
        told.unwrap_or(Told::Nothing)
    }

    async fn exchange(&mut self, key: &str, body: String) -> Option<Told> {
        let request = Request::post("/checkout")
            .header(header::HOST, self.door.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", format!("\"{key}\""))
            .body(Full::from(body))
            .ok()?;
        let response = self.connected().await?.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.ok()?.to_bytes();
        if head.status != StatusCode::CREATED {
            return Some(Told::Declined);
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let id = answer.get("id")?.as_str()?.to_owned();
        let by_proxy = head.headers.get("proxy-status");
        let stood_in = by_proxy.is_some_and(|status| status.as_bytes().starts_with(b"standin"));
        Some(if stood_in { Told::StoodIn(id) } else { Told::Accepted(id) })
    }

    async fn connected(&mut self) -> Option<&mut SendRequest<Full<Bytes>>> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.door).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            self.driver.spawn(async move {
                // Its end shows at the next request.
                let _ = driver.await;
            });
            self.connection = Some(sender);
        }
        self.connection.as_mut()
    }
}

impl Log {
    pub(super) fn mark(&self) -> Mark {
        Mark { log: self.clone(), from: self.lines(<[Line]>::len) }
    }

    pub(super) fn lines<T>(&self, read: impl FnOnce(&[Line]) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn of(told: impl IntoIterator<Item = (&'static str, Told)>) -> Self {
        let log = Self::default();
        for (cart_id, told) in told {
            log.write(Line { cart_id: cart_id.to_owned(), told, at: Instant::now() });
        }
        log
    }

    fn write(&self, line: Line) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Mark {
    pub(super) fn since(&self) -> Tally {
        self.log.lines(|lines| Tally::of(&lines[self.from..]))
    }
}

impl Tally {
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut tally = Self { sent: lines.len(), ..Self::default() };
        for line in lines {
            match line.told {
                Told::Accepted(_) => tally.by_shop += 1,
                Told::StoodIn(_) => {
                    tally.stood_in += 1;
                    let first = tally.first_stand_in.get_or_insert(line.at);
                    *first = (*first).min(line.at);
                }
                Told::Declined => tally.declined += 1,
                Told::Nothing => tally.nothing += 1,
            }
        }
        tally
    }

    /// `392 orders: 392 answered by the shop`
    pub(super) fn in_words(&self) -> String {
        let parts = [
            (self.by_shop, "answered by the shop"),
            (self.stood_in, "stood in"),
            (self.declined, "declined"),
            (self.nothing, "without an answer"),
        ];
        let some = parts.iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = some.map(|(count, what)| format!("{count} {what}")).collect();
        format!("{} orders: {}", self.sent, words.join(", "))
    }

    /// The same, and how soon after `moment` the first stand-in answer came.
    pub(super) fn in_words_from(&self, moment: Instant) -> String {
        let words = self.in_words();
        match self.first_stand_in {
            Some(first) => {
                let after = first.saturating_duration_since(moment).as_millis();
                format!("{words}; the first stand-in answer after {after} ms")
            }
            None => words,
        }
    }
}

/// Most carts are small; some are too large to be accepted on the shop's behalf.
fn cents(number: u64) -> u64 {
    if number % 9 == 8 { 12_900 } else { 500 + number * 37 % 4_400 }
}

const CUSTOMERS: usize = 8;
const BETWEEN_ORDERS: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(5);
const TRIES: usize = 3;
const LARGEST_ANSWER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_what_was_told() {
        let line = |told| Line { cart_id: String::new(), told, at: Instant::now() };
        let lines = [
            line(Told::Accepted("a".into())),
            line(Told::StoodIn("b".into())),
            line(Told::StoodIn("c".into())),
            line(Told::Declined),
        ];
        let words = Tally::of(&lines).in_words();
        assert_eq!(words, "4 orders: 1 answered by the shop, 2 stood in, 1 declined");
    }

    #[test]
    fn some_carts_are_over_the_limit_and_most_are_not() {
        let over = (0..900).filter(|&number| cents(number) > 5000).count();
        assert_eq!(over, 100);
    }
}
