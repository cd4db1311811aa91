//! The turns are uniform whatever comes, goes and rests; held against a plain count of who could have been taken.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::{
    super::{proxy::Credentials, sessions::Sessions},
    *,
};
use crate::egress::member::Standing;

fn ring() -> Ring {
    Ring::new(Sessions::new(1000, Duration::from_secs(600)))
}

fn proxy(name: &str, only_for: &[&str]) -> Proxy {
    let only_for: Vec<String> = only_for.iter().map(|route| (*route).to_owned()).collect();
    Proxy::parse(&format!("http://10.0.0.9:3128#{name}"), &Credentials::default(), &only_for)
        .unwrap()
}

fn listed(name: &str) -> Listed {
    Listed { proxy: proxy(name, &[]), draining: false }
}

fn said() -> Said {
    Said::standin("test")
}

fn rule(route: &str, only: &[&str], deny: &[&str]) -> Rule {
    let list = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    Rule { route: Some(route.into()), only: list(only), deny: list(deny) }
}

fn names(ring: &mut Ring, rule: RuleId, turns: usize, now: Instant) -> Vec<String> {
    (0..turns).map(|_| ring.take(rule, None, &[], now).unwrap().proxy.name.to_string()).collect()
}

#[test]
fn in_turn_and_a_newcomer_catches_nothing_up() {
    let (mut ring, now) = (ring(), Instant::now());
    let rule = ring.rule(Rule::default());
    for name in ["a", "b", "c"] {
        ring.add(proxy(name, &[]), Origin::Configured);
    }
    assert_eq!(names(&mut ring, rule, 5, now), ["a", "b", "c", "a", "b"]);
    ring.add(proxy("d", &[]), Origin::Added);
    assert_eq!(names(&mut ring, rule, 6, now), ["c", "d", "a", "b", "c", "d"]);
    ring.retire("a", said(), true);
    assert_eq!(names(&mut ring, rule, 4, now), ["b", "c", "d", "b"]);
}

#[test]
fn who_rests_loses_its_turns_and_catches_nothing_up() {
    let (mut ring, mut now) = (ring(), Instant::now());
    let rule = ring.rule(Rule::default());
    for name in ["a", "b", "c"] {
        ring.add(proxy(name, &[]), Origin::Configured);
    }
    ring.named("b").unwrap().cool(Duration::from_secs(10), said(), now);
    assert_eq!(names(&mut ring, rule, 4, now), ["a", "c", "a", "c"]);
    now += Duration::from_secs(10);
    assert_eq!(names(&mut ring, rule, 4, now), ["a", "b", "c", "a"]);
}

#[test]
fn a_session_stays_and_only_its_first_request_is_a_turn() {
    let (mut ring, now) = (ring(), Instant::now());
    let rule = ring.rule(Rule::default());
    for name in ["a", "b", "c"] {
        ring.add(proxy(name, &[]), Origin::Configured);
    }
    let take = |ring: &mut Ring, key: u128, now| {
        ring.take(rule, Some(SessionKey(key)), &[], now).unwrap().proxy.name.to_string()
    };
    for _ in 0..3 {
        assert_eq!([1, 2, 1].map(|key| take(&mut ring, key, now)), ["a", "b", "a"]);
    }
    // Draining finishes its sessions and takes no new one.
    ring.named("a").unwrap().draining = Some(said());
    assert_eq!([1, 3, 4, 5, 1].map(|key| take(&mut ring, key, now)), ["a", "c", "b", "c", "a"]);
    // Cooling ends them, and so does being retired.
    ring.named("b").unwrap().cool(Duration::from_secs(10), said(), now);
    assert_eq!([2, 2].map(|key| take(&mut ring, key, now)), ["c", "c"]);
    ring.retire("a", said(), false);
    assert_eq!(take(&mut ring, 1, now), "c");
    // Idle for too long: another one's turn.
    let later = now + Duration::from_secs(600);
    assert_eq!(take(&mut ring, 2, later), "b");
}

#[test]
fn a_job_that_tried_one_gets_another_and_then_none() {
    let (mut ring, now) = (ring(), Instant::now());
    let rule = ring.rule(Rule::default());
    ring.add(proxy("a", &[]), Origin::Configured);
    ring.add(proxy("b", &[]), Origin::Configured);
    let a = ring.take(rule, Some(SessionKey(1)), &[], now).unwrap();
    let b = ring.take(rule, Some(SessionKey(1)), &[a.id], now).unwrap();
    assert_eq!((&*a.proxy.name, &*b.proxy.name), ("a", "b"));
    // The session goes on with the one that did it.
    assert_eq!(ring.take(rule, Some(SessionKey(1)), &[], now).unwrap().id, b.id);
    assert_eq!(ring.take(rule, None, &[a.id, b.id], now).unwrap_err(), NoneFree { until: None });
    for name in ["a", "b"] {
        ring.named(name).unwrap().cool(Duration::from_secs(10), said(), now);
    }
    let until = Some(now + Duration::from_secs(10));
    assert_eq!(ring.take(rule, None, &[], now).unwrap_err(), NoneFree { until });
}

