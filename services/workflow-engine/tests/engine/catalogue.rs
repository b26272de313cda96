//! The catalogue: checked, immutable, found by name and version.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{Engine, document, reason, send};

fn named(name: &str, version: &str, value: u32) -> String {
    format!(
        "document: {{dsl: '1.0.0', namespace: default, name: {name}, version: '{version}', title: A title}}\n\
         do:\n  - done: {{set: {{value: {value}}}}}\n"
    )
}

async fn apply(engine: &Engine, document: &str) -> Result<proto::Workflow, Status> {
    let request = proto::ApplyWorkflowRequest {
        document: document.to_owned(),
    };
    Ok(engine
        .client
        .clone()
        .apply_workflow(request)
        .await?
        .into_inner()
        .workflow
        .unwrap())
}

async fn get(engine: &Engine, name: &str, version: &str) -> Result<proto::Workflow, Status> {
    let request = proto::GetWorkflowRequest {
        namespace: String::new(),
        name: name.to_owned(),
        version: version.to_owned(),
    };
    Ok(engine
        .client
        .clone()
        .get_workflow(request)
        .await?
        .into_inner()
        .workflow
        .unwrap())
}

async fn start(engine: &Engine, id: &str, version: &str) -> Result<proto::Run, Status> {
    let reference = proto::WorkflowReference {
        namespace: String::new(),
        name: "report".to_owned(),
        version: version.to_owned(),
    };
    let request = proto::StartRunRequest {
        run_id: id.to_owned(),
        source: Some(proto::start_run_request::Source::Workflow(reference)),
        input_json: String::new(),
        ..Default::default()
    };
    Ok(engine
        .client
        .clone()
        .start_run(request)
        .await?
        .into_inner()
        .run
        .unwrap())
}

#[tokio::test]
async fn a_version_is_applied_once_and_stays_as_it_is() {
    let mut engine = Engine::start().await;
    let first = apply(&engine, &named("report", "1.9.0", 1)).await.unwrap();
    assert_eq!(first.title, "A title");
    assert_eq!(first.digest.len(), 64);
    assert_eq!(
        apply(&engine, &named("report", "1.9.0", 1)).await.unwrap(),
        first,
        "the same again is fine"
    );
    let error = apply(&engine, &named("report", "1.9.0", 2)).await.unwrap_err();
    assert_eq!(reason(&error), "WORKFLOW_VERSION_EXISTS");
    apply(&engine, &named("report", "1.10.0", 3)).await.unwrap();

    engine.restart().await;
    assert_eq!(
        get(&engine, "report", "").await.unwrap().version,
        "1.10.0",
        "the newest by number"
    );
    let read = get(&engine, "report", "1.9.0").await.unwrap();
    assert_eq!(read.document, named("report", "1.9.0", 1));
}

#[tokio::test]
async fn what_is_not_there_says_what_is_near() {
    let engine = Engine::start().await;
    apply(&engine, &named("report", "1.0.0", 1)).await.unwrap();
    let error = get(&engine, "raport", "").await.unwrap_err();
    assert_eq!(reason(&error), "WORKFLOW_NOT_FOUND");
    assert!(
        error.message().contains("did you mean 'report'?"),
        "{}",
        error.message()
    );
    let error = get(&engine, "report", "2.0.0").await.unwrap_err();
    assert!(
        error.message().contains("newest version is 1.0.0"),
        "{}",
        error.message()
    );
    assert_eq!(reason(&get(&engine, "", "").await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn the_catalogue_is_listed_in_pages_without_texts() {
    let engine = Engine::start().await;
    for (name, version) in [
        ("b", "1.0.0"),
        ("a", "2.0.0"),
        ("a", "10.0.0"),
        ("c", "1.0.0"),
        ("b", "1.0.1"),
    ] {
        apply(&engine, &named(name, version, 1)).await.unwrap();
    }
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListWorkflowsRequest {
            page_size: 2,
            page_token,
        };
        let page = engine
            .client
            .clone()
            .list_workflows(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.workflows.iter().all(|workflow| workflow.document.is_empty()));
        listed.extend(
            page.workflows
                .into_iter()
                .map(|workflow| format!("{} {}", workflow.name, workflow.version)),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ["a 2.0.0", "a 10.0.0", "b 1.0.0", "b 1.0.1", "c 1.0.0"]);
}

#[tokio::test]
async fn a_run_stays_with_the_version_it_was_started_with() {
    let engine = Engine::start().await;
    apply(&engine, &named("report", "1.0.0", 1)).await.unwrap();
    start(&engine, "one", "").await.unwrap();
    let first = engine.until("one", RunStatus::Completed).await;
    assert_eq!(first.output_json, r#"{"value":1}"#);

    apply(&engine, &named("report", "2.0.0", 2)).await.unwrap();
    assert_eq!(
        start(&engine, "one", "").await.unwrap().version,
        "1.0.0",
        "asked again, it is the same run"
    );
    assert_eq!(
        reason(&start(&engine, "one", "2.0.0").await.unwrap_err()),
        "RUN_EXISTS"
    );
    start(&engine, "two", "").await.unwrap();
    assert_eq!(engine.until("two", RunStatus::Completed).await.version, "2.0.0");
}

#[tokio::test]
async fn a_bad_document_is_refused_everywhere_with_its_places() {
    let engine = Engine::start().await;
    for bad in [
        "a: [",
        &document("  - a: {sett: {b: 1}}\n"),
        &document("  - a: {set: {b: '${ .x | nope }'}}\n"),
        &document("  - a: {set: {b: 1}, then: nowhere}\n"),
        &send("weather", "no header"),
    ] {
        let request = proto::ValidateWorkflowRequest {
            document: bad.to_owned(),
        };
        let checked = engine
            .client
            .clone()
            .validate_workflow(request)
            .await
            .unwrap()
            .into_inner();
        assert!(
            checked
                .problems
                .iter()
                .any(|problem| problem.severity == "error" && problem.line > 0),
            "{bad}"
        );

        let applied = apply(&engine, bad).await.unwrap_err();
        let started = engine.start_run(bad, "", "").await.unwrap_err();
        for error in [applied, started] {
            assert_eq!(reason(&error), "INVALID_WORKFLOW");
            let details = error.get_error_details();
            let violations = &details.bad_request().unwrap().field_violations;
            assert!(
                violations
                    .iter()
                    .all(|violation| violation.field.starts_with("document")),
                "{violations:?}"
            );
            assert!(violations[0].description.contains("line "), "{violations:?}");
        }
    }
    let good = proto::ValidateWorkflowRequest {
        document: named("good", "1.0.0", 1),
    };
    let checked = engine
        .client
        .clone()
        .validate_workflow(good)
        .await
        .unwrap()
        .into_inner();
    assert!(
        checked.problems.iter().all(|problem| problem.severity != "error"),
        "{checked:?}"
    );
    assert_eq!(checked.left_out, 0);
    let many: String = (0..250).map(|n| format!("  - a{n}: {{sett: {{}}}}\n")).collect();
    let request = proto::ValidateWorkflowRequest {
        document: document(&many),
    };
    let checked = engine.client.clone().validate_workflow(request).await.unwrap();
    let checked = checked.into_inner();
    assert_eq!((checked.problems.len(), checked.left_out), (100, 150));
}
