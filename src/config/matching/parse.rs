//! The three parts of a `match`, each with what to write instead.

use http::Method;

use super::{MatchFault, Segment};

pub(super) fn method(text: &str) -> Result<Method, MatchFault> {
    let method = Method::from_bytes(text.as_bytes())
        .map_err(|_| MatchFault(format!("`{text}` is not a method; {FORM}")))?;
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return fault(format!(
            "methods are in upper case: write `{}` instead of `{text}`",
            text.to_ascii_uppercase()
        ));
    }
    if text.len() > LONGEST_METHOD {
        return fault(format!("a method has at most {LONGEST_METHOD} letters"));
    }
    Ok(method)
}

pub(super) fn host(text: &str) -> Result<String, MatchFault> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let named = text.len() <= LONGEST_HOST
        && text.split('.').all(|label| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.bytes().all(fits)
        });
    if bracketed || named {
        return Ok(text.to_ascii_lowercase());
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return fault(format!("a host in a match has no port: write `{host}` instead of `{text}`"));
    }
    if text.contains(['*', '{']) {
        return fault(format!(
            "`{text}`: a host in a match is one whole name, without `*` or `{{}}`"
        ));
    }
    fault(format!("`{text}` is not a host name; {FORM}"))
}

pub(super) fn path(text: &str) -> Result<Vec<Segment>, MatchFault> {
    if let Some(mark) = text.find(['?', '#']) {
        return fault(format!("a match ends with the path: leave out `{}`", &text[mark..]));
    }
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    if parts.len() > MOST_SEGMENTS {
        return fault(format!("a match has at most {MOST_SEGMENTS} segments"));
    }
    let last = parts.len() - 1;
    let mut names: Vec<&str> = Vec::new();
    let mut segments = Vec::with_capacity(parts.len());
    for (at, part) in parts.into_iter().enumerate() {
        if part.is_empty() && at != last {
            return fault(format!("`{text}` has an empty segment: write one `/` instead of two"));
        }
        let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            segments.push(literal(part)?);
            continue;
        };
        let (name, rest) = match name.strip_suffix("...") {
            Some(name) => (name, true),
            None => (name, false),
        };
        check_name(part, name)?;
        if names.contains(&name) {
            return fault(format!("`{name}` is there twice: give each parameter its own name"));
        }
        names.push(name);
        if rest && at != last {
            return fault(format!("`{part}` takes all the rest: it can only stand at the end"));
        }
        let name = name.to_owned();
        segments.push(if rest { Segment::Rest(name) } else { Segment::Param(name) });
    }
    Ok(segments)
}

fn check_name(part: &str, name: &str) -> Result<(), MatchFault> {
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = name.bytes().next().is_some_and(starts) && name.bytes().all(goes_on);
    if fits && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    fault(format!(
        "`{part}`: a parameter is `{{name}}` or `{{name...}}`, its name of letters, digits and `_`"
    ))
}

fn literal(part: &str) -> Result<Segment, MatchFault> {
    if part.contains(['{', '}', '*']) {
        return fault(format!(
            "`{part}`: a parameter is a whole segment, `/{{name}}/`, or at the end `/{{name...}}`"
        ));
    }
    let text = percent_encoding::percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| MatchFault(format!("`{part}` does not decode to UTF-8")))?;
    if text == "." || text == ".." {
        return fault(format!("`{part}`: paths are matched free of dots, so this never matches"));
    }
    if text.contains(['/', '\\', ';']) || text.chars().any(char::is_control) {
        return fault(format!(
            "`{part}`: no route takes a path with an encoded slash, `\\`, `;` or a control character"
        ));
    }
    Ok(Segment::Literal(text.into_owned()))
}

pub(super) fn fault<T>(text: String) -> Result<T, MatchFault> {
    Err(MatchFault(text))
}

pub(super) const FORM: &str = "write \"[METHOD] [HOST]/PATH\", for example \"POST /orders/{id}\"";
const LONGEST_METHOD: usize = 32;
const LONGEST_HOST: usize = 253;
const LONGEST_NAME: usize = 64;
const MOST_SEGMENTS: usize = 64;
