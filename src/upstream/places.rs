//! How many connections one thread has to one endpoint, and who waits for one. Belongs to its thread.

use std::{cell::Cell, num::NonZeroUsize, rc::Rc};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    most: Option<NonZeroUsize>,
    /// Most who wait.
    queue: usize,
    taken: Cell<usize>,
    waiting: Cell<usize>,
    /// Requests that wanted a connection so far, and none was there.
    asked: Cell<u64>,
    changed: Notify,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Rc<Places>);

/// One who waits. Dropped without having been served it passes on what it was told.
#[derive(Debug)]
pub(super) struct Waiting {
    places: Rc<Places>,
    served: bool,
}

impl Places {
    pub(super) fn new(most: Option<NonZeroUsize>, queue: usize) -> Rc<Self> {
        let zero = || Cell::new(0);
        let (taken, waiting, asked) = (zero(), zero(), Cell::new(0));
        Rc::new(Self { most, queue, taken, waiting, asked, changed: Notify::new() })
    }

    pub(super) fn most(&self) -> Option<NonZeroUsize> {
        self.most
    }

    /// Connections that take requests.
    pub(super) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// None when all are taken.
    pub(super) fn enter(self: &Rc<Self>) -> Option<Place> {
        if self.most.is_some_and(|most| self.taken.get() >= most.get()) {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(self)))
    }

    /// Others were here first.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.get() > 0 && self.most.is_some()
    }

    /// Lines up; none where the queue is full. Where there is no limit nobody waits for long.
    pub(super) fn line_up(self: &Rc<Self>) -> Option<Waiting> {
        if self.most.is_some() && self.waiting.get() >= self.queue {
            return None;
        }
        self.waiting.set(self.waiting.get() + 1);
        Some(Waiting { places: Rc::clone(self), served: false })
    }

    /// A request wants a connection.
    pub(super) fn ask(&self) {
        self.asked.set(self.asked.get().wrapping_add(1));
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.get()
    }

    /// A place is free, or a connection, or a stream of one: the first who waits looks again.
    pub(super) fn tell_one(&self) {
        if self.waiting.get() > 0 {
            self.changed.notify_one();
        }
    }

    /// Something has changed for all who wait.
    pub(super) fn tell_all(&self) {
        self.changed.notify_waiters();
    }
}

impl Waiting {
    /// Ready when it is worth a look.
    pub(super) async fn told(&self) {
        self.places.changed.notified().await;
    }

    /// It has what it waited for. With `more` the next one looks, too.
    pub(super) fn served(mut self, more: bool) {
        self.served = !more;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.tell_one();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.waiting.set(self.places.waiting.get() - 1);
        if !self.served {
            self.places.tell_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn a_place_that_is_given_back_wakes_who_waits() {
        let places = Places::new(NonZeroUsize::new(2), 1);
        let (first, _second) = (places.enter().unwrap(), places.enter().unwrap());
        assert!(places.enter().is_none() && places.taken() == 2);
        let waiting = places.line_up().unwrap();
        assert!(places.is_crowded() && places.line_up().is_none());
        let cx = &mut Context::from_waker(Waker::noop());
        let mut told = pin!(waiting.told());
        assert!(told.as_mut().poll(cx).is_pending());
        drop(first);
        assert!(told.as_mut().poll(cx).is_ready());
        assert!(places.enter().is_some());
    }

    #[test]
    fn who_leaves_unserved_passes_on_what_it_was_told() {
        let places = Places::new(NonZeroUsize::new(1), 2);
        let (first, second) = (places.line_up().unwrap(), places.line_up().unwrap());
        let cx = &mut Context::from_waker(Waker::noop());
        {
            let mut told = pin!(second.told());
            assert!(told.as_mut().poll(cx).is_pending());
            drop(first);
            assert!(told.as_mut().poll(cx).is_ready());
        }
        second.served(false);
        assert!(!places.is_crowded());
    }

    #[test]
    fn without_a_limit_there_is_always_one() {
        let places = Places::new(None, 0);
        let all: Vec<_> = (0..1000).map(|_| places.enter().unwrap()).collect();
        assert!(places.taken() == 1000 && places.line_up().is_some());
        drop(all);
        assert_eq!(places.taken(), 0);
    }
}
