//! The environment of a template: strict, with fuel, a few filters and tests, and nothing else.

use std::fmt::Write;

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, escape_formatter, filters,
    tests, value::ValueKind,
};

/// Names of templates, which say how values are written.
pub(super) const TEXT: &str = "text";
pub(super) const HTML: &str = "html";
pub(super) const JSON: &str = "json";
/// Instructions of one rendering.
const FUEL: u64 = 20_000;

pub(super) fn environment(kind: &'static str) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name {
        HTML => AutoEscape::Html,
        JSON => AutoEscape::Json,
        _ => AutoEscape::None,
    });
    environment.set_formatter(move |out, state, value| {
        let is_text = !matches!(
            value.kind(),
            ValueKind::None | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
        );
        if kind == JSON || value.is_undefined() {
            escape_formatter(out, state, value)
        } else if value.kind() == ValueKind::Bool {
            out.write_str(if value.is_true() { "true" } else { "false" }).map_err(Error::from)
        } else if is_text {
            escape_formatter(out, state, value)
        } else {
            Err(ErrorKind::InvalidOperation.into())
        }
    });
    environment.add_filter("abs", filters::abs);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("float", filters::float);
    environment.add_filter("int", filters::int);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("reverse", filters::reverse);
    environment.add_filter("round", filters::round);
    environment.add_filter("string", filters::string);
    environment.add_filter("title", filters::title);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("upper", filters::upper);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("string", tests::is_string);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("true", tests::is_true);
    environment.add_test("false", tests::is_false);
    environment.add_test("even", tests::is_even);
    environment.add_test("odd", tests::is_odd);
    environment
}

/// minijinja's own takes a separator of any length, which a request could fill.
fn join(list: &Value, separator: Option<&str>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    if separator.len() > 16 {
        return Err(ErrorKind::InvalidOperation.into());
    }
    let mut joined = String::new();
    for (place, element) in list.try_iter()?.enumerate() {
        if place > 0 {
            joined.push_str(separator);
        }
        write!(joined, "{element}").map_err(Error::from)?;
    }
    Ok(joined)
}

/// The filters of [`environment`].
pub(super) const FILTERS: [&str; 16] = [
    "abs",
    "capitalize",
    "default",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "reverse",
    "round",
    "string",
    "title",
    "trim",
    "upper",
];
