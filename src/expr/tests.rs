mod random;

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;
use crate::body::read_json;

/// A request to judge.
struct Sample {
    headers: HeaderMap,
    params: Vec<(String, String)>,
    query: String,
    body: Value,
    response: Option<(u16, HeaderMap, Value)>,
}

impl Sample {
    fn new(body: Value) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-shop", "north"),
            ("accept", "text/html"),
            ("accept", "*/*"),
            ("cookie", "session=abc; theme=\"dark\""),
            ("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJzaG9wIiwic3ViIjoidTEifQ.x"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let params = vec![("id".to_owned(), "42".to_owned())];
        Self { headers, params, query: "page=2&q=a+b%21".to_owned(), body, response: None }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            method: "POST",
            path: "/orders/42",
            query: &self.query,
            headers: &self.headers,
            params: &self.params,
            id: "0190-id",
            principal: "u1",
            client_ip: Ipv4Addr::LOCALHOST.into(),
            body: (&self.body).into(),
            reason: "timed_out",
            now: UnixMillis(1_700_000_000_000),
            response: self.response.as_ref().map(|(status, headers, body)| ResponseFacts {
                status: *status,
                headers,
                body,
            }),
        }
    }

    fn eval(&self, source: &str) -> Result<Value, String> {
        let expr = Expr::compile(source).unwrap_or_else(|fault| panic!("{source}: {fault}"));
        let found = expr.to_json(&self.facts());
        // A body as it was read is seen as its value is.
        let text = self.body.to_string();
        if let Ok(json) = read_json(&text) {
            let facts = Facts { body: Document::Read(&json), ..self.facts() };
            assert_eq!(expr.to_json(&facts), found, "{source}");
        }
        found.map_err(|fault| fault.0)
    }
}

fn order() -> Sample {
    Sample::new(json!({
        "currency": "USD", "cents": 1999, "rate": 0.5, "paid": false, "note": null, "text": "7",
        "lines": [{"sku": "a", "n": 2}, {"sku": "bc", "n": 5}], "tags": ["x", "y"], "key with space": 1,
        "customer": {"name": "Zoë", "mail": "z@shop.test"}
    }))
}

fn is_native(source: &str) -> bool {
    matches!(Expr::compile(source).unwrap().compiled.program, Program::Native(_))
}

/// The value by the `cel` crate alone.
fn by_cel(source: &str, facts: Facts<'_>) -> Result<Value, Fault> {
    let parsed = guard::parse(source).unwrap();
    CelProgram::unbounded(parsed.tree, parsed.roots).evaluate(&Scope::new(facts))
}

