//! The catalogue of errors: one stable reason for each thing that can go wrong, with its gRPC code, its HTTP
//! status and what to do about it.
//!
//! Every error that crosses the wire carries `google.rpc.ErrorInfo` with the reason in `UPPER_SNAKE` and the
//! domain [`DOMAIN`]; where a field is at fault also `BadRequest`, where waiting helps also `RetryInfo`. Domain
//! enums convert into [`Error`] in each service's `grpc.rs`, exhaustively; nothing else makes a `Status`.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of all our errors.
pub const DOMAIN: &str = "muster";

macro_rules! catalogue {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $code:ident, $http:literal, $remedy:literal;)+) => {
        /// Why a request was refused or failed. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the catalogue's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable `UPPER_SNAKE` name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The gRPC code.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code),+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http),+ }
            }

            /// What the caller can do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),+ }
            }

            /// The reason of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

catalogue! {
    /// A field of the request is missing or malformed.
    InvalidField = "INVALID_FIELD", InvalidArgument, 400, "correct the named field and send the request again";
    /// The caller could not say who it is.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, 401, "send a bearer token that is valid here (`--token`, `MUSTER_TOKEN`); `muster token inspect` shows what a token says";
    /// The caller may not do that.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied, 403, "ask an operator for a role or a grant that allows it";
    /// Too many tokens from one address were refused.
    LoginLimited = "LOGIN_LIMITED", ResourceExhausted, 429, "correct the token and try again after the given delay, or raise `trust.tokens.max_failures_per_minute`";
    /// What must be in the audit log cannot be written there.
    AuditUnavailable = "AUDIT_UNAVAILABLE", Unavailable, 503, "make room on the disk of `trust.audit.directory`; changes are refused until the log can be written";
    /// Nothing is served at that path.
    PathNotFound = "PATH_NOT_FOUND", NotFound, 404, "list the methods by gRPC reflection; the paths of plain HTTP are in the `google.api.http` rules of `proto/`";
    /// The path has other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", Unimplemented, 405, "use a method that the header `allow` lists";
    /// The service that calls has not proven who it is.
    PeerUnidentified = "PEER_UNIDENTIFIED", Unauthenticated, 401, "call through the mesh's sidecar, so that a proxy of `trust.mesh.trusted_proxies` names the calling service";
    /// The service that calls may not.
    PeerRefused = "PEER_REFUSED", PermissionDenied, 403, "call as a service that may, or let the operator name it in `trust.identities` or `trust.callers`";
    /// A page token is not one that this service made.
    InvalidPageToken = "INVALID_PAGE_TOKEN", InvalidArgument, 400, "start again without a page token";
    /// No live agent has that id.
    AgentNotFound = "AGENT_NOT_FOUND", NotFound, 404, "list the agents with `muster agents list`";
    /// Another region's registry keeps the agent.
    AgentElsewhere = "AGENT_ELSEWHERE", FailedPrecondition, 409, "ask the registry of the agent's region, which the metadata `registry_url` names";
    /// No live agent has that skill.
    SkillNotFound = "SKILL_NOT_FOUND", NotFound, 404, "list the skills with `muster agents list`";
    /// The lease has ended or was replaced.
    LeaseNotFound = "LEASE_NOT_FOUND", NotFound, 404, "register again";
    /// The node holds as many instances as it may.
    NodeFull = "NODE_FULL", ResourceExhausted, 429, "use another node or raise `registry.max_agents_per_node`";
    /// The registry holds as many instances as it may.
    RegistryFull = "REGISTRY_FULL", ResourceExhausted, 429, "stop instances that are not needed, or raise `registry.max_instances`";
    /// An agent does not serve its card.
    CardUnavailable = "CARD_UNAVAILABLE", FailedPrecondition, 409, "see that the agent serves its card at that URL, and that `registry.outbound.allow` admits its address; `muster agents register --keep` registers what the registry cannot reach";
    /// No change of the optimiser with that number is in force.
    ChangeNotFound = "CHANGE_NOT_FOUND", NotFound, 404, "list the changes with `muster optimize report`; what was taken back or forgotten cannot be taken back again";
    /// A watcher reads too slowly.
    WatchOverrun = "WATCH_OVERRUN", ResourceExhausted, 429, "watch again; the stream starts with a snapshot";
    /// The caller of a stream read nothing for too long.
    StreamStalled = "STREAM_STALLED", ResourceExhausted, 429, "follow the task again and read steadily, or raise `router.stream_stall_seconds`";
    /// The request names no target.
    TargetMissing = "TARGET_MISSING", InvalidArgument, 400, "name an agent id or `skill:SKILL` as tenant, path or `muster-target`";
    /// The agent exists, but no instance takes work now.
    NoInstanceAvailable = "NO_INSTANCE_AVAILABLE", Unavailable, 503, "try again after the given delay, or start another instance";
    /// More work comes for the agent than it does.
    AgentOverloaded = "AGENT_OVERLOADED", ResourceExhausted, 429, "try again after the given delay, or run more instances of the agent";
    /// The queue is full.
    QueueFull = "QUEUE_FULL", ResourceExhausted, 429, "try again after the given delay, or raise `router.message_queue_size`";
    /// The caller has made as many requests as it may.
    RateLimited = "RATE_LIMITED", ResourceExhausted, 429, "try again after the given delay, and make fewer requests; `router.api_rate_limit` says how many a caller may make a minute";
    /// The agent takes no more messages for now.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted, 429, "try again after the given delay, or raise the agent's quota, in its card or in `router.quotas`";
    /// The instance runs as many tasks as it may.
    AgentBusy = "AGENT_BUSY", ResourceExhausted, 429, "try again after the given delay, start another instance, or raise `agent.max_concurrent_tasks`";
    /// The message's time to live had passed before it reached an agent.
    MessageExpired = "MESSAGE_EXPIRED", DeadlineExceeded, 504, "send it again with a longer ttl";
    /// The caller's deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, 504, "allow more time, or send with `return_immediately` and read the task later";
    /// The message is larger than allowed.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted, 413, "send less, or pass a reference in place of the content";
    /// The agent could not be reached or broke off.
    AgentUnreachable = "AGENT_UNREACHABLE", Unavailable, 503, "try again where the metadata `safe_to_retry` says `true`; elsewhere see first, with the task, what was done";
    /// The agent asks for credentials that nobody has given.
    CredentialsMissing = "CREDENTIALS_MISSING", FailedPrecondition, 409, "put what the agent's card asks for below `router.credentials.directory`, as the message says";
    /// The agent answered with something that is not A2A.
    InvalidAgentResponse = "INVALID_AGENT_RESPONSE", Internal, 502, "report it to the agent's owner";
    /// No agent is known to own that task.
    TaskNotFound = "TASK_NOT_FOUND", NotFound, 404, "check the task id; tasks are forgotten after their retention";
    /// The message id was used before with another body.
    MessageIdReused = "MESSAGE_ID_REUSED", AlreadyExists, 409, "use a new message id for a new message";
    /// The message was answered before, but the answer was too large to be kept.
    AnswerNotKept = "ANSWER_NOT_KEPT", FailedPrecondition, 409, "read what was done from the agent, or raise `router.deduplication_durable_answer_bytes` so that such answers are kept";
    /// No more durable answers are kept.
    AnswersFull = "ANSWERS_FULL", ResourceExhausted, 429, "try again after the given delay, raise `router.deduplication_durable_entries` or `router.deduplication_durable_bytes`, or send without `durable`";
    /// The inbox holds as many messages as it may.
    InboxFull = "INBOX_FULL", ResourceExhausted, 429, "try again after the given delay, start agents that take the target's messages, or raise `router.inbox.max_entries`";
    /// The inbox has no such entry.
    EntryNotFound = "ENTRY_NOT_FOUND", NotFound, 404, "list the entries with `muster inbox list`; ended ones are forgotten after their retention";
    /// The entry is in another state.
    EntryState = "ENTRY_STATE", FailedPrecondition, 409, "see its state with `muster inbox get`";
    /// The lease of the entry is somebody else's, or has ended with it.
    EntryLeaseLost = "ENTRY_LEASE_LOST", FailedPrecondition, 409, "drop it: the entry has ended or is somebody else's; receive again, and extend leases in time";
    /// More agents have the skill than one broadcast may reach.
    TooManyAgents = "TOO_MANY_AGENTS", ResourceExhausted, 429, "name a skill that fewer agents have, or raise `router.inbox.max_broadcast_agents`";
    /// The document is not a valid workflow.
    InvalidWorkflow = "INVALID_WORKFLOW", InvalidArgument, 400, "correct the listed places; `muster workflow validate` checks without running";
    /// The catalogue has no such workflow.
    WorkflowNotFound = "WORKFLOW_NOT_FOUND", NotFound, 404, "list the catalogue with `muster workflow list`";
    /// Another document has the same namespace, name and version.
    WorkflowVersionExists = "WORKFLOW_VERSION_EXISTS", AlreadyExists, 409, "raise `document.version`";
    /// There is no such run.
    RunNotFound = "RUN_NOT_FOUND", NotFound, 404, "list the runs with `muster workflow runs`";
    /// A run with that id exists and differs.
    RunExists = "RUN_EXISTS", AlreadyExists, 409, "use another run id";
    /// The run has ended.
    RunEnded = "RUN_ENDED", FailedPrecondition, 409, "retry or fork the run, or start a new one";
    /// The run has not ended.
    RunActive = "RUN_ACTIVE", FailedPrecondition, 409, "wait for its end, or cancel or terminate it";
    /// The run cannot go on from there.
    RunNotRetryable = "RUN_NOT_RETRYABLE", FailedPrecondition, 409, "fork the run from the step that is to run again";
    /// What was said in the run was erased.
    RunErased = "RUN_ERASED", FailedPrecondition, 409, "start a new run with its input";
    /// There is no such approval.
    ApprovalNotFound = "APPROVAL_NOT_FOUND", NotFound, 404, "list what is open with `muster approval list`";
    /// The approval was closed, and not as is wanted.
    ApprovalClosed = "APPROVAL_CLOSED", FailedPrecondition, 409, "see how it was closed with `muster approval show`";
    /// Too many runs are queued.
    TooManyRuns = "TOO_MANY_RUNS", ResourceExhausted, 429, "try again when runs have ended, or raise `max_queued_runs` of `engine`, or of `engine.namespaces.NAME` where the namespace has a limit of its own";
    /// The workflow has no schedule.
    ScheduleNotFound = "SCHEDULE_NOT_FOUND", NotFound, 404, "list the schedules with `muster schedule list`; `schedule` in a document makes one when it is applied";
    /// There are as many schedules as may be.
    TooManySchedules = "TOO_MANY_SCHEDULES", ResourceExhausted, 429, "apply a newer version without `schedule` of a workflow that needs none";
    /// A backup is being taken.
    BackupRunning = "BACKUP_RUNNING", ResourceExhausted, 429, "try again when the other backup has ended";
    /// Nobody took a backup's bytes.
    BackupStalled = "BACKUP_STALLED", Aborted, 409, "write the backup to a disk, or over a network, that takes it without long pauses";
    /// The store is not the service's own.
    BackupElsewhere = "BACKUP_ELSEWHERE", FailedPrecondition, 409, "back up Redis itself: copy its append-only files, or a snapshot made with `redis-cli --rdb FILE`";
    /// The store cannot write.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable, 503, "see the service's log: disk full, damaged file or lost store";
    /// Nobody works on it at this moment.
    OwnerUnavailable = "OWNER_UNAVAILABLE", Unavailable, 503, "try again: another replica takes over within seconds; if none does, see whether enough of them run";
    /// The service is shutting down.
    ShuttingDown = "SHUTTING_DOWN", Unavailable, 503, "try again; another replica or the restarted service answers";
    /// A dependency does not answer.
    DependencyUnavailable = "DEPENDENCY_UNAVAILABLE", Unavailable, 503, "check the named service with `muster status`";
    /// A defect of ours.
    Internal = "INTERNAL", Internal, 500, "report it with the time and the service's log";
}

