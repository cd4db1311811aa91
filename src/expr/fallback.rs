//! Runs in the `cel` crate what is not native. That crate has no limit on work, so what it is given is small: no loops,
//! few nodes, and a copy of the request with bounded lists, maps and texts.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::{
    Context, Env, ExecutionError, Value as CelValue,
    common::ast::IdedExpr,
    objects::{Key, Map},
};
use serde_json::Value;

use super::{
    ExprFault,
    eval::MAX_ELEMENTS,
    guard::Roots,
    scope::{REQUEST, RESPONSE, Root, Scope},
    value::{Fault, Val},
};

/// See the module.
pub(super) struct CelProgram {
    tree: IdedExpr,
    roots: Roots,
    env: Arc<Env>,
}

/// Values that are copied.
const MAX_VALUES: usize = 10_000;
/// Bytes of one text that is copied.
const MAX_TEXT: usize = 16 << 10;
/// Levels that are copied.
const MAX_LEVELS: usize = 40;

impl CelProgram {
    pub(super) fn new(tree: IdedExpr, roots: Roots) -> Result<Self, ExprFault> {
        if roots.loops {
            let why = "all, exists, exists_one, map and filter do not go together with map literals, \
                 bytes, `type` and `bytes()`, or with `request` as a whole";
            return Err(ExprFault(why.into()));
        }
        Ok(Self { tree, roots, env: Arc::new(Env::stdlib()) })
    }

    /// The value as JSON; one that JSON does not have is a fault.
    pub(super) fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        bind(&mut context, self.roots, scope)?;
        let run = AssertUnwindSafe(|| CelValue::resolve(&self.tree, &context));
        let value = catch_unwind(run).map_err(|_| Fault::Cel("it cannot be evaluated"))?;
        let value = value.map_err(|error| said(&error))?;
        finite(&value)?;
        value.json().map_err(|_| Fault::Result("a value that JSON knows"))
    }
}

fn bind(context: &mut Context<'_, '_>, roots: Roots, scope: &Scope<'_>) -> Result<(), Fault> {
    let mut left = MAX_VALUES;
    let mut copy = |root: Root| copied(&scope.root(root)?, &mut left, 0);
    let mut bound = Vec::new();
    if roots.request {
        bound.push(("request", parts(&REQUEST, &mut copy)?));
    }
    if roots.response && scope.has_response() {
        bound.push(("response", parts(&RESPONSE, &mut copy)?));
    }
    for (wanted, name, root) in [
        (roots.body, "body", Root::Body),
        (roots.jwt, "jwt", Root::Jwt),
        (roots.reason, "reason", Root::Reason),
        (roots.now, "now", Root::Now),
    ] {
        if wanted {
            bound.push((name, copy(root)?));
        }
    }
    for (name, value) in bound {
        context.add_variable_from_value(name, value);
    }
    Ok(())
}

fn parts(
    of: &[(&str, Root)],
    mut copy: impl FnMut(Root) -> Result<CelValue, Fault>,
) -> Result<CelValue, Fault> {
    let parts = of.iter().map(|(name, root)| Ok((Key::from(*name), copy(*root)?)));
    Ok(map(parts.collect::<Result<_, Fault>>()?))
}

fn copied(value: &Val<'_>, left: &mut usize, level: usize) -> Result<CelValue, Fault> {
    *left = left.checked_sub(1).ok_or(Fault::TooLarge)?;
    if level > MAX_LEVELS || value.len().is_some_and(|len| len > MAX_ELEMENTS) {
        return Err(Fault::TooLarge);
    }
    Ok(match value {
        Val::Null => CelValue::Null,
        Val::Bool(value) => CelValue::Bool(*value),
        Val::Int(value) => CelValue::Int(*value),
        Val::UInt(value) => CelValue::UInt(*value),
        Val::Double(value) => CelValue::Float(*value),
        Val::Text(text) if text.len() > MAX_TEXT => return Err(Fault::TooLarge),
        Val::Text(text) => CelValue::from(&**text),
        list if list.is_list() => {
            let elements = list.elements()?.unwrap_or_default();
            let elements = elements.iter().map(|element| copied(element, left, level + 1));
            CelValue::List(elements.collect::<Result<Vec<_>, _>>()?.into())
        }
        object => {
            let mut entries = HashMap::new();
            for key in object.elements()?.unwrap_or_default() {
                if let Val::Text(key) = key
                    && let Some(value) = object.field(&key)?
                {
                    entries.insert(Key::from(&*key), copied(&value, left, level + 1)?);
                }
            }
            map(entries)
        }
    })
}

fn map(entries: HashMap<Key, CelValue>) -> CelValue {
    CelValue::Map(Map { map: Arc::new(entries) })
}

/// NaN and the infinities would become `null`.
fn finite(value: &CelValue) -> Result<(), Fault> {
    match value {
        CelValue::Float(value) if !value.is_finite() => Err(Fault::Result("a finite number")),
        CelValue::List(list) => list.iter().try_for_each(finite),
        CelValue::Map(map) => map.map.values().try_for_each(finite),
        _ => Ok(()),
    }
}

/// The error in words that hold nothing of the request (the crate's own texts show values).
fn said(error: &ExecutionError) -> Fault {
    match error {
        ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_) => Fault::NoKey,
        ExecutionError::Overflow(..) => Fault::Overflow,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            Fault::DivisionByZero
        }
        ExecutionError::UndeclaredReference(_) => Fault::Cel("there is no such variable here"),
        ExecutionError::DuplicateKey(_) => Fault::Cel("a map has a key twice"),
        _ => Fault::Cel("a value in it has the wrong type"),
    }
}

#[cfg(test)]
impl CelProgram {
    /// The same program without the bans, to compare with.
    pub(super) fn unbounded(tree: IdedExpr, roots: Roots) -> Self {
        Self { tree, roots, env: Arc::new(Env::stdlib()) }
    }
}
