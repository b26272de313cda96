//! HTTP+JSON: a path and a method for each operation, errors as `google.rpc.Status` in JSON.

use hyper::Method;
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::exchange::{Pending, Response, send};
use super::{Answer, Code, Driver, Events, Operation, Outcome, Refusal};

/// Everything but the unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

pub async fn call(driver: &Driver, operation: Operation, params: Value) -> Outcome {
    let response = request(driver, operation, params, None).await.read().await;
    if !response.status.is_success() {
        return Err(refusal(&response));
    }
    let value = if response.body.is_empty() {
        Value::Null
    } else {
        response.json()
    };
    Ok(Answer {
        value,
        media_type: response.media_type(),
    })
}

pub async fn stream(
    driver: &Driver,
    operation: Operation,
    params: Value,
    method: Option<Method>,
) -> Result<Events, Refusal> {
    let pending = request(driver, operation, params, method).await;
    if pending.is_stream() {
        return Ok(pending.events(event));
    }
    Err(refusal(&pending.read().await))
}

/// The error of an answer, which has to be one.
pub fn refusal(response: &Response) -> Refusal {
    let status = response.status.as_u16();
    assert!(
        status >= 400,
        "no error but {status}: {}",
        String::from_utf8_lossy(&response.body)
    );
    // A proxy's or a framework's own answers have no such body; the number alone is the outcome then.
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let error = &body["error"];
    if let Some(code) = error["code"].as_u64() {
        assert_eq!(
            code,
            u64::from(status),
            "error.code repeats the HTTP status: {body}"
        );
    }
    Refusal {
        media_type: response.media_type(),
        ..read(error, status)
    }
}

/// An event of a stream, which may be an error.
fn event(value: Value) -> Result<Value, Refusal> {
    match value.get("error") {
        Some(error) => {
            let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            Err(read(error, status.unwrap_or(0)))
        }
        None => Ok(value),
    }
}

fn read(error: &Value, status: u16) -> Refusal {
    Refusal {
        code: Code::Http(status),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
        details: error["details"].as_array().cloned().unwrap_or_default(),
        media_type: String::new(),
    }
}

async fn request(driver: &Driver, operation: Operation, params: Value, method: Option<Method>) -> Pending {
    let Value::Object(mut params) = params else {
        panic!("parameters are an object")
    };
    let prefix = match params.remove("tenant") {
        Some(tenant) => format!("/{}", escaped(&tenant)),
        None => String::new(),
    };
    let (usual, path) = place(operation, &mut params);
    let method = method.unwrap_or(usual);
    let mut path = format!("{prefix}{path}");
    let mut headers = driver.headers.clone();
    let body = if method == Method::POST {
        headers.push(("content-type".to_owned(), "application/a2a+json".to_owned()));
        Value::Object(params).to_string().into()
    } else {
        let query: Vec<String> = params
            .iter()
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        Bytes::new()
    };
    let path = driver.url_path(&path);
    send(driver.address, method, &path, &headers, body).await
}

/// Method and path of an operation; what stands in the path is taken out of the parameters.
fn place(operation: Operation, params: &mut Map<String, Value>) -> (Method, String) {
    let mut part = |name: &str| {
        params
            .remove(name)
            .map(|value| escaped(&value))
            .unwrap_or_default()
    };
    match operation {
        Operation::SendMessage => (Method::POST, "/message:send".to_owned()),
        Operation::SendStreamingMessage => (Method::POST, "/message:stream".to_owned()),
        Operation::GetTask => (Method::GET, format!("/tasks/{}", part("id"))),
        Operation::ListTasks => (Method::GET, "/tasks".to_owned()),
        Operation::CancelTask => (Method::POST, format!("/tasks/{}:cancel", part("id"))),
        Operation::SubscribeToTask => (Method::GET, format!("/tasks/{}:subscribe", part("id"))),
        Operation::CreatePush => (
            Method::POST,
            format!("/tasks/{}/pushNotificationConfigs", part("taskId")),
        ),
        Operation::ListPush => (
            Method::GET,
            format!("/tasks/{}/pushNotificationConfigs", part("taskId")),
        ),
        Operation::GetPush | Operation::DeletePush => {
            let method = if operation == Operation::GetPush {
                Method::GET
            } else {
                Method::DELETE
            };
            let task = part("taskId");
            (
                method,
                format!("/tasks/{task}/pushNotificationConfigs/{}", part("id")),
            )
        }
        Operation::GetExtendedCard => (Method::GET, "/extendedAgentCard".to_owned()),
    }
}

fn escaped(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    utf8_percent_encode(&text, ESCAPED).to_string()
}
