//! The choice over time: a simulation with a clock of its own, and what shares do when endpoints are slow, fail and come
//! back.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::*;
use crate::config::Balance;

fn config(balance: Balance) -> UpstreamConfig {
    UpstreamConfig { balance, ..UpstreamConfig::default() }
}

fn endpoints(count: usize) -> Endpoints {
    let urls: Vec<String> = (1..=count).map(|n| format!("http://10.0.0.{n}:80")).collect();
    Endpoints::new(&urls)
}

fn eject(endpoints: &Endpoints, config: &UpstreamConfig, at: usize) {
    let chosen = Chosen { endpoint: at, trial: None };
    for _ in 0..config.ejection.failures {
        endpoints.failed(config, chosen, Instant::now(), "refused");
    }
}

/// How many of `draws` each gets, while nobody answers.
fn draws(endpoints: &Endpoints, config: &UpstreamConfig, draws: usize) -> Vec<usize> {
    let (lot, mut shares) = (Lot::new(3), vec![0; endpoints.len()]);
    for _ in 0..draws {
        shares[endpoints.choose(config, &Set::default(), &lot).unwrap().endpoint] += 1;
    }
    shares
}

/// Requests come evenly, `per_second`; endpoint `n` takes `takes[n]` for each. The share of each, and all latencies.
async fn simulate(
    balance: Balance,
    takes: &[Duration],
    per_second: u32,
    requests: u32,
) -> (Vec<usize>, Vec<Duration>) {
    let (config, endpoints, lot) = (config(balance), endpoints(takes.len()), Lot::new(11));
    let (mut shares, mut latencies) = (vec![0; takes.len()], Vec::new());
    let mut ends: BinaryHeap<Reverse<(Instant, Instant, usize)>> = BinaryHeap::new();
    let start = Instant::now();
    for request in 0..requests {
        let comes = start + Duration::from_secs(1) * request / per_second;
        while let Some(Reverse((ended, began, at))) = ends.peek().copied()
            && ended <= comes
        {
            ends.pop();
            tokio::time::advance(ended.saturating_duration_since(Instant::now())).await;
            endpoints.answered(&config, at, began);
            endpoints.end(at);
        }
        tokio::time::advance(comes.saturating_duration_since(Instant::now())).await;
        let at = endpoints.choose(&config, &Set::default(), &lot).unwrap().endpoint;
        endpoints.begin(at);
        shares[at] += 1;
        latencies.push(takes[at]);
        ends.push(Reverse((comes + takes[at], comes, at)));
    }
    latencies.sort_unstable();
    (shares, latencies)
}

fn p99(latencies: &[Duration]) -> Duration {
    latencies[latencies.len() * 99 / 100]
}

#[test]
fn an_endpoint_without_port_is_port_80() {
    assert_eq!(Endpoint::parse("http://shop").authority, "shop:80");
    assert_eq!(Endpoint::parse("http://[::1]").authority, "[::1]:80");
    assert_eq!(Endpoint::parse("http://shop:3000/").authority, "shop:3000");
    assert!(!Endpoint::parse("http://[::1]:80").named);
    let named = Endpoint::parse("http://shop:3000");
    assert_eq!((named.host(), named.port(), named.named), ("shop", 3000, true));
}

#[test]
fn round_robin_takes_turns() {
    assert_eq!(draws(&endpoints(3), &config(Balance::RoundRobin), 300), [100, 100, 100]);
}

/// One endpoint ten times slower than the others, in one run of simulated time.
#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_less_than_a_third_of_an_equal_share() {
    let takes = [5, 5, 50].map(Duration::from_millis);
    for per_second in [50, 500, 2000] {
        let (shares, least) = simulate(Balance::LeastLoaded, &takes, per_second, 20_000).await;
        assert!(shares[2] < 20_000 / 3 / 3, "at {per_second}/s: {shares:?}");
        assert!(shares[0].abs_diff(shares[1]) < 2_000, "at {per_second}/s: {shares:?}");
        let (turns, robin) = simulate(Balance::RoundRobin, &takes, per_second, 20_000).await;
        assert!(turns[2].abs_diff(20_000 / 3) < 10, "{turns:?}");
        assert!(p99(&least) < p99(&robin), "{:?} {:?}", p99(&least), p99(&robin));
    }
}

