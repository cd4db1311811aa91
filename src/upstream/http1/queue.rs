//! What is still to be written: text, then data that is not copied, then a little text behind it. One write takes all.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    text: Vec<u8>,
    data: Bytes,
    /// Ends the data: of a chunk, or of the body.
    end: &'static [u8],
    /// How much of all three has left.
    sent: usize,
    /// The same since [`Queue::begin`].
    written: u64,
}

/// Data up to this is copied behind the text: one piece is cheaper to hand over than two.
const SMALL: usize = 8 << 10;
/// What TLS sends whole or not at all (RFC 8446 5.1).
const ONE_RECORD: usize = 16 << 10;
/// A text buffer up to this is kept between exchanges.
const KEPT: usize = 16 << 10;

impl Queue {
    /// Forgets what is left of the exchange before.
    pub(super) fn begin(&mut self) {
        self.written = 0;
        self.clear();
    }

    /// Where a head is written.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Data, and what ends it. There must be room: see [`Queue::takes_more`].
    pub(super) fn push(&mut self, data: Bytes, end: &'static [u8]) {
        if data.len() <= SMALL {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(end);
        } else {
            self.data = data;
            self.end = end;
        }
    }

    /// Data that its owner keeps, too; nothing follows it.
    pub(super) fn push_shared(&mut self, data: &Bytes) {
        if data.len() <= SMALL {
            self.text.extend_from_slice(data);
        } else {
            self.data = data.clone();
        }
    }

    /// Whether more can be added before anything leaves.
    pub(super) fn takes_more(&self) -> bool {
        self.data.is_empty() && self.text.len() <= SMALL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.data.is_empty()
    }

    /// Bytes that the stream has taken since [`Queue::begin`].
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// A write failed of which whole records may have left before the one that did not.
    pub(super) fn record_may_have_left(&mut self) {
        if self.len() - self.sent > ONE_RECORD {
            self.written = self.written.max(1);
        }
    }

    pub(super) fn shrink(&mut self) {
        self.clear();
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
    }

    /// Ready when the stream has taken all.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.len() {
            let wrote = ready!(self.poll_write(stream, cx))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += wrote;
            self.written += wrote as u64;
        }
        self.clear();
        // In every case: what it took before it may not have passed on.
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.data.is_empty() {
            return Pin::new(stream).poll_write(cx, &self.text[self.sent..]);
        }
        let mut skip = self.sent;
        let pieces = [&self.text[..], &self.data[..], self.end].map(|piece| {
            let here = skip.min(piece.len());
            skip -= here;
            IoSlice::new(&piece[here..])
        });
        let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or_default();
        Pin::new(stream).poll_write_vectored(cx, &pieces[first..])
    }

    fn len(&self) -> usize {
        self.text.len() + self.data.len() + self.end.len()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.data = Bytes::new();
        self.end = b"";
        self.sent = 0;
    }
}
