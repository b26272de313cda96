//! The map of errors: A2A's own by name, and every status as JSON-RPC and as HTTP+JSON have it.
//!
//! JSON-RPC: a number, a message, and `data`, an array of `@type` objects with the same details that the gRPC status
//! carries. Numbers: A2A's own for A2A's errors, -32602 where the request is at fault, -32603 for everything else; the
//! `ErrorInfo` in `data` tells those apart. HTTP+JSON: `google.rpc.Status` as JSON below `error`, with the HTTP status in the
//! place of the code.

use std::collections::BTreeMap;
use std::time::Duration;

use a2a::JsonRpcError;
use a2a::errors::{error_code, reason_to_error_code};
use a2a::jsonrpc::methods;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use muster_api::error::{DOMAIN, Reason, code_name};
use prost::Message as _;
use prost_types::Any;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

/// `ErrorInfo.domain` of the errors that A2A itself defines.
pub const DOMAIN_OF_A2A: &str = "a2a-protocol.org";

macro_rules! protocol_errors {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $number:ident, $code:ident, $http:ident, $remedy:literal;)+) => {
        /// The errors that A2A 1.0 defines.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProtocolError {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ProtocolError {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// `ErrorInfo.reason`.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The JSON-RPC number.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self { $(Self::$variant => error_code::$number),+ }
            }

            /// The gRPC code.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code),+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn http_status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$http),+ }
            }

            /// What the caller can do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),+ }
            }

            fn from_reason(reason: &str) -> Option<Self> {
                match reason { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

protocol_errors! {
    /// The agent knows no task of that id.
    TaskNotFound = "TASK_NOT_FOUND", TASK_NOT_FOUND, NotFound, NOT_FOUND, "check the task id; tasks are forgotten after their retention";
    /// The task is in a state in which it cannot be cancelled.
    TaskNotCancelable = "TASK_NOT_CANCELABLE", TASK_NOT_CANCELABLE, FailedPrecondition, BAD_REQUEST, "read the task: it has ended";
    /// The agent pushes nothing.
    PushNotificationNotSupported = "PUSH_NOTIFICATION_NOT_SUPPORTED", PUSH_NOTIFICATION_NOT_SUPPORTED, FailedPrecondition, BAD_REQUEST, "follow the task with SubscribeToTask, or read it with GetTask";
    /// What is asked for cannot be done, here or now.
    UnsupportedOperation = "UNSUPPORTED_OPERATION", UNSUPPORTED_OPERATION, FailedPrecondition, BAD_REQUEST, "see the card's capabilities and the task's state";
    /// A media type is not taken.
    ContentTypeNotSupported = "CONTENT_TYPE_NOT_SUPPORTED", CONTENT_TYPE_NOT_SUPPORTED, InvalidArgument, BAD_REQUEST, "send one of the media types that the card lists";
    /// The agent answered with something that is not A2A.
    InvalidAgentResponse = "INVALID_AGENT_RESPONSE", INVALID_AGENT_RESPONSE, Internal, INTERNAL_SERVER_ERROR, "report it to the agent's owner";
    /// The agent has no extended card.
    ExtendedAgentCardNotConfigured = "EXTENDED_AGENT_CARD_NOT_CONFIGURED", EXTENDED_CARD_NOT_CONFIGURED, FailedPrecondition, BAD_REQUEST, "use the public card";
    /// The agent insists on an extension that the caller does not use.
    ExtensionSupportRequired = "EXTENSION_SUPPORT_REQUIRED", EXTENSION_SUPPORT_REQUIRED, FailedPrecondition, BAD_REQUEST, "name the extension in `A2A-Extensions`";
    /// The version is not spoken.
    VersionNotSupported = "VERSION_NOT_SUPPORTED", VERSION_NOT_SUPPORTED, FailedPrecondition, BAD_REQUEST, "send `A2A-Version: 1.0`";
}

impl ProtocolError {
    /// The error on its way, with the remedy.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        let metadata = [("remedy".to_owned(), self.remedy().to_owned())];
        let details = ErrorDetails::with_error_info(self.reason(), DOMAIN_OF_A2A, metadata);
        Status::with_error_details(self.code(), message, details)
    }

    /// Which of them a status is.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        Self::from_reason(&info.reason).filter(|_| info.domain == DOMAIN_OF_A2A)
    }
}

const TYPES: &str = "type.googleapis.com/";

