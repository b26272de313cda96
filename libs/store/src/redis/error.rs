//! What can go wrong with Redis, and what became of what was asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Redis did not do it, or nobody knows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Redis refuses; nothing was done.
    #[error("Redis at {address} {reason}; {remedy}")]
    Refused {
        /// Where.
        address: String,
        /// What it says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Redis does not take anything; nothing was done.
    #[error("Redis at {address} cannot be reached: {what}; {REACH}")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        what: String,
    },
    /// Redis has been asked and has not answered; it may have been done.
    #[error("Redis at {address} did not answer: {what}; whether it was done is not known; {REACH}")]
    Unknown {
        /// Where.
        address: String,
        /// What happened.
        what: String,
    },
    /// Redis answered what it should not.
    #[error(
        "Redis at {address} answered what is not understood: {what}; is it Redis 7.0 or newer, or Valkey?"
    )]
    Unexpected {
        /// Where.
        address: String,
        /// What it answered.
        what: String,
    },
}

const REACH: &str = "check that it runs, that the network lets us through and that the URL names it";

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether another try may succeed without anybody doing anything.
    pub(super) passes: bool,
    /// Whether the connection is of no use any more.
    pub(super) breaks: bool,
}

impl Failure {
    /// Of making a connection.
    pub(super) fn connecting(address: &str, error: &RedisError) -> Self {
        match Self::answered(address, error) {
            Some(failure) => Self {
                breaks: true,
                ..failure
            },
            None => Self::unreachable(address, describe(error)),
        }
    }

    pub(super) fn unreachable(address: &str, what: String) -> Self {
        Self {
            error: Error::Unreachable {
                address: address.to_owned(),
                what,
            },
            passes: true,
            breaks: true,
        }
    }

    /// Of something that was sent.
    pub(super) fn sending(address: &str, error: &RedisError) -> Self {
        if let Some(failure) = Self::answered(address, error) {
            return failure;
        }
        let (address, what) = (address.to_owned(), describe(error));
        match error.kind() {
            ErrorKind::ClusterConnectionNotFound => Self::unreachable(&address, what),
            ErrorKind::Io | ErrorKind::Parse => Self {
                error: Error::Unknown { address, what },
                passes: true,
                breaks: true,
            },
            _ => Self {
                error: Error::Unexpected { address, what },
                passes: false,
                breaks: false,
            },
        }
    }

    /// What Redis says of itself: nothing was done then.
    fn answered(address: &str, error: &RedisError) -> Option<Self> {
        let text = describe(error);
        let is_full_of_clients = text.contains("max number of clients");
        let code = match error.kind() {
            ErrorKind::AuthenticationFailed => "WRONGPASS",
            _ if is_full_of_clients => "MAXCLIENTS",
            // Errors of whole pipelines and of handshakes carry the code in their text only.
            _ => error.code().filter(|code| *code != "ERR").unwrap_or_default(),
        };
        let (passes, breaks, reason, remedy) = match code {
            "OOM" => (
                false,
                false,
                "is full",
                "make room or raise its 'maxmemory'; work goes on by itself then",
            ),
            "READONLY" => (
                true,
                true,
                "is a replica and takes no writes",
                "name the primary, or use redis+sentinel:// so that it is found",
            ),
            "MISCONF" => (
                false,
                false,
                "cannot write to its disk and takes no writes",
                "look at its log and at the space on its disk; work goes on by itself then",
            ),
            "NOREPLICAS" => (
                true,
                false,
                "has fewer replicas than its 'min-replicas-to-write'",
                "bring its replicas back",
            ),
            "NOAUTH" | "WRONGPASS" => (
                false,
                true,
                "does not accept the user or the password",
                "correct them in the URL: redis://USER:PASSWORD@HOST:PORT",
            ),
            "NOPERM" => (
                false,
                false,
                "does not permit a command to this user",
                "its ACL must allow all of the store's keys and the commands +@all -@admin +info",
            ),
            "MAXCLIENTS" => (
                true,
                true,
                "takes no more connections",
                "raise its 'maxclients' or close others",
            ),
            "LOADING" => (true, false, "is loading its data", "wait until it has"),
            "MASTERDOWN" => (true, true, "has lost its primary", "bring the primary back"),
            "CLUSTERDOWN" => (
                true,
                false,
                "is a Cluster that does not serve all slots",
                "look at 'CLUSTER INFO' and bring the missing nodes back",
            ),
            "TRYAGAIN" => (true, false, "moves the slot right now", "wait until it has"),
            "BUSY" => (
                true,
                false,
                "is busy with a script",
                "wait, or end a foreign script with 'SCRIPT KILL'",
            ),
            _ => return None,
        };
        let error = Error::Refused {
            address: address.to_owned(),
            reason: format!("{reason} ({text})"),
            remedy,
        };
        Some(Self {
            error,
            passes,
            breaks,
        })
    }
}

/// Whether Redis does not know the script.
pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The error's own words on one line, with what the system said.
fn describe(error: &RedisError) -> String {
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_break_leave_the_outcome_open() {
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let sent = Failure::sending("r:1", &broken);
        assert!(matches!(sent.error, Error::Unknown { .. }) && sent.passes && sent.breaks);
        let made = Failure::connecting("r:1", &broken);
        assert!(matches!(made.error, Error::Unreachable { .. }) && made.passes);
        assert!(made.error.to_string().contains("r:1"), "{}", made.error);
    }
}
