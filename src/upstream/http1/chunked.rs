//! RFC 9112 7.1: a body in chunks. As strict as hyper: a size is hexadecimal digits and nothing more, lines end in CR LF,
//! extensions and trailers have a limit.

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::{Fault, decoder::Decoded, response_head::MOST_FIELDS};

/// Where in the chunks the next byte is.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// The size read so far, then the bytes of the chunk that are still to come.
    size: u64,
    /// Bytes of extensions so far, in all chunks.
    extensions: usize,
    /// The trailer section as it came.
    trailers: Vec<u8>,
    trailer_lines: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Size,
    /// White space behind the size.
    SizeSpace,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// At the beginning of a line behind the last chunk.
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Ended,
}

impl Chunked {
    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes one piece of data, the trailers, or all there is without any.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Fault> {
        let mut at = 0;
        while self.state != State::Data && self.state != State::Ended {
            let Some(&byte) = buffer.get(at) else {
                buffer.clear();
                return Ok(Decoded::More);
            };
            at += 1;
            self.state = self.step(byte)?;
        }
        buffer.advance(at);
        if self.state == State::Ended {
            return self.end();
        }
        if buffer.is_empty() {
            return Ok(Decoded::More);
        }
        let here = usize::try_from(self.size).unwrap_or(usize::MAX).min(buffer.len());
        self.size -= here as u64;
        if self.size == 0 {
            self.state = State::DataReturn;
        }
        Ok(Decoded::Frame(Frame::data(buffer.split_to(here).freeze())))
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        let state = match (self.state, byte) {
            (State::Start | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size =
                    self.size.checked_mul(16).and_then(|size| size.checked_add(digit.into()));
                self.size = size.ok_or(Fault::Invalid("a chunk is larger than can be counted"))?;
                State::Size
            }
            (State::Size | State::SizeSpace, b'\t' | b' ') => State::SizeSpace,
            (State::Size | State::SizeSpace, b';') => State::Extension,
            (State::Size | State::SizeSpace | State::Extension, b'\r') => State::SizeLineFeed,
            (State::Extension, byte) if byte != b'\n' => {
                self.extensions += 1;
                if self.extensions >= MOST_EXTENSIONS {
                    return Err(Fault::Invalid("its chunk extensions are too long"));
                }
                State::Extension
            }
            (State::SizeLineFeed, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeLineFeed, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Start,
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::TrailerStart | State::Trailer, _) => {
                self.keep(byte)?;
                if self.state == State::Trailer && byte == b'\r' {
                    State::TrailerLineFeed
                } else {
                    State::Trailer
                }
            }
            (State::TrailerLineFeed, b'\n') => {
                self.trailer_lines += 1;
                if self.trailer_lines > MOST_FIELDS {
                    return Err(Fault::Invalid("it has too many trailers"));
                }
                self.keep(byte)?;
                State::TrailerStart
            }
            (State::LastLineFeed, b'\n') => State::Ended,
            _ => return Err(Fault::Invalid("its chunks are not well formed")),
        };
        Ok(state)
    }

    fn keep(&mut self, byte: u8) -> Result<(), Fault> {
        self.trailers.push(byte);
        // The empty line counts, too.
        if self.trailers.len() + b"\r\n".len() >= LARGEST_TRAILERS {
            return Err(Fault::Invalid("its trailers are too long"));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Decoded, Fault> {
        if self.trailers.is_empty() {
            return Ok(Decoded::End);
        }
        self.trailers.extend_from_slice(b"\r\n");
        let mut fields = vec![httparse::EMPTY_HEADER; self.trailer_lines];
        let parsed = httparse::parse_headers(&self.trailers, &mut fields);
        let Ok(httparse::Status::Complete((_, fields))) = parsed else {
            return Err(INVALID_TRAILER);
        };
        let mut trailers = HeaderMap::new();
        for field in fields {
            let name = HeaderName::try_from(field.name).map_err(|_| INVALID_TRAILER)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| INVALID_TRAILER)?;
            trailers.append(name, value);
        }
        Ok(Decoded::Frame(Frame::trailers(trailers)))
    }
}

const INVALID_TRAILER: Fault = Fault::Invalid("a trailer is not valid");
/// Bytes of chunk extensions in one body: hyper's bound.
const MOST_EXTENSIONS: usize = 16 << 10;
/// Bytes of a trailer section: hyper's bound.
const LARGEST_TRAILERS: usize = 16 << 10;
