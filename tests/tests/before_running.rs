//! What `muster workflow` does with files alone: no server is there.

use muster_tests::{Finished, muster, repository_file};
use serde_json::Value;

async fn run(arguments: &[&str]) -> Finished {
    muster(&[], arguments).await
}

fn example(name: &str) -> String {
    repository_file(&format!("services/muster/examples/{name}"))
        .display()
        .to_string()
}

/// A directory with these files.
fn files(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let paths = files.iter().map(|(name, text)| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file is written");
        path.display().to_string()
    });
    let paths = paths.collect();
    (directory, paths)
}

const ASKING: &str = "
document: { dsl: 1.0.3, namespace: test, name: asking, version: 1.0.0 }
do:
  - ask:
      call: a2a
      with: { server: agent://weather, method: SendMessage, parameters: { message: { parts: [ { text: hi } ] } } }
      output: { as: '.artifacts[0].parts[0].text' }
  - choose: { switch: [ { fine: { when: '. == \"fine\"', then: end } } ] }
  - worry: { set: { worried: true } }
";

#[tokio::test]
async fn the_examples_are_valid_without_a_doubt_and_can_be_drawn() {
    for name in ["trip.yaml", "incident.yaml", "resilience.yaml"] {
        let file = example(name);
        let checked = run(&["workflow", "validate", &file, "-o", "json"])
            .await
            .success()
            .json();
        assert_eq!(checked["problems"], serde_json::json!([]), "{name}");
        let text = run(&["workflow", "graph", &file]).await.success().stdout;
        assert!(text.contains("flowchart TD"), "{text}");
        let image = run(&["workflow", "graph", &file, "--format", "svg"])
            .await
            .success()
            .stdout;
        assert!(
            image.starts_with("<svg ") && image.trim_end().ends_with("</svg>"),
            "{image}"
        );
    }
}

#[tokio::test]
async fn a_picture_is_saved_in_the_form_that_its_name_says() {
    let (directory, paths) = files(&[("asking.yaml", ASKING)]);
    let image = directory.path().join("asking.svg");
    let saved = run(&[
        "workflow",
        "graph",
        &paths[0],
        "--save",
        image.to_str().unwrap(),
        "-o",
        "json",
    ])
    .await;
    assert_eq!(saved.success().json()["format"], "svg");
    assert!(
        std::fs::read_to_string(&image)
            .unwrap()
            .contains("<title>test/asking@1.0.0</title>")
    );
    let described = run(&["workflow", "graph", &paths[0], "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(described["format"], "mermaid");
    assert!(described["picture"].as_str().unwrap().contains("task0"));
}

#[tokio::test]
async fn cases_pass_fail_and_are_refused() {
    let good =
        "cases:\n  - {name: fine, answers: {ask: {text: fine}}, expect: {output: fine, skipped: [worry]}}\n";
    let bad = "cases:\n  - {name: fine, answers: {ask: {text: bad}}, expect: {output: fine}}\n  - {name: other, answers: {ask: {silent: true}}, expect: {status: running}}\n";
    let wrong = "cases:\n  - {name: fine, answers: {aske: {text: bad}}}\n";
    let (_directory, paths) = files(&[
        ("a.yaml", ASKING),
        ("good.yaml", good),
        ("bad.yaml", bad),
        ("wrong.yaml", wrong),
    ]);

    let passed = run(&["workflow", "test", &paths[0], &paths[1], "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(passed["passed"], true);
    assert_eq!(passed["neverRun"], serde_json::json!(["/do/2/worry"]));
    assert_eq!(passed["outcomes"][0]["output"], "fine");

    let failed = run(&["workflow", "test", &paths[0], &paths[2]]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    for words in [
        "FAIL fine (completed, 1 calls, 0 s in its own time)",
        "output: expected \"fine\", but it is {\"worried\":true}",
        "bad.yaml:2",
        "ok   other (running",
        "1 passed, 1 failed",
    ] {
        assert!(failed.stdout.contains(words), "{words:?} is not in {failed:?}");
    }
    let one = run(&[
        "workflow", "test", &paths[0], &paths[2], "--case", "other", "--trace",
    ])
    .await
    .success();
    assert!(
        one.stdout.contains("task.started") && one.stdout.contains("/do/0/ask"),
        "{one:?}"
    );
    let unknown = run(&["workflow", "test", &paths[0], &paths[2], "--case", "othr"]).await;
    assert!(
        unknown.code == 2 && unknown.stderr.contains("did you mean 'other'"),
        "{unknown:?}"
    );

    let refused = run(&["workflow", "test", &paths[0], &paths[3]]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stdout.contains("no task 'aske'") && refused.stdout.contains("did you mean 'ask'"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_document_with_doubts_is_accepted_and_one_with_errors_is_not() {
    let doubtful = "document: {dsl: 1.0.3, namespace: test, name: a, version: 1.0.0}\ndo: [{a: {if: '.x = 1', set: {x: 1}}}]\n";
    let wrong = "document: {dsl: 1.0.3, namespace: test, name: a, version: 1.0.0}\ndo: [{a: {if: '.x = 1', sett: {x: 1}}}, {b: {wait: soon}}]\n";
    let (_directory, paths) = files(&[("doubtful.yaml", doubtful), ("wrong.yaml", wrong)]);
    let checked = run(&["workflow", "validate", &paths[0], "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(checked["valid"], true);
    assert_eq!(checked["problems"][0]["severity"], "warning");
    assert_eq!(checked["problems"][0]["pointer"], "/do/0/a/if");
    let refused = run(&["workflow", "validate", &paths[1], "-o", "json"]).await;
    assert_eq!(refused.code, 2);
    let problems: Value = refused.json();
    assert_eq!(problems["problems"].as_array().unwrap().len(), 2, "{problems}");
    assert_eq!(problems["leftOut"], 0);
    for command in ["graph", "test"] {
        let mut arguments = vec!["workflow", command, &paths[1]];
        arguments.extend((command == "test").then_some(paths[0].as_str()));
        let refused = run(&arguments).await;
        assert!(
            refused.code == 2 && refused.stdout.contains("did you mean 'set'"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn more_problems_than_are_shown_are_counted() {
    let header = "document: {dsl: 1.0.3, namespace: test, name: a, version: 1.0.0}\ndo:\n";
    let tasks: String = (0..250).map(|n| format!("  - a{n}: {{sett: {{}}}}\n")).collect();
    let (_directory, paths) = files(&[("many.yaml", &format!("{header}{tasks}")), ("empty.yaml", "")]);
    let refused = run(&["workflow", "validate", &paths[0]]).await;
    assert_eq!(refused.code, 2);
    assert!(
        refused.stdout.contains(": and 150 more; correct these first"),
        "{refused:?}"
    );
    let refused = run(&["workflow", "validate", &paths[0], "-o", "json"]).await;
    let told: Value = refused.json();
    assert_eq!(told["problems"].as_array().unwrap().len(), 100);
    assert_eq!(told["leftOut"], 150);
    assert!(
        refused.stderr.contains("100 errors, and 150 more problems"),
        "{refused:?}"
    );
    // Whatever is empty is told what belongs into it.
    let good = format!("{header}  - a: {{set: {{x: 1}}}}\n");
    let (_more, others) = files(&[("good.yaml", &good)]);
    let refused = run(&["workflow", "test", &others[0], &paths[1]]).await;
    assert_eq!(refused.code, 2);
    assert!(
        refused.stdout.contains("a file of cases needs the list 'cases'"),
        "{refused:?}"
    );
}
