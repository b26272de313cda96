mod hostile;
mod random;

use super::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-03-01T12:00:00.5Z".parse().unwrap()
}

fn evaluate(text: &str, input: &Value) -> Result<Value, Error> {
    Expression::compile(text)?.evaluate(input, &Variables::new(), now())
}

#[track_caller]
fn yields(text: &str, input: Value, expected: Value) {
    assert_eq!(evaluate(text, &input), Ok(expected), "{text}");
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = evaluate(text, &json!({"a": [1, 2]})).expect_err(text).to_string();
    assert!(error.contains(expected), "{text}: {error}");
}

#[test]
fn paths_and_selections() {
    let people = json!([{"name": "Ann", "age": 30}, {"name": "Bob", "age": 20}, {"name": "Cy", "age": 30}]);
    yields("${ .a.b[0] }", json!({"a": {"b": [7]}}), json!(7));
    yields(".[1:] | length", json!([1, 2, 3]), json!(2));
    yields(".[-1]", json!([1, 2, 3]), json!(3));
    yields(".a.b.c", json!(null), json!(null));
    yields(
        "map(select(.age > 25) | .name)",
        people.clone(),
        json!(["Ann", "Cy"]),
    );
    yields(
        "group_by(.age) | map({age: .[0].age, count: length})",
        people.clone(),
        json!([{"age": 20, "count": 1}, {"age": 30, "count": 2}]),
    );
    yields(
        "sort_by(.name) | reverse | .[0].name",
        people.clone(),
        json!("Cy"),
    );
    yields(
        "[min_by(.age).name, max_by(.name).name]",
        people.clone(),
        json!(["Bob", "Cy"]),
    );
    yields("[.[] | .age] | add / length | floor", people.clone(), json!(26));
    yields(
        "{names: [.[].name] | join(\", \"), young: any(.[]; .age < 21)}",
        people,
        json!({"names": "Ann, Bob, Cy", "young": true}),
    );
    yields(".a // \"none\"", json!({}), json!("none"));
    yields("[.. | numbers]", json!([1, [2, {"a": 3}]]), json!([1, 2, 3]));
    yields("[paths] | length", json!({"a": [1, 2]}), json!(3));
    yields("flatten", json!([1, [2, [3]]]), json!([1, 2, 3]));
    yields("flatten(1)", json!([1, [2, [3]]]), json!([1, 2, [3]]));
}

#[test]
fn updates() {
    yields(".a.b = 1", json!(null), json!({"a": {"b": 1}}));
    yields(".a[2] = 1", json!({}), json!({"a": [null, null, 1]}));
    yields(".[0] |= . + 1", json!([1, 2]), json!([2, 2]));
    yields(".total += 5", json!({"total": 1}), json!({"total": 6}));
    yields("del(.[0, 2])", json!([1, 2, 3]), json!([2]));
    yields("del(.a, .b)", json!({"a": 1, "b": 2, "c": 3}), json!({"c": 3}));
    yields("with_entries(.value += 1)", json!({"a": 1}), json!({"a": 2}));
    yields("setpath([\"a\", 0]; 5)", json!({}), json!({"a": [5]}));
    yields(
        "[getpath([\"a\", \"b\"]), getpath([\"x\"])]",
        json!({"a": {"b": 1}}),
        json!([1, null]),
    );
    yields(
        "walk(if type == \"number\" then . + 1 else . end)",
        json!([1, {"a": 2}]),
        json!([2, {"a": 3}]),
    );
    yields(
        ".. |= (if . == 1 then 2 else . end)",
        json!([1, [1]]),
        json!([2, [2]]),
    );
    yields(
        ". * {a: {c: 2}}",
        json!({"a": {"b": 1}}),
        json!({"a": {"b": 1, "c": 2}}),
    );
    yields(
        "pick(.a.b)",
        json!({"a": {"b": 1, "c": 2}}),
        json!({"a": {"b": 1}}),
    );
}

