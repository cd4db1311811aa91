//! JSON that expressions look at: a value, or a body as it was read from its text. Nothing of it is copied before an
//! expression gives it as its result.

use std::borrow::Cow;

use serde_json::Value;

use super::value::Val;
use crate::body::{Json, Object};

/// See the module. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    Value(&'a Value),
    Read(&'a Json<'a>),
}

/// A list or an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tree<'a> {
    List(&'a [Value]),
    Object(&'a serde_json::Map<String, Value>),
    ReadList(&'a [Json<'a>]),
    ReadObject(&'a Object<'a>),
}

/// Names of an object that are looked through one by one.
const FEW: usize = 8;

impl Document<'_> {
    /// `null`: there is none.
    pub const NONE: Document<'static> = Document::Value(&Value::Null);
}

impl<'a> From<&'a Value> for Document<'a> {
    fn from(value: &'a Value) -> Self {
        Self::Value(value)
    }
}

impl<'a> Tree<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Object(object) => object.len(),
            Self::ReadList(list) => list.len(),
            Self::ReadObject(object) => object.fields().len(),
        }
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::List(_) | Self::ReadList(_))
    }

    /// The value of `name`. None of a list, too.
    pub(super) fn field(self, name: &str) -> Option<Val<'a>> {
        match self {
            // Of few names none need be hashed.
            Self::Object(object) if object.len() <= FEW => {
                let mut fields = object.iter();
                fields.find(|(known, _)| *known == name).map(|(_, value)| Val::of(value.into()))
            }
            Self::Object(object) => object.get(name).map(|value| Val::of(value.into())),
            Self::ReadObject(object) => object.get(name).map(|json| Val::of(Document::Read(json))),
            Self::List(_) | Self::ReadList(_) => None,
        }
    }

    /// The element at `index`. None of an object, too.
    pub(super) fn element(self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::List(list) => list.get(index).map(|value| Val::of(value.into())),
            Self::ReadList(list) => list.get(index).map(|json| Val::of(Document::Read(json))),
            Self::Object(_) | Self::ReadObject(_) => None,
        }
    }

    /// The elements of a list, the names of an object.
    pub(super) fn elements(self) -> Vec<Val<'a>> {
        match self {
            Self::List(list) => list.iter().map(|value| Val::of(value.into())).collect(),
            Self::Object(object) => object.keys().map(|name| Val::text(name)).collect(),
            Self::ReadList(list) => list.iter().map(|json| Val::of(Document::Read(json))).collect(),
            Self::ReadObject(object) => {
                object.fields().iter().map(|(name, _)| Val::text(name)).collect()
            }
        }
    }

    /// How much there is to go through: values, bytes of text.
    pub(super) fn weight(self) -> usize {
        1 + match self {
            Self::List(list) => list.iter().map(weight_of).sum::<usize>(),
            Self::Object(object) => object.values().map(weight_of).sum(),
            Self::ReadList(list) => list.iter().map(weight_of_read).sum(),
            Self::ReadObject(object) => {
                object.fields().iter().map(|(_, json)| weight_of_read(json)).sum()
            }
        }
    }

    pub(super) fn to_value(self) -> Value {
        match self {
            Self::List(list) => Value::Array(list.to_vec()),
            Self::Object(object) => Value::Object(object.clone()),
            Self::ReadList(list) => Value::Array(list.iter().map(Json::to_value).collect()),
            Self::ReadObject(object) => object.to_value(),
        }
    }
}

impl<'a> Val<'a> {
    /// A JSON value; integers beyond `i64` are unsigned, as in CEL.
    pub(super) fn of(document: Document<'a>) -> Self {
        match document {
            Document::Value(Value::Null) | Document::Read(Json::Null) => Self::Null,
            Document::Value(Value::Bool(value)) | Document::Read(Json::Bool(value)) => {
                Self::Bool(*value)
            }
            Document::Value(Value::Number(number)) | Document::Read(Json::Number(number)) => {
                match (number.as_i64(), number.as_u64()) {
                    (Some(value), _) => Self::Int(value),
                    (None, Some(value)) => Self::UInt(value),
                    (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
            Document::Value(Value::String(text)) => Self::Text(Cow::Borrowed(text)),
            Document::Read(Json::Text(text)) => Self::Text(Cow::Borrowed(text)),
            Document::Value(Value::Array(list)) => Self::Json(Tree::List(list)),
            Document::Value(Value::Object(object)) => Self::Json(Tree::Object(object)),
            Document::Read(Json::List(list)) => Self::Json(Tree::ReadList(list)),
            Document::Read(Json::Object(object)) => Self::Json(Tree::ReadObject(object)),
        }
    }
}

fn weight_of(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / 64,
        Value::Array(list) => Tree::List(list).weight(),
        Value::Object(object) => Tree::Object(object).weight(),
        _ => 1,
    }
}

fn weight_of_read(json: &Json<'_>) -> usize {
    match json {
        Json::Text(text) => 1 + text.len() / 64,
        Json::List(list) => Tree::ReadList(list).weight(),
        Json::Object(object) => Tree::ReadObject(object).weight(),
        _ => 1,
    }
}
