//! The replayer with a real store and a small app, seen from both.

mod people;

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use bytes::Bytes;

use super::{
    RunState,
    load::LEAST,
    rig::{Reply, Rig, eventually, local, order},
};
use crate::{
    mode::Mode,
    store::{Certainty, Digest, HeldReason, NewEntry, Outcome, Scope, Seq, State},
    time::UnixMillis,
};

const ORDERS: &str = r#"
[route.orders]
match = "POST /orders"
app_dedupes = { by = "x-request-id", for = "7d" }
[route.orders.replay]
min_backoff = "10ms"
max_backoff = "50ms"
"#;

fn orders(more: &str) -> String {
    format!("{ORDERS}{more}\n")
}

fn of_route(name: &str) -> Scope {
    Scope { route: Some(name.into()), ..Scope::default() }
}

/// Long enough for a replayer that should not send to send.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

#[test]
fn what_was_stored_reaches_the_app_once_by_itself() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let seqs = rig.orders(["1", "2", "3"]).await;
        rig.run();
        rig.all_complete(&seqs).await;
        // The canary is the oldest; after it they go side by side, for they are of no sequence.
        let mut bodies = rig.app.bodies();
        assert_eq!(bodies[0], "1");
        bodies.sort_unstable();
        assert_eq!(bodies, ["1", "2", "3"]);
        let first = rig.app.seen().remove(0);
        let entry = rig.entry(seqs[0]).await;
        assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/orders?a=%20b"));
        for (name, value) in [
            ("host", "shop.example"),
            ("x-request-id", &entry.request_id),
            ("idempotency-key", &entry.identity.key_text),
            ("standin-replay", "1"),
            ("standin-attempt", "1"),
            ("standin-received-at", &entry.received_at.to_string()),
        ] {
            assert_eq!(first.headers[name], value, "{name}");
        }
        let run = rig.replay.runs().remove(0);
        assert_eq!(run.who, "recovery");
        let run = rig.ends(&run.id).await;
        assert_eq!((run.state, run.total, run.completed, run.in_flight), (RunState::Done, 3, 3, 0));
        assert_eq!(rig.replay.counters().completed, 3);
    });
}

#[test]
fn trailers_are_replayed() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let mut entry = order("in chunks");
        entry.request.trailers = vec![("x-sum".to_owned(), Bytes::from_static(b"7"))];
        let seq = rig.append(entry).await.seq();
        rig.run();
        rig.all_complete(&[seq]).await;
        let seen = rig.app.seen().remove(0);
        assert_eq!(seen.body, "in chunks");
        assert_eq!(seen.trailers.unwrap()["x-sum"], "7");
    });
}

#[test]
fn the_app_sees_canaries_first_and_never_more_than_the_pace() {
    local(async {
        let mut rig = Rig::new(&orders("pace = 10")).await;
        rig.app.behave(|_| Reply::status(201).after(Duration::from_millis(30)));
        let mut seqs = Vec::new();
        for number in 0..60 {
            seqs.push(rig.append(order(&number.to_string())).await.seq());
        }
        rig.run();
        rig.all_complete(&seqs).await;
        let at_once: Vec<u32> = rig.app.seen().iter().map(|seen| seen.in_flight).collect();
        assert_eq!(at_once.len(), 60);
        assert_eq!(at_once[0], 1, "the first canary alone");
        assert!(at_once[1..3].iter().all(|count| *count <= 2), "{at_once:?}");
        assert!(at_once[3..8].iter().all(|count| *count <= 5), "{at_once:?}");
        assert_eq!(at_once.iter().max(), Some(&10), "{at_once:?}");
    });
}

