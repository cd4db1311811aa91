//! minijinja, made small: no loaders, no includes, no assignments, known filters only, fuel, bounded output.
//!
//! Fuel counts instructions, not the bytes that they build. So texts of the request are bounded before they are handed
//! over, there is nothing to keep a built text in, and few operators that make a longer text out of two.

mod environment;
mod syntax;

use std::{fmt, io};

use minijinja::{Environment, Error, Value, value::Serde};

use self::environment::{HTML, JSON, TEXT, environment};
use super::{Escape, MAX_OUTPUT, TemplateFault, too_long};
use crate::expr::{Expr, ExprFault, Facts};

/// One compiled template in an environment of its own.
pub(super) struct Engine {
    environment: Environment<'static>,
    /// The variables that it looks at: name, and the path of each of its parts.
    roots: Vec<(&'static str, Vec<(&'static str, Expr)>)>,
}

/// What a template may look at below `request`.
const REQUEST: [&str; 9] =
    ["method", "path", "query", "headers", "cookies", "params", "id", "principal", "client_ip"];
const ROOTS: [&str; 5] = ["request", "body", "jwt", "reason", "now"];

impl Engine {
    /// A text.
    pub(super) fn text(source: &str, escape: Escape) -> Result<Self, TemplateFault> {
        let kind = match escape {
            Escape::None => TEXT,
            Escape::Html => HTML,
        };
        Self::compile(source, kind)
    }

    /// One expression, `{{ … }}`, whose value is written as JSON.
    pub(super) fn json(source: &str) -> Result<Self, TemplateFault> {
        Self::compile(source, JSON)
    }

    fn compile(source: &str, kind: &'static str) -> Result<Self, TemplateFault> {
        syntax::check(source)?;
        let mut environment = environment(kind);
        environment.add_template_owned(kind, source.to_owned()).map_err(|error| refused(&error))?;
        let template = environment.get_template(kind).map_err(|error| refused(&error))?;
        let mut roots = Vec::new();
        for name in template.undeclared_variables(false) {
            match ROOTS.iter().find(|root| **root == name) {
                Some(root) => roots.push((*root, parts(root)?)),
                None => return Err(unknown(&name)),
            }
        }
        for name in template.undeclared_variables(true) {
            let field = name.strip_prefix("request.").and_then(|rest| rest.split('.').next());
            if let Some(field) = field.filter(|field| !REQUEST.contains(field)) {
                let known = REQUEST.join(", ");
                let text = format!("unknown variable `request.{field}`; `request` has {known}");
                return Err(TemplateFault(text));
            }
        }
        Ok(Self { environment, roots })
    }

    pub(super) fn render(&self, facts: &Facts<'_>) -> Result<String, TemplateFault> {
        let (_, template) = self.environment.templates().next().ok_or_else(too_long)?;
        let mut output = Bounded(Vec::new());
        let context = self.context(facts)?;
        match template.render_captured_to(context, &mut output) {
            Ok(_) => String::from_utf8(output.0).map_err(|_| too_long()),
            Err(_) if output.0.len() >= MAX_OUTPUT => Err(too_long()),
            Err(error) => Err(said(&error)),
        }
    }

    /// The variables that the template looks at.
    fn context(&self, facts: &Facts<'_>) -> Result<Value, TemplateFault> {
        let mut context = Vec::with_capacity(self.roots.len());
        for (root, parts) in &self.roots {
            let value = match *root {
                "now" => Value::from(facts.now.to_string()),
                "request" => {
                    let mut request = Vec::with_capacity(parts.len());
                    for (name, part) in parts {
                        request.push((*name, read(part, facts)?));
                    }
                    Value::from_pairs(request)
                }
                _ => parts.first().map_or(Ok(Value::UNDEFINED), |(_, whole)| read(whole, facts))?,
            };
            context.push((*root, value));
        }
        Ok(Value::from_pairs(context))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// Bytes of one text that is handed over.
const MAX_TEXT: usize = 16 << 10;
/// Values that are handed over.
const MAX_VALUES: usize = 5000;

fn checked(value: &serde_json::Value) -> Result<Value, TemplateFault> {
    if !is_small(value, &mut MAX_VALUES.clone()) {
        return Err(TemplateFault("the request is too large for it".into()));
    }
    Ok(Value::from(Serde(value)))
}

fn is_small(value: &serde_json::Value, left: &mut usize) -> bool {
    if *left == 0 {
        return false;
    }
    *left -= 1;
    match value {
        serde_json::Value::String(text) => text.len() <= MAX_TEXT,
        serde_json::Value::Array(list) => list.iter().all(|element| is_small(element, left)),
        serde_json::Value::Object(object) => object.values().all(|value| is_small(value, left)),
        _ => true,
    }
}

/// The parts of a variable, to be read as expressions see them.
fn parts(root: &'static str) -> Result<Vec<(&'static str, Expr)>, TemplateFault> {
    let paths = match root {
        "now" => Vec::new(),
        "request" => REQUEST.iter().map(|name| (*name, format!("request.{name}"))).collect(),
        _ => vec![(root, root.to_owned())],
    };
    let compiled = paths.into_iter().map(|(name, path)| Ok((name, Expr::compile(&path)?)));
    compiled.collect::<Result<_, ExprFault>>().map_err(|fault| TemplateFault(fault.0))
}

fn read(part: &Expr, facts: &Facts<'_>) -> Result<Value, TemplateFault> {
    checked(&part.to_json(facts).map_err(|fault| TemplateFault(fault.0))?)
}

fn unknown(name: &str) -> TemplateFault {
    TemplateFault(match name {
        "receipt" => {
            "`receipt` is not known here: an answer is made before its entry is stored".into()
        }
        _ => format!("unknown variable `{name}`; there are {}", ROOTS.join(", ")),
    })
}

fn refused(error: &Error) -> TemplateFault {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    TemplateFault(format!("{}{detail}{line}", error.kind()))
}

/// What went wrong, without the error's detail, which may show values.
fn said(error: &Error) -> TemplateFault {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    TemplateFault(format!("{}{line}", error.kind()))
}

/// Takes up to [`MAX_OUTPUT`] bytes.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_OUTPUT - self.0.len();
        self.0.extend(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
