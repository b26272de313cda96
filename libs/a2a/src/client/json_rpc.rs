//! Requests and answers in JSON-RPC's envelope.

use a2a::jsonrpc::methods;
use serde_json::{Value, json};
use url::Url;

use super::{Exchange, Failure, fault, fields};
use crate::service::Request;

pub(super) fn exchange(url: &Url, request: &Request) -> Result<Exchange, Failure> {
    let envelope = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": method(request),
        "params": fields(request)?,
    });
    Ok(Exchange {
        method: reqwest::Method::POST,
        url: url.clone(),
        body: Some(envelope),
    })
}

const fn method(request: &Request) -> &'static str {
    match request {
        Request::SendMessage(_) => methods::SEND_MESSAGE,
        Request::SendStreamingMessage(_) => methods::SEND_STREAMING_MESSAGE,
        Request::GetTask(_) => methods::GET_TASK,
        Request::ListTasks(_) => methods::LIST_TASKS,
        Request::CancelTask(_) => methods::CANCEL_TASK,
        Request::SubscribeToTask(_) => methods::SUBSCRIBE_TO_TASK,
        Request::CreatePushConfig(_) => methods::CREATE_PUSH_CONFIG,
        Request::GetPushConfig(_) => methods::GET_PUSH_CONFIG,
        Request::ListPushConfigs(_) => methods::LIST_PUSH_CONFIGS,
        Request::DeletePushConfig(_) => methods::DELETE_PUSH_CONFIG,
        Request::GetExtendedAgentCard(_) => methods::GET_EXTENDED_AGENT_CARD,
    }
}

/// What an envelope holds; its error is a failure.
pub(super) fn result(mut envelope: Value) -> Result<Value, Failure> {
    if let Some(error) = envelope.get("error").filter(|error| !error.is_null()) {
        return Err(Failure::Refused(Box::new(fault::of_json_rpc(error))));
    }
    envelope
        .get_mut("result")
        .map(Value::take)
        .ok_or_else(|| Failure::Unlike("it is no answer of JSON-RPC".to_owned()))
}
