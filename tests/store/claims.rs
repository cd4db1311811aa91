//! Claims, sends, results, people's acts: who may do what, and what of it is history.

use std::{pin::pin, time::Duration};

use futures_util::poll;
use standin::{store::*, time::UnixMillis};

use super::*;

#[tokio::test]
async fn a_send_goes_from_claim_to_outcome_and_all_of_it_is_history() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    let lease = store.lease(seq).unwrap();
    assert!(store.lease(seq).is_none(), "one claim at a time");
    assert_eq!(store.load(seq).await.unwrap().state, State::Leased);
    store.give_back(lease);
    let sending = send(&store, seq).await;
    assert_eq!(sending.attempt, 1);
    assert!(store.lease(seq).is_none());
    store.finish(&sending, again(Certainty::SentUnknown)).await.unwrap();
    let sending = send(&store, seq).await;
    assert_eq!(sending.attempt, 2);
    store.finish(&sending, again(Certainty::NotSent)).await.unwrap();
    let sending = send(&store, seq).await;
    assert_eq!(sending.attempt, 2, "an attempt that left nothing behind is not counted");
    store.finish(&sending, close(Outcome::Completed)).await.unwrap();
    let late = store.finish(&sending, close(Outcome::Completed)).await;
    assert!(matches!(late, Err(StoreError::Moved(State::Closed))));
    let read = store.load(seq).await.unwrap();
    assert_eq!((read.state, read.outcome), (State::Closed, Some(Outcome::Completed)));
    assert_eq!((read.certainty, read.attempts), (Certainty::SentUnknown, 2));
    let history = store.history(seq).await.unwrap();
    let states: Vec<State> = history.iter().map(|line| line.state).collect();
    use State::{Closed, Sending, Stored};
    assert_eq!(states[..7], [Stored, Sending, Stored, Sending, Stored, Sending, Closed]);
    assert_eq!(history[0].why, "connect_failed: connection refused");
    assert_eq!(history[6].upstream_answer, Some(answer(200)));
}

/// A claim that comes between a decision and its commit is made on that decision, not on what the file still says.
#[tokio::test]
async fn a_claim_knows_what_was_decided_before_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (reached, at_commit) = std::sync::mpsc::channel();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let stops = std::sync::Mutex::new((reached, waits));
    let hook = Hook::new(move |point| {
        let stops = stops.lock().unwrap();
        if point == "before_commit" && stops.0.send(()).is_ok() {
            stops.1.recv().ok();
        }
    });
    let store = Store::open(StoreOptions { hook, ..options(folder.path()) }).unwrap();
    let mut first = pin!(append(&store, entry(1)));
    assert!(poll!(first.as_mut()).is_pending());
    at_commit.recv().unwrap();
    go_on.send(()).unwrap();
    let doubted = first.await.seq();

    // While a batch is held up the next one gathers: another attempt's doubt, and an entry.
    let mut before = pin!(append(&store, entry(2)));
    assert!(poll!(before.as_mut()).is_pending());
    at_commit.recv().unwrap();
    let mut doubt = pin!(store.worsen(entry(1).identity.key, UnixMillis(7), "timeout"));
    let mut beside = pin!(append(&store, entry(3)));
    assert!(poll!(doubt.as_mut()).is_pending() && poll!(beside.as_mut()).is_pending());
    go_on.send(()).unwrap();
    at_commit.recv().unwrap();

    let lease = store.lease(doubted).unwrap();
    assert_eq!(store.load(doubted).await.unwrap().certainty, Certainty::NotSent, "not on disk");
    let claimed = store.load_claimed(&lease).await.unwrap();
    assert_eq!(claimed.certainty, Certainty::SentUnknown);
    assert_eq!((claimed.state, claimed.not_before), (State::Leased, UnixMillis(7)));
    go_on.send(()).unwrap();
    doubt.await.unwrap();
    before.await;
    beside.await;

    // And a claim that is void reads nothing.
    store.hold(doubted, "ada", "wait").await.unwrap();
    let void = store.load_claimed(&lease).await;
    assert!(matches!(void, Err(StoreError::Moved(State::Held))), "{void:?}");
}

