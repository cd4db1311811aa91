//! Reads the head of an answer, and what it says about the body behind it. Refuses what could be read in two ways.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;

use super::{Fault, decoder::Decoder};

/// What the bytes so far are.
pub(super) enum Parsed {
    /// Not a whole head yet; nothing was taken.
    Partial,
    /// 1xx but 101: another answer follows. It was taken and is passed on to nobody.
    Interim,
    Final(Head),
}

/// The head of a final answer, taken from the buffer.
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) decoder: Decoder,
    /// As far as the answer says, another exchange may follow.
    pub(super) keep: bool,
}

/// What the fields say about connection and body.
struct Said {
    keep: bool,
    closes: bool,
    length: Length,
    /// Whether the last transfer coding is `chunked`.
    chunked: Option<bool>,
}

enum Length {
    None,
    Of(u64),
    /// Not a number, or two that differ.
    Unclear,
}

/// Most fields of a head.
pub(super) const MOST_FIELDS: usize = 256;

/// Longest body that is counted: hyper's bound.
const MOST_BYTES: u64 = u64::MAX - 2;

/// Where a field stands in the head. Kept by the connection, so that no head costs an allocation of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

/// Takes one head from the buffer, if it is whole. `map` is reused for its fields.
pub(super) fn parse(
    buffer: &mut BytesMut,
    answers_head: bool,
    map: HeaderMap,
    places: &mut Vec<Place>,
) -> Result<Parsed, Fault> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut head, buffer, &mut fields);
    let httparse::Status::Complete(length) = parsed.map_err(refusal)? else {
        return Ok(Parsed::Partial);
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    let Some(status) = status else { return Err(Fault::Invalid("its status is none")) };
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        buffer.advance(length);
        return Ok(Parsed::Interim);
    }
    let version = if head.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = head.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let start = buffer.as_ptr() as usize;
    places.clear();
    places.extend(head.headers.iter().map(|field| Place::of(field, start)));
    let text = buffer.split_to(length).freeze();
    let (headers, said) = fields_of(&text, places, map, version)?;
    let decoder = said.decoder(status, version, answers_head)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    Ok(Parsed::Final(Head { response, decoder, keep: said.keep }))
}

/// Whether a head that was not whole at `looked_at` bytes may be so now: there is an empty line in what came since.
pub(super) fn may_be_whole(bytes: &[u8], looked_at: usize) -> bool {
    let mut rest = &bytes[looked_at.saturating_sub(3).min(bytes.len())..];
    while let Some(end) = memchr::memchr(b'\n', rest) {
        rest = &rest[end + 1..];
        if matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]) {
            return true;
        }
    }
    false
}

/// The values share the head's memory.
fn fields_of(
    text: &Bytes,
    places: &[Place],
    mut map: HeaderMap,
    version: Version,
) -> Result<(HeaderMap, Said), Fault> {
    map.clear();
    map.reserve(places.len());
    let mut said = Said {
        keep: version == Version::HTTP_11,
        closes: false,
        length: Length::None,
        chunked: None,
    };
    for place in places {
        let name = HeaderName::from_bytes(&text[range(place.name)]);
        let value = HeaderValue::from_maybe_shared(text.slice(range(place.value)));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Fault::Invalid("a field is not valid"));
        };
        said.take(&name, &value);
        map.append(name, value);
    }
    Ok((map, said))
}

impl Said {
    fn take(&mut self, name: &HeaderName, value: &HeaderValue) {
        match *name {
            header::CONTENT_LENGTH => self.length.take(value),
            header::TRANSFER_ENCODING => {
                let last = value.to_str().ok().and_then(|codings| codings.rsplit(',').next());
                let is_chunked =
                    last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
                self.chunked = Some(is_chunked);
            }
            // RFC 9112 9.3. Once it says close, nothing takes that back.
            header::CONNECTION => {
                self.closes |= has_option(value, "close");
                self.keep = !self.closes && (self.keep || has_option(value, "keep-alive"));
            }
            _ => {}
        }
    }

    /// RFC 9112 6.3.
    fn decoder(
        &self,
        status: StatusCode,
        version: Version,
        answers_head: bool,
    ) -> Result<Decoder, Fault> {
        let no_body =
            [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        if answers_head || no_body.contains(&status) {
            return Ok(Decoder::Ended);
        }
        match (self.chunked, &self.length) {
            (Some(_), _) if version == Version::HTTP_10 => {
                Err(Fault::Invalid("it has a Transfer-Encoding in HTTP/1.0"))
            }
            (Some(true), _) => Ok(Decoder::chunked()),
            (Some(false), _) | (None, Length::None) => Ok(Decoder::UntilClose),
            (None, Length::Of(length)) => Ok(Decoder::length(*length)),
            (None, Length::Unclear) => Err(Fault::Invalid("its Content-Length is not clear")),
        }
    }
}

impl Length {
    /// RFC 9110 8.6: a list, or several fields, of one and the same number are that number.
    fn take(&mut self, value: &HeaderValue) {
        for item in value.as_bytes().split(|&byte| byte == b',') {
            let number = digits(item.trim_ascii()).filter(|number| *number <= MOST_BYTES);
            *self = match (&*self, number) {
                (Self::None, Some(number)) => Self::Of(number),
                (Self::Of(before), Some(number)) if *before == number => Self::Of(number),
                _ => Self::Unclear,
            };
        }
    }
}

impl Place {
    fn of(field: &httparse::Header<'_>, start: usize) -> Self {
        let place = |bytes: &[u8]| {
            let from = bytes.as_ptr() as usize - start;
            (from as u32, (from + bytes.len()) as u32)
        };
        Self { name: place(field.name.as_bytes()), value: place(field.value) }
    }
}

fn range((from, to): (u32, u32)) -> std::ops::Range<usize> {
    from as usize..to as usize
}

/// Whether a list field has this option.
pub(super) fn has_option(value: &HeaderValue, option: &str) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

/// Digits only: no sign, no hexadecimal.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn refusal(error: httparse::Error) -> Fault {
    Fault::Invalid(match error {
        httparse::Error::HeaderName => "a field name is not valid",
        httparse::Error::HeaderValue => "a field value is not valid",
        httparse::Error::NewLine => "a line does not end as it should",
        httparse::Error::Status => "its status line is not valid",
        httparse::Error::Token => "it is not HTTP",
        httparse::Error::TooManyHeaders => "it has too many fields",
        httparse::Error::Version => "its version is not HTTP/1",
    })
}