/// Source, value; each native and as the `cel` crate sees it.
#[test]
fn native_values() {
    let order = order();
    for (source, value) in [
        (r#"body.currency == "USD" && body.cents > 0 && body.cents <= 5000"#, json!(true)),
        ("body.cents + 1", json!(2000)),
        ("body.cents * 2 - 3", json!(3995)),
        ("body.cents / 10 % 7", json!(3)),
        ("-body.cents", json!(-1999)),
        ("body.rate + 0.25", json!(0.75)),
        ("body.cents > body.rate", json!(true)),
        ("body.cents == 1999.0", json!(true)),
        ("body.cents == 1999u", json!(true)),
        ("body.cents != \"1999\"", json!(true)),
        ("body[\"key with space\"]", json!(1)),
        ("body.lines[1].sku", json!("bc")),
        ("body.lines[0].n < body.lines[1].n", json!(true)),
        ("size(body.lines) + body.tags.size()", json!(4)),
        ("size(body.customer.name)", json!(3)),
        ("size(body.customer)", json!(2)),
        ("has(body.note) && !has(body.coupon)", json!(true)),
        ("body.note == null", json!(true)),
        ("body.customer.mail.endsWith(\"@shop.test\")", json!(true)),
        ("body.customer.mail.startsWith(\"a\") || body.customer.mail.contains(\"@\")", json!(true)),
        ("body.customer.mail.matches(\"^[a-z]+@shop[.]test$\")", json!(true)),
        ("matches(body.currency, \"^US\")", json!(true)),
        ("body.currency in [\"EUR\", \"USD\"]", json!(true)),
        ("body.cents in [1, 2.0, 1999]", json!(true)),
        ("\"x\" in body.tags && !(\"z\" in body.tags)", json!(true)),
        ("\"name\" in body.customer", json!(true)),
        ("int(body.text) <= 7", json!(true)),
        ("double(body.text) / 2.0", json!(3.5)),
        ("string(body.cents) + body.currency", json!("1999USD")),
        ("bool(\"true\")", json!(true)),
        ("body.paid ? 1 : 2", json!(2)),
        ("body.lines.all(l, l.n > 0 && l.n < 10)", json!(true)),
        ("body.lines.exists(l, l.sku == \"bc\")", json!(true)),
        ("body.lines.exists_one(l, l.n == 2)", json!(true)),
        ("body.lines.map(l, l.n)", json!([2, 5])),
        ("body.lines.map(l, l.n > 2, l.sku)", json!(["bc"])),
        ("body.lines.filter(l, l.n > 2).size()", json!(1)),
        ("body.tags.all(t, body.lines.exists(l, size(l.sku) <= 2))", json!(true)),
        ("body.tags + [\"z\"]", json!(["x", "y", "z"])),
        ("body.tags == [\"x\", \"y\"]", json!(true)),
        ("body.customer.all(k, k in [\"name\", \"mail\"])", json!(true)),
        ("request.method + request.path", json!("POST/orders/42")),
        ("request.params.id", json!("42")),
        ("request.query.page", json!("2")),
        ("request.query[\"q\"]", json!("a b!")),
        ("request.headers[\"x-shop\"]", json!("north")),
        ("request.headers.accept", json!("text/html, */*")),
        ("\"x-shop\" in request.headers", json!(true)),
        ("has(request.headers.referer)", json!(false)),
        ("request.cookies.session", json!("abc")),
        ("request.cookies.theme", json!("dark")),
        ("request.id + request.principal + request.client_ip", json!("0190-idu1127.0.0.1")),
        ("jwt.sub", json!("u1")),
        ("reason == \"timed_out\"", json!(true)),
        ("now > 1600000000000", json!(true)),
    ] {
        assert!(is_native(source), "{source}");
        assert_eq!(order.eval(source), Ok(value.clone()), "{source}");
        assert_eq!(by_cel(source, order.facts()), Ok(value), "{source} by the cel crate");
    }
}

#[test]
fn the_rest_of_the_language() {
    let order = order();
    for (source, value) in [
        ("{\"USD\": 5000, \"EUR\": 4000}[body.currency] >= body.cents", json!(true)),
        ("type(body.cents) == int", json!(true)),
        ("size(bytes(body.currency))", json!(3)),
        ("b\"ab\" == bytes(\"ab\")", json!(true)),
        ("size(request) == 9", json!(true)),
        ("{\"a\": [body.cents]}", json!({"a": [1999]})),
    ] {
        assert!(!is_native(source), "{source}");
        assert_eq!(order.eval(source), Ok(value), "{source}");
    }
}

#[test]
fn faults_are_values() {
    let order = order();
    for (source, fault) in [
        ("body.coupon", "there is no field `coupon`"),
        ("body.coupon == 1 && true", "there is no field `coupon`"),
        ("body.lines[2]", "there is no such key or index"),
        ("body.lines[-1]", "there is no such key or index"),
        ("body.lines.n", "`.` does not take values of these types"),
        ("body.currency > 1", "`<` does not take values of these types"),
        ("body.cents + 1.0", "`+` does not take values of these types"),
        ("body.cents + \"\"", "`+` does not take values of these types"),
        ("body.cents && true", "`&&` does not take values of these types"),
        ("body.note.x", "`.` does not take values of these types"),
        ("has(body.note.x)", "`.` does not take values of these types"),
        ("!body.cents", "`!` does not take values of these types"),
        ("size(body.cents)", "`size` does not take values of these types"),
        ("body.cents * 9223372036854775807", "integer overflow"),
        ("body.cents / 0", "division by zero"),
        ("body.cents % 0", "division by zero"),
        ("int(body.currency)", "the text is not a number"),
        ("0.0 / 0.0 > 1.0", "two values cannot be compared"),
        ("1.0 / 0.0", "it does not give a finite number"),
        ("request.headers[\"nope\"]", "there is no such key or index"),
        ("response.status == 200", "there is no `response` here"),
        ("{\"a\": 1}[body.currency]", "there is no such key or index"),
        ("{\"a\": 1}.b + response.status", "there is no such key or index"),
    ] {
        let found = order.eval(source).unwrap_err();
        assert_eq!(found, format!("`{source}`: {fault}"));
    }
}

#[test]
fn one_side_of_and_and_or_may_have_a_fault_if_the_other_decides() {
    let order = order();
    for (source, value) in [
        ("body.coupon == 1 && body.cents < 0", json!(false)),
        ("body.cents < 0 && body.coupon == 1", json!(false)),
        ("body.coupon == 1 || body.cents > 0", json!(true)),
        ("body.cents > 0 || body.coupon == 1", json!(true)),
        ("body.lines.exists(l, l.none == 1 || l.n == 5)", json!(true)),
        ("body.lines.all(l, l.none == 1 && l.n == 2)", json!(false)),
    ] {
        assert_eq!(order.eval(source), Ok(value), "{source}");
    }
    assert!(order.eval("body.coupon == 1 || body.cents < 0").is_err());
    assert!(order.eval("body.coupon == 1 && body.cents > 0").is_err());
}

#[test]
fn what_cannot_work_is_refused_when_it_is_compiled() {
    for (source, fault) in [
        ("", "empty"),
        ("  ", "empty"),
        ("body.cents >", "Syntax error"),
        ("bdy.cents > 1", "unknown variable `bdy`; there are request, body, jwt, reason, now"),
        ("request.bdy", "unknown variable `request.bdy`; `request` has method, path, query"),
        ("response.code == 1", "`response` has status, headers, body"),
        ("has(request.boddy)", "unknown variable `request.boddy`"),
        ("request.headers[\"X-Shop\"] == \"\"", "write \"x-shop\""),
        ("sizeof(body)", "unknown function `sizeof`"),
        ("body.a.lower()", "unknown method `lower`"),
        ("size(body, 1)", "`size` does not take 2 arguments"),
        ("body.a.matches(body.pattern)", "must be a string literal"),
        ("body.a.matches(\"(\")", "the pattern of `matches`"),
        ("Order{id: 1}", "there are no message types"),
        ("[1].map(x, {\"a\": x})", "do not go together"),
        ("duration(\"1s\")", "unknown function `duration`"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "more than 2 loops within one another"),
    ] {
        let found = Expr::compile(source).unwrap_err().0;
        assert!(found.contains(fault), "{source}: {found}");
    }
}

#[test]
fn the_limits_of_an_expression_are_met() {
    let terms = |n: usize| vec!["1"; n].join("+");
    assert!(Expr::compile(&terms(32)).is_ok());
    assert!(Expr::compile(&terms(33)).unwrap_err().0.contains("deeper than 32"));
    assert!(Expr::compile(&terms(2000)).is_err());
    let list = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    assert!(Expr::compile(&list(199)).is_ok());
    assert!(Expr::compile(&list(200)).unwrap_err().0.contains("more than 200 terms"));
    assert!(Expr::compile(&format!("\"{}\"", "a".repeat(4094))).is_ok());
    assert!(
        Expr::compile(&format!("\"{}\"", "a".repeat(4095))).unwrap_err().0.contains("4096 bytes")
    );
    assert!(Expr::compile(&format!("{}1{}", "(".repeat(65), ")".repeat(65))).is_err());
    for monster in
        ["!".repeat(3000), "-".repeat(3000), "[".repeat(4000), "a.".repeat(2000), "((((".into()]
    {
        assert!(Expr::compile(&monster).is_err());
    }
    let many = (0..40).map(|n| format!("body.a{n} == 1")).collect::<Vec<_>>().join(" && ");
    assert!(Expr::compile(&many).is_ok(), "long rules of many conditions are allowed");
}

#[test]
fn no_request_makes_a_rule_run_for_long() {
    let numbers: Vec<i64> = (0..1000).collect();
    let big = Sample::new(json!({"n": numbers, "s": "x".repeat(10_000), "more": vec![0; 1001]}));
    assert_eq!(big.eval("body.n.all(a, a >= 0)"), Ok(json!(true)));
    for (source, fault) in [
        ("body.n.all(a, body.n.all(b, a + b >= 0))", "too long"),
        ("body.n.exists(a, body.n.exists(b, a + b < 0)) || true", "too long"),
        ("body.n.map(a, body.s)[0] + body.n.map(a, body.s + body.s)[1]", "too large"),
        (
            "[body.s].map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a)",
            "too large",
        ),
        ("body.more.all(a, true)", "too large"),
        ("{\"a\": 1}.a == 1 || size(body) == 1000", "too large"),
        ("{\"a\": body.more}.a == []", "too large"),
    ] {
        let started = tokio::time::Instant::now();
        match big.eval(source) {
            Err(found) => assert!(found.contains(fault), "{source}: {found}"),
            Ok(_) => panic!("{source} has a value"),
        }
        assert!(started.elapsed().as_secs() < 5, "{source} took {:?}", started.elapsed());
    }
}

#[test]
fn results_have_a_type() {
    let order = order();
    let facts = order.facts();
    let compiled = |source| Expr::compile(source).unwrap();
    assert_eq!(compiled("body.cents").to_int(&facts), Ok(1999));
    assert!(compiled("body.rate").to_int(&facts).is_err());
    assert!(compiled("body.text").to_int(&facts).is_err());
    assert!(compiled("18446744073709551615u").to_int(&facts).is_err());
    assert!(compiled("body.cents").to_bool(&facts).is_err());
    assert_eq!(compiled("body.paid").to_bool(&facts), Ok(false));
    for (source, text) in [("body.cents", "1999"), ("body.currency", "USD"), ("body.paid", "false")]
    {
        assert_eq!(compiled(source).to_text(&facts).as_deref(), Ok(text));
    }
    for source in ["\"\"", "body.note", "body.lines", "body.rate", "body.customer"] {
        assert!(compiled(source).to_text(&facts).is_err(), "{source}");
    }
    assert_eq!(compiled("{\"a\": 1}.a").to_int(&facts), Ok(1));
    assert!(compiled("{\"a\": 1}").to_bool(&facts).is_err());
}

#[test]
fn a_doubtful_query_or_cookie_is_a_fault_when_it_is_looked_at() {
    let mut order = order();
    for query in ["a=1&a=2", "a=1&%61=2", "a=%zz", "a=1;b=2"] {
        order.query = query.to_owned();
        assert!(order.eval("request.query.a").is_err(), "{query}");
        assert!(order.eval("!has(request.query.b)").is_err(), "{query}");
        assert_eq!(order.eval("body.cents"), Ok(json!(1999)), "{query}");
    }
    order.headers.append("cookie", "session=other".parse().unwrap());
    assert!(order.eval("request.cookies.session").is_err());
    order.headers.insert("x-shop", http::HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(order.eval("request.headers[\"x-shop\"] == \"\"").is_err());
    assert!(order.eval("!(\"x-shop\" in request.headers)").is_err());
}

#[test]
fn rules_over_the_answer() {
    let mut order = order();
    let mut headers = HeaderMap::new();
    headers.insert("x-result", "done".parse().unwrap());
    order.response = Some((409, headers, json!({"error": {"code": "duplicate"}, "n": u64::MAX})));
    for source in [
        "response.status == 409 && response.body.error.code == \"duplicate\"",
        "response.status >= 400 && response.status < 500",
        "response.headers[\"x-result\"] == \"done\"",
        "response.body.n == 18446744073709551615u",
        "has(response.body.error)",
    ] {
        assert_eq!(order.eval(source), Ok(json!(true)), "{source}");
        assert!(Expr::compile(source).unwrap().reads_response());
    }
    assert!(!Expr::compile("body.a == 1").unwrap().reads_response());
    assert!(Expr::compile("body.a == 1").unwrap().reads_body());
    assert!(!Expr::compile("request.id == \"1\"").unwrap().reads_body());
}

#[test]
fn a_rule_that_looks_at_cookies_or_a_token_is_known() {
    let reads = |source: &str| {
        let rule = Expr::compile(source).unwrap();
        (rule.reads_cookies(), rule.reads_token())
    };
    assert_eq!(reads("request.cookies.session"), (true, false));
    assert_eq!(reads("has(request.cookies.session) || body.a == 1"), (true, false));
    assert_eq!(reads("request.headers[\"cookie\"]"), (true, false));
    assert_eq!(reads("jwt.sub"), (false, true));
    assert_eq!(reads("body.cookies == request.headers[\"x-cookie\"]"), (false, false));
}

#[test]
fn a_rule_that_looks_at_the_answers_body_is_known() {
    for (source, reads) in [
        ("response.status == 201", false),
        ("response.headers[\"retry-after\"] == \"1\" || \"x\" in response.headers", false),
        ("body.status == 201 && request.id == \"body\"", false),
        ("response.body.ok == true", true),
        ("response.status == 201 && response.body.ok == true", true),
        ("response.body.ok == true && response.status == 201", true),
        ("has(response.body.ok) || response.status == 201", true),
        ("response[\"body\"] == 1", true),
        ("{\"a\": response}.a.status == 201", true),
        ("[response.status].exists(status, status == 201)", false),
        ("[response.status].exists(status, response.body == status)", true),
    ] {
        let rule = Expr::compile(source).unwrap_or_else(|fault| panic!("{source}: {fault}"));
        assert_eq!(rule.reads_answer_body(), reads, "{source}");
    }
}

#[test]
fn a_fault_shows_nothing_of_the_request() {
    let secret = Sample::new(json!({"card": "4111111111111111", "n": 1}));
    for source in [
        "body.card + 1",
        "int(body.card + \"x\")",
        "{\"a\": 1}[body.card]",
        "{body.card: 1}.a + b\"\"",
    ] {
        let found = secret.eval(source).unwrap_err();
        assert!(!found.contains("4111"), "{found}");
    }
}