#[test]
fn one_of_a_sequence_at_a_time_and_a_held_head_blocks_only_its_own() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let (a, b) = (Some(Digest(900)), Some(Digest(901)));
        let mut seqs = BTreeMap::new();
        for (body, sequence) in [("a1", a), ("b1", b), ("a2", a), ("b2", b), ("a3", a), ("x", None)]
        {
            seqs.insert(body, rig.append(NewEntry { sequence, ..order(body) }).await.seq());
        }
        rig.app.behave(|seen| {
            let status = if seen.body == "b1" { 401 } else { 201 };
            Reply::status(status).after(Duration::from_millis(20))
        });
        rig.run();
        rig.all_complete(&[seqs["a1"], seqs["a2"], seqs["a3"], seqs["x"]]).await;
        let held = rig.becomes(seqs["b1"], |entry| entry.state == State::Held).await;
        assert_eq!(held.held, Some(HeldReason::Credentials));
        a_while().await;
        let bodies = rig.app.bodies();
        assert!(!bodies.contains(&"b2".to_owned()), "{bodies:?}");
        let of_a: Vec<_> = bodies.iter().filter(|body| body.starts_with('a')).collect();
        assert_eq!(of_a, ["a1", "a2", "a3"]);

        rig.app.behave(|_| Reply::status(201));
        let day = Duration::from_secs(86_400);
        rig.store.release(seqs["b1"], day, "ann", "new credentials").await.unwrap();
        rig.all_complete(&[seqs["b1"], seqs["b2"]]).await;
    });
}

#[test]
fn retry_after_is_obeyed() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let seqs = rig.orders(["1", "2"]).await;
        let asked = Rc::new(Cell::new(false));
        rig.app.behave(move |_| match asked.replace(true) {
            false => Reply::status(503).header("retry-after", "1"),
            true => Reply::status(201),
        });
        rig.run();
        rig.waits_for("Retry-After").await;
        rig.all_complete(&seqs).await;
        let seen = rig.app.seen();
        assert_eq!(seen.len(), 3);
        assert!(seen[1].at - seen[0].at >= Duration::from_millis(990));
    });
}

#[test]
fn an_app_that_falls_again_half_way_gets_each_in_the_end() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let mut seqs = Vec::new();
        for number in 0..40 {
            seqs.push(rig.append(order(&number.to_string())).await.seq());
        }
        let left = Rc::new(Cell::new(9));
        let allowed = Rc::clone(&left);
        rig.app.behave(move |_| match allowed.get() {
            0 => Reply::cut(),
            more => {
                allowed.set(more - 1);
                Reply::status(201)
            }
        });
        rig.run();
        eventually(|| match rig.app.seen().len() {
            0..10 => Err(rig.app.seen().len()),
            _ => Ok(()),
        })
        .await;
        a_while().await;
        let during = rig.app.seen().len();
        assert!(during < 40, "it went on at full pace: {during}");
        left.set(1000);
        rig.all_complete(&seqs).await;
        let mut applied = rig.app.bodies();
        applied.sort();
        applied.dedup();
        assert_eq!(applied.len(), 40);
        let ids: BTreeMap<_, _> = rig
            .app
            .seen()
            .into_iter()
            .map(|seen| (seen.headers["x-request-id"].clone(), seen.body))
            .collect();
        assert_eq!(ids.len(), 40, "each goes out under its own id, however often");
    });
}

#[test]
fn nothing_is_sent_past_its_expiry() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let expires_at = UnixMillis::now();
        let late = rig.append(NewEntry { expires_at, ..order("late") }).await.seq();
        rig.run();
        let entry = rig.becomes(late, |entry| entry.state == State::Held).await;
        assert_eq!(entry.held, Some(HeldReason::Expired));
        assert!(rig.app.seen().is_empty());
    });
}

#[test]
fn what_may_have_been_applied_is_not_sent_without_protection() {
    local(async {
        let bare = "[route.orders]\nmatch = \"POST /orders\"\n";
        let mut rig = Rig::new(bare).await;
        let unknown = NewEntry { certainty: Certainty::SentUnknown, ..order("unknown") };
        let unknown = rig.append(unknown).await.seq();
        let fresh = rig.orders(["fresh"]).await;
        rig.run();
        let entry = rig.becomes(unknown, |entry| entry.state == State::Held).await;
        assert_eq!(entry.held, Some(HeldReason::Unclear));
        rig.all_complete(&fresh).await;
        assert_eq!(rig.app.bodies(), ["fresh"]);

        // A person who looked vouches for it.
        let day = Duration::from_secs(86_400);
        rig.store.release(unknown, day, "ann", "the app has no such order").await.unwrap();
        rig.all_complete(&[unknown]).await;
        assert_eq!(rig.app.bodies(), ["fresh", "unknown"]);

        // Nor a second time, when the first replay may have been applied.
        rig.app.behave(|_| Reply::cut());
        let cut = rig.orders(["cut"]).await[0];
        let entry = rig.becomes(cut, |entry| entry.state == State::Held).await;
        assert_eq!(entry.held, Some(HeldReason::Unclear));
        assert_eq!(rig.app.bodies(), ["fresh", "unknown", "cut"]);
    });
}

