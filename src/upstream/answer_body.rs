//! The body of the app's answer: drives its connection while it is read, and gives it back at the end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Connections, connection::Connection, fault::Fault};

/// Why the body of an answer broke off. The client sees its connection end: never a whole answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    #[error("the app broke off its answer: {0}")]
    Broken(#[from] Fault),
    #[error("the app paused for {0:?} within its answer")]
    Idle(Duration),
}

/// See the module. Dropped before its end it closes the connection.
pub struct AnswerBody(Kind);

enum Kind {
    /// It came with the head. Its connection serves others already.
    Here(Bytes),
    Coming(Box<Coming>),
}

struct Coming {
    lent: Option<(Connection, Connections)>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    last_frame: Option<Instant>,
}

impl AnswerBody {
    pub(super) fn new(mut connection: Connection, home: &Connections, idle: Duration) -> Self {
        match connection.take_body_here() {
            Some(body) => {
                home.put_back(connection);
                Self(Kind::Here(body))
            }
            None => {
                let lent = Some((connection, home.clone()));
                Self(Kind::Coming(Box::new(Coming { lent, idle, timer: None, last_frame: None })))
            }
        }
    }

    /// The answer before another protocol: nothing of HTTP follows.
    pub(super) fn none() -> Self {
        Self(Kind::Here(Bytes::new()))
    }
}

impl Coming {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let Some((connection, _)) = self.lent.as_mut() else { return Poll::Ready(None) };
        let Poll::Ready(frame) = connection.poll_body(cx) else {
            return self.poll_idle(cx).map(|fault| Some(Err(fault)));
        };
        if self.timer.is_some() {
            self.last_frame = Some(Instant::now());
        }
        if let Some(Err(fault)) = &frame
            && !matches!(fault, Fault::Client)
        {
            connection.broke_off(&format!("it broke off its answer: {fault}"));
        }
        if !matches!(frame, Some(Ok(_))) || connection.is_answer_over() {
            self.give_back();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(AnswerFault::from)))
    }

    fn give_back(&mut self) {
        if let Some((connection, home)) = self.lent.take() {
            home.put_back(connection);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<AnswerFault> {
        let since = *self.last_frame.get_or_insert_with(Instant::now);
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + self.idle)));
        while timer.as_mut().poll(cx).is_ready() {
            if since.elapsed() >= self.idle {
                let fault = AnswerFault::Idle(self.idle);
                if let Some((mut connection, _)) = self.lent.take() {
                    connection.broke_off(&fault.to_string());
                }
                return Poll::Ready(fault);
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
        match &mut self.0 {
            Kind::Here(body) if body.is_empty() => Poll::Ready(None),
            Kind::Here(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Kind::Coming(coming) => coming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Here(body) => body.is_empty(),
            Kind::Coming(coming) => coming.lent.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Here(body) => SizeHint::with_exact(body.len() as u64),
            Kind::Coming(coming) => match &coming.lent {
                Some((connection, _)) => connection.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}
