//! What an error of A2A means to a workflow, in the form of each binding.
//!
//! The agent was reached and has said no: that is of the type `runtime`, with the HTTP status that A2A gives it. The
//! bindings over HTTP say 401 and 403 before any of this.

use serde_json::Value;

use crate::caller::{Failure, Kind, json_rpc};

/// Longest text of an agent that is repeated in an error.
const LONGEST_TEXT: usize = 2_000;

/// An error of JSON-RPC.
pub(super) fn of_json_rpc(target: &str, error: &json_rpc::Error) -> Failure {
    let status = match error.code {
        -32001 => 404,
        -32006 => 502,
        -32009..=-32002 | -32700 | -32600 | -32602 => 400,
        -32601 => 501,
        _ => 500,
    };
    Failure::new(
        Kind::Runtime,
        status,
        format!("calling '{target}': {}", error.said()),
    )
}

/// An error of HTTP and JSON: `{error: {code, status, message, details}}`; none if it is something else.
pub(super) fn of_rest(value: &Value) -> Option<Failure> {
    let error = value.get("error")?.as_object()?;
    let code = error.get("code").and_then(Value::as_u64)?;
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let message: String = message.chars().take(LONGEST_TEXT).collect();
    let status = u16::try_from(code)
        .ok()
        .filter(|code| (400..600).contains(code))?;
    let kind = match status {
        401 => Kind::Authentication,
        403 => Kind::Authorization,
        408 | 504 => Kind::Timeout,
        _ => Kind::Runtime,
    };
    Some(Failure::new(kind, status, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_of_both_forms_are_failures() {
        let error = |code: i64| json_rpc::Error {
            code,
            message: "no".into(),
            data: Value::Null,
        };
        for (code, status) in [
            (-32001, 404),
            (-32002, 400),
            (-32601, 501),
            (-32603, 500),
            (-32006, 502),
        ] {
            let failure = of_json_rpc("x", &error(code));
            assert_eq!((failure.kind, failure.status), (Kind::Runtime, status), "{code}");
        }
        let told = json!({"error": {"code": 404, "status": "NOT_FOUND", "message": "no task"}});
        assert_eq!(of_rest(&told), Some(Failure::new(Kind::Runtime, 404, "no task")));
        let told = json!({"error": {"code": 403, "message": "no"}});
        assert_eq!(
            of_rest(&told).map(|failure| failure.kind),
            Some(Kind::Authorization)
        );
        assert_eq!(of_rest(&json!({"task": {"id": "t"}})), None);
        assert_eq!(
            of_rest(&json!({"jsonrpc": "2.0", "error": {"code": -32001}})),
            None
        );
    }
}
