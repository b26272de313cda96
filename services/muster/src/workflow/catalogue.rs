//! The catalogue: apply, list, get.

use std::path::Path;

use muster_api::workflow::{
    ApplyWorkflowRequest, GetWorkflowRequest, ListWorkflowsRequest, Workflow, WorkflowReference,
};
use serde_json::{Value, json};

use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// `muster workflow apply FILE`
pub async fn apply(file: &Path, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let document = super::document(file)?;
    let answer = endpoints
        .engine()?
        .apply_workflow(ApplyWorkflowRequest { document })
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner();
    let workflow = answer
        .workflow
        .ok_or_else(|| Failure::failed("the engine answered without a workflow"))?;
    if output.is_json() {
        output.json(&workflow_json(&workflow));
    } else {
        for problem in &answer.warnings {
            output.line(&format!(
                "{}:{}:{}: {}",
                file.display(),
                problem.line,
                problem.column,
                problem.message
            ));
        }
        output.line(&format!("applied {}", full_name(&workflow)));
    }
    Ok(())
}

/// `muster workflow list`
pub async fn list(endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.engine()?;
    let mut workflows = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client
            .list_workflows(ListWorkflowsRequest {
                page_size: 100,
                page_token,
            })
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        workflows.extend(page.workflows);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if output.is_json() {
        output.json(&json!({"workflows": workflows.iter().map(workflow_json).collect::<Vec<_>>()}));
    } else if workflows.is_empty() {
        output.line("the catalogue is empty; add a document with `muster workflow apply FILE`");
    } else {
        let rows = workflows
            .iter()
            .map(|w| {
                [
                    w.namespace.clone(),
                    w.name.clone(),
                    w.version.clone(),
                    w.title.clone(),
                    applied_at(w),
                ]
            })
            .collect();
        output.table(["NAMESPACE", "NAME", "VERSION", "TITLE", "APPLIED"], rows);
    }
    Ok(())
}

/// `muster workflow get NAME`
pub async fn get(name: &str, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let WorkflowReference {
        namespace,
        name,
        version,
    } = reference(name);
    let workflow = endpoints
        .engine()?
        .get_workflow(GetWorkflowRequest {
            namespace,
            name,
            version,
        })
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner()
        .workflow
        .ok_or_else(|| Failure::failed("the engine answered without a workflow"))?;
    if output.is_json() {
        let mut value = workflow_json(&workflow);
        value["document"] = Value::String(workflow.document);
        output.json(&value);
    } else {
        output.line(workflow.document.trim_end());
    }
    Ok(())
}

/// Reads `[NAMESPACE/]NAME[@VERSION]`.
pub fn reference(text: &str) -> WorkflowReference {
    let (namespace, rest) = text.split_once('/').unwrap_or(("", text));
    let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
    WorkflowReference {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

fn full_name(workflow: &Workflow) -> String {
    format!("{}/{}@{}", workflow.namespace, workflow.name, workflow.version)
}

fn applied_at(workflow: &Workflow) -> String {
    super::runs::time(workflow.applied_at.as_ref())
}

fn workflow_json(workflow: &Workflow) -> Value {
    json!({
        "namespace": workflow.namespace,
        "name": workflow.name,
        "version": workflow.version,
        "title": workflow.title,
        "digest": workflow.digest,
        "appliedAt": applied_at(workflow),
    })
}

#[cfg(test)]
mod tests {
    use super::reference;

    #[test]
    fn references_name_namespace_and_version_optionally() {
        let parts = |text| {
            let found = reference(text);
            (found.namespace, found.name, found.version)
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("trip"), owned("", "trip", ""));
        assert_eq!(parts("trip@1.2.0"), owned("", "trip", "1.2.0"));
        assert_eq!(parts("travel/trip@1.2.0"), owned("travel", "trip", "1.2.0"));
    }
}
