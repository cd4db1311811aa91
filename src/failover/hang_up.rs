//! From the moment its request is complete, a stand-in route runs to its decision, whatever the client does.
//!
//! hyper drops the future of a request whose client left. This guard hands it to the worker instead, without a task
//! per request.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::late_answer::LateAnswers;
use crate::{listener::Presence, upstream::request_body::Progress};

/// What the request and its decision share about the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    gone: Rc<Cell<bool>>,
    presence: Option<Presence>,
}

impl Client {
    pub(super) fn of(presence: Option<Presence>) -> Self {
        Self { presence, ..Self::default() }
    }

    /// The answer certainly never leaves any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.get() || self.presence.as_ref().is_some_and(Presence::is_reset)
    }

    /// One of HTTP/1 that has closed its side may listen, or may have left: the answer will show it. Then, and only
    /// then, `then` is done.
    pub(super) fn if_it_has_left<F>(&self, then: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(presence) = self.presence.as_ref().filter(|presence| presence.has_said_all()) {
            presence.if_it_has_left(Box::pin(then()));
        }
    }
}

/// A decision under way.
pub(super) struct Deciding<T> {
    pub(super) future: Pin<Box<dyn Future<Output = T>>>,
    pub(super) progress: Rc<Progress>,
    pub(super) client: Client,
}

/// See the module.
pub(super) struct SurvivesHangUp<T: 'static> {
    deciding: Option<Deciding<T>>,
    late: LateAnswers,
}

impl<T> SurvivesHangUp<T> {
    pub(super) fn new(deciding: Deciding<T>, late: &LateAnswers) -> Self {
        Self { deciding: Some(deciding), late: late.clone() }
    }
}

impl<T> Future for SurvivesHangUp<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(deciding) = self.deciding.as_mut() else { return Poll::Pending };
        let poll = deciding.future.as_mut().poll(cx);
        if poll.is_ready() {
            self.deciding = None;
        }
        poll
    }
}

impl<T: 'static> Drop for SurvivesHangUp<T> {
    fn drop(&mut self) {
        let Some(deciding) = self.deciding.take() else { return };
        deciding.client.gone.set(true);
        // An incomplete request is nobody's order: it ends with its client.
        if deciding.progress.is_whole() {
            self.late.run_on(async move {
                deciding.future.await;
            });
        }
    }
}
