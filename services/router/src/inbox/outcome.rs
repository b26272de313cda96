//! What a failed delivery means for its message: later, or never. Pure.
//!
//! What may pass by itself is tried again: nobody is there, all are busy, the connection broke. What is the message's own
//! fault would fail for ever, and is a dead letter at once. In between, an agent that fails with an error of its own is given
//! a bounded number of chances, because nobody can tell whose fault it is; waiting for somebody who takes work is not a
//! failure, and goes on as long as the message lives.

use std::time::Duration;

use muster_api::error::{Error as ApiError, code_name};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::entry::Failure;
use crate::error::Error;
use crate::forward::finds_too_large;
use crate::quota::Spent;

/// What comes after a failed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again.
    Later {
        /// Whether it counts as a failure of this message; else it is the target that takes nothing now.
        counts: bool,
        /// Not before that long, if the refusal said so.
        after: Option<Duration>,
    },
    /// It is a dead letter.
    Never,
}

/// What comes after this error.
#[must_use]
pub fn next(error: &Error) -> Next {
    let busy = |after| Next::Later { counts: false, after };
    let failed = Next::Later {
        counts: true,
        after: None,
    };
    match error {
        Error::NoInstance { retry_after, .. }
        | Error::Overloaded { retry_after, .. }
        | Error::RateLimited { retry_after, .. }
        | Error::QuotaExceeded(Spent { retry_after, .. }) => busy(Some(*retry_after)),
        Error::UnknownAgent { .. }
        | Error::UnknownSkill { .. }
        | Error::UnmatchedSkills { .. }
        | Error::NoView
        | Error::QueueFull { .. }
        | Error::TaskUnlocated { .. }
        | Error::Credentials { .. }
        | Error::Token { .. }
        | Error::AnswersFull
        | Error::ShuttingDown
        | Error::Store { .. } => busy(None),
        Error::DeadlineExceeded { .. }
        | Error::Unreachable { .. }
        | Error::InvalidAnswer { .. }
        | Error::StreamIdle { .. }
        | Error::StreamStalled { .. } => failed,
        Error::InvalidField { .. }
        | Error::TargetMissing
        | Error::Unstreamed { .. }
        | Error::TooLarge { .. }
        | Error::UnknownTask { .. }
        | Error::MessageIdReused { .. }
        | Error::AnswerNotKept { .. }
        | Error::InvalidPageToken { .. }
        | Error::Unlisted { .. }
        | Error::PageTooLarge { .. }
        | Error::VersionNotSupported { .. }
        | Error::Expired { .. } => Next::Never,
        Error::Refused(_) => Next::Never,
        Error::Agent(status) if finds_too_large(status) => Next::Never,
        Error::Agent(status) => match status.code() {
            Code::Unavailable | Code::ResourceExhausted => {
                busy(status.get_details_retry_info().and_then(|it| it.retry_delay))
            }
            Code::Ok
            | Code::Aborted
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::DataLoss => failed,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented => Next::Never,
        },
    }
}

/// The error in words, to be kept.
#[must_use]
pub fn failure(status: &Status) -> Failure {
    let reason = match ApiError::from_status(status) {
        Some(ours) => ours.reason.name().to_owned(),
        None => status
            .get_details_error_info()
            .map_or_else(String::new, |info| info.reason),
    };
    Failure::new(code_name(status.code()), &reason, status.message())
}

#[cfg(test)]
mod tests {
    use muster_api::error::Reason;

    use super::*;

    fn of_agent(status: Status) -> Next {
        next(&Error::Agent(Box::new(status)))
    }

    #[test]
    fn the_messages_own_fault_is_final_and_absence_is_not() {
        assert_eq!(of_agent(Status::invalid_argument("no")), Next::Never);
        assert_eq!(of_agent(Status::unimplemented("no")), Next::Never);
        assert_eq!(next(&Error::TargetMissing), Next::Never);
        let nobody = Error::UnknownSkill {
            skill: "x".to_owned(),
            nearest: Vec::new(),
        };
        let waits = Next::Later {
            counts: false,
            after: None,
        };
        assert_eq!(next(&nobody), waits);
        assert_eq!(of_agent(Status::unavailable("no")), waits);
        let failed = Next::Later {
            counts: true,
            after: None,
        };
        assert_eq!(of_agent(Status::internal("no")), failed);
    }

    #[test]
    fn what_an_agent_finds_too_large_is_no_smaller_another_time() {
        let too_large = ApiError::new(Reason::MessageTooLarge, "send less");
        assert_eq!(of_agent(too_large.into()), Next::Never);
        let exhausted = Next::Later {
            counts: false,
            after: None,
        };
        assert_eq!(of_agent(Status::resource_exhausted("no quota")), exhausted);
    }

    #[test]
    fn a_busy_agent_says_when_to_come_again() {
        let busy = ApiError::new(Reason::AgentBusy, "busy").with_retry_after(Duration::from_secs(7));
        let busy = Status::from(busy);
        let after = Some(Duration::from_secs(7));
        assert_eq!(of_agent(busy.clone()), Next::Later { counts: false, after });
        let kept = failure(&busy);
        assert_eq!(
            (kept.code.as_str(), kept.reason.as_str()),
            ("RESOURCE_EXHAUSTED", "AGENT_BUSY")
        );
    }
}
