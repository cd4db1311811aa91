//! `[route.NAME.stand_in.answer]`: that it is an answer, and that its templates compile.

use std::path::Path;

use serde_json::Value;

use super::headers;
use crate::{
    config::{AnswerConfig, Config, document::Document, files, paths::index},
    template::{Escape, JsonTemplate, Template},
};

pub(super) fn find(
    name: &str,
    answer: &AnswerConfig,
    config: &Config,
    document: &mut Document<'_>,
    folder: &Path,
) {
    let at = |key| ["route", name, "stand_in", "answer", key];
    if !(200..=599).contains(&answer.status) {
        let message = format!("{} is not the status of an answer: 200 to 599", answer.status);
        document.fault(&at("status"), &message);
    }
    let bodies: Vec<&str> = [
        ("json", answer.json.is_some()),
        ("body", answer.body.is_some()),
        ("body_file", answer.body_file.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, there)| there.then_some(key))
    .collect();
    if let [first, .., last] = bodies.as_slice() {
        document.fault(&at(last), &format!("there is `{first}` already: an answer has one body"));
    }
    if let ([body, ..], 204 | 205 | 304) = (bodies.as_slice(), answer.status) {
        let message = format!("{} has no body: leave out `{body}`", answer.status);
        document.fault(&at("status"), &message);
    }
    fields(name, answer, config, document);
    if let Some(json) = &answer.json {
        structure(json, &mut at("json").map(str::to_owned).to_vec(), document);
        if let Err(fault) = JsonTemplate::compile(json) {
            document.fault_unless_below(&at("json"), &fault.to_string());
        }
    }
    if let Some(text) = &answer.body {
        body(text, &at("body"), answer, document);
    }
    if let Some(file) = &answer.body_file {
        match files::read_text(&folder.join(file)) {
            Ok(text) => body(&text, &at("body_file"), answer, document),
            Err(message) => document.fault(&at("body_file"), &message),
        }
    }
}

fn fields(name: &str, answer: &AnswerConfig, config: &Config, document: &mut Document<'_>) {
    let at = |header| ["route", name, "stand_in", "answer", "headers", header];
    for (header, value) in &answer.headers {
        let above = answer.headers.keys().any(|other| {
            other != header
                && other.eq_ignore_ascii_case(header)
                && start(document, &at(other)) < start(document, &at(header))
        });
        if above {
            document.fault(&at(header), "is there twice: names of headers have no case");
        }
        headers::of_answer(document, &at(header), header, value, &config.request_id.header);
    }
}

fn start(document: &Document<'_>, path: &[&str]) -> Option<usize> {
    document.span_of(path).map(|span| span.start)
}

/// Each string by itself, so that each bad one is told.
fn structure(json: &Value, path: &mut Vec<String>, document: &mut Document<'_>) {
    match json {
        Value::String(_) => {
            if let Err(fault) = JsonTemplate::compile(json) {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                document.fault(&path, &fault.to_string());
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push(index(at));
                structure(item, path, document);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(name.clone());
                structure(value, path, document);
                path.pop();
            }
        }
        _ => {}
    }
}

/// HTML and XML are escaped by what the content type says; JSON would not be.
fn body(text: &str, path: &[&str], answer: &AnswerConfig, document: &mut Document<'_>) {
    let content_type =
        answer.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let kind = content_type.map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    let is =
        |word: &str| kind.ends_with(&format!("/{word}")) || kind.ends_with(&format!("+{word}"));
    let escape = if is("html") || is("xml") { Escape::Html } else { Escape::None };
    match Template::compile_for(text, escape) {
        Err(fault) => document.fault(path, &fault.to_string()),
        Ok(template) if is("json") && !template.is_fixed() => {
            document.fault(path, "a text is not escaped for JSON: use `json`");
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::{config::Config, stand_in::answer::AnswerTemplate};

    /// What is accepted here is what the stand-in can compile: a start never fails after a check that did not.
    #[test]
    fn an_answer_is_accepted_if_and_only_if_it_compiles() {
        let answers = [
            ("status = 200", true),
            ("status = 201, json = { id = \"{{ request.id }}\", n = [1, \"{{ body.n }}\"] }", true),
            ("status = 201, json = { id = \"{{ request.id\" }", false),
            ("status = 201, json = { id = [\"{{ nobody.id }}\"] }", false),
            ("status = 202, body = \"hi {{ body.name }}\"", true),
            ("status = 202, body = \"hi {{ body.name\"", false),
            ("status = 202, body = \"{% if %}\"", false),
            (
                "status = 202, body = \"{}\", headers = { content-type = \"application/json\" }",
                true,
            ),
            (
                "status = 202, body = \"{{ body.a }}\", headers = { content-type = \"application/json\" }",
                false,
            ),
            ("status = 202, headers = { location = \"/orders/{{ request.id }}\" }", true),
            ("status = 202, headers = { location = \"/orders/{{ request.id\" }", false),
            ("status = 202, headers = { x = \"caf\u{e9}\" }", false),
            ("status = 202, headers = { Date = \"x\" }", false),
            ("status = 202, headers = { idempotency-key = \"x\" }", false),
            ("status = 204, body = \"x\"", false),
            ("status = 199", false),
        ];
        for (answer, good) in answers {
            let text = format!(
                "[upstream.a]\nendpoints = [\"http://a:1\"]\n[route.r]\nmatch = \"POST /\"\n\
                 [route.r.stand_in]\naccept_if = \"true\"\nanswer = {{ {answer} }}\n"
            );
            let loaded = Config::parse(&text, "test.toml");
            assert_eq!(loaded.is_ok(), good, "{answer}: {:?}", loaded.err());
            let table: toml::Table = format!("answer = {{ {answer} }}").parse().unwrap();
            let config = table["answer"].clone().try_into().unwrap();
            assert_eq!(AnswerTemplate::compile(&config, None).is_ok(), good, "{answer}");
        }
    }
}
