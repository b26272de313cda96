//! What is said of calls of agents, gRPC services and MCP servers.

use super::*;
use crate::document::{Call, Endpoint, Kind, McpTransport, Method, Server};

fn call(function: &str, with: &str) -> String {
    format!("  - a: {{call: {function}, with: {{{with}}}}}\n")
}

/// The tasks are refused for one reason, at the place that `pointer` leads to.
#[track_caller]
fn refuses(tasks: &str, pointer: &str, words: &[&str]) {
    let complaints = complaints(&with_tasks(tasks));
    let [(place, message)] = complaints.as_slice() else {
        panic!("{complaints:#?} in {tasks}");
    };
    assert_eq!(
        place.split_once(' ').map(|(_, pointer)| pointer),
        Some(pointer),
        "{message}"
    );
    for word in words {
        assert!(message.contains(word), "{word} is not in {message}");
    }
}

fn fits(text: &str) -> Call {
    let text = with_tasks(text);
    let definition = parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert!(definition.warnings.is_empty(), "{}", definition.warnings);
    match &definition.workflow.tasks.tasks[0].kind {
        Kind::Call(call) => call.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn agents_are_named_in_many_ways() {
    let message = "method: SendMessage, parameters: {message: {parts: [{text: hi}]}}";
    for (whom, card) in [
        ("server: 'https://agent.test/x'", false),
        (
            "server: {uri: 'https://agent.test/x', authentication: {bearer: {token: '${ .t }'}}}",
            false,
        ),
        ("server: 'grpcs://agent.test:443'", false),
        ("agentCard: {endpoint: 'https://agent.test/card.json'}", true),
        (
            "agentCard: {name: it, endpoint: {uri: 'https://agent.test/card.json', authentication: {basic: {username: a, password: '${ .p }'}}}}",
            true,
        ),
        ("agentCard: 'https://agent.test/card.json'", true),
        ("agentCard: {endpoint: 'agent://weather'}", false),
        ("server: 'https://agent.test/{id}'", false),
        ("server: '${ .url }'", false),
        ("agentCard: {endpoint: '${ .url }'}", true),
    ] {
        let Call::A2a(call) = fits(&call("a2a", &format!("{whom}, {message}"))) else {
            panic!("{whom}");
        };
        assert_eq!(call.card, card, "{whom}");
        assert_eq!(
            call.authentication.is_some(),
            whom.contains("authentication"),
            "{whom}"
        );
        match (
            &call.server,
            whom.contains('$') && !whom.contains("authentication"),
            whom.contains("{id}"),
        ) {
            (Server::Computed(_), true, _) | (Server::Template(_), _, true) => {}
            (Server::Fixed(Endpoint::Url(_) | Endpoint::Agent(_)), false, false) => {}
            other => panic!("{whom}: {other:?}"),
        }
    }
    let both = call(
        "a2a",
        &format!("server: 'agent://a', agentCard: {{endpoint: 'https://b.test/c'}}, {message}"),
    );
    let definition = parse(&with_tasks(&both)).unwrap();
    assert!(
        definition.warnings.to_string().contains("'server' is ignored"),
        "{}",
        definition.warnings
    );
    refuses(
        &call(
            "a2a",
            &format!(
                "server: {{uri: 'agent://a', authentication: {{bearer: {{token: '${{ .t }}'}}}}}}, {message}"
            ),
        ),
        "/do/0/a/with/server/authentication",
        &["through the router"],
    );
    refuses(
        &call("a2a", &format!("server: 'https://a.test/{{', {message}")),
        "/do/0/a/with/server",
        &["a brace stands alone"],
    );
}

#[test]
fn all_methods_of_agents_are_known_and_the_languages_names_ask_for_events() {
    for (method, parameters, events) in [
        ("message/stream", "{message: {parts: [{text: hi}]}}", true),
        ("SendStreamingMessage", "{message: {parts: [{text: hi}]}}", false),
        ("tasks/resubscribe", "{id: t}", true),
        ("SubscribeToTask", "{id: t}", false),
        (
            "tasks/pushNotificationConfig/set",
            "{taskId: t, pushNotificationConfig: {url: 'https://x.test'}}",
            false,
        ),
        ("GetTaskPushNotificationConfig", "{taskId: t, id: c}", false),
        ("tasks/pushNotificationConfig/list", "{id: t}", false),
        ("DeleteTaskPushNotificationConfig", "{taskId: t, id: c}", false),
        ("agent/getAuthenticatedExtendedCard", "{}", false),
    ] {
        let with = format!("server: 'agent://w', method: {method}, parameters: {parameters}");
        match fits(&call("a2a", &with)) {
            Call::A2a(call) => assert_eq!(
                (call.events, Method::by_name(method)),
                (events, Some(call.method))
            ),
            other => panic!("{other:?}"),
        }
    }
    fits(&call("a2a", "server: 'agent://w', method: GetExtendedAgentCard"));
    refuses(
        &call("a2a", "server: 'agent://w', method: GetTask"),
        "/do/0/a/with",
        &["'parameters' is missing", "'id'"],
    );
}

#[test]
fn grpc_services() {
    let service = "service: {name: a.b.C, host: h.test, port: 5000}";
    match fits(&call(
        "grpc",
        &format!(
            "{service}, method: Get, arguments: {{x: '${{ .y }}'}}, proto: {{endpoint: 'https://h.test/c.proto'}}"
        ),
    )) {
        Call::Grpc(call) => {
            assert_eq!(
                (call.service.as_str(), call.method.as_str(), call.port),
                ("a.b.C", "Get", Some(5000))
            );
            assert!(call.proto.is_some() && call.arguments.is_some());
        }
        other => panic!("{other:?}"),
    }
    fits(&call(
        "grpc",
        "service: {name: C, host: '${ .host }', authentication: {bearer: {token: '${ .t }'}}}, method: Get",
    ));
    for (with, place, words) in [
        (
            "method: Get".to_owned(),
            "/do/0/a/with",
            &["the field 'service'"] as &[&str],
        ),
        (service.to_string(), "/do/0/a/with", &["the field 'method'"]),
        (
            "service: {name: 'a/b', host: h}, method: Get".to_owned(),
            "/do/0/a/with/service/name",
            &["with its package"],
        ),
        (
            "service: {name: C, host: 'http://h'}, method: Get".to_owned(),
            "/do/0/a/with/service/host",
            &["grpc:// and grpcs://"],
        ),
        (
            "service: {name: C, host: h, port: 70000}, method: Get".to_owned(),
            "/do/0/a/with/service/port",
            &["from 1 to 65535"],
        ),
        (
            format!("{service}, method: a/Get"),
            "/do/0/a/with/method",
            &["without its service"],
        ),
        (
            format!("{service}, method: Get, arguments: [1]"),
            "/do/0/a/with/arguments",
            &["an object"],
        ),
    ] {
        refuses(&call("grpc", &with), place, words);
    }
}

#[test]
fn mcp_servers() {
    let http = "transport: {http: {endpoint: 'https://h.test/mcp', headers: {a: b}}}";
    match fits(&call(
        "mcp",
        &format!("method: tools/call, parameters: {{name: t}}, timeout: {{seconds: 5}}, {http}"),
    )) {
        Call::Mcp(call) => {
            assert_eq!(
                (call.method.as_str(), call.version.as_str()),
                ("tools/call", "2025-06-18")
            );
            assert!(matches!(call.transport, McpTransport::Http { .. }) && call.timeout.is_some());
        }
        other => panic!("{other:?}"),
    }
    let stdio =
        "transport: {stdio: {command: uvx, arguments: [a, '${ .b }'], environment: {C: d}}, options: {}}";
    fits(&call(
        "mcp",
        &format!("method: tools/list, timeout: PT5S, client: {{name: a, version: b}}, {stdio}"),
    ));
    for (with, place, words) in [
        (
            format!("method: tools/cal, {http}"),
            "/do/0/a/with/method",
            &["did you mean 'tools/call'"] as &[&str],
        ),
        (
            format!("method: tools/call, {http}"),
            "/do/0/a/with",
            &["need 'name'"],
        ),
        (
            format!("method: resources/read, parameters: {{}}, {http}"),
            "/do/0/a/with/parameters",
            &["need 'uri'"],
        ),
        (
            "method: tools/list".to_owned(),
            "/do/0/a/with",
            &["the field 'transport'"],
        ),
        (
            "method: tools/list, transport: {}".to_owned(),
            "/do/0/a/with/transport",
            &["either 'http' or 'stdio'"],
        ),
        (
            format!("protocolVersion: '2020-01-01', method: tools/list, {http}"),
            "/do/0/a/with/protocolVersion",
            &["no such version of MCP", "'2025-06-18'"],
        ),
        (
            "method: tools/list, transport: {stdio: {command: a, arguments: b}}".to_owned(),
            "/do/0/a/with/transport/stdio/arguments",
            &["a list"],
        ),
        (
            format!("method: tools/list, timeout: soon, {http}"),
            "/do/0/a/with/timeout",
            &["soon"],
        ),
    ] {
        refuses(&call("mcp", &with), place, words);
    }
}
