//! Reads a body strictly: what two parsers might read differently is not read at all.
//!
//! A rule that judges an amount must see the amount that the app will see. So duplicate names, byte order marks,
//! exponents, integers beyond 64 bits, other charsets and content codings are refused rather than guessed.

mod form;
mod json;

use http::{HeaderMap, header};

use self::form::read_form;
pub use self::{
    form::{Pairs, form_pairs, has_duplicates},
    json::{Json, Object, read_json},
};

/// A body that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadBody<'a> {
    /// JSON as it is; a form as an object of strings; `Null` when empty or opaque.
    pub json: Json<'a>,
    pub kind: BodyKind,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    Empty,
    Json,
    Form,
    /// Of a type that is not looked into (multipart, text, none given …). Rules may decide by the request alone; one
    /// that reads `body` meets `null` and so, as a rule, a fault.
    Opaque,
}

/// Why a body cannot be read. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReadable {
    #[error("it has a content coding")]
    ContentCoding,
    #[error("its content type is given twice")]
    ContentType,
    #[error("its charset is not utf-8")]
    Charset,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    #[error("it is not valid JSON")]
    NotJson,
    #[error("a name stands in it twice")]
    DuplicateName,
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a number in it is out of range or written with an exponent")]
    Number,
    #[error("it is not a valid form")]
    NotForm,
    #[error("it has more than {MAX_FIELDS} fields")]
    TooManyFields,
}

/// Levels of lists and objects.
pub const MAX_DEPTH: usize = 32;
/// Fields of a form.
pub const MAX_FIELDS: usize = 1000;

/// [`read_strictly`] with what the request's headers say. Repeated fields are refused, for which one counts?
pub fn read_request<'a>(headers: &HeaderMap, bytes: &'a [u8]) -> Result<ReadBody<'a>, NotReadable> {
    let coding = one_field(headers, &header::CONTENT_ENCODING, NotReadable::ContentCoding)?;
    let content_type = one_field(headers, &header::CONTENT_TYPE, NotReadable::ContentType)?;
    read_strictly(content_type, coding, bytes)
}

/// Reads `bytes` by their content type: `application/json`, `…+json` and `application/x-www-form-urlencoded`. Bodies
/// of other types are opaque; a content coding other than `identity` makes any body unreadable.
pub fn read_strictly<'a>(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    bytes: &'a [u8],
) -> Result<ReadBody<'a>, NotReadable> {
    if bytes.is_empty() {
        return Ok(ReadBody { json: Json::Null, kind: BodyKind::Empty });
    }
    if content_encoding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        return Err(NotReadable::ContentCoding);
    }
    let content_type = content_type.unwrap_or_default();
    // Nearly all that is looked into says just this.
    let kind = if content_type == JSON { BodyKind::Json } else { kind_of(content_type) };
    if kind == BodyKind::Opaque {
        return Ok(ReadBody { json: Json::Null, kind });
    }
    if content_type != JSON {
        check_charset(content_type)?;
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NotReadable::NotUtf8)?;
    let json = match kind {
        BodyKind::Json => read_json(text)?,
        _ => read_form(text)?,
    };
    Ok(ReadBody { json, kind })
}

fn one_field<'a>(
    headers: &'a HeaderMap,
    name: &header::HeaderName,
    twice: NotReadable,
) -> Result<Option<&'a str>, NotReadable> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(twice);
    }
    value.to_str().map(Some).map_err(|_| twice)
}

const JSON: &str = "application/json";

fn kind_of(content_type: &str) -> BodyKind {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    let ending = essence.len().checked_sub("+json".len()).and_then(|at| essence.get(at..));
    if is(JSON) || is("text/json") {
        BodyKind::Json
    } else if is("application/x-www-form-urlencoded") {
        BodyKind::Form
    } else if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("+json")) {
        BodyKind::Json
    } else {
        BodyKind::Opaque
    }
}

