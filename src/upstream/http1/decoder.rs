//! Cuts the body of an answer out of the bytes that come, as its head said. No IO: the same bytes in any pieces give the
//! same body.

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::{Fault, chunked::Chunked};

/// How the body goes on.
#[derive(Debug)]
pub(super) enum Decoder {
    Ended,
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Box<Chunked>),
    UntilClose,
}

/// What one look at the bytes gave.
#[derive(Debug)]
pub(super) enum Decoded {
    Frame(Frame<Bytes>),
    /// More bytes are needed.
    More,
    End,
}

impl Decoder {
    pub(super) fn length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Box::default())
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Takes the next piece of the body from the buffer; nothing is copied.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Fault> {
        let decoded = match self {
            Self::Ended => Decoded::End,
            _ if buffer.is_empty() => Decoded::More,
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= here as u64;
                let data = buffer.split_to(here).freeze();
                if *left == 0 {
                    *self = Self::Ended;
                }
                Decoded::Frame(Frame::data(data))
            }
            Self::Chunked(chunked) => {
                let decoded = chunked.decode(buffer)?;
                if chunked.has_ended() {
                    *self = Self::Ended;
                }
                decoded
            }
            Self::UntilClose => Decoded::Frame(Frame::data(buffer.split_to(buffer.len()).freeze())),
        };
        Ok(decoded)
    }

    /// The whole body, if it is in the buffer and has a length.
    pub(super) fn take_whole(&mut self, buffer: &mut BytesMut) -> Option<Bytes> {
        match self {
            Self::Ended => Some(Bytes::new()),
            Self::Length(left) if *left <= buffer.len() as u64 => {
                let length = usize::try_from(*left).ok()?;
                *self = Self::Ended;
                Some(buffer.split_to(length).freeze())
            }
            _ => None,
        }
    }

    /// No more bytes will come: an end only for a body that had no other.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        match self {
            Self::Ended => Ok(()),
            Self::UntilClose => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Fault::Closed),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub(super) fn expected(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            _ => None,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }
}
