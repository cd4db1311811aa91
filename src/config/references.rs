//! `${env:NAME}` and `${file:PATH}` inside string values: looked up once, and never shown again.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Document,
    files,
    paths::{index, strs},
};

/// One reference that was resolved.
#[derive(Clone)]
pub(super) struct Reference {
    /// The key whose value holds it.
    pub(super) path: Vec<String>,
    /// As it stands in the file: `${env:TOKEN}`.
    pub(super) written: String,
    /// What it gave. Never shown.
    text: String,
}

/// What references may ask: the environment, and files beside the configuration.
pub(super) struct Surroundings<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Relative paths start here.
    pub(super) folder: &'a Path,
}

/// Replaces every reference in the tree by what it gives. `$${` is a literal `${`, and `${{` stays as it is: a dollar
/// before a template.
pub(super) fn resolve(document: &mut Document<'_>, surroundings: &Surroundings<'_>) {
    let mut tree = std::mem::take(&mut document.tree);
    let mut walk = Walk { surroundings, path: Vec::new(), found: Vec::new(), faults: Vec::new() };
    walk.table(&mut tree);
    document.tree = tree;
    document.references.append(&mut walk.found);
    for (path, span, message) in &walk.faults {
        document.fault_at(Some(span.clone()), &strs(path), message);
    }
    if document.is_hopeless() {
        return;
    }
    // From the last to the first: taking an item out of a list moves those behind it. Whatever else could be said of
    // these values would be about texts nobody meant.
    for (path, ..) in walk.faults.into_iter().rev() {
        document.replace(&path, Some("\"\""));
    }
}

impl Reference {
    /// Whether a good part of the secret shows in a message about its own key.
    pub(super) fn shows_in(&self, message: &str) -> bool {
        let secret: Vec<char> = self.text.to_lowercase().chars().collect();
        let message: Vec<char> = message.to_lowercase().chars().collect();
        let part = secret.len().min(TELLING_PART);
        if part < SHORTEST_SECRET {
            // Too short to look for: say nothing.
            return part > 0;
        }
        let shown: std::collections::HashSet<&[char]> = message.windows(part).collect();
        secret.windows(part).any(|window| shown.contains(window))
    }

    /// The message with the reference in place of what it gave.
    pub(super) fn hidden_in(&self, message: &str) -> String {
        if self.text.chars().count() < SHORTEST_SECRET {
            return message.to_owned();
        }
        let escaped = self.text.escape_debug().to_string();
        message.replace(&self.text, &self.written).replace(&escaped, &self.written)
    }
}

/// What the references of a configuration gave. Never shown.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Reference>);

impl Secrets {
    pub(super) fn new(references: &[Reference]) -> Self {
        Self(references.to_vec())
    }

    /// The text with each reference in place of what it gave.
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, reference| reference.hidden_in(&text))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

struct Walk<'a> {
    surroundings: &'a Surroundings<'a>,
    path: Vec<String>,
    found: Vec<Reference>,
    faults: Vec<(Vec<String>, std::ops::Range<usize>, String)>,
}

impl Walk<'_> {
    fn table(&mut self, table: &mut DeTable<'_>) {
        for (key, value) in table {
            self.path.push(key.get_ref().to_string());
            self.value(value);
            self.path.pop();
        }
    }

    fn value(&mut self, value: &mut Spanned<DeValue<'_>>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.path.push(index(at));
                    self.value(item);
                    self.path.pop();
                }
            }
            DeValue::String(text) if text.contains("${") => match self.text(text) {
                Ok(resolved) => *text = resolved.into(),
                Err(message) => self.faults.push((self.path.clone(), span, message)),
            },
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<String, String> {
        let mut resolved = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, reference) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = &reference[2..];
                continue;
            }
            resolved.push_str(before);
            if reference[2..].starts_with('{') {
                resolved.push_str("${");
                rest = &reference[2..];
                continue;
            }
            let Some(end) = reference.find('}') else {
                return Err(format!(
                    "`${{` without its `}}`: write `${{env:NAME}}` or `${{file:PATH}}`; {LITERAL}"
                ));
            };
            let written = &reference[..=end];
            let found = self
                .surroundings
                .look_up(&written[2..end])
                .map_err(|why| format!("`{written}`: {why}"))?;
            self.found.push(Reference {
                path: self.path.clone(),
                written: written.to_owned(),
                text: found.clone(),
            });
            resolved.push_str(&found);
            rest = &reference[end + 1..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }
}

impl Surroundings<'_> {
    fn look_up(&self, asked: &str) -> Result<String, String> {
        match asked.split_once(':') {
            Some(("env", name)) if !name.is_empty() => (self.env)(name)
                .ok_or_else(|| format!("the environment has no readable `{name}`: set it")),
            Some(("file", path)) if !path.is_empty() => files::read_text(&self.folder.join(path)),
            _ => Err(format!("write `${{env:NAME}}` or `${{file:PATH}}`; {LITERAL}")),
        }
    }
}

const LITERAL: &str = "a literal `${` is written `$${`";
/// This much of a secret in a row says something about it.
const TELLING_PART: usize = 8;
const SHORTEST_SECRET: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<String, String> {
        let env = |name: &str| (name == "NAME").then(|| "value".to_owned());
        let surroundings = Surroundings { env: &env, folder: Path::new("/nowhere") };
        let mut walk = Walk {
            surroundings: &surroundings,
            path: Vec::new(),
            found: Vec::new(),
            faults: Vec::new(),
        };
        walk.text(text)
    }

    #[test]
    fn references_are_replaced_where_they_stand() {
        assert_eq!(resolved("a ${env:NAME} b ${env:NAME}"), Ok("a value b value".into()));
        assert_eq!(resolved("$${env:NAME} ${env:NAME}"), Ok("${env:NAME} value".into()));
        assert_eq!(resolved("costs ${{ body.total }}"), Ok("costs ${{ body.total }}".into()));
        assert_eq!(resolved("$5 and 5$"), Ok("$5 and 5$".into()));
    }

    #[test]
    fn what_is_missing_or_misspelt_is_said() {
        assert!(resolved("${env:OTHER}").unwrap_err().contains("has no readable `OTHER`"));
        assert!(resolved("${HOME}").unwrap_err().contains("write `${env:NAME}`"));
        assert!(resolved("${env:NAME").unwrap_err().contains("without its `}`"));
        assert!(resolved("${file:absent}").unwrap_err().contains("/nowhere/absent"));
        assert!(resolved("${env:}").is_err());
    }

    #[test]
    fn a_secret_shows_neither_whole_nor_in_part() {
        let secret = Reference {
            path: Vec::new(),
            written: "${env:TOKEN}".into(),
            text: "Hunter2-Hunter3".into(),
        };
        assert_eq!(secret.hidden_in("bad `Hunter2-Hunter3`"), "bad `${env:TOKEN}`");
        assert!(secret.shows_in("bad hunter2-h"));
        assert!(!secret.shows_in("bad token"));
    }
}
