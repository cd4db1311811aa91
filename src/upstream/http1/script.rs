//! For tests: an app that does what a script says, and what one exchange with it comes to.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Exchange;
use crate::upstream::request_body::RequestBody;

/// An app that sends what it was told to, piece by piece, and keeps what it gets.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) pieces: VecDeque<Bytes>,
    /// The stream ends behind the last piece; else it stays open.
    pub(super) ends: bool,
    /// Between two pieces there is nothing once.
    pub(super) pause: bool,
    pub(super) written: Vec<u8>,
    pub(super) writes: usize,
    /// Bytes that it takes before it is gone.
    pub(super) takes: Option<usize>,
    /// As TLS does.
    pub(super) sends_records: bool,
}

impl Script {
    pub(super) fn new<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, ends: bool) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        Self { pieces: pieces.map(Bytes::copy_from_slice).collect(), ends, ..Self::default() }
    }

    pub(super) fn says(text: &str) -> Self {
        Self::new([text.as_bytes()], false)
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pause = !self.pause;
        if self.pause {
            return Poll::Pending;
        }
        match self.pieces.pop_front() {
            Some(mut piece) => {
                let fits = piece.split_to(piece.len().min(buf.remaining()));
                buf.put_slice(&fits);
                if !piece.is_empty() {
                    self.pieces.push_front(piece);
                }
                Poll::Ready(Ok(()))
            }
            None if self.ends => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl super::Carries for Script {
    fn sends_records(&self) -> bool {
        self.sends_records
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = self.takes.unwrap_or(usize::MAX).min(buf.len());
        if room == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.takes = self.takes.map(|takes| takes - room);
        self.writes += 1;
        self.written.extend_from_slice(&buf[..room]);
        Poll::Ready(Ok(room))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What became of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All was said, and the head of an answer is still waited for.
    Waits,
    NoAnswer,
    Answered {
        status: u16,
        version: http::Version,
        reason: Option<Vec<u8>>,
        fields: Vec<(String, Vec<u8>)>,
        body: Body,
        /// Whether another exchange can follow.
        reusable: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Waits,
    Broken,
    Whole(Vec<u8>, Vec<(String, Vec<u8>)>),
}

pub(super) fn fields(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    map.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

/// Polls until it is ready, but no longer than any script takes.
pub(super) fn poll_often<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let mut cx = Context::from_waker(Waker::noop());
    (0..2000).find_map(|_| match poll(&mut cx) {
        Poll::Ready(ready) => Some(ready),
        Poll::Pending => None,
    })
}

pub(super) fn request(method: &str) -> Request<RequestBody> {
    let request = Request::builder().method(method).uri("/orders?a=b").header("host", "a");
    request.body(RequestBody::Empty).unwrap()
}

/// One exchange of our own.
pub(super) fn outcome(method: &str, app: Script) -> Outcome {
    let mut exchange = Exchange::new(app);
    exchange.begin(request(method));
    let response = match poll_often(|cx| exchange.poll_answer(cx)) {
        None => return Outcome::Waits,
        Some(Err(_)) => return Outcome::NoAnswer,
        Some(Ok(response)) => response,
    };
    let (mut bytes, mut trailers) = (Vec::new(), Vec::new());
    let body = loop {
        match poll_often(|cx| exchange.poll_body(cx)) {
            None => break Body::Waits,
            Some(None) => break Body::Whole(bytes, trailers),
            Some(Some(Err(_))) => break Body::Broken,
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = fields(&frame.into_trailers().unwrap()),
            },
        }
    };
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
    Outcome::Answered {
        status: response.status().as_u16(),
        version: response.version(),
        reason: reason.map(|reason| reason.as_bytes().to_vec()),
        fields: fields(response.headers()),
        body,
        // Who takes it next looks whether something came meanwhile.
        reusable: exchange.is_at_rest() && exchange.stream().pieces.is_empty(),
    }
}