#[tokio::test(start_paused = true)]
async fn equals_get_equal_shares() {
    let takes = [Duration::from_millis(5); 4];
    let (shares, _) = simulate(Balance::LeastLoaded, &takes, 1000, 20_000).await;
    assert!(shares.iter().all(|share| share.abs_diff(5_000) < 1_000), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_gets_nothing_then_one_trial_then_its_share_slowly() {
    for balance in [Balance::LeastLoaded, Balance::RoundRobin] {
        let (config, endpoints, lot) = (config(balance), endpoints(3), Lot::new(5));
        eject(&endpoints, &config, 1);
        assert_eq!(draws(&endpoints, &config, 500)[1], 0);
        tokio::time::advance(config.ejection.time * 2).await;
        let trial = endpoints.choose(&config, &Set::default(), &lot).unwrap();
        assert_eq!((trial.endpoint, trial.trial.is_some()), (1, true));
        assert_eq!(draws(&endpoints, &config, 500)[1], 0, "one trial at a time");
        assert_eq!(endpoints.answered(&config, 1, Instant::now()), Some(Turn::Back));
        let first = draws(&endpoints, &config, 3000)[1];
        assert!((1..600).contains(&first), "{balance:?}: {first}");
        tokio::time::advance(config.slow_start).await;
        let full = draws(&endpoints, &config, 3000)[1];
        assert!(full > 900, "{balance:?}: {full}");
        assert_eq!(endpoints.unsettled.load(Ordering::Relaxed), 0, "nothing is left to ask");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_fails_or_says_nothing() {
    let (config, endpoints, lot) = (config(Balance::LeastLoaded), endpoints(2), Lot::new(5));
    eject(&endpoints, &config, 0);
    endpoints.asked(&config, 0, true);
    let began = Instant::now();
    let trial = endpoints.choose(&config, &Set::default(), &lot).unwrap();
    endpoints.void(&config, trial, began);
    let again = endpoints.choose(&config, &Set::default(), &lot).unwrap();
    assert!(again.trial.is_some() && again != trial);
    assert_eq!(endpoints.failed(&config, again, began, "reset"), Some(Turn::Ejected));
    assert_eq!(endpoints.outside(&config), [0]);
}

#[test]
fn with_fewer_left_than_must_remain_ejections_are_ignored() {
    let (config, endpoints) = (config(Balance::RoundRobin), endpoints(4));
    eject(&endpoints, &config, 0);
    eject(&endpoints, &config, 1);
    assert_eq!(draws(&endpoints, &config, 100), [0, 0, 50, 50], "half remain");
    eject(&endpoints, &config, 2);
    assert_eq!(draws(&endpoints, &config, 100), [25; 4], "a quarter is too few");
}

#[test]
fn what_was_not_sent_asks_one_that_is_out_before_it_gives_up() {
    let (config, endpoints, lot) = (config(Balance::LeastLoaded), endpoints(2), Lot::new(5));
    eject(&endpoints, &config, 0);
    let tried = Set::default().with(1);
    assert_eq!(endpoints.choose(&config, &tried, &lot).unwrap().endpoint, 0);
    assert_eq!(endpoints.choose(&config, &tried.with(0), &lot), None);
}

#[test]
fn the_only_endpoint_is_taken_whatever_it_did_and_once() {
    let (config, endpoints, lot) = (config(Balance::LeastLoaded), endpoints(1), Lot::new(5));
    let only = Chosen { endpoint: 0, trial: None };
    assert_eq!(endpoints.choose(&config, &Set::default(), &lot), Some(only));
    assert_eq!(endpoints.choose(&config, &Set::default().with(0), &lot), None);
}

#[tokio::test(start_paused = true)]
async fn whether_another_has_answered_meanwhile() {
    let (config, endpoints) = (config(Balance::LeastLoaded), endpoints(2));
    tokio::time::advance(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert!(!endpoints.another_answered(0, began));
    tokio::time::advance(Duration::from_millis(1)).await;
    endpoints.answered(&config, 1, began);
    assert!(endpoints.another_answered(0, began));
    assert!(!endpoints.another_answered(1, began), "its own answers are no other's");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!endpoints.another_answered(0, Instant::now()));
}
