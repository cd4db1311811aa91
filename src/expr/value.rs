//! Values while an expression runs: borrowed from the request where they can be. Equality and order as in CEL.

use std::{borrow::Cow, cmp::Ordering, rc::Rc};

use serde_json::Value;

use super::{document::Tree, fields::Fields};

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Cow<'a, str>),
    /// A list or an object of JSON.
    Json(Tree<'a>),
    /// A list that the expression made.
    List(Rc<[Val<'a>]>),
    Fields(Fields<'a>),
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("there is no field `{0}`")]
    NoField(Box<str>),
    #[error("there is no such key or index")]
    NoKey,
    #[error("`{0}` does not take values of these types")]
    Types(&'static str),
    #[error("integer overflow")]
    Overflow,
    #[error("division by zero")]
    DivisionByZero,
    #[error("the text is not a number")]
    NotANumber,
    #[error("two values cannot be compared")]
    NotComparable,
    #[error("it does not give {0}")]
    Result(&'static str),
    #[error("{0}")]
    Unreadable(&'static str),
    #[error("the request is too large for it")]
    TooLarge,
    #[error("it takes too long on this request")]
    TooLong,
    #[error("{0}")]
    Cel(&'static str),
}

impl<'a> Val<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The value as JSON. NaN and the infinities have no JSON.
    pub(super) fn to_json(&self) -> Result<Value, Fault> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => (*value).into(),
            Self::UInt(value) => (*value).into(),
            Self::Double(value) => serde_json::Number::from_f64(*value)
                .map(Value::Number)
                .ok_or(Fault::Result("a finite number"))?,
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::Json(tree) => tree.to_value(),
            Self::List(list) => {
                Value::Array(list.iter().map(Val::to_json).collect::<Result<_, _>>()?)
            }
            Self::Fields(fields) => Value::Object(
                fields
                    .names()?
                    .into_iter()
                    .map(|name| Ok((name.to_owned(), fields.get(name)?.unwrap_or_default().into())))
                    .collect::<Result<_, Fault>>()?,
            ),
        })
    }

    /// Adds it as JSON text.
    pub(super) fn write_json(&self, json: &mut Vec<u8>) -> Result<(), Fault> {
        if let Self::Text(text) = self
            && is_written_as_it_is(text)
        {
            json.extend_from_slice(b"\"");
            json.extend_from_slice(text.as_bytes());
            json.extend_from_slice(b"\"");
            return Ok(());
        }
        serde_json::to_writer(json, &self.to_json()?).map_err(|_| Fault::Result("JSON"))
    }

    /// The value of `name` in a map; a fault if this is no map.
    pub(super) fn field(&self, name: &str) -> Result<Option<Val<'a>>, Fault> {
        match self {
            Self::Json(tree) if !tree.is_list() => Ok(tree.field(name)),
            Self::Fields(fields) => Ok(fields.get(name)?.map(Val::Text)),
            _ => Err(Fault::Types(".")),
        }
    }

    /// Elements of a list, keys of a map.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Json(tree) => Some(tree.len()),
            Self::List(list) => Some(list.len()),
            Self::Fields(fields) => Some(fields.len()),
            _ => None,
        }
    }

    /// The element at `index` of a list.
    pub(super) fn element(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(tree) => tree.element(index),
            Self::List(list) => list.get(index).cloned(),
            _ => None,
        }
    }

    pub(super) fn is_list(&self) -> bool {
        match self {
            Self::List(_) => true,
            Self::Json(tree) => tree.is_list(),
            _ => false,
        }
    }

    /// The elements of a list or the keys of a map; none if it is neither.
    pub(super) fn elements(&self) -> Result<Option<Vec<Val<'a>>>, Fault> {
        Ok(Some(match self {
            Self::Json(tree) => tree.elements(),
            Self::List(list) => list.to_vec(),
            Self::Fields(fields) => fields.names()?.into_iter().map(Val::text).collect(),
            _ => return Ok(None),
        }))
    }

    /// CEL's `==`: numbers by their value, other types only with their own; never a fault but for unreadable fields.
    pub(super) fn equals(&self, other: &Val<'_>) -> Result<bool, Fault> {
        Ok(match (self, other) {
            (Self::Null, Val::Null) => true,
            (Self::Bool(one), Val::Bool(two)) => one == two,
            (Self::Text(one), Val::Text(two)) => one == two,
            _ if self.is_number() && other.is_number() => {
                self.compare(other).is_ok_and(Ordering::is_eq)
            }
            _ if self.is_list() && other.is_list() => {
                if self.len() != other.len() {
                    return Ok(false);
                }
                for at in 0..self.len().unwrap_or(0) {
                    let (Some(one), Some(two)) = (self.element(at), other.element(at)) else {
                        return Ok(false);
                    };
                    if !one.equals(&two)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ if self.is_map() && other.is_map() => {
                if self.len() != other.len() {
                    return Ok(false);
                }
                for key in self.elements()?.unwrap_or_default() {
                    let Val::Text(key) = key else { return Ok(false) };
                    match (self.field(&key)?, other.field(&key)?) {
                        (Some(one), Some(two)) if one.equals(&two)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// CEL's `<` and its kin: numbers with numbers, text with text, bools with bools.
    pub(super) fn compare(&self, other: &Val<'_>) -> Result<Ordering, Fault> {
        let doubles = |one: f64, two: f64| one.partial_cmp(&two).ok_or(Fault::NotComparable);
        match (self, other) {
            (Self::Int(one), Val::Int(two)) => Ok(one.cmp(two)),
            (Self::UInt(one), Val::UInt(two)) => Ok(one.cmp(two)),
            (Self::Int(one), Val::UInt(two)) => {
                Ok(u64::try_from(*one).map_or(Ordering::Less, |one| one.cmp(two)))
            }
            (Self::UInt(one), Val::Int(two)) => {
                Ok(u64::try_from(*two).map_or(Ordering::Greater, |two| one.cmp(&two)))
            }
            (Self::Double(one), Val::Double(two)) => doubles(*one, *two),
            (Self::Double(one), Val::Int(two)) => doubles(*one, *two as f64),
            (Self::Double(one), Val::UInt(two)) => doubles(*one, *two as f64),
            (Self::Int(one), Val::Double(two)) => doubles(*one as f64, *two),
            (Self::UInt(one), Val::Double(two)) => doubles(*one as f64, *two),
            (Self::Text(one), Val::Text(two)) => Ok(one.cmp(two)),
            (Self::Bool(one), Val::Bool(two)) => Ok(one.cmp(two)),
            _ => Err(Fault::Types("<")),
        }
    }

    /// How much there is to go through, for the budget: values of JSON, bytes of text.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len() / 64,
            Self::Json(tree) => tree.weight(),
            Self::List(list) => list.iter().map(|element| 1 + element.weight()).sum(),
            Self::Fields(fields) => fields.len(),
            _ => 0,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::UInt(_) | Self::Double(_))
    }

    fn is_map(&self) -> bool {
        match self {
            Self::Fields(_) => true,
            Self::Json(tree) => !tree.is_list(),
            _ => false,
        }
    }
}

/// Whether nothing of a text is escaped in JSON: looked at without an early end, in blocks.
fn is_written_as_it_is(text: &str) -> bool {
    let is_escaped = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    !text.bytes().fold(false, |found, byte| found | is_escaped(byte))
}
