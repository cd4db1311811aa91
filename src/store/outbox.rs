//! How entries get from a worker to the writer: all of one round of its tasks at once, not one by one.
//!
//! Each hand-over costs a lock and perhaps waking the writer, and a writer that is woken by the first of many commits it
//! alone. So a thread that has a runtime of its own gathers what its tasks append; a task of that runtime is woken with
//! the first, comes when those that were ready before it have run, and hands over. Nothing waits for a time to pass.

use std::{
    cell::RefCell,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use super::{Store, shared::Shared, writer::Capture};

thread_local! {
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// What one thread has gathered for one store.
struct Outbox {
    shared: Arc<Shared>,
    captures: Vec<Capture>,
    bytes: usize,
    waker: Waker,
}

/// More is handed over at once.
const MOST: usize = 128;
const MOST_BYTES: usize = 1 << 20;

impl Store {
    /// From the first poll on gathers what this thread's tasks append, and hands it over. To be run as a task of the
    /// thread's own runtime; ends when it is dropped, and leaves nothing behind.
    pub async fn hand_over(self) {
        let _registered = Registered;
        let shared = Arc::clone(self.shared());
        poll_fn(|context| {
            hand_over(Some((&shared, context.waker())));
            Poll::<()>::Pending
        })
        .await;
    }
}

/// Gathers a capture for the round's end, or gives it to the writer where nobody gathers.
pub(super) fn put(shared: &Arc<Shared>, capture: Capture) {
    let direct = OUTBOX.with_borrow_mut(|outbox| {
        let Some(outbox) = outbox.as_mut().filter(|outbox| Arc::ptr_eq(&outbox.shared, shared))
        else {
            return Some(capture);
        };
        if outbox.captures.is_empty() {
            outbox.waker.wake_by_ref();
        }
        outbox.bytes += capture.entry.bytes;
        outbox.captures.push(capture);
        if outbox.captures.len() >= MOST || outbox.bytes >= MOST_BYTES {
            outbox.flush();
        }
        None
    });
    if let Some(capture) = direct {
        shared.queue.push_captures([capture]);
    }
}

/// Hands over what there is. With somebody to be woken next time the outbox stays, without it goes.
fn hand_over(next: Option<(&Arc<Shared>, &Waker)>) {
    OUTBOX.with_borrow_mut(|outbox| {
        if let Some(outbox) = outbox {
            outbox.flush();
        }
        match (outbox, next) {
            (Some(outbox), Some((_, waker))) => outbox.waker.clone_from(waker),
            (outbox, next) => {
                *outbox = next.map(|(shared, waker)| Outbox {
                    shared: Arc::clone(shared),
                    captures: Vec::new(),
                    bytes: 0,
                    waker: waker.clone(),
                });
            }
        }
    });
}

impl Outbox {
    fn flush(&mut self) {
        self.bytes = 0;
        if !self.captures.is_empty() {
            self.shared.queue.push_captures(self.captures.drain(..));
        }
    }
}

/// The outbox ends with its task.
struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        hand_over(None);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests await what they spawn")]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::task::LocalSet;

    use crate::store::{writer::tests::entry, *};

    /// A store that counts its commits.
    fn counting(folder: &std::path::Path) -> (Store, Arc<AtomicUsize>) {
        let commits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&commits);
        let options = StoreOptions {
            accept_ephemeral: true,
            hook: Hook::new(move |point| {
                if point == "after_commit_before_ack" {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }),
            ..StoreOptions::new(folder.join("standin.db"))
        };
        (Store::open(options).unwrap(), commits)
    }

    fn uncapped(key: u128) -> NewEntry {
        NewEntry { caps: Arc::new(Caps { open: 1000, ..Caps::default() }), ..entry(key) }
    }

    /// On a runtime of its own, as a worker has one: tasks run in the order in which they became ready.
    #[test]
    fn what_one_round_appends_is_one_commit_and_afterwards_nobody_gathers() {
        let folder = tempfile::tempdir().unwrap();
        let (store, commits) = counting(folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let handing_over = tokio::task::spawn_local(store.clone().hand_over());
            tokio::task::yield_now().await;
            let append = |key| {
                let store = store.clone();
                tokio::task::spawn_local(async move { store.append(uncapped(key)).await })
            };
            for append in (0..20).map(append).collect::<Vec<_>>() {
                assert!(matches!(append.await.unwrap(), Ok(Appended::New(_))));
            }
            assert_eq!(commits.load(Ordering::Relaxed), 1);
            handing_over.abort();
            tokio::task::yield_now().await;
            assert!(matches!(store.append(uncapped(99)).await, Ok(Appended::New(_))));
        });
    }

    #[tokio::test]
    async fn many_do_not_wait_for_the_rounds_end_and_what_is_left_goes_with_the_task() {
        let folder = tempfile::tempdir().unwrap();
        let (store, commits) = counting(folder.path());
        let tasks = LocalSet::new();
        let handing_over = tasks.spawn_local(store.clone().hand_over());
        tasks.run_until(tokio::task::yield_now()).await;
        let appends: Vec<_> = (0..super::MOST as u128 + 10)
            .map(|key| {
                let store = store.clone();
                tasks.spawn_local(async move { store.append(uncapped(key)).await })
            })
            .collect();
        handing_over.abort();
        tasks
            .run_until(async {
                for append in appends {
                    assert!(matches!(append.await.unwrap(), Ok(Appended::New(_))));
                }
            })
            .await;
        assert!(commits.load(Ordering::Relaxed) >= 1);
    }

    #[tokio::test]
    async fn another_store_is_not_gathered_for() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (gathered, _) = counting(one.path());
        let (direct, _) = counting(two.path());
        let tasks = LocalSet::new();
        tasks.spawn_local(gathered.clone().hand_over());
        tasks
            .run_until(async {
                tokio::task::yield_now().await;
                assert!(matches!(direct.append(uncapped(1)).await, Ok(Appended::New(_))));
                assert!(matches!(gathered.append(uncapped(1)).await, Ok(Appended::New(_))));
            })
            .await;
    }
}
