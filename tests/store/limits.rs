//! Caps, sizes, retention: what bounds the store, and that the bounds are exact.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn caps_are_exact_under_concurrency_and_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        || StoreOptions { synchronous: Synchronous::NormalForTests, ..options(folder.path()) };
    let store = Store::open(options()).unwrap();
    let open = Caps { open: 3000, open_sum: Some(i64::MAX), per_customer: None };
    let sum = Caps { open: u64::MAX, open_sum: Some(5000), per_customer: None };
    let customer =
        Caps { open: u64::MAX, open_sum: None, per_customer: Some((7, Duration::from_secs(3600))) };
    let routes: Vec<(&str, Arc<Caps>)> =
        vec![("open", open.into()), ("sum", sum.into()), ("customer", customer.into())];
    let accepted: Arc<Vec<AtomicU64>> = Arc::new((0..3).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = tokio::task::JoinSet::new();
    for thread in 0..8_u128 {
        let (store, routes, accepted) = (store.clone(), routes.clone(), Arc::clone(&accepted));
        tasks.spawn(async move {
            for round in 0..50 {
                let appends = (0..30_u128).map(|i| {
                    let at = (i % 3) as usize;
                    let mut entry = entry(thread * 1_000_000 + round * 1000 + i);
                    entry.route = routes[at].0.into();
                    entry.caps = Arc::clone(&routes[at].1);
                    entry.amount = 3;
                    entry.customer = Some(Digest(i));
                    let (store, accepted) = (&store, &accepted);
                    async move {
                        match store.append(entry).await.unwrap() {
                            Appended::New(_) => _ = accepted[at].fetch_add(1, Ordering::Relaxed),
                            Appended::CapReached(_) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
                futures_util::future::join_all(appends).await;
            }
        });
    }
    tasks.join_all().await;
    let counts = |at: usize| accepted[at].load(Ordering::Relaxed);
    assert_eq!((counts(0), counts(1), counts(2)), (3000, 5000 / 3, 7 * 10));
    let check = async |store: &Store| {
        let totals = store.totals();
        assert_eq!(totals.routes["open"].open, 3000);
        assert_eq!(totals.routes["sum"].open_sum, 4998);
        for (i, (route, caps)) in routes.iter().enumerate() {
            let mut entry = entry(u128::MAX - i as u128);
            (entry.route, entry.caps) = ((*route).into(), Arc::clone(caps));
            (entry.amount, entry.customer) = (3, Some(Digest(2)));
            let expected = [Cap::Open, Cap::OpenSum, Cap::PerCustomer][i];
            match store.append(entry).await.unwrap() {
                Appended::CapReached(cap) => assert_eq!(cap, expected),
                other => panic!("{route}: {other:?}"),
            }
        }
    };
    check(&store).await;
    store.close().await;
    let store = Store::open(options()).unwrap();
    check(&store).await;
    // Closing makes room in what is open, but a customer's window also counts what is closed.
    let one_of = |route: &str| Scope { route: Some(route.into()), ..Scope::default() };
    for (i, (route, caps)) in routes.iter().enumerate() {
        let seq = store.due(&one_of(route), UnixMillis::now(), 1)[0];
        let customer = Some(Digest(2));
        finish(&store, seq, Outcome::Completed).await;
        let mut entry = entry(u128::MAX - 10 - i as u128);
        (entry.route, entry.caps) = ((*route).into(), Arc::clone(caps));
        (entry.amount, entry.customer) = (3, customer);
        let appended = store.append(entry).await.unwrap();
        if i < 2 {
            assert!(matches!(appended, Appended::New(_)), "{route}: {appended:?}");
        } else {
            assert!(matches!(appended, Appended::CapReached(Cap::PerCustomer)), "{appended:?}");
        }
    }
}

#[tokio::test]
async fn sums_do_not_overflow_and_negative_amounts_make_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let caps = Arc::new(Caps { open: 100, open_sum: Some(i64::MAX), per_customer: None });
    let with = |key, amount| {
        let mut entry = entry(key);
        (entry.amount, entry.caps) = (amount, Arc::clone(&caps));
        entry
    };
    append(&store, with(1, i64::MAX)).await;
    append(&store, with(2, i64::MIN)).await;
    let over = store.append(with(3, 1)).await.unwrap();
    assert!(matches!(over, Appended::CapReached(Cap::OpenSum)));
    assert_eq!(store.totals().routes["checkout"].open_sum, i64::MAX);
    let volumes = store.volumes(1).await.unwrap();
    assert_eq!(volumes[0].accepted, 2);
}

#[tokio::test]
async fn a_longer_window_per_customer_looks_further_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let now = UnixMillis::now();
    let with = |key, seconds_ago, window| {
        let mut entry = entry(key);
        entry.received_at = now.minus(Duration::from_secs(seconds_ago));
        entry.customer = Some(Digest(1));
        entry.caps = Arc::new(Caps {
            open: 100,
            open_sum: None,
            per_customer: Some((2, Duration::from_secs(window))),
        });
        entry
    };
    append(&store, with(1, 500, 60)).await;
    append(&store, with(2, 400, 60)).await;
    append(&store, with(3, 0, 60)).await;
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    append(&store, with(4, 0, 60)).await;
    let over = store.append(with(5, 0, 60)).await.unwrap();
    assert!(matches!(over, Appended::CapReached(Cap::PerCustomer)));
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    let over = store.append(with(6, 100, 1000)).await.unwrap();
    assert!(matches!(over, Appended::CapReached(Cap::PerCustomer)), "{over:?}");
}

#[tokio::test]
async fn a_full_store_refuses_captures_still_takes_marks_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let small = |retention| StoreOptions {
        max_bytes: 3 << 20,
        retention,
        dedupe_window: retention,
        ..options(folder.path())
    };
    let store = Store::open(small(Duration::from_secs(3600))).unwrap();
    let mut seqs = Vec::new();
    let mut full_at = usize::MAX;
    // Until it stays full: the first refusals make it give back the room of its log.
    let why = loop {
        let mut entry = entry(seqs.len() as u128);
        entry.request.body = Bytes::from(vec![b'x'; 50_000]);
        match store.append(entry).await {
            Ok(Appended::New(durable)) => seqs.push(durable.seq()),
            Err(StoreError::NotAccepting(why)) if full_at == seqs.len() => break why,
            Err(StoreError::NotAccepting(_)) => {
                full_at = seqs.len();
                tokio::time::sleep(Duration::from_millis(1200)).await;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(why.starts_with("full"), "{why}");
    assert!((30..80).contains(&seqs.len()), "{}", seqs.len());
    assert!(store.totals().bytes < 5 << 20);
    for seq in &seqs {
        finish(&store, *seq, Outcome::Completed).await;
    }
    assert!(matches!(*store.accepting().borrow(), Accepting::No(_)));
    store.close().await;
    // Once what is closed is deleted there is room again.
    let store = Store::open(small(Duration::ZERO)).unwrap();
    until(async || (*store.accepting().borrow() == Accepting::Yes).then_some(())).await;
    append(&store, entry(u128::MAX)).await;
}

#[tokio::test]
async fn closed_entries_go_after_the_retention_and_their_keys_after_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let with = |retention, dedupe_window| StoreOptions {
        retention: Duration::from_secs(retention),
        dedupe_window: Duration::from_secs(dedupe_window),
        ..options(folder.path())
    };
    let store = Store::open(with(3600, 3600)).unwrap();
    let seqs: Vec<Seq> =
        append_all(&store, (0..400).map(entry)).await.iter().map(Durable::seq).collect();
    for seq in &seqs[..300] {
        finish(&store, *seq, Outcome::Declined).await;
    }
    store.hold(seqs[350], "ada", "wait").await.unwrap();
    assert_eq!(store.totals().routes["checkout"].declined, 300);
    let to_follow_up = store.work(Work::Declined, None, 200).await.unwrap();
    assert_eq!((to_follow_up.entries.len(), store.work_count(Work::Declined)), (200, 300));
    store.follow_up(to_follow_up.entries[0].seq, "anna", "called").await.unwrap();
    assert_eq!(store.totals().routes["checkout"].declined, 299);
    store.close().await;

    let store = Store::open(with(0, 3600)).unwrap();
    until(async || matches!(store.load(seqs[299]).await, Err(StoreError::NotFound)).then_some(()))
        .await;
    for seq in &seqs[..300] {
        assert!(matches!(store.load(*seq).await, Err(StoreError::NotFound)));
        assert!(matches!(store.history(*seq).await, Err(StoreError::NotFound)));
    }
    for seq in &seqs[300..] {
        assert!(store.load(*seq).await.unwrap().intact, "open entries are never deleted");
    }
    until(async || (store.totals().routes["checkout"].declined == 0).then_some(())).await;
    match store.append(entry(5)).await.unwrap() {
        Appended::Same { seq, answer: kept, outcome, .. } => {
            assert_eq!((seq, kept, outcome), (seqs[5], answer(201), Some(Outcome::Declined)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.volumes(1).await.unwrap()[0].accepted, 400, "what was accepted stays counted");
    assert_eq!(store.volumes(1).await.unwrap()[0].declined, 300);
    store.close().await;

    let store = Store::open(with(0, 0)).unwrap();
    assert_eq!(store.key_state(Digest(5), fingerprint(5)), KeyState::Unknown);
    assert!(matches!(store.key_state(Digest(350), fingerprint(350)), KeyState::Open { .. }));
    let left = || -> i64 {
        let count = "SELECT (SELECT count(*) FROM state) + (SELECT count(*) FROM kept_answer)";
        sql(folder.path()).query_row(count, [], |row| row.get(0)).unwrap()
    };
    until(async || (left() == 1).then_some(())).await;
    let next = append(&store, entry(5)).await.seq();
    assert!(next > seqs[399], "numbers are never used again");
    for seq in store.page(PageQuery { limit: 200, ..PageQuery::default() }).await.unwrap().entries {
        if seq.state == State::Stored {
            finish(&store, seq.seq, Outcome::Completed).await;
        }
    }
    store.write_off(seqs[350], "ada", "done").await.unwrap();
    store.close().await;
    let store = Store::open(with(0, 0)).unwrap();
    until(async || (left() == 0).then_some(())).await;
    store.close().await;
    let store = Store::open(with(0, 0)).unwrap();
    assert!(append(&store, entry(6)).await.seq() > next, "not even after a start on an empty file");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_disk_that_will_not_live_is_refused_unless_accepted() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let refusing = StoreOptions { accept_ephemeral: false, ..options(folder.path()) };
    let store = Store::open(refusing).unwrap();
    let refused = store.append(entry(1)).await;
    assert!(matches!(&refused, Err(StoreError::NotAccepting(why)) if why.contains("tmpfs")));
    store.remember("mode", "auto").await.unwrap();
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    append(&store, entry(1)).await;
}

#[tokio::test]
async fn totals_know_the_oldest_open_entry() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seqs: Vec<Seq> = append_all(
        &store,
        (0..4).map(|key| {
            let mut entry = entry(key);
            entry.received_at = UnixMillis(1000 + key as i64);
            entry
        }),
    )
    .await
    .iter()
    .map(Durable::seq)
    .collect();
    let oldest = |store: &Store| store.totals().routes["checkout"].oldest_open;
    assert_eq!(oldest(&store), Some(UnixMillis(1000)));
    finish(&store, seqs[0], Outcome::Completed).await;
    store.hold(seqs[1], "ada", "wait").await.unwrap();
    let totals = store.totals().routes["checkout"].clone();
    assert_eq!((totals.open, totals.held), (3, 1));
    assert_eq!(totals.oldest_open, Some(UnixMillis(1001)));
    finish(&store, seqs[2], Outcome::Completed).await;
    store.close().await;
    let store = Store::open(options(folder.path())).unwrap();
    assert_eq!(oldest(&store), Some(UnixMillis(1001)));
}
