//! How much is open per route and customer: what caps are checked against. Exact: changed only where rows are.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{OpenIndex, Row, seqs::Seqs};
use crate::{
    store::{Cap, Caps, Digest, RouteTotals, State},
    time::UnixMillis,
};

/// One route's open entries.
#[derive(Debug)]
pub(super) struct RouteAccount {
    pub(super) name: Arc<str>,
    open: u64,
    held: u64,
    /// Wide enough for any number of amounts.
    sum: i128,
    pub(super) declined: u64,
    /// Those that are open.
    entries: Seqs,
}

impl RouteAccount {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, open: 0, held: 0, sum: 0, declined: 0, entries: Seqs::default() }
    }

    pub(super) fn add(&mut self, row: &Row) {
        self.open += 1;
        self.held += u64::from(row.state == State::Held);
        self.sum += counted(row.amount);
        self.entries.insert(row.seq);
    }

    pub(super) fn remove(&mut self, row: &Row) {
        self.open -= 1;
        self.held -= u64::from(row.state == State::Held);
        self.sum -= counted(row.amount);
        self.entries.remove(row.seq);
    }

    pub(super) fn cap_reached(&self, amount: i64, caps: &Caps) -> Option<Cap> {
        if self.open >= caps.open {
            return Some(Cap::Open);
        }
        let most = i128::from(caps.open_sum?);
        (self.sum + counted(amount) > most).then_some(Cap::OpenSum)
    }
}

/// A negative amount makes no room for others.
fn counted(amount: i64) -> i128 {
    i128::from(amount.max(0))
}

/// When entries of each customer were accepted, closed ones included. In many tables: one that grows is copied, and one
/// is looked through for what no window looks back to; nobody is to wait long for either.
#[derive(Debug)]
pub(in crate::store) struct Customers {
    tables: Box<[Table]>,
    /// The table to be looked through next.
    next: usize,
}

type Table = HashMap<(usize, Digest), VecDeque<i64>>;

const TABLES: usize = 256;

impl Default for Customers {
    fn default() -> Self {
        Self { tables: (0..TABLES).map(|_| HashMap::new()).collect(), next: 0 }
    }
}

impl Customers {
    pub(super) fn add(&mut self, route: usize, customer: Digest, at: i64) {
        let times = self.tables[table(customer)].entry((route, customer)).or_default();
        let place = times.partition_point(|&other| other <= at);
        times.insert(place, at);
    }

    pub(super) fn take_back(&mut self, route: usize, customer: Digest, at: i64) {
        let accepted = &mut self.tables[table(customer)];
        if let Some(times) = accepted.get_mut(&(route, customer)) {
            let place = times.partition_point(|&other| other < at);
            if times.get(place) == Some(&at) {
                times.remove(place);
            }
            if times.is_empty() {
                accepted.remove(&(route, customer));
            }
        }
    }

    /// How many came within `window` before `now`.
    pub(super) fn accepted(
        &self,
        route: usize,
        customer: Digest,
        now: UnixMillis,
        window: Duration,
    ) -> u64 {
        let from = now.minus(window).0;
        self.tables[table(customer)]
            .get(&(route, customer))
            .map_or(0, |times| (times.len() - times.partition_point(|&at| at <= from)) as u64)
    }

    /// Forgets what no window looks back to, in one table. True if there are more tables in this round.
    pub(super) fn forget(&mut self, before: UnixMillis) -> bool {
        self.tables[self.next].retain(|_, times| {
            let keep_from = times.partition_point(|&at| at <= before.0);
            times.drain(..keep_from);
            !times.is_empty()
        });
        self.next = (self.next + 1) % TABLES;
        self.next != 0
    }
}

fn table(customer: Digest) -> usize {
    (customer.0 >> 32) as usize % TABLES
}

impl OpenIndex {
    /// An entry that closed earlier still counts for its customer.
    pub(in crate::store) fn count_customer(
        &mut self,
        route: &Arc<str>,
        customer: Digest,
        received_at: i64,
    ) {
        let account = self.account(route);
        self.customers.add(account, customer, received_at);
    }

    /// All that was counted, for a count from the beginning.
    pub(in crate::store) fn take_customers(&mut self) -> Customers {
        std::mem::take(&mut self.customers)
    }

    pub(in crate::store) fn put_customers_back(&mut self, customers: Customers) {
        self.customers = customers;
    }

    /// True if there is more to look at in this round.
    pub(in crate::store) fn forget_customers(&mut self, before: UnixMillis) -> bool {
        self.customers.forget(before)
    }

    pub(in crate::store) fn set_declined(&mut self, route: &Arc<str>, declined: u64) {
        let account = self.account(route);
        self.routes[account].declined = declined;
    }

    /// Fewer declined ones are kept now.
    pub(in crate::store) fn declined_gone(&mut self, route: &str, gone: u64) {
        if let Some(&account) = self.routes_by_name.get(route) {
            let declined = &mut self.routes[account].declined;
            *declined = declined.saturating_sub(gone);
        }
    }

    pub(in crate::store) fn totals(&self) -> BTreeMap<Arc<str>, RouteTotals> {
        let rows = &self.rows;
        self.routes
            .iter()
            .map(|route| {
                let oldest = route.entries.first().and_then(|seq| rows.get(seq));
                let totals = RouteTotals {
                    open: route.open,
                    held: route.held,
                    open_sum: i64::try_from(route.sum).unwrap_or(i64::MAX),
                    oldest_open: oldest.map(|row| UnixMillis(row.received_at)),
                    declined: route.declined,
                };
                (Arc::clone(&route.name), totals)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_are_forgotten_table_by_table_and_only_what_no_window_reaches() {
        let mut customers = Customers::default();
        let customer = |number: u128| Digest(number << 32 | number);
        for number in 0..1000 {
            customers.add(1, customer(number), 10);
            if number % 2 == 0 {
                customers.add(1, customer(number), 20);
            }
        }
        let mut looks = 1;
        while customers.forget(UnixMillis(10)) {
            looks += 1;
        }
        assert_eq!(looks, TABLES);
        let known: usize = customers.tables.iter().map(HashMap::len).sum();
        assert_eq!(known, 500);
        let accepted = |customers: &Customers, number| {
            let window = Duration::from_millis(25);
            customers.accepted(1, customer(number), UnixMillis(30), window)
        };
        assert_eq!((accepted(&customers, 8), accepted(&customers, 9)), (1, 0));
        customers.take_back(1, customer(8), 20);
        assert_eq!(accepted(&customers, 8), 0);
    }
}
