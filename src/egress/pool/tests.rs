//! Many threads, one pool: uniform, exclusive, and nothing after removal.

use std::{
    collections::HashMap,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
};

use super::*;
use crate::config::EgressProxy;

fn config(proxies: &[&str]) -> EgressConfig {
    let url = |name: &&str| {
        EgressProxy::Url(crate::config::ProxyUrl(format!("http://u:hunter2@10.0.0.9:3128#{name}")))
    };
    EgressConfig { proxies: proxies.iter().map(url).collect(), ..EgressConfig::default() }
}

fn pool(proxies: &[&str]) -> Arc<Pool> {
    Pool::new("ways", &config(proxies)).unwrap()
}

/// Runs `work` on so many threads at once.
fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread);
            });
        }
    });
}

#[test]
fn ten_thousand_jobs_of_many_threads_use_five_proxies_alike() {
    let pool = pool(&["a", "b", "c", "d", "e"]);
    let job = pool.job(Rule::default());
    let counts: Mutex<HashMap<String, u64>> = Mutex::default();
    on_threads(8, |_| {
        for _ in 0..1251 {
            let permit = pool.permit(job, &[]).unwrap();
            *counts.lock().unwrap().entry(permit.proxy.name.to_string()).or_default() += 1;
        }
    });
    let counts: Vec<u64> = counts.into_inner().unwrap().into_values().collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (5, 8 * 1251));
    assert!(most - least <= 1, "{counts:?}");
}

/// One is removed and one added while jobs run; each job is a session of several requests.
#[test]
fn a_job_sees_one_proxy_and_none_is_used_after_its_removal() {
    const JOBS: usize = 10_000;
    const REMOVED: usize = JOBS / 3;
    const ADDED: usize = JOBS * 2 / 3;
    const SOME: usize = 1000;
    let pool = pool(&["a", "b", "c", "d", "e"]);
    let rule = pool.job(Rule::default());
    let (next, removed_at) = (AtomicUsize::new(0), AtomicU64::new(u64::MAX));
    let clock = AtomicU64::new(0);
    // The order of the turns is that of the lock: noted under it, by a number that the proxy itself counts.
    let used: Mutex<Vec<(usize, String, u64)>> = Mutex::default();
    // However late a thread gets its turn: jobs are under way when either happens, and many begin after it.
    let (removed, added) = (AtomicBool::new(false), AtomicBool::new(false));
    let wait_for = |done: &AtomicBool| {
        while !done.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    };
    on_threads(8, |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            match number {
                JOBS.. => return,
                REMOVED => {
                    pool.ring().retire("c", Said::standin("test"), true);
                    removed_at.store(clock.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    removed.store(true, Ordering::SeqCst);
                }
                ADDED => {
                    let f = Proxy::parse("http://10.0.0.9:3128#f", &Credentials::default(), &[]);
                    pool.ring().add(f.unwrap(), Origin::Added);
                    added.store(true, Ordering::SeqCst);
                }
                _ if number > ADDED + SOME => wait_for(&added),
                _ if number > REMOVED + SOME => wait_for(&removed),
                _ => {}
            }
            let job = Job { session: Some(SessionKey(number as u128)), ..rule };
            let mut seen: Option<Permit> = None;
            for _ in 0..3 {
                let begun = clock.fetch_add(1, Ordering::SeqCst);
                let permit = pool.permit(job, &[]).unwrap();
                if permit.is_valid() {
                    used.lock().unwrap().push((number, permit.proxy.name.to_string(), begun));
                }
                if let Some(before) = &seen
                    && before.is_valid()
                {
                    assert_eq!(before.through(), permit.through(), "a job saw two proxies");
                }
                seen = Some(permit);
            }
        }
    });
    let used = used.into_inner().unwrap();
    let removed_at = removed_at.load(Ordering::SeqCst);
    let late = used.iter().filter(|(_, name, begun)| name == "c" && *begun > removed_at);
    assert_eq!(late.count(), 0, "a removed proxy was used");
    let mut jobs: HashMap<&str, HashMap<usize, ()>> = HashMap::new();
    for (number, name, _) in &used {
        jobs.entry(name).or_default().insert(*number, ());
    }
    let of = |name: &str| jobs.get(name).map_or(0, HashMap::len);
    // Those that were there all the while have the same number; a job of the one that was removed took another's turn.
    let stayed = ["a", "b", "d", "e"].map(of);
    let (least, most) = (stayed.iter().min().unwrap(), stayed.iter().max().unwrap());
    assert!(most - least <= 1, "{stayed:?}");
    assert!(of("c") > 0 && of("f") > 0 && of("f") < *least, "{stayed:?} {} {}", of("c"), of("f"));
}

#[test]
fn a_permit_counts_while_it_lives_and_is_void_once_its_proxy_is_retired() {
    let pool = pool(&["a"]);
    let job = pool.job(Rule::default());
    let permit = pool.permit(job, &[]).unwrap();
    assert!(permit.is_valid());
    pool.ring().retire("a", Said::standin("test"), true);
    assert!(!permit.is_valid());
    assert_eq!(pool.permit(job, &[]).unwrap_err(), NoWayOut { retry_after: None });
    let in_flight = |pool: &Pool| pool.snapshot().proxies[0].in_flight;
    assert_eq!(in_flight(&pool), 1, "who retired it sees that one is still under way");
    // What the old stay comes to does not touch a new one.
    pool.ring().add(
        Proxy::parse("http://10.0.0.9:3128#a", &Credentials::default(), &[]).unwrap(),
        Origin::Added,
    );
    permit.failed("refused");
    permit.failed("refused");
    permit.answered(StatusCode::FORBIDDEN, &HeaderMap::new());
    assert!(!permit.is_valid() && pool.permit(job, &[]).unwrap().is_valid());
    drop(permit);
    assert_eq!(in_flight(&pool), 0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_within_the_bound() {
    let pool = pool(&["a"]);
    let job = pool.job(Rule::default());
    let rest = |status: u16, after: Option<&'static str>| {
        pool.ring().named("a").unwrap().activate();
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static(after));
        }
        let permit = pool.permit(job, &[]).unwrap();
        permit.answered(StatusCode::from_u16(status).unwrap(), &headers);
        pool.permit(job, &[]).err().map(|none| none.retry_after.unwrap().as_secs())
    };
    assert_eq!(rest(200, Some("9")), None);
    assert_eq!(rest(503, Some("9")), None, "not one of the statuses");
    assert_eq!(rest(429, Some("9")), Some(9));
    assert_eq!(rest(429, Some("999999")), Some(3600));
    assert_eq!(rest(403, None), Some(60));
    assert_eq!(rest(403, Some("soon")), Some(60));
}

#[test]
fn nothing_that_is_shown_shows_a_password() {
    let pool = pool(&["a"]);
    let shown = format!("{pool:?} {:?} {:?}", pool.config, pool.snapshot());
    assert!(!shown.contains("hunter2") && !shown.contains("dTpodW50"), "{shown}");
}
