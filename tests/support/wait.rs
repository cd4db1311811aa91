//! Waiting for something to come true, without guessing how long it takes.

use std::time::Duration;

use tokio::time::Instant;

/// Asks `question` until its answer is good: `true`, `Some`, `Ok`. Fails the test with the last answer after `limit`.
#[track_caller]
pub fn eventually<T: Settled>(
    limit: Duration,
    mut question: impl AsyncFnMut() -> T,
) -> impl Future<Output = T::Value> {
    let asked_from = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        loop {
            match question().await.settled() {
                Ok(value) => return value,
                Err(last) if Instant::now() > deadline => {
                    panic!("{asked_from}: not within {limit:?}: {last}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// An answer that may not be there yet.
pub trait Settled {
    type Value;

    /// The value, or what to say when it never comes.
    fn settled(self) -> Result<Self::Value, String>;
}

impl Settled for bool {
    type Value = ();

    fn settled(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("still not true".to_owned()) }
    }
}

impl<T> Settled for Option<T> {
    type Value = T;

    fn settled(self) -> Result<T, String> {
        self.ok_or_else(|| "still nothing".to_owned())
    }
}

impl<T, E: std::fmt::Debug> Settled for Result<T, E> {
    type Value = T;

    fn settled(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}
