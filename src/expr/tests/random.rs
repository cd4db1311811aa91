//! Expressions made at random: native and by the `cel` crate, over a body as it was read and over its value.

use proptest::prelude::*;

use super::*;

/// What a generated expression should be. Now and then it is something else, to meet faults.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Int,
    Double,
    Text,
    List,
}

fn leaf(kind: Kind) -> BoxedStrategy<String> {
    let anything = prop_oneof![
        Just("body".to_owned()),
        "body[.][abcdl]",
        Just("null".to_owned()),
        "body[.]none"
    ];
    let fitting = match kind {
        Kind::Bool => prop_oneof!["(true|false)", "body[.]t", "has[(]body[.][az][)]"].boxed(),
        Kind::Int => prop_oneof![
            "body[.]a",
            "body[.]d[.]a",
            "body[.]l\\[[0-2]\\]",
            "(0|1|2|7|-1|9223372036854775807)",
            "(1u|3u)"
        ]
        .boxed(),
        Kind::Double => prop_oneof!["body[.]c", "(0[.]0|0[.]5|2[.]0|-1[.]25)"].boxed(),
        Kind::Text => prop_oneof![
            "body[.]b",
            "body\\[\"b\"\\]",
            "\"[abé7]{0,2}\"",
            "(jwt[.]sub|reason|request[.]method|request[.]query[.]page|request[.]headers[.]accept)",
        ]
        .boxed(),
        Kind::List => {
            prop_oneof!["body[.]l", "\\[1, 2[.]0, \"a\"\\]", "\\[body[.]a, 2\\]", "\\[\\]"].boxed()
        }
    };
    prop_oneof![12 => fitting, 1 => anything].boxed()
}

fn expression(kind: Kind, depth: u32) -> BoxedStrategy<String> {
    if depth == 0 {
        return leaf(kind);
    }
    let any_kind =
        prop::sample::select(vec![Kind::Bool, Kind::Int, Kind::Double, Kind::Text, Kind::List]);
    let any = any_kind.prop_flat_map(move |kind| expression(kind, depth - 1)).boxed();
    let of = move |kind| expression(kind, depth - 1);
    let two = |one: BoxedStrategy<String>, op: &'static str, two: BoxedStrategy<String>| {
        (one, op, two).prop_map(|(one, op, two)| format!("({one} {op} {two})")).boxed()
    };
    let call = |f: &'static str, one: BoxedStrategy<String>| {
        (f, one).prop_map(|(f, one)| format!("{f}({one})")).boxed()
    };
    let either =
        (of(Kind::Bool), of(kind), of(kind)).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})"));
    let fitting = match kind {
        Kind::Bool => prop_oneof![
            two(of(Kind::Int), "(==|!=|<|<=|>|>=)", of(Kind::Int)),
            two(of(Kind::Int), "(==|!=|<|<=|>|>=)", of(Kind::Double)),
            two(of(Kind::Double), "(==|!=|<|<=|>|>=)", of(Kind::Int)),
            two(of(Kind::Text), "(==|!=|<|<=|>|>=)", of(Kind::Text)),
            two(any.clone(), "(==|!=)", any.clone()),
            two(of(Kind::Bool), "(&&|[|][|])", of(Kind::Bool)),
            two(any.clone(), "(&&|[|][|])", of(Kind::Bool)),
            call("!", of(Kind::Bool)),
            two(any.clone(), "in", of(Kind::List)),
            two(of(Kind::Text), "in", Just("body".to_owned()).boxed()),
            (of(Kind::Int), of(Kind::Int), any)
                .prop_map(|(a, b, c)| format!("({a} in [{b}, {c}])")),
            (of(Kind::Text), "(startsWith|endsWith|contains)", of(Kind::Text))
                .prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
            (
                of(Kind::List),
                "(all|exists|exists_one)",
                "(v == 1|v[.]a > 0|v in body[.]l|v|size[(]v[)] > 0|v > body[.]a)"
            )
                .prop_map(|(a, f, p)| format!("({a}).{f}(v, {p})")),
        ]
        .boxed(),
        Kind::Int => prop_oneof![
            two(of(Kind::Int), "[+*/%-]", of(Kind::Int)),
            call("-", of(Kind::Int)),
            call("size", of(Kind::Text)),
            call("size", of(Kind::List)),
            call("(int|uint)", any),
            (of(Kind::List), of(Kind::Int)).prop_map(|(a, b)| format!("({a})[{b}]")),
        ]
        .boxed(),
        Kind::Double => {
            prop_oneof![two(of(Kind::Double), "[+*/-]", of(Kind::Double)), call("double", any),]
                .boxed()
        }
        Kind::Text => {
            prop_oneof![two(of(Kind::Text), "[+]", of(Kind::Text)), call("string", any)].boxed()
        }
        Kind::List => prop_oneof![
            two(of(Kind::List), "[+]", of(Kind::List)),
            (of(Kind::List), "(v|v [+] 1|size[(]v[)]|body[.]a|\\[v, 1\\])")
                .prop_map(|(a, p)| format!("({a}).map(v, {p})")),
            (of(Kind::List), "(v == 1|v|v > 0)").prop_map(|(a, p)| format!("({a}).filter(v, {p})")),
        ]
        .boxed(),
    };
    prop_oneof![1 => leaf(kind), 6 => fitting, 1 => either].boxed()
}

