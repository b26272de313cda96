//! JSON-RPC 2.0: one POST to the interface's URL, the method in the envelope, streams as server-sent events.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::exchange::{Pending, Response, send};
use super::{Answer, Code, Driver, Events, Operation, Outcome, Refusal, rest};

/// The envelope's id, which has to come back; a text, because not all ids are numbers.
const ID: &str = "call-7";

pub async fn call(driver: &Driver, operation: Operation, params: &Value) -> Outcome {
    let response = post(driver, operation.method(), params).await.read().await;
    if is_refused_before(&response) {
        return Err(rest::refusal(&response));
    }
    let media_type = response.media_type();
    match open(response.json()) {
        Ok(value) => Ok(Answer { value, media_type }),
        Err(refusal) => Err(Refusal {
            media_type,
            ..refusal
        }),
    }
}

pub async fn stream(driver: &Driver, operation: Operation, params: &Value) -> Result<Events, Refusal> {
    let pending = post(driver, operation.method(), params).await;
    if pending.is_stream() {
        return Ok(pending.events(open));
    }
    let response = pending.read().await;
    if is_refused_before(&response) {
        return Err(rest::refusal(&response));
    }
    Err(refusal(&response))
}

/// Whether nobody has looked for an envelope, because who calls is not known, or may not call at all.
fn is_refused_before(response: &Response) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status)
}

pub async fn call_named(driver: &Driver, method: &str) -> Result<(), Refusal> {
    let response = post(driver, method, &json!({})).await.read().await;
    open(response.json()).map(drop)
}

/// The error of an answer, which has to be one.
pub fn refusal(response: &Response) -> Refusal {
    let envelope = response.json();
    Refusal {
        media_type: response.media_type(),
        ..error_in(&envelope).unwrap_or_else(|| panic!("no error but {envelope}"))
    }
}

async fn post(driver: &Driver, method: &str, params: &Value) -> Pending {
    let body = json!({ "jsonrpc": "2.0", "id": ID, "method": method, "params": params });
    let mut headers = driver.headers.clone();
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    let path = driver.url_path("");
    send(
        driver.address,
        Method::POST,
        &path,
        &headers,
        body.to_string().into(),
    )
    .await
}

/// What is in an envelope of ours.
fn open(envelope: Value) -> Result<Value, Refusal> {
    assert_eq!(
        envelope["jsonrpc"], "2.0",
        "every answer is a JSON-RPC 2.0 envelope: {envelope}"
    );
    assert_eq!(
        envelope["id"], ID,
        "every answer has the id of its request: {envelope}"
    );
    match error_in(&envelope) {
        Some(refusal) => Err(refusal),
        None => {
            let Value::Object(mut fields) = envelope else {
                panic!("no envelope")
            };
            Ok(fields
                .remove("result")
                .unwrap_or_else(|| panic!("neither result nor error: {fields:?}")))
        }
    }
}

fn error_in(envelope: &Value) -> Option<Refusal> {
    let error = envelope.get("error").filter(|error| !error.is_null())?;
    let code = error["code"]
        .as_i64()
        .unwrap_or_else(|| panic!("an error without a number: {envelope}"));
    let message = error["message"]
        .as_str()
        .unwrap_or_else(|| panic!("an error without a message: {envelope}"));
    let details = match error.get("data") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(details)) => details.clone(),
        Some(other) => panic!("error.data is an array of typed objects, not {other}"),
    };
    Some(Refusal {
        code: Code::JsonRpc(code),
        message: message.to_owned(),
        details,
        media_type: String::new(),
    })
}
