//! Parses an expression within limits and refuses what cannot work: unknown names, unknown functions, wrong counts.
//!
//! The parser and the tree it makes recurse deeply, so both live on a thread with a large stack until the tree is
//! known to be small. A panic of the parser becomes a fault.

use cel::{
    common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators},
    parser::Parser,
};

use super::{
    ExprFault,
    scope::{REQUEST, RESPONSE, Root},
};

/// Bytes of one expression.
const MAX_SOURCE: usize = 4 << 10;
/// Nodes of its tree, after `all`, `exists`, `map` … were expanded (about ten each).
const MAX_NODES: usize = 200;
/// Levels of its tree.
const MAX_DEPTH: usize = 32;
/// `all`, `exists`, `map` … within one another.
const MAX_LOOPS: usize = 2;
/// Levels of brackets in the text.
const MAX_BRACKETS: usize = 64;
const STACK: usize = 64 << 20;

/// A tree within the limits.
pub(super) struct Parsed {
    pub(super) tree: IdedExpr,
    pub(super) roots: Roots,
}

/// Which variables an expression looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Roots {
    pub(super) request: bool,
    pub(super) body: bool,
    pub(super) jwt: bool,
    /// `request.cookies`, or the field itself.
    pub(super) cookies: bool,
    pub(super) reason: bool,
    pub(super) now: bool,
    pub(super) response: bool,
    /// The body of `response`, or `response` as a whole.
    pub(super) answer_body: bool,
    /// Loops over lists.
    pub(super) loops: bool,
}

/// Parses and checks `source`.
pub(super) fn parse(source: &str) -> Result<Parsed, ExprFault> {
    if source.len() > MAX_SOURCE {
        return Err(ExprFault(format!("longer than {MAX_SOURCE} bytes")));
    }
    if source.trim().is_empty() {
        return Err(ExprFault("empty".into()));
    }
    check_brackets(source)?;
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK);
        let parsing = parser.spawn_scoped(scope, || parse_and_check(source));
        let parsing = parsing.map_err(|e| ExprFault(format!("no thread to parse it: {e}")))?;
        parsing.join().unwrap_or_else(|_| Err(ExprFault("the parser gave up on it".into())))
    })
}

fn parse_and_check(source: &str) -> Result<Parsed, ExprFault> {
    let tree = Parser::default()
        .max_recursion_depth(MAX_BRACKETS as u16)
        .parse(source)
        .map_err(|errors| ExprFault(errors.to_string().trim().to_owned()))?;
    let mut check = Check::default();
    check.node(&tree, 1, 0)?;
    let roots = check.roots;
    Ok(Parsed { tree, roots })
}

