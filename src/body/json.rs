//! Strict JSON: serde_json, with what it lets through refused; and a quick way for what is plain.

mod object;
mod quick;

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};

pub use self::object::Object;
use super::{MAX_DEPTH, NotReadable};

/// JSON as it stands in the body: texts are borrowed, nothing is hashed. Most of a body is only looked through.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Object<'a>),
}

impl Json<'_> {
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
            Self::Object(object) => object.to_value(),
        }
    }
}

/// JSON without duplicate names, exponents, integers beyond `i64`, decimals of more than 17 digits, or more than
/// [`MAX_DEPTH`] levels.
pub fn read_json(text: &str) -> Result<Json<'_>, NotReadable> {
    quick::read(text).map_or_else(|| read_by_serde(text), Ok)
}

/// The strict reader: it knows all of JSON, and why it refuses.
fn read_by_serde(text: &str) -> Result<Json<'_>, NotReadable> {
    if text.starts_with('\u{feff}') {
        return Err(NotReadable::ByteOrderMark);
    }
    check_numbers(text.as_bytes())?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut parser).map_err(|e| refusal(&e))?;
    parser.end().map_err(|_| NotReadable::NotJson)?;
    Ok(value)
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

/// Builds a [`Json`], refusing duplicate names and too many levels.
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
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json<'de>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        // JSON has no others.
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(element) = from.next_element_seed(inner)? {
            list.push(element);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut fields = Vec::with_capacity(8);
        while let Some(name) = from.next_key_seed(Name)? {
            fields.push((name, from.next_value_seed(inner)?));
        }
        Object::new(fields).map(Json::Object).ok_or_else(|| de::Error::custom(DUPLICATE))
    }
}

/// A name of an object, borrowed where nothing in it is escaped.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
