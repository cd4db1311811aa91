//! The body of a request on its way into a stream, as fast as the app makes room for it and no faster.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body;

use crate::upstream::{http1::may_be_trailer, request_body::RequestBody};

/// What is left of a request to send.
#[derive(Default)]
pub(super) struct Sending {
    /// None: all was handed over, or nobody wants it any more.
    to: Option<SendStream<Bytes>>,
    body: Option<RequestBody>,
    /// What was taken of the body and finds no room yet, and whether it is the end.
    waiting: Bytes,
    ended: bool,
    /// How much is still to come of what the head announced.
    left: Option<u64>,
    /// Something of the body was taken.
    begun: bool,
}

/// The body broke off: its client's fault.
pub(super) struct BrokenOff;

impl Sending {
    pub(super) fn new(to: SendStream<Bytes>, body: RequestBody, length: Option<u64>) -> Self {
        Self { to: Some(to), body: Some(body), left: length, ..Self::default() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.to.is_none()
    }

    /// The body, if nothing of it was taken.
    pub(super) fn into_unread(self) -> Option<RequestBody> {
        self.body.filter(|_| !self.begun)
    }

    /// Ready when all was handed over, or the app wants no more: that is said by its answer, or by the lack of one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        loop {
            if self.to.is_none() {
                return Poll::Ready(Ok(()));
            }
            if !self.waiting.is_empty() {
                ready!(self.poll_data(cx));
                continue;
            }
            let Some(body) = self.body.as_mut().filter(|_| !self.ended) else {
                return Poll::Ready(self.end(None));
            };
            // Nobody reads from a client what the app does not want.
            let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
            self.begun = true;
            let frame = match frame {
                None => return Poll::Ready(self.end(None)),
                Some(Err(_)) => return Poll::Ready(Err(BrokenOff)),
                Some(Ok(frame)) => frame,
            };
            self.ended = body.is_end_stream();
            match frame.into_data() {
                Ok(data) => self.take(data),
                Err(frame) => return Poll::Ready(self.end(frame.into_trailers().ok())),
            }
        }
    }

    /// Never more than was announced.
    fn take(&mut self, mut data: Bytes) {
        if let Some(left) = &mut self.left {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
            self.ended |= *left == 0;
        }
        self.waiting = data;
    }

    /// Hands over what there is room for.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(to) = &mut self.to else { return Poll::Ready(()) };
        to.reserve_capacity(self.waiting.len());
        let room = match to.capacity() {
            0 => match ready!(to.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => {
                    self.give_up();
                    return Poll::Ready(());
                }
            },
            room => room,
        };
        let data = self.waiting.split_to(room.min(self.waiting.len()));
        let is_last =
            self.ended && self.waiting.is_empty() && self.left.is_none_or(|left| left == 0);
        if to.send_data(data, is_last).is_err() {
            self.give_up();
        } else if is_last {
            (self.to, self.body) = (None, None);
        }
        Poll::Ready(())
    }

    /// The body is over. One that is shorter than announced is its client's fault.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), BrokenOff> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(BrokenOff);
        }
        self.body = None;
        let Some(mut to) = self.to.take() else { return Ok(()) };
        let trailers = trailers.map(allowed).filter(|trailers| !trailers.is_empty());
        // An error here is the stream's end, which the answer tells of.
        match trailers {
            Some(trailers) => to.send_trailers(trailers).ok(),
            None => to.send_data(Bytes::new(), true).ok(),
        };
        Ok(())
    }

    /// The stream has ended on the app's side.
    fn give_up(&mut self) {
        (self.to, self.body, self.waiting) = (None, None, Bytes::new());
    }
}

fn allowed(trailers: HeaderMap) -> HeaderMap {
    let mut name = None;
    let mut allowed = HeaderMap::new();
    for (next, value) in trailers {
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| may_be_trailer(name)) {
            allowed.append(name, value);
        }
    }
    allowed
}