#[test]
fn generators_and_control() {
    yields("reduce .[] as $x (0; . + $x)", json!([1, 2, 3]), json!(6));
    yields(
        "[foreach .[] as $x (0; . + $x; [$x, .])]",
        json!([1, 2]),
        json!([[1, 1], [2, 3]]),
    );
    yields("[limit(3; repeat(. * 2))]", json!(1), json!([1, 2, 4]));
    yields(
        "[recurse(if . < 3 then . + 1 else empty end)]",
        json!(0),
        json!([0, 1, 2, 3]),
    );
    yields("[while(. < 8; . * 2)]", json!(1), json!([1, 2, 4]));
    yields("until(. > 100; . * 2)", json!(1), json!(128));
    yields("[range(0; 10; 3)]", json!(null), json!([0, 3, 6, 9]));
    yields("[range(3)]", json!(null), json!([0, 1, 2]));
    yields("[combinations] | length", json!([[1, 2], [3, 4]]), json!(4));
    yields("try error(\"no\") catch . + \"!\"", json!(null), json!("no!"));
    yields(
        "[.[] | try (if . > 1 then error else . end) catch -1]",
        json!([1, 2]),
        json!([1, -1]),
    );
    yields(
        "label $out | [.[] | if . > 1 then ., break $out else . end]?",
        json!([1]),
        json!([1]),
    );
    yields("def twice(f): f | f; twice(. * 3)", json!(2), json!(18));
    yields("def plus($n): . + $n; plus(3)", json!(2), json!(5));
    yields(
        "if . > 1 then \"many\" elif . == 1 then \"one\" else \"none\" end",
        json!(1),
        json!("one"),
    );
    yields(
        ". as {a: $x, b: [$y]} | $x + $y",
        json!({"a": 1, "b": [2]}),
        json!(3),
    );
    yields("first(range(10; 20)), empty", json!(null), json!(10));
    yields("[.[] | IN(1, 3)]", json!([1, 2]), json!([true, false]));
}

#[test]
fn numbers_and_text() {
    yields(
        "[10 / 5, 7 % 3, -(2), 1.0, 10 / 4]",
        json!(null),
        json!([2, 1, -2, 1, 2.5]),
    );
    yields("[length, (. | tostring)]", json!(-5), json!([5, "-5"]));
    yields(
        "\"\\(.a) and \\(.b)\"",
        json!({"a": 1, "b": [2]}),
        json!("1 and [2]"),
    );
    yields("ltrimstr(\"a\") | ascii_upcase", json!("abc"), json!("BC"));
    yields("split(\", \") | map(tonumber)", json!("1, 2.5"), json!([1, 2.5]));
    yields("[splits(\", *\")]", json!("a, b,c"), json!(["a", "b", "c"]));
    yields("test(\"^[a-c]+$\")", json!("abc"), json!(true));
    yields(
        "capture(\"(?<year>[0-9]{4})-(?<month>[0-9]{2})\")",
        json!("on 2026-03-01"),
        json!({"year": "2026", "month": "03"}),
    );
    yields("gsub(\"[0-9]+\"; \"#\")", json!("a1b22"), json!("a#b#"));
    yields(
        "map(tojson | fromjson) == .",
        json!([1, "a", {"b": null}]),
        json!(true),
    );
    yields("@csv", json!([1, "a\"b", null]), json!("1,\"a\"\"b\","));
    yields(
        "[@base64, @json, @text]",
        json!("hi"),
        json!(["aGk=", "\"hi\"", "hi"]),
    );
    yields("@uri", json!("a b/c"), json!("a%20b%2Fc"));
    yields("@html \"<b>\\(.)</b>\"", json!("<"), json!("<b>&lt;</b>"));
    yields("\"ab\" * 2 + \"c\"", json!(null), json!("ababc"));
    yields(
        "[indices(\"a\")[], index(\"n\"), rindex(\"a\")]",
        json!("banana"),
        json!([1, 3, 5, 2, 5]),
    );
    yields("explode | implode", json!("añ"), json!("añ"));
    yields(
        "[infinite, nan | isnan, isinfinite]",
        json!(null),
        json!([false, true, true, false]),
    );
    yields(
        "sort",
        json!([{"a": 1}, [1], "a", 2, null, true, 1.5, false]),
        json!([null, false, true, 1.5, 2, "a", [1], {"a": 1}]),
    );
}

