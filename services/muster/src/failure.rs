//! How a command fails: an exit code for scripts, a sentence and a remedy for people.

use std::process::ExitCode;

use muster_api::error::Error;
use tonic::{Code, Status};

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was tried and did not work.
    Failed = 1,
    /// What was typed, or the document, is wrong.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Refused: authorization or a limit.
    Refused = 4,
    /// A service does not answer.
    Unavailable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened; may have several lines.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The stable reason of the service that refused, where one did.
    pub reason: Option<&'static str>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            remedy: None,
            reason: None,
        }
    }

    /// It was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// What was typed is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A service does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// Adds what to do about it.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// A call to `service` at `url` failed.
    pub fn from_status(service: &str, url: &str, status: &Status) -> Self {
        let ours = Error::from_status(status);
        // A broken connection and tonic's own timer come with other codes than UNAVAILABLE.
        let broken = std::error::Error::source(status).is_some() || status.code() == Code::Cancelled;
        let exit = match status.code() {
            _ if broken && ours.is_none() => Exit::Unavailable,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Unimplemented => Exit::Failed,
            Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted => Exit::Refused,
            Code::Unavailable | Code::DeadlineExceeded => Exit::Unavailable,
        };
        let Some(ours) = ours else {
            let failure = Self::new(exit, format!("{service} at {url}: {}", plain(status)));
            return if std::error::Error::source(status).is_some() {
                failure.with_remedy(format!(
                    "start it (`muster dev` runs everything), or name another with --{service}"
                ))
            } else {
                failure
            };
        };
        let mut failure = Self::new(exit, ours.message.clone()).with_remedy(ours.reason.remedy());
        failure.reason = Some(ours.reason.name());
        if let Some(delay) = ours.retry_after {
            failure
                .message
                .push_str(&format!(" (try again in {:.1} s)", delay.as_secs_f64()));
        }
        failure
    }
}

/// tonic wraps a refused connection in several layers; people need the innermost.
fn plain(status: &Status) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match innermost {
        Some(cause) if status.message().is_empty() || status.message() == "transport error" => cause,
        Some(cause) if !status.message().contains(&cause) => format!("{} ({cause})", status.message()),
        _ => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_api::error::Reason;

    #[test]
    fn exit_codes_tell_scripts_what_happened() {
        for (reason, exit) in [
            (Reason::AgentNotFound, Exit::NotFound),
            (Reason::QueueFull, Exit::Refused),
            (Reason::InvalidWorkflow, Exit::Usage),
            (Reason::NoInstanceAvailable, Exit::Unavailable),
            (Reason::Internal, Exit::Failed),
        ] {
            let failure = Failure::from_status("router", "http://x", &Error::new(reason, "m").into());
            assert_eq!(failure.exit, exit, "{}", reason.name());
            assert_eq!(failure.remedy.as_deref(), Some(reason.remedy()));
        }
    }
}
