//! Documents that mean harm: the engine refuses them, or ends their runs with an error that names the bound, and goes on
//! serving others. How long that takes and how much memory is measured by the long suite.

use muster_api::workflow::RunStatus;
use serde_json::json;
use tonic::Code;

use crate::harness::{Engine, document, ended, reason};

#[tokio::test]
async fn documents_that_would_explode_are_refused_when_they_are_read() {
    let engine = Engine::start().await;
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let expression = |text: &str| document(&format!("  - a: {{set: '${{ {text} }}'}}\n"));
    for (what, text) in [
        ("an alias bomb", bomb),
        ("deep lists", "[".repeat(100_000)),
        (
            "deep tasks",
            document(&format!(
                "  - a: {}{}\n",
                "{do: [{a: ".repeat(5000),
                "}]}".repeat(5000)
            )),
        ),
        ("an anchor inside itself", "a: &a [*a]\n".to_owned()),
        ("many values", format!("a: [{}]\n", "1,".repeat(100_000))),
        ("a function that calls itself", expression("def f: f; f")),
        ("halt", expression("halt")),
        ("the environment", expression("env")),
        ("its variable", expression("$ENV")),
        ("more input", expression("input")),
        ("deep jq", expression(&("[".repeat(3000) + &"]".repeat(3000)))),
    ] {
        let refused = engine.start_run(&text, "", "").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
        assert_eq!(reason(&refused), "INVALID_WORKFLOW", "{what}");
    }
    assert_eq!(
        engine.output(&document("  - a: {set: {fine: true}}\n"), "").await,
        json!({"fine": true})
    );
}

#[tokio::test]
async fn ten_megabytes_are_refused_by_their_size() {
    let engine = Engine::start().await;
    let text = document(&format!("  - a: {{set: {{x: {}}}}}\n", "x".repeat(10 << 20)));
    let refused = engine.start_run(&text, "", "").await.unwrap_err();
    let codes = [Code::InvalidArgument, Code::ResourceExhausted, Code::OutOfRange];
    assert!(codes.contains(&refused.code()), "{refused}");
    assert_eq!(
        engine.output(&document("  - a: {set: {fine: true}}\n"), "").await,
        json!({"fine": true})
    );
}

#[tokio::test]
async fn runs_that_would_never_end_are_ended_and_others_go_on() {
    let engine = Engine::start().await;
    // Within the bound of one evaluation.
    let hard = "last(range(90000))";
    let hostile = [
        ("  - a: {set: {x: 1}}\n  - b: {set: {y: '${ . }', z: 1}, if: .z == null, then: a}\n  - c: {set: {y: 1}, then: a}\n".to_owned(), "tasks ran without waiting"),
        (format!("  - a: {{for: {{in: '[range(9000)]'}}, do: [{{b: {{set: '${{ {hard} }}'}}}}]}}\n"), "steps; evaluate less"),
        ("  - a: {for: {in: '[range(9000)]'}, do: [{b: {set: '${ \"ab\" * 500000 }'}}]}\n".to_owned(), "recorded more than"),
        ("  - a: {set: '${ last(repeat(1)) }'}\n".to_owned(), "million steps"),
        ("  - a: {set: '${ reduce range(60) as $i (1; [., .]) }'}\n".to_owned(), "more than 16 MiB"),
        ("  - a: {set: '${ (\"[\" * 100000) | fromjson }'}\n".to_owned(), "fromjson"),
        ("  - a: {set: '${ \"a\" | test(\"((a{100}){100}){100}\") }'}\n".to_owned(), "test"),
        ("  - a: {try: [{b: {raise: {error: {type: 'about:blank', status: 500}}}}], catch: {retry: {delay: PT0S, limit: {attempt: {count: 10000}}}}}\n".to_owned(), ""),
    ];
    let mut runs = Vec::new();
    for (tasks, _) in &hostile {
        runs.push(engine.start_run(&document(tasks), "", "").await.unwrap().run_id);
    }
    // Asked while the others are being dealt with.
    assert_eq!(
        engine.output(&document("  - a: {set: {fine: true}}\n"), "").await,
        json!({"fine": true})
    );
    for (id, (tasks, words)) in runs.iter().zip(&hostile) {
        let run = ended(&engine, id).await;
        assert_eq!(run.status(), RunStatus::Faulted, "{tasks}");
        let detail = run.error.unwrap().detail;
        assert!(detail.contains(words), "{words:?} is not in {detail:?}\n{tasks}");
    }
}
