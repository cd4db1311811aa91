//! One try under a deadline, told to the breaker; and one that can be waited for after its deadline.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use super::{
    AnswerBody, Connections, Upstream, UpstreamError,
    request_body::{Progress, RequestBody},
};

type Answer = Result<Response<AnswerBody>, UpstreamError>;

/// A try on a stand-in route. After a timeout it is still under way, and may be waited for again.
pub struct Attempt {
    exchange: Pin<Box<dyn Future<Output = Answer>>>,
    progress: Rc<Progress>,
    timeout: Duration,
    upstream: Arc<Upstream>,
    verdict: Verdict,
}

impl Attempt {
    pub(super) fn start(
        connections: Connections,
        request: Request<RequestBody>,
        progress: Rc<Progress>,
        timeout: Duration,
    ) -> Result<Self, UpstreamError> {
        let upstream = Arc::clone(connections.upstream());
        let verdict = Verdict::admitted(&upstream)?;
        let of_body = Rc::clone(&progress);
        let exchange = Box::pin(async move { connections.send(request, &of_body).await });
        Ok(Self { exchange, progress, timeout, upstream, verdict })
    }

    /// The app's answer, or why there is none in time. After `Timeout` the exchange goes on with [`Attempt::late`].
    pub async fn answer(&mut self) -> Answer {
        let result =
            within(self.exchange.as_mut(), &self.progress, self.timeout, &self.upstream).await;
        self.verdict.tell(&result);
        result
    }

    /// Whether an answer has come in meanwhile; polls once.
    pub async fn answered_meanwhile(&mut self) -> Option<Answer> {
        poll_fn(|cx| match self.exchange.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// The answer after the deadline, whole and at most `limit` bytes of it.
    pub async fn late(
        self,
        limit: usize,
        connections: &Connections,
    ) -> Result<super::WholeAnswer, UpstreamError> {
        let answer = self.exchange.await?;
        connections.read_whole(answer, limit).await
    }
}

/// Waits for the answer: `timeout` from the request fully sent; before that the app must go on taking it. A client that
/// is slow to say it is no fault of the app: how long it may pause is the listener's to say.
pub(super) async fn within<T, F>(
    mut exchange: Pin<&mut F>,
    progress: &Progress,
    timeout: Duration,
    upstream: &Upstream,
) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, UpstreamError>> + ?Sized,
{
    let stall = upstream.config.body_idle;
    let mut sent = progress.is_sent();
    let mut frames = progress.frames();
    let mut timer = pin!(tokio::time::sleep(if sent { timeout } else { stall.max(timeout) }));
    poll_fn(|cx| {
        if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if !sent && progress.is_sent() {
            sent = true;
            timer.as_mut().reset(Instant::now() + timeout);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let moved = frames != progress.frames() || progress.waits_for_client();
            if sent || !moved {
                let endpoint = upstream.name.to_string();
                let limit = if sent { timeout } else { stall.max(timeout) };
                return Poll::Ready(Err(UpstreamError::Timeout { endpoint, limit }));
            }
            frames = progress.frames();
            timer.as_mut().reset(Instant::now() + stall.max(timeout));
        }
        Poll::Pending
    })
    .await
}

/// Tells the breaker how one admitted try went; one that ends unsaid (its client left) says nothing about the app.
pub(super) struct Verdict {
    upstream: Arc<Upstream>,
    trial: bool,
    told: bool,
}

impl Verdict {
    pub(super) fn admitted(upstream: &Arc<Upstream>) -> Result<Self, UpstreamError> {
        Ok(Self { trial: upstream.admit()?, upstream: Arc::clone(upstream), told: false })
    }

    pub(super) fn tell(&mut self, answer: &Answer) {
        self.tell_status(answer.as_ref().map(Response::status));
    }

    pub(super) fn tell_status(&mut self, answer: Result<StatusCode, &UpstreamError>) {
        self.told = true;
        match answer {
            // A gateway in front of the app says that the app is not there; a 500 is the app's own.
            Ok(
                StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT,
            ) => {
                self.upstream.failed("it answers 502, 503 or 504", self.trial);
            }
            Ok(_) => self.upstream.answered(),
            Err(error) if error.reason().is_some() => {
                self.upstream.failed(&error.to_string(), self.trial)
            }
            Err(_) => self.told = false,
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        if self.trial && !self.told {
            self.upstream.breaker.trial_void();
        }
    }
}
