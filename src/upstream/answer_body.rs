//! The body of the app's answer: drives its connection while it is read, and gives it back at the end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{Connections, connection::Connection};

/// Why the body of an answer broke off. The client sees its connection end: never a whole answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error("the app broke off its answer: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the app paused for {0:?} within its answer")]
    Idle(Duration),
}

/// See the module. Dropped before its end it closes the connection.
pub struct AnswerBody {
    incoming: Incoming,
    lent: Option<(Connection, Connections)>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    last_frame: Option<Instant>,
}

impl AnswerBody {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection,
        home: Connections,
        idle: Duration,
    ) -> Self {
        let mut body =
            Self { incoming, lent: Some((connection, home)), idle, timer: None, last_frame: None };
        if body.incoming.is_end_stream() {
            body.give_back_later();
        }
        body
    }

    /// The answer before another protocol: nothing of HTTP follows.
    pub(super) fn ended(incoming: Incoming) -> Self {
        Self { incoming, lent: None, idle: Duration::ZERO, timer: None, last_frame: None }
    }

    /// An answer without a body: its connection is given back when it was driven to rest once more.
    fn give_back_later(&mut self) {
        let waker = std::task::Waker::noop();
        self.give_back(&mut Context::from_waker(waker));
    }

    fn give_back(&mut self, cx: &mut Context<'_>) {
        let Some((mut connection, home)) = self.lent.take() else { return };
        if connection.poll_drive(cx).is_pending() && connection.sender.is_ready() {
            home.put_back(connection);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<AnswerFault> {
        let since = *self.last_frame.get_or_insert_with(Instant::now);
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + self.idle)));
        while timer.as_mut().poll(cx).is_ready() {
            if since.elapsed() >= self.idle {
                return Poll::Ready(AnswerFault::Idle(self.idle));
            }
            timer.as_mut().reset(since + self.idle);
        }
        Poll::Pending
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some((connection, _)) = this.lent.as_mut()
        {
            let ended = connection.poll_drive(cx).is_ready();
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
            if ended {
                this.lent = None;
            }
        }
        match polled {
            Poll::Pending => this.poll_idle(cx).map(|fault| Some(Err(fault))),
            Poll::Ready(Some(Ok(frame))) => {
                if this.timer.is_some() {
                    this.last_frame = Some(Instant::now());
                }
                if this.incoming.is_end_stream() {
                    this.give_back(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lent = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.give_back(cx);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
