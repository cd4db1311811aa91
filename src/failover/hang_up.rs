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
use crate::upstream::request_body::Progress;

/// What the request and its decision share about the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    gone: Rc<Cell<bool>>,
}

impl Client {
    /// The answer certainly never leaves any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.get()
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
