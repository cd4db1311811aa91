//! The JSON Schema of the configuration, made from its types: the one list of keys. Loader, documentation and
//! editors read it.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// The schema, without references and without `null`, which TOML does not have.
pub fn json_schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    drop_null(&mut schema);
    schema
}

/// The schema of the value at a path, if there is such a key.
pub(super) fn at<'s>(schema: &'s Value, path: &[String]) -> Option<&'s Value> {
    path.iter().try_fold(schema, |schema, step| child(schema, step))
}

/// The schema of one key of a table, or of the items of an array.
pub(super) fn child<'s>(schema: &'s Value, step: &str) -> Option<&'s Value> {
    if step.starts_with('[') {
        return alternatives(schema).find_map(|one| one.get("items"));
    }
    schema
        .get("properties")
        .and_then(|properties| properties.get(step))
        .or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()))
}

/// Whether a table of this schema cannot be without the key.
pub(super) fn is_required(schema: &Value, key: &str) -> bool {
    required(schema).any(|name| name == key)
}

pub(super) fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The words a string may be, where only some are allowed.
pub(super) fn words(schema: &Value) -> Vec<&str> {
    alternatives(schema)
        .flat_map(|one| {
            let list = one.get("enum").and_then(Value::as_array).into_iter().flatten();
            list.chain(one.get("const")).filter_map(Value::as_str)
        })
        .collect()
}

/// The forms a value may have: one, or those of an untagged enum.
pub(super) fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let several = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    let this = several.is_none().then_some(schema);
    several.into_iter().flatten().chain(this)
}

/// What TOML type a form asks for: `string`, `integer`, `boolean`, `array`, `table`; none if anything will do.
pub(super) fn toml_type(form: &Value) -> Option<&str> {
    match form.get("type").and_then(Value::as_str) {
        Some("object") => Some("table"),
        Some("number") => Some("float"),
        other => other,
    }
}

/// What to write, in words.
pub(super) fn wanted(schema: &Value) -> String {
    let words = words(schema);
    if !words.is_empty() {
        return format!("one of {}", quoted(&words));
    }
    let forms: Vec<_> = alternatives(schema).map(wanted_form).collect();
    forms.join(" or ")
}

/// Smallest and largest integer of a form.
pub(super) fn range(form: &Value) -> (i128, i128) {
    let (low, high) = match form.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint" | "uint64") => (0, i128::from(i64::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let minimum = form.get("minimum").and_then(Value::as_i64).map(i128::from);
    (minimum.unwrap_or(low).max(low), high)
}

pub(super) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

fn wanted_form(form: &Value) -> String {
    let text = |what: &str| {
        let examples: Vec<_> =
            form["examples"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("{what} in quotes, for example {}", quoted(&examples))
    };
    match (toml_type(form), form.get("format").and_then(Value::as_str)) {
        (_, Some("standin-duration")) => text("a duration"),
        (_, Some("standin-size")) => text("a size"),
        (_, Some("standin-address")) => text("a numeric address with port"),
        (_, Some("standin-network")) => text("an address or network"),
        (Some("string"), _) => "a string in quotes".to_owned(),
        (Some("integer"), _) => "a whole number".to_owned(),
        (Some("float"), _) => "a number with a point, for example 0.5".to_owned(),
        (Some("boolean"), _) => "true or false".to_owned(),
        (Some("array"), _) => match form.get("items") {
            Some(items) => format!("a list `[…]`, each {}", wanted(items)),
            None => "a list `[…]`".to_owned(),
        },
        (Some("table"), _) => "a table".to_owned(),
        _ => "a value".to_owned(),
    }
}

fn drop_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_null);
            if fields.get("default").is_some_and(Value::is_null) {
                fields.remove("default");
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|one| one != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(forms)) = fields.get_mut("anyOf") {
                forms.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = forms.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    for (key, value) in only {
                        // The field's own words win over those of its type.
                        fields.entry(key).or_insert(value);
                    }
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_neither_null_nor_references() {
        let text = json_schema().to_string();
        assert!(!text.contains("null"), "{text}");
        assert!(!text.contains("$ref"), "{text}");
    }

    #[test]
    fn a_path_leads_to_the_schema_of_its_key() {
        let schema = json_schema();
        let path = ["route", "any", "stand_in", "at_most", "per_customer", "within"];
        let within = at(&schema, &path.map(str::to_owned)).unwrap();
        assert_eq!(within["format"], "standin-duration");
        assert!(at(&schema, &["route".into(), "any".into(), "nonsense".into()]).is_none());
    }
}
