//! One HTTP/1.1 connection to the app, an exchange at a time: writes the request, reads the answer. Knows no endpoint, no
//! deadline and no breaker; it is driven by whoever waits for it.
//!
//! The app is a trusted peer, but not an infallible one: what hyper's client refuses is refused here, too, and
//! `differential.rs` holds the two against each other. What a client of ours sends never comes this way unparsed.

mod chunked;
mod decoder;
#[cfg(test)]
mod differential;
mod queue;
mod request_head;
mod response_head;
#[cfg(test)]
mod script;
mod sending;
#[cfg(test)]
mod tests;

use std::{
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

pub(super) use self::request_head::may_be_trailer;
use self::{
    decoder::{Decoded, Decoder},
    queue::Queue,
    response_head::{Head, Parsed, Place},
    sending::{Framing, SendFault, Sending},
};
use super::{fault::Fault, request_body::RequestBody};

/// What carries the bytes of an exchange. It may take over what it sends a little later.
pub(super) trait Carries: AsyncRead + AsyncWrite + Unpin {
    /// Bytes that it has taken over and that have not left.
    fn unsent(&self) -> usize {
        0
    }

    /// It waits to send them, or could not: to be asked about it by a flush.
    fn is_behind(&self) -> bool {
        false
    }

    /// A write that fails may have sent a part that it does not tell of.
    fn sends_records(&self) -> bool {
        false
    }
}

/// See the module.
pub(super) struct Exchange<S> {
    stream: S,
    /// What came and was not looked at yet.
    received: BytesMut,
    /// How much of it is known to be no whole head.
    looked_at: usize,
    read_size: usize,
    queue: Queue,
    sending: Sending,
    /// What was queued, as long as it may have to be given back.
    asked: Option<Asked>,
    is_head_request: bool,
    decoder: Decoder,
    interim: u32,
    places: Vec<Place>,
    /// Neither side said that it is the last exchange.
    keep: bool,
}

struct Asked {
    parts: Parts,
    /// The body once more, if it can be read again.
    again: Option<RequestBody>,
}

impl<S: Carries> Exchange<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            looked_at: 0,
            read_size: SMALLEST_READ,
            queue: Queue::default(),
            sending: Sending::default(),
            asked: None,
            is_head_request: false,
            decoder: Decoder::Ended,
            interim: 0,
            places: Vec::new(),
            keep: true,
        }
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Begins an exchange. Nothing leaves before [`Self::poll_answer`].
    pub(super) fn begin(&mut self, request: Request<RequestBody>) {
        let (parts, body) = request.into_parts();
        self.is_head_request = parts.method == http::Method::HEAD;
        (self.interim, self.looked_at) = (0, 0);
        self.queue.begin();
        let written = request_head::write(&parts, &body, self.queue.buffer());
        self.keep &= !written.closes;
        // A body that is here already leaves with the head.
        let (sending, again) = match (body, written.framing) {
            (body @ RequestBody::Empty, _) => (Sending::default(), Some(body)),
            (RequestBody::Whole(whole), Framing::Length(_)) => {
                self.queue.push_shared(&whole.bytes);
                (Sending::default(), Some(RequestBody::Whole(whole)))
            }
            (body, framing) => {
                let again = body.again();
                (Sending::new(body, framing), again)
            }
        };
        self.sending = sending;
        self.asked = Some(Asked { parts, again });
        self.decoder = Decoder::UntilClose;
    }

    /// Bytes of this exchange that left.
    pub(super) fn written(&self) -> u64 {
        self.queue.written().saturating_sub(self.stream.unsent() as u64)
    }

    /// The request again, if its body can be read once more and nothing of an answer came.
    pub(super) fn take_again(&mut self) -> Option<Request<RequestBody>> {
        let asked = self.asked.take()?;
        // Asked again now: of a copied body more may have come meanwhile than is kept.
        let again = asked.again.and_then(|body| body.again());
        let body = again.or_else(|| std::mem::take(&mut self.sending).into_unread())?;
        Some(Request::from_parts(asked.parts, body))
    }

    /// Sends what can be sent; ready with the head of the final answer. What is left of the request goes out while the
    /// body of the answer is read.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Fault>> {
        let broken = self.send_on(cx)?;
        loop {
            if let Some(answer) = self.parse()? {
                return Poll::Ready(Ok(answer));
            }
            // An app that had enough may have answered before it closed: its answer counts.
            match (self.poll_fill(cx), broken.as_ref()) {
                // What it says before anything of the request has left answers nothing.
                (Poll::Ready(Ok(read)), _) if read > 0 && self.written() == 0 => {
                    self.keep = false;
                    return Poll::Ready(Err(Fault::Closed));
                }
                (Poll::Ready(Ok(read)), _) if read > 0 => {}
                (_, Some(error)) => return Poll::Ready(Err(Fault::Io(error.kind().into()))),
                (Poll::Ready(Ok(_)), None) => return Poll::Ready(Err(Fault::Closed)),
                (Poll::Ready(Err(error)), None) => return Poll::Ready(Err(error.into())),
                (Poll::Pending, None) => return Poll::Pending,
            }
        }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if !self.sending.is_done() || !self.queue.is_empty() || self.stream.is_behind() {
            self.send_on(cx)?;
        }
        loop {
            match self.decoder.decode(&mut self.received) {
                Err(fault) => return Poll::Ready(Some(Err(self.broken(fault)))),
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
            }
            match ready!(self.poll_fill(cx)) {
                Err(error) => return Poll::Ready(Some(Err(self.broken(error.into())))),
                Ok(0) => {
                    self.keep = false;
                    if let Err(fault) = self.decoder.close() {
                        return Poll::Ready(Some(Err(self.broken(fault))));
                    }
                }
                Ok(_) => {}
            }
        }
    }

    /// The whole of the answer's body, if it is here already.
    pub(super) fn take_body_here(&mut self) -> Option<Bytes> {
        self.decoder.take_whole(&mut self.received)
    }

    pub(super) fn is_answer_over(&self) -> bool {
        self.decoder.has_ended()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Whether another exchange can follow: both messages are over, nobody said it would be the last one, and nothing
    /// came that nobody asked for.
    pub(super) fn is_at_rest(&self) -> bool {
        self.keep
            && self.decoder.has_ended()
            && self.sending.is_done()
            && self.queue.is_empty()
            && self.stream.unsent() == 0
            && self.received.is_empty()
    }

    /// Gives memory back that only a large message needed.
    pub(super) fn rest(&mut self) {
        self.asked = None;
        self.queue.shrink();
        if self.received.capacity() > 2 * SMALLEST_READ {
            self.received = BytesMut::new();
        }
    }

    /// What follows a 101: the bytes as they are, and those that came with its head.
    pub(super) fn into_tunnel(self) -> (S, Bytes) {
        (self.stream, self.received.freeze())
    }

    /// The error that ended the sending, if that was the app's end of it.
    fn send_on(&mut self, cx: &mut Context<'_>) -> Result<Option<io::Error>, Fault> {
        match self.sending.poll(&mut self.queue, &mut self.stream, cx) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(None),
            Poll::Ready(Err(SendFault::Client)) => Err(self.broken(Fault::Client)),
            Poll::Ready(Err(SendFault::Io(error))) => {
                self.keep = false;
                if self.stream.sends_records() {
                    self.queue.record_may_have_left();
                }
                Ok(Some(error))
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Response<()>>, Fault> {
        loop {
            if self.received.is_empty() {
                return Ok(None);
            }
            if self.looked_at > 0 && !response_head::may_be_whole(&self.received, self.looked_at) {
                return self.wait_for_more();
            }
            // What has left is of no more use: its map takes the answer's fields without an allocation.
            let left = self.written() > 0;
            let map = match self.asked.take_if(|_| left) {
                Some(asked) => asked.parts.headers,
                None => HeaderMap::new(),
            };
            match response_head::parse(
                &mut self.received,
                self.is_head_request,
                map,
                &mut self.places,
            )? {
                Parsed::Partial => return self.wait_for_more(),
                Parsed::Interim => {
                    self.looked_at = 0;
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        return Err(Fault::Invalid("more interim answers than anybody needs"));
                    }
                }
                Parsed::Final(Head { response, decoder, keep }) => {
                    self.decoder = decoder;
                    self.keep &= keep && response.status() != StatusCode::SWITCHING_PROTOCOLS;
                    self.asked = None;
                    return Ok(Some(response));
                }
            }
        }
    }

    fn wait_for_more(&mut self) -> Result<Option<Response<()>>, Fault> {
        self.looked_at = self.received.len();
        if self.looked_at >= LARGEST_HEAD {
            return Err(Fault::Invalid("the head of the answer is too large"));
        }
        Ok(None)
    }

    /// Reads once. The size follows what comes, within bounds.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.received.capacity() - self.received.len();
        match self.decoder.expected() {
            // One byte more than there should be: a read that is not full tells the runtime that there is no more.
            Some(left) => {
                let left = usize::try_from(left).unwrap_or(LARGEST_READ);
                let size = left.saturating_add(1).clamp(SMALLEST_READ / 4, LARGEST_READ);
                if room < size {
                    self.received.reserve(size);
                }
            }
            None if room < self.read_size / 4 => self.received.reserve(self.read_size),
            None => {}
        }
        let room = self.received.capacity() - self.received.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.received)).poll(cx))?;
        if read == room {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        } else if read < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(SMALLEST_READ);
        }
        Poll::Ready(Ok(read))
    }

    fn broken(&mut self, fault: Fault) -> Fault {
        self.keep = false;
        self.decoder = Decoder::Ended;
        self.sending = Sending::default();
        fault
    }
}

/// Reads begin with this and grow to that.
const SMALLEST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 64 << 10;
/// Largest head of an answer.
const LARGEST_HEAD: usize = 256 << 10;
/// Interim answers (1xx) before the final one.
const MOST_INTERIM: u32 = 100;
