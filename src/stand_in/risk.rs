//! Low risk or high: the route's rule and standin's own limits over given facts. Pure: no IO, no clock.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    identity,
    secrets::{carries_card_data, in_trailers, is_made_of_card_data},
};
use crate::{
    body::{BodyKind, Json, NotReadable, ReadBody},
    config::{RouteConfig, StandInConfig},
    expr::{ExprFault, Facts},
    store::{Certainty, Digest},
};

/// A request that could be stood in for.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Name of the route.
    pub route: &'a str,
    pub config: &'a RouteConfig,
    pub stand_in: &'a StandInConfig,
    /// With the body of `body`, the principal and the reason.
    pub facts: &'a Facts<'a>,
    /// Raw path and query.
    pub target: &'a str,
    /// Whether the path can be read in one way only ([`crate::canonical`]).
    pub exact_path: bool,
    pub body: Result<&'a ReadBody<'a>, NotReadable>,
    pub raw_body: &'a [u8],
    pub trailers: Option<&'a HeaderMap>,
    /// What makes another request the same: the client's word, or the route's.
    pub key: &'a str,
    /// What the attempt left behind.
    pub certainty: Certainty,
    /// See [`identity::Identified::doubt`].
    pub doubt: Option<&'a ExprFault>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Risk {
    Low(Assessed),
    High(HighRisk),
}

/// What the caps are counted with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assessed {
    /// What `sum_of` gave; 0 without it.
    pub amount: i64,
    /// Whom `per_customer` counts; none without it.
    pub customer: Option<Digest>,
}

/// Why standin does not answer in the app's stead. The text is for logs and history; clients get a general one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HighRisk {
    #[error("{0} requests are not stored")]
    MethodNotReplayable(String),
    #[error("it asks the app to take it for one of another method")]
    MethodOverride,
    #[error("the path can be read in two ways")]
    NotCanonical,
    #[error("an upgrade cannot be replayed")]
    Upgrade,
    #[error("part of a document is asked for or sent")]
    Range,
    #[error("its condition can only be judged by the app")]
    Conditional,
    #[error("it expects what standin does not know")]
    Expectation,
    #[error("gRPC and event streams cannot be stood in for")]
    Stream,
    #[error(
        "it may have been applied, and nothing protects its replay: the route has no `app_dedupes`"
    )]
    NotProtected,
    #[error("its body is larger than `max_body`")]
    TooLarge,
    #[error("its body cannot be read without doubt: {0}")]
    BodyUnreadable(NotReadable),
    #[error("it carries {0}, which must not be stored")]
    CardData(&'static str),
    #[error("its identity is not certain: {0}")]
    Identity(ExprFault),
    #[error("`accept_if` says no")]
    RuleSaidNo,
    #[error("`accept_if` has no value: {0}")]
    RuleFault(ExprFault),
    #[error("`sum_of` gives no amount: {0}")]
    AmountFault(ExprFault),
    #[error("`sum_of` gives a negative amount")]
    AmountNegative,
    #[error("`per_customer.by` gives no name: {0}")]
    CustomerFault(ExprFault),
    #[error("the answer could not be made: {0}")]
    AnswerFault(String),
}

impl HighRisk {
    /// A stable word, for metrics and queries.
    pub fn word(&self) -> &'static str {
        match self {
            Self::MethodNotReplayable(_) => "method_not_replayable",
            Self::MethodOverride => "method_override",
            Self::NotCanonical => "not_canonical",
            Self::Upgrade => "upgrade",
            Self::Range => "range",
            Self::Conditional => "conditional",
            Self::Expectation => "expectation",
            Self::Stream => "stream",
            Self::NotProtected => "not_protected",
            Self::TooLarge => "too_large",
            Self::BodyUnreadable(_) => "body_unreadable",
            Self::CardData(_) => "card_data",
            Self::Identity(_) => "identity",
            Self::RuleSaidNo => "rule_said_no",
            Self::RuleFault(_) => "rule_fault",
            Self::AmountFault(_) => "amount_fault",
            Self::AmountNegative => "amount_negative",
            Self::CustomerFault(_) => "customer_fault",
            Self::AnswerFault(_) => "answer_fault",
        }
    }
}

/// Judges a request: first what no rule can allow, then the route's rule, then what the caps need.
pub fn assess(case: &Case<'_>) -> Risk {
    match judged(case) {
        Ok(assessed) => Risk::Low(assessed),
        Err(high) => Risk::High(high),
    }
}

