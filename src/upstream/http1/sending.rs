//! The body of a request on its way into the queue, framed as its head said.

use std::{
    io,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::{
    queue::Queue,
    request_head::{may_be_trailer, write_field},
};
use crate::upstream::request_body::RequestBody;

/// What is left of a request to send.
#[derive(Default)]
pub(super) struct Sending {
    /// None: nothing that is not in the queue.
    body: Option<RequestBody>,
    framing: Framing,
    /// Something of the body was taken.
    begun: bool,
}

/// How a body is marked off.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks; of the trailers only those that the head announced.
    Chunked(Vec<HeaderName>),
}

impl Default for Framing {
    fn default() -> Self {
        Self::Length(0)
    }
}

/// Why a request did not go out whole.
pub(super) enum SendFault {
    /// Its body broke off.
    Client,
    Io(io::Error),
}

impl Sending {
    pub(super) fn new(body: RequestBody, framing: Framing) -> Self {
        Self { body: Some(body), framing, begun: false }
    }

    pub(super) fn is_done(&self) -> bool {
        self.body.is_none()
    }

    /// The body, if nothing of it was taken.
    pub(super) fn into_unread(self) -> Option<RequestBody> {
        self.body.filter(|_| !self.begun)
    }

    /// Takes the body frame by frame into the queue and sends that; ready when all has left.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        queue: &mut Queue,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        loop {
            // A frame that is here leaves with the head, in one write.
            while !self.is_done() && queue.takes_more() {
                match self.poll_frame(queue, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                    Poll::Pending => break,
                }
            }
            let waits = !self.is_done() && queue.takes_more();
            if let Err(error) = ready!(queue.poll_flush(stream, cx)) {
                return Poll::Ready(Err(SendFault::Io(error)));
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn poll_frame(
        &mut self,
        queue: &mut Queue,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        self.begun = true;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Err(SendFault::Client)),
            None => return Poll::Ready(self.end(queue, None)),
        };
        let ended = body.is_end_stream();
        match frame.into_data() {
            Ok(data) => self.data(data, ended, queue),
            Err(frame) => return Poll::Ready(self.end(queue, frame.into_trailers().ok())),
        }
        if ended { Poll::Ready(self.end(queue, None)) } else { Poll::Ready(Ok(())) }
    }

    fn data(&mut self, mut data: Bytes, ended: bool, queue: &mut Queue) {
        match &mut self.framing {
            Framing::Length(left) => {
                // Never more than was announced: it would be read as the next request.
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                if *left == 0 {
                    self.body = None;
                }
                queue.push(data, b"");
            }
            Framing::Chunked(_) if data.is_empty() => {}
            Framing::Chunked(_) => {
                write!(queue.buffer(), "{:x}\r\n", data.len()).ok();
                if ended {
                    queue.push(data, b"\r\n0\r\n\r\n");
                    self.body = None;
                } else {
                    queue.push(data, b"\r\n");
                }
            }
        }
    }

    /// The body is over. One that is shorter than announced is its client's fault.
    fn end(&mut self, queue: &mut Queue, trailers: Option<HeaderMap>) -> Result<(), SendFault> {
        if self.body.take().is_none() {
            return Ok(());
        }
        match &self.framing {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(SendFault::Client),
            Framing::Chunked(announced) => {
                let buffer = queue.buffer();
                buffer.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten() {
                    if announced.contains(name) && may_be_trailer(name) {
                        write_field(buffer, name, value);
                    }
                }
                buffer.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}