#[test]
fn a_member_that_came_back_is_another() {
    let (mut ring, now) = (ring(), Instant::now());
    let rule = ring.rule(Rule::default());
    ring.add(proxy("a", &[]), Origin::Source);
    let first = ring.take(rule, Some(SessionKey(1)), &[], now).unwrap();
    ring.sync(vec![listed("b")], &said());
    assert!(!ring.is_member(first.id));
    let synced = ring.sync(vec![listed("a"), listed("b")], &said());
    assert_eq!(synced.added, ["a".into()]);
    let second = ring.named("a").unwrap().id;
    assert!(second != first.id && !ring.is_member(first.id));
    assert_eq!(ring.named("a").unwrap().standing(now), Standing::Active);
}

#[test]
fn what_a_person_retired_no_list_brings_back() {
    let mut ring = ring();
    ring.sync(vec![listed("a"), listed("b")], &said());
    ring.retire("a", said(), true);
    for _ in 0..2 {
        let synced = ring.sync(vec![listed("a"), listed("b")], &said());
        assert_eq!((synced.added.len(), &*synced.barred), (0, &["a".into()][..]));
    }
    ring.sync(vec![listed("b")], &said());
    ring.sync(vec![listed("a"), listed("b")], &said());
    assert!(ring.named("a").is_none());
    // A person may.
    ring.add(proxy("a", &[]), Origin::Added);
    let synced = ring.sync(vec![listed("b")], &said());
    assert!(
        synced.retired.is_empty() && ring.named("a").is_some(),
        "no list retires what a person added"
    );
}

#[test]
fn the_list_drains_and_a_persons_word_stays() {
    let (mut ring, now) = (ring(), Instant::now());
    let draining = || vec![Listed { draining: true, ..listed("a") }, listed("b")];
    ring.sync(draining(), &said());
    assert_eq!(ring.named("a").unwrap().standing(now), Standing::Draining);
    ring.named("a").unwrap().activate();
    assert_eq!(ring.sync(draining(), &said()), Synced::default());
    assert_eq!(ring.named("a").unwrap().standing(now), Standing::Active);
    ring.sync(vec![listed("a"), listed("b")], &said());
    ring.sync(draining(), &said());
    assert_eq!(ring.named("a").unwrap().standing(now), Standing::Draining);
}

#[test]
fn a_list_moves_changes_and_retires() {
    let mut ring = ring();
    ring.add(proxy("ours", &[]), Origin::Configured);
    ring.sync(vec![listed("a"), listed("b"), listed("ours")], &said());
    let (a, b) = (ring.named("a").unwrap().id, ring.named("b").unwrap().id);
    let moved = Proxy::parse("http://10.0.0.10:3128#a", &Credentials::default(), &[]).unwrap();
    let other =
        Proxy::parse("http://u:p@10.0.0.9:3128#b", &Credentials::default(), &["x".into()]).unwrap();
    let list = [moved, other.clone()].map(|proxy| Listed { proxy, draining: false });
    let synced = ring.sync(list.into(), &said());
    assert_eq!((&*synced.added, &*synced.changed), (&["a".into()][..], &["b".into()][..]));
    assert_ne!(ring.named("a").unwrap().id, a, "another place is another proxy");
    assert_eq!(ring.named("b").unwrap().id, b, "other credentials are the same one");
    assert_eq!(*ring.named("b").unwrap().proxy, other);
    assert!(ring.named("ours").is_some(), "what is configured is not the list's to retire");
}

