//! Reads a body strictly: what two parsers might read differently is not read at all.
//!
//! A rule that judges an amount must see the amount that the app will see. So duplicate names, byte order marks,
//! exponents, integers beyond 64 bits, other charsets and content codings are refused rather than guessed.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, header};
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// A body that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadBody {
    /// JSON as it is; a form as an object of strings; `Null` when empty or opaque.
    pub value: Value,
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
pub fn read_request(headers: &HeaderMap, bytes: &[u8]) -> Result<ReadBody, NotReadable> {
    let coding = one_field(headers, &header::CONTENT_ENCODING, NotReadable::ContentCoding)?;
    let content_type = one_field(headers, &header::CONTENT_TYPE, NotReadable::ContentType)?;
    read_strictly(content_type, coding, bytes)
}

/// Reads `bytes` by their content type: `application/json`, `…+json` and `application/x-www-form-urlencoded`. Bodies
/// of other types are opaque; a content coding other than `identity` makes any body unreadable.
pub fn read_strictly(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    bytes: &[u8],
) -> Result<ReadBody, NotReadable> {
    if bytes.is_empty() {
        return Ok(ReadBody { value: Value::Null, kind: BodyKind::Empty });
    }
    if content_encoding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        return Err(NotReadable::ContentCoding);
    }
    let content_type = content_type.unwrap_or_default();
    let kind = kind_of(content_type);
    if kind == BodyKind::Opaque {
        return Ok(ReadBody { value: Value::Null, kind });
    }
    check_charset(content_type)?;
    let text = std::str::from_utf8(bytes).map_err(|_| NotReadable::NotUtf8)?;
    let value = match kind {
        BodyKind::Json => read_json(text)?,
        _ => Value::Object(read_form(text)?),
    };
    Ok(ReadBody { value, kind })
}

/// JSON without duplicate names, exponents, integers beyond `i64`, decimals of more than 17 digits, or more than
/// [`MAX_DEPTH`] levels.
pub fn read_json(text: &str) -> Result<Value, NotReadable> {
    if text.starts_with('\u{feff}') {
        return Err(NotReadable::ByteOrderMark);
    }
    check_numbers(text.as_bytes())?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut parser).map_err(|e| refusal(&e))?;
    parser.end().map_err(|_| NotReadable::NotJson)?;
    Ok(value)
}

/// Names and values of a query or form in order, strictly decoded; borrowed where nothing was encoded.
pub fn form_pairs(text: &str) -> Result<Vec<(Cow<'_, str>, Cow<'_, str>)>, NotReadable> {
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

fn read_form(text: &str) -> Result<Map<String, Value>, NotReadable> {
    let mut form = Map::new();
    for (name, value) in form_pairs(text)? {
        if form.insert(name.into_owned(), Value::String(value.into_owned())).is_some() {
            return Err(NotReadable::DuplicateName);
        }
    }
    Ok(form)
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

fn kind_of(content_type: &str) -> BodyKind {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*essence {
        "application/json" | "text/json" => BodyKind::Json,
        "application/x-www-form-urlencoded" => BodyKind::Form,
        other if other.ends_with("+json") => BodyKind::Json,
        _ => BodyKind::Opaque,
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

/// Looks at every number as it is written, which a parser does not show: outside of strings a number is what begins
/// with a digit or a minus sign.
fn check_numbers(json: &[u8]) -> Result<(), NotReadable> {
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => at = end_of_string(json, at + 1),
            b'-' | b'0'..=b'9' => {
                let rest = &json[at..];
                let end = rest
                    .iter()
                    .position(|byte| {
                        !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
                    })
                    .unwrap_or(rest.len());
                check_number(&rest[..end])?;
                at += end;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The place behind the string's closing quote.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2; // the backslash and what it escapes
    }
    json.len()
}

fn check_number(written: &[u8]) -> Result<(), NotReadable> {
    let text = std::str::from_utf8(written).map_err(|_| NotReadable::Number)?;
    let sane = if text.contains(['e', 'E']) {
        false
    } else if text.contains('.') {
        let digits = text.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0');
        digits.count() <= 17 // as many as any double needs
    } else {
        text != "-0" && text.parse::<i64>().is_ok()
    };
    if sane { Ok(()) } else { Err(NotReadable::Number) }
}

/// Builds a [`Value`], refusing duplicate names and too many levels.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

const DUPLICATE: &str = "duplicate name";
const TOO_DEEP: &str = "too deep";

fn refusal(error: &serde_json::Error) -> NotReadable {
    let text = error.to_string();
    if text.starts_with(DUPLICATE) {
        NotReadable::DuplicateName
    } else if text.starts_with(TOO_DEEP) {
        NotReadable::TooDeep
    } else {
        NotReadable::NotJson
    }
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(element) = from.next_element_seed(inner)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            let value = from.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom(DUPLICATE));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json(text: &str) -> Result<Value, NotReadable> {
        read_strictly(Some("application/json"), None, text.as_bytes()).map(|read| read.value)
    }

    fn form(text: &str) -> Result<Value, NotReadable> {
        let content_type = Some("application/x-www-form-urlencoded");
        read_strictly(content_type, None, text.as_bytes()).map(|read| read.value)
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
            assert_eq!(read.value.is_null(), kind == BodyKind::Opaque);
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
