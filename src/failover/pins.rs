//! Which of several apps a key stays with: the one that has, or may have, had a request of it, for only that one would
//! notice a second time. Written down, so that a restart sends none of them to another. Bounded in number and time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    store::{Digest, Store},
    time::UnixMillis,
    upstream::at_most,
};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pins(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// Most requests never look further.
    any: AtomicBool,
    /// Keys are remembered for so long.
    window: Duration,
    /// When the store let an answer wait for too long.
    slow_at: AtomicI64,
}

#[derive(Debug, Default)]
struct Known {
    pins: HashMap<Digest, Pin>,
    /// Who has a place in the store, by its number: the store needs to forget nothing.
    places: HashMap<u32, Digest>,
    next: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pin {
    upstream: Arc<str>,
    at: UnixMillis,
    place: u32,
}

/// Pins one key, and takes the pin back.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pins: Pins,
    store: Store,
    key: Digest,
}

/// Under this prefix and the number of its place the store remembers one.
const REMEMBERED: &str = "pin/";
/// Above it the oldest are forgotten.
const MOST: u32 = 100_000;
/// An answer of the app waits no longer for the store to write down that it came.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// After one that did, no other waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);

impl Pins {
    pub fn new(window: Duration) -> Self {
        let (known, any, slow_at) = (Mutex::default(), AtomicBool::new(false), AtomicI64::new(0));
        Self(Arc::new(Shared { known, any, window, slow_at }))
    }

    /// Takes up what was known before the start.
    pub async fn recall(&self, store: &Store) {
        let now = UnixMillis::now();
        let all = store.recall_all(REMEMBERED).await.unwrap_or_default();
        let mut all: Vec<_> = all.iter().filter_map(|(name, text)| read(name, text)).collect();
        all.retain(|(_, pin)| self.holds(pin.at, now));
        all.sort_by_key(|(_, pin)| pin.at);
        self.0.any.store(!all.is_empty(), Ordering::Relaxed);
        all.into_iter().for_each(|(key, pin)| self.known().take_up(key, pin));
    }

    /// The app that a key stays with.
    pub(super) fn of(&self, key: Digest) -> Option<Arc<str>> {
        if !self.0.any.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.known();
        let pin = known.pins.get(&key).filter(|pin| self.holds(pin.at, UnixMillis::now()))?;
        Some(Arc::clone(&pin.upstream))
    }

    pub(super) fn claim(&self, store: &Store, key: Digest) -> Claim {
        Claim { pins: self.clone(), store: store.clone(), key }
    }

    fn holds(&self, at: UnixMillis, now: UnixMillis) -> bool {
        now.since(at) < self.0.window
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The key stays with this app from now on. False if that is not on disk: then the app must not be asked.
    pub(super) async fn stays_with(&self, upstream: &Arc<str>) -> bool {
        let pin = self.pins.known().pin(self.key, upstream, UnixMillis::now());
        self.pins.0.any.store(true, Ordering::Relaxed);
        let written = self.store.remember(&name(pin.place), &text(self.key, &pin)).await;
        if let Err(error) = &written {
            tracing::warn!(%error, "a request with a key goes to no backup: where it was could not be kept");
        }
        written.is_ok()
    }

    /// The same of an app that has had it already: its answer does not wait for long.
    pub(super) async fn stayed_with(&self, upstream: &Arc<str>) {
        if self.pins.of(self.key).as_ref() == Some(upstream) {
            return;
        }
        // It is known at once, and written even if nobody waits until it is.
        let now = UnixMillis::now();
        let was_slow = self.pins.0.slow_at.load(Ordering::Relaxed);
        let limit =
            if now.since(UnixMillis(was_slow)) < PATIENCE { Duration::ZERO } else { LONGEST_WAIT };
        if at_most(limit, self.stays_with(upstream)).await.is_none() {
            self.pins.0.slow_at.store(now.0, Ordering::Relaxed);
        }
    }

    /// The app has not had it after all. False if a restart might not know that.
    pub(super) async fn is_free(&self) -> bool {
        let Some(pin) = self.pins.known().free(self.key) else { return true };
        self.store.remember(&name(pin.place), "").await.is_ok()
    }
}

impl Known {
    /// At its old place, or that of the oldest.
    fn pin(&mut self, key: Digest, upstream: &Arc<str>, at: UnixMillis) -> Pin {
        let before = self.pins.get(&key).map(|pin| pin.place);
        let place = before.unwrap_or(self.next);
        if before.is_none() {
            self.next = (place + 1) % MOST;
            if let Some(oldest) = self.places.insert(place, key) {
                self.pins.remove(&oldest);
            }
        }
        let pin = Pin { upstream: Arc::clone(upstream), at, place };
        self.pins.insert(key, pin.clone());
        pin
    }

