//! Turns a parsed expression into nodes that run directly on the request, where it is made of known forms only.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{
    ExprFault,
    native::{Arithmetic, Comparison, Constant, Conversion, Loop, LoopKind, Node, TextTest},
    scope::{REQUEST, RESPONSE, Root},
};

/// The native program of `tree`, or nothing if it has a form that only the `cel` crate knows.
pub(super) fn compile(tree: &IdedExpr) -> Result<Option<Node>, ExprFault> {
    Compiler::default().node(tree)
}

/// Names of loop variables, outermost first. The accumulator has a place too, which nothing reads.
#[derive(Default)]
struct Compiler {
    locals: Vec<String>,
}

type Compiled = Result<Option<Node>, ExprFault>;

/// The value, or leave with "not native".
macro_rules! native {
    ($compiled:expr) => {
        match $compiled? {
            Some(node) => node,
            None => return Ok(None),
        }
    };
}

impl Compiler {
    fn node(&mut self, tree: &IdedExpr) -> Compiled {
        Ok(Some(match &tree.expr {
            Expr::Literal(literal) => match constant(literal) {
                Some(constant) => Node::Constant(constant),
                None => return Ok(None),
            },
            Expr::Ident(name) => match self.variable(name) {
                Some(node) => node,
                None => return Ok(None),
            },
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && !self.locals.contains(name)
                    && let Some(root) = part(name, &select.field)
                {
                    return Ok((!select.test).then_some(Node::Root(root)));
                }
                let operand = Box::new(native!(self.node(&select.operand)));
                let field = select.field.as_str().into();
                if select.test { Node::Has(operand, field) } else { Node::Field(operand, field) }
            }
            Expr::Call(call) => return self.call(call),
            Expr::List(list) if list.optional_indices.is_empty() => {
                let mut elements = Vec::with_capacity(list.elements.len());
                for element in &list.elements {
                    elements.push(native!(self.node(element)));
                }
                Node::List(elements)
            }
            Expr::Comprehension(over) => return self.comprehension(over),
            _ => return Ok(None),
        }))
    }

    fn variable(&self, name: &str) -> Option<Node> {
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return Some(Node::Local(place));
        }
        match name {
            "body" => Some(Node::Root(Root::Body)),
            "jwt" => Some(Node::Root(Root::Jwt)),
            "reason" => Some(Node::Root(Root::Reason)),
            "now" => Some(Node::Root(Root::Now)),
            _ => None,
        }
    }

    fn call(&mut self, call: &CallExpr) -> Compiled {
        let operands = call.target.as_deref().into_iter().chain(&call.args);
        let name = call.func_name.as_str();
        if name == "matches" {
            return self.matches(operands.collect());
        }
        let mut nodes = Vec::with_capacity(3);
        for operand in operands {
            nodes.push(native!(self.node(operand)));
        }
        Ok(match nodes.len() {
            1 => nodes.pop().and_then(|only| unary(name, Box::new(only))),
            2 => <[Node; 2]>::try_from(nodes).ok().and_then(|two| binary(name, Box::new(two))),
            3 if name == operators::CONDITIONAL => {
                <[Node; 3]>::try_from(nodes).ok().map(|three| Node::If(Box::new(three)))
            }
            _ => None,
        })
    }

    fn matches(&mut self, operands: Vec<&IdedExpr>) -> Compiled {
        let [text, pattern] = operands[..] else { return Ok(None) };
        let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else { return Ok(None) };
        let pattern = regex::RegexBuilder::new(pattern.inner())
            .size_limit(PATTERN_SIZE)
            .build()
            .map_err(|e| ExprFault(format!("the pattern of `matches`: {e}")))?;
        Ok(Some(Node::Matches(Box::new(native!(self.node(text))), pattern)))
    }

    /// Recognises what the macros expand to.
    fn comprehension(&mut self, of: &ComprehensionExpr) -> Compiled {
        if of.iter_var2.is_some() {
            return Ok(None);
        }
        let over = native!(self.node(&of.iter_range));
        self.locals.push(of.iter_var.clone());
        let made = self.loop_body(of);
        self.locals.pop();
        let (kind, body) = match made? {
            Some(made) => made,
            None => return Ok(None),
        };
        Ok(Some(Node::Loop(Box::new(Loop { kind, over, body }))))
    }

    fn loop_body(&mut self, of: &ComprehensionExpr) -> Result<Option<(LoopKind, Node)>, ExprFault> {
        let is_accu =
            |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if *name == of.accu_var);
        let Expr::Call(step) = &of.loop_step.expr else { return Ok(None) };
        let kind_and_body = match (step.func_name.as_str(), &step.args[..]) {
            (operators::LOGICAL_AND, [accu, body]) if is_accu(accu) => (LoopKind::All, body),
            (operators::LOGICAL_OR, [accu, body]) if is_accu(accu) => (LoopKind::Exists, body),
            (operators::ADD, [accu, made]) if is_accu(accu) => match only_element(made) {
                Some(element) => (LoopKind::Map(None), element),
                None => return Ok(None),
            },
            (operators::CONDITIONAL, [condition, then, otherwise]) if is_accu(otherwise) => {
                let Expr::Call(add) = &then.expr else { return Ok(None) };
                match (add.func_name.as_str(), &add.args[..]) {
                    (operators::ADD, [accu, one]) if is_accu(accu) => match only_element(one) {
                        Some(element) => {
                            let condition = match self.node(condition)? {
                                Some(condition) => condition,
                                None => return Ok(None),
                            };
                            (LoopKind::Map(Some(condition)), element)
                        }
                        None if is_one(one) => (LoopKind::ExistsOne, condition),
                        None => return Ok(None),
                    },
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let (kind, body) = kind_and_body;
        Ok(self.node(body)?.map(|body| (kind, body)))
    }
}

/// Bytes of a compiled pattern.
const PATTERN_SIZE: usize = 1 << 20;

fn constant(literal: &LiteralValue) -> Option<Constant> {
    Some(match literal {
        LiteralValue::Null => Constant::Null,
        LiteralValue::Boolean(value) => Constant::Bool(*value.inner()),
        LiteralValue::Int(value) => Constant::Int(*value.inner()),
        LiteralValue::UInt(value) => Constant::UInt(*value.inner()),
        LiteralValue::Double(value) => Constant::Double(*value.inner()),
        LiteralValue::String(value) => Constant::Text(value.inner().into()),
        LiteralValue::Bytes(_) => return None,
    })
}

/// `request.path`, `response.status` …
fn part(of: &str, name: &str) -> Option<Root> {
    let known: &[(&str, Root)] = match of {
        "request" => &REQUEST,
        "response" => &RESPONSE,
        _ => return None,
    };
    known.iter().find(|(known, _)| *known == name).map(|(_, root)| *root)
}

fn unary(name: &str, of: Box<Node>) -> Option<Node> {
    Some(match name {
        operators::LOGICAL_NOT => Node::Not(of),
        operators::NEGATE => Node::Negate(of),
        "size" => Node::Size(of),
        "int" => Node::Convert(Conversion::Int, of),
        "uint" => Node::Convert(Conversion::UInt, of),
        "double" => Node::Convert(Conversion::Double, of),
        "string" => Node::Convert(Conversion::Text, of),
        "bool" => Node::Convert(Conversion::Bool, of),
        "dyn" => *of,
        _ => return None,
    })
}

fn binary(name: &str, two: Box<[Node; 2]>) -> Option<Node> {
    Some(match name {
        operators::LOGICAL_AND => Node::And(two),
        operators::LOGICAL_OR => Node::Or(two),
        operators::EQUALS => Node::Equal(two, true),
        operators::NOT_EQUALS => Node::Equal(two, false),
        operators::LESS => Node::Compare(Comparison::Less, two),
        operators::LESS_EQUALS => Node::Compare(Comparison::LessOrEqual, two),
        operators::GREATER => Node::Compare(Comparison::Greater, two),
        operators::GREATER_EQUALS => Node::Compare(Comparison::GreaterOrEqual, two),
        operators::IN => Node::In(two),
        operators::INDEX => Node::Index(two),
        operators::ADD => Node::Arithmetic(Arithmetic::Add, two),
        operators::SUBSTRACT => Node::Arithmetic(Arithmetic::Subtract, two),
        operators::MULTIPLY => Node::Arithmetic(Arithmetic::Multiply, two),
        operators::DIVIDE => Node::Arithmetic(Arithmetic::Divide, two),
        operators::MODULO => Node::Arithmetic(Arithmetic::Remainder, two),
        "startsWith" => Node::Text(TextTest::StartsWith, two),
        "endsWith" => Node::Text(TextTest::EndsWith, two),
        "contains" => Node::Text(TextTest::Contains, two),
        _ => return None,
    })
}

fn only_element(list: &IdedExpr) -> Option<&IdedExpr> {
    match &list.expr {
        Expr::List(list) if list.elements.len() == 1 && list.optional_indices.is_empty() => {
            list.elements.first()
        }
        _ => None,
    }
}

fn is_one(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Literal(LiteralValue::Int(value)) if *value.inner() == 1)
}
