//! The conversation of one call: introduce, ask, hear the answer. The same over every transport.

use async_trait::async_trait;
use muster_workflow_dsl::request::{Mcp, mcp};
use serde_json::{Value, json};

use crate::caller::json_rpc::{self, Incoming, Reply};
use crate::caller::{Call, Failure, Kind, Progress};

/// Id of the request that introduces.
const HELLO: u64 = 1;

/// Id of the request that is the call.
pub(super) const ASKED: u64 = 2;

/// Name in `_meta` of the key of the step, which is the same for all attempts.
const STEP_KEY: &str = "muster/step-key";

/// What carries messages to a server and back.
#[async_trait]
pub trait Link: Send {
    /// Sends a message that asks for no answer.
    async fn tell(&mut self, message: &Value) -> Result<(), Failure>;

    /// Sends a request. What comes back is read with [`Self::hear`].
    async fn ask(&mut self, message: &Value) -> Result<(), Failure>;

    /// The next thing that the server sends; none when there will be no more.
    async fn hear(&mut self) -> Result<Option<Value>, Failure>;

    /// Both sides speak this version from now on.
    fn agree(&mut self, version: &str);
}

/// Introduces, asks, and returns the result.
///
/// # Errors
/// The server refuses, says what is no JSON-RPC, speaks another version, or ends without an answer.
pub async fn converse(
    link: &mut dyn Link,
    request: &Mcp,
    call: &Call,
    target: &str,
    progress: &Progress,
) -> Result<Value, Failure> {
    let client = &request.client;
    let introduction = json!({
        "protocolVersion": request.protocol_version,
        "capabilities": {},
        "clientInfo": {"name": client.name, "version": client.version},
    });
    let hello = json_rpc::request(HELLO, "initialize", introduction);
    let server = asked(link, &hello, HELLO, target, progress).await?;
    let version = server
        .get("protocolVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !mcp::VERSIONS.contains(&version) {
        let known = mcp::VERSIONS.join(", ");
        let detail = format!("'{target}' speaks version '{version}' of MCP; this engine speaks {known}");
        return Err(Failure::new(Kind::Communication, 505, detail));
    }
    link.agree(version);
    link.tell(&json_rpc::notification("notifications/initialized", json!({})))
        .await?;
    let question = json_rpc::request(ASKED, &request.method, parameters(request, call));
    asked(link, &question, ASKED, target, progress).await
}

/// The parameters with what the engine adds.
fn parameters(request: &Mcp, call: &Call) -> Value {
    let mut parameters = (*request.parameters).clone();
    if request.method == mcp::CALL_TOOL
        && let Some(fields) = parameters.as_object_mut()
    {
        let meta = fields.entry("_meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.entry("progressToken")
                .or_insert_with(|| json!(call.message_id.to_string()));
            meta.entry(STEP_KEY)
                .or_insert_with(|| json!(call.step_key.to_string()));
        }
    }
    parameters
}

/// Sends a request and waits for its answer; serves what the server asks meanwhile.
async fn asked(
    link: &mut dyn Link,
    message: &Value,
    id: u64,
    target: &str,
    progress: &Progress,
) -> Result<Value, Failure> {
    link.ask(message).await?;
    while let Some(heard) = link.hear().await? {
        match json_rpc::read(heard) {
            Some(Incoming::Reply(answered, Reply::Result(result))) if answered == id => return Ok(result),
            Some(Incoming::Reply(answered, Reply::Error(error))) if answered == id || answered.is_null() => {
                return Err(refused(target, &error));
            }
            Some(Incoming::Request { id, method }) => {
                let answer = match method.as_str() {
                    "ping" => Ok(json!({})),
                    _ => Err((-32601, "a workflow offers nothing to a server but its call")),
                };
                link.tell(&json_rpc::answer(id, answer)).await?;
            }
            Some(Incoming::Notification { method, params }) => {
                if let Some(note) = note(&method, &params) {
                    progress.set_note(Some(note));
                }
            }
            Some(Incoming::Reply(..)) => {}
            None => {
                let detail = format!("'{target}' sent what is no JSON-RPC");
                return Err(Failure::new(Kind::Communication, 502, detail));
            }
        }
    }
    let detail = format!("'{target}' ended the conversation without an answer");
    Err(Failure::new(Kind::Communication, 502, detail))
}

/// What the server says it does, for those who ask why the run waits.
fn note(method: &str, params: &Value) -> Option<String> {
    const LONGEST: usize = 200;
    let text = |name: &str| params.get(name).and_then(Value::as_str);
    let shortened = |text: &str| text.chars().take(LONGEST).collect::<String>();
    match method {
        "notifications/progress" => {
            let done = params.get("progress")?;
            let of = params
                .get("total")
                .map(|total| format!(" of {total}"))
                .unwrap_or_default();
            let said = text("message")
                .map(|said| format!(": {}", shortened(said)))
                .unwrap_or_default();
            Some(format!("progress {done}{of}{said}"))
        }
        "notifications/message" => match params.get("data")? {
            Value::String(said) => Some(shortened(said)),
            other => Some(shortened(&other.to_string())),
        },
        _ => None,
    }
}

/// The failure that an error of the server is. The language wants its type to be `runtime`.
fn refused(target: &str, error: &json_rpc::Error) -> Failure {
    let status = match error.code {
        -32700 | -32600 | -32602 => 400,
        -32601 | -32002 => 404,
        _ => 500,
    };
    Failure::new(Kind::Runtime, status, format!("'{target}': {}", error.said()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_is_a_note() {
        let progress = json!({"progressToken": "x", "progress": 3, "total": 10, "message": "third file"});
        assert_eq!(
            note("notifications/progress", &progress).as_deref(),
            Some("progress 3 of 10: third file")
        );
        let log = json!({"level": "info", "data": "reading"});
        assert_eq!(note("notifications/message", &log).as_deref(), Some("reading"));
        assert_eq!(note("notifications/tools/list_changed", &json!({})), None);
    }
}
