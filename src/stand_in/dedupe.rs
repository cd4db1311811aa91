//! Same key, one request at a time; which keys the app may have applied already: in doubt, with nobody knowing what
//! became of them, or applied for certain by an app that would not notice a second time; and for which request a key is
//! known to an app that would notice. All in memory and bounded; what was promised is in the store.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    store::{Digest, Mixing},
    time::UnixMillis,
};

/// Keys of requests that are under way now, in all workers, each with those who wait for it: nearly always nobody. In
/// shards: two workers hardly ever want the same one, and do not take turns with one lock.
#[derive(Debug)]
pub struct UnderWay(Box<[Arc<Shard>]>);

/// On lines of its own: a neighbour's lock is not ours to wait for.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Waiting>);

type Waiting = HashMap<Digest, VecDeque<oneshot::Sender<Place>>, Mixing>;

/// The right to be the one request of its key. Handed on when dropped.
#[derive(Debug)]
pub struct Place {
    shard: Arc<Shard>,
    key: Digest,
    /// False once it is somebody else's.
    mine: bool,
}

/// Keys that the app may have applied, without an entry that says so. The oldest are forgotten above a bound.
#[derive(Debug, Default)]
pub struct Doubts {
    /// True once there was one: mostly there never is, and nobody has to look.
    any: AtomicBool,
    known: Mutex<Known>,
}

/// Apart, so that what goes well does not push out what went wrong.
#[derive(Debug, Default)]
struct Known {
    in_doubt: Recent,
    applied: Recent,
}

/// For which request an app that refuses duplicates has heard of a key. It would take another one under it for the first,
/// and what was promised of that would never be applied. About the last 65,000 keys, in small sets with a lock each: every
/// request with a key of its client's is noted, and few bytes are enough.
#[derive(Debug)]
pub struct Uses(Box<[Mutex<Set>]>);

#[derive(Debug, Default)]
struct Set {
    uses: Vec<(Digest, Use)>,
    /// The place that is taken next when all are.
    oldest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    fingerprint: Digest,
    /// When the app forgets it.
    until: UnixMillis,
}

/// The youngest keys, by the number of their last mention.
#[derive(Debug, Default)]
struct Recent {
    keys: HashMap<Digest, u64, Mixing>,
    order: VecDeque<(Digest, u64)>,
    count: u64,
}

/// Shards of the keys under way.
const SHARDS: usize = 64;
/// Keys of each kind that are remembered.
const MOST_DOUBTS: usize = 100_000;
/// Of uses of keys.
const SETS: usize = 8192;
const USES_OF_A_SET: usize = 8;

impl Default for UnderWay {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Arc::default()).collect())
    }
}

impl UnderWay {
    /// Waits until no other request of this key is under way, at most `limit`; `None` after that.
    pub async fn enter(&self, key: Digest, limit: Duration) -> Option<Place> {
        let shard = &self.0[(key.0 >> 64) as usize % SHARDS];
        let turn = match lock(&shard.0).entry(key) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                None
            }
            Entry::Occupied(taken) => {
                let (hand_over, turn) = oneshot::channel();
                taken.into_mut().push_back(hand_over);
                Some(turn)
            }
        };
        match turn {
            None => Some(Place { shard: Arc::clone(shard), key, mine: true }),
            Some(turn) => tokio::time::timeout(limit, turn).await.ok()?.ok(),
        }
    }
}

impl Shard {
    /// The longest waiting one of `key`; if nobody waits, the key is free.
    fn next(&self, key: Digest) -> Option<oneshot::Sender<Place>> {
        let mut all = lock(&self.0);
        let Entry::Occupied(mut waiting) = all.entry(key) else { return None };
        let next = waiting.get_mut().pop_front();
        if next.is_none() {
            waiting.remove();
        }
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while std::mem::take(&mut self.mine)
            && let Some(next) = self.shard.next(self.key)
        {
            let place = Self { shard: Arc::clone(&self.shard), key: self.key, mine: true };
            // Who has left meanwhile gives it back; the next one gets it then.
            if let Err(mut back) = next.send(place) {
                self.mine = std::mem::take(&mut back.mine);
            }
        }
    }
}

impl Doubts {
    /// It may have been applied, and no entry says so.
    pub fn raise(&self, key: Digest) {
        self.change().in_doubt.add(key);
    }

    /// The app has applied it, and would apply it again: nothing that it says later takes that back.
    pub fn applied(&self, key: Digest) {
        self.change().applied.add(key);
    }

    /// The app has said what became of it, and would notice it a second time.
    pub fn settle(&self, key: Digest) {
        if let Some(mut known) = self.known() {
            known.in_doubt.keys.remove(&key);
        }
    }

