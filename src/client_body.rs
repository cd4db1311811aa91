//! A request body as it comes from its client: with a limit, without long pauses, its faults the client's.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use filters::{
    connection_headers::Trailers,
    peer::{Client, FromClient},
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::listener::Presence;

/// Why a request body did not come whole: always the client's doing, never an outage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    #[error("the request body broke off or is not well formed: {0}")]
    Broken(String),
    #[error("the request body paused for too long")]
    Idle,
    #[error("the request body comes too slowly")]
    Slow,
    #[error("the request body is larger than allowed")]
    TooLarge,
}

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most bytes; `None` for no limit.
    pub length: Option<u64>,
    /// Longest silence.
    pub idle: Duration,
    /// Fewest bytes a second, on average.
    pub rate: u64,
}

/// Whether a client that took so long for so much is slower than it may be.
pub fn is_too_slow(bytes: u64, waited: Duration, rate: u64) -> bool {
    waited > UNJUDGED && bytes < rate.saturating_mul(waited.as_secs())
}

/// For so long nobody is called slow.
const UNJUDGED: Duration = Duration::from_secs(5);

/// A body that can tell whether its client is still there.
pub trait TellsPresence {
    /// `None` where hyper tells it by itself.
    fn presence(&self) -> Option<&Presence>;
}

/// What is the same for all bodies of one connection.
#[derive(Debug)]
pub struct Sender {
    pub client: Client,
    pub limits: BodyLimits,
}

/// See the module.
pub struct ReceivedBody {
    incoming: Incoming,
    sender: Rc<Sender>,
    presence: Option<Presence>,
    id_is_new: bool,
    length: u64,
    /// Made only when the body is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    waited_since: Option<Instant>,
}

impl ReceivedBody {
    pub fn new(incoming: Incoming, sender: Rc<Sender>, presence: Option<Presence>) -> Self {
        Self {
            incoming,
            sender,
            presence,
            id_is_new: false,
            length: 0,
            timer: None,
            waited_since: None,
        }
    }

    /// Its announced length is above the limit: known before a byte is read.
    pub fn is_announced_too_large(&self) -> bool {
        self.sender.limits.length.is_some_and(|limit| self.incoming.size_hint().lower() > limit)
    }

    /// hyper takes a reset of the stream that names no error for the end of the body. Only an answer may end like that.
    fn is_cut_off(&self) -> bool {
        let is_http2 = self.presence.is_none();
        is_http2 && !self.incoming.is_end_stream()
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<BodyFault> {
        self.waited_since.get_or_insert_with(Instant::now);
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.sender.limits.idle)));
        timer.as_mut().poll(cx).map(|()| BodyFault::Idle)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        if let Some(timer) = self.timer.as_mut() {
            timer.as_mut().reset(Instant::now() + self.sender.limits.idle);
        }
        self.length += frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.sender.limits.length {
            Some(limit) if self.length > limit => Err(BodyFault::TooLarge),
            _ if self.is_slow() => Err(BodyFault::Slow),
            _ => Ok(frame),
        }
    }

    /// One byte before each silence is over would hold a place for ever.
    fn is_slow(&self) -> bool {
        self.waited_since
            .is_some_and(|since| is_too_slow(self.length, since.elapsed(), self.sender.limits.rate))
    }
}

impl FromClient for ReceivedBody {
    fn client(&self) -> Option<&Client> {
        Some(&self.sender.client)
    }

    fn note_new_id(&mut self) {
        self.id_is_new = true;
    }

    fn id_is_new(&self) -> bool {
        self.id_is_new
    }
}

impl TellsPresence for ReceivedBody {
    fn presence(&self) -> Option<&Presence> {
        self.presence.as_ref()
    }
}

impl<B: TellsPresence> TellsPresence for Trailers<B> {
    fn presence(&self) -> Option<&Presence> {
        self.get_ref().presence()
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            return Poll::Ready(Some(Err(ready!(self.poll_idle(cx)))));
        };
        Poll::Ready(match frame {
            None if self.is_cut_off() => {
                Some(Err(BodyFault::Broken("the stream was reset".into())))
            }
            None => None,
            Some(Ok(frame)) => Some(self.take(frame)),
            Some(Err(error)) => Some(Err(BodyFault::Broken(error.to_string()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
