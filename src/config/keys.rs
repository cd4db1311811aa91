//! Holds the tree against the schema: unknown keys, keys of parts not built yet, wrong types, missing keys.

use std::ops::Range;

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Document,
    near,
    paths::{index, is_index, strs},
    schema,
};

/// Reports every key that does not fit the schema, and takes it out of the tree.
pub(super) fn check(document: &mut Document<'_>, schema: &Value) {
    let mut walk = Walk { whole: schema, path: Vec::new(), found: Vec::new() };
    walk.table(&document.tree, schema, None);
    for Finding { path, span, message, missing, .. } in &walk.found {
        // A reference that gave nothing was told already. (An item's place may be another's by now.)
        let item = path.last().is_some_and(|step| is_index(step));
        let told = !item && !document.sound(&strs(path));
        let unreadable = *missing && document.broken;
        if !told && !unreadable {
            document.fault_at(span.clone(), &strs(path), message);
        }
    }
    if document.is_hopeless() {
        return;
    }
    // From the last to the first: taking an item out of a list moves those behind it.
    for Finding { path, filling, .. } in walk.found.into_iter().rev() {
        document.replace(&path, filling);
    }
}

/// Something that deserialises, for a required key that is missing or wrong.
pub(super) fn filling(schema: &Value) -> &'static str {
    let form = schema::alternatives(schema).next().unwrap_or(schema);
    match (form["type"].as_str(), form["format"].as_str()) {
        (_, Some("standin-duration")) => "\"1s\"",
        (_, Some("standin-size")) => "\"1KiB\"",
        (_, Some("standin-address")) => "\"127.0.0.1:0\"",
        (Some("integer"), _) => "200",
        (Some("number"), _) => "0.5",
        (Some("boolean"), _) => "false",
        (Some("array"), _) => "[]",
        // The only required table and enum; a test holds that each required key is served.
        (Some("object"), _) => "{ status = 200 }",
        _ if !schema::words(schema).is_empty() => "\"x-request-id\"",
        _ => "\"false\"",
    }
}

struct Finding {
    path: Vec<String>,
    span: Option<Range<usize>>,
    message: String,
    filling: Option<&'static str>,
    missing: bool,
}

