//! How answers get from the writer back to the callers: one wake-up per thread and commit, not one per request.
//!
//! Waking a task of another thread's runtime is a system call; waking one of one's own is a push to a list. So the
//! answers of a commit are laid into the mailbox of each calling thread, and only one waiting task of that thread is
//! woken. Whoever of them is polled (or dropped) next wakes the others. Should it be neither, because its task is busy
//! with something else, the writer looks again after [`PATIENCE`] and wakes another one.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{Appended, StoreError};

type Answer = Result<Appended, StoreError>;

/// The answers on their way to the callers of one thread. A task that moves to another thread is still woken: only the
/// saving is lost.
#[derive(Debug, Default)]
struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Have their answer, and are to be woken by the next of them that runs.
    to_wake: Vec<Waker>,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    Waiting(Waker),
    Answered(Answer),
    /// Its caller left.
    Left,
}

/// The writer's side: must be answered; dropped unanswered it says that the writer is gone.
#[derive(Debug)]
pub(super) struct Ticket {
    mailbox: Arc<Mailbox>,
    slot: Option<usize>,
}

/// The caller's side.
#[derive(Debug)]
pub(super) struct Waiting {
    mailbox: Arc<Mailbox>,
    slot: Option<usize>,
    /// The slot has the waker of the very first poll already.
    fresh: bool,
}

/// A place for one answer in the mailbox of this thread, for the task that `waker` wakes.
pub(super) fn ticket(waker: Waker) -> (Ticket, Waiting) {
    thread_local! {
        static MAILBOX: RefCell<Arc<Mailbox>> = RefCell::default();
    }
    let mailbox = MAILBOX.with(|mailbox| Arc::clone(&mailbox.borrow()));
    let slot = Some(mailbox.lock().take_slot(waker));
    (Ticket { mailbox: Arc::clone(&mailbox), slot }, Waiting { mailbox, slot, fresh: true })
}

/// Answers of one commit, by mailbox.
#[derive(Debug, Default)]
pub(super) struct Post {
    bags: Vec<(Arc<Mailbox>, Vec<(usize, Answer)>)>,
}

impl Post {
    pub(super) fn add(&mut self, mut ticket: Ticket, answer: Answer) {
        let Some(slot) = ticket.slot.take() else { return };
        match self.bags.iter_mut().find(|(mailbox, _)| Arc::ptr_eq(mailbox, &ticket.mailbox)) {
            Some((_, bag)) => bag.push((slot, answer)),
            None => self.bags.push((Arc::clone(&ticket.mailbox), vec![(slot, answer)])),
        }
    }

    /// Delivers all. What is returned is to be looked at again after [`PATIENCE`].
    pub(super) fn deliver(self) -> Vec<Delivered> {
        let deliver = |(mailbox, bag): (Arc<Mailbox>, Vec<_>)| {
            let first = mailbox.lock().answer(bag);
            let several = first.1;
            if let Some(waker) = first.0 {
                waker.wake();
            }
            several.then(|| Delivered { at: Instant::now(), mailbox })
        };
        self.bags.into_iter().filter_map(deliver).collect()
    }
}

/// A mailbox in which one task was woken for several.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) at: Instant,
    mailbox: Arc<Mailbox>,
}

impl Delivered {
    /// If nobody has run yet, wakes another one: perhaps the thread is only slow, and one is enough. True if that one
    /// must be looked after in turn.
    pub(super) fn look_again(&mut self, now: Instant) -> bool {
        let next = self.mailbox.lock().to_wake.pop();
        self.at = now;
        next.map(Waker::wake).is_some()
    }
}

impl Ticket {
    /// Answers at once, for answers that are few.
    pub(super) fn answer(mut self, answer: Answer) {
        self.answer_once(answer);
    }