#[tokio::test]
async fn a_person_who_acts_voids_a_claim_but_not_a_send() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    let lease = store.lease(seq).unwrap();
    store.hold(seq, "ada", "wait").await.unwrap();
    let lapsed = store.sending(lease).await;
    assert!(matches!(lapsed, Err(StoreError::Moved(State::Held))));
    store.release(seq, Duration::ZERO, "ada", "go on").await.unwrap();

    let lease = store.lease(seq).unwrap();
    store.write_off(seq, "ada", "twice").await.unwrap();
    let lapsed = store.hold_leased(lease, HeldReason::Expired, "late").await;
    assert!(matches!(lapsed, Err(StoreError::Moved(State::Closed))));

    let seq = append(&store, entry(2)).await.seq();
    let sending = send(&store, seq).await;
    for act in [
        store.hold(seq, "ada", "wait").await,
        store.write_off(seq, "ada", "wait").await,
        store.release(seq, Duration::ZERO, "ada", "go").await,
    ] {
        assert!(matches!(act, Err(StoreError::Moved(State::Sending))));
    }
    store.finish(&sending, close(Outcome::Completed)).await.unwrap();
    let gone = store.write_off(seq, "ada", "late").await;
    assert!(matches!(gone, Err(StoreError::Moved(State::Closed))));
    let never = store.hold(Seq(1000), "ada", "never").await;
    assert!(matches!(never, Err(StoreError::NotFound)));
    assert_eq!(store.audit_log(10).await.unwrap().len(), 3, "what did not happen is not audited");
}

#[tokio::test]
async fn a_release_counts_attempts_anew_and_moves_an_expiry_that_is_past() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let mut old = entry(1);
    old.expires_at = UnixMillis(1000);
    let seq = append(&store, old).await.seq();
    let sending = send(&store, seq).await;
    let verdict = Verdict::Hold {
        reason: HeldReason::Attempts,
        certainty: Certainty::SentUnknown,
        why: "500".into(),
        answer: Some(answer(500)),
    };
    store.finish(&sending, verdict).await.unwrap();
    let read = store.load(seq).await.unwrap();
    assert_eq!(
        (read.state, read.held, read.attempts),
        (State::Held, Some(HeldReason::Attempts), 1)
    );
    assert_eq!(due(&store), []);
    let before = UnixMillis::now();
    store.release(seq, Duration::from_secs(60), "ada", "the app is repaired").await.unwrap();
    let read = store.load(seq).await.unwrap();
    assert_eq!((read.state, read.held, read.attempts), (State::Stored, None, 0));
    assert_eq!(read.certainty, Certainty::SentUnknown, "that is not forgotten");
    assert!(read.expires_at >= before.plus(Duration::from_secs(60)));
    assert_eq!(due(&store), [seq]);
}

#[tokio::test]
async fn a_late_answer_closes_what_is_stored_and_else_is_history() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let stored = append(&store, entry(1)).await;
    store.close_late(&stored, Outcome::Completed, "200 after 20 s", answer(200)).await.unwrap();
    let again = store.close_late(&stored, Outcome::Declined, "?", answer(400)).await;
    assert!(matches!(again, Err(StoreError::Moved(State::Closed))));
    assert_eq!(store.load(stored.seq()).await.unwrap().outcome, Some(Outcome::Completed));
    assert_eq!(store.history(stored.seq()).await.unwrap().len(), 3);

    let sent = append(&store, entry(2)).await;
    let sending = send(&store, sent.seq()).await;
    let late = store.close_late(&sent, Outcome::Completed, "200", answer(200)).await;
    assert!(matches!(late, Err(StoreError::Moved(State::Sending))));
    let history = store.history(sent.seq()).await.unwrap();
    let last = history.last().unwrap();
    assert_eq!((last.state, &*last.who), (State::Sending, "late_answer"));
    assert_eq!(last.upstream_answer, Some(answer(200)));
    store.finish(&sending, close(Outcome::AlreadyApplied)).await.unwrap();

    let claimed = append(&store, entry(3)).await;
    let lease = store.lease(claimed.seq()).unwrap();
    store.close_late(&claimed, Outcome::Declined, "409", answer(409)).await.unwrap();
    assert!(store.sending(lease).await.is_err(), "the claim is void: nothing is sent");
}