/// An error ready for the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Why.
    pub reason: Reason,
    /// What happened this time, in a sentence.
    pub message: String,
    /// Path of the field at fault.
    pub field: Option<String>,
    /// When trying again is worth it.
    pub retry_after: Option<Duration>,
    /// More facts for programs (`ErrorInfo.metadata`).
    pub metadata: HashMap<String, String>,
}

impl Error {
    /// An error with a message for people.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: None,
            retry_after: None,
            metadata: HashMap::new(),
        }
    }

    /// A field of the request is at fault; `message` says what is wrong and what is allowed.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = field.into();
        Self {
            message: format!("{field}: {}", message.into()),
            field: Some(field),
            ..Self::new(Reason::InvalidField, "")
        }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when trying again is worth it.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Reads an error back from a status that one of our services made; `None` for anybody else's.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let mut metadata = info.metadata.clone();
        metadata.remove("remedy");
        Some(Self {
            reason: Reason::from_name(&info.reason)?,
            message: status.message().to_owned(),
            field: details
                .bad_request()
                .and_then(|bad| bad.field_violations.first())
                .map(|violation| violation.field.clone()),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            metadata,
        })
    }
}

/// As `google.rpc.Code` names it.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Longest message, in bytes. It goes out twice, in headers that most clients bound to 16 KiB together, and what a caller sent is
/// repeated in it.
const LONGEST_MESSAGE: usize = 2_000;

