//! Expressions that mean harm, and some that only look so.

use super::*;

/// Each of these once aborted the process, filled the memory or never came back. Now each is refused or ended.
#[test]
fn hostile_expressions_end() {
    let nested = |open: &str, close: &str, count: usize| open.repeat(count) + "1" + &close.repeat(count);
    let hostile = vec![
        "def f: f; f".into(),
        "def f: 1 + f; f".into(),
        "def f(x): f(x | x); f(.)".into(),
        "def f: def g: f; g; f".into(),
        "repeat(.)".into(),
        "[repeat(1)]".into(),
        "last(repeat(1))".into(),
        "recurse(.)".into(),
        "last(recurse(.))".into(),
        "[recurse([.])]".into(),
        "until(false; .)".into(),
        "[while(true; .)]".into(),
        "isempty(repeat(1) | select(false))".into(),
        "skip(1e18; repeat(1))".into(),
        "last(range(1e18))".into(),
        "[range(1e12)] | length".into(),
        "range(0; 10; 0) | repeat(1)".into(),
        "reduce range(1e9) as $x (0; . + 1)".into(),
        "[foreach range(1e9) as $x (0; .; .)]".into(),
        "try repeat(error) catch .".into(),
        "[range(1e6)] as $a | $a[] as $x | $a[] as $y | $a[] as $z | select(false)".into(),
        "[.[]?, (repeat(1) | .[]?)]".into(),
        "reduce range(1000) as $i (.; [.])".into(),
        "reduce range(60) as $i (1; [., .])".into(),
        "reduce range(60) as $i (1; {a: ., b: .}) | tojson".into(),
        "reduce range(99) as $i (\"a\"; . + .)".into(),
        "\"a\" * 1e12".into(),
        "reduce range(50) as $i (\"\\\"\"; tojson)".into(),
        "[limit(1e9; repeat(\"x\" * 1e6))]".into(),
        "[foreach range(1e5) as $i (\"a\" * 1e6; (., . + \"b\"); 1)] | length".into(),
        ".[1e9] = 1".into(),
        "(reduce range(1e5) as $i (.; .)) |= 1".into(),
        "(foreach range(1e5) as $i (.; (., .))) |= 1".into(),
        "recurse(.a) |= 1".into(),
        "recurse(.a[1]?) = 1".into(),
        "setpath([range(1e5) | 0]; 1)".into(),
        "path(reduce range(1e5) as $i (null; .[0])) | length".into(),
        "null | [path(recurse(.[0]))]".into(),
        "getpath([range(1e5) | \"a\"])".into(),
        "delpaths([[range(1e5) | 0]])".into(),
        "(\"[\" * 100000) | fromjson".into(),
        "(\"[\" * 1000 + \"]\" * 1000) | fromjson".into(),
        "[range(1000)] | combinations(9)".into(),
        "[range(2000)] | [.[:1000], .[1000:]] | [combinations] | length".into(),
        "\"a\" | test(\"((a{100}){100}){100}\")".into(),
        "\"a\" | test(\"(\" * 400 + \")\" * 400)".into(),
        "\"a\" | test(\"a\" * 1000)".into(),
        "[-9223372036854775808] | implode".into(),
        "-9223372036854775808 | -., abs, length".into(),
        "-9223372036854775808 % -1 | error".into(),
        "jn(2e9; 1.5)".into(),
        "[limit(-1; repeat(1))] | error".into(),
        "[range(1e5)] | sort_by(range(1e5))".into(),
        "\"\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\\(1,2)\"".into(),
        format!("last({})", vec!["(1,1)"; 60].join(" and ")),
        format!("last({})", vec!["(1,1)"; 60].join(" + ")),
        format!("last({})", vec!["(., .)"; 60].join(" | ")),
        format!("last(.[{}]?)", vec!["(0,0)"; 60].join("][")),
        format!("def a0: ., .; {} last(a99)", (1..100).map(|i| format!("def a{i}: a{} | a{};", i - 1, i - 1)).collect::<String>()),
        format!("[{}]", vec!["1"; 3000].join(",")),
        nested("[", "]", 4000),
        nested("{a:", "}", 2000),
        nested("\"\\(", ")\"", 1600),
        nested("-", "", 8000),
        nested("try ", "", 2000),
        nested("if 1 then ", " end", 500),
        nested("reduce 1 as $x (1;", ")", 400),
        nested("def f: ", "; 1", 700),
        nested(". as $x | ", "", 800),
        nested(". as [", "] | 1", 800),
        nested("label $x | ", "", 700),
        vec!["1"; 4000].join("|"),
        vec!["1"; 4000].join("+"),
        vec!["1"; 2500].join("//"),
        "(".repeat(8000),
        "\"\\(".repeat(2500),
        "x".repeat(LONGEST + 1),
    ];
    for text in hostile {
        let outcome = evaluate(&text, &json!(null));
        assert!(
            outcome.is_err(),
            "{text} yields {}",
            quoted(&outcome.unwrap().to_string())
        );
        assert!(
            !matches!(outcome, Err(Error::Internal { .. })),
            "{text}: {outcome:?}"
        );
    }
}

