//! Same key, one request at a time; and which keys the app may have applied already: in doubt, with nobody knowing what
//! became of them, or applied for certain by an app that would not notice a second time. All in memory and bounded;
//! what was promised is in the store.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::OwnedMutexGuard;

use crate::store::Digest;

/// Keys of requests that are under way now, in all workers.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>);

/// The right to be the one request of its key. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    all: UnderWay,
    key: Digest,
    guard: Option<OwnedMutexGuard<()>>,
}

/// Keys that the app may have applied, without an entry that says so. The oldest are forgotten above a bound.
#[derive(Clone, Debug, Default)]
pub struct Doubts(Arc<Mutex<Known>>);

/// Apart, so that what goes well does not push out what went wrong.
#[derive(Debug, Default)]
struct Known {
    in_doubt: Recent,
    applied: Recent,
}

/// The youngest keys, by the number of their last mention.
#[derive(Debug, Default)]
struct Recent {
    keys: HashMap<Digest, u64>,
    order: VecDeque<(Digest, u64)>,
    count: u64,
}

/// Keys of each kind that are remembered.
const MOST_DOUBTS: usize = 100_000;

impl UnderWay {
    /// Waits until no other request of this key is under way, at most `limit`; `None` after that.
    pub async fn enter(&self, key: Digest, limit: Duration) -> Option<Place> {
        let turn = Arc::clone(lock(&self.0).entry(key).or_default());
        let mut place = Place { all: self.clone(), key, guard: None };
        place.guard = Some(tokio::time::timeout(limit, turn.lock_owned()).await.ok()?);
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guard = None;
        let mut all = lock(&self.all.0);
        // Clones are made under this lock only: one left means nobody waits.
        if all.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            all.remove(&self.key);
        }
    }
}

impl Doubts {
    /// It may have been applied, and no entry says so.
    pub fn raise(&self, key: Digest) {
        lock(&self.0).in_doubt.add(key);
    }

    /// The app has applied it, and would apply it again: nothing that it says later takes that back.
    pub fn applied(&self, key: Digest) {
        lock(&self.0).applied.add(key);
    }

    /// The app has said what became of it, and would notice it a second time.
    pub fn settle(&self, key: Digest) {
        let known = &mut *lock(&self.0);
        if !known.in_doubt.keys.is_empty() {
            known.in_doubt.keys.remove(&key);
        }
    }

    pub fn is_in_doubt(&self, key: Digest) -> bool {
        let known = lock(&self.0);
        [&known.in_doubt, &known.applied].iter().any(|recent| recent.keys.contains_key(&key))
    }
}

impl Recent {
    fn add(&mut self, key: Digest) {
        self.count += 1;
        self.keys.insert(key, self.count);
        self.order.push_back((key, self.count));
        while self.order.len() > MOST_DOUBTS {
            if let Some((oldest, number)) = self.order.pop_front()
                && self.keys.get(&oldest) == Some(&number)
            {
                self.keys.remove(&oldest);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_second_of_a_key_waits_for_the_first() {
        let under_way = UnderWay::default();
        let first = under_way.enter(Digest(1), LONG).await.unwrap();
        assert!(under_way.enter(Digest(2), LONG).await.is_some());
        assert!(under_way.enter(Digest(1), Duration::from_secs(1)).await.is_none());
        drop(first);
        assert!(under_way.enter(Digest(1), LONG).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_behind() {
        let under_way = UnderWay::default();
        let first = under_way.enter(Digest(1), LONG).await;
        assert!(under_way.enter(Digest(1), Duration::from_secs(1)).await.is_none());
        drop(first);
        assert!(lock(&under_way.0).is_empty());
    }

    #[test]
    fn a_doubt_lasts_until_it_is_settled_or_too_old() {
        let doubts = Doubts::default();
        doubts.raise(Digest(7));
        assert!(doubts.is_in_doubt(Digest(7)));
        doubts.settle(Digest(7));
        assert!(!doubts.is_in_doubt(Digest(7)));
        for key in 0..=MOST_DOUBTS as u128 {
            doubts.raise(Digest(key));
        }
        assert!(!doubts.is_in_doubt(Digest(0)) && doubts.is_in_doubt(Digest(1)));
    }

    #[test]
    fn what_was_applied_is_not_settled_and_pushes_out_no_doubt() {
        let doubts = Doubts::default();
        doubts.raise(Digest(u128::MAX));
        for key in 0..=MOST_DOUBTS as u128 {
            doubts.applied(Digest(key));
        }
        doubts.settle(Digest(1));
        assert!(doubts.is_in_doubt(Digest(u128::MAX)) && doubts.is_in_doubt(Digest(1)));
        assert!(!doubts.is_in_doubt(Digest(0)), "the oldest is forgotten");
    }
}