/// Longest fact for programs, in bytes.
const LONGEST_FACT: usize = 500;

/// The text, cut where it is too long.
fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = shortened(error.message, LONGEST_MESSAGE);
        let mut metadata: HashMap<String, String> = error
            .metadata
            .into_iter()
            .map(|(key, value)| (key, shortened(value, LONGEST_FACT)))
            .collect();
        metadata.insert("remedy".to_owned(), error.reason.remedy().to_owned());
        let mut details = ErrorDetails::with_error_info(error.reason.name(), DOMAIN, metadata);
        if let Some(field) = error.field {
            details.add_bad_request_violation(field, message.clone());
        }
        if let Some(delay) = error.retry_after {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(error.reason.code(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for &reason in Reason::ALL {
            let error = Error::new(reason, "what happened")
                .with_field("instance.endpoint")
                .with_retry_after(Duration::from_secs(2))
                .with_metadata("nearest", "weather");
            let status = Status::from(error.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Error::from_status(&status), Some(error));
        }
    }

    #[test]
    fn what_a_caller_sent_does_not_make_an_error_too_long_to_be_read() {
        let error =
            Error::invalid_field("from", "é".repeat(5_000)).with_metadata("nearest", "x".repeat(5_000));
        let status = Status::from(error);
        assert!(status.message().len() <= LONGEST_MESSAGE + 3 && status.message().ends_with('…'));
        let read = Error::from_status(&status).unwrap();
        assert!(read.metadata["nearest"].len() <= LONGEST_FACT + 3);
    }

    #[test]
    fn names_are_unique_and_upper_snake() {
        let names: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        );
    }

    #[test]
    fn a_foreign_status_is_not_ours() {
        assert_eq!(Error::from_status(&Status::not_found("elsewhere")), None);
    }
}
