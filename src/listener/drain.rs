//! The end of a worker's connections: told to all of them once, awaited until the last is over.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// One worker's drain; belongs to its thread.
#[derive(Debug, Default)]
pub struct Drain {
    begun: Cell<bool>,
    inside: Cell<usize>,
    /// Whoever wants to know of the beginning, or of the last one's leaving.
    wakers: RefCell<Wakers>,
}

/// Each in a place of its own: there is one for every connection, which comes and goes.
#[derive(Debug, Default)]
struct Wakers {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One connection or late exchange that the drain waits for.
pub struct Inside(Waiting);

/// A place in the list of those to be woken.
struct Waiting {
    drain: Rc<Drain>,
    /// Once it has waited.
    place: Cell<Option<usize>>,
}

impl Drain {
    /// Tells everybody: finish what is in flight, begin nothing.
    pub fn begin(&self) {
        self.begun.set(true);
        self.wake();
    }

    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Counts one more that the drain has to wait for.
    pub fn enter(self: &Rc<Self>) -> Inside {
        self.inside.set(self.inside.get() + 1);
        Inside(self.waiting())
    }

    /// How many it would have to wait for.
    pub fn inside(&self) -> usize {
        self.inside.get()
    }

    /// Runs the future until the drain begins.
    pub async fn unless_begun<F: Future>(self: &Rc<Self>, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let waiting = self.waiting();
        poll_fn(|cx| {
            if self.has_begun() {
                return Poll::Ready(None);
            }
            let poll = future.as_mut().poll(cx).map(Some);
            if poll.is_pending() {
                waiting.register(cx);
            }
            poll
        })
        .await
    }

    /// Returns when nobody is inside any more.
    pub async fn all_over(self: &Rc<Self>) {
        let waiting = self.waiting();
        poll_fn(|cx| {
            if self.inside.get() == 0 {
                return Poll::Ready(());
            }
            waiting.register_anew(cx);
            Poll::Pending
        })
        .await;
    }

    fn waiting(self: &Rc<Self>) -> Waiting {
        Waiting { drain: Rc::clone(self), place: Cell::new(None) }
    }

    fn wake(&self) {
        let wakers = self.wakers.borrow_mut().take_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Inside {
    /// Whether the drain has begun; if not, the task is woken when it does.
    pub fn poll_begun(&self, cx: &mut Context<'_>) -> bool {
        self.0.register(cx);
        self.0.drain.has_begun()
    }
}

impl Waiting {
    /// A task keeps its waker, so once is enough.
    fn register(&self, cx: &mut Context<'_>) {
        if self.place.get().is_none() {
            self.register_anew(cx);
        }
    }

    fn register_anew(&self, cx: &mut Context<'_>) {
        let mut wakers = self.drain.wakers.borrow_mut();
        self.place.set(Some(wakers.put(self.place.get(), cx.waker().clone())));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            self.drain.wakers.borrow_mut().leave(place);
        }
    }
}

impl Wakers {
    /// In that place, or in a free one.
    fn put(&mut self, place: Option<usize>, waker: Waker) -> usize {
        match place.or_else(|| self.free.pop()) {
            Some(place) => {
                self.places[place] = Some(waker);
                place
            }
            None => {
                self.places.push(Some(waker));
                self.places.len() - 1
            }
        }
    }

    fn leave(&mut self, place: usize) {
        self.places[place] = None;
        self.free.push(place);
    }

    /// They keep their places.
    fn take_all(&mut self) -> Vec<Waker> {
        self.places.iter_mut().filter_map(Option::take).collect()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let drain = &self.0.drain;
        drain.inside.set(drain.inside.get() - 1);
        if drain.has_begun() && drain.inside.get() == 0 {
            drain.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn it_is_over_when_the_last_has_left() {
        let drain = Rc::new(Drain::default());
        let (first, second) = (drain.enter(), drain.enter());
        drain.begin();
        let mut over = pin!(drain.all_over());
        assert!(over.as_mut().poll(&mut noop()).is_pending());
        drop(first);
        assert!(over.as_mut().poll(&mut noop()).is_pending());
        drop(second);
        assert!(over.as_mut().poll(&mut noop()).is_ready());
    }

    #[test]
    fn its_beginning_ends_what_runs_until_then() {
        let drain = Rc::new(Drain::default());
        let mut accepting = pin!(drain.unless_begun(std::future::pending::<()>()));
        assert!(accepting.as_mut().poll(&mut noop()).is_pending());
        drain.begin();
        assert!(accepting.as_mut().poll(&mut noop()).is_ready());
        assert!(drain.wakers.borrow().places.iter().all(Option::is_none));
    }

    #[test]
    fn a_place_is_given_to_another_one_only_when_it_is_free() {
        let drain = Rc::new(Drain::default());
        let begins = |inside: &Inside| inside.poll_begun(&mut noop());
        let [one, two, three] = [drain.enter(), drain.enter(), drain.enter()];
        for inside in [&one, &two, &one] {
            assert!(!begins(inside));
        }
        assert_eq!(drain.wakers.borrow().places.len(), 2);
        drop(one);
        assert!(!begins(&three));
        assert_eq!((three.0.place.get(), two.0.place.get()), (Some(0), Some(1)));
        assert_eq!(drain.wakers.borrow().places.len(), 2);
        drain.begin();
        assert!(begins(&two) && begins(&three));
        drop((two, three));
        assert_eq!(drain.wakers.borrow().free.len(), 2);
    }
}
