//! What counts as a host and port.

use std::net::Ipv6Addr;

/// `uri-host [ ":" port ]`. Stricter than RFC 3986's `reg-name` on purpose: percent-encodings and sub-delims name no
/// host in DNS, and an attack is the only place where they are seen. User information is never valid here.
pub(super) fn is_host_and_port(text: &[u8]) -> bool {
    let (is_host, rest) = if let [b'[', literal @ ..] = text {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
        let address = std::str::from_utf8(&literal[..end]).unwrap_or_default();
        (address.parse::<Ipv6Addr>().is_ok(), &literal[end + 1..])
    } else {
        let end = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
        (end > 0 && text[..end].iter().all(|&byte| is_host_byte(byte)), &text[end..])
    };
    is_host
        && match rest {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 3.2.3: digits, even none.
fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'))
            <= u32::from(u16::MAX)
}
