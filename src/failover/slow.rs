//! Warns of requests that take long: once for each threshold of their route, with what they wait for.
//!
//! Until the head of the answer, or the decision where its client has left. A route without thresholds has no timer.

use std::{future::Future, pin::pin, rc::Rc, sync::Arc, sync::atomic::Ordering};

use http::{HeaderName, Request};
use tokio::time::{Instant, sleep_until};

use crate::{
    config::units::write_duration,
    router::{Matched, Route},
    upstream::request_body::Progress,
};

/// One request of a route with thresholds.
pub(super) struct Slow {
    route: Arc<Route>,
    request_id: String,
    began: Instant,
}

impl Slow {
    /// None where nobody wants to know.
    pub(super) fn of<B>(
        matched: &Matched,
        request: &Request<B>,
        request_id: &HeaderName,
        began: Instant,
    ) -> Option<Self> {
        let route = matched.route.as_ref().filter(|route| !route.slow.is_empty())?;
        let id = request.headers().get(request_id).and_then(|id| id.to_str().ok());
        Some(Self {
            route: Arc::clone(route),
            request_id: id.unwrap_or_default().to_owned(),
            began,
        })
    }

    /// The same future, watched.
    pub(super) async fn watch<T>(
        self,
        progress: Rc<Progress>,
        future: impl Future<Output = T>,
    ) -> T {
        let mut future = pin!(future);
        for threshold in &self.route.slow {
            tokio::select! {
                biased;
                done = &mut future => return done,
                () = sleep_until(self.began + threshold.after) => {}
            }
            threshold.passed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                route = &*self.route.name,
                request_id = self.request_id,
                threshold = write_duration(threshold.after),
                milliseconds = self.began.elapsed().as_millis(),
                waits_for = progress.waited_for(),
                "a slow request"
            );
        }
        future.await
    }
}
