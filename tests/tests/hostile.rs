//! The long suite's measurement of hostile documents: each is read, drawn and tried by `muster` in a process of its own, whose
//! time and peak memory are reported. What must come of each is asserted, and that its memory stays below 100 MB.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use muster_testkit::Program;
use serde_json::Value;
use tokio::process::Command;

/// Most memory that a hostile document may cost, in bytes.
const MOST_MEMORY: u64 = 100_000_000;

/// Runs a command and reports, as JSON, its exit code, seconds and peak memory. Only a parent can ask for the latter.
const MEASURE: &str = "
import json, resource, subprocess, sys, time
began = time.monotonic()
ended = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, capture_output=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({'code': ended.returncode, 'seconds': time.monotonic() - began, 'bytes': usage.ru_maxrss * 1024,
                  'said': (ended.stdout[-2000:] + ended.stderr[-2000:]).decode(errors='replace')}))
";

fn document(tasks: &str) -> String {
    format!("document: {{dsl: '1.0.3', namespace: hostile, name: hostile, version: '1.0.0'}}\ndo:\n{tasks}")
}

fn set(expression: &str) -> String {
    document(&format!(
        "  - a: {{set: '${{ {} }}'}}\n",
        expression.replace('\'', "''")
    ))
}

/// Documents that are refused when they are read, each with what is said of it.
fn refused() -> Vec<(&'static str, String, &'static str)> {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let _infallible = writeln!(bomb, "a{level}: &a{level} [{aliases}]");
    }
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(500_000),
        vec!["*a"; 10_000].join(", ")
    );
    let indented: String = (0..1400)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    let expressions: String = (0..5000)
        .map(|index| format!("  - t{index}: {{set: {{x: '${{ . }}'}}}}\n"))
        .collect();
    let mistakes: String = (0..60_000).map(|index| format!("field{index}: 1\n")).collect();
    let patterns: String = (0..150)
        .map(|index| format!("  - t{index}: {{set: {{x: 1}}, input: {{schema: {{document: {{pattern: '^(a{{1,900}}){{1,9}}$'}}}}}}}}\n"))
        .collect();
    vec![
        (
            "10 MB of YAML",
            format!("a: [{}]\n", "1, ".repeat(3_500_000)),
            "more than the",
        ),
        (
            "10 MB of JSON",
            format!("{{\"a\": \"{}\"}}", "x".repeat(10_000_000)),
            "more than the",
        ),
        (
            "3 MB of YAML",
            format!("a: [{}]\n", "1, ".repeat(1_000_000)),
            "at most 1048576",
        ),
        (
            "200,000 lists inside each other",
            "[".repeat(200_000),
            "deeper than 64",
        ),
        (
            "200,000 objects inside each other",
            "{a: ".repeat(200_000),
            "deeper than 64",
        ),
        ("200,000 dashes", "- ".repeat(200_000), "deeper than 64"),
        ("1,400 levels of indentation", indented, "deeper than 64"),
        ("an alias bomb", bomb, "expand to too much"),
        ("an alias bomb of long text", long, "expand to too much"),
        (
            "an anchor inside itself",
            "a: &a [*a]\n".to_owned(),
            "not complete",
        ),
        (
            "500,000 values",
            format!("a: [{}]\n", "1,".repeat(500_000)),
            "more than 50000 values",
        ),
        ("60,000 mistakes", mistakes, "more"),
        (
            "5,000 expressions",
            document(&expressions),
            "more than 2000 expressions",
        ),
        ("150 expensive patterns", document(&patterns), "pattern"),
        ("a function that calls itself", set("def f: f; f"), "calls itself"),
        ("8,000 parentheses", set(&"(".repeat(8000)), "jq"),
        (
            "4,000 nested lists in jq",
            set(&("[".repeat(4000) + &"]".repeat(4000))),
            "nests",
        ),
        ("8,000 minus signs", set(&("-".repeat(8000) + "1")), "nests"),
        ("2,500 strings in strings", set(&"\"\\(".repeat(2500)), "jq"),
        ("halt", set("halt"), "halt"),
        ("env", set("env"), "env"),
        ("$ENV", set("$ENV"), "ENV"),
        ("input", set("[inputs]"), "inputs"),
    ]
}

