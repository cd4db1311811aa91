//! CEL expressions of the configuration: compiled once, bounded, a fault is an error value and never a panic.

use std::net::IpAddr;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::time::UnixMillis;

/// One compiled expression. Cheap to clone.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Expr {
    source: std::sync::Arc<str>,
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
    pub body: &'a serde_json::Value,
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

/// Why an expression gave no value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExprFault(pub String);

impl Expr {
    /// Compiles `source`, or says what is wrong with it.
    pub fn compile(source: &str) -> Result<Self, ExprFault> {
        Ok(Self { source: source.into() })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value as a bool; anything else is a fault.
    pub fn to_bool(&self, _facts: &Facts<'_>) -> Result<bool, ExprFault> {
        Err(ExprFault("not built yet".into()))
    }

    /// The value as an integer; a float, a string or an overflow is a fault.
    pub fn to_int(&self, _facts: &Facts<'_>) -> Result<i64, ExprFault> {
        Err(ExprFault("not built yet".into()))
    }

    /// The value as text: a string, or an integer or bool written out; anything else, or an empty string, is a fault.
    pub fn to_text(&self, _facts: &Facts<'_>) -> Result<String, ExprFault> {
        Err(ExprFault("not built yet".into()))
    }
}

impl TryFrom<String> for Expr {
    type Error = ExprFault;

    fn try_from(source: String) -> Result<Self, ExprFault> {
        Self::compile(&source)
    }
}
