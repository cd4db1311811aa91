//! What changed between two configurations, key by key, as it was written. Never shows a secret.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, document::Document, paths, schema};

/// All keys that a file sets, each with its text.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Written(BTreeMap<String, Leaf>);

/// One value: how it is shown, and what it is.
#[derive(Clone, PartialEq, Eq)]
struct Leaf {
    /// As it stands in the file; references unresolved, secrets hidden.
    shown: String,
    /// With references resolved: what is compared.
    value: String,
}

/// One key that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `route.checkout.timeout`
    pub key: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Config {
    /// What `self` changes about `before`, in the order of the keys.
    pub fn differences(&self, before: &Self) -> Vec<Difference> {
        let (new, old) = (&self.written.0, &before.written.0);
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        let changed = keys.into_iter().filter(|key| {
            old.get(*key).map(|leaf| &leaf.value) != new.get(*key).map(|leaf| &leaf.value)
        });
        changed
            .map(|key| {
                let shown = |leaves: &BTreeMap<String, Leaf>| {
                    leaves.get(key).map(|leaf| leaf.shown.clone())
                };
                Difference { key: key.clone(), before: shown(old), after: shown(new) }
            })
            .collect()
    }
}

impl Written {
    /// From a document whose references are resolved and that has no faults.
    pub(super) fn of(document: &Document<'_>, schema: &Value) -> Self {
        let mut leaves = BTreeMap::new();
        let mut walk = Walk { document, schema, path: Vec::new(), leaves: &mut leaves };
        walk.table(&document.tree);
        Self(leaves)
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Difference {
    /// Whether the key is within one of these sections.
    pub fn is_within(&self, sections: &[&str]) -> bool {
        let first = self.key.split('.').next().unwrap_or_default();
        sections.contains(&first)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if before == after => {
                write!(f, "{}: {after} gives something else now", self.key)
            }
            (Some(before), Some(after)) => write!(f, "{}: {before} → {after}", self.key),
            (None, Some(after)) => write!(f, "{}: {after} (new)", self.key),
            (Some(before), None) => write!(f, "{}: {before} (gone)", self.key),
            (None, None) => write!(f, "{}", self.key),
        }
    }
}

struct Walk<'a, 't> {
    document: &'a Document<'t>,
    schema: &'a Value,
    path: Vec<String>,
    leaves: &'a mut BTreeMap<String, Leaf>,
}

impl Walk<'_, '_> {
    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            self.path.push(key.get_ref().to_string());
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() => self.table(inner),
                _ => self.leaf(value),
            }
            self.path.pop();
        }
    }

    fn leaf(&mut self, value: &Spanned<DeValue<'_>>) {
        let key = paths::key_of(&paths::strs(&self.path));
        let resolved = resolved(value.get_ref());
        let is_secret = (1..=self.path.len()).any(|end| {
            schema::at(self.schema, &self.path[..end])
                .is_some_and(|wanted| wanted["writeOnly"] == Value::Bool(true))
        });
        let shown =
            if is_secret { "***".to_owned() } else { self.document.shown(value.span(), LONGEST) };
        self.leaves.insert(key, Leaf { shown, value: resolved });
    }
}

/// A value as one text: only compared, never shown.
fn resolved(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| resolved(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => {
            let one = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                format!("{} = {}", key.get_ref(), resolved(value.get_ref()))
            };
            format!("{{{}}}", table.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// Characters of a value that are shown.
const LONGEST: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
        [admin]
        token = "0123456789abcdef"
        [upstream.shop]
        endpoints = ["http://127.0.0.1:1"]
        timeout = "15s"
        [route.orders]
        match = "POST /orders"
    "#;

    fn differences(before: &str, after: &str) -> Vec<String> {
        let parse = |text: &str| Config::parse(text, "standin.toml").unwrap();
        parse(after).differences(&parse(before)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_changed_is_no_difference() {
        let other_words = BEFORE.replace("timeout = \"15s\"", "timeout   = '15s' # as before");
        assert!(differences(BEFORE, &other_words).is_empty());
    }

    #[test]
    fn each_key_is_told_as_it_is_written() {
        let after = BEFORE
            .replace("15s", "5s")
            .replace(":1\"]", ":1\", \"http://127.0.0.1:2\"]")
            .replace("[route.orders]\n        match = \"POST /orders\"", "");
        assert_eq!(
            differences(BEFORE, &after),
            [
                "route.orders.match: \"POST /orders\" (gone)",
                "upstream.shop.endpoints: [\"http://127.0.0.1:1\"] → [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]",
                "upstream.shop.timeout: \"15s\" → \"5s\"",
            ]
        );
    }

    #[test]
    fn a_secret_is_told_but_not_shown() {
        let after = BEFORE.replace("0123456789abcdef", "fedcba9876543210");
        assert_eq!(differences(BEFORE, &after), ["admin.token: *** gives something else now"]);
    }
}
