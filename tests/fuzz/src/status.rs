//! Errors of agents, whose details are bytes of theirs: each is told as JSON-RPC and as HTTP, without a panic, and as what it is.
//!
//! The first byte of the input is the status, the rest its details.

use bytes::Bytes;
use muster_a2a::error;
use tonic::{Code, Status};

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((code, details)) = bytes.split_first() else {
        return;
    };
    let code = Code::from(i32::from(*code));
    if code == Code::Ok {
        return;
    }
    let status = Status::with_details(code, "the agent says no", Bytes::copy_from_slice(details));
    let told = serde_json::to_value(error::json_rpc(&status)).expect("an error is JSON");
    assert!(told["code"].is_i64(), "{told}");
    let (http, body) = error::http_json(&status);
    assert!(http.is_client_error() || http.is_server_error(), "{http}");
    assert!(body["error"]["details"].is_array(), "{body}");
    let _seconds = error::retry_after(&status);
}
