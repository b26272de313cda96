//! JSON-RPC 2.0: the envelope that MCP and one of A2A's bindings share.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Longest text of the other side that is repeated in an error.
const LONGEST_TEXT: usize = 2_000;

/// What comes back for a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// It went well.
    Result(Value),
    /// It did not.
    Error(Error),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Error {
    /// What kind of error.
    pub(super) code: i64,
    /// In words.
    #[serde(default)]
    pub(super) message: String,
    /// More, as the protocol defines.
    #[serde(default)]
    pub(super) data: Value,
}

impl Error {
    /// What the other side says, shortened.
    pub(super) fn said(&self) -> String {
        let message: String = self.message.chars().take(LONGEST_TEXT).collect();
        if message.is_empty() {
            format!("error {}", self.code)
        } else {
            format!("{message} ({})", self.code)
        }
    }
}

/// Something that the other side sends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    /// The answer to the request of this id.
    Reply(Value, Reply),
    /// A request of its own.
    Request {
        /// To be repeated in the answer.
        id: Value,
        /// What it asks for.
        method: String,
    },
    /// Something that it tells.
    Notification {
        /// What kind of thing.
        method: String,
        /// The thing.
        params: Value,
    },
}

/// A request.
pub(super) fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A notification.
pub(super) fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// The answer to a request of the other side.
pub(super) fn answer(id: Value, result: Result<Value, (i64, &str)>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    }
}

/// Reads what the other side sends; none if it is no JSON-RPC.
pub(super) fn read(value: Value) -> Option<Incoming> {
    let Value::Object(mut fields) = value else {
        return None;
    };
    if let Some(Value::String(method)) = fields.remove("method") {
        let params = fields.remove("params").unwrap_or_default();
        return Some(match fields.remove("id") {
            Some(id) if !id.is_null() => Incoming::Request { id, method },
            _ => Incoming::Notification { method, params },
        });
    }
    let id = fields.remove("id").unwrap_or_default();
    reply(fields).map(|reply| Incoming::Reply(id, reply))
}

fn reply(mut fields: Map<String, Value>) -> Option<Reply> {
    match fields.remove("error") {
        Some(error) if !error.is_null() => serde_json::from_value(error).ok().map(Reply::Error),
        _ => fields.remove("result").map(Reply::Result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_told_apart() {
        assert_eq!(
            read(json!({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}})),
            Some(Incoming::Reply(json!(1), Reply::Result(json!({"a": 1}))))
        );
        let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}});
        match read(error) {
            Some(Incoming::Reply(_, Reply::Error(error))) => assert_eq!(error.said(), "no (-32601)"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            read(json!({"id": "x", "method": "ping"})),
            Some(Incoming::Request { .. })
        ));
        assert!(matches!(
            read(json!({"method": "notifications/progress", "params": {}})),
            Some(Incoming::Notification { .. })
        ));
        for nonsense in [
            json!([]),
            json!({}),
            json!({"id": 1}),
            json!({"error": "x"}),
            Value::Null,
        ] {
            assert_eq!(read(nonsense.clone()), None, "{nonsense}");
        }
    }
}
