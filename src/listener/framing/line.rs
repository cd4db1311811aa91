//! Lines of a head, a chunk or a trailer section, whole or in pieces.

/// A line without its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    /// `text` is only the beginning.
    pub(super) cut: bool,
    /// It ended in CR LF, not in a bare LF.
    pub(super) crlf: bool,
}

impl<'a> Line<'a> {
    pub(super) fn whole(piece: &'a [u8]) -> Self {
        let text = piece.strip_suffix(b"\n").unwrap_or(piece);
        match text.strip_suffix(b"\r") {
            Some(text) => Self { text, cut: false, crlf: true },
            None => Self { text, cut: false, crlf: false },
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.text.is_empty() && !self.cut
    }

    /// `name` is in lower case and ends in a colon: hyper refuses a space before it.
    pub(super) fn value_of(self, name: &[u8]) -> Option<&'a [u8]> {
        let (start, value) = self.text.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    }

    /// RFC 9112 7.1: hexadecimal digits, then nothing, white space or an extension.
    pub(super) fn chunk_size(self) -> Option<u64> {
        let digits = self.text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, rest) = self.text.split_at(digits);
        let is_whole = match rest.first() {
            None => !self.cut,
            Some(after) => matches!(after, b' ' | b'\t' | b';'),
        };
        if digits.is_empty() || !is_whole || !self.crlf {
            return None;
        }
        digits.iter().try_fold(0_u64, |size, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            size.checked_mul(16)?.checked_add(digit.into())
        })
    }
}

/// The beginning of a line that came in pieces: enough for every field that matters here.
#[derive(Debug)]
pub(super) struct Partial {
    text: [u8; LONGEST_LINE],
    kept: usize,
    length: usize,
    /// The last two bytes, to tell CR LF from LF.
    last: [u8; 2],
}

impl Partial {
    pub(super) const fn new() -> Self {
        Self { text: [0; LONGEST_LINE], kept: 0, length: 0, last: [0; 2] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let room = piece.len().min(LONGEST_LINE - self.kept);
        self.text[self.kept..self.kept + room].copy_from_slice(&piece[..room]);
        self.kept += room;
        self.length = self.length.saturating_add(piece.len());
        match piece {
            [] => {}
            [only] => self.last = [self.last[1], *only],
            [.., before, last] => self.last = [*before, *last],
        }
    }

    pub(super) fn line(&self) -> Line<'_> {
        let kept = &self.text[..self.kept];
        if self.kept == self.length {
            Line::whole(kept)
        } else {
            Line { text: kept, cut: true, crlf: self.last == *b"\r\n" }
        }
    }
}

const LONGEST_LINE: usize = 96;
