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

#[test]
fn escapes_of_characters_that_need_two_are_one_character() {
    yields(r#""\ud83d\ude00!""#, json!(null), json!("😀!"));
    yields(r#""a\u00fc\n\"\uD83D\uDE00""#, json!(null), json!("aü\n\"😀"));
    yields(r#""\ud83d-\ude00""#, json!(null), json!("\u{fffd}-\u{fffd}"));
    yields(r#""\\ud83d\\ude00""#, json!(null), json!(r"\ud83d\ude00"));
    yields(r#""\(.a)\ud83d\ude00""#, json!({"a": "\\"}), json!("\\😀"));
    assert!(Expression::compile(r#""\ud8"#).is_err());
}

#[test]
fn whole_numbers_of_64_bits_stay_exact() {
    for number in [9_007_199_254_740_993_i64, i64::MAX, i64::MIN] {
        yields("${ .n }", json!({"n": number}), json!(number));
        yields("[.n] | tojson | fromjson[0]", json!({"n": number}), json!(number));
    }
    yields(".n", json!({"n": u64::MAX}), json!(18_446_744_073_709_551_615.0));
}

#[test]
fn what_is_no_text_is_trimmed_by_nothing() {
    yields(
        "[[1, 2], {}, 5, null, true] | map(ltrimstr(\"x\"), rtrimstr(1))",
        json!(null),
        json!([[1, 2], [1, 2], {}, {}, 5, 5, null, null, true, true]),
    );
    yields(
        "[ltrimstr(\"a\"), rtrimstr(\"b\"), ltrimstr(1), ltrimstr(\"b\")]",
        json!("ab"),
        json!(["b", "a", "ab", "ab"]),
    );
}

#[test]
fn values_as_streams() {
    let value = json!({"a": [1, {"b": 2}], "c": []});
    yields(
        "[tostream]",
        value.clone(),
        json!([
            [["a", 0], 1],
            [["a", 1, "b"], 2],
            [["a", 1, "b"]],
            [["a", 1]],
            [["c"], []],
            [["c"]],
        ]),
    );
    for value in [value, json!(5), json!([]), json!([[[1]], {"x": {}}])] {
        yields("fromstream(tostream)", value.clone(), value);
    }
    yields(
        "[fromstream(.[] | tostream)]",
        json!([1, {"a": [2]}]),
        json!([1, {"a": [2]}]),
    );
    yields(
        "[1 | truncate_stream([[0], 1], [[1, 0], 2], [[1, 0]], [[1]])]",
        json!(null),
        json!([[[0], 2], [[0]]]),
    );
    yields(
        ". as $all | fromstream(1 | truncate_stream($all | tostream))",
        json!([1, [2, 3]]),
        json!([2, 3]),
    );
    yields(
        "[leaf_paths]",
        json!({"a": 1, "b": {"c": 2}}),
        json!([["a"], ["b", "c"]]),
    );
}

#[test]
fn searching_joining_and_formatting() {
    yields(
        "[bsearch(1, 3, 0, 2, 9)]",
        json!([1, 3, 5]),
        json!([0, 1, -1, -2, -4]),
    );
    refused("\"abc\" | bsearch(1)", "cannot use");
    yields("[IN(.[]; 2, 3), IN(.[]; 4)]", json!([1, 2]), json!([true, false]));
    let people = json!([{"id": 1}, {"id": 2}]);
    yields(
        "{\"1\": \"a\"} as $names | JOIN($names; .id | tostring)",
        people.clone(),
        json!([[{"id": 1}, "a"], [{"id": 2}, null]]),
    );
    yields(
        "{\"1\": {x: 5}} as $names | [JOIN($names; .[]; .id | tostring; add)]",
        people,
        json!([{"id": 1, "x": 5}, {"id": 2}]),
    );
    for (name, expected) in [
        ("text", "[1,\"a b\"]"),
        ("json", "[1,\"a b\"]"),
        ("csv", "1,\"a b\""),
        ("tsv", "1\ta b"),
        ("sh", "1 'a b'"),
        ("uri", "%5B1%2C%22a%20b%22%5D"),
        ("base64", "WzEsImEgYiJd"),
        ("base32", "LMYSYITBEBRCEXI="),
    ] {
        yields(&format!("format(\"{name}\")"), json!([1, "a b"]), json!(expected));
    }
    refused("format(\"xml\")", "xml is not a valid format");
    yields(
        "@base32",
        json!("This is a message"),
        json!("KRUGS4ZANFZSAYJANVSXG43BM5SQ===="),
    );
}

#[test]
fn more_mathematics() {
    yields(
        "[fma(2; 3; 4), logb, significand, nextafter(1; 1), drem(5; 3), scalb(1; 3)]",
        json!(8),
        json!([10, 3, 1, 1, -1, 8]),
    );
    yields(
        "[j0, j1, (1 | lgamma, gamma, tgamma), (2 | y0 > 0.5, y1 < 0)]",
        json!(0),
        json!([1, 0, 0, 0, 1, true, true]),
    );
}

#[test]
fn what_jq_has_and_expressions_do_not_is_refused() {
    for text in [
        "$__loc__",
        ". as [$a] ?// $a | $a",
        "jn(1; 2)",
        "yn(1; 2)",
        "lgamma_r",
        "builtins",
    ] {
        assert!(Expression::compile(text).is_err(), "{text}");
    }
}

/// What jq 1.6 has and what needs nothing from outside.
#[test]
fn the_functions_of_jq_are_there() {
    let one = "acos acosh add all any arrays ascii ascii_downcase ascii_upcase asin asinh atan atanh booleans cbrt ceil combinations \
               cos cosh date empty exp exp10 exp2 expm1 explode fabs finites first flatten floor from_entries fromdate \
               fromdateiso8601 fromjson gamma gmtime implode infinite isinfinite isnan isnormal iterables j0 j1 keys \
               keys_unsorted last leaf_paths length lgamma localtime log log10 log1p log2 logb ltrimstr(1) max min mktime nan \
               nearbyint normals not now null nulls numbers objects paths pow10 recurse recurse_down reverse rint round scalars \
               significand sin sinh sort sqrt strings tan tanh tgamma to_entries todate todateiso8601 tojson tonumber \
               tostream tostring transpose trunc type unique utf8bytelength values y0 y1 @text @json @csv @tsv @html @uri @sh \
               @base64 @base64d @base32 any(.) all(.) any(.;.) all(.;.) ascii bsearch(1) capture(\"a\") capture(\"a\";\"g\") \
               combinations(2) contains(1) copysign(1;2) atan2(1;2) del(.) delpaths([]) drem(1;2) endswith(\"a\") error \
               error(.) fdim(1;2) first(.) flatten(1) fma(1;2;3) fmax(1;2) fmin(1;2) fmod(1;2) format(\"csv\") frexp \
               fromstream(.) getpath([]) group_by(.) gsub(\"a\";\"b\") gsub(\"a\";\"b\";\"g\") has(1) IN(.) IN(.;.) \
               in(.) INDEX(.) INDEX(.;.) index(1) indices(1) inside(1) isempty(.) isvalid(.) JOIN({};.) JOIN({};.;.) \
               JOIN({};.;.;.) join(\",\") last(.) ldexp(1;2) limit(1;.) map(.) map_values(.) match(\"a\") \
               match(\"a\";\"g\") max_by(.) min_by(.) modf nextafter(1;2) nexttoward(1;2) nth(1) nth(1;.) path(.) paths(.) \
               pow(1;2) range(1) range(1;2) range(1;2;3) recurse(.) recurse(.;.) repeat(.) rindex(1) rtrimstr(1) scalb(1;2) \
               scalbln(1;2) scan(\"a\") select(.) setpath([];1) sort_by(.) split(\"a\") split(\"a\";\"g\") \
               splits(\"a\") splits(\"a\";\"g\") startswith(\"a\") strflocaltime(\"a\") strftime(\"a\") strptime(\"a\") \
               sub(\"a\";\"b\") sub(\"a\";\"b\";\"g\") test(\"a\") test(\"a\";\"g\") truncate_stream(.) unique_by(.) \
               until(.;.) walk(.) while(.;.) with_entries(.) dateadd(1;2) datesub(1;2)";
    let missing: Vec<String> = one
        .split_whitespace()
        .filter_map(|call| Expression::compile(call).err())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
