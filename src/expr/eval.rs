//! Runs a native program. Each step is paid for, so that no request can make a rule run for long.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    native::{Arithmetic, Comparison, Constant, Conversion, Loop, LoopKind, Node, TextTest},
    scope::Scope,
    value::{Fault, Val},
};

/// Elements of a list or map that a loop goes through.
pub(super) const MAX_ELEMENTS: usize = 1000;
/// Bytes of text that a pattern is tried on.
const MAX_MATCHED: usize = 64 << 10;

type Evaluated<'a> = Result<Val<'a>, Fault>;

impl Node {
    pub(super) fn evaluate<'a>(&'a self, scope: &'a Scope<'_>) -> Evaluated<'a> {
        self.run(scope, &mut Vec::new())
    }

    fn run<'a>(&'a self, scope: &'a Scope<'_>, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        scope.spend(1)?;
        match self {
            Self::Constant(constant) => Ok(constant.value()),
            Self::Root(root) => scope.root(*root),
            Self::Local(place) => {
                let value = locals.get(*place).ok_or(Fault::NoKey)?;
                if let Val::Text(Cow::Owned(text)) = value {
                    scope.spend(text.len() / 64)?; // is copied
                }
                Ok(value.clone())
            }
            Self::Field(of, name) => {
                let value = of.run(scope, locals)?.field(name)?;
                value.ok_or_else(|| Fault::NoField(name.clone()))
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
            Self::And(two) => logical(two, false, scope, locals),
            Self::Or(two) => logical(two, true, scope, locals),
            Self::If(three) => match three[0].run(scope, locals)? {
                Val::Bool(true) => three[1].run(scope, locals),
                Val::Bool(false) => three[2].run(scope, locals),
                _ => Err(Fault::Types("? :")),
            },
            Self::Equal(two, wanted) => {
                let [one, two] = both(two, scope, locals)?;
                scope.spend(one.weight().min(two.weight()))?;
                Ok(Val::Bool(one.equals(&two)? == *wanted))
            }
            Self::Compare(comparison, two) => {
                let [one, two] = both(two, scope, locals)?;
                Ok(Val::Bool(comparison.holds(one.compare(&two)?)))
            }
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

fn index<'a>(of: &Val<'a>, key: &Val<'_>) -> Evaluated<'a> {
    if of.is_list() {
        let place = match key {
            Val::Int(place) => usize::try_from(*place).ok(),
            Val::UInt(place) => usize::try_from(*place).ok(),
            // A whole number, as in CEL.
            Val::Double(place) if place.fract() == 0.0 && (0.0..1e9).contains(place) => {
                Some(*place as usize)
            }
            _ => return Err(Fault::Types("[]")),
        };
        return place.and_then(|place| of.element(place)).ok_or(Fault::NoKey);
    }
    match key {
        Val::Text(name) => of.field(name)?.ok_or(Fault::NoKey),
        Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Bool(_) => Err(Fault::NoKey),
        _ => Err(Fault::Types("[]")),
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

fn is_in<'a>(one: &Val<'_>, within: &Val<'_>, scope: &Scope<'_>) -> Evaluated<'a> {
    if within.is_list() {
        scope.spend(within.weight())?;
        for place in 0..within.len().unwrap_or(0) {
            if let Some(element) = within.element(place)
                && element.equals(one)?
            {
                return Ok(Val::Bool(true));
            }
        }
        return Ok(Val::Bool(false));
    }
    if within.len().is_none() {
        return Err(Fault::Types("in"));
    }
    match one {
        Val::Text(name) => Ok(Val::Bool(within.field(name)?.is_some())),
        Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Bool(_) => Ok(Val::Bool(false)),
        _ => Err(Fault::Types("in")),
    }
}

fn arithmetic<'a>(
    kind: Arithmetic,
    one: Val<'a>,
    two: Val<'a>,
    scope: &Scope<'_>,
) -> Evaluated<'a> {
    match (one, two) {
        (Val::Int(one), Val::Int(two)) => match kind {
            Arithmetic::Add => one.checked_add(two),
            Arithmetic::Subtract => one.checked_sub(two),
            Arithmetic::Multiply => one.checked_mul(two),
            Arithmetic::Divide | Arithmetic::Remainder if two == 0 => {
                return Err(Fault::DivisionByZero);
            }
            Arithmetic::Divide => one.checked_div(two),
            Arithmetic::Remainder => one.checked_rem(two),
        }
        .map(Val::Int)
        .ok_or(Fault::Overflow),
        (Val::UInt(one), Val::UInt(two)) => match kind {
            Arithmetic::Add => one.checked_add(two),
            Arithmetic::Subtract => one.checked_sub(two),
            Arithmetic::Multiply => one.checked_mul(two),
            Arithmetic::Divide | Arithmetic::Remainder if two == 0 => {
                return Err(Fault::DivisionByZero);
            }
            Arithmetic::Divide => one.checked_div(two),
            Arithmetic::Remainder => one.checked_rem(two),
        }
        .map(Val::UInt)
        .ok_or(Fault::Overflow),
        (Val::Double(one), Val::Double(two)) => Ok(Val::Double(match kind {
            Arithmetic::Add => one + two,
            Arithmetic::Subtract => one - two,
            Arithmetic::Multiply => one * two,
            Arithmetic::Divide => one / two,
            Arithmetic::Remainder => return Err(Fault::Types("%")),
        })),
        (Val::Text(one), Val::Text(two)) if matches!(kind, Arithmetic::Add) => {
            scope.spend_bytes(one.len() + two.len())?;
            Ok(Val::Text(one + two))
        }
        (one, two) if matches!(kind, Arithmetic::Add) && one.is_list() && two.is_list() => {
            let (mut all, more) = (one.elements()?, two.elements()?);
            let all = all.get_or_insert_default();
            all.extend(more.unwrap_or_default());
            scope.spend(all.len())?;
            if all.len() > MAX_ELEMENTS {
                return Err(Fault::TooLarge);
            }
            Ok(Val::List(std::mem::take(all).into()))
        }
        _ => Err(Fault::Types(match kind {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        })),
    }
}