/// Documents that are accepted and whose runs are ended.
fn ended() -> Vec<(&'static str, String)> {
    let loops = |body: &str| {
        document(&format!(
            "  - a: {{for: {{in: '[range(9000)]'}}, do: [{{b: {body}}}]}}\n"
        ))
    };
    let branches: Vec<String> = (1..=300)
        .map(|index| {
            format!(
                "{{b{index}: {{do: [{{n: {{wait: {{milliseconds: {index}}}}}}}, {{v: {{set: '${{ \"0123456789\" * 300000 }}'}}}}, {{r: {{wait: PT1H}}}}]}}}}"
            )
        })
        .collect();
    let many: String = (0..2000)
        .map(|index| {
            format!(
                "  - t{index}: {{switch: [{{c: {{when: .x, then: t{}}}}}]}}\n",
                (index * 7919) % 2000
            )
        })
        .collect();
    let long = "\"a\" * 1000000";
    vec![
        (
            "a circle",
            document(
                "  - a: {set: {x: 1}}\n  - b: {set: {y: '${ . }'}, if: .y == null, then: a}\n  - c: {set: {z: '${ 1 }'}, then: a}\n",
            ),
        ),
        (
            "loops inside loops",
            loops(
                "{for: {each: j, in: '[range(9000)]'}, do: [{c: {for: {each: k, in: '[range(9000)]'}, do: [{d: {set: '${ $k }'}}]}}]}",
            ),
        ),
        (
            "9,000 hard evaluations",
            loops("{set: '${ last(range(90000)) }'}"),
        ),
        ("9,000 large values", loops("{set: '${ \"ab\" * 500000 }'}")),
        (
            "300 branches with 3 MB each",
            document(&format!(
                "  - a: {{fork: {{branches: [{}]}}}}\n",
                branches.join(", ")
            )),
        ),
        ("repeat", set("last(repeat(1))")),
        ("a trillion items", set("[range(1e12)] | length")),
        ("doubling", set("reduce range(60) as $i (1; [., .])")),
        ("doubling text", set("reduce range(99) as $i (\"a\"; . + .)")),
        ("deep fromjson", set("(\"[\" * 100000) | fromjson")),
        ("deep values", set("reduce range(1000) as $i (.; [.])")),
        ("combinations", set("[range(1000)] | combinations(9)")),
        (
            "every path",
            set("[range(1e6)] as $a | $a[] as $x | $a[] as $y | select(false)"),
        ),
        (
            "a regular expression of repetitions",
            set("\"a\" | test(\"((a{100}){100}){100}\")"),
        ),
        (
            "a regular expression that would go back",
            set(&format!("[range(1000)] | map({long} | test(\"(a*)*(a|aa)+b\"))")),
        ),
        (
            "retries without a pause",
            document(
                "  - a: {try: [{b: {raise: {error: {type: 'about:blank', status: 500}}}}], catch: {retry: {limit: {attempt: {count: 10000}}}}}\n",
            ),
        ),
        (
            "a schema that refers to itself",
            document(
                "  - a: {set: '${ reduce range(90) as $i (1; {a: .}) }', output: {schema: {document: {properties: {a: {$ref: '#'}}, type: object}}}}\n",
            ),
        ),
        (
            "a schema's pattern that would go back",
            document(&format!(
                "  - a: {{set: '${{ {long} }}', output: {{schema: {{document: {{pattern: '^(a+)+b$'}}}}}}}}\n"
            )),
        ),
        ("2,000 choices", document(&many)),
    ]
}

async fn measured(program: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new("python3");
    command.args(["-c", MEASURE]).arg(program).args(arguments);
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .expect("python3 measures");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn hostile_documents_are_refused_or_bounded() {
    let program = Program::path_of("muster");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hostile.yaml");
    let cases = directory.path().join("cases.yaml");
    std::fs::write(&cases, "cases: [{name: it ends, expect: {status: faulted}}]\n").unwrap();
    let (path, cases) = (file.display().to_string(), cases.display().to_string());
    let mut slowest: (f64, String) = (0.0, String::new());
    let mut largest: (u64, String) = (0, String::new());
    let mut count = 0;
    let mut note = |what: &str, measure: &Value| {
        let seconds = measure["seconds"].as_f64().unwrap();
        let bytes = measure["bytes"].as_u64().unwrap();
        report(&format!("{what}: {seconds:.2} s, {:.1} MB", bytes as f64 / 1e6));
        assert!(bytes < MOST_MEMORY, "{what}: {measure}");
        if seconds > slowest.0 {
            slowest = (seconds, what.to_owned());
        }
        if bytes > largest.0 {
            largest = (bytes, what.to_owned());
        }
        count += 1;
    };
    for (what, text, words) in refused() {
        std::fs::write(&file, text).unwrap();
        let measure = measured(&program, &["workflow", "validate", &path]).await;
        assert_eq!(measure["code"], 2, "{what}: {measure}");
        assert!(
            measure["said"].as_str().unwrap().contains(words),
            "{what}: {measure}"
        );
        note(&format!("{what}, read"), &measure);
    }
    for (what, text) in ended() {
        std::fs::write(&file, text).unwrap();
        for (verb, arguments) in [
            ("read", vec!["workflow", "validate", &path]),
            ("drawn", vec!["workflow", "graph", "--format", "svg", &path]),
            ("tried", vec!["workflow", "test", &path, &cases]),
        ] {
            let measure = measured(&program, &arguments).await;
            // A run may also complete: then its expectation fails, and nothing was wrong with it.
            let code = measure["code"].as_i64().unwrap();
            assert!(
                code == 0 || verb == "tried" && code == 1,
                "{what}, {verb}: {measure}"
            );
            note(&format!("{what}, {verb}"), &measure);
        }
    }
    report(&format!(
        "{count} hostile documents: slowest {:.2} s ({}), largest {:.1} MB ({})",
        slowest.0,
        slowest.1,
        largest.0 as f64 / 1e6,
        largest.1
    ));
}

#[expect(clippy::print_stdout, reason = "the long suite's measurements are its output")]
fn report(line: &str) {
    println!("MEASURED {line}");
}
