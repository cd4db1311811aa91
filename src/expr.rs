//! CEL expressions of the configuration: compiled once, bounded, a fault is an error value and never a panic.
//!
//! What rules are mostly made of (fields, comparisons, `&&`, `in`, `size`, `exists` …) runs natively on the request,
//! with a budget of steps. The rest (map literals, bytes, `type`) runs in the `cel` crate over a bounded copy. The
//! language is the same in both. There are no timestamps: `now` is an integer, milliseconds since 1970.

mod compile;
mod document;
mod eval;
mod fallback;
mod fields;
mod guard;
mod jwt;
mod native;
mod operate;
mod scope;
mod value;

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc};

use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::document::Document;
pub(crate) use self::jwt::bearer_claims;
use self::{
    fallback::CelProgram,
    guard::Roots,
    native::Node,
    scope::Scope,
    value::{Fault, Val},
};
use crate::time::UnixMillis;

/// One compiled expression. Cheap to clone.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Expr {
    compiled: Arc<Compiled>,
}

/// What an expression may look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub method: &'a str,
    /// Canonical path, decoded.
    pub path: &'a str,
    /// Raw query without `?`.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// Path parameters of the route.
    pub params: &'a [(String, String)],
    /// The request id.
    pub id: &'a str,
    /// Whose request it is; empty when nobody is known.
    pub principal: &'a str,
    pub client_ip: IpAddr,
    /// The body, strictly read; `Null` when there is none or it is not JSON or a form.
    pub body: Document<'a>,
    /// Why standin would answer: the reason's word, or empty.
    pub reason: &'a str,
    pub now: UnixMillis,
    /// Only for the rules of `[route.NAME.replay]`.
    pub response: Option<ResponseFacts<'a>>,
}

/// The app's answer, for outcome rules.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts<'a> {
    pub status: u16,
    pub headers: &'a HeaderMap,
    /// Parsed JSON, or `Null`.
    pub body: &'a serde_json::Value,
}

/// Why an expression gave no value. Names what the rule says, never what the request holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExprFault(pub String);

struct Compiled {
    source: Box<str>,
    roots: Roots,
    program: Program,
}

enum Program {
    Native(Node),
    Cel(CelProgram),
}

impl Expr {
    /// Compiles `source`, or says what is wrong with it.
    pub fn compile(source: &str) -> Result<Self, ExprFault> {
        let parsed = guard::parse(source)?;
        let program = match compile::compile(&parsed.tree)? {
            Some(node) => Program::Native(node),
            None => Program::Cel(CelProgram::new(parsed.tree, parsed.roots)?),
        };
        let compiled = Compiled { source: source.into(), roots: parsed.roots, program };
        Ok(Self { compiled: Arc::new(compiled) })
    }

    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// Whether it looks at the body of the request.
    pub fn reads_body(&self) -> bool {
        self.compiled.roots.body
    }

    /// Whether it looks at cookies.
    pub fn reads_cookies(&self) -> bool {
        self.compiled.roots.cookies
    }

    /// Whether it looks at the claims of a bearer token.
    pub fn reads_token(&self) -> bool {
        self.compiled.roots.jwt
    }

    /// Whether it looks at the app's answer, which only the rules of `[route.NAME.replay]` have.
    pub fn reads_response(&self) -> bool {
        self.compiled.roots.response
    }

    /// Whether it looks at the body of the app's answer, which is not there while it only passes through.
    pub fn reads_answer_body(&self) -> bool {
        self.compiled.roots.answer_body
    }

    /// The value as a bool; anything else is a fault.
    pub fn to_bool(&self, facts: &Facts<'_>) -> Result<bool, ExprFault> {
        self.with_value(facts, |value| match value {
            Val::Bool(value) => Ok(*value),
            _ => Err(Fault::Result("true or false")),
        })
    }

    /// The value as an integer; a float, a string or an overflow is a fault.
    pub fn to_int(&self, facts: &Facts<'_>) -> Result<i64, ExprFault> {
        self.with_value(facts, |value| match value {
            Val::Int(value) => Ok(*value),
            Val::UInt(value) => i64::try_from(*value).map_err(|_| Fault::Overflow),
            _ => Err(Fault::Result("an integer")),
        })
    }

    /// The value as text: a string, or an integer or bool written out; anything else, or an empty string, is a fault.
    pub fn to_text(&self, facts: &Facts<'_>) -> Result<String, ExprFault> {
        self.with_value(facts, |value| match value {
            Val::Text(Cow::Borrowed("")) => Err(Fault::Result("text that is not empty")),
            Val::Text(text) if text.is_empty() => Err(Fault::Result("text that is not empty")),
            Val::Text(text) => Ok(text.clone().into_owned()),
            Val::Int(value) => Ok(value.to_string()),
            Val::UInt(value) => Ok(value.to_string()),
            Val::Bool(value) => Ok(value.to_string()),
            _ => Err(Fault::Result("text, an integer or a bool")),
        })
    }

    /// The value as JSON, its type kept.
    pub fn to_json(&self, facts: &Facts<'_>) -> Result<serde_json::Value, ExprFault> {
        self.with_value(facts, |value| value.to_json())
    }

    /// Adds the value as JSON text, its type kept.
    pub fn write_json(&self, facts: &Facts<'_>, json: &mut Vec<u8>) -> Result<(), ExprFault> {
        self.with_value(facts, |value| value.write_json(json))
    }

    fn with_value<T>(
        &self,
        facts: &Facts<'_>,
        read: impl FnOnce(&Val<'_>) -> Result<T, Fault>,
    ) -> Result<T, ExprFault> {
        let scope = Scope::new(*facts);
        let read = match &self.compiled.program {
            Program::Native(node) => node.evaluate(&scope).and_then(|value| read(&value)),
            Program::Cel(program) => {
                program.evaluate(&scope).and_then(|value| read(&Val::of((&value).into())))
            }
        };
        read.map_err(|fault| ExprFault(format!("`{}`: {fault}", self.source())))
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expr").field(&self.source()).finish()
    }
}

impl TryFrom<String> for Expr {
    type Error = ExprFault;

    fn try_from(source: String) -> Result<Self, ExprFault> {
        Self::compile(&source)
    }
}

#[cfg(test)]
mod tests;
