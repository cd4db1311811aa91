//! Which parts of a body expressions look at: a body is read whole and strictly, but only these become values.
//!
//! Knows native programs. What it cannot see through (the `cel` crate, `body` as a whole) wants everything.

use super::{
    native::{Constant, LoopKind, Node},
    scope::Root,
};

/// See the module. Empty: nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This and all below it.
    All,
    Fields(Vec<(Box<str>, Wanted)>),
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Fields(Vec::new())
    }
}

impl Wanted {
    /// What is wanted of field `name`, if it is.
    pub fn of(&self, name: &str) -> Option<&Self> {
        match self {
            Self::All => Some(self),
            Self::Fields(fields) => {
                fields.iter().find(|(known, _)| **known == *name).map(|(_, wanted)| wanted)
            }
        }
    }

    fn add(&mut self, path: &[&str]) {
        match (&mut *self, path) {
            (Self::All, _) => {}
            (_, []) => *self = Self::All,
            (Self::Fields(fields), [name, below @ ..]) => {
                let place = fields.iter().position(|(known, _)| **known == **name);
                let place = place.unwrap_or_else(|| {
                    fields.push(((*name).into(), Self::default()));
                    fields.len() - 1
                });
                fields[place].1.add(below);
            }
        }
    }
}

impl Node {
    /// Adds what it looks at of the body.
    pub(super) fn wants(&self, wanted: &mut Wanted) {
        if let Some(path) = self.body_path() {
            return wanted.add(&path);
        }
        match self {
            Self::Constant(_) | Self::Root(_) | Self::Local(_) => {}
            Self::Field(of, _)
            | Self::Has(of, _)
            | Self::Not(of)
            | Self::Negate(of)
            | Self::Size(of)
            | Self::Matches(of, _)
            | Self::Convert(_, of) => of.wants(wanted),
            Self::Index(two)
            | Self::And(two)
            | Self::Or(two)
            | Self::Equal(two, _)
            | Self::Compare(_, two)
            | Self::In(two)
            | Self::Arithmetic(_, two)
            | Self::Text(_, two) => two.iter().for_each(|node| node.wants(wanted)),
            Self::If(three) => three.iter().for_each(|node| node.wants(wanted)),
            Self::List(list) => list.iter().for_each(|node| node.wants(wanted)),
            Self::Loop(made) => {
                made.over.wants(wanted);
                made.body.wants(wanted);
                if let LoopKind::Map(Some(condition)) = &made.kind {
                    condition.wants(wanted);
                }
            }
        }
    }

    /// The names that lead from the body to this value.
    fn body_path(&self) -> Option<Vec<&str>> {
        let (of, name) = match self {
            Self::Root(Root::Body) => return Some(Vec::new()),
            Self::Field(of, name) | Self::Has(of, name) => (&**of, &**name),
            Self::Index(two) => match &**two {
                [of, Self::Constant(Constant::Text(name))] => (of, &**name),
                _ => return None,
            },
            _ => return None,
        };
        let mut path = of.body_path()?;
        path.push(name);
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Expr, *};

    fn wanted(sources: &[&str]) -> String {
        let mut wanted = Wanted::default();
        sources.iter().for_each(|source| Expr::compile(source).unwrap().wants(&mut wanted));
        shown(&wanted)
    }

    fn shown(wanted: &Wanted) -> String {
        match wanted {
            Wanted::All => "*".into(),
            Wanted::Fields(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, below)| match below {
                        Wanted::All => name.to_string(),
                        below => format!("{name}.{}", shown(below)),
                    })
                    .collect();
                format!("({})", fields.join(" "))
            }
        }
    }

    #[test]
    fn plain_paths_and_everything_else() {
        for (sources, found) in [
            (&["body.cents > 0 && body.currency == \"USD\""][..], "(cents currency)"),
            (&["body.a.b == 1", "body.a[\"c\"] == 2", "has(body.a.d)"], "(a.(b c d))"),
            (&["body.a.b == 1", "size(body.a) > 2"], "(a)"),
            (&["body.lines.all(line, line.n < body.most)"], "(lines most)"),
            (&["body.lines.filter(line, line.n < body.most).size() > 1"], "(lines most)"),
            (&["body.lines[0].sku == \"a\""], "(lines)"),
            (&["body[request.id] == 1"], "*"),
            (&["request.id == \"x\" && jwt.sub == reason"], "()"),
            (&["\"a\" in body"], "*"),
            (&["body == {}"], "*"),
            (&["true ? body.a : -body.b"], "(a b)"),
            (
                &["[body.a] == [1]", "body.t.startsWith(body.u)", "body.v.matches(\"x\")"],
                "(a t u v)",
            ),
        ] {
            assert_eq!(wanted(sources), found, "{sources:?}");
        }
    }
}
