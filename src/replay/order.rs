//! One of a sequence at a time, sequences in parallel. The store offers heads only; this makes sure of it.

use std::{cell::RefCell, collections::HashSet, rc::Rc};

use crate::store::Digest;

/// The sequences that have a replay under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    under_way: Rc<RefCell<HashSet<Digest>>>,
}

/// The turn of one entry; given up when dropped, also when its send is cut off.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(super) struct Turn {
    order: Order,
    sequence: Option<Digest>,
}

impl Order {
    /// The turn of an entry of `sequence`; none while another of it is under way.
    pub(super) fn turn(&self, sequence: Option<Digest>) -> Option<Turn> {
        let free = sequence.is_none_or(|sequence| self.under_way.borrow_mut().insert(sequence));
        free.then(|| Turn { order: self.clone(), sequence })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(sequence) = self.sequence {
            self.order.under_way.borrow_mut().remove(&sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_of_a_sequence_at_a_time_and_no_sequence_waits_for_nobody() {
        let order = Order::default();
        let first = order.turn(Some(Digest(1)));
        assert!(first.is_some());
        assert!(order.turn(Some(Digest(1))).is_none());
        assert!(order.turn(Some(Digest(2))).is_some());
        let (one, other) = (order.turn(None), order.turn(None));
        assert!(one.is_some() && other.is_some());
        drop(first);
        assert!(order.turn(Some(Digest(1))).is_some());
    }

    proptest! {
        #[test]
        fn never_two_of_one_sequence(steps in proptest::collection::vec((0..5_u128, any::<bool>()), 0..200)) {
            let order = Order::default();
            let mut under_way: BTreeMap<u128, Turn> = BTreeMap::new();
            for (sequence, ends) in steps {
                if ends {
                    under_way.remove(&sequence);
                } else if let Some(turn) = order.turn(Some(Digest(sequence))) {
                    prop_assert!(under_way.insert(sequence, turn).is_none());
                } else {
                    prop_assert!(under_way.contains_key(&sequence));
                }
            }
        }
    }
}
