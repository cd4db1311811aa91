//! Runs a native program. Each step is paid for, so that no request can make a rule run for long.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    native::{Comparison, Constant, Loop, LoopKind, Node, TextTest},
    operate::{arithmetic, convert, index, is_in, size},
    scope::Scope,
    value::{Fault, Val},
};

/// Elements of a list or map that a loop goes through.
pub(super) const MAX_ELEMENTS: usize = 1000;
/// Bytes of text that a pattern is tried on.
const MAX_MATCHED: usize = 64 << 10;

pub(super) type Evaluated<'a> = Result<Val<'a>, Fault>;

impl Node {
    pub(super) fn evaluate<'a>(&'a self, scope: &'a Scope<'_>) -> Evaluated<'a> {
        self.run(scope, &mut Vec::new())
    }

    /// What most operands are needs no step of its own.
    #[inline]
    fn operand<'a>(&'a self, scope: &'a Scope<'_>, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        match self {
            Self::Constant(constant) => scope.spend(1).map(|()| constant.value()),
            Self::Root(root) => scope.spend(1).and_then(|()| scope.root(*root)),
            _ => self.run(scope, locals),
        }
    }

    fn run<'a>(&'a self, scope: &'a Scope<'_>, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        scope.spend(1)?;
        // What most rules are made of: in a small function, for it is run at each step.
        match self {
            Self::Constant(constant) => Ok(constant.value()),
            Self::Root(root) => scope.root(*root),
            Self::Field(of, name) => match of.operand(scope, locals)?.field(name) {
                Ok(Some(value)) => Ok(value),
                Ok(None) => Err(Fault::NoField(name.clone())),
                Err(fault) => Err(fault),
            },
            Self::And(two) => logical(two, false, scope, locals),
            Self::Or(two) => logical(two, true, scope, locals),
            Self::Equal(two, wanted) => {
                let one = two[0].operand(scope, locals)?;
                let two = two[1].operand(scope, locals)?;
                scope.spend(one.weight().min(two.weight()))?;
                Ok(Val::Bool(one.equals(&two)? == *wanted))
            }
            Self::Compare(comparison, two) => {
                let one = two[0].operand(scope, locals)?;
                let two = two[1].operand(scope, locals)?;
                Ok(Val::Bool(comparison.holds(one.compare(&two)?)))
            }
            _ => self.run_rest(scope, locals),
        }
    }

    fn run_rest<'a>(&'a self, scope: &'a Scope<'_>, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        match self {
            Self::Constant(_)
            | Self::Root(_)
            | Self::Field(..)
            | Self::And(_)
            | Self::Or(_)
            | Self::Equal(..)
            | Self::Compare(..) => self.run(scope, locals),
            Self::Local(place) => {
                let value = locals.get(*place).ok_or(Fault::NoKey)?;
                if let Val::Text(Cow::Owned(text)) = value {
                    scope.spend(text.len() / 64)?; // is copied
                }
                Ok(value.clone())
            }
            Self::Has(of, name) => Ok(Val::Bool(of.run(scope, locals)?.field(name)?.is_some())),
            Self::Index(two) => {
                let [of, key] = both(two, scope, locals)?;
                index(&of, &key)
            }
            Self::Not(of) => match of.run(scope, locals)? {
                Val::Bool(value) => Ok(Val::Bool(!value)),
                _ => Err(Fault::Types("!")),
            },
            Self::Negate(of) => match of.run(scope, locals)? {
                Val::Int(value) => value.checked_neg().map(Val::Int).ok_or(Fault::Overflow),
                Val::Double(value) => Ok(Val::Double(-value)),
                _ => Err(Fault::Types("-")),
            },
            Self::If(three) => match three[0].run(scope, locals)? {
                Val::Bool(true) => three[1].run(scope, locals),
                Val::Bool(false) => three[2].run(scope, locals),
                _ => Err(Fault::Types("? :")),
            },
            Self::In(two) => {
                let [one, within] = &**two;
                let one = one.run(scope, locals)?;
                if let Self::List(nodes) = within {
                    return is_among(&one, nodes, scope, locals);
                }
                is_in(&one, &within.run(scope, locals)?, scope)
            }
            Self::Arithmetic(kind, two) => {
                let [one, two] = both(two, scope, locals)?;
                arithmetic(*kind, one, two, scope)
            }
            Self::List(nodes) => {
                let values = nodes.iter().map(|node| node.run(scope, locals));
                Ok(Val::List(values.collect::<Result<_, _>>()?))
            }
            Self::Size(of) => size(&of.run(scope, locals)?, scope),
            Self::Text(test, two) => {
                let [Val::Text(text), Val::Text(part)] = both(two, scope, locals)? else {
                    return Err(Fault::Types(test.name()));
                };
                scope.spend((text.len() + part.len()) / 64)?;
                Ok(Val::Bool(match test {
                    TextTest::StartsWith => text.starts_with(&*part),
                    TextTest::EndsWith => text.ends_with(&*part),
                    TextTest::Contains => text.contains(&*part),
                }))
            }
            Self::Matches(of, pattern) => {
                let Val::Text(text) = of.run(scope, locals)? else {
                    return Err(Fault::Types("matches"));
                };
                if text.len() > MAX_MATCHED {
                    return Err(Fault::TooLarge);
                }
                scope.spend(10 + text.len())?;
                Ok(Val::Bool(pattern.is_match(&text)))
            }
            Self::Convert(to, of) => convert(*to, of.run(scope, locals)?, scope),
            Self::Loop(of) => of.run(scope, locals),
        }
    }
}

