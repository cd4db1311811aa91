//! JSON whose strings are templates: escaped by type, so that no value of a request can change the structure.

use serde_json::Value;

use super::{Engine, Hole, MAX_OUTPUT, MAX_SOURCE, Template, TemplateFault, too_long};
use crate::expr::Facts;

/// A compiled JSON template. A string that is one expression and nothing else (`"{{ body.cents }}"`) becomes that
/// expression's value with its own type; any other string stays text. Names are not templates.
#[derive(Debug)]
pub struct JsonTemplate {
    pieces: Vec<Piece>,
    /// About the bytes of what it makes.
    size: usize,
}

/// A piece of the JSON text.
#[derive(Debug)]
enum Piece {
    /// JSON as it is.
    Fixed(String),
    /// A value by a plain path.
    Value(Hole),
    /// A value by minijinja, which writes JSON.
    Computed(Box<Engine>),
    /// A text with holes.
    Text(Template),
}

/// Levels of lists and objects.
const MAX_DEPTH: usize = 32;

impl JsonTemplate {
    pub fn compile(structure: &Value) -> Result<Self, TemplateFault> {
        let mut template = Self { pieces: Vec::new(), size: 0 };
        template.add(structure, 0)?;
        template.size = template.pieces.iter().map(Piece::size).sum();
        if template.size > MAX_SOURCE {
            return Err(TemplateFault(format!("longer than {MAX_SOURCE} bytes")));
        }
        Ok(template)
    }

    /// The JSON text.
    pub fn render(&self, facts: &Facts<'_>) -> Result<String, TemplateFault> {
        let mut json = Vec::with_capacity(self.size + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(fixed) => json.extend_from_slice(fixed.as_bytes()),
                Piece::Value(hole) => hole.write_json(facts, &mut json)?,
                Piece::Computed(engine) => json.extend_from_slice(engine.render(facts)?.as_bytes()),
                Piece::Text(text) => write(&mut json, &Value::String(text.render(facts)?))?,
            }
            if json.len() > MAX_OUTPUT {
                return Err(too_long());
            }
        }
        // All other pieces are written as JSON; what an engine computed is only text.
        let computed = self.pieces.iter().any(|piece| matches!(piece, Piece::Computed(_)));
        if computed && serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_err() {
            return Err(no_json());
        }
        String::from_utf8(json).map_err(|_| no_json())
    }

    fn add(&mut self, structure: &Value, depth: usize) -> Result<(), TemplateFault> {
        if depth > MAX_DEPTH {
            return Err(TemplateFault(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        match structure {
            Value::String(text) => self.add_text(text)?,
            Value::Array(list) => {
                self.fixed("[");
                for (place, element) in list.iter().enumerate() {
                    self.fixed(if place > 0 { "," } else { "" });
                    self.add(element, depth + 1)?;
                }
                self.fixed("]");
            }
            Value::Object(object) => {
                self.fixed("{");
                for (place, (name, value)) in object.iter().enumerate() {
                    self.fixed(if place > 0 { "," } else { "" });
                    self.fixed(&Value::String(name.clone()).to_string());
                    self.fixed(":");
                    self.add(value, depth + 1)?;
                }
                self.fixed("}");
            }
            simple => self.fixed(&simple.to_string()),
        }
        Ok(())
    }

    fn add_text(&mut self, text: &str) -> Result<(), TemplateFault> {
        if let Some(expression) = only_expression(text) {
            self.pieces.push(match Hole::parse(expression) {
                Some(hole) => Piece::Value(hole),
                None => Piece::Computed(Box::new(Engine::json(text.trim())?)),
            });
            return Ok(());
        }
        let template = Template::compile(text)?;
        if template.is_fixed() {
            self.fixed(&Value::String(text.to_owned()).to_string());
        } else {
            self.pieces.push(Piece::Text(template));
        }
        Ok(())
    }

    /// Adds to the fixed piece at the end.
    fn fixed(&mut self, json: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Fixed(fixed)) => fixed.push_str(json),
            _ => self.pieces.push(Piece::Fixed(json.to_owned())),
        }
    }
}

impl Piece {
    fn size(&self) -> usize {
        match self {
            Self::Fixed(fixed) => fixed.len(),
            Self::Value(_) | Self::Computed(_) | Self::Text(_) => 16,
        }
    }
}

fn write(json: &mut Vec<u8>, value: &Value) -> Result<(), TemplateFault> {
    serde_json::to_writer(json, value).map_err(|_| no_json())
}

fn no_json() -> TemplateFault {
    TemplateFault("what comes out of it is not JSON".into())
}