#[tokio::test]
async fn a_live_answer_closes_what_is_stored_or_held() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let live = |key| store.close_live(Digest(key), Outcome::Completed, "live", answer(200));
    assert!(matches!(live(1).await, Err(StoreError::NotFound)));
    let first = append(&store, entry(1)).await;
    store.hold_unanswered(&first).await.unwrap();
    assert_eq!(store.load(first.seq()).await.unwrap().held, Some(HeldReason::Unanswered));
    live(1).await.unwrap();
    assert!(matches!(live(1).await, Err(StoreError::Moved(State::Closed))));
    let second = append(&store, entry(2)).await;
    let sending = send(&store, second.seq()).await;
    assert!(matches!(live(2).await, Err(StoreError::Moved(State::Sending))));
    store.finish(&sending, again(Certainty::SentUnknown)).await.unwrap();
    live(2).await.unwrap();
}

#[tokio::test]
async fn certainty_is_the_worst_over_all_attempts_and_over_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    let lease = store.lease(seq).unwrap();
    let mut timed_out = entry(1);
    timed_out.certainty = Certainty::SentUnknown;
    timed_out.not_before = UnixMillis::now().plus(Duration::from_secs(60));
    let not_before = timed_out.not_before;
    assert!(matches!(store.append(timed_out).await.unwrap(), Appended::Same { .. }));
    let lapsed = store.sending(lease).await;
    assert!(matches!(lapsed, Err(StoreError::Moved(State::Stored))), "it was made on better news");
    let read = store.load(seq).await.unwrap();
    assert_eq!((read.certainty, read.not_before), (Certainty::SentUnknown, not_before));
    assert_eq!(due(&store), [], "the late window of that attempt counts too");
    assert_eq!(store.next_due(&Scope::default(), UnixMillis::now()), Some(not_before));
    assert_eq!(store.due(&Scope::default(), not_before, 10), [seq]);
}

#[tokio::test]
async fn a_sequence_goes_in_order_and_a_held_head_holds_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let in_sequence = |key, sequence| {
        let mut entry = entry(key);
        entry.sequence = Some(Digest(sequence));
        entry
    };
    let mut seqs = Vec::new();
    for (key, sequence) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        seqs.push(append(&store, in_sequence(key, sequence)).await.seq());
    }
    let loose = append(&store, entry(5)).await.seq();
    assert_eq!(due(&store), [seqs[0], seqs[2], loose]);
    assert_eq!(store.sequence_state(Digest(1)), SequenceState::Queued);
    assert!(store.lease(seqs[1]).is_none(), "not its turn");
    store.hold(seqs[0], "ada", "wait").await.unwrap();
    assert_eq!(store.sequence_state(Digest(1)), SequenceState::HeadHeld);
    assert_eq!(due(&store), [seqs[2], loose]);
    finish(&store, seqs[2], Outcome::Completed).await;
    assert_eq!(due(&store), [seqs[3], loose]);
    store.close().await;

    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(due(&store), [seqs[3], loose]);
    store.write_off(seqs[0], "ada", "wrong").await.unwrap();
    assert_eq!(due(&store), [seqs[1], seqs[3], loose]);
    finish(&store, seqs[1], Outcome::Completed).await;
    assert_eq!(store.sequence_state(Digest(1)), SequenceState::Free);
    store.release(seqs[3], Duration::ZERO, "ada", "?").await.unwrap_err();
}

