//! Customers who retry with the same key until they are told yes, and come back later to ask again. They write down
//! each order before it is sent and each yes when it came, whole.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use standin::time::UnixMillis;
use tokio::task::JoinSet;

use crate::support::{Answer, Client, NoAnswer};

/// What all customers know together.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    orders: HashMap<String, Ordered>,
    tally: Tally,
}

/// One order as its customer knows it.
pub struct Ordered {
    pub cart_id: String,
    pub key: String,
    pub cents: i64,
    pub told: Vec<Told>,
}

/// One 201.
#[derive(Clone, Debug)]
pub struct Told {
    /// The order number in it.
    pub id: String,
    /// Whether standin said so in the shop's stead.
    pub stood_in: bool,
    /// When it was heard, in milliseconds since 1970.
    pub at: i64,
}

/// How often what was said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub orders: usize,
    pub by_shop: usize,
    pub stood_in: usize,
    /// An honest no, and what the shop itself says in its bad moments.
    pub refused: usize,
    /// No answer: standin was killed.
    pub nothing: usize,
}

/// They leave when told, and when there were enough orders.
pub struct Customers {
    closing: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Customers {
    pub fn enter(door: SocketAddr, log: &Log, orders: usize) -> Self {
        let closing = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..CUSTOMERS {
            let customer = Customer {
                client: Client::to(door).patience(Duration::from_secs(5)),
                log: log.clone(),
                closing: Arc::clone(&closing),
                number,
            };
            tasks.spawn(customer.shop(Arc::clone(&next), orders));
        }
        Self { closing, tasks }
    }

    /// Each finishes its last order; a customer whose assertion failed fails the test.
    pub async fn leave(mut self) {
        self.closing.store(true, Ordering::Relaxed);
        while let Some(left) = self.tasks.join_next().await {
            left.unwrap();
        }
    }
}

struct Customer {
    client: Client,
    log: Log,
    closing: Arc<AtomicBool>,
    number: usize,
}

impl Customer {
    async fn shop(mut self, next: Arc<AtomicUsize>, enough: usize) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let closing = self.closing.load(Ordering::Relaxed);
            if closing && number >= enough {
                return;
            }
            if !closing {
                pace.tick().await;
            }
            let (cart, key) = (format!("cart-{number}"), format!("key-{number}"));
            let cents = cents(number);
            self.log.ordered(&cart, &key, cents);
            self.order(&cart, &key, cents, number).await;
            // Some ask again later: what was said must still hold.
            if number.is_multiple_of(7) && number > 50 * CUSTOMERS {
                self.ask_again(number - 50 * CUSTOMERS + self.number % 7).await;
            }
        }
    }

    /// Tries until it is told yes; one in twenty gives up after the first no.
    async fn order(&mut self, cart: &str, key: &str, cents: i64, number: usize) {
        loop {
            let answer = self.client.send(request(cart, key, cents)).await;
            let accepted = self.log.heard(cart, &answer);
            if accepted || (number.is_multiple_of(20) && answer.is_ok()) {
                return;
            }
            tokio::time::sleep(BEFORE_RETRY).await;
        }
    }

    async fn ask_again(&mut self, number: usize) {
        let cart = format!("cart-{number}");
        if self.log.with(|orders| orders.get(&cart).is_some_and(|order| !order.told.is_empty())) {
            let again = request(&cart, &format!("key-{number}"), cents(number));
            let answer = self.client.send(again).await;
            self.log.heard(&cart, &answer);
        }
    }
}

impl Log {
    pub fn ordered(&self, cart_id: &str, key: &str, cents: i64) {
        let mut book = self.0.lock().unwrap();
        book.tally.orders += 1;
        let order =
            Ordered { cart_id: cart_id.to_owned(), key: key.to_owned(), cents, told: Vec::new() };
        book.orders.insert(cart_id.to_owned(), order);
    }

    pub fn told(&self, cart_id: &str, id: &str, stood_in: bool) {
        let told = Told { id: id.to_owned(), stood_in, at: UnixMillis::now().0 };
        let mut book = self.0.lock().unwrap();
        book.orders.get_mut(cart_id).unwrap().told.push(told);
        *(if stood_in { &mut book.tally.stood_in } else { &mut book.tally.by_shop }) += 1;
    }

    /// Writes down what a customer heard; whether it was a yes. A yes has the shop's own form, whoever says it.
    pub fn heard(&self, cart_id: &str, answer: &Result<Answer, NoAnswer>) -> bool {
        let Ok(answer) = answer else {
            self.0.lock().unwrap().tally.nothing += 1;
            return false;
        };
        if answer.status != StatusCode::CREATED {
            assert!(!answer.status.is_success(), "neither yes nor no: {answer:?}");
            self.0.lock().unwrap().tally.refused += 1;
            return false;
        }
        assert_eq!(answer.header("content-type"), "application/json", "{answer:?}");
        let body = answer.json();
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "status"], "{answer:?}");
        let stood_in = answer.header("proxy-status").starts_with("standin");
        self.told(cart_id, body["id"].as_str().unwrap(), stood_in);
        true
    }

    /// Requests that came to an end, whichever.
    pub fn ended(&self) -> usize {
        let tally = self.tally();
        tally.by_shop + tally.stood_in + tally.refused + tally.nothing
    }

    pub fn tally(&self) -> Tally {
        self.0.lock().unwrap().tally
    }

    pub fn with<T>(&self, read: impl FnOnce(&HashMap<String, Ordered>) -> T) -> T {
        read(&self.0.lock().unwrap().orders)
    }
}

fn request(cart: &str, key: &str, cents: i64) -> Request<Bytes> {
    let body = json!({
        "cart_id": cart,
        "cents": cents,
        "currency": "USD",
        "customer": customer(cart),
    });
    Request::post("/checkout")
        .header("content-type", "application/json")
        .header("idempotency-key", format!("\"{key}\""))
        .body(body.to_string().into())
        .unwrap()
}

/// Whose cart it is.
pub fn customer(cart: &str) -> String {
    let number: usize = cart.trim_start_matches("cart-").parse().unwrap();
    format!("customer-{}", number % 50)
}

/// 500 to 4999.
fn cents(number: usize) -> i64 {
    i64::try_from(500 + number * 37 % 4_500).unwrap()
}

const CUSTOMERS: usize = 32;
/// Between two orders of one customer, while there is chaos.
const PACE: Duration = Duration::from_millis(80);
const BEFORE_RETRY: Duration = Duration::from_millis(60);
