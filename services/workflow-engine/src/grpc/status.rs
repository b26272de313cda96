//! The only place that makes a status of an error.

use std::collections::HashMap;
use std::time::Duration;

use muster_api::error::{DOMAIN, Error as ApiError, Reason};
use muster_workflow_dsl::{Problem, Problems, Severity};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::Error;
use crate::store;

/// When a full line is worth another try.
const LINE_RETRY: Duration = Duration::from_secs(5);

/// When another engine may have taken a partition over, or be there in the place of one that shuts down.
const OWNER_RETRY: Duration = Duration::from_secs(1);

/// When a store that takes no writes may take them again: Redis fails over within seconds.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// When what waits for a person may be whole again: what is damaged, a full disk under a backup.
const REPAIR_RETRY: Duration = Duration::from_secs(60);

/// When what a document refers to may be there to be read.
const DEPENDENCY_RETRY: Duration = Duration::from_secs(5);

/// Problems that travel with a refusal. Details are headers, and those are bounded; `ValidateWorkflow` tells all.
const MOST_PROBLEMS: usize = 15;

/// Longest text and longest pointer of one problem in a refusal, in characters.
const LONGEST_PROBLEM: usize = 200;
const LONGEST_POINTER: usize = 120;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Field { field, message } => ApiError::invalid_field(field, message).into(),
            Error::PageToken(_) => ApiError::new(Reason::InvalidPageToken, message)
                .with_field("page_token")
                .into(),
            Error::InvalidWorkflow(problems) => invalid_workflow(&problems),
            Error::Unobtained { .. } => ApiError::new(Reason::DependencyUnavailable, message)
                .with_retry_after(DEPENDENCY_RETRY)
                .into(),
            Error::WorkflowNotFound { .. } => ApiError::new(Reason::WorkflowNotFound, message).into(),
            Error::VersionExists { digest, .. } => ApiError::new(Reason::WorkflowVersionExists, message)
                .with_metadata("digest", digest)
                .into(),
            Error::RunNotFound { .. } => ApiError::new(Reason::RunNotFound, message).into(),
            Error::Forbidden { .. } => ApiError::new(Reason::PermissionDenied, message).into(),
            Error::RunExists { .. } => ApiError::new(Reason::RunExists, message)
                .with_field("run_id")
                .into(),
            Error::RunEnded { status, .. } => ApiError::new(Reason::RunEnded, message)
                .with_metadata("status", status.name())
                .into(),
            Error::ApprovalNotFound { .. } => ApiError::new(Reason::ApprovalNotFound, message).into(),
            Error::ApprovalClosed { state, .. } => ApiError::new(Reason::ApprovalClosed, message)
                .with_metadata("state", state.name())
                .into(),
            Error::RunActive { .. } => ApiError::new(Reason::RunActive, message).into(),
            Error::NotRetryable { .. } => ApiError::new(Reason::RunNotRetryable, message).into(),
            Error::RunErased { .. } => ApiError::new(Reason::RunErased, message).into(),
            Error::TooManyRuns(_) => ApiError::new(Reason::TooManyRuns, message)
                .with_retry_after(LINE_RETRY)
                .into(),
            Error::ScheduleNotFound { .. } => ApiError::new(Reason::ScheduleNotFound, message).into(),
            Error::TooManySchedules { .. } => ApiError::new(Reason::TooManySchedules, message).into(),
            Error::BackupRunning => ApiError::new(Reason::BackupRunning, message)
                .with_retry_after(LINE_RETRY)
                .into(),
            Error::BackupStalled(_) => ApiError::new(Reason::BackupStalled, message).into(),
            Error::BackupElsewhere => ApiError::new(Reason::BackupElsewhere, message).into(),
            Error::Backup(_) | Error::SetAside { .. } | Error::Store(store::Error::Damaged(_)) => {
                ApiError::new(Reason::StoreUnavailable, message)
                    .with_retry_after(REPAIR_RETRY)
                    .into()
            }
            Error::Store(store::Error::Unavailable(_)) => ApiError::new(Reason::StoreUnavailable, message)
                .with_retry_after(STORE_RETRY)
                .into(),
            Error::NotOwner { .. } | Error::Store(store::Error::NotOwner { .. }) => {
                ApiError::new(Reason::OwnerUnavailable, message)
                    .with_retry_after(OWNER_RETRY)
                    .into()
            }
            Error::Store(store::Error::TooLarge { .. }) => {
                ApiError::new(Reason::MessageTooLarge, message).into()
            }
            Error::Store(store::Error::Conflict(_)) | Error::Defect(_) => {
                tracing::error!(error = message, "a defect");
                ApiError::new(Reason::Internal, message).into()
            }
            Error::ShuttingDown => ApiError::new(Reason::ShuttingDown, message)
                .with_retry_after(OWNER_RETRY)
                .into(),
        }
    }
}