#[tokio::test]
async fn what_is_due_is_asked_by_route_upstream_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let now = UnixMillis::now();
    let at = |seconds| now.plus(Duration::from_secs(seconds));
    let mut seqs = Vec::new();
    for (key, route, upstream, not_before) in
        [(1, "a", "x", at(0)), (2, "a", "y", at(10)), (3, "b", "x", at(20)), (4, "b", "y", at(5))]
    {
        let mut entry = entry(key);
        (entry.route, entry.upstream, entry.not_before) =
            (route.into(), upstream.into(), not_before);
        seqs.push(append(&store, entry).await.seq());
    }
    let all = Scope::default();
    let route = |route: &str| Scope { route: Some(route.into()), ..Scope::default() };
    let upstream = |name: &str| Scope { upstream: Some(name.into()), ..Scope::default() };
    let one = |seq| Scope { seq: Some(seq), ..Scope::default() };
    assert_eq!(store.due(&all, now, 10), [seqs[0]]);
    assert_eq!(store.due(&all, at(5), 10), [seqs[0], seqs[3]]);
    assert_eq!(store.due(&all, at(60), 3), [seqs[0], seqs[1], seqs[2]]);
    assert_eq!(store.due(&all, at(5), 10), [seqs[0], seqs[3]], "another caller's clock is behind");
    assert_eq!(store.due(&route("a"), at(60), 10), [seqs[0], seqs[1]]);
    assert_eq!(store.due(&upstream("x"), at(60), 10), [seqs[0], seqs[2]]);
    assert_eq!(store.due(&route("c"), at(60), 10), []);
    assert_eq!(store.due(&one(seqs[1]), at(5), 10), []);
    assert_eq!(store.due(&one(seqs[1]), at(10), 10), [seqs[1]]);
    assert_eq!(store.next_due(&all, now), Some(now));
    assert_eq!(store.next_due(&route("b"), now), Some(at(5)));
    assert_eq!(store.next_due(&one(seqs[2]), now), Some(at(20)));
    assert_eq!(store.next_due(&route("c"), now), None);
    assert_eq!((store.open_in(&all), store.open_in(&route("a"))), (4, 2));
    store.hold(seqs[0], "ada", "wait").await.unwrap();
    assert_eq!((store.open_in(&all), store.open_in(&one(seqs[0]))), (3, 0));
    assert_eq!(store.next_due(&route("a"), now), Some(at(10)));
    let _claim = store.lease(seqs[1]).unwrap();
    assert_eq!((store.open_in(&all), store.next_due(&route("a"), at(60))), (3, None));
}

#[tokio::test]
async fn changes_wake_whoever_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let mut changes = store.changes();
    let seq = append(&store, entry(1)).await.seq();
    changes.changed().await.unwrap();
    let lease = store.lease(seq).unwrap();
    changes.mark_unchanged();
    store.give_back(lease);
    changes.changed().await.unwrap();
}

#[tokio::test]
async fn notes_are_history_of_any_entry_that_is_or_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seq = append(&store, entry(1)).await.seq();
    store.note(seq, "replay", "the app asks to wait", None).await.unwrap();
    finish(&store, seq, Outcome::Completed).await;
    store.note(seq, "ada", "called the customer", None).await.unwrap();
    let history = store.history(seq).await.unwrap();
    assert_eq!((history[1].state, &*history[1].who), (State::Stored, "replay"));
    assert_eq!((history[4].state, &*history[4].who), (State::Closed, "ada"));
    assert!(matches!(store.note(Seq(9), "a", "b", None).await, Err(StoreError::NotFound)));
}

#[tokio::test]
async fn what_has_expired_is_found_portion_by_portion_and_not_while_it_may_still_be_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let now = UnixMillis::now();
    let (past, future) = (now.minus(HOUR), now.plus(HOUR));
    let entries = (0..5000).map(|key| NewEntry {
        expires_at: if key % 2 == 0 { past } else { future },
        not_before: if key % 4 == 0 { past } else { now.plus(HOUR / 2) },
        ..entry(key)
    });
    let seqs: Vec<Seq> = append_all(&store, entries).await.iter().map(Durable::seq).collect();
    store.hold(seqs[4], "anna", "a test").await.unwrap();

    let all = |at: UnixMillis| {
        let (mut found, mut from, mut looks) = (Vec::new(), Some(Seq(0)), 0);
        while let Some(seq) = from {
            let (expired, next) = store.expired(seq, at);
            found.extend(expired);
            (from, looks) = (next, looks + 1);
        }
        assert!(looks > 1, "nobody holds the index for so long");
        found
    };
    let expected = |step: usize| -> Vec<Seq> {
        seqs.iter().step_by(step).copied().filter(|seq| *seq != seqs[4]).collect()
    };
    assert_eq!(all(now), expected(4));
    assert_eq!(all(now.plus(HOUR / 2)), expected(2), "its late window is over, too");
}

const HOUR: Duration = Duration::from_secs(3600);
