//! One try under a deadline, told to the breaker; and one that can be waited for after its deadline.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, Sleep};

use super::{
    AnswerBody, Asking, Connections, RouteBreaker, Upstream, UpstreamError, in_flight,
    last_look::LastLook,
    request_body::{Progress, RequestBody},
    route_breaker::{Failure, Trials},
    tries::Resend,
};
use crate::turn;

type Answer = Result<Response<AnswerBody>, UpstreamError>;

/// A try on a stand-in route. After a timeout it is still under way, and may be waited for again.
pub struct Attempt {
    exchange: Pin<Box<dyn Future<Output = Answer>>>,
    progress: Rc<Progress>,
    timeout: Duration,
    verdict: Verdict<Own>,
}

impl Attempt {
    pub(super) fn start(
        connections: Connections,
        request: impl FnOnce() -> Request<RequestBody>,
        progress: Rc<Progress>,
        asking: Asking<'_>,
    ) -> Result<Self, UpstreamError> {
        let timeout = asking.timeout;
        let own = Own(connections.clone(), Arc::clone(asking.route));
        let verdict = Verdict::admitted(own)?;
        let mut request = Some(request());
        let of_body = Rc::clone(&progress);
        let exchange =
            Box::pin(
                async move { connections.send(&mut request, &of_body, Resend::Idempotent).await },
            );
        Ok(Self { exchange, progress, timeout, verdict })
    }

    /// The app's answer, or why there is none in time. After `Timeout` the exchange goes on with [`Attempt::late`].
    pub async fn answer(&mut self) -> Answer {
        let home = &self.verdict.of.0;
        let result = within(self.exchange.as_mut(), &self.progress, self.timeout, home).await;
        self.verdict.tell(&result, &self.progress);
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
    home: &Connections,
) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, UpstreamError>> + ?Sized,
{
    let stall = home.upstream().config.body_idle.max(timeout);
    let mut sent = false;
    let mut frames = progress.frames();
    let mut timer = None;
    let mut last_look = LastLook::default();
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let limit = if progress.is_sent() { timeout } else { stall };
        let timer = match &mut timer {
            None => timer.insert(home.timers().until(turn::now() + limit)),
            Some(timer) if !sent && progress.is_sent() => {
                timer.as_mut().reset(turn::now() + limit);
                timer
            }
            Some(timer) => timer,
        };
        if !sent && progress.is_sent() && home.upstream().config.breaker.slow.is_some() {
            progress.set_sent_at(Instant::now());
        }
        sent = progress.is_sent();
        while timer.as_mut().poll(cx).is_ready() {
            let moved = frames != progress.frames() || progress.waits_for_client();
            if sent || !moved {
                if !last_look.is_over(cx) {
                    return Poll::Pending;
                }
                return Poll::Ready(Err(home.upstream().timed_out(progress, limit)));
            }
            frames = progress.frames();
            timer.as_mut().reset(Instant::now() + stall);
        }
        Poll::Pending
    })
    .await;
    if let Some(timer) = timer {
        home.timers().give_back(timer);
    }
    result
}

/// Timers of exchanges that are over, for those to come. One that is set to a later time costs the runtime nothing, where
/// a new one is put into a list under a lock and taken out of it again.
#[derive(Default)]
pub(super) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

impl Timers {
    fn until(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        match self.0.borrow_mut().pop() {
            Some(mut timer) => {
                timer.as_mut().reset(deadline);
                timer
            }
            None => Box::pin(tokio::time::sleep_until(deadline)),
        }
    }

    fn give_back(&self, timer: Pin<Box<Sleep>>) {
        let mut timers = self.0.borrow_mut();
        if timers.len() < MOST_TIMERS {
            timers.push(timer);
        }
    }
}

const MOST_TIMERS: usize = 1024;

/// Tells the breakers how one admitted exchange went, whichever endpoints it took; one that ends unsaid (its client left)
/// says nothing about the app.
pub(super) struct Verdict<T: Told> {
    of: T,
    trials: Trials,
    told: bool,
    /// When it began, where several endpoints may answer meanwhile, or where the time counts.
    began: Option<Instant>,
}

/// Whose breakers are told.
pub(super) trait Told {
    fn upstream(&self) -> &Upstream;
    fn route(&self) -> &RouteBreaker;
}

/// While the exchange itself is awaited: lent. A count of references would be a line that all workers write.
impl Told for (&Upstream, &RouteBreaker) {
    fn upstream(&self) -> &Upstream {
        self.0
    }

    fn route(&self) -> &RouteBreaker {
        self.1
    }
}

/// Of a try that may outlive whoever asked for it.
struct Own(Connections, Arc<RouteBreaker>);

impl Told for Own {
    fn upstream(&self) -> &Upstream {
        self.0.upstream()
    }

    fn route(&self) -> &RouteBreaker {
        &self.1
    }
}

impl<T: Told> Verdict<T> {
    pub(super) fn admitted(of: T) -> Result<Self, UpstreamError> {
        let upstream = of.upstream();
        let trials = upstream.admit(of.route())?;
        let timed = upstream.endpoints.are_several() || upstream.config.breaker.slow.is_some();
        let began = timed.then(Instant::now);
        Ok(Self { of, trials, told: false, began })
    }

    pub(super) fn tell(&mut self, answer: &Answer, progress: &Progress) {
        if let Ok(answer) = answer
            && in_flight::is_gateways(answer.status())
        {
            self.of.upstream().look_for_proxy(answer.headers());
        }
        self.tell_status(answer.as_ref().map(Response::status), progress);
    }

    pub(super) fn tell_status(
        &mut self,
        answer: Result<StatusCode, &UpstreamError>,
        progress: &Progress,
    ) {
        self.told = true;
        match answer {
            // A gateway in front of the app says that the app is not there; a 500 is the app's own.
            Ok(status) if in_flight::is_gateways(status) => {
                self.tell_failure(Failure::OfRoute(in_flight::GATEWAY), progress);
            }
            Ok(_) => self.of.upstream().answered(self.of.route(), self.took(progress)),
            Err(error) if error.blames_the_app() => {
                let cause = error.to_string();
                let failure = match error {
                    UpstreamError::Connect { .. } => Failure::OfApp(&cause),
                    _ => Failure::OfRoute(&cause),
                };
                self.tell_failure(failure, progress);
            }
            Err(_) => self.told = false,
        }
    }

    /// From the request fully sent, as far as that was seen.
    fn took(&self, progress: &Progress) -> Option<Duration> {
        self.of.upstream().config.breaker.slow.as_ref()?;
        Some(progress.sent_at().or(self.began)?.elapsed())
    }

    /// An endpoint that fails while another answers is no outage.
    fn tell_failure(&mut self, failure: Failure<'_>, progress: &Progress) {
        let another_answered = self.began.zip(progress.on()).is_some_and(|(began, (on, _))| {
            self.of.upstream().endpoints.another_answered(on.endpoint, began)
        });
        if another_answered {
            self.told = false;
        } else {
            self.of.upstream().failed(self.of.route(), failure, self.trials);
        }
    }
}

impl<T: Told> Drop for Verdict<T> {
    fn drop(&mut self) {
        if !self.told {
            self.of.upstream().void(self.of.route(), self.trials);
        }
    }
}
