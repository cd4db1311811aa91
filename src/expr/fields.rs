//! Headers, queries, cookies and path parameters as maps of text, without copying them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::value::Fault;

/// A map of names to text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fields<'a> {
    /// Names in lower case; repeated fields are joined by `", "`.
    Headers(&'a HeaderMap),
    Pairs(&'a [(Cow<'a, str>, Cow<'a, str>)]),
    Params(&'a [(String, String)]),
}

impl<'a> Fields<'a> {
    /// The value of `name`; a header that is not UTF-8 is a fault.
    pub(super) fn get(&self, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        match self {
            Self::Headers(headers) => joined(headers, name),
            Self::Pairs(pairs) => {
                Ok(pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
            }
            Self::Params(params) => Ok(params
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| Cow::Borrowed(value.as_str()))),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Headers(headers) => headers.keys_len(),
            Self::Pairs(pairs) => pairs.len(),
            Self::Params(params) => params.len(),
        }
    }

    pub(super) fn names(&self) -> Result<Vec<&'a str>, Fault> {
        Ok(match self {
            Self::Headers(headers) => headers.keys().map(HeaderName::as_str).collect(),
            Self::Pairs(pairs) => pairs.iter().map(|(name, _)| &**name).collect(),
            Self::Params(params) => params.iter().map(|(name, _)| name.as_str()).collect(),
        })
    }
}

/// The field's values joined by `", "` (RFC 9110, 5.3). A name that is not in lower case is not there.
fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(None);
    }
    let mut values = headers.get_all(name).iter().map(|value| {
        std::str::from_utf8(value.as_bytes())
            .map_err(|_| Fault::Unreadable("a header is not UTF-8"))
    });
    let Some(first) = values.next().transpose()? else { return Ok(None) };
    let mut all = Cow::Borrowed(first);
    for value in values {
        let all = all.to_mut();
        all.push_str(", ");
        all.push_str(value?);
    }
    Ok(Some(all))
}