    pub fn is_in_doubt(&self, key: Digest) -> bool {
        self.known().is_some_and(|known| {
            [&known.in_doubt, &known.applied].iter().any(|recent| recent.keys.contains_key(&key))
        })
    }

    /// Said before the lock is given back: whoever hears of the key from somebody finds it.
    fn change(&self) -> MutexGuard<'_, Known> {
        let known = lock(&self.known);
        self.any.store(true, Ordering::SeqCst);
        known
    }

    fn known(&self) -> Option<MutexGuard<'_, Known>> {
        self.any.load(Ordering::SeqCst).then(|| lock(&self.known))
    }
}

impl Default for Uses {
    fn default() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }
}

impl Uses {
    /// The app has heard of the key with this request, or may have. The first one keeps it.
    pub fn note(&self, key: Digest, fingerprint: Digest, now: UnixMillis, until: UnixMillis) {
        let this = Use { fingerprint, until };
        let mut set = self.set(key);
        let Set { uses, oldest } = &mut *set;
        if let Some((_, first)) = uses.iter_mut().find(|(known, _)| *known == key) {
            if !first.is_anothers(fingerprint, now) {
                *first = this;
            }
        } else if uses.len() < USES_OF_A_SET {
            uses.push((key, this));
        } else {
            uses[*oldest] = (key, this);
            *oldest = (*oldest + 1) % USES_OF_A_SET;
        }
    }

    /// Whether the app knows the key as that of another request.
    pub fn is_anothers(&self, key: Digest, fingerprint: Digest, now: UnixMillis) -> bool {
        let set = self.set(key);
        set.uses.iter().any(|(known, first)| *known == key && first.is_anothers(fingerprint, now))
    }

    fn set(&self, key: Digest) -> MutexGuard<'_, Set> {
        lock(&self.0[(key.0 >> 64) as usize % SETS])
    }
}

impl Use {
    fn is_anothers(&self, fingerprint: Digest, now: UnixMillis) -> bool {
        self.fingerprint != fingerprint && now < self.until
    }
}

impl Recent {
    fn add(&mut self, key: Digest) {
        self.count += 1;
        self.keys.insert(key, self.count);
        self.order.push_back((key, self.count));
        while self.order.len() > MOST_DOUBTS {
            if let Some((oldest, number)) = self.order.pop_front()
                && self.keys.get(&oldest).is_some_and(|last| *last == number)
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
    use std::{
        pin::Pin,
        task::{Context, Waker},
    };

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

    fn is_empty(under_way: &UnderWay) -> bool {
        under_way.0.iter().all(|shard| lock(&shard.0).is_empty())
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_behind() {
        let under_way = UnderWay::default();
        let first = under_way.enter(Digest(1), LONG).await;
        assert!(under_way.enter(Digest(1), Duration::from_secs(1)).await.is_none());
        drop(first);
        assert!(is_empty(&under_way));
    }

    fn is_pending(future: Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_goes_to_the_longest_waiting_one_that_is_still_there() {
        let under_way = UnderWay::default();
        let first = under_way.enter(Digest(1), LONG).await.unwrap();
        let mut waiting: Vec<_> =
            (0..4).map(|_| Box::pin(under_way.enter(Digest(1), LONG))).collect();
        assert!(waiting.iter_mut().all(|waits| is_pending(waits.as_mut())));
        drop(waiting.remove(0));
        drop(first);
        // One that leaves with the place in its hand has not kept it.
        drop(waiting.remove(0));
        assert!(is_pending(waiting[1].as_mut()));
        let third = waiting.remove(0).await.unwrap();
        assert!(is_pending(waiting[0].as_mut()));
        drop(third);
        drop(waiting.remove(0).await.unwrap());
        assert!(is_empty(&under_way));
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

    #[test]
    fn a_key_is_its_first_requests_until_the_app_forgets_it_or_too_many_came() {
        let uses = Uses::default();
        let note = |key, request| {
            uses.note(Digest(key), Digest(request), UnixMillis(0), UnixMillis(1000));
        };
        note(7, 1);
        note(7, 2);
        let is_anothers =
            |request, now| uses.is_anothers(Digest(7), Digest(request), UnixMillis(now));
        assert!(is_anothers(2, 999) && !is_anothers(1, 999) && !is_anothers(2, 1000));
        // All of one set.
        for key in 8..7 + USES_OF_A_SET as u128 {
            note(key, 1);
        }
        assert!(is_anothers(2, 999));
        note(0, 1);
        assert!(!is_anothers(2, 999), "the oldest is forgotten");
    }
}
