//! The stand-in answer from its template. What leaves with every answer (`date`, `proxy-status`) is added later.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    config::AnswerConfig,
    expr::Facts,
    template::{Escape, JsonTemplate, Template, TemplateFault},
};

/// `answer` of a route, compiled.
#[derive(Debug)]
pub struct AnswerTemplate {
    status: StatusCode,
    headers: Vec<(HeaderName, Field)>,
    body: Body,
}

/// The answer to one request, as it is stored and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    #[error("status {0} cannot be an answer: 200 to 599 can")]
    Status(u16),
    #[error("status {0} has no body")]
    NoBody(StatusCode),
    #[error("only one of `json`, `body` and `body_file` can be given")]
    TwoBodies,
    #[error("the file of `body_file` cannot be read: {0}")]
    File(String),
    #[error("the file of `body_file` was not read")]
    NoFile,
    #[error("`body` cannot be JSON, since a text is not escaped for it: use `json`")]
    JsonAsText,
    #[error("header `{0}` is no valid name")]
    HeaderName(String),
    #[error("header `{0}` is standin's own to set")]
    HeaderTaken(HeaderName),
    #[error("header `{name}`: {fault}")]
    Header { name: HeaderName, fault: TemplateFault },
    #[error("header `{0}` would have a value that is not visible ASCII")]
    HeaderValue(HeaderName),
    #[error("{0}")]
    Body(TemplateFault),
}

/// The value of a header field.
#[derive(Debug)]
enum Field {
    Fixed(HeaderValue),
    Made(Template),
}

#[derive(Debug)]
enum Body {
    Empty,
    Json(JsonTemplate),
    Text(Box<Template>),
}

impl AnswerTemplate {
    /// Compiles `answer`. `body_file` is the content of the file that `body_file` names, read by the caller.
    pub fn compile(config: &AnswerConfig, body_file: Option<&str>) -> Result<Self, AnswerFault> {
        let status = StatusCode::from_u16(config.status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or(AnswerFault::Status(config.status))?;
        let mut headers = Vec::with_capacity(config.headers.len() + 1);
        let mut content_type = None;
        for (name, value) in &config.headers {
            let (name, template) = header_template(name, value)?;
            if name == header::CONTENT_TYPE {
                content_type = Some(value.as_str());
            }
            headers.push((name, template));
        }
        let text = match (&config.json, &config.body, &config.body_file) {
            (None, None, None) => None,
            (None, Some(text), None) => Some(text.as_str()),
            (None, None, Some(_)) => Some(body_file.ok_or(AnswerFault::NoFile)?),
            (Some(_), None, None) => None,
            _ => return Err(AnswerFault::TwoBodies),
        };
        let (body, default_type) = match (&config.json, text) {
            (Some(json), _) => {
                let template = JsonTemplate::compile(json).map_err(AnswerFault::Body)?;
                (Body::Json(template), Some("application/json"))
            }
            (None, Some(text)) => {
                (text_body(text, content_type)?, Some("text/plain; charset=utf-8"))
            }
            (None, None) => (Body::Empty, None),
        };
        let bodiless = matches!(status.as_u16(), 204 | 205 | 304);
        if bodiless && !matches!(body, Body::Empty) {
            return Err(AnswerFault::NoBody(status));
        }
        if content_type.is_none()
            && let Some(default_type) = default_type
        {
            let fixed = Field::Fixed(HeaderValue::from_static(default_type));
            headers.insert(0, (header::CONTENT_TYPE, fixed));
        }
        Ok(Self { status, headers, body })
    }

    /// The answer to one request.
    pub fn render(&self, facts: &Facts<'_>) -> Result<Rendered, AnswerFault> {
        let mut headers = HeaderMap::new();
        // With what is added when it leaves: it does not grow.
        let _ = headers.try_reserve(self.headers.len() + ADDED);
        for (name, field) in &self.headers {
            let value = match field {
                Field::Fixed(value) => value.clone(),
                Field::Made(template) => made(name, template, facts)?,
            };
            headers.append(name, value);
        }
        let body = match &self.body {
            Body::Empty => Ok(String::new()),
            Body::Json(template) => template.render(facts),
            Body::Text(template) => template.render(facts),
        };
        let body = body.map_err(AnswerFault::Body)?;
        Ok(Rendered { status: self.status, headers, body: body.into() })
    }
}

/// Fields that the filters and the stand-in add to an answer.
pub(super) const ADDED: usize = 4;

fn made(
    name: &HeaderName,
    template: &Template,
    facts: &Facts<'_>,
) -> Result<HeaderValue, AnswerFault> {
    let text = template
        .render(facts)
        .map_err(|fault| AnswerFault::Header { name: name.clone(), fault })?;
    visible(text).ok_or_else(|| AnswerFault::HeaderValue(name.clone()))
}

fn header_template(name: &str, value: &str) -> Result<(HeaderName, Field), AnswerFault> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let name = parsed.map_err(|_| AnswerFault::HeaderName(name.to_owned()))?;
    if TAKEN.contains(&name.as_str()) {
        return Err(AnswerFault::HeaderTaken(name));
    }
    match Template::compile(value) {
        Ok(template) => match template.fixed() {
            None => Ok((name, Field::Made(template))),
            Some(_) => match visible(value.to_owned()) {
                Some(value) => Ok((name, Field::Fixed(value))),
                None => Err(AnswerFault::HeaderValue(name)),
            },
        },
        Err(fault) => Err(AnswerFault::Header { name, fault }),
    }
}

/// Visible ASCII and spaces: what every client reads in one way.
fn visible(value: String) -> Option<HeaderValue> {
    HeaderValue::try_from(value).ok().filter(|value| value.to_str().is_ok())
}

