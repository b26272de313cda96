//! From the words of the DSL to those of A2A 1.0.
//!
//! The DSL was written against A2A 0.3: parts carry a `kind`, files are nested, roles are lower case, and
//! `blocking` is the opposite of today's `returnImmediately`. Documents may use either form. The translation runs
//! on the evaluated parameters, because any value in them may be computed; the same walk checks the unevaluated ones
//! when a document is validated, passing over the places that are still expressions. One walk for both means that a
//! document cannot pass validation in a form that the call would refuse.
//!
//! Nothing is dropped silently: a field that A2A 1.0 has no place for is refused by name.

mod fields;
mod push;

use serde_json::{Map, Value, json};

use crate::document::Method;
use fields::{Fields, Walk};

/// Parameters that no A2A request can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", if pointer.is_empty() { "parameters" } else { pointer.as_str() })]
pub struct Error {
    /// JSON pointer into the parameters, such as `/message/parts/0`.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// The request message of A2A 1.0, as ProtoJSON, that `parameters` stand for.
///
/// # Errors
/// See [`Error`].
pub fn translate(method: Method, parameters: &Value) -> Result<Value, Error> {
    request(
        Walk {
            expressions_are_opaque: false,
        },
        method,
        parameters,
    )
}

/// Whether `parameters`, in which text of the form `${ … }` stands for any value, can make a request.
///
/// # Errors
/// See [`Error`].
pub fn check(method: Method, parameters: &Value) -> Result<(), Error> {
    request(
        Walk {
            expressions_are_opaque: true,
        },
        method,
        parameters,
    )
    .map(|_| ())
}

fn request(walk: Walk, method: Method, parameters: &Value) -> Result<Value, Error> {
    if walk.passes_over(parameters) {
        return Ok(parameters.clone());
    }
    match method {
        Method::SendMessage | Method::SendStreamingMessage => send(walk, parameters),
        Method::GetTask => {
            let mut fields = Fields::of(walk, parameters, "", &["id", "historyLength"])?;
            fields.require("id")?;
            fields.copy_text("id")?;
            fields.copy_integer("historyLength")?;
            Ok(fields.done())
        }
        Method::CancelTask => {
            let mut fields = Fields::of(walk, parameters, "", &["id", "metadata"])?;
            fields.require("id")?;
            fields.copy_text("id")?;
            fields.copy_object("metadata")?;
            Ok(fields.done())
        }
        Method::ListTasks => list(walk, parameters),
        Method::SubscribeToTask => {
            let mut fields = Fields::of(walk, parameters, "", &["id"])?;
            fields.require("id")?;
            fields.copy_text("id")?;
            Ok(fields.done())
        }
        Method::CreateTaskPushNotificationConfig => push::create(walk, parameters),
        Method::GetTaskPushNotificationConfig | Method::DeleteTaskPushNotificationConfig => {
            push::one(walk, parameters)
        }
        Method::ListTaskPushNotificationConfigs => push::list(walk, parameters),
        Method::GetExtendedAgentCard => Ok(Fields::of(walk, parameters, "", &[])?.done()),
    }
}

fn send(walk: Walk, parameters: &Value) -> Result<Value, Error> {
    let mut fields = Fields::of(walk, parameters, "", &["message", "configuration", "metadata"])?;
    let given = fields.require("message")?;
    fields.put("message", message(walk, given, "/message")?);
    if let Some(given) = fields.get("configuration") {
        fields.put("configuration", configuration(walk, given, "/configuration")?);
    }
    fields.copy_object("metadata")?;
    Ok(fields.done())
}

fn list(walk: Walk, parameters: &Value) -> Result<Value, Error> {
    const ALLOWED: &[&str] = &[
        "contextId",
        "status",
        "pageSize",
        "pageToken",
        "historyLength",
        "statusTimestampAfter",
        "includeArtifacts",
    ];
    let mut fields = Fields::of(walk, parameters, "", ALLOWED)?;
    for name in ["contextId", "pageToken", "statusTimestampAfter"] {
        fields.copy_text(name)?;
    }
    for name in ["pageSize", "historyLength"] {
        fields.copy_integer(name)?;
    }
    fields.copy_boolean("includeArtifacts")?;
    if let Some(given) = fields.get("status") {
        let status = walk.text(given, "/status")?.map(|text| json!(state(text)));
        fields.put("status", status.unwrap_or_else(|| given.clone()));
    }
    Ok(fields.done())
}

/// `input-required` → `TASK_STATE_INPUT_REQUIRED`.
fn state(text: &str) -> String {
    let upper = text.to_uppercase().replace('-', "_");
    if upper.starts_with("TASK_STATE_") {
        upper
    } else {
        format!("TASK_STATE_{upper}")
    }
}

fn configuration(walk: Walk, given: &Value, pointer: &str) -> Result<Value, Error> {
    const ALLOWED: &[&str] = &[
        "acceptedOutputModes",
        "historyLength",
        "returnImmediately",
        "blocking",
        "taskPushNotificationConfig",
        "pushNotificationConfig",
    ];
    if walk.passes_over(given) {
        return Ok(given.clone());
    }
    let mut fields = Fields::of(walk, given, pointer, ALLOWED)?;
    push::of_message(walk, &mut fields)?;
    fields.copy_texts("acceptedOutputModes")?;
    fields.copy_integer("historyLength")?;
    fields.copy_boolean("returnImmediately")?;
    match (fields.get("blocking"), fields.get("returnImmediately")) {
        (None, _) => {}
        (Some(_), Some(_)) => {
            return Err(fields.error("'blocking' is the opposite of 'returnImmediately'; give one of them"));
        }
        (Some(Value::Bool(blocking)), None) => fields.put("returnImmediately", json!(!blocking)),
        (Some(other), None) if walk.passes_over(other) => {}
        (Some(_), None) => return Err(fields.error_at("blocking", "must be true or false")),
    }
    Ok(fields.done())
}

fn message(walk: Walk, given: &Value, pointer: &str) -> Result<Value, Error> {
    const ALLOWED: &[&str] = &[
        "messageId",
        "contextId",
        "taskId",
        "role",
        "parts",
        "metadata",
        "extensions",
        "referenceTaskIds",
        "kind",
    ];
    if walk.passes_over(given) {
        return Ok(given.clone());
    }
    let mut fields = Fields::of(walk, given, pointer, ALLOWED)?;
    for name in ["messageId", "contextId", "taskId"] {
        fields.copy_text(name)?;
    }
    for name in ["extensions", "referenceTaskIds"] {
        fields.copy_texts(name)?;
    }
    fields.copy_object("metadata")?;
    fields.put("role", role(walk, fields.get("role"), pointer)?);
    expect_kind(&fields, "message")?;
    let parts = fields.require("parts")?;
    fields.put("parts", self::parts(walk, parts, &format!("{pointer}/parts"))?);
    Ok(fields.done())
}

/// A workflow speaks as the user unless it says otherwise.
fn role(walk: Walk, given: Option<&Value>, pointer: &str) -> Result<Value, Error> {
    let pointer = format!("{pointer}/role");
    let Some(given) = given else {
        return Ok(json!("ROLE_USER"));
    };
    match walk.text(given, &pointer)? {
        None => Ok(given.clone()),
        Some("user" | "ROLE_USER") => Ok(json!("ROLE_USER")),
        Some("agent" | "ROLE_AGENT") => Ok(json!("ROLE_AGENT")),
        Some(other) => {
            let message = format!(
                "no such role {}; allowed are 'user' and 'agent'",
                crate::problem::quoted(other)
            );
            Err(Error { pointer, message })
        }
    }
}

fn parts(walk: Walk, given: &Value, pointer: &str) -> Result<Value, Error> {
    if walk.passes_over(given) {
        return Ok(given.clone());
    }
    let error = |message: &str| Error {
        pointer: pointer.to_owned(),
        message: message.to_owned(),
    };
    let items = given.as_array().ok_or_else(|| error("must be a list of parts"))?;
    if items.is_empty() {
        return Err(error("must hold at least one part"));
    }
    items
        .iter()
        .enumerate()
        .map(|(index, item)| part(walk, item, &format!("{pointer}/{index}")))
        .collect()
}

fn part(walk: Walk, given: &Value, pointer: &str) -> Result<Value, Error> {
    const ALLOWED: &[&str] = &[
        "text",
        "data",
        "raw",
        "url",
        "file",
        "filename",
        "mediaType",
        "metadata",
        "kind",
        "type",
    ];
    const CONTENTS: [&str; 5] = ["text", "data", "raw", "url", "file"];
    if walk.passes_over(given) {
        return Ok(given.clone());
    }
    let mut fields = Fields::of(walk, given, pointer, ALLOWED)?;
    let present: Vec<&str> = CONTENTS
        .into_iter()
        .filter(|name| fields.get(name).is_some())
        .collect();
    let content = match present.as_slice() {
        [content] => *content,
        [] => return Err(fields.error("must have one of 'text', 'data', 'raw', 'url' or 'file'")),
        several => {
            let message = format!(
                "must have only one of {}",
                crate::problem::listed(several.iter().copied())
            );
            return Err(fields.error(&message));
        }
    };
    let kind = match content {
        "raw" | "url" => "file",
        other => other,
    };
    expect_kind(&fields, kind)?;
    for name in ["text", "raw", "url", "filename", "mediaType"] {
        fields.copy_text(name)?;
    }
    fields.copy("data");
    fields.copy_object("metadata")?;
    if let Some(nested) = fields.get("file") {
        file(walk, nested, &mut fields)?;
    }
    Ok(fields.done())
}

/// `kind`, or `type` as some documents call it, must agree with what is there; A2A 1.0 has neither.
fn expect_kind(fields: &Fields<'_>, expected: &str) -> Result<(), Error> {
    for name in ["kind", "type"] {
        let Some(given) = fields.get(name) else { continue };
        match fields.walk.text(given, &fields.at(name))? {
            Some(kind) if kind != expected => {
                let message = format!(
                    "says {} where the content is '{expected}'",
                    crate::problem::quoted(kind)
                );
                return Err(fields.error_at(name, &message));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `file: {name, mimeType, bytes | uri}` → `filename`, `mediaType`, `raw` | `url`.
fn file(walk: Walk, given: &Value, part: &mut Fields<'_>) -> Result<(), Error> {
    const NAMES: [(&str, &str); 4] = [
        ("name", "filename"),
        ("mimeType", "mediaType"),
        ("bytes", "raw"),
        ("uri", "url"),
    ];
    if walk.passes_over(given) {
        return Ok(());
    }
    let pointer = part.at("file");
    let nested = Fields::of(walk, given, &pointer, &NAMES.map(|(old, _)| old))?;
    if nested.get("bytes").is_some() == nested.get("uri").is_some() {
        return Err(nested.error("must have either 'bytes' (base64) or 'uri'"));
    }
    for (old, new) in NAMES {
        if let Some(value) = nested.get(old) {
            walk.text(value, &nested.at(old))?;
            part.put(new, value.clone());
        }
    }
    Ok(())
}

/// The fields of a request under construction.
type Request = Map<String, Value>;

#[cfg(test)]
mod tests;
