//! An agent's refusals over JSON bindings as statuses, with the details that they came with.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use muster_api::error::{DOMAIN, Reason};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::Failure;
use crate::ProtocolError;
use crate::error::DOMAIN_OF_A2A;

/// Longest text of an agent that is passed on.
const LONGEST: usize = 2_000;

/// An error of JSON-RPC.
pub(super) fn of_json_rpc(error: &Value) -> Status {
    let number = error.get("code").and_then(Value::as_i64).unwrap_or_default();
    let details = details(error.get("data"));
    let by_number = ProtocolError::ALL
        .iter()
        .copied()
        .find(|known| i64::from(known.number()) == number);
    let code = code_of(&details)
        .or_else(|| by_number.map(ProtocolError::code))
        .unwrap_or(match number {
            -32700 | -32600 | -32602 => Code::InvalidArgument,
            -32601 => Code::Unimplemented,
            _ => Code::Internal,
        });
    let details = match (details.error_info(), by_number) {
        // Says what the number says, where the agent says nothing else.
        (None, Some(known)) => named(details, known),
        _ => details,
    };
    Status::with_error_details(code, text(error.get("message")), details)
}

/// An answer that is no success, in the form of either binding or of none.
pub(super) fn of_answer(status: StatusCode, body: &[u8]) -> Status {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let error = value.as_ref().and_then(|value| value.get("error"));
    match error {
        Some(error) if value.as_ref().is_some_and(|value| value.get("jsonrpc").is_some()) => {
            of_json_rpc(error)
        }
        Some(error @ Value::Object(_)) => of_http_json(status, error),
        _ => {
            let said = String::from_utf8_lossy(body);
            let said: String = said.chars().take(LONGEST).collect();
            Status::new(
                code_of_http(status),
                format!("the agent answered {status}: {said}"),
            )
        }
    }
}

/// An event of HTTP+JSON, which may be the error that ends the stream.
pub(super) fn check(event: Value) -> Result<Value, Failure> {
    match event.get("error").filter(|error| error.is_object()) {
        Some(error) => {
            let status = error
                .get("code")
                .and_then(Value::as_u64)
                .and_then(|code| u16::try_from(code).ok())
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Failure::Refused(Box::new(of_http_json(status, error))))
        }
        None => Ok(event),
    }
}

fn of_http_json(status: StatusCode, error: &Value) -> Status {
    let details = details(error.get("details"));
    let code = code_of(&details)
        .or_else(|| error.get("status").and_then(Value::as_str).and_then(code_named))
        .unwrap_or_else(|| code_of_http(status));
    Status::with_error_details(code, text(error.get("message")), details)
}

fn text(value: Option<&Value>) -> String {
    let said = value.and_then(Value::as_str).unwrap_or("no reason given");
    said.chars().take(LONGEST).collect()
}

/// The code that belongs to the reason, where we know it.
fn code_of(details: &ErrorDetails) -> Option<Code> {
    let info = details.error_info()?;
    match info.domain.as_str() {
        DOMAIN_OF_A2A => ProtocolError::ALL
            .iter()
            .find(|known| known.reason() == info.reason)
            .map(|known| known.code()),
        DOMAIN => Reason::from_name(&info.reason).map(Reason::code),
        _ => None,
    }
}

fn named(mut details: ErrorDetails, known: ProtocolError) -> ErrorDetails {
    details.set_error_info(known.reason(), DOMAIN_OF_A2A, HashMap::new());
    details
}

/// The details that we know; others are left out.
fn details(given: Option<&Value>) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    for detail in given.and_then(Value::as_array).into_iter().flatten() {
        let kind = detail.get("@type").and_then(Value::as_str).unwrap_or_default();
        let text = |name: &str| {
            let value = detail.get(name).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        match kind.rsplit('/').next() {
            Some("google.rpc.ErrorInfo") => {
                let metadata: HashMap<String, String> = detail
                    .get("metadata")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                    .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                    .collect();
                details.set_error_info(text("reason"), text("domain"), metadata);
            }
            Some("google.rpc.BadRequest") => {
                let violations: Vec<FieldViolation> = detail
                    .get("fieldViolations")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .map(|violation| {
                        let text = |name: &str| {
                            let value = violation.get(name).and_then(Value::as_str);
                            value.unwrap_or_default().to_owned()
                        };
                        FieldViolation::new(text("field"), text("description"))
                    })
                    .collect();
                details.set_bad_request(violations);
            }
            Some("google.rpc.RetryInfo") => {
                let seconds = text("retryDelay")
                    .strip_suffix('s')
                    .and_then(|seconds| seconds.parse::<f64>().ok())
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                details.set_retry_info(seconds);
            }
            _ => {}
        }
    }
    details
}

fn code_named(name: &str) -> Option<Code> {
    (0..=16)
        .map(Code::from_i32)
        .find(|code| muster_api::error::code_name(*code) == name)
}

const fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 413 | 415 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        502 | 503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{http_json, json_rpc};
    use muster_api::error::Error;

    #[test]
    fn what_our_own_bindings_write_is_read_back() {
        let ours = Status::from(
            Error::new(Reason::AgentBusy, "busy")
                .with_field("message")
                .with_retry_after(Duration::from_millis(1500)),
        );
        let theirs = ProtocolError::TaskNotFound.status("no task 't'");
        for status in [ours, theirs] {
            let (http, body) = http_json(&status);
            let error = serde_json::to_value(json_rpc(&status)).unwrap();
            for read in [of_json_rpc(&error), of_answer(http, body.to_string().as_bytes())] {
                assert_eq!(read.code(), status.code());
                assert_eq!(read.message(), status.message());
                assert_eq!(Error::from_status(&read), Error::from_status(&status));
                assert_eq!(ProtocolError::of(&read), ProtocolError::of(&status));
            }
        }
    }

    #[test]
    fn a_bare_number_or_status_is_understood() {
        let bare = serde_json::json!({"code": -32002, "message": "it has ended"});
        let status = of_json_rpc(&bare);
        assert_eq!(ProtocolError::of(&status), Some(ProtocolError::TaskNotCancelable));
        let html = of_answer(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(html.code(), Code::Unavailable);
        let event = serde_json::json!({"error": {"code": 429, "message": "slow down"}});
        let Err(Failure::Refused(status)) = check(event) else {
            panic!("an error")
        };
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
}