/// The JSON-RPC error of a status, whoever made it.
#[must_use]
pub fn json_rpc(status: &Status) -> JsonRpcError {
    let read = Read::of(status);
    JsonRpcError {
        code: read.number,
        message: status.message().to_owned(),
        data: Some(Value::Array(read.details)),
    }
}

/// A status as HTTP+JSON has it, whoever made it: the HTTP status and the body.
#[must_use]
pub fn http_json(status: &Status) -> (StatusCode, Value) {
    let read = Read::of(status);
    let http = read.http;
    let body = json!({"error": {
        "code": http.as_u16(),
        "status": code_name(status.code()),
        "message": status.message(),
        "details": read.details,
    }});
    (http, body)
}

/// When trying again is worth it, in whole seconds as `Retry-After` has them; rounded up, so that nobody comes too early.
#[must_use]
pub fn retry_after(status: &Status) -> Option<u64> {
    let delay: Option<Duration> = status
        .get_details_retry_info()
        .and_then(|retry| retry.retry_delay);
    delay.map(|delay| (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1))
}

/// What a status says, read once.
struct Read {
    number: i32,
    http: StatusCode,
    details: Vec<Value>,
}

impl Read {
    fn of(status: &Status) -> Self {
        let details = pb::Status::decode(status.details())
            .map(|status| status.details)
            .unwrap_or_default();
        let mut details = details;
        // What says why comes first.
        details.sort_by_key(|detail| short(&detail.type_url) != "google.rpc.ErrorInfo");
        let info = details
            .first()
            .filter(|detail| short(&detail.type_url) == "google.rpc.ErrorInfo")
            .and_then(|detail| pb::ErrorInfo::decode(detail.value.as_slice()).ok());
        let known = info.as_ref().and_then(Known::of);
        let number = known.map_or_else(|| fallback(status.code()), Known::number);
        let http = known.map_or_else(|| fallback_http(status.code()), Known::http_status);
        let mut details: Vec<Value> = details.iter().map(detail).collect();
        if info.is_none() {
            // A2A wants an ErrorInfo on every error; this one only repeats what the number says.
            details.push(error_info(
                a2a::errors::error_reason(number),
                DOMAIN_OF_A2A,
                &BTreeMap::new(),
            ));
        }
        Self {
            number,
            http,
            details,
        }
    }
}

/// A reason that we know.
#[derive(Debug, Clone, Copy)]
enum Known {
    A2a(ProtocolError),
    /// Of A2A's, but with a number of JSON-RPC alone.
    Number(i32),
    Ours(Reason),
}

impl Known {
    fn of(info: &pb::ErrorInfo) -> Option<Self> {
        match info.domain.as_str() {
            DOMAIN_OF_A2A => ProtocolError::from_reason(&info.reason)
                .map(Self::A2a)
                .or_else(|| reason_to_error_code(&info.reason).map(Self::Number)),
            DOMAIN => Reason::from_name(&info.reason).map(Self::Ours),
            _ => None,
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::A2a(error) => error.number(),
            Self::Number(number) => number,
            Self::Ours(reason) => number_of_reason(reason),
        }
    }

