//! What a failed call says: did it reach the agent, may it move, who is to blame.
//!
//! An error that the agent answered has no source; one that this side made carries the connection's error, and
//! only what is certain from it counts as "never reached": the connection could not be made, the request was
//! still in this process when it ended, or the agent's end says in the words of HTTP/2 that it has not begun. Everything else may
//! have been executed.

use std::error::Error as StdError;

use muster_a2a::client::TooLarge;
use muster_api::error::Reason;
use muster_rpc::direct;
use tonic::{Code, Status};

use crate::credentials::Missing;
use crate::error::Error;
use crate::fleet::Key;
use crate::measure::Verdict;

/// How a call failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The agent cannot have seen it.
    NeverReached(String),
    /// The connection broke while it was with the agent.
    BrokeOff(String),
    /// The agent answered that it takes no work now.
    Refused(Box<Status>),
    /// What came back is not an answer.
    NotA2a(String),
    /// The answer is larger than is taken. Whoever has large tasks must not have their agent left alone for everybody.
    TooLarge(TooLarge),
    /// The agent answered with an error.
    Answered(Box<Status>),
    /// The call was not made, because what the agent asks for is not there.
    Unauthorized(Missing),
}

impl Failure {
    /// What it is called in traces.
    pub(super) fn error_type(&self) -> String {
        match self {
            Self::NeverReached(_) => "unreachable".to_owned(),
            Self::BrokeOff(_) => "broken_off".to_owned(),
            Self::NotA2a(_) => "invalid_answer".to_owned(),
            Self::TooLarge(_) => "answer_too_large".to_owned(),
            Self::Unauthorized(_) => "credentials_missing".to_owned(),
            Self::Refused(status) | Self::Answered(status) => format!("{:?}", status.code()),
        }
    }

    /// Reads a status.
    #[must_use]
    pub fn of(status: Status) -> Self {
        let mut source = status.source();
        let mut local = None;
        while let Some(error) = source {
            if let Some(too_large) = error.downcast_ref::<TooLarge>() {
                return Self::TooLarge(*too_large);
            }
            if let Some(failed) = error.downcast_ref::<direct::Error>() {
                if failed.never_reached() {
                    return Self::NeverReached(root(error));
                }
                local = Some(root(error));
            }
            source = error.source();
        }
        if let Some(detail) = local {
            return Self::BrokeOff(detail);
        }
        if is_garbage(&status) {
            return Self::NotA2a(status.message().to_owned());
        }
        match status.code() {
            Code::ResourceExhausted if finds_too_large(&status) => Self::Answered(Box::new(status)),
            Code::Unavailable | Code::ResourceExhausted | Code::Aborted => Self::Refused(Box::new(status)),
            _ => Self::Answered(Box::new(status)),
        }
    }

    /// The instance was lost while the call was with it.
    #[must_use]
    pub fn lost() -> Self {
        Self::BrokeOff("its lease ended without a heartbeat".to_owned())
    }

    /// What it says about the instance.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::NeverReached(_) | Self::BrokeOff(_) | Self::NotA2a(_) => Verdict::Failed,
            Self::Unauthorized(_) => Verdict::Unknown,
            Self::TooLarge(_) => Verdict::Answered(None),
            Self::Refused(status) => match status.code() {
                Code::Unavailable => Verdict::Failed,
                Code::ResourceExhausted => Verdict::Refused,
                _ => Verdict::Unknown,
            },
            Self::Answered(status) => match status.code() {
                Code::Cancelled | Code::DeadlineExceeded => Verdict::Unknown,
                Code::Unknown | Code::Internal | Code::DataLoss => Verdict::Erred,
                _ => Verdict::Answered(None),
            },
        }
    }

    /// Whether the agent may be at it still, or may have done it, with nothing to show for it.
    pub(super) fn leaves_open(&self) -> bool {
        match self {
            Self::BrokeOff(_) | Self::TooLarge(_) => true,
            Self::Answered(status) => matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            Self::NeverReached(_) | Self::Refused(_) | Self::NotA2a(_) | Self::Unauthorized(_) => false,
        }
    }

    /// Whether another instance may do better.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NeverReached(_) | Self::BrokeOff(_) | Self::Refused(_) => true,
            Self::NotA2a(_) | Self::TooLarge(_) | Self::Answered(_) | Self::Unauthorized(_) => false,
        }
    }

    /// Whether the call may go on at another instance. One that never reached its agent always does; one that may have been
    /// executed only where that does no harm, and if `pay` finds the budget able to afford it.
    pub fn may_move(&self, is_repeatable: bool, pay: impl FnOnce() -> bool) -> bool {
        matches!(self, Self::NeverReached(_))
            || (self.is_transient() && (is_repeatable || self.was_not_begun()) && pay())
    }

    /// Whether an agent of ours says that it is full: then nothing was done. What others mean by RESOURCE_EXHAUSTED is theirs.
    fn was_not_begun(&self) -> bool {
        match self {
            Self::Refused(status) if status.code() == Code::ResourceExhausted => {
                muster_api::error::Error::from_status(status)
                    .is_some_and(|error| error.reason == Reason::AgentBusy)
            }
            _ => false,
        }
    }

    /// What the caller hears of it, and whether it may try again in any case.
    pub(super) fn into_error(self, key: &Key, is_repeatable: bool) -> Error {
        let agent = key.agent.clone();
        match self {
            Self::NeverReached(detail) => Error::Unreachable {
                agent,
                instance: key.instance.clone(),
                detail,
                is_repeatable: true,
            },
            Self::BrokeOff(detail) => Error::Unreachable {
                agent,
                instance: key.instance.clone(),
                detail,
                is_repeatable,
            },
            Self::NotA2a(detail) => Error::InvalidAnswer { agent, detail },
            Self::TooLarge(too_large) => Error::InvalidAnswer {
                agent,
                detail: format!("{too_large} (`router.max_answer_bytes`)"),
            },
            Self::Refused(status) | Self::Answered(status) => Error::Agent(status),
            Self::Unauthorized(Missing::Credentials(what)) => Error::Credentials { agent, what },
            Self::Unauthorized(Missing::Token(what)) => Error::Token { agent, what },
        }
    }
}