/// What no rule can allow, seen from the head of the request alone: whoever fails here need not have its body kept.
pub fn may_stand_in(method: &str, headers: &HeaderMap, exact_path: bool) -> Result<(), HighRisk> {
    // Safe methods change nothing, so there is nothing to keep; the others cannot be sent again as they were.
    if matches!(method, "CONNECT" | "TRACE" | "GET" | "HEAD" | "OPTIONS") {
        return Err(HighRisk::MethodNotReplayable(method.to_owned()));
    }
    if !exact_path {
        return Err(HighRisk::NotCanonical);
    }
    headers.iter().try_for_each(|(name, value)| may_have(name, value))
}

/// One field: most are none of these.
fn may_have(name: &HeaderName, value: &HeaderValue) -> Result<(), HighRisk> {
    // Names are in small letters. As texts most differ by their length already.
    match name.as_str() {
        "upgrade" => Err(HighRisk::Upgrade),
        // The route's rule has judged the method that it came with.
        "x-http-method-override" | "x-http-method" | "x-method-override" => {
            Err(HighRisk::MethodOverride)
        }
        "connection" if lists(value, "upgrade") => Err(HighRisk::Upgrade),
        "range" | "if-range" | "content-range" => Err(HighRisk::Range),
        "if-match" | "if-none-match" | "if-unmodified-since" => Err(HighRisk::Conditional),
        "expect" if !begins_with(value, "100-continue", true) => Err(HighRisk::Expectation),
        "content-type" if begins_with(value, "application/grpc", false) => Err(HighRisk::Stream),
        "accept" if lists(value, "text/event-stream") => Err(HighRisk::Stream),
        _ => Ok(()),
    }
}

/// A field that web frameworks take for the method of a form.
fn overrides_method(body: &ReadBody<'_>) -> bool {
    match &body.json {
        Json::Object(form) if body.kind == BodyKind::Form => form.get("_method").is_some(),
        _ => false,
    }
}

fn judged(case: &Case<'_>) -> Result<Assessed, HighRisk> {
    may_stand_in(case.facts.method, case.facts.headers, case.exact_path)?;
    if case.certainty == Certainty::SentUnknown && case.config.app_dedupes.is_none() {
        return Err(HighRisk::NotProtected);
    }
    if case.raw_body.len() as u64 > case.stand_in.max_body {
        return Err(HighRisk::TooLarge);
    }
    // Even where no rule looks at it: the app will most likely refuse it, and card data could hide in it.
    let body = case.body.map_err(HighRisk::BodyUnreadable)?;
    if overrides_method(body) {
        return Err(HighRisk::MethodOverride);
    }
    if let Some(place) = carries_card_data(body, case.raw_body, case.facts.headers, case.target)
        .or_else(|| case.trailers.and_then(in_trailers))
        .or_else(|| is_made_of_card_data(case.key).then_some("a card number as its key"))
        .or_else(|| {
            is_made_of_card_data(case.facts.principal).then_some("a card number as its principal")
        })
    {
        return Err(HighRisk::CardData(place));
    }
    if let Some(fault) = case.doubt {
        return Err(HighRisk::Identity(fault.clone()));
    }
    if !case.stand_in.accept_if.to_bool(case.facts).map_err(HighRisk::RuleFault)? {
        return Err(HighRisk::RuleSaidNo);
    }
    Ok(Assessed { amount: amount(case)?, customer: customer(case)? })
}

fn amount(case: &Case<'_>) -> Result<i64, HighRisk> {
    let Some(sum_of) = &case.stand_in.at_most.sum_of else { return Ok(0) };
    match sum_of.to_int(case.facts).map_err(HighRisk::AmountFault)? {
        amount @ 0.. => Ok(amount),
        _ => Err(HighRisk::AmountNegative),
    }
}

/// Everybody without a name is one customer, so that leaving out the credentials is no way around the cap.
fn customer(case: &Case<'_>) -> Result<Option<Digest>, HighRisk> {
    let Some(cap) = &case.stand_in.at_most.per_customer else { return Ok(None) };
    Ok(Some(match &cap.by {
        Some(by) => {
            let name = by.to_text(case.facts).map_err(HighRisk::CustomerFault)?;
            identity::customer(case.route, &name)
        }
        None => identity::customer(case.route, case.facts.principal),
    }))
}