/// Counts brackets, in strings too: cheap, and before any recursion.
fn check_brackets(source: &str) -> Result<(), ExprFault> {
    let mut open = 0_usize;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_BRACKETS {
            return Err(ExprFault(format!("more than {MAX_BRACKETS} brackets within one another")));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Check<'t> {
    nodes: usize,
    locals: Vec<&'t str>,
    roots: Roots,
}

impl<'t> Check<'t> {
    fn node(&mut self, node: &'t IdedExpr, depth: usize, loops: usize) -> Result<(), ExprFault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ExprFault(format!("more than {MAX_NODES} terms")));
        }
        if depth > MAX_DEPTH {
            return Err(ExprFault(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let below = depth + 1;
        match &node.expr {
            Expr::Unspecified => Err(ExprFault("incomplete".into())),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr {
                    self.known_field(name, &select.field)?;
                }
                let seen = self.roots.answer_body;
                self.node(&select.operand, below, loops)?;
                if matches!(&select.operand.expr, Expr::Ident(name) if name == "request") {
                    self.roots.cookies |= select.field == "cookies";
                }
                // Its status and its headers can be looked at without it.
                if matches!(&select.operand.expr, Expr::Ident(name) if name == "response") {
                    self.roots.answer_body = seen || select.field == "body";
                }
                Ok(())
            }
            Expr::Call(call) => {
                check_function(&call.func_name, call.target.is_some(), &call.args)?;
                if let Some(target) = &call.target {
                    self.node(target, below, loops)?;
                }
                self.header_key(call.func_name.as_str(), &call.args)?;
                call.args.iter().try_for_each(|arg| self.node(arg, below, loops))
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|element| self.node(element, below, loops))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.node(&entry.key, below, loops)?;
                    self.node(&entry.value, below, loops)
                }
                EntryExpr::StructField(_) => Err(ExprFault("there are no message types".into())),
            }),
            Expr::Struct(made) => {
                Err(ExprFault(format!("there are no message types, so no `{}`", made.type_name)))
            }
            Expr::Comprehension(over) => {
                self.roots.loops = true;
                if loops == MAX_LOOPS {
                    return Err(ExprFault(format!(
                        "more than {MAX_LOOPS} loops within one another"
                    )));
                }
                self.node(&over.iter_range, below, loops)?;
                self.node(&over.accu_init, below, loops)?;
                self.locals.push(&over.iter_var);
                self.locals.push(&over.accu_var);
                self.node(&over.loop_cond, below, loops + 1)?;
                self.node(&over.loop_step, below, loops + 1)?;
                self.node(&over.result, below, loops)?;
                self.locals.truncate(self.locals.len() - 2);
                Ok(())
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<(), ExprFault> {
        if self.locals.contains(&name) || TYPES.contains(&name) {
            return Ok(());
        }
        let roots = &mut self.roots;
        roots.answer_body |= name == "response";
        *match name {
            "request" => &mut roots.request,
            "body" => &mut roots.body,
            "jwt" => &mut roots.jwt,
            "reason" => &mut roots.reason,
            "now" => &mut roots.now,
            "response" => &mut roots.response,
            _ => return Err(ExprFault(format!("unknown variable `{name}`; there are {KNOWN}"))),
        } = true;
        Ok(())
    }

    /// `request.bdy` can never be there.
    fn known_field(&self, name: &str, field: &str) -> Result<(), ExprFault> {
        let known: &[(&str, Root)] = match name {
            _ if self.locals.contains(&name) => return Ok(()),
            "request" => &REQUEST,
            "response" => &RESPONSE,
            _ => return Ok(()),
        };
        if known.iter().any(|(name, _)| *name == field) {
            return Ok(());
        }
        let known = known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        Err(ExprFault(format!("unknown variable `{name}.{field}`; `{name}` has {known}")))
    }

    /// `request.headers["X-Shop"]` would never be found: names are in lower case.
    fn header_key(&mut self, function: &str, args: &[IdedExpr]) -> Result<(), ExprFault> {
        let (true, [of, key]) = (function == operators::INDEX, args) else { return Ok(()) };
        let (Expr::Select(of), Expr::Literal(LiteralValue::String(key))) = (&of.expr, &key.expr)
        else {
            return Ok(());
        };
        let headers = of.field == "headers"
            && matches!(&of.operand.expr, Expr::Ident(name) if name == "request" || name == "response");
        self.roots.cookies |= headers && key.inner() == "cookie";
        if headers && key.inner().bytes().any(|byte| byte.is_ascii_uppercase()) {
            let lower = key.inner().to_ascii_lowercase();
            return Err(ExprFault(format!(
                "header names are in lower case here: write \"{lower}\""
            )));
        }
        Ok(())
    }
}

fn check_function(name: &str, member: bool, args: &[IdedExpr]) -> Result<(), ExprFault> {
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_operator {
        return Ok(());
    }
    let known = FUNCTIONS.iter().filter(|(known, ..)| *known == name);
    let mut known = known.filter(|(_, of_member, _)| *of_member == member).peekable();
    if known.peek().is_none() {
        let what = if member { "method" } else { "function" };
        return Err(ExprFault(format!("unknown {what} `{name}`; there are {KNOWN_FUNCTIONS}")));
    }
    if !known.any(|(_, _, count)| *count == args.len()) {
        return Err(ExprFault(format!("`{name}` does not take {} arguments", args.len())));
    }
    let constant = |arg: &IdedExpr| matches!(arg.expr, Expr::Literal(LiteralValue::String(_)));
    if name == "matches" && !args.last().is_some_and(constant) {
        return Err(ExprFault("the pattern of `matches` must be a string literal".into()));
    }
    Ok(())
}

const KNOWN: &str = "request, body, jwt, reason, now (and response in replay rules)";
const KNOWN_FUNCTIONS: &str = "size, has, in, startsWith, endsWith, contains, matches, int, uint, double, string, bool, \
     bytes, type, dyn, all, exists, exists_one, map, filter";
const TYPES: [&str; 11] =
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "dyn"];
/// Name, whether it is called on a value, number of arguments.
const FUNCTIONS: [(&str, bool, usize); 15] = [
    ("size", false, 1),
    ("size", true, 0),
    ("startsWith", true, 1),
    ("endsWith", true, 1),
    ("contains", true, 1),
    ("matches", true, 1),
    ("matches", false, 2),
    ("int", false, 1),
    ("uint", false, 1),
    ("double", false, 1),
    ("string", false, 1),
    ("bool", false, 1),
    ("bytes", false, 1),
    ("type", false, 1),
    ("dyn", false, 1),
];
