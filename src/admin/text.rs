//! Makes stored bytes fit to be looked at. They are hostile input: control, bidi and invisible characters are written
//! out, credentials are not shown, everything has a limit. HTML escaping is the template's work, not done here.

use std::fmt::Write as _;

/// Stands where a credential was.
pub(crate) const HIDDEN: &str = "(kept, not shown)";

/// Most bytes of one body that are shown; the rest is in the download.
pub(crate) const SHOWN_BYTES: usize = 64 * 1024;

/// Most characters of one line (a header value, a target, a label).
const LINE: usize = 2048;

/// A body as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `json`, `form`, `text`, `hex` or `empty`.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) truncated: bool,
}

/// Pretty JSON when it is JSON, one field a line when it is a form, text when it is text, else hex.
pub(crate) fn show_body(bytes: &[u8], content_type: &str) -> Shown {
    if bytes.is_empty() {
        return Shown { kind: "empty", text: String::new(), truncated: false };
    }
    // Parsed whole, so that a long JSON body is still pretty; only what is shown is cut.
    if bytes.len() <= 16 * SHOWN_BYTES
        && let Some(text) = pretty_json(bytes)
    {
        return cut("json", &text);
    }
    if content_type.starts_with("application/x-www-form-urlencoded")
        && std::str::from_utf8(bytes).is_ok()
    {
        return cut("form", &form_lines(bytes));
    }
    let (head, more) = head(bytes);
    match as_text(head) {
        Some(text) => Shown { kind: "text", text: block(text), truncated: more },
        None => {
            let few = &bytes[..bytes.len().min(SHOWN_BYTES / 16)];
            Shown { kind: "hex", text: hex_dump(few), truncated: few.len() < bytes.len() }
        }
    }
}

/// One line: every control, bidi or invisible character is written out; bounded.
pub(crate) fn line(text: &str) -> String {
    let mut shown = visible(text, LINE, |_| false);
    if text.chars().nth(LINE).is_some() {
        shown.push('…');
    }
    shown
}

/// One line from bytes that may not be UTF-8.
pub(crate) fn line_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => line(text),
        Err(_) => line(&bytes.escape_ascii().to_string()),
    }
}

/// Several lines: as [`line()`], but line feeds and tabs stay.
pub(crate) fn block(text: &str) -> String {
    visible(text, usize::MAX, |c| matches!(c, '\n' | '\t'))
}

/// The value of a header, unless it is a credential.
pub(crate) fn header_value(name: &str, value: &[u8]) -> String {
    if is_secret(name) { HIDDEN.to_owned() } else { line_of(value) }
}

/// A request target whose query parameters that look like credentials are not shown.
pub(crate) fn target(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return line(target) };
    let fields: Vec<String> = query
        .split('&')
        .map(|field| match field.split_once('=') {
            Some((name, _)) if is_secret(&decoded(name)) => format!("{name}={HIDDEN}"),
            _ => field.to_owned(),
        })
        .collect();
    line(&format!("{path}?{}", fields.join("&")))
}

/// Whether a header, parameter or field of this name carries a credential. Rather one too many.
pub(crate) fn is_secret(name: &str) -> bool {
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

const SECRET_WORDS: [&str; 14] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "passphrase",
    "session",
    "apikey",
    "credential",
    "signature",
    "csrf",
    "xsrf",
    "jwt",
    "privatekey",
];

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn visible(text: &str, at_most: usize, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len().min(at_most));
    for c in text.chars().take(at_most) {
        if keep(c) || !needs_escape(c) {
            shown.push(c);
        } else {
            let _ = write!(shown, "\\u{{{:04x}}}", u32::from(c));
        }
    }
    shown
}

/// Characters that change how their neighbours look, or cannot be seen.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E
            | 0x2060..=0x206F | 0x3164 | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0xE0000..=0xE0FFF)
}

fn pretty_json(bytes: &[u8]) -> Option<String> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if !(value.is_object() || value.is_array()) {
        return None;
    }
    hide_fields(&mut value);
    serde_json::to_string_pretty(&value).ok().map(|text| block(&text))
}

fn hide_fields(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if is_secret(name) && !field.is_object() && !field.is_null() {
                    *field = HIDDEN.into();
                } else {
                    hide_fields(field);
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(hide_fields),
        _ => {}
    }
}

fn form_lines(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        let value = if is_secret(&name) { HIDDEN.into() } else { line(&value) };
        let _ = writeln!(text, "{} = {value}", line(&name));
    }
    text
}

fn head(bytes: &[u8]) -> (&[u8], bool) {
    (&bytes[..bytes.len().min(SHOWN_BYTES)], bytes.len() > SHOWN_BYTES)
}

fn cut(kind: &'static str, text: &str) -> Shown {
    let end = text.floor_char_boundary(SHOWN_BYTES);
    Shown { kind, text: text[..end].to_owned(), truncated: end < text.len() }
}

/// The bytes as text if they are UTF-8 (but for a character cut at the end) and mostly printable.
fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let odd = text.chars().filter(|c| c.is_control() && !c.is_whitespace()).count();
    (odd * 10 <= text.chars().count()).then_some(text)
}

fn hex_dump(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5);
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "{:08x} ", row * 16);
        for column in 0..16 {
            match chunk.get(column) {
                Some(byte) => _ = write!(text, " {byte:02x}"),
                None => text.push_str("   "),
            }
        }
        text.push_str("  ");
        text.extend(
            chunk.iter().map(|&b| if (32..127).contains(&b) { char::from(b) } else { '.' }),
        );
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(
            line("a\u{202e}b\u{1b}[31m\n\u{200b}"),
            "a\\u{202e}b\\u{001b}[31m\\u{000a}\\u{200b}"
        );
        assert_eq!(line("Füße ✓"), "Füße ✓");
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(line(&"x".repeat(5000)).chars().count(), LINE + 1);
    }

    #[test]
    fn json_is_pretty_and_its_credentials_are_hidden() {
        let shown =
            show_body(br#"{"name":"<b>","password":"canary","deep":[{"api_key":"canary"}]}"#, "");
        assert_eq!(shown.kind, "json");
        assert!(shown.text.contains("\"<b>\"") && !shown.text.contains("canary"));
    }

    #[test]
    fn a_form_is_one_field_a_line() {
        let shown = show_body(b"a=1%0a2&card_token=canary", "application/x-www-form-urlencoded");
        assert_eq!(shown.text, "a = 1\\u{000a}2\ncard_token = (kept, not shown)\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_hex() {
        let shown = show_body(&[0, 1, 255, b'A'], "");
        assert_eq!(shown.kind, "hex");
        assert!(shown.text.starts_with("00000000  00 01 ff 41 "));
        assert!(shown.text.ends_with("...A\n"));
    }

    #[test]
    fn a_large_body_is_cut_even_within_a_character() {
        let shown = show_body("ü".repeat(SHOWN_BYTES).as_bytes(), "text/plain");
        assert_eq!((shown.kind, shown.truncated), ("text", true));
        assert!(show_body(format!("[\"{}\"]", "ü".repeat(SHOWN_BYTES)).as_bytes(), "").truncated);
    }

    #[test]
    fn credentials_are_known_by_name() {
        for name in [
            "authorization",
            "Cookie",
            "x-api-key",
            "X-Session-Id",
            "set-cookie",
            "proxy-authorization",
            "clientSecret",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["content-type", "accept", "idempotency-key", "host", "order"] {
            assert!(!is_secret(name), "{name}");
        }
        assert_eq!(
            target("/a?x=1&access%5ftoken=canary"),
            format!("/a?x=1&access%5ftoken={HIDDEN}")
        );
    }
}