/// Characters of text, elements of a list, keys of a map.
fn size<'a>(of: &Val<'_>, scope: &Scope<'_>) -> Evaluated<'a> {
    let size = match of {
        Val::Text(text) => {
            scope.spend(text.len() / 64)?;
            text.chars().count()
        }
        other => other.len().ok_or(Fault::Types("size"))?,
    };
    Ok(Val::Int(i64::try_from(size).map_err(|_| Fault::Overflow)?))
}

fn convert<'a>(to: Conversion, value: Val<'a>, scope: &Scope<'_>) -> Evaluated<'a> {
    scope.spend(value.weight())?;
    Ok(match (to, value) {
        (Conversion::Int, Val::Int(value)) => Val::Int(value),
        (Conversion::Int, Val::UInt(value)) => {
            Val::Int(i64::try_from(value).map_err(|_| Fault::Overflow)?)
        }
        (Conversion::Int, Val::Double(value)) => {
            if !(value > i64::MIN as f64 && value < i64::MAX as f64) {
                return Err(Fault::Overflow);
            }
            Val::Int(value as i64)
        }
        (Conversion::Int, Val::Text(text)) => {
            Val::Int(text.parse().map_err(|_| Fault::NotANumber)?)
        }
        (Conversion::UInt, Val::UInt(value)) => Val::UInt(value),
        (Conversion::UInt, Val::Int(value)) => {
            Val::UInt(u64::try_from(value).map_err(|_| Fault::Overflow)?)
        }
        (Conversion::UInt, Val::Double(value)) => {
            if !(value >= 0.0 && value < u64::MAX as f64) {
                return Err(Fault::Overflow);
            }
            Val::UInt(value as u64)
        }
        (Conversion::UInt, Val::Text(text)) => {
            Val::UInt(text.parse().map_err(|_| Fault::NotANumber)?)
        }
        (Conversion::Double, Val::Double(value)) => Val::Double(value),
        (Conversion::Double, Val::Int(value)) => Val::Double(value as f64),
        (Conversion::Double, Val::UInt(value)) => Val::Double(value as f64),
        (Conversion::Double, Val::Text(text)) => {
            Val::Double(text.parse().map_err(|_| Fault::NotANumber)?)
        }
        (Conversion::Text, Val::Text(text)) => Val::Text(text),
        (Conversion::Text, Val::Int(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Text, Val::UInt(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Text, Val::Double(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Text, Val::Bool(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Bool, Val::Bool(value)) => Val::Bool(value),
        (Conversion::Bool, Val::Text(text)) => match &*text {
            "1" | "t" | "true" | "TRUE" | "True" => Val::Bool(true),
            "0" | "f" | "false" | "FALSE" | "False" => Val::Bool(false),
            _ => return Err(Fault::Types("bool")),
        },
        (to, _) => {
            return Err(Fault::Types(match to {
                Conversion::Int => "int",
                Conversion::UInt => "uint",
                Conversion::Double => "double",
                Conversion::Text => "string",
                Conversion::Bool => "bool",
            }));
        }
    })
}