    fn answer_once(&mut self, answer: Answer) {
        if let Some(slot) = self.slot.take() {
            let (waker, _) = self.mailbox.lock().answer(vec![(slot, answer)]);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.slot.is_some() {
            self.answer_once(Err(super::writer_gone()));
        }
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let this = self.get_mut();
        if std::mem::take(&mut this.fresh) {
            return Poll::Pending;
        }
        let slot = this.slot.expect("polled after its answer");
        let mut inner = this.mailbox.lock();
        let others = std::mem::take(&mut inner.to_wake);
        let answer = inner.take_answer(slot, context.waker());
        drop(inner);
        wake_others(others, context.waker());
        match answer {
            Some(answer) => {
                this.slot = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let mut inner = self.mailbox.lock();
            let others = std::mem::take(&mut inner.to_wake);
            inner.leave(slot);
            drop(inner);
            others.into_iter().for_each(Waker::wake);
        }
    }
}

fn wake_others(others: Vec<Waker>, own: &Waker) {
    for other in others {
        if !other.will_wake(own) {
            other.wake();
        }
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take_slot(&mut self, waker: Waker) -> usize {
        let slot = Slot::Waiting(waker);
        if let Some(free) = self.free.pop() {
            self.slots[free] = slot;
            return free;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    /// One waker to be woken now, and whether others wait for it to run.
    fn answer(&mut self, bag: Vec<(usize, Answer)>) -> (Option<Waker>, bool) {
        let mut first = None;
        for (slot, answer) in bag {
            match std::mem::take(&mut self.slots[slot]) {
                Slot::Waiting(waker) => {
                    self.slots[slot] = Slot::Answered(answer);
                    if first.is_none() {
                        first = Some(waker);
                    } else {
                        self.to_wake.push(waker);
                    }
                }
                Slot::Left => self.free.push(slot),
                other => self.slots[slot] = other,
            }
        }
        (first, !self.to_wake.is_empty())
    }

    fn take_answer(&mut self, slot: usize, waker: &Waker) -> Option<Answer> {
        match std::mem::take(&mut self.slots[slot]) {
            Slot::Answered(answer) => {
                self.free.push(slot);
                Some(answer)
            }
            Slot::Waiting(before) => {
                let waker = if before.will_wake(waker) { before } else { waker.clone() };
                self.slots[slot] = Slot::Waiting(waker);
                None
            }
            other => {
                self.slots[slot] = other;
                None
            }
        }
    }

    fn leave(&mut self, slot: usize) {
        match std::mem::take(&mut self.slots[slot]) {
            Slot::Waiting(_) => self.slots[slot] = Slot::Left,
            _ => self.free.push(slot),
        }
    }
}

/// How long the writer trusts a woken task to run.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;
    use crate::store::Cap;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Caller {
        woken: Arc<Counter>,
        waiting: Waiting,
    }

    impl Caller {
        fn new() -> (Ticket, Self) {
            let woken = Arc::new(Counter::default());
            let (ticket, waiting) = ticket(Arc::clone(&woken).into());
            (ticket, Self { woken, waiting })
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }

        fn poll(&mut self) -> Poll<Answer> {
            let waker = Arc::clone(&self.woken).into();
            Pin::new(&mut self.waiting).poll(&mut Context::from_waker(&waker))
        }
    }

    fn full() -> Answer {
        Ok(Appended::CapReached(Cap::Open))
    }

    fn three() -> (Vec<Caller>, Vec<Delivered>) {
        let mut post = Post::default();
        let mut callers = Vec::new();
        for _ in 0..3 {
            let (ticket, mut caller) = Caller::new();
            assert!(caller.poll().is_pending());
            callers.push(caller);
            post.add(ticket, full());
        }
        let delivered = post.deliver();
        assert_eq!(callers.iter().map(Caller::woken).collect::<Vec<_>>(), [1, 0, 0]);
        (callers, delivered)
    }

    #[test]
    fn one_is_woken_and_wakes_the_others() {
        let (mut callers, _) = three();
        assert!(callers[0].poll().is_ready());
        assert_eq!(callers.iter().map(Caller::woken).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(callers[1].poll().is_ready());
        assert!(callers[2].poll().is_ready());
    }

    #[test]
    fn one_that_leaves_wakes_the_others_too() {
        let (mut callers, _) = three();
        drop(callers.remove(0));
        assert_eq!(callers.iter().map(Caller::woken).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn if_nobody_runs_the_writer_wakes_them() {
        let (callers, mut delivered) = three();
        assert_eq!(delivered.len(), 1);
        assert!(delivered[0].look_again(Instant::now()));
        assert_eq!(callers.iter().map(Caller::woken).sum::<usize>(), 2);
        assert!(delivered[0].look_again(Instant::now()));
        assert_eq!(callers.iter().map(Caller::woken).sum::<usize>(), 3);
        assert!(!delivered[0].look_again(Instant::now()));
        assert_eq!(callers.iter().map(Caller::woken).sum::<usize>(), 3);
    }

    #[test]
    fn an_answer_may_come_before_the_first_poll_and_after_the_last() {
        let (ticket, mut caller) = Caller::new();
        let mut post = Post::default();
        post.add(ticket, full());
        assert!(post.deliver().is_empty(), "nobody waits for another");
        assert_eq!(caller.woken(), 1);
        assert!(caller.poll().is_pending(), "the first poll only says that it waits");
        assert!(caller.poll().is_ready());
        let (ticket, caller) = Caller::new();
        drop(caller);
        let mut post = Post::default();
        post.add(ticket, full());
        post.deliver();
    }

    #[test]
    fn a_ticket_that_is_dropped_is_an_error() {
        let (ticket, mut caller) = Caller::new();
        assert!(caller.poll().is_pending());
        drop(ticket);
        assert!(matches!(caller.poll(), Poll::Ready(Err(StoreError::Failed(_)))));
    }

    #[test]
    fn places_are_used_again() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10 {
                    let (mut callers, _) = three();
                    callers.iter_mut().for_each(|caller| assert!(caller.poll().is_ready()));
                }
                let (ticket, _caller) = Caller::new();
                assert!(ticket.mailbox.lock().slots.len() <= 3);
            });
        });
    }
}
