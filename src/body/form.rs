//! Strict forms and queries (`application/x-www-form-urlencoded`).

use std::borrow::Cow;

use super::{Json, MAX_FIELDS, NotReadable, Object};

/// Names and values, decoded.
pub type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Names and values of a query or form in order, strictly decoded; borrowed where nothing was encoded.
pub fn form_pairs(text: &str) -> Result<Pairs<'_>, NotReadable> {
    let mut pairs = Vec::new();
    if text.is_empty() {
        return Ok(pairs);
    }
    for pair in text.split('&') {
        if pairs.len() == MAX_FIELDS {
            return Err(NotReadable::TooManyFields);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.is_empty() {
            return Err(NotReadable::NotForm);
        }
        pairs.push((form_decode(name)?, form_decode(value)?));
    }
    Ok(pairs)
}

/// Whether a name stands in `pairs` twice.
pub fn has_duplicates(pairs: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    names.windows(2).any(|two| two[0] == two[1])
}

/// A form as an object of strings.
pub(super) fn read_form(text: &str) -> Result<Json<'_>, NotReadable> {
    let fields = form_pairs(text)?.into_iter().map(|(name, value)| (name, Json::Text(value)));
    Object::new(fields.collect()).map(Json::Object).ok_or(NotReadable::DuplicateName)
}

/// `+` is a space, `%XX` a byte; what should have been encoded, and `;` (a separator to some), is refused.
fn form_decode(text: &str) -> Result<Cow<'_, str>, NotReadable> {
    let bytes = text.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"%+;&=\"<>".contains(byte);
    if bytes.iter().all(plain) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let (digits, after) = after.split_at_checked(2).ok_or(NotReadable::NotForm)?;
                let digits = std::str::from_utf8(digits).map_err(|_| NotReadable::NotForm)?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(NotReadable::NotForm);
                }
                decoded.push(u8::from_str_radix(digits, 16).map_err(|_| NotReadable::NotForm)?);
                rest = after;
            }
            b'=' => decoded.push(byte), // within a value: every parser splits at the first one
            other if plain(&other) => decoded.push(other),
            _ => return Err(NotReadable::NotForm),
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| NotReadable::NotUtf8)?;
    if text.contains('\0') { Err(NotReadable::NotForm) } else { Ok(Cow::Owned(text)) }
}
