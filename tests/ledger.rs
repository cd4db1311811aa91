//! The promise itself: whatever happens to the shop and to standin, each acknowledged order is in the shop's ledger
//! exactly once. Customers retry with the same key; the shop dies, hangs, applies and denies; standin is killed with
//! SIGKILL at random and at the points that hurt most.

mod caps;
mod chaos;
mod customers;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use self::{
    chaos::{Chaos, POINTS},
    customers::{Customers, Log},
};
use crate::support::{LedgerRow, Shop, Standin, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_order_is_in_the_ledger_exactly_once() {
    let mut shop = Shop::start().await;
    let standin = Standin::start(&config(shop.address(), "x-request-id")).await;
    let log = Log::default();
    let customers = Customers::enter(standin.address(), &log, 20_000);
    let caps = caps::Watch::over(standin.admin_address());

    let mut chaos = Chaos::over(standin, &log);
    for round in 0..ROUNDS {
        chaos.round(round, &mut shop).await;
    }
    let (standin, kills) = chaos.over_now();
    shop.heal().await;
    customers.leave().await;
    let verdict = settled(&log, &shop, &standin).await;
    let seen = caps.end().await;

    let told = log.tally();
    println!("{told:?}\n{kills:?}\n{seen:?}\nrefused duplicates: {}", shop.refused_duplicates());
    assert_eq!(verdict, Verdict::default(), "{told:?}");
    assert!(told.orders >= 20_000, "{told:?}");
    assert!(told.stood_in > 1_000, "too few to mean anything: {told:?}");
    assert!(kills.total() >= 20, "{kills:?}");
    for point in POINTS {
        assert!(kills.at(point) > 0, "{point} was never hit: {kills:?}");
    }
    assert!(seen.looks > 100 && seen.most_open > 0, "the caps were not watched: {seen:?}");
    assert!(seen.most_open_sum > OPEN_SUM * 3 / 4, "no cap was ever met: {seen:?}");
    assert!(seen.most_open <= OPEN && seen.most_open_sum <= OPEN_SUM, "{seen:?}");
    let exposure = caps::Exposure::of(&log, &shop.orders());
    println!("{exposure:?}");
    assert!(exposure.within(), "{exposure:?}");
}

/// The same road, shorter, with a shop that knows an order by the customer's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_dedupes_by_key_has_every_order_once_too() {
    let mut shop = Shop::that_dedupes_by("idempotency-key").await;
    let standin = Standin::start(&config(shop.address(), "idempotency-key")).await;
    let log = Log::default();
    let customers = Customers::enter(standin.address(), &log, 2_000);
    let mut chaos = Chaos::over(standin, &log);
    for round in 0..7 {
        chaos.round(round, &mut shop).await;
    }
    let (standin, kills) = chaos.over_now();
    shop.heal().await;
    customers.leave().await;
    let verdict = settled(&log, &shop, &standin).await;
    assert_eq!(verdict, Verdict::default(), "{:?} {kills:?}", log.tally());
    assert!(log.tally().stood_in > 100, "{:?}", log.tally());
}

/// A checker that cannot fail proves nothing: the same road without the shop's own protection must double.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_sees_duplicates_when_the_shop_does_not_refuse_them() {
    let mut shop = Shop::that_dedupes_by("none").await;
    let standin = Standin::start(&config(shop.address(), "x-request-id")).await;
    let log = Log::default();
    let customers = Customers::enter(standin.address(), &log, 1_000);
    let mut chaos = Chaos::over(standin, &log);
    for round in 0..4 {
        chaos.round(round, &mut shop).await;
    }
    let (standin, _) = chaos.over_now();
    shop.heal().await;
    customers.leave().await;
    let verdict = settled(&log, &shop, &standin).await;
    assert!(verdict.doubled > 0, "{verdict:?}");
    assert_eq!(verdict.lost, 0, "{verdict:?}");
}

/// What is wrong, counted from the customers' log and the shop's ledger alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Acknowledged, and not in the ledger under the number that the customer was told.
    lost: usize,
    /// In the ledger more than once.
    doubled: usize,
    /// In the ledger, though no customer ever ordered it so.
    unknown: usize,
    /// The same order acknowledged under different numbers.
    contradicted: usize,
}

impl Verdict {
    fn of(log: &Log, ledger: &[LedgerRow]) -> Self {
        let mut rows: HashMap<&str, Vec<&LedgerRow>> = HashMap::new();
        for row in ledger {
            rows.entry(&row.cart_id).or_default().push(row);
        }
        let mut verdict = Self {
            doubled: rows.values().filter(|rows| rows.len() > 1).count(),
            ..Self::default()
        };
        log.with(|orders| {
            for order in orders.values() {
                let sold = rows.get(&*order.cart_id).map_or(&[][..], Vec::as_slice);
                let wrong = |row: &&&LedgerRow| {
                    row.key.as_ref() != Some(&order.key) || row.cents != order.cents
                };
                verdict.unknown += sold.iter().filter(wrong).count();
                if let Some(first) = order.told.first() {
                    verdict.contradicted +=
                        usize::from(order.told.iter().any(|told| told.id != first.id));
                    verdict.lost += usize::from(!sold.iter().any(|row| row.order_id == first.id));
                }
            }
            let ordered = |row: &&LedgerRow| orders.contains_key(&row.cart_id);
            verdict.unknown += ledger.iter().filter(|row| !ordered(row)).count();
        });
        verdict
    }
}