#[test]
fn what_only_looks_hostile_is_allowed() {
    yields(
        "(\"a\" * 100000) | test(\"(a*)*(a*)*(a*)*b\")",
        json!(null),
        json!(false),
    );
    yields(
        &("(".repeat(4000) + "1" + &")".repeat(4000)),
        json!(null),
        json!(1),
    );
    yields(
        "[range(20000)] | map(. * 2) | add",
        json!(null),
        json!(399_980_000),
    );
}

/// Forms that nest as deep as they are long, on a value that is nested too.
fn nesting(depth: usize) -> [String; 7] {
    let around = |open: &str, close: &str| format!("{}.{}", open.repeat(depth), close.repeat(depth));
    [
        vec!["."; depth + 1].join("|"),
        around("[", "]"),
        around("try (", ")"),
        around("first(", ")"),
        around("(.[]? |= ", ")"),
        around("walk(", ")"),
        around("[.. | ", "] | first"),
    ]
}

/// What is deep but allowed must not overflow the stack, neither while it is compiled nor while it runs.
#[test]
fn the_deepest_allowed_expressions_run() {
    let value = (0..100).fold(json!(1), |inner, _| json!([inner]));
    for form in 0..nesting(1).len() {
        let deepest = (1..100)
            .rev()
            .map(|depth| 4 * depth)
            .find_map(|depth| Expression::compile(&nesting(depth)[form]).ok());
        let outcome = deepest
            .expect("a short one compiles")
            .evaluate(&value, &Variables::new(), now());
        assert!(!matches!(outcome, Err(Error::Internal { .. })), "{outcome:?}");
    }
}

/// What is evaluated on the caller's stack needs a fraction of the smallest usual one, 2 MiB.
#[test]
fn shallow_expressions_need_little_stack() {
    let work = || {
        let value = (0..100).fold(json!(1), |inner, _| json!([inner]));
        let texts = (0..40)
            .step_by(3)
            .flat_map(|depth| nesting(depth).into_iter().take(5));
        for expression in texts.map(|text| Expression::compile(&text).unwrap()) {
            let outcome = expression.evaluate(&value, &Variables::new(), now());
            assert!(!matches!(outcome, Err(Error::Internal { .. })), "{outcome:?}");
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(work)
        .unwrap();
    thread.join().unwrap();
}

#[test]
fn an_evaluation_leaves_nothing_behind_for_the_next() {
    assert!(evaluate("last(repeat(1))", &json!(null)).is_err());
    yields("[range(1000)] | length", json!(null), json!(1000));
}

#[test]
fn inputs_are_bounded_too() {
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!([deep]);
    }
    let error = evaluate(".", &deep).unwrap_err();
    assert!(error.to_string().contains("nests more than 128"), "{error}");
    let large = json!("x".repeat(17 * 1024 * 1024));
    assert!(matches!(evaluate("[.]", &large), Err(Error::Exceeded { .. })));
}
