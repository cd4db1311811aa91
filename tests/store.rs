//! What the store promises, through its public verbs, on real files. A store on another database must pass the same.

mod claims;
mod crash;
mod limits;
mod model;
mod search;

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
            fingerprint: fingerprint(key),
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
        caps: caps(1_000_000),
        held: None,
    }
}

fn fingerprint(key: u128) -> Digest {
    Digest(key ^ 0xff)
}

fn caps(open: u64) -> Arc<Caps> {
    Arc::new(Caps { open, open_sum: None, per_customer: None })
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

/// Many at once, so that they share commits.
async fn append_all(store: &Store, entries: impl IntoIterator<Item = NewEntry>) -> Vec<Durable> {
    let mut durable = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let portion = entries.by_ref().take(1000).map(|entry| append(store, entry));
        durable.extend(futures_util::future::join_all(portion).await);
    }
    durable
}

fn due(store: &Store) -> Vec<Seq> {
    store.due(&Scope::default(), UnixMillis::now(), 1_000_000)
}

async fn send(store: &Store, seq: Seq) -> Sending {
    store.sending(store.lease(seq).unwrap()).await.unwrap()
}

async fn finish(store: &Store, seq: Seq, outcome: Outcome) {
    let sending = send(store, seq).await;
    store.finish(&sending, close(outcome)).await.unwrap();
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

/// Waits for what the writer does by itself.
async fn until<T>(mut done: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(done) = done().await {
            return done;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not happen within 10 s");
}

/// The file itself, with nobody else using it.
fn sql(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("standin.db")).unwrap()
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
    assert_eq!(store.seq_of(durable.receipt()), durable.seq());
    assert_eq!(read.request, given.request);
    assert_eq!(read.answer, given.answer);
    assert_eq!(read.identity, given.identity);
    assert_eq!(read.labels, given.labels);
    assert_eq!((read.state, read.outcome, read.held), (State::Stored, None, None));
    assert_eq!((read.certainty, read.attempts), (Certainty::NotSent, 0));
    assert_eq!(*store.kept_answer(durable.seq()).await.unwrap().answer(), given.answer);
    assert_eq!(due(&store), [durable.seq()]);
    assert!(matches!(store.load(Seq(99)).await, Err(StoreError::NotFound)));
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
    let open = KeyState::Open {
        seq: first.seq(),
        same: false,
        state: State::Stored,
        held: None,
        certainty: Certainty::NotSent,
    };
    assert_eq!(store.key_state(Digest(1), Digest(5)), open);

    finish(&store, first.seq(), Outcome::Declined).await;
    let remembered =
        KeyState::Remembered { seq: first.seq(), same: true, outcome: Outcome::Declined };
    assert_eq!(store.key_state(Digest(1), fingerprint(1)), remembered);
    match store.append(entry(1)).await.unwrap() {
        Appended::Same { state, outcome, .. } => {
            assert_eq!((state, outcome), (State::Closed, Some(Outcome::Declined)));
        }
        other => panic!("{other:?}"),
    }
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.key_state(Digest(1), fingerprint(1)), remembered);
    assert_eq!(store.key_state(Digest(2), fingerprint(2)), KeyState::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_with_one_key_one_is_new_and_all_get_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..8_u16 {
        let store = store.clone();
        tasks.spawn(async move {
            let attempts = (0..200).map(|key| {
                let mut entry = entry(key);
                entry.answer = answer(200 + client);
                store.append(entry)
            });
            futures_util::future::join_all(attempts).await
        });
    }
    let mut new = [0; 200];
    let mut statuses = vec![std::collections::BTreeSet::new(); 200];
    while let Some(answers) = tasks.join_next().await {
        for (key, appended) in answers.unwrap().into_iter().enumerate() {
            match appended.unwrap() {
                Appended::New(durable) => {
                    new[key] += 1;
                    let kept = store.kept_answer(durable.seq()).await.unwrap().answer().clone();
                    statuses[key].insert(kept.status);
                }
                Appended::Same { answer, .. } => _ = statuses[key].insert(answer.status),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(new, [1; 200]);
    assert!(statuses.iter().all(|seen| seen.len() == 1), "everybody got the one kept answer");
}

#[tokio::test]
async fn an_append_that_was_begun_is_finished_whatever_its_caller_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    {
        let mut append = std::pin::pin!(store.append(entry(1)));
        let once =
            std::future::poll_fn(|context| std::task::Poll::Ready(append.as_mut().poll(context)));
        assert!(once.await.is_pending());
    }
    until(async || (!due(&store).is_empty()).then_some(())).await;
    assert!(matches!(store.key_state(Digest(1), fingerprint(1)), KeyState::Open { .. }));
}

#[tokio::test]
async fn after_stop_nothing_new_is_accepted_and_marks_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let durable = append(&store, entry(1)).await;
    let mut accepting = store.accepting();
    assert_eq!(*accepting.borrow_and_update(), Accepting::Yes);
    store.stop_accepting("draining");
    assert!(accepting.has_changed().unwrap());
    assert_eq!(*accepting.borrow(), Accepting::No("draining".into()));
    let refused = store.append(entry(2)).await;
    assert!(matches!(refused, Err(StoreError::NotAccepting(why)) if why == "draining"));
    finish(&store, durable.seq(), Outcome::Completed).await;
}

#[tokio::test]
async fn values_and_audit_are_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    store.remember("mode.all", "auto").await.unwrap();
    store.remember("mode.all", "forced").await.unwrap();
    store.remember("mode.route.a", "auto").await.unwrap();
    store.remember("run.1", "{}").await.unwrap();
    let seq = append(&store, entry(1)).await.seq();
    store.hold(seq, "ada", "looks odd").await.unwrap();
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(store.recall("mode.all").await.unwrap().as_deref(), Some("forced"));
    assert_eq!(store.recall("mode").await.unwrap(), None);
    let modes = store.recall_all("mode.").await.unwrap();
    let names: Vec<&str> = modes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["mode.all", "mode.route.a"]);
    let audit = store.audit_log(10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!((&*audit[0].who, &*audit[0].what, &*audit[0].why), ("ada", "hold", "looks odd"));
    assert_eq!(audit[0].on, store.receipt(seq).to_string());
}

#[tokio::test]
async fn a_store_that_is_not_there_accepts_nothing_and_is_empty() {
    let store = Store::without("no route has a stand-in");
    let why = "no route has a stand-in";
    assert!(matches!(store.append(entry(1)).await, Err(StoreError::NotAccepting(w)) if w == why));
    assert!(matches!(store.remember("a", "b").await, Err(StoreError::NotAccepting(w)) if w == why));
    assert_eq!(store.recall("a").await.unwrap(), None);
    assert!(store.page(PageQuery::default()).await.unwrap().entries.is_empty());
    assert!(!store.anything_known());
    store.close().await;
}