/// HTML and XML are escaped by what the content type says; a template of JSON text is refused.
fn text_body(text: &str, content_type: Option<&str>) -> Result<Body, AnswerFault> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let is = |kind: &str| {
        essence.ends_with(&format!("/{kind}")) || essence.ends_with(&format!("+{kind}"))
    };
    let escape = if is("html") || is("xml") { Escape::Html } else { Escape::None };
    let template = Template::compile_for(text, escape).map_err(AnswerFault::Body)?;
    if is("json") && !template.is_fixed() {
        return Err(AnswerFault::JsonAsText);
    }
    Ok(Body::Text(Box::new(template)))
}

/// What belongs to the connection, or is added when the answer leaves.
const TAKEN: [&str; 12] = [
    "connection",
    "content-length",
    "date",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "proxy-status",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::template::tests::Sample;

    fn compile(toml: &str) -> Result<AnswerTemplate, AnswerFault> {
        AnswerTemplate::compile(&toml::from_str(toml).unwrap(), None)
    }

    fn render(toml: &str, body: Value) -> Result<Rendered, AnswerFault> {
        compile(toml)?.render(&Sample::new(body).facts())
    }

    fn headers(answer: &Rendered) -> Vec<(&str, &str)> {
        answer
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn a_json_answer() {
        let answer = render(
            r#"
            status = 201
            headers = { location = "/orders/{{ request.id }}", "X-Shop" = "{{ request.headers['x-shop'] }}" }
            json = { id = "{{ request.id }}", cents = "{{ body.cents }}", status = "accepted" }
            "#,
            json!({"cents": 1999}),
        )
        .unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(
            headers(&answer),
            [
                ("content-type", "application/json"),
                ("x-shop", "north"),
                ("location", "/orders/0190-id")
            ]
        );
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body, json!({"id": "0190-id", "cents": 1999, "status": "accepted"}));
    }

    #[test]
    fn text_answers_are_escaped_by_their_content_type() {
        let body = json!({"name": "<Zoë>"});
        for (content_type, text) in [
            ("text/plain", "hi <Zoë>"),
            ("text/html; charset=utf-8", "hi &lt;Zoë&gt;"),
            ("application/xhtml+xml", "hi &lt;Zoë&gt;"),
            ("Application/XML", "hi &lt;Zoë&gt;"),
        ] {
            let toml = format!(
                "status = 202\nbody = \"hi {{{{ body.name }}}}\"\nheaders = {{ content-type = \"{content_type}\" }}"
            );
            let answer = render(&toml, body.clone()).unwrap();
            assert_eq!(answer.body, text, "{content_type}");
            assert_eq!(headers(&answer), [("content-type", content_type)]);
        }
        let plain = render("status = 200\nbody = 'ok'", body).unwrap();
        assert_eq!(headers(&plain), [("content-type", "text/plain; charset=utf-8")]);
    }

    #[test]
    fn an_empty_answer_has_no_content_type() {
        let answer = render("status = 204", json!({})).unwrap();
        assert_eq!((answer.status.as_u16(), answer.headers.len(), answer.body.len()), (204, 0, 0));
    }

    #[test]
    fn a_file_is_handed_over() {
        let config: AnswerConfig = toml::from_str("status = 200\nbody_file = 'a.txt'").unwrap();
        assert_eq!(AnswerTemplate::compile(&config, None).unwrap_err(), AnswerFault::NoFile);
        let answer = AnswerTemplate::compile(&config, Some("{{ request.id }}")).unwrap();
        assert_eq!(answer.render(&Sample::new(json!({})).facts()).unwrap().body, "0190-id");
    }

    #[test]
    fn what_cannot_be_an_answer_is_refused() {
        for (toml, fault) in [
            ("status = 199", "200 to 599"),
            ("status = 101", "200 to 599"),
            ("status = 600", "200 to 599"),
            ("status = 204\nbody = 'x'", "has no body"),
            ("status = 205\njson = {}", "has no body"),
            ("status = 200\nbody = 'x'\njson = 1", "only one of"),
            ("status = 200\nbody = '{{ nope }}'", "unknown variable `nope`"),
            ("status = 200\njson = { a = '{{ receipt }}' }", "`receipt` is not known here"),
            ("status = 200\nheaders = { 'a b' = 'x' }", "no valid name"),
            ("status = 200\nheaders = { Date = 'x' }", "standin's own"),
            ("status = 200\nheaders = { transfer-encoding = 'chunked' }", "standin's own"),
            ("status = 200\nheaders = { x = \"a\\nb\" }", "not visible ASCII"),
            ("status = 200\nheaders = { x = '{{ bdy.a }}' }", "unknown variable `bdy`"),
            (
                "status = 200\nbody = '{\"a\": \"{{ body.a }}\"}'\nheaders = { content-type = 'application/json' }",
                "use `json`",
            ),
        ] {
            let found = compile(toml).unwrap_err().to_string();
            assert!(found.contains(fault), "{toml}: {found}");
        }
        let fixed =
            "status = 200\nbody = '{\"a\": 1}'\nheaders = { content-type = 'application/json' }";
        assert!(compile(fixed).is_ok());
    }

    #[test]
    fn no_value_can_split_a_header() {
        let toml = "status = 200\nheaders = { location = '/{{ body.name }}' }";
        for name in ["a\r\nset-cookie: b", "a\nb", "a\0b", "é", "a\u{7f}"] {
            let found = render(toml, json!({ "name": name })).unwrap_err();
            assert!(matches!(found, AnswerFault::HeaderValue(_)), "{name}: {found}");
            assert!(!found.to_string().contains("cookie"));
        }
        assert!(matches!(render(toml, json!({})), Err(AnswerFault::Header { .. })));
    }
}