impl Constant {
    fn value(&self) -> Val<'_> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(value) => Val::Int(*value),
            Self::UInt(value) => Val::UInt(*value),
            Self::Double(value) => Val::Double(*value),
            Self::Text(text) => Val::text(text),
        }
    }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl TextTest {
    fn name(self) -> &'static str {
        match self {
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Contains => "contains",
        }
    }
}

impl Loop {
    fn run<'a>(&'a self, scope: &'a Scope<'_>, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        let over = self.over.run(scope, locals)?;
        if over.len().is_some_and(|len| len > MAX_ELEMENTS) {
            return Err(Fault::TooLarge);
        }
        let elements = over.elements()?.ok_or(Fault::Types("a loop"))?;
        scope.spend(elements.len())?;
        match &self.kind {
            LoopKind::All => self.fold(elements, false, scope, locals),
            LoopKind::Exists => self.fold(elements, true, scope, locals),
            LoopKind::ExistsOne => {
                let mut found = 0;
                for element in elements {
                    if test(&self.body, element, scope, locals)? {
                        found += 1;
                    }
                }
                Ok(Val::Bool(found == 1))
            }
            LoopKind::Map(condition) => {
                let mut made = Vec::with_capacity(elements.len());
                for element in elements {
                    if let Some(condition) = condition
                        && !test(condition, element.clone(), scope, locals)?
                    {
                        continue;
                    }
                    made.push(with(&self.body, element, scope, locals)?);
                }
                Ok(Val::List(made.into()))
            }
        }
    }

    /// `all` and `exists`: one `deciding` element decides, whatever faults others have (as `&&` and `||` do).
    fn fold<'a>(
        &'a self,
        elements: Vec<Val<'a>>,
        deciding: bool,
        scope: &'a Scope<'_>,
        locals: &mut Vec<Val<'a>>,
    ) -> Evaluated<'a> {
        let mut fault = None;
        for element in elements {
            match with(&self.body, element, scope, locals) {
                Ok(Val::Bool(value)) if value == deciding => return Ok(Val::Bool(deciding)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => fault = Some(Fault::Types(if deciding { "exists" } else { "all" })),
                Err(found) => fault = Some(found),
            }
        }
        fault.map_or(Ok(Val::Bool(!deciding)), Err)
    }
}

/// `node` with one more local.
fn with<'a>(
    node: &'a Node,
    local: Val<'a>,
    scope: &'a Scope<'_>,
    locals: &mut Vec<Val<'a>>,
) -> Evaluated<'a> {
    locals.push(local);
    let value = node.run(scope, locals);
    locals.pop();
    value
}

fn test<'a>(
    node: &'a Node,
    local: Val<'a>,
    scope: &'a Scope<'_>,
    locals: &mut Vec<Val<'a>>,
) -> Result<bool, Fault> {
    match with(node, local, scope, locals)? {
        Val::Bool(value) => Ok(value),
        _ => Err(Fault::Types("a condition")),
    }
}

fn both<'a>(
    two: &'a [Node; 2],
    scope: &'a Scope<'_>,
    locals: &mut Vec<Val<'a>>,
) -> Result<[Val<'a>; 2], Fault> {
    Ok([two[0].run(scope, locals)?, two[1].run(scope, locals)?])
}

/// `&&` (false decides) and `||` (true decides): a fault on one side does not matter if the other side decides.
fn logical<'a>(
    two: &'a [Node; 2],
    deciding: bool,
    scope: &'a Scope<'_>,
    locals: &mut Vec<Val<'a>>,
) -> Evaluated<'a> {
    let name = if deciding { "||" } else { "&&" };
    let left = match two[0].run(scope, locals) {
        Ok(Val::Bool(value)) if value == deciding => return Ok(Val::Bool(deciding)),
        Ok(Val::Bool(_)) => None,
        Ok(_) => Some(Fault::Types(name)),
        Err(fault) => Some(fault),
    };
    match (left, two[1].run(scope, locals)?) {
        (_, Val::Bool(value)) if value == deciding => Ok(Val::Bool(deciding)),
        (None, Val::Bool(value)) => Ok(Val::Bool(value)),
        (Some(fault), _) => Err(fault),
        (None, _) => Err(Fault::Types(name)),
    }
}

/// `one in [ … ]`, without making the list.
fn is_among<'a>(
    one: &Val<'a>,
    nodes: &'a [Node],
    scope: &'a Scope<'_>,
    locals: &mut Vec<Val<'a>>,
) -> Evaluated<'a> {
    let mut found = false;
    for node in nodes {
        let element = node.run(scope, locals)?;
        scope.spend(one.weight().min(element.weight()))?;
        found = found || one.equals(&element)?;
    }
    Ok(Val::Bool(found))
}
