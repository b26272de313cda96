//! What a status from the router means: whether the call may be sent again, and what failure it is to a workflow.

use std::time::Duration;

use muster_api::error::{Error as ApiError, Reason};
use muster_rpc::loss::Loss;
use muster_workflow_dsl::run::BlockerKind;
use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Failure, Kind, Note};

/// Why a call may be sent again, under the same message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It certainly reached no agent; with the wait that was asked for, if any.
    Unreached(Option<Duration>),
    /// It was with the router when the connection broke, so that an agent may have got it.
    BrokeOff,
}

/// Whether the call may be sent again; `None`: somebody has answered it.
pub(super) fn repeat(status: &Status) -> Option<Repeat> {
    if let Some(error) = ApiError::from_status(status) {
        let unreached = matches!(
            error.reason,
            Reason::AgentNotFound
                | Reason::SkillNotFound
                | Reason::NoInstanceAvailable
                | Reason::AgentBusy
                | Reason::QueueFull
                | Reason::AgentOverloaded
                | Reason::ShuttingDown
                | Reason::DependencyUnavailable
        );
        return unreached.then_some(Repeat::Unreached(error.retry_after));
    }
    Loss::of(status).map(|loss| match loss {
        Loss::Unsent => Repeat::Unreached(None),
        Loss::UnderWay => Repeat::BrokeOff,
    })
}

/// What holds a call up that reached no agent, for those who ask.
pub(super) fn obstacle(status: &Status, next: Duration) -> Note {
    let error = ApiError::from_status(status);
    let kind = match error.as_ref().map(|error| error.reason) {
        Some(Reason::AgentNotFound | Reason::SkillNotFound) => BlockerKind::NoAgent,
        Some(Reason::NoInstanceAvailable) => {
            match error.as_ref().and_then(|error| error.metadata.get("cause")) {
                Some(cause) if cause == "breaker" => BlockerKind::BreakerOpen,
                _ => BlockerKind::NoAgent,
            }
        }
        Some(Reason::AgentBusy) => BlockerKind::AgentBusy,
        Some(Reason::QueueFull | Reason::AgentOverloaded) => BlockerKind::QueueFull,
        _ => BlockerKind::RouterUnreachable,
    };
    let mut details = Map::new();
    if let Some(error) = &error {
        details.insert("reason".to_owned(), error.reason.name().into());
        let facts = error.metadata.iter().filter(|(_, fact)| !fact.is_empty());
        details.extend(facts.map(|(key, fact)| (key.clone(), Value::from(fact.as_str()))));
    }
    let said = match (kind, status.message()) {
        (BlockerKind::RouterUnreachable, message) => {
            format!("the router cannot be reached or is not ready: {message}")
        }
        (_, message) => message.to_owned(),
    };
    Note {
        kind: Some(kind),
        text: format!("tries again: {said}"),
        since: None,
        next: Some(next),
        details,
    }
}

/// The failure that a status means to a workflow.
pub(super) fn failure(target: &str, status: &Status) -> Failure {
    let (kind, http) = match status.code() {
        Code::DeadlineExceeded => (Kind::Timeout, 408),
        // What tonic's servers answer when the caller's deadline has passed.
        Code::Cancelled if status.message() == "Timeout expired" => (Kind::Timeout, 408),
        Code::Unauthenticated => (Kind::Authentication, 401),
        Code::PermissionDenied => (Kind::Authorization, 403),
        Code::InvalidArgument | Code::OutOfRange => (Kind::Communication, 400),
        Code::NotFound => (Kind::Communication, 404),
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => (Kind::Communication, 409),
        Code::ResourceExhausted => (Kind::Communication, 429),
        Code::Cancelled => (Kind::Communication, 499),
        Code::Unimplemented => (Kind::Communication, 501),
        Code::Unavailable => (Kind::Communication, 503),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (Kind::Communication, 500),
    };
    // Whatever a broken connection is called, nobody has answered.
    let (kind, http) = match Loss::of(status) {
        Some(_) => (Kind::Communication, 503),
        None => (kind, http),
    };
    // The agent was reached and has said no, in the words of the protocol.
    let kind = if is_of_a2a(status) && kind == Kind::Communication {
        Kind::Runtime
    } else {
        kind
    };
    let http = ApiError::from_status(status).map_or(http, |error| error.reason.http_status());
    let http = if kind == Kind::Timeout { 408 } else { http };
    Failure::new(kind, http, format!("calling '{target}': {}", status.message()))
}

/// Whether the status is an error that A2A defines.
fn is_of_a2a(status: &Status) -> bool {
    const DOMAIN: &str = "a2a-protocol.org";
    let info = status.get_error_details().error_info().cloned();
    info.is_some_and(|info| info.domain == DOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_answered_is_repeated_only_where_no_agent_was_reached() {
        let status =
            |reason| Status::from(ApiError::new(reason, "x").with_retry_after(Duration::from_secs(1)));
        assert_eq!(
            repeat(&status(Reason::NoInstanceAvailable)),
            Some(Repeat::Unreached(Some(Duration::from_secs(1))))
        );
        assert_eq!(
            repeat(&status(Reason::SkillNotFound)),
            Some(Repeat::Unreached(Some(Duration::from_secs(1))))
        );
        assert_eq!(repeat(&status(Reason::AgentUnreachable)), None);
        assert_eq!(repeat(&Status::unavailable("from who knows where")), None);
        assert_eq!(repeat(&Status::resource_exhausted("")), None);
    }

    #[test]
    fn a_status_becomes_the_failure_it_means() {
        for (status, kind, http) in [
            (Status::deadline_exceeded("late"), Kind::Timeout, 408),
            (Status::unauthenticated("who?"), Kind::Authentication, 401),
            (Status::permission_denied("no"), Kind::Authorization, 403),
            (Status::unavailable("gone"), Kind::Communication, 503),
            (
                ApiError::new(Reason::InvalidAgentResponse, "odd").into(),
                Kind::Communication,
                502,
            ),
        ] {
            let failure = failure("weather", &status);
            assert_eq!((failure.kind, failure.status), (kind, http));
            assert_eq!(failure.detail, format!("calling 'weather': {}", status.message()));
        }
    }
}