fn check_charset(content_type: &str) -> Result<(), NotReadable> {
    for parameter in content_type.split(';').skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset")
            && !["utf-8", "utf8"].iter().any(|utf8| value.eq_ignore_ascii_case(utf8))
        {
            return Err(NotReadable::Charset);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn json(text: &str) -> Result<Value, NotReadable> {
        read_strictly(Some("application/json"), None, text.as_bytes())
            .map(|read| read.json.to_value())
    }

    fn form(text: &str) -> Result<Value, NotReadable> {
        let content_type = Some("application/x-www-form-urlencoded");
        read_strictly(content_type, None, text.as_bytes()).map(|read| read.json.to_value())
    }

    #[test]
    fn plain_json_is_read() {
        for text in [
            r#"{"currency":"USD","cents":1999,"lines":[{"sku":"a","n":2},{"sku":"b","n":-1}]}"#,
            "9223372036854775807",
            "-9223372036854775808",
            "  [1.5, 0.25, -2.75, 52.520006599999996, true, false, null] ",
            r#""\u00e9 \ud83d\ude00 \" \\ 1e5 -9999999999999999999""#,
            r#"{"1e3":"1e3","":0}"#,
        ] {
            assert_eq!(json(text), Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_another_parser_may_read_differently_is_refused() {
        use NotReadable::*;
        for (text, why) in [
            (r#"{"a":1,"a":2}"#, DuplicateName),
            (r#"{"a":1,"\u0061":2}"#, DuplicateName),
            (r#"{"x":[{"b":{"c":1,"d":2,"c":1}}]}"#, DuplicateName),
            ("1e3", Number),
            ("[1E3]", Number),
            ("1.0e2", Number),
            ("9223372036854775808", Number),
            ("-9223372036854775809", Number),
            ("99999999999999999999999999", Number),
            ("-0", Number),
            ("0.123456789012345678", Number),
            ("NaN", NotJson),
            ("Infinity", NotJson),
            ("-Infinity", Number),
            ("01", NotJson),
            ("1.", NotJson),
            (".5", NotJson),
            ("+1", NotJson),
            ("0x10", NotJson),
            ("{} {}", NotJson),
            ("{}x", NotJson),
            ("[1,]", NotJson),
            ("{'a':1}", NotJson),
            ("{\"a\":1}\u{0}", NotJson),
            ("// c\n{}", NotJson),
            (r#""\ud800""#, NotJson),
            (r#""\udc00\ud800""#, NotJson),
            (r#"{"\ud800":1}"#, NotJson),
            ("\"a\nb\"", NotJson),
            ("\u{feff}{}", ByteOrderMark),
            ("\"open", NotJson),
            (r#""open\"#, NotJson),
            ("   ", NotJson),
        ] {
            assert_eq!(json(text), Err(why), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_exactly() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(json(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(json(&nested(MAX_DEPTH + 1)), Err(NotReadable::TooDeep));
        assert_eq!(json(&"{\"a\":".repeat(40)), Err(NotReadable::TooDeep));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        for bytes in [&b"\"\xff\""[..], b"\xff\xfe{\0}\0", b"\"\xc0\xaf\"", b"\"\xed\xa0\x80\""] {
            let read = read_strictly(Some("application/json"), None, bytes);
            assert_eq!(read, Err(NotReadable::NotUtf8), "{bytes:?}");
        }
    }

    #[test]
    fn forms_are_objects_of_strings() {
        assert_eq!(
            form("a=1&b=x+y&c=%C3%A9&d=&e"),
            Ok(json!({"a":"1","b":"x y","c":"é","d":"","e":""}))
        );
        assert_eq!(form("token=ab=="), Ok(json!({"token":"ab=="})));
        assert_eq!(form("a%5Bb%5D=1"), Ok(json!({"a[b]":"1"})));
    }

    #[test]
    fn doubtful_forms_are_refused() {
        use NotReadable::*;
        for (text, why) in [
            ("a=1&a=2", DuplicateName),
            ("a=1&%61=2", DuplicateName),
            ("a=%", NotForm),
            ("a=%4", NotForm),
            ("a=%zz", NotForm),
            ("a=%+1", NotForm),
            ("a=%FF", NotUtf8),
            ("a=1;b=2", NotForm),
            ("a=1&&b=2", NotForm),
            ("a=1&", NotForm),
            ("=1", NotForm),
            ("a=x y", NotForm),
            ("a=\u{e9}", NotForm),
            ("a=%00", NotForm),
            ("a=1\r\n", NotForm),
        ] {
            assert_eq!(form(text), Err(why), "{text}");
        }
        let many = (0..=MAX_FIELDS).map(|n| format!("f{n}=1")).collect::<Vec<_>>().join("&");
        assert_eq!(form(&many), Err(TooManyFields));
    }

    #[test]
    fn the_content_type_decides() {
        for (content_type, kind) in [
            (Some("application/json"), BodyKind::Json),
            (Some("Application/JSON; charset=UTF-8"), BodyKind::Json),
            (Some("application/json;charset=\"utf-8\""), BodyKind::Json),
            (Some("application/vnd.shop+json"), BodyKind::Json),
            (Some("text/plain"), BodyKind::Opaque),
            (Some("multipart/form-data; boundary=x"), BodyKind::Opaque),
            (None, BodyKind::Opaque),
        ] {
            let read = read_strictly(content_type, None, b"{}").unwrap();
            assert_eq!(read.kind, kind, "{content_type:?}");
            assert_eq!(read.json == Json::Null, kind == BodyKind::Opaque);
        }
        let latin = read_strictly(Some("application/json; charset=iso-8859-1"), None, b"{}");
        assert_eq!(latin, Err(NotReadable::Charset));
        let utf16 = read_strictly(Some("application/json;charset=utf-16"), None, b"{}");
        assert_eq!(utf16, Err(NotReadable::Charset));
    }

    #[test]
    fn a_content_coding_makes_any_body_unreadable() {
        for coding in ["gzip", "br", "identity, gzip", ""] {
            let read = read_strictly(Some("text/plain"), Some(coding), b"x");
            assert_eq!(read, Err(NotReadable::ContentCoding), "{coding}");
        }
        assert!(read_strictly(Some("text/plain"), Some("Identity"), b"x").is_ok());
        assert_eq!(read_strictly(None, Some("gzip"), b"").unwrap().kind, BodyKind::Empty);
    }

    #[test]
    fn repeated_fields_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append("content-type", "application/json".parse().unwrap());
        assert!(read_request(&headers, b"{}").is_ok());
        headers.append("content-type", "text/plain".parse().unwrap());
        assert_eq!(read_request(&headers, b"{}"), Err(NotReadable::ContentType));
    }

    proptest! {
        /// The nearest double, as other parsers read it: a rule sees, and an answer says, what the client wrote.
        #[test]
        fn a_decimal_is_what_was_written(double in -1e9_f64..1e9) {
            let written = format!("{double}");
            if let Ok(value) = json(&written) {
                prop_assert_eq!(value.to_string().parse::<f64>().unwrap(), double, "{}", written);
            }
        }

        #[test]
        fn what_is_read_is_what_any_parser_reads(text in r#"[\[\]{}:,"a0-9.eE\\u -]{0,30}"#) {
            if let Ok(value) = json(&text) && !text.is_empty() {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_strictly(Some("application/json"), None, &bytes);
            let _ = read_strictly(Some("application/x-www-form-urlencoded"), None, &bytes);
        }
    }
}
