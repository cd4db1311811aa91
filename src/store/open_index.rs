//! What is open, in memory: keys, sequences, due times, caps; and the keys of closed entries within the dedupe window.
//!
//! Only the writer adds, closes and moves entries here; replayers claim and give back. All of it is rebuilt from the
//! file at start. Entries beyond `visible` are not yet durable: nobody but the writer sees them.

mod accounts;
mod books;
mod claims;
mod closed;
mod due;
mod expiry;
mod keys;
mod known;
mod rows;
mod seqs;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{Cap, Caps, Certainty, Digest, HeldReason, Outcome, State};
use crate::time::UnixMillis;
use accounts::{Customers, RouteAccount};
use closed::ClosedEntries;
use due::Lane;
use expiry::Expiry;
use keys::{Keys, Place};
use rows::Rows;
use seqs::Seqs;

/// An open entry. There may be millions: see `rows` for how they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) key: Packed,
    pub(super) fingerprint: Packed,
    /// Its sequence is kept apart; few have one.
    pub(super) in_sequence: bool,
    pub(super) lane: LaneId,
    pub(super) received_at: i64,
    pub(super) not_before: i64,
    pub(super) expires_at: i64,
    pub(super) amount: i64,
    pub(super) state: State,
    pub(super) held: Option<HeldReason>,
    pub(super) certainty: Certainty,
    pub(super) attempts: u32,
    pub(super) interrupted: u8,
    pub(super) fence: u64,
}

/// A digest without the alignment of a `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed([u64; 2]);

/// A closed entry whose key is still known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) seq: i64,
    pub(super) key: Packed,
    pub(super) fingerprint: Packed,
    pub(super) outcome: Outcome,
    pub(super) closed_at: i64,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Known {
    Open(Row),
    Closed(Closed),
}

/// How to take a change back.
#[derive(Debug)]
pub(super) enum Undo {
    Inserted { seq: i64, customer: Option<Digest> },
    Changed(Box<Row>),
    Closed(Box<Row>, Option<Digest>),
}

/// A route and an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(u32);

#[derive(Debug)]
pub(super) struct OpenIndex {
    rows: Rows,
    keys: Keys,
    closed: ClosedEntries,
    sequences: HashMap<Digest, VecDeque<i64>>,
    sequence_of: HashMap<i64, Digest>,
    lanes: Vec<Lane>,
    lanes_by_route: HashMap<Arc<str>, Vec<LaneId>>,
    routes: Vec<RouteAccount>,
    routes_by_name: HashMap<Arc<str>, usize>,
    customers: Customers,
    held: Seqs,
    in_flight: Seqs,
    expiry: Expiry,
    dedupe_window: i64,
    customer_window: i64,
    last_closing: i64,
    /// What is due by then is ripe when its lane begins.
    lanes_from: i64,
    visible: i64,
    next_seq: i64,
    next_fence: u64,
}

impl OpenIndex {
    pub(super) fn new(dedupe_window: Duration, incarnation: i64, now: UnixMillis) -> Self {
        Self {
            rows: Rows::default(),
            keys: Keys::default(),
            closed: ClosedEntries::default(),
            sequences: HashMap::new(),
            sequence_of: HashMap::new(),
            lanes: Vec::new(),
            lanes_by_route: HashMap::new(),
            routes: Vec::new(),
            routes_by_name: HashMap::new(),
            customers: Customers::default(),
            held: Seqs::default(),
            in_flight: Seqs::default(),
            expiry: Expiry::new(),
            dedupe_window: i64::try_from(dedupe_window.as_millis()).unwrap_or(i64::MAX),
            customer_window: 0,
            last_closing: 0,
            lanes_from: now.0,
            visible: 0,
            next_seq: 1,
            next_fence: incarnation.cast_unsigned() << FENCE_BITS,
        }
    }

    pub(super) fn lane(&mut self, route: &Arc<str>, upstream: &Arc<str>) -> LaneId {
        let known = self.lanes_by_route.get(route).and_then(|lanes| {
            lanes.iter().copied().find(|id| self.lanes[id.0 as usize].upstream == *upstream)
        });
        if let Some(known) = known {
            return known;
        }
        let id = LaneId(u32::try_from(self.lanes.len()).unwrap_or(u32::MAX));
        let account = self.account(route);
        self.lanes.push(Lane::new(account, Arc::clone(upstream), self.lanes_from));
        self.lanes_by_route.entry(Arc::clone(route)).or_default().push(id);
        id
    }

    fn account(&mut self, route: &Arc<str>) -> usize {
        if let Some(&known) = self.routes_by_name.get(route) {
            return known;
        }
        self.routes.push(RouteAccount::new(Arc::clone(route)));
        self.routes_by_name.insert(Arc::clone(route), self.routes.len() - 1);
        self.routes.len() - 1
    }

    /// Whether one more entry fits under the caps of its route.
    pub(super) fn cap_reached(
        &self,
        lane: LaneId,
        amount: i64,
        customer: Option<Digest>,
        received_at: UnixMillis,
        caps: &Caps,
    ) -> Option<Cap> {
        let route = self.lanes[lane.0 as usize].route;
        self.routes[route].cap_reached(amount, caps).or_else(|| {
            let ((most, window), customer) = (caps.per_customer?, customer?);
            let accepted = self.customers.accepted(route, customer, received_at, window);
            (accepted >= u64::from(most)).then_some(Cap::PerCustomer)
        })
    }

