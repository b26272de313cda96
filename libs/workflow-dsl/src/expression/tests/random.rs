//! Whatever is written, nothing panics, and everything ends.

use super::*;
use proptest::prelude::*;

fn fragment() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        ".",
        "..",
        ".a",
        ".[]",
        ".[0]",
        "1",
        "\"s\"",
        "null",
        "$x",
        "empty",
        "length",
        "keys",
        "add",
        "tojson",
        "range(3)",
        "error",
        "first",
        "sort",
        "paths",
        "recurse",
        "tostring",
        "now",
        "[]",
        "{}",
        "nan",
        "explode",
        "-1",
        "1e300",
        "splits(\"a*\")",
        "del(.[0])",
        "to_entries",
        "fromjson",
        "implode",
        "todate",
        "mktime",
    ]);
    let atom = atom.prop_map(str::to_owned);
    atom.prop_recursive(8, 60, 3, |inner| {
        let operator = prop::sample::select(vec![
            "|", ",", "+", "-", "*", "/", "%", "//", "and", "or", "==", "<", "|=", "=", "+=", "//=",
            "as $x |",
        ]);
        let function = prop::sample::select(vec![
            "map",
            "select",
            "repeat",
            "recurse",
            "first",
            "last",
            "path",
            "paths",
            "walk",
            "del",
            "sort_by",
            "group_by",
            "isempty",
            "with_entries",
            "any",
            "try",
            "range",
            "limit(3;",
            "until(. == 1;",
            "while(. != 2;",
            "reduce .[] as $x (.;",
            "foreach .[]? as $x (.;",
            "getpath",
            "join",
            "flatten",
            "test",
            "label $o | (",
            "has",
            "min_by",
            "def f: 1; (",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})")),
            (function, inner.clone()).prop_map(|(function, inner)| {
                if function.contains('(') || function.contains(';') {
                    format!("{function} {inner})")
                } else {
                    format!("{function}({inner})")
                }
            }),
            inner.clone().prop_map(|inner| format!("[{inner}]")),
            inner.clone().prop_map(|inner| format!("{{a: ({inner}), b: 1}}")),
            inner.clone().prop_map(|inner| format!("\"x\\({inner})\"")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("if {a} then {b} else {c} end")),
        ]
    })
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        ".{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn compiling_anything_never_panics(text in ".{0,60}") {
        let outcome = Expression::compile(&text);
        let internal = matches!(outcome, Err(Error::Internal { .. }));
        prop_assert!(!internal);
    }

    #[test]
    fn compiling_the_alphabet_of_jq_never_panics(text in r#"[\[\](){}.,:;|"\\$@?a-f01 +*/=<>#-]{0,80}"#) {
        let outcome = Expression::compile(&text);
        let internal = matches!(outcome, Err(Error::Internal { .. }));
        prop_assert!(!internal);
    }

    #[test]
    fn evaluating_anything_ends_without_a_panic(text in fragment(), input in json_value()) {
        if let Ok(expression) = Expression::compile(&text) {
            let variables = Variables::new().with("x", json!([1, "a"])).with("o", json!(null));
            let outcome = expression.evaluate(&input, &variables, now());
            let internal = matches!(outcome, Err(Error::Internal { .. }));
            prop_assert!(!internal, "{:?}", outcome);
            prop_assert_eq!(outcome, expression.evaluate(&input, &variables, now()), "an evaluation is a function");
        }
    }

    #[test]
    fn identity_keeps_values(input in json_value()) {
        prop_assert_eq!(evaluate("tojson | fromjson", &input).unwrap(), evaluate(".", &input).unwrap());
    }
}
