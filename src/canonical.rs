//! The canonical path: what routes are matched on. Says whether another parser could read the raw path differently.
//!
//! Bytes are always forwarded as they came (RFC 9110, 7.7); a path that is not exact is only ever passed through.

use std::borrow::Cow;

/// A path as routes and rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// Decoded, without dot segments, empty segments and `;params`.
    pub path: Cow<'a, str>,
    /// False when two parsers might disagree about what the raw path means: then never stand in.
    pub exact: bool,
}

impl Canonical<'_> {
    /// The path, where it is not the raw one.
    pub fn if_another(self) -> Option<String> {
        match self.path {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        }
    }
}

/// The canonical form of `raw`, the path of a request target without its query. Allocates only if `raw` has it not yet.
///
/// Encoded bytes that have no other legal spelling (`%20`, UTF-8 text) or no meaning in a path (`%40`) are decoded and
/// exact. Encoded separators, dots, letters, `%25` and controls are not exact; separators, `%25` and controls stay
/// encoded, so that they cannot make one segment look like two.
pub fn canonical_path(raw: &str) -> Canonical<'_> {
    if is_plain(raw.as_bytes()) {
        return Canonical { path: Cow::Borrowed(raw), exact: true };
    }
    if !raw.starts_with('/') {
        return Canonical { path: Cow::Borrowed(raw), exact: false };
    }
    let mut exact = true;
    let path = normalise(raw, &mut exact);
    Canonical { path: Cow::Owned(path), exact }
}

/// Whether `raw` is canonical already: only plain characters, no dot segments, no empty ones but the last.
fn is_plain(raw: &[u8]) -> bool {
    if raw.first() != Some(&b'/') {
        return false;
    }
    let mut before = [0, 0, 0];
    for &byte in raw {
        if byte == b'/' && ends_badly(before) {
            return false;
        }
        if !PLAIN[usize::from(byte)] {
            return false;
        }
        before = [before[1], before[2], byte];
    }
    // The last segment may be empty.
    before[2] == b'/' || !ends_badly(before)
}

/// Whether a segment that ends with these bytes is empty, `.` or `..`.
fn ends_badly(before: [u8; 3]) -> bool {
    matches!(before, [_, _, b'/'] | [_, b'/', b'.'] | [b'/', b'.', b'.'])
}

/// The slash, and what may stand unencoded in a segment.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = byte == b'/' as usize || is_path_character(byte as u8);
        byte += 1;
    }
    plain
};

fn normalise(raw: &str, exact: &mut bool) -> String {
    if raw.contains('\\') {
        *exact = false; // some servers read it as a slash
    }
    let mut path = String::with_capacity(raw.len());
    let mut segments = raw[1..].split(['/', '\\']).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let segment = decode(segment, exact);
        match &*segment {
            "." | ".." => {
                *exact = false;
                if segment.len() == 2 {
                    path.truncate(path.rfind('/').unwrap_or(0));
                }
                if last {
                    path.push('/');
                }
            }
            "" if !last => *exact = false,
            _ => {
                path.push('/');
                path.push_str(&segment);
            }
        }
    }
    path
}

/// One segment without its `;params`, decoded where that is safe.
fn decode<'a>(segment: &'a str, exact: &mut bool) -> Cow<'a, str> {
    let segment = match segment.split_once(';') {
        Some((name, _params)) => {
            *exact = false;
            name
        }
        None => segment,
    };
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            *exact &= is_path_character(byte);
            decoded.push(byte);
            continue;
        }
        match after {
            [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = after;
                let value = hex(*high) << 4 | hex(*low);
                if is_unreserved(value) {
                    *exact = false; // nobody need encode it: one parser decodes it before it matches, another after
                    decoded.push(value);
                } else if stays_encoded(value) {
                    *exact = false;
                    decoded.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
                } else {
                    decoded.push(value);
                }
            }
            _ => {
                *exact = false;
                decoded.push(b'%');
            }
        }
    }
    match String::from_utf8(decoded) {
        Ok(text) => {
            *exact &= !text.chars().any(char::is_control);
            Cow::Owned(text)
        }
        Err(_) => {
            *exact = false;
            Cow::Borrowed(segment)
        }
    }
}

