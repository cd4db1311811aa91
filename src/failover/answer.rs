//! The body of whatever the client gets: the app's, or one of our own.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use super::recording::Recorded;
use crate::upstream::{AnswerBody, AnswerFault, Places};

/// See the module.
pub enum Answer {
    /// Streams from the app, which is busy with it until its end.
    App(AnswerBody, Places),
    /// The same, copied aside for support.
    Recorded(Box<Recorded>),
    /// A stand-in answer or an honest error.
    Ours(Full<Bytes>),
}

impl From<Full<Bytes>> for Answer {
    fn from(body: Full<Bytes>) -> Self {
        Self::Ours(body)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        match &mut *self {
            Self::App(body, _) => Pin::new(body).poll_frame(cx),
            Self::Recorded(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::App(body, _) => body.is_end_stream(),
            Self::Recorded(body) => body.is_end_stream(),
            Self::Ours(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::App(body, _) => body.size_hint(),
            Self::Recorded(body) => body.size_hint(),
            Self::Ours(body) => body.size_hint(),
        }
    }
}
