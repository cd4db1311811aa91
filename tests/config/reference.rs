//! `docs/CONFIGURATION.md` and `deploy/standin.toml` name every key of the schema. The tables are made from it: to
//! renew them, run the tests with `STANDIN_WRITE_DOCS=1`.

use std::collections::BTreeSet;

use serde_json::Value;
use standin::config::{Config, json_schema};

use crate::support::Pki;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
const BEGIN: &str = "<!-- Made from the schema. -->\n";

/// One key: its table, its name, its schema, whether it is required.
struct Key<'s> {
    table: String,
    name: &'s str,
    schema: &'s Value,
    required: bool,
}

fn keys(schema: &Value) -> Vec<Key<'_>> {
    let mut keys = Vec::new();
    collect(schema, String::new(), &mut keys);
    keys
}

fn collect<'s>(schema: &'s Value, table: String, keys: &mut Vec<Key<'s>>) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, schema_of_key) in properties.clone() {
        let required = schema["required"]
            .as_array()
            .is_some_and(|names| names.contains(&Value::from(name.as_str())));
        keys.push(Key { table: table.clone(), name, schema: schema_of_key, required });
    }
    for (name, inner) in properties {
        let within = if table.is_empty() { name.clone() } else { format!("{table}.{name}") };
        collect(inner, within.clone(), keys);
        if inner["additionalProperties"]["properties"].is_object() {
            collect(&inner["additionalProperties"], format!("{within}.NAME"), keys);
        }
    }
}

fn is_table(schema: &Value) -> bool {
    schema["properties"].is_object() || schema["additionalProperties"]["properties"].is_object()
}

fn tables(schema: &Value) -> String {
    let mut text = String::new();
    let mut last = None;
    for Key { table, name, schema, required } in keys(schema) {
        if last.as_ref() != Some(&table) {
            let title = if table.is_empty() {
                "Top of the file".to_owned()
            } else {
                format!("`[{table}]`")
            };
            text.push_str(&format!(
                "\n### {title}\n\n| key | value | default | effect |\n| --- | --- | --- | --- |\n"
            ));
            last = Some(table);
        }
        let default = match &schema["default"] {
            Value::Null if required => "**required**".to_owned(),
            Value::Null => "–".to_owned(),
            value => format!("`{value}`"),
        };
        let effect = schema["description"]
            .as_str()
            .unwrap_or_default()
            .replace('\n', " ")
            .replace('|', "\\|");
        text.push_str(&format!(
            "| `{name}` | {} | {default} | {effect} |\n",
            value_in_words(schema)
        ));
    }
    text
}