#[test]
fn a_protection_that_is_over_protects_no_more() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let received_at = UnixMillis::now().minus(Duration::from_secs(8 * 86_400));
        let old = NewEntry { certainty: Certainty::SentUnknown, received_at, ..order("old") };
        let old = rig.append(old).await.seq();
        rig.run();
        let entry = rig.becomes(old, |entry| entry.state == State::Held).await;
        assert_eq!(entry.held, Some(HeldReason::Unclear));
        assert!(rig.app.seen().is_empty());
    });
}

#[test]
fn answers_end_entries_by_their_class() {
    local(async {
        let rules = "already_applied = [409]\nmax_attempts = 2";
        let mut rig = Rig::new(&orders(rules)).await;
        rig.app.behave(|seen| Reply::status(seen.body.parse().unwrap()).body("because"));
        let seqs = rig.orders(["422", "401", "302", "409", "500"]).await;
        rig.run();
        let ended = async |seq| {
            let over = |state| matches!(state, State::Closed | State::Held);
            let entry = rig.becomes(seq, |entry| over(entry.state)).await;
            (entry.outcome, entry.held, entry.attempts)
        };
        assert_eq!(ended(seqs[0]).await, (Some(Outcome::Declined), None, 1));
        assert_eq!(ended(seqs[1]).await, (None, Some(HeldReason::Credentials), 1));
        assert_eq!(ended(seqs[2]).await, (None, Some(HeldReason::Credentials), 1));
        assert_eq!(ended(seqs[3]).await, (Some(Outcome::AlreadyApplied), None, 1));
        assert_eq!(ended(seqs[4]).await, (None, Some(HeldReason::Attempts), 2));

        let history = rig.store.history(seqs[0]).await.unwrap();
        let said = history.iter().find_map(|line| line.upstream_answer.clone()).unwrap();
        assert_eq!((said.status, said.body.as_ref()), (422, b"because".as_ref()));
    });
}

#[test]
fn a_maintenance_page_is_no_success() {
    local(async {
        let rules = "success = 'response.status == 200 && response.body.ok == true'\n\
                     max_attempts = 3";
        let mut rig = Rig::new(&orders(rules)).await;
        let asked = Rc::new(Cell::new(0));
        rig.app.behave(move |seen| {
            asked.set(asked.get() + 1);
            match (seen.body.as_str(), asked.get()) {
                ("page", _) => Reply::status(200).body("<h1>Back soon</h1>"),
                (_, 1) => Reply::status(200).body("{\"ok\": false}"),
                _ => Reply::status(200).body("{\"ok\": true}"),
            }
        });
        let later = rig.orders(["later"]).await;
        rig.run();
        rig.all_complete(&later).await;
        assert_eq!(rig.app.seen().len(), 2);
        // To a page the rule cannot even be applied.
        let page = rig.orders(["page"]).await[0];
        let entry = rig.becomes(page, |entry| entry.state == State::Held).await;
        assert_eq!(entry.held, Some(HeldReason::Unclear));
    });
}

#[test]
fn an_app_that_is_not_there_costs_no_attempts() {
    local(async {
        let mut rig = Rig::new(&orders("max_attempts = 1")).await;
        let gone = rig.app.clone();
        gone.close().await;
        let seqs = rig.orders(["1"]).await;
        rig.run();
        let run = rig.waits_for("failed").await;
        assert_eq!(run.completed, 0);
        a_while().await;
        assert_eq!(rig.entry(seqs[0]).await.attempts, 0);
        gone.open().await;
        rig.all_complete(&seqs).await;
        assert_eq!(rig.app.bodies(), ["1"]);
    });
}

