//! A gRPC status as an HTTP answer: `google.rpc.Status` as JSON, with the HTTP status that fits.

use std::sync::LazyLock;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_api::error::{Error, Reason, code_name};
use percent_encoding::percent_decode;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::http::{GRPC_STATUS, http_status};

const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

/// `google.rpc`, so that details are written whatever they are.
static DETAILS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).ok());

/// gRPC pads or does not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: Status,
    /// Where the refusal is about HTTP itself.
    http: Option<StatusCode>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            status: error.into(),
            http: None,
        }
    }
}

/// A status as the answer to a plain HTTP request: JSON, with this HTTP status where the refusal is about HTTP itself, or else
/// the one that fits.
#[must_use]
pub fn refused(status: Status, http: Option<StatusCode>) -> Response {
    Refusal { status, http }.into_response()
}

/// A field of the request is at fault.
pub(super) fn field(name: &str, message: impl Into<String>) -> Refusal {
    Error::invalid_field(name, message).into()
}

/// The body did not come in: with the word of whoever has bounded its time, or as a field at fault.
pub(super) fn no_body(error: &axum::Error) -> Refusal {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(status) = current.downcast_ref::<Status>() {
            return Refusal {
                status: status.clone(),
                http: Some(StatusCode::REQUEST_TIMEOUT),
            };
        }
        source = current.source();
    }
    field("body", format!("was not received whole: {error}"))
}

/// The body is no JSON by its own word.
pub(super) fn no_json(content_type: &str) -> Refusal {
    let message =
        format!("the body is '{content_type}'; send JSON with the header `content-type: application/json`");
    Refusal {
        status: Error::invalid_field("content-type", message).into(),
        http: Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// `grpc-timeout` has passed.
pub(super) fn too_late() -> Refusal {
    Error::new(
        Reason::DeadlineExceeded,
        "the call took longer than `grpc-timeout` allows",
    )
    .into()
}

/// What the service answered is not what its contract says.
pub(super) fn defect(what: &str) -> Refusal {
    Error::new(Reason::Internal, what).into()
}

impl Refusal {
    /// The status in a head or in trailers; nothing where it is OK or not there.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = Code::from_bytes(headers.get(GRPC_STATUS)?.as_bytes());
        if code == Code::Ok {
            return None;
        }
        let message = headers
            .get(GRPC_MESSAGE)
            .map(|text| percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned())
            .unwrap_or_default();
        // Not `Status::from_header_map`: it panics at details that are no Base64.
        let details = headers
            .get(GRPC_DETAILS)
            .and_then(|text| BASE64.decode(text.as_bytes()).ok())
            .unwrap_or_default();
        Some(Self {
            status: Status::with_details(code, message, details.into()),
            http: None,
        })
    }

    /// The JSON object, and the status that goes with it.
    pub(super) fn json(&self) -> (StatusCode, Value) {
        let known = Error::from_status(&self.status);
        let number = known.map_or_else(
            || http_status(self.status.code()),
            |error| error.reason.http_status(),
        );
        let http = self
            .http
            .or_else(|| StatusCode::from_u16(number).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut error = json!({
            "code": http.as_u16(),
            "status": code_name(self.status.code()),
            "message": self.status.message(),
        });
        if let Some(details) = details(self.status.details()) {
            error["details"] = details;
        }
        (http, json!({ "error": error }))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (http, body) = self.json();
        let mut response = (http, Json(body)).into_response();
        let delay = Error::from_status(&self.status).and_then(|error| error.retry_after);
        if let Some(delay) = delay {
            response.headers_mut().insert(
                header::RETRY_AFTER,
                HeaderValue::from((delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)),
            );
        }
        response
    }
}

/// The details as ProtoJSON writes `Any`; nothing where they cannot be read.
fn details(encoded: &[u8]) -> Option<Value> {
    let status = DETAILS.as_ref()?.get_message_by_name("google.rpc.Status")?;
    let status = DynamicMessage::decode(status, encoded).ok()?;
    let mut status = serde_json::to_value(&status).ok()?;
    status.get_mut("details").map(Value::take)
}