struct Walk<'s> {
    whole: &'s Value,
    path: Vec<String>,
    found: Vec<Finding>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, schema: &Value, place: Option<Range<usize>>) {
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let required = schema::is_required(schema, &name);
            self.path.push(name);
            match schema::child(schema, key.get_ref()) {
                Some(schema) => {
                    if self.has_chosen_name() {
                        self.chosen_name(key);
                    }
                    self.value(key.span(), value, schema, required);
                }
                None => self.unknown(key, schema),
            }
            self.path.pop();
        }
        for name in schema::required(schema).filter(|name| !table.contains_key(*name)) {
            self.path.push(name.to_owned());
            let wanted = schema::child(schema, name).unwrap_or(&Value::Null);
            let what = wanted["description"].as_str().and_then(|text| text.split(". ").next());
            let message = format!(
                "missing: write {}; {}",
                schema::wanted(wanted),
                what.unwrap_or_default().trim_end_matches('.')
            );
            self.report(place.clone(), message, Some(filling(wanted)), true);
            self.path.pop();
        }
    }

    fn value(
        &mut self,
        key: Range<usize>,
        value: &Spanned<DeValue<'_>>,
        schema: &Value,
        required: bool,
    ) {
        let given = value.get_ref();
        let anything = schema::alternatives(schema).any(|form| schema::toml_type(form).is_none());
        if anything {
            self.json(key, value);
            return;
        }
        let fits = |form: &&Value| schema::toml_type(form) == Some(given.type_str());
        let Some(form) = schema::alternatives(schema).find(fits) else {
            let message = format!("this is {}; write {}", article(given), schema::wanted(schema));
            self.report(Some(key), message, required.then(|| filling(schema)), false);
            return;
        };
        match given {
            DeValue::Table(table) => self.table(table, form, Some(key)),
            DeValue::Array(items) => {
                let Some(wanted) = form.get("items") else { return };
                for (at, item) in items.iter().enumerate() {
                    self.path.push(index(at));
                    self.value(item.span(), item, wanted, false);
                    self.path.pop();
                }
            }
            DeValue::String(text) => {
                let words = schema::words(schema);
                if !words.is_empty() && !words.contains(&&**text) {
                    let guess = near::guess(text, words.iter().copied());
                    let message = format!("`{text}` is not {}{guess}", schema::wanted(schema));
                    self.report(Some(key), message, required.then(|| filling(schema)), false);
                }
            }
            DeValue::Integer(number) => {
                let (low, high) = schema::range(form);
                let read = i128::from_str_radix(number.as_str(), number.radix()).ok();
                if !read.is_some_and(|number| (low..=high).contains(&number)) {
                    let message = match read {
                        Some(read) if read < low => format!("{number} is less than {low}"),
                        _ => format!("{number} is more than {high}"),
                    };
                    self.report(Some(key), message, required.then(|| filling(schema)), false);
                }
            }
            _ => {}
        }
    }

    /// What becomes JSON: TOML has values that JSON has not.
    fn json(&mut self, key: Range<usize>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.path.push(key.get_ref().to_string());
                    self.json(key.span(), value);
                    self.path.pop();
                }
            }
            DeValue::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.path.push(index(at));
                    self.json(item.span(), item);
                    self.path.pop();
                }
            }
            DeValue::Datetime(_) => {
                let message = "JSON has no dates: write it in quotes".to_owned();
                self.report(Some(key), message, None, false);
            }
            DeValue::Float(number) if number.as_str().contains(['n', 'N']) => {
                let message = format!("JSON has no {}", number.as_str());
                self.report(Some(key), message, None, false);
            }
            _ => {}
        }
    }

    /// Whether the last step of the path is a name of the user's choice for a part.
    fn has_chosen_name(&self) -> bool {
        matches!(
            strs(&self.path).as_slice(),
            ["upstream" | "route" | "egress", _] | ["route", _, "labels", _]
        )
    }

    /// Names stand in metrics, addresses of the admin page and command lines.
    fn chosen_name(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>) {
        let name = key.get_ref();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(fits) {
            let message =
                format!("a name has letters, digits, `-` and `_`, at most {LONGEST_NAME} of them");
            let path = self.path.clone();
            // Stays in the tree: what is below it is read all the same.
            self.found.push(Finding {
                path: path[..path.len() - 1].to_vec(),
                span: Some(key.span()),
                message: format!("`{name}` is no name: {message}"),
                filling: None,
                missing: false,
            });
        }
    }

    fn unknown(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, schema: &Value) {
        let name = key.get_ref();
        let section: Vec<&str> = strs(&self.path[..self.path.len() - 1]);
        let message = if self.found.len() > MOST_GUESSES {
            "unknown key".to_owned()
        } else if near::not_built(&section, name) {
            "not built yet: leave it out".to_owned()
        } else {
            let known =
                schema["properties"].as_object().into_iter().flatten().map(|(key, _)| &**key);
            let mut guess = near::guess(name, known);
            if guess.is_empty() {
                guess = near::elsewhere(name, &section, self.whole);
            }
            format!("unknown key{guess}")
        };
        self.report(Some(key.span()), message, None, false);
    }

    fn report(
        &mut self,
        span: Option<Range<usize>>,
        message: String,
        filling: Option<&'static str>,
        missing: bool,
    ) {
        self.found.push(Finding { path: self.path.clone(), span, message, filling, missing });
    }
}

fn article(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) | DeValue::Array(_) => format!("an {}", value.type_str()),
        _ => format!("a {}", value.type_str()),
    }
}

const LONGEST_NAME: usize = 64;
/// Past this many findings nobody reads what a key may have meant.
const MOST_GUESSES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// All required keys of the schema, wherever they are.
    fn required_keys(schema: &Value, found: &mut Vec<Value>) {
        if let Value::Object(fields) = schema {
            for name in schema::required(schema) {
                found.push(schema["properties"][name].clone());
            }
            fields.values().for_each(|inner| required_keys(inner, found));
        }
    }

    #[test]
    fn the_filling_of_each_required_key_fits_it() {
        let mut keys = Vec::new();
        required_keys(&schema::json_schema(), &mut keys);
        assert!(keys.len() >= 7, "{keys:?}");
        for wanted in keys {
            let value = DeValue::parse(filling(&wanted)).unwrap();
            let mut walk = Walk { whole: &wanted, path: vec!["key".into()], found: Vec::new() };
            walk.value(0..0, &value, &wanted, true);
            assert!(walk.found.is_empty(), "{wanted}");
        }
    }
}
