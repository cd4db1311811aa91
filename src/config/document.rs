//! One configuration file as a tree with places: what was written where, and what was found wrong in it.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    faults::{Fault, Faults},
    paths::{find, index, is_index, key_of, remove_item},
    references::Reference,
};

/// The file while it is being read. Faulty keys are cut from `tree` (or filled with something harmless where they are
/// required), so that reading can go on and find the next fault.
pub(super) struct Document<'t> {
    pub(super) file: &'t str,
    text: &'t str,
    /// As written: for places.
    written: DeTable<'t>,
    /// References resolved, faulty keys replaced: for values.
    pub(super) tree: DeTable<'t>,
    pub(super) references: Vec<Reference>,
    /// What was cut or filled: its value says nothing about the file.
    unsound: Vec<Vec<String>>,
    faults: Vec<Fault>,
    /// Faults beyond those that are kept.
    untold: usize,
    /// The syntax is broken somewhere: what seems to be missing may only be unreadable.
    pub(super) broken: bool,
}

impl<'t> Document<'t> {
    /// Parses the text; every syntax error is a fault.
    pub(super) fn parse(text: &'t str, file: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let root = root.into_inner();
        let mut document = Self {
            file,
            text,
            written: root.clone(),
            tree: root,
            references: Vec::new(),
            unsound: Vec::new(),
            faults: Vec::new(),
            untold: 0,
            broken: !errors.is_empty(),
        };
        // An array that is never closed takes all the rest of the file for its items: what follows is noise.
        let unclosed = errors.iter().any(|error| error.message().starts_with("unclosed array"));
        for error in errors {
            document.syntax_fault(&error);
            if unclosed && error.message().starts_with("missing comma between array elements") {
                break;
            }
        }
        document
    }

    /// The faults found, in the order of the file.
    pub(super) fn into_faults(mut self) -> Result<(), Faults> {
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        let more = self.faults.len().saturating_sub(MOST_FAULTS) + self.untold;
        self.faults.truncate(MOST_FAULTS);
        if more > 0 {
            self.faults.push(Fault::new(self.file, &format!("and {more} more faults")));
        }
        Err(Faults(self.faults))
    }

    /// Whether there are so many faults that reading on is no use.
    pub(super) fn is_hopeless(&self) -> bool {
        self.faults.len() >= HOPELESS
    }

    /// A fault at a key, or at the nearest table above it that is written. Quiet where the key was at fault before.
    pub(super) fn fault(&mut self, path: &[&str], message: &str) {
        if self.sound(path) {
            self.fault_at(self.span_of(path), path, message);
        }
    }

    /// A fault at a key, unless something below it was told already.
    pub(super) fn fault_unless_below(&mut self, path: &[&str], message: &str) {
        let key = format!("`{}", key_of(path));
        let told = self.faults.iter().any(|fault| fault.message.starts_with(&key));
        if !told && self.is_whole(path) {
            self.fault(path, message);
        }
    }

    /// A fault at a place.
    pub(super) fn fault_at(&mut self, span: Option<Range<usize>>, path: &[&str], message: &str) {
        let message = self.without_secrets(path, message);
        let message =
            if path.is_empty() { message } else { format!("`{}`: {message}", key_of(path)) };
        self.push(span, &message);
    }

    /// Whether the value at `path` is what the file says.
    pub(super) fn sound(&self, path: &[&str]) -> bool {
        !self.unsound.iter().any(|unsound| {
            unsound.len() <= path.len() && unsound.iter().zip(path).all(|(one, two)| one == two)
        })
    }

    /// Whether this is so for everything below `path` too: no item was taken out.
    pub(super) fn is_whole(&self, path: &[&str]) -> bool {
        let below = |unsound: &Vec<String>| {
            unsound.len() > path.len() && unsound.iter().zip(path).all(|(one, two)| one == two)
        };
        self.sound(path) && !self.unsound.iter().any(below)
    }

    /// The path of the value or key written at exactly this place.
    pub(super) fn path_at(&self, span: &Range<usize>) -> Option<Vec<String>> {
        let mut path = Vec::new();
        find(&self.written, span, &mut path).then_some(path)
    }

    /// Whether the key at `path` is written in the file.
    pub(super) fn is_written(&self, path: &[&str]) -> bool {
        self.nearest(path).is_some_and(|(depth, _)| depth == path.len())
    }

