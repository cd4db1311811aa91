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
