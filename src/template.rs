//! Templates of answers: text, or JSON whose strings are templates. Compiled once, bounded, strict.
//!
//! `{{ request.id }}`, `{{ body.x.y }}` and other plain paths are read natively; filters, conditions and loops run in
//! minijinja with fuel and a bounded output. What is missing, `null` in a text, and lists or objects in a text are
//! faults. There is no `receipt`: an answer is made before its entry is stored.

mod engine;
mod json;

use bytes::Bytes;

use self::engine::Engine;
pub use self::json::JsonTemplate;
use crate::expr::{Expr, Facts};

/// A text with holes. The facts are those of [`crate::expr`], but `now` is RFC 3339.
#[derive(Debug)]
pub struct Template {
    escape: Escape,
    parts: Parts,
    fixed: Option<Bytes>,
}

/// How values are written into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As they are.
    None,
    /// `<`, `>`, `&`, quotes: for HTML and XML.
    Html,
}

/// What is wrong with a template, or why it could not be rendered. Shows nothing of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateFault(pub String);

/// Bytes of a template.
pub const MAX_SOURCE: usize = 64 << 10;
/// Bytes of what a template makes.
pub const MAX_OUTPUT: usize = 256 << 10;

#[derive(Debug)]
enum Parts {
    Plain(Vec<Part>),
    Engine(Box<Engine>),
}

#[derive(Debug)]
enum Part {
    Fixed(Box<str>),
    Hole(Hole),
}

/// A plain path.
#[derive(Debug)]
enum Hole {
    Path(Expr),
    Now,
}

impl Template {
    /// Compiles a template whose values are written as they are.
    pub fn compile(source: &str) -> Result<Self, TemplateFault> {
        Self::compile_for(source, Escape::None)
    }

    pub fn compile_for(source: &str, escape: Escape) -> Result<Self, TemplateFault> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateFault(format!("longer than {MAX_SOURCE} bytes")));
        }
        let parts = match plain_parts(source) {
            Some(parts) => Parts::Plain(parts),
            None => Parts::Engine(Box::new(Engine::text(source, escape)?)),
        };
        let fixed = match &parts {
            Parts::Plain(parts) => match &parts[..] {
                [] => Some(Bytes::new()),
                [Part::Fixed(text)] => Some(Bytes::from(text.to_string())),
                _ => None,
            },
            Parts::Engine(_) => None,
        };
        Ok(Self { escape, parts, fixed })
    }

    /// Whether it is the same text for every request.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// The text, if it is the same for every request.
    pub fn fixed(&self) -> Option<&Bytes> {
        self.fixed.as_ref()
    }

    pub fn render(&self, facts: &Facts<'_>) -> Result<String, TemplateFault> {
        let parts = match &self.parts {
            Parts::Plain(parts) => parts,
            Parts::Engine(engine) => return engine.render(facts),
        };
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Fixed(fixed) => text.push_str(fixed),
                Part::Hole(hole) => write(&mut text, &hole.value(facts)?, self.escape)?,
            }
            if text.len() > MAX_OUTPUT {
                return Err(too_long());
            }
        }
        Ok(text)
    }
}

impl Hole {
    /// `path` as a hole, if it is a plain one: names, `["names"]` and `[numbers]`.
    fn parse(path: &str) -> Option<Self> {
        let path = path.trim();
        if path == "now" {
            return Some(Self::Now);
        }
        let root = path.split(['.', '[']).next().unwrap_or_default();
        let known = ["request", "body", "jwt", "reason"].contains(&root);
        (known && is_path(&path[root.len()..])).then(|| Expr::compile(path).ok())?.map(Self::Path)
    }

    /// Adds the value as JSON text.
    fn write_json(&self, facts: &Facts<'_>, json: &mut Vec<u8>) -> Result<(), TemplateFault> {
        match self {
            Self::Now => {
                json.extend_from_slice(format!("\"{}\"", facts.now).as_bytes());
                Ok(())
            }
            Self::Path(path) => {
                path.write_json(facts, json).map_err(|fault| TemplateFault(fault.0))
            }
        }
    }

    fn value(&self, facts: &Facts<'_>) -> Result<serde_json::Value, TemplateFault> {
        match self {
            Self::Now => Ok(facts.now.to_string().into()),
            Self::Path(path) => path.to_json(facts).map_err(|fault| TemplateFault(fault.0)),
        }
    }
}

/// Whether `steps` is made of `.name`, `["name"]` and `[1]` only.
fn is_path(mut steps: &str) -> bool {
    while !steps.is_empty() {
        if let Some(rest) = steps.strip_prefix('.') {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !is_name(name) {
                return false;
            }
            steps = rest;
        } else {
            let Some((key, rest)) = steps.strip_prefix('[').and_then(|rest| rest.split_once(']'))
            else {
                return false;
            };
            let quoted =
                |quote: char| key.strip_prefix(quote).and_then(|key| key.strip_suffix(quote));
            let is_text = quoted('"')
                .or_else(|| quoted('\''))
                .is_some_and(|key| !key.contains(['"', '\'', '\\', '\n']));
            if !is_text && (key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_digit())) {
                return false;
            }
            steps = rest;
        }
    }
    true
}

