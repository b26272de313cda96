//! How a call ended, where an error is not a failure of the measurement: under overload, and beside a noisy caller.

use muster_api::error::Error;
use tonic::{Code, Status};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With its answer.
    Answered,
    /// It was turned away.
    Refused,
    /// Its deadline passed.
    Late,
}

impl Outcome {
    /// What an error means; `None` for one that has nothing to do with load.
    pub fn of(status: &Status) -> Option<Self> {
        match status.code() {
            Code::ResourceExhausted => Some(Self::Refused),
            // Without our details it is a connection that broke.
            Code::Unavailable => Error::from_status(status).map(|_| Self::Refused),
            Code::DeadlineExceeded => Some(Self::Late),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_api::error::Reason;

    #[test]
    fn what_load_brings_is_told_from_what_is_broken() {
        let full = Status::from(Error::new(Reason::QueueFull, "m"));
        assert_eq!(Outcome::of(&full), Some(Outcome::Refused));
        let nobody = Status::from(Error::new(Reason::NoInstanceAvailable, "m"));
        assert_eq!(Outcome::of(&nobody), Some(Outcome::Refused));
        assert_eq!(Outcome::of(&Status::deadline_exceeded("m")), Some(Outcome::Late));
        assert_eq!(Outcome::of(&Status::unavailable("transport error")), None);
        assert_eq!(Outcome::of(&Status::internal("m")), None);
    }
}