/// Each problem is a violation of the field `document`, with its place in the text.
fn invalid_workflow(problems: &Problems) -> Status {
    let reason = Reason::InvalidWorkflow;
    let errors: Vec<&Problem> = problems
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect();
    let told = errors.len().min(MOST_PROBLEMS);
    let rest = errors.len() - told + problems.omitted();
    let mut message = match errors.first() {
        Some(first) => format!("the document is not a valid workflow: {}", described(first)),
        None => "the document is not a valid workflow".to_owned(),
    };
    if errors.len() > 1 {
        message.push_str(&format!("; and {} more", errors.len() - 1 + problems.omitted()));
    }
    let mut facts = HashMap::from([("remedy".to_owned(), reason.remedy().to_owned())]);
    if rest > 0 {
        facts.insert("problems_left_out".to_owned(), rest.to_string());
    }
    let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, facts);
    for problem in errors.into_iter().take(MOST_PROBLEMS) {
        let pointer: String = problem.pointer.chars().take(LONGEST_POINTER).collect();
        details.add_bad_request_violation(format!("document{pointer}"), described(problem));
    }
    Status::with_error_details(reason.code(), message, details)
}

fn described(problem: &Problem) -> String {
    let text: String = problem.message.chars().take(LONGEST_PROBLEM).collect();
    format!("line {}, column {}: {text}", problem.line, problem.column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunId;

    #[test]
    fn an_invalid_document_travels_with_its_places() {
        let problems = muster_workflow_dsl::check("document: {dsl: '1.0.0'}\ndo: []\n");
        assert!(problems.has_errors());
        let status = Status::from(Error::InvalidWorkflow(problems));
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().map(|info| info.reason.as_str()),
            Some("INVALID_WORKFLOW")
        );
        let violations = &details.bad_request().unwrap().field_violations;
        assert!(
            violations
                .iter()
                .all(|violation| violation.field.starts_with("document"))
        );
        assert!(violations[0].description.starts_with("line "), "{violations:?}");
    }

    #[test]
    fn whatever_is_unavailable_says_when_to_come_again() {
        for (error, reason) in [
            (
                Error::Unobtained {
                    name: "catalog".to_owned(),
                    why: "no answer".to_owned(),
                },
                Reason::DependencyUnavailable,
            ),
            (
                Error::SetAside {
                    id: RunId::fresh(),
                    why: "damaged".to_owned(),
                },
                Reason::StoreUnavailable,
            ),
            (
                Error::Store(store::Error::Damaged("run 'r'".to_owned())),
                Reason::StoreUnavailable,
            ),
            (
                Error::Store(store::Error::Unavailable("no answer".to_owned())),
                Reason::StoreUnavailable,
            ),
            (Error::NotOwner { partition: 1 }, Reason::OwnerUnavailable),
            (Error::ShuttingDown, Reason::ShuttingDown),
        ] {
            let told = ApiError::from_status(&Status::from(error)).expect("one of ours");
            assert_eq!(
                (told.reason, told.reason.code()),
                (reason, tonic::Code::Unavailable)
            );
            assert!(told.retry_after.is_some_and(|wait| !wait.is_zero()), "{told}");
        }
    }

    #[test]
    fn a_document_with_endless_problems_makes_a_bounded_status() {
        let tasks: String = (0..1_000)
            .map(|number| format!("  - t{number}: {{nonsense{}: 1}}\n", "x".repeat(300)))
            .collect();
        let header = "document: {dsl: '1.0.0', namespace: a, name: b, version: '1.0.0'}\ndo:\n";
        let problems = muster_workflow_dsl::check(&format!("{header}{tasks}"));
        let status = Status::from(Error::InvalidWorkflow(problems));
        assert!(status.details().len() < 8_000, "{}", status.details().len());
    }
}