    fn http_status(self) -> StatusCode {
        match self {
            Self::A2a(error) => error.http_status(),
            Self::Number(error_code::INTERNAL_ERROR) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Number(_) => StatusCode::BAD_REQUEST,
            Self::Ours(reason) => {
                StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// A body that is no JSON.
#[must_use]
pub(crate) fn no_json(error: &serde_json::Error) -> JsonRpcError {
    plain(error_code::PARSE_ERROR, format!("the body is no JSON: {error}"))
}

/// JSON that is no request.
#[must_use]
pub(crate) fn invalid_request(detail: &str) -> JsonRpcError {
    plain(
        error_code::INVALID_REQUEST,
        format!("not a JSON-RPC 2.0 request: {detail}"),
    )
}

/// A method that A2A 1.0 does not have.
#[must_use]
pub(crate) fn unknown_method(method: &str) -> JsonRpcError {
    let shown: String = method.chars().take(64).collect();
    let nearest = muster_api::names::suggestion(&shown, METHODS);
    plain(
        error_code::METHOD_NOT_FOUND,
        format!("A2A 1.0 has no method '{shown}'{nearest}"),
    )
}

const METHODS: [&str; 11] = [
    methods::SEND_MESSAGE,
    methods::SEND_STREAMING_MESSAGE,
    methods::GET_TASK,
    methods::LIST_TASKS,
    methods::CANCEL_TASK,
    methods::SUBSCRIBE_TO_TASK,
    methods::CREATE_PUSH_CONFIG,
    methods::GET_PUSH_CONFIG,
    methods::LIST_PUSH_CONFIGS,
    methods::DELETE_PUSH_CONFIG,
    methods::GET_EXTENDED_AGENT_CARD,
];

fn plain(code: i32, message: String) -> JsonRpcError {
    let info = error_info(a2a::errors::error_reason(code), DOMAIN_OF_A2A, &BTreeMap::new());
    JsonRpcError {
        code,
        message,
        data: Some(Value::Array(vec![info])),
    }
}

const fn number_of_reason(reason: Reason) -> i32 {
    match reason {
        Reason::InvalidField
        | Reason::InvalidPageToken
        | Reason::AgentNotFound
        | Reason::SkillNotFound
        | Reason::TargetMissing
        | Reason::MessageTooLarge
        | Reason::MessageIdReused
        | Reason::InvalidWorkflow => error_code::INVALID_PARAMS,
        Reason::TaskNotFound => error_code::TASK_NOT_FOUND,
        Reason::InvalidAgentResponse => error_code::INVALID_AGENT_RESPONSE,
        Reason::PathNotFound | Reason::MethodNotAllowed => error_code::UNSUPPORTED_OPERATION,
        // A2A leaves these to HTTP, and so to the status beside the number.
        Reason::Unauthenticated
        | Reason::PermissionDenied
        | Reason::PeerUnidentified
        | Reason::PeerRefused
        | Reason::LoginLimited
        | Reason::AuditUnavailable
        | Reason::LeaseNotFound
        | Reason::OwnerUnavailable
        | Reason::NodeFull
        | Reason::RegistryFull
        | Reason::AgentElsewhere
        | Reason::CardUnavailable
        | Reason::CredentialsMissing
        | Reason::ChangeNotFound
        | Reason::WatchOverrun
        | Reason::StreamStalled
        | Reason::NoInstanceAvailable
        | Reason::QueueFull
        | Reason::AgentOverloaded
        | Reason::RateLimited
        | Reason::QuotaExceeded
        | Reason::InboxFull
        | Reason::EntryNotFound
        | Reason::EntryState
        | Reason::EntryLeaseLost
        | Reason::TooManyAgents
        | Reason::AgentBusy
        | Reason::MessageExpired
        | Reason::DeadlineExceeded
        | Reason::AgentUnreachable
        | Reason::WorkflowNotFound
        | Reason::WorkflowVersionExists
        | Reason::RunNotFound
        | Reason::RunExists
        | Reason::RunEnded
        | Reason::ApprovalNotFound
        | Reason::ApprovalClosed
        | Reason::RunActive
        | Reason::RunNotRetryable
        | Reason::RunErased
        | Reason::TooManyRuns
        | Reason::ScheduleNotFound
        | Reason::TooManySchedules
        | Reason::BackupRunning
        | Reason::BackupStalled
        | Reason::BackupElsewhere
        | Reason::StoreUnavailable
        | Reason::AnswerNotKept
        | Reason::AnswersFull
        | Reason::ShuttingDown
        | Reason::DependencyUnavailable
        | Reason::Internal => error_code::INTERNAL_ERROR,
    }
}

/// For an error without a reason that is known.
const fn fallback(code: Code) -> i32 {
    match code {
        Code::NotFound => error_code::TASK_NOT_FOUND,
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => error_code::INVALID_PARAMS,
        Code::FailedPrecondition | Code::Unimplemented => error_code::UNSUPPORTED_OPERATION,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => error_code::INTERNAL_ERROR,
    }
}

/// The HTTP status for an error without a reason that is known, as `google.rpc.Code` maps them.
const fn fallback_http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn short(type_url: &str) -> &str {
    type_url.strip_prefix(TYPES).unwrap_or(type_url)
}

/// One detail as ProtoJSON has `Any`: its fields beside `@type`. A type that is not known keeps its bytes.
fn detail(any: &Any) -> Value {
    let known = match short(&any.type_url) {
        "google.rpc.ErrorInfo" => pb::ErrorInfo::decode(any.value.as_slice())
            .ok()
            .map(|info| error_info(&info.reason, &info.domain, &info.metadata.into_iter().collect())),
        "google.rpc.BadRequest" => pb::BadRequest::decode(any.value.as_slice())
            .ok()
            .map(|bad| bad_request(&bad)),
        "google.rpc.RetryInfo" => pb::RetryInfo::decode(any.value.as_slice()).ok().map(|retry| {
            let delay = retry.retry_delay.unwrap_or_default();
            let seconds = f64::from(delay.nanos) / 1e9;
            #[expect(clippy::cast_precision_loss, reason = "delays are far below 2^53 seconds")]
            let seconds = delay.seconds as f64 + seconds;
            json!({"@type": format!("{TYPES}google.rpc.RetryInfo"), "retryDelay": format!("{seconds}s")})
        }),
        _ => None,
    };
    known.unwrap_or_else(|| json!({"@type": any.type_url, "value": BASE64_STANDARD.encode(&any.value)}))
}

fn error_info(reason: &str, domain: &str, metadata: &BTreeMap<String, String>) -> Value {
    json!({
        "@type": format!("{TYPES}google.rpc.ErrorInfo"),
        "reason": reason,
        "domain": domain,
        "metadata": metadata,
    })
}

fn bad_request(bad: &pb::BadRequest) -> Value {
    let violations: Vec<Value> = bad
        .field_violations
        .iter()
        .map(|violation| json!({"field": violation.field, "description": violation.description}))
        .collect();
    json!({"@type": format!("{TYPES}google.rpc.BadRequest"), "fieldViolations": violations})
}

#[cfg(test)]
mod tests {
    use muster_api::error::Error;

    use super::*;

    #[test]
    fn our_errors_keep_their_reason_details_and_remedy() {
        let status =
            Status::from(Error::new(Reason::QueueFull, "full").with_retry_after(Duration::from_millis(1500)));
        let error = json_rpc(&status);
        assert_eq!(error.code, error_code::INTERNAL_ERROR);
        let data = error.data.unwrap();
        let info = data
            .as_array()
            .unwrap()
            .iter()
            .find(|detail| detail["reason"] == "QUEUE_FULL")
            .unwrap();
        assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(info["domain"], "muster");
        assert!(info["metadata"]["remedy"].is_string());
        assert!(
            data.as_array()
                .unwrap()
                .iter()
                .any(|detail| detail["retryDelay"] == "1.5s")
        );
        let (http, body) = http_json(&status);
        assert_eq!(http, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
        assert_eq!(body["error"]["details"], data);
        assert_eq!(retry_after(&status), Some(2));
    }

    #[test]
    fn errors_of_a2a_have_its_numbers_codes_and_statuses() {
        let expected = [
            (-32001, Code::NotFound, 404),
            (-32002, Code::FailedPrecondition, 400),
            (-32003, Code::FailedPrecondition, 400),
            (-32004, Code::FailedPrecondition, 400),
            (-32005, Code::InvalidArgument, 400),
            (-32006, Code::Internal, 500),
            (-32007, Code::FailedPrecondition, 400),
            (-32008, Code::FailedPrecondition, 400),
            (-32009, Code::FailedPrecondition, 400),
        ];
        for (&error, (number, code, http)) in ProtocolError::ALL.iter().zip(expected) {
            let status = error.status("what happened");
            assert_eq!(ProtocolError::of(&status), Some(error));
            assert_eq!(status.code(), code);
            let rpc = json_rpc(&status);
            assert_eq!(rpc.code, number);
            assert_eq!(rpc.data.unwrap()[0]["domain"], DOMAIN_OF_A2A);
            assert_eq!(http_json(&status).0.as_u16(), http);
            assert_eq!(reason_to_error_code(error.reason()), Some(number));
        }
    }

    #[test]
    fn an_agents_bare_status_gets_a_number_and_an_error_info() {
        let error = json_rpc(&Status::failed_precondition("the task is over"));
        assert_eq!(error.code, error_code::UNSUPPORTED_OPERATION);
        assert_eq!(error.message, "the task is over");
        assert_eq!(error.data.unwrap()[0]["domain"], DOMAIN_OF_A2A);
    }

    #[test]
    fn a_detail_of_an_unknown_type_keeps_its_bytes() {
        let any = Any {
            type_url: "type.googleapis.com/agent.Detail".to_owned(),
            value: vec![1, 2, 3],
        };
        assert_eq!(
            detail(&any),
            json!({"@type": "type.googleapis.com/agent.Detail", "value": "AQID"})
        );
    }

    #[test]
    fn an_unknown_method_names_the_nearest() {
        assert!(
            unknown_method("SendMesage")
                .message
                .contains("did you mean 'SendMessage'")
        );
    }
}