#[test]
fn entries_without_route_or_upstream_are_held() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        let no_route = rig.append(NewEntry { route: "gone".into(), ..order("1") }).await.seq();
        let moved = NewEntry { upstream: "old".into(), ..order("2") };
        let no_upstream = rig.append(moved).await.seq();
        let fine = rig.orders(["3"]).await;
        rig.run();
        for seq in [no_route, no_upstream] {
            let entry = rig.becomes(seq, |entry| entry.state == State::Held).await;
            assert_eq!(entry.held, Some(HeldReason::RouteGone));
        }
        rig.all_complete(&fine).await;
        assert_eq!(rig.app.bodies(), ["3"]);
    });
}

#[test]
fn a_drain_ends_what_is_in_flight_and_gives_the_rest_back() {
    local(async {
        let mut rig = Rig::new(&orders("pace = 1")).await;
        rig.app.behave(|_| Reply::status(201).after(Duration::from_millis(200)));
        let seqs = rig.orders(["1", "2"]).await;
        rig.run();
        eventually(|| if rig.app.seen().is_empty() { Err(()) } else { Ok(()) }).await;
        rig.drain().await;
        assert_eq!(rig.entry(seqs[0]).await.outcome, Some(Outcome::Completed));
        assert_eq!(rig.entry(seqs[1]).await.state, State::Stored);
        let ended = rig.replay.runs().remove(0);
        assert_eq!(ended.state, RunState::Stopped("standin ended".into()));

        // The next replayer shows that run, and goes on by itself.
        rig.run();
        rig.all_complete(&seqs).await;
        assert!(rig.replay.runs().iter().any(|run| run.id == ended.id));
        assert_eq!(rig.app.bodies(), ["1", "2"]);
    });
}

#[test]
fn whoever_decides_first_wins_and_the_other_is_history() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        rig.app.behave(|_| Reply::status(201).after(Duration::from_millis(200)));
        let durable = rig.append(order("1")).await;
        rig.run();
        let seq = durable.seq();
        eventually(|| if rig.app.seen().is_empty() { Err(()) } else { Ok(()) }).await;
        let answer = rig.entry(seq).await.answer;
        let late = rig.store.close_late(&durable, Outcome::Declined, "late", answer).await;
        assert!(late.is_err(), "it is being sent: the late answer is history only");
        rig.all_complete(&[seq]).await;
        assert_eq!(rig.app.seen().len(), 1);
    });
}

#[test]
fn a_flood_of_entries_and_runs_ends_with_each_sent_once() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        rig.run();
        let mut seqs: Vec<Seq> = Vec::new();
        for number in 0..200_u32 {
            let sequence = (number % 3 == 0).then(|| Digest(u128::from(number % 7) + 5000));
            let entry = NewEntry { sequence, ..order(&number.to_string()) };
            seqs.push(rig.append(entry).await.seq());
            if number % 20 == 0 {
                rig.replay.start(of_route("orders"), "ann", "now");
            }
        }
        rig.all_complete(&seqs).await;
        let mut bodies = rig.app.bodies();
        assert_eq!(bodies.len(), 200);
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 200);
    });
}

/// The bound is the same on any machine: one that is slow only begins fewer.
#[test]
fn captures_come_first_and_replays_go_on_beside_them() {
    const AT_ONCE: u32 = 10;
    local(async {
        let mut rig = Rig::new(&orders("pace = 10\ntrigger = \"manual\"")).await;
        let mut seqs = Vec::new();
        for number in 0..400 {
            seqs.push(rig.append(order(&number.to_string())).await.seq());
        }
        assert_eq!(rig.store.taken(), 400, "what it counts");
        rig.run();
        rig.seems_to_take(1_000_000_000).await;
        let start = tokio::time::Instant::now();
        rig.replay.start(of_route("orders"), "ann", "now");
        let wanted = 60;
        eventually(|| Some(()).filter(|()| rig.app.seen().len() >= wanted).ok_or(())).await;
        for (place, seen) in rig.app.seen().iter().enumerate() {
            let at_most = LEAST.mul_add((seen.at - start).as_secs_f64(), f64::from(AT_ONCE));
            assert!((place as f64) < at_most, "{place} replays in {:?}", seen.at - start);
        }
        rig.seems_to_take(0).await;
        rig.all_complete(&seqs).await;
    });
}