/// What may stand unencoded in a segment (RFC 3986, 3.3 `pchar`), but for `;`, which starts parameters.
const fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
        )
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decoding it would change what the path means.
fn stays_encoded(byte: u8) -> bool {
    byte.is_ascii_control() || b"/\\;?#%".contains(&byte)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_paths_are_exact_and_cost_no_allocation() {
        for raw in
            ["/", "/a", "/a/b/", "/a-b_c~d.e/f", "/a@b:c,d=e+f", "/..a/b..", "/a.b/...", "/*"]
        {
            let canonical = canonical_path(raw);
            assert!(matches!(canonical.path, Cow::Borrowed(path) if path == raw), "{raw}");
            assert!(canonical.exact, "{raw}");
        }
    }

    #[test]
    fn encodings_without_another_spelling_are_decoded_and_exact() {
        for (raw, path) in [
            ("/a%20b", "/a b"),
            ("/caf%C3%A9", "/café"),
            ("/caf%c3%a9", "/café"),
            ("/a%40b.org", "/a@b.org"),
            ("/%22x%22", "/\"x\""),
            ("/a%2Bb", "/a+b"),
            ("/%7Bid%7D/", "/{id}/"),
        ] {
            assert_eq!(canonical_path(raw), Canonical { path: path.into(), exact: true }, "{raw}");
        }
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_not_exact() {
        for (raw, path) in [
            ("/api/orders/..;/admin", "/api/admin"),
            ("/api/orders/..;x=1/admin", "/api/admin"),
            ("/%2e%2e/", "/"),
            ("/a/%2E%2E/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/.%2e/b", "/b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a\\b", "/a/b"),
            ("/a\\..\\b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../b", "/b"),
            ("/%41", "/A"),
            ("/a//b", "/a/b"),
            ("//a", "/a"),
            ("/a//", "/a/"),
            ("/a;v=1/b", "/a/b"),
            ("/a%3Bb", "/a%3Bb"),
            ("/a%3fb", "/a%3Fb"),
            ("/a%23b", "/a%23b"),
            ("/a%252Fb", "/a%252Fb"),
            ("/a%00b", "/a%00b"),
            ("/a%0D%0Ab", "/a%0D%0Ab"),
            ("/a%7F", "/a%7F"),
            ("/a%C2%85b", "/a\u{85}b"),
            ("/a%FFb", "/a%FFb"),
            ("/a%C0%AFb", "/a%C0%AFb"),
            ("/a%zzb", "/a%zzb"),
            ("/a%2", "/a%2"),
            ("/a%", "/a%"),
            ("/café", "/café"),
            ("/a b", "/a b"),
            ("/a?b", "/a?b"),
            ("/a#b", "/a#b"),
            ("/a\"b", "/a\"b"),
            ("*", "*"),
            ("", ""),
            ("a/b", "a/b"),
            ("example.org:80", "example.org:80"),
        ] {
            assert_eq!(canonical_path(raw), Canonical { path: path.into(), exact: false }, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn an_exact_path_has_no_dot_segment_and_no_empty_one(raw in "/[a-c./;%\\\\2eEfF05é]{0,24}") {
            let canonical = canonical_path(&raw);
            let segments: Vec<_> = canonical.path.split('/').skip(1).collect();
            for (at, segment) in segments.iter().enumerate() {
                prop_assert!(!matches!(*segment, "." | ".."), "{raw} -> {canonical:?}");
                prop_assert!(!segment.is_empty() || at + 1 == segments.len(), "{raw} -> {canonical:?}");
            }
            if canonical.exact {
                prop_assert!(!raw.contains([';', '\\']));
            }
        }

        #[test]
        fn a_path_is_plain_by_the_rule(raw in "/?([/a.]{0,2}[a-z/.@~:;%\\\\ é]{0,3}[/.]{0,3}){0,4}") {
            let characters = |segment: &str| segment.bytes().all(is_path_character);
            let by_the_rule = raw.strip_prefix('/').is_some_and(|rest| {
                let segments: Vec<&str> = rest.split('/').collect();
                let (last, others) = segments.split_last().unwrap();
                segments.iter().all(|segment| characters(segment) && !matches!(*segment, "." | ".."))
                    && (last.is_empty() || characters(last))
                    && others.iter().all(|segment| !segment.is_empty())
            });
            prop_assert_eq!(is_plain(raw.as_bytes()), by_the_rule, "{}", raw);
        }

        #[test]
        fn any_text_is_taken_without_a_panic(raw in "\\PC{0,40}") {
            let _ = canonical_path(&raw);
        }
    }
}
