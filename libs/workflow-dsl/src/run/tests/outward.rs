//! What calls of agents by URL, gRPC services and MCP servers ask for, once their arguments are evaluated.

use serde_json::{Value, json};

use super::world::World;
use crate::journal::Standard;
use crate::run::{Effect, Stimulus};

/// The request of the one call that the document makes.
fn request(task: &str, input: Value) -> Value {
    let mut world = World::new(&format!("do:\n  - a: {{{task}}}\n"));
    world.decide(Stimulus::Start { input });
    let effects = world.run.effects();
    let requests: Vec<Value> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Call { request, .. } => Some(serde_json::to_value(request).unwrap()),
            Effect::Listen { .. } | Effect::Timer { .. } => None,
        })
        .collect();
    match requests.as_slice() {
        [request] => request.clone(),
        other => panic!("{other:?}, {:?}", world.run.error()),
    }
}

#[test]
fn requests_hold_all_that_is_needed() {
    let input = json!({"id": "x/y", "host": "h.test", "token": "k", "n": 5});
    let agent = "call: a2a, with: {server: {uri: 'https://a.test/{id}', authentication: {bearer: {token: '${ .token }'}}}, \
                 method: message/stream, parameters: {message: {parts: [{text: hi}]}}}";
    assert_eq!(
        request(agent, input.clone()),
        json!({
            "function": "a2a",
            "endpoint": "https://a.test/x%2Fy",
            "authentication": {"scheme": "bearer", "with": {"token": "k"}},
            "method": "SendStreamingMessage",
            "events": true,
            "parameters": {"message": {"role": "ROLE_USER", "parts": [{"text": "hi"}]}},
        })
    );
    let card = "call: a2a, with: {agentCard: {endpoint: '${ \"https://\" + .host }'}, method: GetTask, parameters: {id: '${ .id }'}}";
    assert_eq!(
        request(card, input.clone()),
        json!({
            "function": "a2a", "endpoint": "https://h.test", "card": true, "method": "GetTask", "parameters": {"id": "x/y"},
        })
    );
    let grpc = "call: grpc, with: {service: {name: a.B, host: '${ .host }'}, method: Get, arguments: {n: '${ .n }'}, \
                proto: {endpoint: 'https://a.test/{id}'}}";
    assert_eq!(
        request(grpc, input.clone()),
        json!({
            "function": "grpc", "service": "a.B", "host": "h.test", "port": 443, "tls": true, "method": "Get",
            "arguments": {"n": 5}, "proto": {"endpoint": {"uri": "https://a.test/x%2Fy"}},
        })
    );
    let mcp = "call: mcp, with: {method: tools/call, parameters: {name: t, arguments: {n: '${ .n }'}}, timeout: {seconds: 2}, \
               transport: {http: {endpoint: 'https://a.test/mcp', headers: {n: '${ .n }'}}}}";
    let made = request(mcp, input.clone());
    assert_eq!(made["parameters"], json!({"name": "t", "arguments": {"n": 5}}));
    assert_eq!(
        made["transport"],
        json!({"http": {"endpoint": {"uri": "https://a.test/mcp"}, "headers": {"n": "5"}}})
    );
    assert_eq!(
        (&made["timeout_milliseconds"], &made["protocol_version"]),
        (&json!(2000), &json!("2025-06-18"))
    );
    let stdio = "call: mcp, with: {method: tools/list, transport: {stdio: {command: x, arguments: [a, '${ .n }'], environment: {K: '${ .token }'}}}}";
    assert_eq!(
        request(stdio, input)["transport"],
        json!({"stdio": {"command": "x", "arguments": ["a", "5"], "environment": {"K": "k"}}})
    );
}

#[test]
fn what_cannot_be_asked_is_told() {
    for (task, kind, said) in [
        (
            "call: a2a, with: {server: '${ \"ftp://x\" }', method: GetTask, parameters: {id: x}}",
            Standard::Validation,
            "not an address of an agent",
        ),
        (
            "call: a2a, with: {server: {uri: '${ \"agent://a\" }', authentication: {bearer: {token: '${ \"x\" }'}}}, method: GetTask, parameters: {id: x}}",
            Standard::Configuration,
            "through the router",
        ),
        (
            "call: grpc, with: {service: {name: B, host: '${ 5 }'}, method: Get}",
            Standard::Expression,
            "the host must be text",
        ),
        (
            "call: grpc, with: {service: {name: B, host: '${ \"a/b\" }'}, method: Get}",
            Standard::Validation,
            "is not a host",
        ),
        (
            "call: grpc, with: {service: {name: B, host: b}, method: Get, arguments: '${ 1 }'}",
            Standard::Expression,
            "must be an object",
        ),
        (
            "call: mcp, with: {method: tools/call, parameters: '${ {} }', transport: {http: {endpoint: 'https://a.test'}}}",
            Standard::Validation,
            "need 'name'",
        ),
        (
            "call: mcp, with: {method: tools/list, transport: {stdio: {command: x, arguments: '${ 1 }'}}}",
            Standard::Expression,
            "must be a list",
        ),
    ] {
        let world = World::new(&format!("do:\n  - a: {{{task}}}\n")).run(json!({}));
        world.faults(kind, said);
    }
}