    pub(super) fn next_seq(&self) -> i64 {
        self.next_seq
    }

    /// Adds an open entry; its number must be above all others.
    pub(super) fn insert(
        &mut self,
        row: Row,
        sequence: Option<Digest>,
        customer: Option<Digest>,
    ) -> Undo {
        let undo = Undo::Inserted { seq: row.seq, customer };
        self.next_seq = row.seq + 1;
        if let Some(sequence) = sequence {
            self.sequence_of.insert(row.seq, sequence);
        }
        if let Some(customer) = customer {
            let route = self.lanes[row.lane.0 as usize].route;
            self.customers.add(route, customer, row.received_at);
        }
        self.link(row);
        undo
    }

    /// Changes an open entry.
    pub(super) fn change(&mut self, seq: i64, change: impl FnOnce(&mut Row)) -> Option<Undo> {
        let before = self.unlink(seq)?;
        let mut row = before;
        change(&mut row);
        self.link(row);
        Some(Undo::Changed(Box::new(before)))
    }

    /// Now, but never before an earlier closing: closed entries are forgotten in the order of their times.
    pub(super) fn closing_time(&self, now: UnixMillis) -> UnixMillis {
        now.max(UnixMillis(self.last_closing))
    }

    /// Closes an open entry; its key is remembered from `at` on.
    pub(super) fn close(&mut self, seq: i64, outcome: Outcome, at: UnixMillis) -> Option<Undo> {
        let row = self.unlink(seq)?;
        let (key, fingerprint) = (row.key, row.fingerprint);
        self.remember(&Closed { seq, key, fingerprint, outcome, closed_at: at.0 });
        if outcome == Outcome::Declined {
            self.routes[self.lanes[row.lane.0 as usize].route].declined += 1;
        }
        let sequence = self.sequence_of.remove(&seq);
        Some(Undo::Closed(Box::new(row), sequence))
    }

    /// Takes changes back, the last one first.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Inserted { seq, customer } => {
                if let Some(row) = self.unlink(seq) {
                    self.next_seq = seq;
                    self.sequence_of.remove(&seq);
                    if let Some(customer) = customer {
                        let route = self.lanes[row.lane.0 as usize].route;
                        self.customers.take_back(route, customer, row.received_at);
                    }
                }
            }
            Undo::Changed(row) => {
                self.unlink(row.seq);
                self.link(*row);
            }
            Undo::Closed(row, sequence) => {
                self.take_back_closing(&row);
                if let Some(sequence) = sequence {
                    self.sequence_of.insert(row.seq, sequence);
                }
                self.link(*row);
            }
        }
    }

    fn take_back_closing(&mut self, row: &Row) {
        let Some((number, closed)) = self.closed.pop_back() else { return };
        self.keys.remove(row.key.into(), Place::Closed(number));
        if closed.outcome == Outcome::Declined {
            self.routes[self.lanes[row.lane.0 as usize].route].declined -= 1;
        }
    }

    /// Everything up to `seq` is durable.
    pub(super) fn show_up_to(&mut self, seq: i64) {
        self.visible = self.visible.max(seq);
    }

    /// Nothing closes before this.
    pub(super) fn no_closing_before(&mut self, last: i64) {
        self.last_closing = self.last_closing.max(last);
    }

    /// Numbers go on after `last`, and everything up to it is durable.
    pub(super) fn continue_after(&mut self, last: i64) {
        self.next_seq = self.next_seq.max(last + 1);
        self.visible = self.visible.max(last);
    }

    /// A claim that nobody holds yet.
    pub(super) fn new_fence(&mut self) -> u64 {
        self.next_fence += 1;
        self.next_fence
    }

    /// Remembers the key of a closed entry; in the order of closing.
    pub(super) fn remember(&mut self, closed: &Closed) {
        self.last_closing = self.last_closing.max(closed.closed_at);
        let number = self.closed.push_back(closed);
        self.keys.insert(closed.key.into(), Place::Closed(number));
    }

    /// Forgets keys whose dedupe window is over. True if there may be more: whoever has time asks again.
    pub(super) fn forget(&mut self, now: UnixMillis, at_most: usize) -> bool {
        for _ in 0..at_most {
            match self.closed.front() {
                Some((number, first))
                    if first.closed_at.saturating_add(self.dedupe_window) <= now.0 =>
                {
                    self.closed.pop_front();
                    self.keys.remove(first.key.into(), Place::Closed(number));
                }
                _ => return false,
            }
        }
        true
    }
}

impl From<Digest> for Packed {
    fn from(digest: Digest) -> Self {
        Self([digest.0 as u64, (digest.0 >> 64) as u64])
    }
}

impl From<Packed> for Digest {
    fn from(packed: Packed) -> Self {
        Self(u128::from(packed.0[0]) | u128::from(packed.0[1]) << 64)
    }
}

/// A fence is the incarnation of the process above the number of the claim: never the same again.
const FENCE_BITS: u32 = 40;