/// The verdict once the replays are through: when nothing is missing any more and nothing is open.
async fn settled(log: &Log, shop: &Shop, standin: &Standin) -> Verdict {
    eventually(Duration::from_secs(60), async || {
        on_duty(standin).await;
        let verdict = Verdict::of(log, &shop.orders());
        let status = standin.admin_get("/api/v1/status").await.json();
        let open = status["routes"][0]["open"].as_u64().unwrap();
        if verdict.lost == 0 && open == 0 { Ok(verdict) } else { Err((verdict, open)) }
    })
    .await
}

/// The person on duty. An entry that was being sent when standin died, three times in a row, is held as the likely
/// cause of it; here it is not, and goes on. Nothing is ever held for any other reason.
async fn on_duty(standin: &Standin) {
    let held = standin.admin_get("/api/v1/entries?state=held").await.json();
    for entry in held["entries"].as_array().unwrap() {
        let path = format!("/api/v1/entries/{}", entry["receipt"].as_str().unwrap());
        let entry = standin.admin_get(&path).await.json();
        let last = entry["history"].as_array().unwrap().last().unwrap();
        let why = last["why"].as_str().unwrap();
        assert_eq!(why, "standin ended while sending it, 3 times in a row", "{entry:#}");
        let because = serde_json::json!({ "reason": "the test killed it" });
        let released = standin.admin_post(&format!("{path}/release"), &because).await;
        assert_eq!(released.status, 200, "{}", released.text());
    }
}

/// Short times, so that much happens; nobody is trusted with a request id; caps that an outage meets.
fn config(shop: SocketAddr, dedupes_by: &str) -> String {
    format!(
        r#"
[request_id]
trust = []

[upstream.shop]
endpoints = ["http://{shop}"]
timeout = "500ms"
connect_timeout = "500ms"
late_window = "700ms"
health = {{ interval = "100ms" }}
breaker = {{ min_open = "100ms", max_open = "400ms" }}

[route.checkout]
match = "POST /checkout"
app_dedupes = {{ by = "{dedupes_by}", for = "7d" }}

[route.checkout.stand_in]
on = ["connect", "breaker", "timeout", "reset", "5xx"]
accept_if = 'body.currency == "USD" && body.cents > 0 && body.cents <= 5000'
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}

[route.checkout.stand_in.at_most]
open = {OPEN}
open_sum = {OPEN_SUM}
sum_of = "body.cents"
per_customer = {{ count = {PER_CUSTOMER}, within = "{WITHIN_SECONDS}s", by = "body.customer" }}

[route.checkout.replay]
max_attempts = 1000
min_backoff = "50ms"
max_backoff = "500ms"
"#
    )
}

const ROUNDS: usize = 24;
const OPEN: i64 = 400;
/// Less than 400 average carts: this cap is met too.
const OPEN_SUM: i64 = 900_000;

/// Acknowledged per customer within so many seconds.
const PER_CUSTOMER: usize = 30;
const WITHIN_SECONDS: i64 = 30;

mod tests {
    use super::*;

    fn row(cart: &str, id: &str) -> LedgerRow {
        LedgerRow {
            order_id: id.to_owned(),
            key: Some(format!("key-of-{cart}")),
            cart_id: cart.to_owned(),
            cents: 100,
            replay: false,
            at: 0,
        }
    }

    #[test]
    fn the_verdict_finds_each_wrong() {
        let log = Log::default();
        for (cart, told) in [("good", "1"), ("lost", "2"), ("double", "3"), ("misnamed", "4")] {
            log.ordered(cart, &format!("key-of-{cart}"), 100);
            log.told(cart, told, false);
        }
        log.told("double", "33", true);
        log.ordered("unacknowledged", "key-of-unacknowledged", 100);
        let ledger = [
            row("good", "1"),
            row("double", "3"),
            row("double", "33"),
            row("misnamed", "5"),
            row("from nowhere", "6"),
        ];
        let expected = Verdict { lost: 2, doubled: 1, unknown: 1, contradicted: 1 };
        assert_eq!(Verdict::of(&log, &ledger), expected);
        let good = [row("good", "1"), row("lost", "2"), row("double", "3"), row("misnamed", "4")];
        assert_eq!(Verdict::of(&log, &good), Verdict { contradicted: 1, ..Verdict::default() });
    }
}