#[test]
fn time_is_given_and_utc() {
    yields("now", json!(null), json!(1_772_366_400.5));
    yields("now | floor | todate", json!(null), json!("2026-03-01T12:00:00Z"));
    yields("[gmtime, localtime] | unique | length", json!(0), json!(1));
    yields(
        "gmtime",
        json!(1_772_366_400),
        json!([2026, 2, 1, 12, 0, 0, 0, 59]),
    );
    yields("gmtime | mktime", json!(1_772_366_400), json!(1_772_366_400));
    yields(
        "strftime(\"%A %d.%m.%Y %H:%M %Z\")",
        json!(1_772_366_400),
        json!("Sunday 01.03.2026 12:00 UTC"),
    );
    yields(
        "strptime(\"%Y-%m-%d\") | mktime | todate",
        json!("2026-03-01"),
        json!("2026-03-01T00:00:00Z"),
    );
    yields("fromdate", json!("2026-03-01T12:00:00Z"), json!(1_772_366_400));
    for hostile in [
        "[2015, 127, 1, 0, 0, 0] | mktime",
        "1e300 | todate",
        "[9e18, 0, 1, 0, 0, 0] | mktime",
        "nan | gmtime",
    ] {
        refused(hostile, "not a time");
    }
}

#[test]
fn variables_are_found_and_given() {
    let expression = Expression::compile("$context.a + $x + (. as $y | $y)").unwrap();
    assert_eq!(expression.variables(), ["context", "x"]);
    let variables = Variables::new()
        .with("context", json!({"a": 1}))
        .with("x", json!(2));
    assert_eq!(expression.evaluate(&json!(4), &variables, now()), Ok(json!(7)));
    let error = expression
        .evaluate(&json!(4), &Variables::new().with("x", json!(1)), now())
        .unwrap_err();
    assert!(error.to_string().contains("$context"), "{error}");
    assert!(
        Expression::compile(".a")
            .unwrap()
            .is_true(&json!({"a": 0}), &Variables::new(), now())
            .unwrap()
    );
    assert!(
        !Expression::compile(".a")
            .unwrap()
            .is_true(&json!({}), &Variables::new(), now())
            .unwrap()
    );
}

#[test]
fn exactly_one_value_is_wanted() {
    refused("empty", "yields no value");
    refused(".a[]", "yields several values");
    refused("error(\"boom\")", "boom");
    refused("error({code: 1})", "{\"code\":1}");
    refused(".a.b", "cannot index [1,2] with b");
    refused("1, error(\"late\")", "late");
}

#[test]
fn mistakes_say_what_and_where() {
    refused(".a |", "found the end, at character 5");
    refused(".a + )", "at character");
    refused("{a: 1", "closing brace");
    refused("lenght", "there is no function 'lenght'; did you mean 'length'");
    refused("map()", "expected");
    refused("length(1)", "'length' takes 0 arguments, not 1");
    refused(".a | break $out", "'break $out'");
    refused("reduce .[] as $x (0)", "'reduce' takes [2] arguments");
    refused("x::y", "no modules");
    let error = Expression::compile("\"ä\" | foo").unwrap_err().to_string();
    assert!(error.contains("at character 7"), "{error}");
}

#[test]
fn the_world_is_out_of_reach() {
    for (text, name) in [
        ("env", "'env'"),
        ("$ENV.PATH", "$ENV"),
        ("input", "'input'"),
        ("[inputs]", "'inputs'"),
        ("halt", "'halt'"),
        ("halt_error", "'halt_error'"),
        ("debug", "'debug'"),
        ("stderr", "'stderr'"),
        ("input_filename", "'input_filename'"),
        ("$__loc__", "$__loc__"),
        ("import \"a\" as a; .", "'import'"),
        ("include \"a\"; .", "'include'"),
        ("__tick", "no function '__tick'"),
        ("def __step: 1; 1", "reserved"),
    ] {
        refused(text, name);
    }
}
