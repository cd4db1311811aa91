//! Keeps a number of connections open to each endpoint, whether requests come or not: opened at the start, opened again
//! when they are gone. An endpoint that takes none is asked less and less often, and then only once a request has asked.
//! What is found says nothing to breaker or ejection.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Connections, balance::Lot, open::Opened};

/// Time between two looks at what is open.
const LOOK: Duration = Duration::from_millis(100);

impl Connections {
    /// Runs until dropped; ready at once where nothing is to be kept open.
    pub async fn keep_open(&self) {
        if self.upstream().config.connections.keep_open > 0 && self.upstream().egress.is_none() {
            let endpoints = 0..self.upstream().endpoints.len();
            join_all(endpoints.map(|endpoint| self.keep_endpoint_open(endpoint))).await;
        }
    }

    /// Each for itself: one that is gone does not hold up the others.
    async fn keep_endpoint_open(&self, endpoint: usize) {
        let wanted = self.upstream().config.connections.keep_open;
        let to = self.0.pool.to(endpoint);
        to.keep(wanted);
        let (mut backoff, mut opened, mut was_full) = (Backoff::default(), 0, false);
        loop {
            if to.open_now() >= wanted {
                // Seen twice: an app that takes connections and drops them is not well.
                if was_full {
                    (backoff, opened) = (Backoff::default(), 0);
                }
                was_full = true;
                sleep(LOOK).await;
                continue;
            }
            was_full = false;
            let asked = to.places.asked();
            if opened < wanted && self.open_for_later(endpoint).await {
                opened += 1;
                continue;
            }
            opened = 0;
            match backoff.next(&self.0.lot) {
                Some(wait) => sleep(wait).await,
                None => {
                    while to.places.asked() == asked {
                        sleep(LOOK).await;
                    }
                    backoff = Backoff::default();
                }
            }
        }
    }

    /// Whether there is one more now.
    async fn open_for_later(&self, endpoint: usize) -> bool {
        let to = self.0.pool.to(endpoint);
        let Some((place, opening)) = to.begin_opening() else { return false };
        let deadline = Instant::now() + self.upstream().config.connect_timeout;
        match self.open_one(endpoint, false, Some(place), opening, deadline).await {
            Ok(Opened::Http1(connection)) => {
                self.put_back(connection);
                true
            }
            Ok(Opened::Http2(_)) => true,
            Err(error) => {
                tracing::debug!(%error, "no connection to keep open");
                false
            }
        }
    }
}

/// Doubles from try to try, give or take a quarter, and ends.
#[derive(Debug, Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    /// How long to wait before the next try; none when it is for a request to make it.
    fn next(&mut self, lot: &Lot) -> Option<Duration> {
        let wait = FIRST.saturating_mul(1 << self.tries.min(10)).min(LONGEST);
        self.tries += 1;
        (self.tries <= TRIES).then(|| wait.mul_f64(0.75 + lot.part() / 2.0))
    }
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// Together about twelve seconds.
const TRIES: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_and_end() {
        let (lot, mut backoff) = (Lot::by_chance(), Backoff::default());
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(&lot)).collect();
        assert_eq!(waits.len(), TRIES as usize);
        assert!(waits[0] >= FIRST * 3 / 4 && waits[0] <= FIRST * 5 / 4, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST * 5 / 4), "{waits:?}");
        assert!(waits.windows(2).all(|two| two[1] > two[0]), "{waits:?}");
        let sum: Duration = waits.iter().sum();
        assert!(sum > Duration::from_secs(7) && sum < Duration::from_secs(15), "{sum:?}");
        assert_eq!(backoff.next(&lot), None);
    }
}
