//! One more look before giving up. When a process goes on that was stopped (a paused guest, SIGSTOP), its timers have run
//! out before it hears of what came in meanwhile: what is there then counts as having come in time.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

/// Asked once the time is over.
#[derive(Default)]
pub(super) struct LastLook(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl LastLook {
    /// False the first time; then the task is woken after the sockets were looked at, and it is true. Not to be asked
    /// again after that.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let turn = self.0.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
        turn.as_mut().poll(cx).is_ready()
    }
}

/// What `future` gives within `limit`, or at the last look.
pub async fn at_most<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Ok(output) = tokio::time::timeout(limit, future.as_mut()).await {
        return Some(output);
    }
    tokio::task::yield_now().await;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    // That the look is worth it is seen from outside, with a process that is really stopped: `tests/stops.rs`.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_beyond_the_last_look() {
        assert_eq!(at_most(Duration::from_secs(60), std::future::pending::<()>()).await, None);
        let mut look = LastLook::default();
        let mut looks = 0;
        poll_fn(|cx| {
            looks += 1;
            if look.is_over(cx) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(looks, 2);
    }
}
