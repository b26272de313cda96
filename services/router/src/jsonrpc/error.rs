//! Errors as JSON-RPC has them: a number, a message, and `data`, an array of `@type` objects with the same details
//! that the gRPC status carries.
//!
//! Numbers: A2A's own for A2A's errors, -32602 where the request is at fault, -32603 for everything else; the
//! `ErrorInfo` in `data` tells those apart.

use std::collections::BTreeMap;

use a2a::JsonRpcError;
use a2a::errors::{error_code, reason_to_error_code};
use a2a::jsonrpc::methods;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use muster_api::error::{DOMAIN, Reason};
use prost::Message as _;
use prost_types::Any;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::pb;

use crate::grpc::A2A_DOMAIN;

const TYPES: &str = "type.googleapis.com/";

/// The JSON-RPC error of a status, whoever made it.
#[must_use]
pub fn of(status: &Status) -> JsonRpcError {
    let details = pb::Status::decode(status.details())
        .map(|status| status.details)
        .unwrap_or_default();
    let info = details
        .iter()
        .find(|detail| short(&detail.type_url) == "google.rpc.ErrorInfo")
        .and_then(|detail| pb::ErrorInfo::decode(detail.value.as_slice()).ok());
    let number = info
        .as_ref()
        .and_then(number_of)
        .unwrap_or_else(|| fallback(status.code()));
    let mut data: Vec<Value> = details.iter().map(detail).collect();
    if info.is_none() {
        // A2A wants an ErrorInfo on every error; this one only repeats what the number says.
        data.push(error_info(
            a2a::errors::error_reason(number),
            A2A_DOMAIN,
            &BTreeMap::new(),
        ));
    }
    JsonRpcError {
        code: number,
        message: status.message().to_owned(),
        data: Some(Value::Array(data)),
    }
}

/// A body that is no JSON.
#[must_use]
pub fn no_json(error: &serde_json::Error) -> JsonRpcError {
    plain(error_code::PARSE_ERROR, format!("the body is no JSON: {error}"))
}

/// JSON that is no request.
#[must_use]
pub fn invalid_request(detail: &str) -> JsonRpcError {
    plain(
        error_code::INVALID_REQUEST,
        format!("not a JSON-RPC 2.0 request: {detail}"),
    )
}

/// Parameters that are not those of the method.
#[must_use]
pub fn invalid_params(detail: &str) -> JsonRpcError {
    plain(error_code::INVALID_PARAMS, format!("invalid params: {detail}"))
}

/// A method that A2A 1.0 does not have.
#[must_use]
pub fn unknown_method(method: &str) -> JsonRpcError {
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
    let info = error_info(a2a::errors::error_reason(code), A2A_DOMAIN, &BTreeMap::new());
    JsonRpcError {
        code,
        message,
        data: Some(Value::Array(vec![info])),
    }
}

fn number_of(info: &pb::ErrorInfo) -> Option<i32> {
    match info.domain.as_str() {
        A2A_DOMAIN => reason_to_error_code(&info.reason),
        DOMAIN => Reason::from_name(&info.reason).map(number_of_reason),
        _ => None,
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
        Reason::LeaseNotFound
        | Reason::OwnerUnavailable
        | Reason::NodeFull
        | Reason::RegistryFull
        | Reason::WatchOverrun
        | Reason::StreamStalled
        | Reason::NoInstanceAvailable
        | Reason::QueueFull
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
    use std::time::Duration;

    use muster_api::error::Error as ApiError;

    use super::*;
    use crate::error::Error;

    #[test]
    fn our_errors_keep_their_reason_details_and_remedy() {
        let status = Status::from(
            ApiError::new(Reason::QueueFull, "full").with_retry_after(Duration::from_millis(1500)),
        );
        let error = of(&status);
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
    }

    #[test]
    fn errors_of_a2a_have_its_numbers() {
        let version = Status::from(Error::VersionNotSupported {
            version: "0.3".to_owned(),
        });
        assert_eq!(of(&version).code, -32009);
        assert_eq!(
            of(&Status::from(Error::UnknownTask { task: "t".to_owned() })).code,
            -32001
        );
    }

    #[test]
    fn an_agents_bare_status_gets_a_number_and_an_error_info() {
        let error = of(&Status::failed_precondition("the task is over"));
        assert_eq!(error.code, error_code::UNSUPPORTED_OPERATION);
        assert_eq!(error.message, "the task is over");
        assert_eq!(error.data.unwrap()[0]["domain"], A2A_DOMAIN);
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