    fn free(&mut self, key: Digest) -> Option<Pin> {
        let pin = self.pins.remove(&key)?;
        self.places.remove(&pin.place);
        Some(pin)
    }

    /// One after the other, the oldest first. Of two pins of one key the younger counts: one that was not written for
    /// certain may be there.
    fn take_up(&mut self, key: Digest, pin: Pin) {
        self.free(key);
        self.next = (pin.place + 1) % MOST;
        self.places.insert(pin.place, key);
        self.pins.insert(key, pin);
    }
}

fn name(place: u32) -> String {
    format!("{REMEMBERED}{place:05}")
}

fn text(key: Digest, pin: &Pin) -> String {
    format!("{:032x} {} {}", key.0, pin.at.0, pin.upstream)
}

/// None of a place that is free.
fn read(name: &str, text: &str) -> Option<(Digest, Pin)> {
    let place = name.strip_prefix(REMEMBERED)?.parse().ok()?;
    let mut words = text.splitn(3, ' ');
    let key = u128::from_str_radix(words.next()?, 16).ok()?;
    let at = UnixMillis(words.next()?.parse().ok()?);
    Some((Digest(key), Pin { upstream: words.next()?.into(), at, place }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pins: &[(u128, u32)]) -> Known {
        let mut known = Known::default();
        for &(key, place) in pins {
            let pin = Pin { upstream: "a".into(), at: UnixMillis(1), place };
            known.take_up(Digest(key), pin);
        }
        known
    }

    #[test]
    fn the_oldest_makes_room_and_one_that_is_pinned_again_keeps_its_place() {
        let (app, other): (Arc<str>, Arc<str>) = ("app".into(), "other".into());
        let mut known = Known::default();
        for key in 0..u128::from(MOST) {
            known.pin(Digest(key), &app, UnixMillis(1));
        }
        assert_eq!(known.pin(Digest(7), &other, UnixMillis(2)).place, 7);
        assert_eq!(known.pins[&Digest(7)].upstream, other);
        assert_eq!(known.pin(Digest(u128::MAX), &app, UnixMillis(3)).place, 0);
        assert!(!known.pins.contains_key(&Digest(0)));
        assert_eq!((known.pins.len(), known.places.len()), (MOST as usize, MOST as usize));
        assert_eq!(known.free(Digest(7)).map(|pin| pin.place), Some(7));
        assert!(known.free(Digest(7)).is_none() && known.places.len() == MOST as usize - 1);
    }

    #[test]
    fn after_a_start_the_next_place_is_behind_the_youngest() {
        let mut known = known(&[(1, 5), (2, 9), (3, 4), (2, 6)]);
        assert_eq!((known.next, known.pins[&Digest(2)].place, known.pins.len()), (7, 6, 3));
        assert!(!known.places.contains_key(&9), "an older one of the same key");
        assert_eq!(known.pin(Digest(4), &"a".into(), UnixMillis(1)).place, 7);
    }

    #[test]
    fn what_is_written_is_read_and_a_free_place_is_none() {
        let pin = Pin { upstream: "a b".into(), at: UnixMillis(77), place: 12 };
        let text = text(Digest(u128::MAX), &pin);
        assert_eq!(read(&name(12), &text), Some((Digest(u128::MAX), pin)));
        assert_eq!(read(&name(12), ""), None);
        assert_eq!(read(&name(12), "77"), None);
    }
}