/// The template in parts, if there is nothing in it but text and plain paths.
fn plain_parts(source: &str) -> Option<Vec<Part>> {
    if source.contains("{%") || source.contains("{#") {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = source;
    while let Some((fixed, behind)) = rest.split_once("{{") {
        let (path, behind) = behind.split_once("}}")?;
        parts.push(Part::Fixed(fixed.into()));
        parts.push(Part::Hole(Hole::parse(path)?));
        rest = behind;
    }
    parts.push(Part::Fixed(rest.into()));
    parts.retain(|part| !matches!(part, Part::Fixed(fixed) if fixed.is_empty()));
    Some(parts)
}

fn write(
    text: &mut String,
    value: &serde_json::Value,
    escape: Escape,
) -> Result<(), TemplateFault> {
    use serde_json::Value;
    match value {
        Value::String(value) if escape == Escape::Html => {
            for char in value.chars() {
                match char {
                    '<' => text.push_str("&lt;"),
                    '>' => text.push_str("&gt;"),
                    '&' => text.push_str("&amp;"),
                    '"' => text.push_str("&quot;"),
                    '\'' => text.push_str("&#x27;"),
                    '/' => text.push_str("&#x2f;"),
                    other => text.push(other),
                }
            }
        }
        Value::String(value) => text.push_str(value),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(TemplateFault("null, a list or an object cannot stand in a text".into()));
        }
    }
    Ok(())
}

