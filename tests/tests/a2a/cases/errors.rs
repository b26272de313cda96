//! What is no request at all.

use serde_json::json;

use crate::bench::Bench;
use crate::driver::{Binding, Code, refusal_of};

pub async fn json_that_is_none(bench: &Bench) {
    let driver = bench.driver().await;
    let (path, expected) = match bench.binding {
        Binding::Grpc => return,
        Binding::JsonRpc => ("", Code::JsonRpc(-32700)),
        Binding::HttpJson => ("/message:send", Code::Http(400)),
    };
    for body in ["{not json", "", "{\"message\": "] {
        let refusal = refusal_of(&driver, path, body).await;
        assert_eq!(refusal.code, expected, "{body:?}: {refusal}");
        assert!(!refusal.message.is_empty(), "{body:?}: {refusal}");
    }
}

pub async fn envelopes_are_checked(bench: &Bench) {
    if bench.binding != Binding::JsonRpc {
        return;
    }
    let driver = bench.driver().await;
    for body in [
        json!({ "jsonrpc": "2.0", "id": 1 }),
        json!({ "jsonrpc": "1.0", "id": 1, "method": "ListTasks", "params": {} }),
        json!({ "id": 1, "method": "ListTasks", "params": {} }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": 5, "params": {} }),
        json!(5),
    ] {
        let refusal = refusal_of(&driver, "", &body.to_string()).await;
        assert_eq!(refusal.code, Code::JsonRpc(-32600), "{body}: {refusal}");
    }
    for id in [json!(7), json!("seven")] {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "ListTasks", "params": {} });
        let answer = driver
            .post("", "application/json", &body.to_string())
            .await
            .json();
        assert_eq!(answer["id"], id, "the id comes back as it was: {answer}");
    }
}

pub async fn unknown_methods(bench: &Bench) {
    let driver = bench.driver().await;
    let code = match bench.binding {
        Binding::Grpc | Binding::JsonRpc => {
            let outcome = driver.call_named("SendMesage").await;
            outcome.expect_err("there is no such method").code
        }
        Binding::HttpJson => {
            let response = driver.post("/message:sned", "application/json", "{}").await;
            Code::Http(response.status.as_u16())
        }
    };
    let expected = match bench.binding {
        Binding::Grpc => Code::Grpc(tonic::Code::Unimplemented),
        Binding::JsonRpc => Code::JsonRpc(-32601),
        Binding::HttpJson => Code::Http(404),
    };
    assert_eq!(code, expected);
}