    /// Takes a faulty value out, or fills in a harmless one.
    pub(super) fn replace(&mut self, path: &[String], filling: Option<&'static str>) {
        self.unsound.push(path.to_vec());
        let Some((last, parents)) = path.split_last() else { return };
        let mut table = &mut self.tree;
        let mut steps = parents.iter();
        while let Some(step) = steps.next() {
            let Some(value) = table.get_mut(step.as_str()) else { return };
            match value.get_mut() {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(items) if steps.next().is_none() && is_index(last) => {
                    remove_item(items, last);
                    return;
                }
                _ => return,
            }
        }
        if is_index(last) {
            return;
        }
        table.remove(last.as_str());
        if let Some(filling) = filling {
            let value = DeValue::parse(filling).expect("the fillings are TOML");
            let key = Spanned::new(0..0, last.clone().into());
            table.insert(key, value);
        }
    }

    /// The text at `path`, references resolved.
    pub(super) fn text_at(&self, path: &[String]) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        let value =
            rest.iter().try_fold(self.tree.get(first.as_str())?, |value, step| {
                match step.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                    Some(at) => value.get_ref().get(at.parse::<usize>().ok()?),
                    None => value.get_ref().get(step.as_str()),
                }
            })?;
        value.get_ref().as_str()
    }

    /// What is written at a place, on one line and of at most so many characters.
    pub(super) fn shown(&self, span: Range<usize>, most: usize) -> String {
        let written = self.text.get(span).unwrap_or_default();
        let mut shown = written.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = shown.char_indices().nth(most) {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }

    /// Where the key at `path` is written, or the nearest table above it.
    pub(super) fn span_of(&self, path: &[&str]) -> Option<Range<usize>> {
        self.nearest(path).map(|(_, span)| span)
    }

    fn nearest(&self, path: &[&str]) -> Option<(usize, Range<usize>)> {
        let mut found = None;
        let mut table = &self.written;
        for (at, step) in path.iter().enumerate() {
            let Some((key, value)) = table.get_key_value(*step) else { break };
            found = Some((at + 1, key.span()));
            match (value.get_ref(), path.get(at + 1)) {
                (DeValue::Table(inner), _) => table = inner,
                (DeValue::Array(items), Some(step)) => {
                    let item = items.iter().enumerate().find(|(at, _)| index(*at) == *step);
                    return item.map(|(_, item)| (at + 2, item.span())).or(found);
                }
                _ => break,
            }
        }
        found
    }

    fn syntax_fault(&mut self, error: &toml::de::Error) {
        let line = error.span().map(|span| self.place(span.start).0);
        // One broken line is one fault: what the parser says after its first stumble is noise.
        if line.is_some() && self.faults.last().map(|fault| fault.line) == line {
            return;
        }
        let hint = match error.message() {
            "duplicate key" => ": this key or table is there already, above",
            // What the parser makes of `role = inline`.
            message if message.starts_with("invalid float") => "; text is written in quotes",
            _ => "",
        };
        self.push(error.span(), &format!("not TOML: {}{hint}", error.message()));
    }

    fn push(&mut self, span: Option<Range<usize>>, message: &str) {
        if self.is_hopeless() {
            self.untold += 1;
            return;
        }
        let mut fault = Fault::new(self.file, message);
        if let Some(span) = span {
            (fault.line, fault.column) = self.place(span.start);
            let broken =
                |other: &Fault| other.line == fault.line && other.message.starts_with("not TOML");
            if self.faults.iter().any(broken) {
                return;
            }
        }
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[start..].chars().count() + 1)
    }

    /// What references gave is shown by the reference's own text, in every message.
    fn without_secrets(&self, path: &[&str], message: &str) -> String {
        let mut message = message.to_owned();
        for reference in &self.references {
            message = reference.hidden_in(&message);
        }
        let shown = self.references.iter().find(|reference| {
            reference.path.len() >= path.len()
                && reference.path.iter().zip(path).all(|(one, two)| one == two)
                && reference.shows_in(&message)
        });
        match shown {
            Some(Reference { written, .. }) => {
                format!("what `{written}` gives does not fit here (it is not shown)")
            }
            None => message,
        }
    }
}

const MOST_FAULTS: usize = 200;
const HOPELESS: usize = 1000;