/// What stands between the braces, if `text` is one `{{ … }}` and nothing else.
fn only_expression(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inside.contains("}}") && !inside.contains("{{") && !inside.contains("%}")).then_some(inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::tests::Sample, *};

    fn render(structure: Value, body: Value) -> Result<String, TemplateFault> {
        JsonTemplate::compile(&structure)?.render(&Sample::new(body).facts())
    }

    #[test]
    fn one_expression_keeps_its_type_and_other_strings_are_text() {
        let structure = json!({
            "id": "{{ request.id }}", "status": "accepted", "n": 3, "none": null, "yes": true, "empty": {}, "list": [],
            "cents": "{{ body.cents }}", "rate": "{{body.rate}}", "note": "{{ body.note }}", "lines": "{{ body.lines }}",
            "text": "{{ body.cents }} cents", "double": "{{ body.cents * 2 }}", "upper": "{{ body.name | upper }}",
            "size": "{{ body.lines | length }}", "at": "{{ now }}", "nested": [{"sku": "{{ body.lines[0].sku }}"}, "x"]
        });
        let body = json!({"cents": 1999, "rate": 0.5, "note": null, "name": "Zoë", "lines": [{"sku": "a\"b"}]});
        let rendered = render(structure, body).unwrap();
        assert_eq!(
            rendered,
            r#"{"id":"0190-id","status":"accepted","n":3,"none":null,"yes":true,"empty":{},"list":[],"cents":1999,"#.to_owned()
                + r#""rate":0.5,"note":null,"lines":[{"sku":"a\"b"}],"text":"1999 cents","double":3998,"upper":"ZOË","#
                + r#""size":1,"at":"2023-11-14T22:13:20.123Z","nested":[{"sku":"a\"b"},"x"]}"#
        );
    }

    #[test]
    fn a_scalar_or_a_list_may_be_the_whole() {
        assert_eq!(render(json!("{{ body }}"), json!({"a": [1]})).as_deref(), Ok(r#"{"a":[1]}"#));
        assert_eq!(render(json!(["{{ body.a }}"]), json!({"a": 1})).as_deref(), Ok("[1]"));
        assert_eq!(render(json!(null), json!({})).as_deref(), Ok("null"));
    }

    #[test]
    fn faults_and_refusals() {
        assert!(render(json!({"a": "{{ body.none }}"}), json!({})).is_err());
        assert!(render(json!({"a": "{{ body.none + 1 }}"}), json!({})).is_err());
        assert!(render(json!({"a": "x {{ body.a }}"}), json!({"a": null})).is_err());
        for (structure, fault) in [
            (json!({"a": "{{ receipt }}"}), "`receipt` is not known here"),
            (json!(["{{ bdy.a }}"]), "unknown variable `bdy`"),
            (json!("{{ body.a"), "syntax error"),
            (json!("{{ body.a | shout }}"), "unknown filter"),
        ] {
            let found = JsonTemplate::compile(&structure).unwrap_err().0;
            assert!(found.contains(fault), "{structure}: {found}");
        }
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        assert!(JsonTemplate::compile(&deep).unwrap_err().0.contains("nested deeper"));
        assert!(JsonTemplate::compile(&json!("x".repeat(MAX_SOURCE))).is_err());
        let big = json!({"big": "x".repeat(200_000)});
        assert_eq!(render(json!(["{{ body.big }}", "{{ body.big }}"]), big), Err(too_long()));
    }

    #[test]
    fn constants_are_one_piece() {
        let fixed = JsonTemplate::compile(&json!({"a": [1, "b", {"c": null}]})).unwrap();
        assert_eq!(fixed.pieces.len(), 1);
        let one = JsonTemplate::compile(&json!({"a": "{{ request.id }}", "b": 1})).unwrap();
        assert_eq!(one.pieces.len(), 3);
    }

    proptest! {
        /// Whatever stands in the request, the structure of the answer is that of the template.
        #[test]
        fn no_value_changes_the_structure(name in "\\PC{0,20}|[\"\\\\{}\\[\\],:\u{0}-\u{1f}\u{2028}]{0,12}") {
            let structure = json!({
                "one": "{{ body.name }}", "text": "<{{ body.name }}>", "computed": "{{ body.name | string }}",
                "if": "{% if body.name %}{{ body.name }}{% endif %}"
            });
            let rendered = render(structure, json!({"name": name})).unwrap();
            let parsed: Value = serde_json::from_str(&rendered).unwrap();
            prop_assert_eq!(parsed, json!({
                "one": name, "text": format!("<{name}>"), "computed": name, "if": name
            }));
        }
    }
}
