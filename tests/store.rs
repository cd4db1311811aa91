//! What the store promises, through its public verbs, on real files.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use standin::{store::*, time::UnixMillis};

fn options(folder: &Path) -> StoreOptions {
    StoreOptions {
        accept_ephemeral: true,
        late_window: Duration::ZERO,
        ..StoreOptions::new(folder.join("standin.db"))
    }
}

fn entry(key: u128) -> NewEntry {
    NewEntry {
        request_id: format!("id-{key}"),
        received_at: UnixMillis::now(),
        route: "checkout".into(),
        upstream: "shop".into(),
        identity: Identity {
            key: Digest(key),
            key_text: format!("key-{key}"),
            fingerprint: Digest(key ^ 0xff),
            principal: "someone".into(),
        },
        sequence: None,
        reason: Reason::ConnectFailed,
        certainty: Certainty::NotSent,
        cause: "connection refused".into(),
        not_before: UnixMillis(0),
        expires_at: UnixMillis::now().plus(Duration::from_secs(3600)),
        request: StoredRequest {
            method: "POST".into(),
            target: "/checkout?a=b".into(),
            headers: vec![
                ("host".into(), Bytes::from_static(b"shop.example")),
                ("content-type".into(), Bytes::from_static(b"application/json")),
                ("x-odd".into(), Bytes::from_static(b"\xff: \t")),
            ],
            body: Bytes::from(format!(r#"{{"cents":{key}}}"#)),
            trailers: vec![],
            client_ip: "192.0.2.7".into(),
        },
        answer: answer(201),
        labels: vec![("order".into(), format!("order-{key}"))],
        amount: 100,
        customer: None,
        caps: Arc::new(Caps { open: 1_000_000, open_sum: None, per_customer: None }),
        held: None,
    }
}

fn answer(status: u16) -> KeptAnswer {
    KeptAnswer {
        status,
        headers: vec![("content-type".into(), Bytes::from_static(b"application/json"))],
        body: Bytes::from_static(br#"{"status":"accepted"}"#),
    }
}

async fn append(store: &Store, entry: NewEntry) -> Durable {
    match store.append(entry).await.unwrap() {
        Appended::New(durable) => durable,
        other => panic!("{other:?}"),
    }
}

fn due(store: &Store) -> Vec<Seq> {
    store.due(&Scope::default(), UnixMillis::now(), 100)
}

async fn send(store: &Store, seq: Seq) -> Sending {
    store.sending(store.lease(seq).unwrap()).await.unwrap()
}

fn close(outcome: Outcome) -> Verdict {
    Verdict::Close { outcome, why: "200".into(), answer: Some(answer(200)) }
}

fn again(certainty: Certainty) -> Verdict {
    Verdict::Again {
        not_before: UnixMillis(0),
        certainty,
        counts: certainty != Certainty::NotSent,
        why: "503".into(),
        answer: None,
    }
}

#[tokio::test]
async fn an_entry_comes_back_as_it_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    assert!(!store.anything_known());
    let given = entry(7);
    let durable = append(&store, given.clone()).await;
    assert!(store.anything_known());
    store.close().await;

    let store = Store::open(options(folder.path())).unwrap();
    let read = store.load(durable.seq()).await.unwrap();
    assert!(read.intact);
    assert_eq!(read.receipt, durable.receipt());
    assert_eq!(read.request, given.request);
    assert_eq!(read.answer, given.answer);
    assert_eq!(read.identity, given.identity);
    assert_eq!(read.labels, given.labels);
    assert_eq!((read.state, read.outcome, read.held), (State::Stored, None, None));
    assert_eq!((read.certainty, read.attempts), (Certainty::NotSent, 0));
    assert_eq!(store.kept_answer(durable.seq()).await.unwrap().0, given.answer);
    assert_eq!(due(&store), [durable.seq()]);
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_another_body_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let first = append(&store, entry(1)).await;
    let mut retry = entry(1);
    retry.answer = answer(500);
    match store.append(retry).await.unwrap() {
        Appended::Same { seq, receipt, answer: kept, state, outcome } => {
            assert_eq!((seq, receipt), (first.seq(), first.receipt()));
            assert_eq!((kept, state, outcome), (answer(201), State::Stored, None));
        }
        other => panic!("{other:?}"),
    }
    let mut other = entry(1);
    other.identity.fingerprint = Digest(5);
    assert!(matches!(store.append(other).await.unwrap(), Appended::Conflict));

    let sending = send(&store, first.seq()).await;
    store.finish(&sending, close(Outcome::Declined)).await.unwrap();
    assert_eq!(
        store.key_state(Digest(1), Digest(1 ^ 0xff)),
        KeyState::Remembered { seq: first.seq(), same: true, outcome: Outcome::Declined }
    );
    match store.append(entry(1)).await.unwrap() {
        Appended::Same { state, outcome, .. } => {
            assert_eq!((state, outcome), (State::Closed, Some(Outcome::Declined)));
        }
        other => panic!("{other:?}"),
    }
}

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
    store.finish(&sending, again(Certainty::SentUnknown)).await.unwrap();
    let sending = send(&store, seq).await;
    assert_eq!(sending.attempt, 2);
    store.finish(&sending, again(Certainty::NotSent)).await.unwrap();
    let sending = send(&store, seq).await;
    assert_eq!(sending.attempt, 2, "an attempt that left nothing behind is not counted");
    store.finish(&sending, close(Outcome::Completed)).await.unwrap();
    store.finish(&sending, close(Outcome::Completed)).await.unwrap_err();
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