fn value_in_words(schema: &Value) -> String {
    let forms = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    let words: Vec<String> = forms
        .into_iter()
        .flatten()
        .chain([schema])
        .flat_map(|form| form["enum"].as_array().into_iter().flatten().chain(form.get("const")))
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    if let Some(forms) = forms {
        // A list last: "list of: number or string" would be one of both.
        let mut words: Vec<_> = forms.iter().map(value_in_words).collect();
        words.sort_by_key(|word| word.starts_with("list of"));
        return words.join(" or ");
    }
    let word = match (schema["format"].as_str(), schema["type"].as_str()) {
        (Some("standin-duration"), _) => "duration",
        (Some("standin-size"), _) => "size",
        (Some("standin-address"), _) => "address",
        (Some("standin-network"), _) => "network",
        (_, Some("integer" | "number")) => "number",
        (_, Some("boolean")) => "true, false",
        (_, Some("array")) => return format!("list of: {}", value_in_words(&schema["items"])),
        (_, Some("object")) if is_table(schema) => "table",
        (_, Some("object")) => "table of strings",
        (_, Some(other)) => other,
        (_, None) => "any",
    };
    word.to_owned()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of this test only")]
fn the_reference_is_made_from_the_schema() {
    let written = std::fs::read_to_string(DOCUMENT).unwrap();
    let (words, old) = written.split_once(BEGIN).unwrap();
    let new = tables(&json_schema());
    if std::env::var("STANDIN_WRITE_DOCS").is_ok() {
        std::fs::write(DOCUMENT, format!("{words}{BEGIN}{new}")).unwrap();
        return;
    }
    assert!(old == new, "docs/CONFIGURATION.md is old: run the tests with STANDIN_WRITE_DOCS=1");
}

#[test]
fn every_key_says_what_it_does() {
    let schema = json_schema();
    let keys = keys(&schema);
    assert!(keys.len() > 80, "the walk finds the keys");
    for Key { table, name, schema, .. } in keys {
        let text = schema["description"].as_str().unwrap_or_default();
        assert!(text.len() > 10, "{table}.{name} has no description");
    }
}

/// A line that begins with `#key` or `#[table]`, without a space, is a key that is switched off.
fn switched_on(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(rest)
            if rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') =>
        {
            rest
        }
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_example_names_every_key_and_all_of_it_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thanks.html"), "<p>Thanks, {{ body.name }}</p>").unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    let pki = Pki::new();
    for name in ["shop", "other", "clients", "authority", "standin"] {
        let (cert, key) = pki.pem(&[name], 2040);
        std::fs::write(folder.path().join(format!("tls/{name}.pem")), cert).unwrap();
        std::fs::write(folder.path().join(format!("tls/{name}.key")), key).unwrap();
    }
    let text = switched_on(include_str!("../../deploy/standin.toml"))
        .replace("${env:STANDIN_TOKEN}", "0123456789abcdef")
        .replace("${env:STANDIN_SIGNING_KEY}", "0123456789abcdef")
        .replace("${env:REPLAY_TOKEN}", "0123456789abcdef")
        .replace("${env:EGRESS_PASSWORD}", "0123456789abcdef");
    // `json`, `body` and `body_file` exclude one another, so each has a route of its own.
    let path = folder.path().join("standin.toml");
    std::fs::write(&path, &text).unwrap();
    let read = Config::load(&path);
    assert!(read.is_ok(), "{}", read.unwrap_err());

    let written: toml::Table = text.parse().unwrap();
    let mut named = BTreeSet::new();
    name_keys(&toml::Value::Table(written), &json_schema(), "", &mut named);
    for Key { table, name, .. } in keys(&json_schema()) {
        let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        assert!(named.contains(&key), "deploy/standin.toml does not name {key}");
    }
}

/// The defaults that the example shows are the real ones.
#[test]
fn the_example_shows_true_defaults() {
    let text = switched_on(include_str!("../../deploy/standin.toml"));
    let schema = json_schema();
    // Where the default would show nothing, the example shows a use.
    let examples = [
        "admin.hosts",
        "upstream.NAME.endpoints",
        "upstream.NAME.default",
        "route.NAME.watch.slow",
        "route.NAME.stand_in.at_most.open",
        "route.NAME.stand_in.answer.headers",
        "route.NAME.replay.set_headers",
        "route.NAME.replay.redact",
        "route.NAME.egress.only",
        "route.NAME.egress.deny",
        "egress.NAME.proxies",
    ];
    let written: toml::Table = text.parse().unwrap();
    let mut values = Vec::new();
    collect_values(&toml::Value::Table(written), &schema, "", &mut values);
    let mut compared = 0;
    for (key, value, default) in values {
        if !examples.contains(&key.as_str()) {
            assert_eq!(value, default, "{key}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

fn step<'s>(schema: &'s Value, name: &str) -> (&'s Value, String) {
    match schema["properties"].get(name) {
        Some(inner) => (inner, name.to_owned()),
        None => (&schema["additionalProperties"], "NAME".to_owned()),
    }
}

fn name_keys(value: &toml::Value, schema: &Value, path: &str, named: &mut BTreeSet<String>) {
    for (name, inner) in value.as_table().into_iter().flatten() {
        let (schema, name) = step(schema, name);
        let key = if path.is_empty() { name } else { format!("{path}.{name}") };
        named.insert(key.clone());
        name_keys(inner, schema, &key, named);
    }
}

fn collect_values(
    value: &toml::Value,
    schema: &Value,
    path: &str,
    values: &mut Vec<(String, Value, Value)>,
) {
    for (name, inner) in value.as_table().into_iter().flatten() {
        let (schema, name) = step(schema, name);
        let key = if path.is_empty() { name } else { format!("{path}.{name}") };
        if !schema["default"].is_null() {
            values.push((
                key.clone(),
                serde_json::to_value(inner).unwrap(),
                schema["default"].clone(),
            ));
        }
        collect_values(inner, schema, &key, values);
    }
}
