//! What one evaluation sees: the facts, what is derived from them on first use, and the budget it may spend.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
};

use http::{HeaderMap, header};
use serde_json::Value;

use super::{
    Facts,
    fields::Fields,
    jwt,
    value::{Fault, Val},
};
use crate::body::{Pairs, form_pairs, has_duplicates};

/// See the module.
pub(super) struct Scope<'f> {
    facts: Facts<'f>,
    query: OnceCell<Result<Pairs<'f>, Fault>>,
    cookies: OnceCell<Result<Pairs<'f>, Fault>>,
    jwt: OnceCell<Value>,
    client_ip: OnceCell<String>,
    steps: Cell<usize>,
    bytes: Cell<usize>,
}

/// Where a value of the request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Method,
    Path,
    Query,
    Headers,
    Cookies,
    Params,
    Id,
    Principal,
    ClientIp,
    Body,
    Jwt,
    Reason,
    Now,
    ResponseStatus,
    ResponseHeaders,
    ResponseBody,
}

/// Names below `request`.
pub(super) const REQUEST: [(&str, Root); 9] = [
    ("method", Root::Method),
    ("path", Root::Path),
    ("query", Root::Query),
    ("headers", Root::Headers),
    ("cookies", Root::Cookies),
    ("params", Root::Params),
    ("id", Root::Id),
    ("principal", Root::Principal),
    ("client_ip", Root::ClientIp),
];

/// Names below `response`.
pub(super) const RESPONSE: [(&str, Root); 3] = [
    ("status", Root::ResponseStatus),
    ("headers", Root::ResponseHeaders),
    ("body", Root::ResponseBody),
];

/// Steps of one evaluation: some milliseconds at worst.
const STEPS: usize = 200_000;
/// Bytes of text that one evaluation may build.
const BYTES: usize = 256 << 10;

impl<'f> Scope<'f> {
    pub(super) fn new(facts: Facts<'f>) -> Self {
        Self {
            facts,
            query: OnceCell::new(),
            cookies: OnceCell::new(),
            jwt: OnceCell::new(),
            client_ip: OnceCell::new(),
            steps: Cell::new(STEPS),
            bytes: Cell::new(BYTES),
        }
    }

    pub(super) fn root<'a>(&'a self, root: Root) -> Result<Val<'a>, Fault> {
        let facts = &self.facts;
        Ok(match root {
            Root::Method => Val::text(facts.method),
            Root::Path => Val::text(facts.path),
            Root::Query => Val::Fields(Fields::Pairs(self.query()?)),
            Root::Headers => Val::Fields(Fields::Headers(facts.headers)),
            Root::Cookies => Val::Fields(Fields::Pairs(self.cookies()?)),
            Root::Params => Val::Fields(Fields::Params(facts.params)),
            Root::Id => Val::text(facts.id),
            Root::Principal => Val::text(facts.principal),
            Root::ClientIp => {
                Val::text(self.client_ip.get_or_init(|| facts.client_ip.to_canonical().to_string()))
            }
            Root::Body => Val::of(facts.body),
            Root::Jwt => Val::of(self.jwt().into()),
            Root::Reason => Val::text(facts.reason),
            Root::Now => Val::Int(facts.now.0),
            Root::ResponseStatus => Val::Int(i64::from(self.response()?.status)),
            Root::ResponseHeaders => Val::Fields(Fields::Headers(self.response()?.headers)),
            Root::ResponseBody => Val::of(self.response()?.body.into()),
        })
    }

    /// Spends `steps`. Once the budget is used up it stays so: no `||` goes on after that.
    pub(super) fn spend(&self, steps: usize) -> Result<(), Fault> {
        match self.steps.get().checked_sub(steps) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => {
                self.steps.set(0);
                Err(Fault::TooLong)
            }
        }
    }

    /// Spends room for text that is built.
    pub(super) fn spend_bytes(&self, bytes: usize) -> Result<(), Fault> {
        match self.bytes.get().checked_sub(bytes) {
            Some(left) => {
                self.bytes.set(left);
                self.spend(bytes / 64)
            }
            None => {
                self.steps.set(0);
                Err(Fault::TooLarge)
            }
        }
    }

    pub(super) fn has_response(&self) -> bool {
        self.facts.response.is_some()
    }

    fn response(&self) -> Result<&super::ResponseFacts<'f>, Fault> {
        self.facts.response.as_ref().ok_or(Fault::Unreadable("there is no `response` here"))
    }

    fn query(&self) -> Result<&Pairs<'f>, Fault> {
        let read = self.query.get_or_init(|| unambiguous(self.facts.query));
        read.as_ref().map_err(Clone::clone)
    }

    fn cookies(&self) -> Result<&Pairs<'f>, Fault> {
        let read = self.cookies.get_or_init(|| cookies(self.facts.headers));
        read.as_ref().map_err(Clone::clone)
    }

    fn jwt(&self) -> &Value {
        self.jwt.get_or_init(|| {
            jwt::bearer_claims(self.facts.headers)
                .unwrap_or_else(|| Value::Object(Default::default()))
        })
    }
}

/// The query's pairs. A name that stands twice, or a doubtful encoding, is a fault: the app may read it differently.
fn unambiguous(query: &str) -> Result<Pairs<'_>, Fault> {
    let pairs = form_pairs(query).map_err(|_| Fault::Unreadable("the query is not plain"))?;
    if has_duplicates(&pairs) {
        return Err(Fault::Unreadable("a name stands twice in the query"));
    }
    Ok(pairs)
}

/// The cookies (RFC 6265, 4.2.1). A name that stands twice is a fault: which one the app takes is not known.
fn cookies(headers: &HeaderMap) -> Result<Pairs<'_>, Fault> {
    let mut cookies = Vec::new();
    for field in headers.get_all(header::COOKIE) {
        let field = std::str::from_utf8(field.as_bytes())
            .map_err(|_| Fault::Unreadable("a cookie is not UTF-8"))?;
        for pair in field.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            cookies.push((Cow::Borrowed(name.trim()), Cow::Borrowed(value)));
        }
    }
    if has_duplicates(&cookies) {
        return Err(Fault::Unreadable("a cookie stands twice in the request"));
    }
    Ok(cookies)
}