fn any_expression() -> impl Strategy<Value = String> {
    let kinds = vec![Kind::Bool, Kind::Bool, Kind::Int, Kind::Double, Kind::Text, Kind::List];
    (prop::sample::select(kinds), 0_u32..4).prop_flat_map(|(kind, depth)| expression(kind, depth))
}

/// Mostly the body that the expressions are made for, sometimes any other.
fn body() -> impl Strategy<Value = Value> {
    let fitting = (-2_i64..9, "[abé7]{0,2}", -2.0_f64..9.0, any::<bool>(), prop::collection::vec(-1_i64..4, 0..4), json_value())
        .prop_map(|(a, b, c, t, l, z)| json!({"a": a, "b": b, "c": c, "d": {"a": a}, "t": t, "l": l, "z": z}));
    prop_oneof![5 => fitting, 1 => json_value()]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..8).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![Just(0.5), Just(2.0), Just(-1.25), Just(9.3e18)].prop_map(Value::from),
        "[abé7]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abcdl]", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Lists of a map's keys have no order in the `cel` crate.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<_> = list.into_iter().map(sorted).collect();
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        Value::Object(object) => {
            let mut entries: Vec<_> = object.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|one, two| one.0.cmp(&two.0));
            Value::Object(entries.into_iter().collect())
        }
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Native and the `cel` crate give the same value, or both a fault.
    #[test]
    fn native_is_what_cel_says(source in any_expression(), body in body()) {
        let Ok(expr) = Expr::compile(&source) else { return Ok(()) };
        prop_assert!(matches!(expr.compiled.program, Program::Native(_)), "{}", source);
        let sample = Sample::new(body);
        let native = expr.to_json(&sample.facts()).map(sorted);
        let cel = by_cel(&source, sample.facts()).map(sorted);
        match (&native, &cel) {
            (Ok(native), Ok(cel)) => prop_assert_eq!(native, cel, "{}", source),
            (Err(_), Err(_)) => {}
            // A list and a map: the `cel` crate adds the map's keys, the language does not know it.
            (Err(ExprFault(fault)), Ok(_)) if fault.contains("`+` does not take") => {}
            _ => prop_assert!(false, "{source}: native {native:?}, cel {cel:?}"),
        }
    }

    /// A body as it was read gives what its value gives, native and by the `cel` crate, faults included.
    #[test]
    fn a_body_as_it_was_read_is_its_value(source in any_expression(), body in body()) {
        let Ok(expr) = Expr::compile(&source) else { return Ok(()) };
        let sample = Sample::new(body);
        let text = sample.body.to_string();
        let Ok(json) = read_json(&text) else { return Ok(()) };
        let read = || Facts { body: Document::Read(&json), ..sample.facts() };
        prop_assert_eq!(expr.to_json(&read()), expr.to_json(&sample.facts()), "{} of {}", source, text);
        let by_cel = |facts| by_cel(&source, facts).map(sorted);
        prop_assert_eq!(by_cel(read()), by_cel(sample.facts()), "{} of {}", source, text);
    }

    #[test]
    fn any_text_is_compiled_or_refused_without_a_panic(source in "\\PC{0,40}") {
        let _ = Expr::compile(&source);
    }

    #[test]
    fn any_tokens_are_compiled_or_refused(source in "(body|request|[.]a|[(]|[)]|==|&&|1|\"a\"|[ ]|[?]|:|,|\\[|\\]|-|!|in|has){0,12}") {
        if let Ok(expr) = Expr::compile(&source) {
            let _ = expr.to_json(&order().facts());
        }
    }
}
