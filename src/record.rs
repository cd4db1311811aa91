//! Failed exchanges that are kept for support: in memory, bounded in number, bytes, age and rate, redacted before.
//!
//! Nothing waits for them and nothing is decided by them. What finds no turn is dropped and counted.

mod redact;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

pub use self::redact::{Noted, Redacted};
use crate::{store::Certainty, time::UnixMillis};

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Records(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// More in one second than are kept.
    too_many: AtomicU64,
    /// Somebody else had the list in hand.
    busy: AtomicU64,
    /// Older ones that made room.
    pushed_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    all: VecDeque<Arc<Record>>,
    bytes: usize,
    last: u64,
    /// The second that goes on, and how many were let in during it.
    second: (i64, u32),
}

/// One failed exchange, without what must not be kept.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: u64,
    pub at: UnixMillis,
    pub route: Arc<str>,
    pub upstream: Arc<str>,
    pub request_id: String,
    pub took: Duration,
    /// What failed, in words.
    pub cause: String,
    pub certainty: Certainty,
    pub method: Method,
    pub request: Redacted,
    /// None: there was no answer.
    pub answer: Option<(StatusCode, Redacted)>,
}

/// The exchange as it was.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub route: &'a Arc<str>,
    pub upstream: &'a Arc<str>,
    pub request_id: &'a str,
    pub took: Duration,
    pub cause: String,
    pub certainty: Certainty,
    pub method: &'a Method,
    pub target: &'a Uri,
    pub headers: &'a HeaderMap,
    /// None: it was not there whole.
    pub body: Option<&'a Bytes>,
    pub answer: Option<(StatusCode, &'a HeaderMap, Option<&'a [u8]>)>,
}

/// Largest body that is kept, of a request and of an answer.
pub const LARGEST_BODY: usize = 16 << 10;
const MOST: usize = 200;
const MOST_BYTES: usize = 4 << 20;
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// In one second, over all routes.
const MOST_A_SECOND: u32 = 10;

impl Records {
    /// Keeps what may be kept of an exchange, if it is its turn.
    pub fn keep(&self, exchange: &Exchange<'_>) {
        let now = UnixMillis::now();
        if self.has_turn(now) {
            let record = exchange.redacted(now);
            self.put(record);
        }
    }

    /// The newest first, without those that are too old.
    pub fn all(&self) -> Vec<Arc<Record>> {
        let mut kept = lock(&self.0.kept);
        kept.forget_old(UnixMillis::now());
        kept.all.iter().rev().cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<Arc<Record>> {
        self.all().into_iter().find(|record| record.id == id)
    }

    /// Those that were not kept, or not for long: why, and how many.
    pub fn dropped(&self) -> [(&'static str, u64); 3] {
        let Shared { too_many, busy, pushed_out, .. } = &*self.0;
        [("too_many", too_many), ("busy", busy), ("pushed_out", pushed_out)]
            .map(|(why, count)| (why, count.load(Ordering::Relaxed)))
    }

    fn has_turn(&self, now: UnixMillis) -> bool {
        let Ok(mut kept) = self.0.kept.try_lock() else {
            self.0.busy.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let second = now.0 / 1000;
        if kept.second.0 != second {
            kept.second = (second, 0);
        }
        kept.second.1 = kept.second.1.saturating_add(1);
        let has_turn = kept.second.1 <= MOST_A_SECOND;
        if !has_turn {
            self.0.too_many.fetch_add(1, Ordering::Relaxed);
        }
        has_turn
    }

    fn put(&self, mut record: Record) {
        let Ok(mut kept) = self.0.kept.try_lock() else {
            self.0.busy.fetch_add(1, Ordering::Relaxed);
            return;
        };
        kept.last += 1;
        record.id = kept.last;
        kept.forget_old(record.at);
        kept.bytes += record.bytes();
        kept.all.push_back(Arc::new(record));
        while kept.all.len() > MOST || kept.bytes > MOST_BYTES {
            kept.forget_first();
            self.0.pushed_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Kept {
    fn forget_old(&mut self, now: UnixMillis) {
        while self.all.front().is_some_and(|record| now.since(record.at) >= OLDEST) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(record) = self.all.pop_front() {
            self.bytes = self.bytes.saturating_sub(record.bytes());
        }
    }
}

impl Exchange<'_> {
    fn redacted(&self, at: UnixMillis) -> Record {
        let (request, secrets) = redact::request(self.target, self.headers, self.body);
        let answer = self
            .answer
            .map(|(status, headers, body)| (status, redact::answer(headers, body, &secrets)));
        Record {
            id: 0,
            at,
            route: Arc::clone(self.route),
            upstream: Arc::clone(self.upstream),
            request_id: self.request_id.to_owned(),
            took: self.took,
            cause: self.cause.clone(),
            certainty: self.certainty,
            method: self.method.clone(),
            request,
            answer,
        }
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |(_, answer)| answer.bytes());
        512 + self.cause.len() + self.request_id.len() + self.request.bytes() + answer
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: i64, cause: usize) -> Record {
        let (route, upstream): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (headers, target) = (HeaderMap::new(), Uri::from_static("/"));
        let exchange = Exchange {
            route: &route,
            upstream: &upstream,
            request_id: "1",
            took: Duration::ZERO,
            cause: "x".repeat(cause),
            certainty: Certainty::SentUnknown,
            method: &Method::GET,
            target: &target,
            headers: &headers,
            body: None,
            answer: None,
        };
        exchange.redacted(UnixMillis(at))
    }

    #[test]
    fn it_is_bounded_in_number_bytes_and_age() {
        let records = Records::default();
        for at in 0..1000 {
            records.put(record(at, 10));
        }
        let kept = || {
            let kept = lock(&records.0.kept);
            (kept.all.len(), kept.bytes)
        };
        assert_eq!(kept().0, MOST);
        records.put(record(1000, 4 << 20));
        assert_eq!(kept(), (0, 0), "one that is larger than all may be has no room");
        for at in 0..10 {
            records.put(record(at, 1 << 20));
        }
        assert!(kept().0 == 3 && kept().1 <= MOST_BYTES);
        records.put(record(OLDEST.as_millis() as i64 + 8, 1));
        assert_eq!(kept().0, 2, "those of 0 to 8 are too old");
        assert_eq!(records.dropped()[2], ("pushed_out", 1000 - MOST as u64 + 201 + 7));
    }

    #[test]
    fn more_in_one_second_are_dropped_and_so_is_what_would_have_to_wait() {
        let records = Records::default();
        let turns = |at| (0..100).filter(|_| records.has_turn(UnixMillis(at))).count();
        assert_eq!((turns(1000), turns(1999), turns(2000)), (10, 0, 10));
        let in_hand = lock(&records.0.kept);
        assert!(!records.has_turn(UnixMillis(9000)));
        records.put(record(9000, 1));
        drop(in_hand);
        assert_eq!(records.dropped(), [("too_many", 280), ("busy", 2), ("pushed_out", 0)]);
    }
}