/// Whether an agent says that the message is larger than it takes: that is the message's fault, and another time it is no smaller.
#[must_use]
pub fn finds_too_large(status: &Status) -> bool {
    muster_api::error::Error::from_status(status).is_some_and(|error| error.reason == Reason::MessageTooLarge)
}

/// Whether tonic could make nothing of the answer: no gRPC at all, or a message that is none. tonic gives these no type of their
/// own. (A message that does not decode or is too large is found by the router itself; a status that says so is the agent's.)
fn is_garbage(status: &Status) -> bool {
    const SIGNS: [&str; 3] = [
        "grpc-status header missing",
        "Missing response message",
        "protocol error: received message with",
    ];
    SIGNS.iter().any(|sign| status.message().starts_with(sign))
}

/// The innermost error's text: the outer ones say "transport error" and the like.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_cannot_be_made_never_reached_the_agent() {
        let client = muster_rpc::channel::direct(
            &muster_rpc::channel::Config::agent(),
            &muster_rpc::channel::Security::by_scheme(),
        );
        let nobody = http::Request::post("http://127.0.0.1:1/")
            .body(tonic::body::Body::empty())
            .unwrap();
        let error = client.oneshot(nobody).await.unwrap_err();
        let failure = Failure::of(Status::from_error(Box::new(error)));
        let Failure::NeverReached(detail) = &failure else {
            panic!("{failure:?}");
        };
        assert!(detail.to_lowercase().contains("refused"), "{detail}");
        assert_eq!(failure.verdict(), Verdict::Failed);
        assert!(failure.is_transient());
    }

    #[test]
    fn an_answer_that_is_too_large_says_nothing_of_the_agent_and_may_have_been_given() {
        let json = muster_a2a::client::Failure::TooLarge(TooLarge { limit: 7 });
        let failure = Failure::of(Status::from(json));
        assert!(matches!(failure, Failure::TooLarge(TooLarge { limit: 7 })));
        assert_eq!(failure.verdict(), Verdict::Answered(None));
        assert!(!failure.is_transient() && failure.leaves_open());
        // What an agent's own server says of the message that it was sent is no answer that is too large.
        let theirs = Failure::of(Status::out_of_range(
            "Error, decoded message length too large: found 5",
        ));
        assert!(matches!(theirs, Failure::Answered(_)));
        assert_eq!(theirs.verdict(), Verdict::Answered(None));
    }

    #[test]
    fn what_the_agent_answers_is_told_apart() {
        for (status, transient, verdict) in [
            (Status::not_found("x"), false, Verdict::Answered(None)),
            (Status::internal("x"), false, Verdict::Erred),
            (Status::unavailable("x"), true, Verdict::Failed),
            (Status::resource_exhausted("x"), true, Verdict::Refused),
        ] {
            let failure = Failure::of(status);
            assert_eq!(
                (failure.is_transient(), failure.verdict()),
                (transient, verdict),
                "{failure:?}"
            );
        }
        let elsewhere = Failure::of(Status::resource_exhausted("x"));
        assert!(!elsewhere.may_move(false, || true));
        let full = muster_api::error::Error::new(Reason::AgentBusy, "full");
        assert!(Failure::of(full.into()).may_move(false, || true));
        let too_large = muster_api::error::Error::new(Reason::MessageTooLarge, "send less");
        let too_large = Failure::of(too_large.into());
        assert_eq!(
            (too_large.is_transient(), too_large.verdict()),
            (false, Verdict::Answered(None))
        );
        let page = Status::unknown("grpc-status header missing, mapped from HTTP status code 502");
        assert!(matches!(Failure::of(page), Failure::NotA2a(_)));
    }
}