fn too_long() -> TemplateFault {
    TemplateFault(format!("more than {MAX_OUTPUT} bytes come out of it"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::time::UnixMillis;

    /// A request to make answers from.
    pub(crate) struct Sample {
        pub(crate) headers: HeaderMap,
        pub(crate) params: Vec<(String, String)>,
        pub(crate) body: Value,
    }

    impl Sample {
        pub(crate) fn new(body: Value) -> Self {
            let mut headers = HeaderMap::new();
            headers.insert("x-shop", "north".parse().unwrap());
            Self { headers, params: vec![("id".into(), "42".into())], body }
        }

        pub(crate) fn facts(&self) -> Facts<'_> {
            Facts {
                method: "POST",
                path: "/orders/42",
                query: "page=2",
                headers: &self.headers,
                params: &self.params,
                id: "0190-id",
                principal: "u1",
                client_ip: Ipv4Addr::LOCALHOST.into(),
                body: (&self.body).into(),
                reason: "timed_out",
                now: UnixMillis(1_700_000_000_123),
                response: None,
            }
        }
    }

    fn order() -> Sample {
        Sample::new(json!({
            "cents": 1999, "rate": 2.0, "paid": true, "note": null, "name": "Zoë <b>&\"'/",
            "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 3}], "key with space": "k"
        }))
    }

    fn render(source: &str, escape: Escape) -> Result<String, TemplateFault> {
        Template::compile_for(source, escape)?.render(&order().facts())
    }

    fn is_plain(source: &str) -> bool {
        matches!(Template::compile(source).unwrap().parts, Parts::Plain(_))
    }

    /// The same by minijinja alone.
    fn by_engine(source: &str, escape: Escape) -> Result<String, TemplateFault> {
        Engine::text(source, escape)?.render(&order().facts())
    }

    #[test]
    fn plain_paths_are_read_natively_and_as_minijinja_reads_them() {
        for (source, text) in [
            ("", ""),
            ("nothing to fill", "nothing to fill"),
            ("{{ request.id }}", "0190-id"),
            ("<{{request.method}} {{request.path}}>", "<POST /orders/42>"),
            ("{{ request.params.id }}/{{ request.query['page'] }}", "42/2"),
            ("{{ request.headers[\"x-shop\"] }}", "north"),
            ("{{ body.cents }} {{ body.rate }} {{ body.paid }}", "1999 2.0 true"),
            ("{{ body.lines[1].sku }}", "b"),
            ("{{ body[\"key with space\"] }}", "k"),
            ("{{ body.name }}", "Zoë <b>&\"'/"),
            ("{{ reason }} at {{ now }}", "timed_out at 2023-11-14T22:13:20.123Z"),
            ("a } b { c {", "a } b { c {"),
        ] {
            assert!(is_plain(source), "{source}");
            assert_eq!(render(source, Escape::None).as_deref(), Ok(text), "{source}");
            assert_eq!(by_engine(source, Escape::None).as_deref(), Ok(text), "{source}");
        }
        let name = "{{ body.name }}";
        assert_eq!(render(name, Escape::Html).unwrap(), "Zoë &lt;b&gt;&amp;&quot;&#x27;&#x2f;");
        assert_eq!(render(name, Escape::Html), by_engine(name, Escape::Html));
    }

    #[test]
    fn filters_conditions_and_loops() {
        for (source, text) in [
            ("{{ body.name | upper }}", "ZOË <B>&\"'/"),
            ("{% if body.paid %}paid{% else %}open{% endif %}", "paid"),
            ("{% for line in body.lines %}{{ line.n }}x{{ line.sku }};{% endfor %}", "2xa;3xb;"),
            ("{{ body.cents / 100 }}", "19.99"),
            ("{{ body.cents * 2 }} {# comment #}", "3998 "),
            ("{{ body.coupon | default('none') }}", "none"),
            ("{{ body.lines | length }} {{ jwt | length }}", "2 0"),
            ("{{ [body.cents, 'x'] | join(', ') }}", "1999, x"),
            ("{{ request.cookies | length }}", "0"),
        ] {
            assert!(!is_plain(source), "{source}");
            assert_eq!(render(source, Escape::None).as_deref(), Ok(text), "{source}");
        }
        let html = "{{ body.name | lower }}";
        assert!(!render(html, Escape::Html).unwrap().contains('<'));
    }

    #[test]
    fn what_is_missing_or_no_text_is_a_fault() {
        for source in [
            "{{ body.coupon }}",
            "{{ body.coupon.x }}",
            "{{ body.coupon | upper }}",
            "{{ body.note }}",
            "{{ body.note | default(none) }}",
            "{{ body.lines }}",
            "{{ body.lines | reverse }}",
            "{{ body }}",
            "{{ request.headers['nope'] }}",
            "{{ request.params.nope | upper }}",
            "{{ 1 / 0 }}",
            "{% for line in body.cents %}{% endfor %}",
        ] {
            let template = Template::compile(source);
            let rendered = template.and_then(|template| template.render(&order().facts()));
            assert!(rendered.is_err(), "{source}: {rendered:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_when_it_is_compiled() {
        for (source, fault) in [
            ("{{ receipt }}", "`receipt` is not known here"),
            ("{{ bdy.x }}", "unknown variable `bdy`; there are request, body, jwt, reason, now"),
            ("{{ bdy | upper }}", "unknown variable `bdy`"),
            ("{{ request.bdy }}", "`request` has method, path, query"),
            ("{{ body.x", "syntax error"),
            ("{% if body.x %}", "syntax error"),
            ("{% include 'x' %}", "no statement `include`"),
            ("{{ body.x | shout }}", "unknown filter"),
            ("{{ range(3) }}", "unknown variable `range`"),
            ("{{ body.name | safe }}", "unknown filter"),
        ] {
            let found = Template::compile(source).unwrap_err().0;
            assert!(found.contains(fault), "{source}: {found}");
        }
        assert!(Template::compile(&"x".repeat(MAX_SOURCE + 1)).is_err());
    }

    #[test]
    fn the_output_and_the_work_are_bounded() {
        let big = Sample::new(json!({"big": "x".repeat(200_000), "none": ""}));
        let render = |source: &str, sample: &Sample| {
            Template::compile(source).and_then(|template| template.render(&sample.facts()))
        };
        assert_eq!(render("{{ body.big }}{{ body.big }}", &big), Err(too_long()));
        let found = render("{{ body.big | upper }}", &big).unwrap_err();
        assert!(found.0.contains("too large"), "{found}");
        let some = Sample::new(json!({"text": "x".repeat(16_000), "list": vec![0; 1000]}));
        let loops = "{% for a in body.list %}{{ body.text }}{% endfor %}";
        assert_eq!(render(loops, &some), Err(too_long()));
        let nested = "{% for a in body.list %}{% for b in body.list %}{% endfor %}{% endfor %}";
        assert!(render(nested, &some).is_err());
        let longest = "{{ body.text ~ body.text ~ body.text ~ body.text ~ body.text }}";
        assert_eq!(render(longest, &some).map(|text| text.len()), Ok(80_000));
        assert!(render("{{ body.text * 1000000000 }}", &some).is_err());
        assert!(render("{{ 'x' * 1000000000 }}", &some).is_err());
        assert!(render("{{ [1] * 1000000000 }}", &some).is_err());
    }

    #[test]
    fn a_fault_shows_nothing_of_the_request() {
        let sample = Sample::new(json!({"card": "4111111111111111", "list": ["4111111111111111"]}));
        for source in [
            "{{ body.card + 1 }}",
            "{{ body.card | int + [] }}",
            "{{ body.list }}",
            "{{ body.card.x.y }}",
        ] {
            let found = Template::compile(source).unwrap().render(&sample.facts()).unwrap_err();
            assert!(!found.0.contains("4111"), "{found}");
        }
    }
}
