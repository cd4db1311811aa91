//! The receipt: the customers' log counted against the shop's ledger. Nothing here is standin's own word.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{
    DemoError,
    customers::{Line, Log, Tally, Told},
};
use crate::time::UnixMillis;

/// What was promised, and what the ledger says of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receipt {
    pub(super) tally: Tally,
    pub(super) in_ledger: usize,
    /// Orders that reached the ledger as replays.
    pub(super) replayed: usize,
    /// Acknowledged orders that are not in the ledger under the number their customer was told.
    pub(super) lost: usize,
    /// Carts that are in the ledger more than once.
    pub(super) doubled: usize,
    pub(super) last_replay: Option<UnixMillis>,
}

/// One order of the ledger.
struct Sold {
    order_id: String,
    replay: bool,
    at: UnixMillis,
}

impl Receipt {
    pub(super) fn count(log: &Log, ledger: &Connection) -> Result<Self, DemoError> {
        let mut sold: HashMap<String, Vec<Sold>> = HashMap::new();
        let mut select = ledger.prepare("SELECT cart_id, order_id, replay, at FROM orders")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let at = UnixMillis(row.get(3)?);
            let order = Sold { order_id: row.get(1)?, replay: row.get(2)?, at };
            sold.entry(row.get(0)?).or_default().push(order);
        }
        let replays = || sold.values().flatten().filter(|order| order.replay);
        Ok(log.lines(|lines| Self {
            tally: Tally::of(lines),
            in_ledger: sold.values().map(Vec::len).sum(),
            replayed: replays().count(),
            lost: lines.iter().filter(|line| is_lost(line, &sold)).count(),
            doubled: sold.values().filter(|orders| orders.len() > 1).count(),
            last_replay: replays().map(|order| order.at).max(),
        }))
    }

    /// What the demo has to show.
    pub(super) fn verdict(&self) -> Result<(), DemoError> {
        let broken = |why: String| Err(DemoError::Broken(why));
        match self {
            Self { lost: 1.., .. } => broken(format!("{} orders are lost", self.lost)),
            Self { doubled: 1.., .. } => broken(format!("{} orders are doubled", self.doubled)),
            _ if self.tally.stood_in == 0 => broken("no order was stood in for".to_owned()),
            _ => Ok(()),
        }
    }
}

fn is_lost(line: &Line, sold: &HashMap<String, Vec<Sold>>) -> bool {
    match &line.told {
        Told::Accepted(id) | Told::StoodIn(id) => {
            let orders = sold.get(&line.cart_id).map_or(&[][..], Vec::as_slice);
            !orders.iter().any(|order| order.order_id == *id)
        }
        Told::Declined | Told::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger with these orders: cart, number, whether it came as a replay.
    fn ledger(orders: &[(&str, &str, bool)]) -> Connection {
        let ledger = Connection::open_in_memory().unwrap();
        ledger.execute_batch("CREATE TABLE orders (cart_id, order_id, replay, at)").unwrap();
        for order in orders {
            ledger.execute("INSERT INTO orders VALUES (?, ?, ?, 7)", *order).unwrap();
        }
        ledger
    }

    fn two_promised() -> Log {
        Log::of([
            ("first", Told::Accepted("1".into())),
            ("second", Told::StoodIn("2".into())),
            ("too large", Told::Declined),
            ("nobody knows", Told::Nothing),
        ])
    }

    /// What the receipt counts as lost and doubled, and what the demo says at its end.
    fn counted(log: &Log, orders: &[(&str, &str, bool)]) -> (usize, usize, Result<(), String>) {
        let receipt = Receipt::count(log, &ledger(orders)).unwrap();
        (receipt.lost, receipt.doubled, receipt.verdict().map_err(|error| error.to_string()))
    }

    #[test]
    fn a_ledger_with_every_promise_once_is_well() {
        // What nobody was promised may be there or not.
        let orders = [("first", "1", false), ("second", "2", true), ("nobody knows", "4", false)];
        assert_eq!(counted(&two_promised(), &orders), (0, 0, Ok(())));
        let receipt = Receipt::count(&two_promised(), &ledger(&orders)).unwrap();
        assert_eq!((receipt.in_ledger, receipt.replayed), (3, 1));
        assert_eq!(receipt.last_replay, Some(UnixMillis(7)));
    }

    #[test]
    fn a_promise_that_is_not_in_the_ledger_is_lost() {
        let lost = Err("1 orders are lost".to_owned());
        assert_eq!(counted(&two_promised(), &[("first", "1", false)]), (1, 0, lost.clone()));
        assert_eq!(counted(&two_promised(), &[("second", "2", true)]), (1, 0, lost));
        assert_eq!(counted(&two_promised(), &[]).0, 2);
    }

    #[test]
    fn an_order_under_another_number_than_its_customer_was_told_is_lost() {
        let orders = [("first", "1", false), ("second", "9", true)];
        assert_eq!(counted(&two_promised(), &orders), (1, 0, Err("1 orders are lost".into())));
        // Nor does the number count under another cart.
        let orders = [("first", "1", false), ("third", "2", true)];
        assert_eq!(counted(&two_promised(), &orders).0, 1);
    }

    #[test]
    fn a_cart_that_is_in_the_ledger_twice_is_doubled() {
        let doubled = Err("1 orders are doubled".to_owned());
        let orders = [("first", "1", false), ("second", "2", false), ("second", "2", true)];
        assert_eq!(counted(&two_promised(), &orders), (0, 1, doubled.clone()));
        // Whoever was promised nothing must not be charged twice either, whatever the numbers.
        let orders = [
            ("first", "1", false),
            ("second", "2", true),
            ("nobody knows", "4", false),
            ("nobody knows", "5", false),
        ];
        assert_eq!(counted(&two_promised(), &orders), (0, 1, doubled));
    }

    #[test]
    fn a_demo_in_which_nobody_stood_in_shows_nothing() {
        let log = Log::of([("first", Told::Accepted("1".into()))]);
        let (lost, doubled, verdict) = counted(&log, &[("first", "1", false)]);
        assert_eq!((lost, doubled), (0, 0));
        assert_eq!(verdict, Err("no order was stood in for".into()));
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_no_good_news() {
        let empty = Connection::open_in_memory().unwrap();
        assert!(matches!(Receipt::count(&two_promised(), &empty), Err(DemoError::Ledger(_))));
    }
}