/// Whether the field begins with a word, or is that word.
fn begins_with(value: &HeaderValue, word: &str, is_all: bool) -> bool {
    let text = value.as_bytes().trim_ascii();
    let start = text.get(..word.len()).filter(|_| !is_all || text.len() == word.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether the list in the field has `member`, parameters aside.
fn lists(value: &HeaderValue, member: &str) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|element| {
        let element = element.split(|byte| *byte == b';').next().unwrap_or_default();
        element.trim_ascii().eq_ignore_ascii_case(member.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::identity::tests, *};
    use crate::body::read_request;

    const ROUTE: &str = r#"
        app_dedupes = { by = "x-request-id", for = "7d" }
        [stand_in]
        accept_if = 'body.currency == "USD" && body.cents > 0 && body.cents <= 5000'
        max_body = "200"
        answer = { status = 201 }
        [stand_in.at_most]
        open_sum = 1000000
        sum_of = "body.cents"
        per_customer = { count = 3, within = "1h" }
    "#;

    /// A request as it comes, and what is made of it.
    #[derive(Clone)]
    struct Sample {
        config: RouteConfig,
        method: &'static str,
        headers: HeaderMap,
        target: &'static str,
        exact_path: bool,
        body: String,
        certainty: Certainty,
        doubt: Option<ExprFault>,
    }

    fn sample() -> Sample {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        Sample {
            config: tests::route(ROUTE),
            method: "POST",
            headers,
            target: "/orders/7",
            exact_path: true,
            body: r#"{"currency":"USD","cents":1999}"#.to_owned(),
            certainty: Certainty::NotSent,
            doubt: None,
        }
    }

    impl Sample {
        fn with(mut self, name: &'static str, value: &str) -> Self {
            self.headers.insert(name, value.parse().unwrap());
            self
        }

        fn body(mut self, body: &str) -> Self {
            self.body = body.to_owned();
            self
        }

        fn risk(&self) -> Risk {
            let read = read_request(&self.headers, self.body.as_bytes());
            let value = read.as_ref().map_or(Value::Null, |read| read.json.to_value());
            assess(&Case {
                route: "checkout",
                config: &self.config,
                stand_in: self.config.stand_in.as_ref().unwrap(),
                facts: &tests::facts(&self.headers, self.method, &value),
                target: self.target,
                exact_path: self.exact_path,
                body: read.as_ref().map_err(|why| *why),
                raw_body: self.body.as_bytes(),
                trailers: None,
                key: "key-1",
                certainty: self.certainty,
                doubt: self.doubt.as_ref(),
            })
        }

        fn word(&self) -> &'static str {
            match self.risk() {
                Risk::Low(_) => "low",
                Risk::High(high) => high.word(),
            }
        }
    }

    #[test]
    fn a_low_risk_request_has_an_amount_and_a_customer() {
        let customer = Some(identity::customer("checkout", ""));
        assert_eq!(sample().risk(), Risk::Low(Assessed { amount: 1999, customer }));
    }

    #[test]
    fn the_rule_decides() {
        for (body, word) in [
            (r#"{"currency":"USD","cents":5000}"#, "low"),
            (r#"{"currency":"USD","cents":5001}"#, "rule_said_no"),
            (r#"{"currency":"USD","cents":0}"#, "rule_said_no"),
            (r#"{"currency":"EUR","cents":1}"#, "rule_said_no"),
            (r#"{"currency":"USD"}"#, "rule_fault"),
            (r#"{"currency":"USD","cents":"1"}"#, "rule_fault"),
            (r#"{"currency":"USD","cents":19.5}"#, "amount_fault"),
            ("[]", "rule_fault"),
            ("", "rule_fault"),
            (r#"{"currency":"USD","cents":1e3}"#, "body_unreadable"),
            (r#"{"currency":"USD","cents":1,"cents":9999}"#, "body_unreadable"),
            (r#"{"currency":"USD","cents":1,"card":"4111111111111111"}"#, "card_data"),
            (r#"{"currency":"USD","cents":1,"cvv":"123"}"#, "card_data"),
        ] {
            assert_eq!(sample().body(body).word(), word, "{body}");
        }
        let long = format!(r#"{{"currency":"USD","cents":1,"note":"{}"}}"#, "x".repeat(200));
        assert_eq!(sample().body(&long).word(), "too_large");
    }

    #[test]
    fn some_requests_are_never_stood_in_for() {
        for (name, value, word) in [
            ("upgrade", "websocket", "upgrade"),
            ("connection", "keep-alive, Upgrade", "upgrade"),
            ("x-http-method-override", "DELETE", "method_override"),
            ("x-http-method", "PUT", "method_override"),
            ("x-method-override", "patch", "method_override"),
            ("range", "bytes=0-1", "range"),
            ("content-range", "bytes 0-1/2", "range"),
            ("if-match", "\"1\"", "conditional"),
            ("if-none-match", "*", "conditional"),
            ("expect", "200-ok", "expectation"),
            ("expect", "100-Continue", "low"),
            ("content-type", "application/grpc+proto", "stream"),
            ("accept", "text/event-stream;q=1, */*", "stream"),
            ("accept", "text/event-stream-x", "low"),
            ("content-encoding", "gzip", "body_unreadable"),
            ("content-type", "application/json; charset=latin1", "body_unreadable"),
            ("x-note", "4111111111111111", "card_data"),
        ] {
            assert_eq!(sample().with(name, value).word(), word, "{name}: {value}");
        }
        for method in ["CONNECT", "TRACE", "GET", "HEAD", "OPTIONS"] {
            assert_eq!(Sample { method, ..sample() }.word(), "method_not_replayable");
        }
        for method in ["PUT", "PATCH", "DELETE"] {
            assert_eq!(Sample { method, ..sample() }.word(), "low");
        }
        assert_eq!(Sample { exact_path: false, ..sample() }.word(), "not_canonical");
        assert_eq!(Sample { target: "/o?n=4111111111111111", ..sample() }.word(), "card_data");
        let doubt = Some(ExprFault("x".into()));
        assert_eq!(Sample { doubt, ..sample() }.word(), "identity");
    }

    #[test]
    fn what_may_have_been_applied_needs_protection() {
        let mut sent = Sample { certainty: Certainty::SentUnknown, ..sample() };
        assert_eq!(sent.word(), "low");
        sent.config.app_dedupes = None;
        assert_eq!(sent.word(), "not_protected");
        sent.certainty = Certainty::NotSent;
        assert_eq!(sent.word(), "low");
    }

    #[test]
    fn an_opaque_body_is_judged_by_the_rest_of_the_request() {
        let mut opaque = sample().with("content-type", "text/plain").body("hello");
        assert_eq!(opaque.word(), "rule_fault");
        let rule = r#"stand_in = { accept_if = 'request.params == {} || request.method == "POST"', answer = { status = 202 } }"#;
        opaque.config = tests::route(rule);
        assert_eq!(opaque.risk(), Risk::Low(Assessed::default()));
        assert_eq!(opaque.body("4111 1111 1111 1111").word(), "card_data");
    }

    #[test]
    fn a_form_that_names_another_method_was_not_judged_by_the_rule() {
        let mut form = sample().with("content-type", "application/x-www-form-urlencoded");
        form.config =
            tests::route(r#"stand_in = { accept_if = "true", answer = { status = 202 } }"#);
        assert_eq!(form.clone().body("cents=1").word(), "low");
        assert_eq!(form.body("cents=1&_method=delete").word(), "method_override");
        let mut json = sample();
        json.config =
            tests::route(r#"stand_in = { accept_if = "true", answer = { status = 202 } }"#);
        assert_eq!(json.body(r#"{"_method":"delete"}"#).word(), "low", "only of forms");
    }

    #[test]
    fn amounts_and_customers_must_have_a_value() {
        let mut refund = sample();
        refund.config = tests::route(
            r#"stand_in = { accept_if = "true", answer = { status = 202 }, at_most = { sum_of = "body.cents" } }"#,
        );
        assert_eq!(refund.clone().body(r#"{"cents":-1}"#).word(), "amount_negative");
        assert_eq!(refund.clone().body(r#"{"cents":null}"#).word(), "amount_fault");
        assert_eq!(refund.body(r#"{"cents":0}"#).word(), "low");
        let mut named = sample();
        named.config = tests::route(
            r#"stand_in = { accept_if = "true", answer = { status = 202 }, at_most = { per_customer = { count = 1, within = "1h", by = "body.mail" } } }"#,
        );
        assert_eq!(named.word(), "customer_fault");
        let customer = Some(identity::customer("checkout", "a@b"));
        let body = json!({"mail": "a@b"}).to_string();
        assert_eq!(named.body(&body).risk(), Risk::Low(Assessed { amount: 0, customer }));
    }

    #[test]
    fn texts_show_nothing_of_the_request() {
        let high = sample().body(r#"{"currency":"USD","cents":"secret"}"#).risk();
        let Risk::High(high) = high else { panic!("low") };
        assert!(!high.to_string().contains("secret"), "{high}");
    }
}
