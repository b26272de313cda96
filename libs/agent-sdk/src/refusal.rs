//! Muster's typed errors inside A2A's.
//!
//! The official error type knows A2A's own codes only. A refusal of ours (overload, size, shutdown) travels through
//! the official handlers as an [`A2AError`] with a code of its own and complete `google.rpc` details, and each binding
//! turns it back into what a client of that binding expects.

use a2a::{A2AError, FieldViolation, TypedDetail, errordetails};
use muster_api::error::{DOMAIN, Error, Reason};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tonic::Status;

/// JSON-RPC code of every refusal with a reason of Muster's catalogue, from the range for implementations.
pub(crate) const CODE: i32 = -32000;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

tokio::task_local! {
    /// The refusal of the HTTP request that this task serves.
    static OBSERVED: Mutex<Option<Error>>;
}

/// Runs a request and gives its answer together with the refusal that it met. The HTTP bindings need it, because
/// their official routers forget the details of errors that are not A2A's own.
pub(crate) async fn observed<T>(request: impl Future<Output = T>) -> (T, Option<Error>) {
    OBSERVED
        .scope(Mutex::new(None), async {
            let answer = request.await;
            (answer, OBSERVED.with(|refused| refused.lock().take()))
        })
        .await
}

/// The refusal on its way through the official handlers.
pub(crate) fn to_a2a(error: &Error) -> A2AError {
    // Fails outside an HTTP request, where nobody observes.
    let _ = OBSERVED.try_with(|refused| *refused.lock() = Some(error.clone()));
    A2AError::new(CODE, error.message.clone()).with_details(details(error))
}

/// The `google.rpc` details of a refusal, as JSON bindings carry them.
pub(crate) fn details(error: &Error) -> Vec<TypedDetail> {
    let mut metadata = error.metadata.clone();
    metadata.insert("remedy".to_owned(), error.reason.remedy().to_owned());
    let mut details = vec![TypedDetail::error_info(
        error.reason.name(),
        DOMAIN,
        Some(metadata),
    )];
    if let Some(field) = &error.field {
        details.push(TypedDetail::bad_request(vec![FieldViolation {
            field: field.clone(),
            description: error.message.clone(),
        }]));
    }
    if let Some(delay) = error.retry_after {
        let delay = json!(format!("{}s", delay.as_secs_f64()));
        details.push(TypedDetail::new(
            RETRY_INFO,
            [("retryDelay".to_owned(), delay)].into(),
        ));
    }
    details
}

/// A field of an A2A request is missing or malformed: an A2A error, because A2A has a code for it.
pub(crate) fn invalid_field(field: &str, message: &str) -> A2AError {
    A2AError::invalid_params(format!("{field}: {message}")).with_details(vec![TypedDetail::bad_request(
        vec![FieldViolation {
            field: field.to_owned(),
            description: message.to_owned(),
        }],
    )])
}

/// The only map from errors to gRPC statuses: ours with our details, A2A's own as the official crate maps them.
pub(crate) fn to_status(error: &A2AError) -> Status {
    from_a2a(error).map_or_else(|| a2a_grpc::errors::a2a_error_to_status(error), Status::from)
}

/// The refusal that an A2A error carries.
pub(crate) fn from_a2a(error: &A2AError) -> Option<Error> {
    let details = error.details.as_deref().filter(|_| error.code == CODE)?;
    let detail = |url: &str| details.iter().find(|detail| detail.type_url == url);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);

    let info = detail(errordetails::ERROR_INFO_TYPE)?;
    let reason = Reason::from_name(info.value.get("reason")?.as_str()?)?;
    let mut restored = Error::new(reason, error.message.clone());
    restored.field = detail(errordetails::BAD_REQUEST_TYPE)
        .and_then(|bad| text(bad.value.get("fieldViolations")?.pointer("/0/field")));
    restored.retry_after = detail(RETRY_INFO)
        .and_then(|retry| text(retry.value.get("retryDelay")))
        .and_then(|delay| delay.strip_suffix('s')?.parse().ok())
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
    for (key, value) in info
        .value
        .get("metadata")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if let Some(value) = value.as_str().filter(|_| key != "remedy") {
            restored.metadata.insert(key.clone(), value.to_owned());
        }
    }
    Some(restored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tonic::Code;

    #[test]
    fn every_reason_survives_the_official_handlers() {
        for &reason in Reason::ALL {
            let error = Error::new(reason, "what happened")
                .with_field("message")
                .with_retry_after(Duration::from_millis(1500))
                .with_metadata("limit", "16");
            let carried = to_a2a(&error);
            assert_eq!(from_a2a(&carried), Some(error.clone()));
            let status = to_status(&carried);
            assert_eq!(status.code(), reason.code());
            assert_eq!(Error::from_status(&status), Some(error));
        }
    }

    #[test]
    fn a2as_own_errors_keep_their_mapping() {
        let status = to_status(&A2AError::task_not_found("t1"));
        assert_eq!(status.code(), Code::NotFound);
        let status = to_status(&invalid_field("message.parts", "is empty"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(from_a2a(&A2AError::new(CODE, "no details")).is_none());
    }
}