/// What happens to a pool.
#[derive(Clone, Debug)]
enum Step {
    Take { rule: usize, session: Option<u128> },
    Add(u8),
    Retire(u8),
    Drain(u8),
    Activate(u8),
    Cool(u8, u64),
    Pass(u64),
    Sync(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..8_u8;
    prop_oneof![
        30 => (0..4_usize).prop_map(|rule| Step::Take { rule, session: None }),
        8 => (0..4_usize, 0..5_u128).prop_map(|(rule, key)| Step::Take { rule, session: Some(key) }),
        1 => name.clone().prop_map(Step::Add),
        1 => name.clone().prop_map(Step::Retire),
        1 => name.clone().prop_map(Step::Drain),
        1 => name.clone().prop_map(Step::Activate),
        1 => (name.clone(), 1..20_u64).prop_map(|(name, time)| Step::Cool(name, time)),
        1 => (1..20_u64).prop_map(Step::Pass),
        1 => proptest::collection::vec(name, 1..5).prop_map(Step::Sync),
    ]
}

/// Turns since two members could both be taken all the while by a group: how far apart, and which way.
#[derive(Default)]
struct Apart(HashMap<(Group, MemberId, MemberId), i64>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// For any two proxies and any stretch in which both could be taken by the jobs of a group: their turns differ by
    /// at most one. Retired ones get none, draining ones only their sessions, and a session sees one proxy as long as
    /// it may be used.
    #[test]
    fn turns_differ_by_at_most_one(steps in proptest::collection::vec(step(), 1..300)) {
        let (mut ring, mut now) = (ring(), Instant::now());
        for name in 0..5_u8 {
            ring.add(proxy(&format!("p{name}"), if name == 4 { &["r3"] } else { &[] }), Origin::Configured);
        }
        let rules = [
            ring.rule(rule("r0", &[], &[])),
            ring.rule(rule("r1", &[], &["p1", "p2"])),
            ring.rule(rule("r2", &["p0", "p2", "p3", "p5"], &[])),
            ring.rule(rule("r3", &[], &[])),
        ];
        let mut apart = Apart::default();
        let mut gone: Vec<MemberId> = Vec::new();
        let mut bound: HashMap<(Group, u128), MemberId> = HashMap::new();
        for step in steps {
            let before: Vec<MemberId> = ring.members().iter().map(|member| member.id).collect();
            match step {
                Step::Take { rule, session } => {
                    let rule = rules[rule];
                    let group = ring.rules.group(rule);
                    let could: Vec<MemberId> = ring.members().iter()
                        .filter(|member| member.takes_new(now) && member.allows[rule.0])
                        .map(|member| member.id).collect();
                    let expected = session.and_then(|key| bound.get(&(group, key)).copied())
                        .filter(|id| ring.members().iter().any(|member| {
                            member.id == *id && member.goes_on(now) && member.allows[rule.0]
                        }))
                        .filter(|_| session.is_some_and(|key| {
                            ring.sessions.member(group, SessionKey(key), now).is_some()
                        }));
                    match ring.take(rule, session.map(SessionKey), &[], now) {
                        Err(_) => prop_assert!(could.is_empty() && expected.is_none()),
                        Ok(turn) => {
                            prop_assert!(!gone.contains(&turn.id), "a retired proxy was used");
                            if let Some(key) = session {
                                bound.insert((group, key), turn.id);
                            }
                            if let Some(expected) = expected {
                                prop_assert_eq!(turn.id, expected, "a session changed its proxy");
                                continue; // no turn
                            }
                            prop_assert!(could.contains(&turn.id));
                            for other in could.iter().copied().filter(|other| *other != turn.id) {
                                let (low, high) = (turn.id.min(other), turn.id.max(other));
                                let way = if turn.id == low { 1 } else { -1 };
                                let last = apart.0.entry((group, low, high)).or_default();
                                // In any stretch: never two turns of one without one of the other.
                                prop_assert_ne!(*last, way, "two turns of one in a row");
                                *last = way;
                            }
                        }
                    }
                }
                Step::Add(name) => {
                    let name = format!("p{name}");
                    if ring.named(&name).is_none() {
                        ring.add(proxy(&name, &[]), Origin::Added);
                    }
                }
                Step::Retire(name) => ring.retire(&format!("p{name}"), said(), true),
                Step::Drain(name) => {
                    if let Some(member) = ring.named(&format!("p{name}")) {
                        member.draining = Some(said());
                    }
                }
                Step::Activate(name) => {
                    if let Some(member) = ring.named(&format!("p{name}")) {
                        member.activate();
                    }
                }
                Step::Cool(name, time) => {
                    if let Some(member) = ring.named(&format!("p{name}")) {
                        member.cool(Duration::from_secs(time), said(), now);
                    }
                }
                Step::Pass(time) => now += Duration::from_secs(time),
                Step::Sync(names) => {
                    let mut names = names;
                    names.sort_unstable();
                    names.dedup();
                    ring.sync(names.iter().map(|name| listed(&format!("p{name}"))).collect(), &said());
                }
            }
            let after: Vec<MemberId> = ring.members().iter().map(|member| member.id).collect();
            gone.extend(before.iter().filter(|id| !after.contains(id)));
            // A pair of which one could not be taken for a while begins anew, and so do groups that split or join.
            let groups: Vec<(Group, RuleId)> =
                rules.iter().map(|rule| (ring.rules.group(*rule), *rule)).collect();
            apart.0.retain(|(group, low, high), _| {
                [low, high].into_iter().all(|id| ring.members().iter().any(|member| {
                    member.id == *id && member.takes_new(now)
                        && groups.iter().any(|(of, rule)| of == group && member.allows[rule.0])
                }))
            });
        }
    }
}
