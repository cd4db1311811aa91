//! Pages and searches are exact, however far the index tables are behind.

use super::*;

/// Every 50th entry is looked at in detail.
const STEP: usize = 50;

async fn all(store: &Store, query: PageQuery) -> Vec<Seq> {
    let mut found = Vec::new();
    let mut before = query.before;
    loop {
        let page = store.page(PageQuery { before, limit: 200, ..query.clone() }).await.unwrap();
        found.extend(page.entries.iter().map(|entry| entry.seq));
        match page.more {
            Some(more) => before = Some(more),
            None => return found,
        }
    }
}

fn searching(text: &str) -> PageQuery {
    PageQuery { search: Some(text.into()), ..PageQuery::default() }
}

#[tokio::test]
async fn searches_find_the_same_before_and_after_indexing() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { synchronous: Synchronous::NormalForTests, ..options(folder.path()) };
    let store = Store::open(options.clone()).unwrap();
    let start = UnixMillis::now().minus(Duration::from_secs(100 * 3600));
    let make = |key: u128| {
        let mut entry = entry(key);
        // 360 an hour, some out of order.
        let seconds = key as u64 * 10 + if key.is_multiple_of(7) { 3000 } else { 0 };
        entry.received_at = start.plus(Duration::from_secs(seconds));
        entry.route = if key.is_multiple_of(1000) { "rare" } else { "checkout" }.into();
        entry.labels.push(("mail".into(), format!("user{}@{}.example", key % 500, "x".repeat(60))));
        entry
    };
    let count = 33_000;
    let seqs: Vec<Seq> =
        append_all(&store, (0..count).map(make)).await.iter().map(Durable::seq).collect();
    let closed: Vec<Seq> = seqs.iter().copied().step_by(STEP).collect();
    let acts = closed.iter().enumerate().map(async |(i, seq)| match i % 4 {
        0 => finish(&store, *seq, Outcome::Completed).await,
        1 => finish(&store, *seq, Outcome::Declined).await,
        2 => store.hold(*seq, "ada", "wait").await.unwrap(),
        _ => assert_eq!(send(&store, *seq).await.attempt, 1),
    });
    futures_util::future::join_all(acts).await;
    let watermark = || -> i64 {
        let sql = sql(folder.path());
        sql.query_row(
            "SELECT coalesce(max(value), 0) FROM meta WHERE name = 'indexed_to'",
            [],
            |row| row.get(0),
        )
        .unwrap()
    };
    let check = async |store: &Store| {
        for at in [0, 5, 16_383, 16_384, 16_385, 32_767, 32_999_usize] {
            let (seq, receipt) = (seqs[at], store.receipt(seqs[at]).to_string());
            for text in [
                format!("order-{at}"),
                format!("id-{at}"),
                format!("key-{at}"),
                receipt.clone(),
                receipt.to_lowercase().replace('-', ""),
            ] {
                assert_eq!(all(store, searching(&text)).await, [seq], "{text}");
            }
        }
        let mail = format!("user77@{}.example", "x".repeat(60));
        let mut expected: Vec<Seq> = seqs.iter().copied().skip(77).step_by(500).collect();
        expected.reverse();
        assert_eq!(all(store, searching(&mail)).await, expected);
        let rare = PageQuery { route: Some("rare".into()), ..searching(&mail) };
        assert_eq!(all(store, rare).await, []);
        let rare = PageQuery { route: Some("rare".into()), ..PageQuery::default() };
        let mut expected: Vec<Seq> = seqs.iter().copied().step_by(1000).collect();
        expected.reverse();
        assert_eq!(all(store, rare).await, expected);
        // One page looks at all of them, though not at once.
        let rare = PageQuery { route: Some("rare".into()), limit: 200, ..PageQuery::default() };
        let page = store.page(PageQuery { state: Some(State::Stored), ..rare }).await.unwrap();
        assert_eq!((page.entries.len(), page.more), (0, None));
        assert_eq!(all(store, searching("order-")).await, []);
        let pick = |which: usize| -> Vec<Seq> {
            closed.iter().copied().skip(which).step_by(4).rev().collect()
        };
        let outcome = |outcome| PageQuery { outcome: Some(outcome), ..PageQuery::default() };
        assert_eq!(all(store, outcome(Outcome::Completed)).await, pick(0));
        assert_eq!(all(store, outcome(Outcome::Declined)).await, pick(1));
        assert_eq!(all(store, outcome(Outcome::WrittenOff)).await, []);
        let state = |state| PageQuery { state: Some(state), ..PageQuery::default() };
        assert_eq!(all(store, state(State::Held)).await, pick(2));
        assert_eq!(all(store, state(State::Sending)).await, pick(3));
        let mut both = [pick(0), pick(1)].concat();
        both.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(all(store, state(State::Closed)).await, both);
        let held = |held| PageQuery { held: Some(held), ..PageQuery::default() };
        assert_eq!(all(store, held(HeldReason::ByPerson)).await, pick(2));
        assert_eq!(all(store, held(HeldReason::Expired)).await, []);
        let entry = make(20_000);
        let (from, until) = (entry.received_at.minus(Duration::from_secs(3600)), entry.received_at);
        let between = PageQuery {
            received_from: Some(from),
            received_until: Some(until),
            ..PageQuery::default()
        };
        let expected: Vec<Seq> = (0..count)
            .rev()
            .filter(|key| (from..=until).contains(&make(*key).received_at))
            .map(|key| seqs[key as usize])
            .collect();
        assert!(expected.len() > 100);
        assert_eq!(all(store, between).await, expected);
        let volumes = store.volumes(7).await.unwrap();
        assert_eq!(volumes.iter().map(|volume| volume.accepted).sum::<u64>(), count as u64);
        assert_eq!(volumes.iter().map(|volume| volume.amount).sum::<i64>(), 100 * count as i64);
        assert_eq!(volumes.iter().map(|volume| volume.declined).sum::<u64>(), 165);
        let days: std::collections::BTreeSet<&str> =
            volumes.iter().map(|v| v.day.as_str()).collect();
        assert!(days.len() >= 3, "{days:?}");
    };
    check(&store).await;
    until(async || (watermark() == 2 * 16_384).then_some(())).await;
    check(&store).await;
    let claim = store.lease(seqs[1]).unwrap();
    let leased = PageQuery { state: Some(State::Leased), ..PageQuery::default() };
    assert_eq!(all(&store, leased).await, [seqs[1]]);
    store.give_back(claim);
    let before = (store.totals().routes, due(&store));
    let sending: Vec<Seq> = closed.iter().copied().skip(3).step_by(4).collect();
    store.close().await;

    // A start from briefs and log together.
    let store = Store::open(options).unwrap();
    assert_eq!(store.totals().routes["checkout"].open, before.0["checkout"].open);
    assert_eq!((before.0["rare"].open, !store.totals().routes.contains_key("rare")), (0, true));
    let mut expected = [before.1, sending].concat();
    expected.sort_unstable();
    assert_eq!(due(&store), expected);
}

#[tokio::test]
async fn pages_follow_one_another_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(folder.path())).unwrap();
    let seqs: Vec<Seq> =
        append_all(&store, (0..25).map(entry)).await.iter().map(Durable::seq).collect();
    let first = store.page(PageQuery { limit: 10, ..PageQuery::default() }).await.unwrap();
    assert_eq!(first.entries.len(), 10);
    assert_eq!(first.entries[0].seq, seqs[24]);
    assert_eq!(first.entries[0].labels, [("order".to_owned(), "order-24".to_owned())]);
    assert_eq!(first.more, Some(seqs[15]));
    append(&store, entry(100)).await;
    let next = PageQuery { limit: 10, before: first.more, ..PageQuery::default() };
    let second = store.page(next).await.unwrap();
    assert_eq!(second.entries[0].seq, seqs[14]);
    let last = PageQuery { limit: 10, before: second.more, ..PageQuery::default() };
    let last = store.page(last).await.unwrap();
    assert_eq!((last.entries.len(), last.more), (5, None));
}
