//! The fuzz targets of `tests/fuzz` in the suite: each is given its seeds and what becomes of them by chance, the same chance each time.
//! Coverage is libFuzzer's to find; what is asserted here is that every target still builds, takes its own seeds, and holds for some
//! thousand others. And that the targets' lock file is whole.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use muster_api::a2a;
use muster_api::registry::{DiscoverRequest, HeartbeatRequest, Instance, RegisterRequest};
use muster_router::pages::{Cursor, Source};
use muster_tests::repository_file;
use muster_workflow_engine::page::List;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use toml::{Table, Value};

/// What becomes of each seed.
const MUTANTS: usize = 200;

/// Bytes that mean something to somebody.
const TELLING: &[u8] = b"\0\n\r\t \"'{}[](),:;.=|/\\%$&*-+<>0129aAzZ\x7f\x80\xc3\xff";

thread_local! {
    /// Whether anything has panicked on this thread, also where a panic is caught and told as an error. Targets start no threads.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

fn with(first: u8, rest: impl AsRef<[u8]>) -> Vec<u8> {
    [&[first], rest.as_ref()].concat()
}

fn card() -> a2a::AgentCard {
    a2a::AgentCard {
        name: "weather".to_owned(),
        description: "Weather of two cities".to_owned(),
        version: "1.0.0".to_owned(),
        supported_interfaces: vec![a2a::AgentInterface {
            url: "127.0.0.1:7411".to_owned(),
            protocol_binding: "GRPC".to_owned(),
            protocol_version: "1.0".to_owned(),
            ..Default::default()
        }],
        skills: vec![a2a::AgentSkill {
            id: "forecast".to_owned(),
            name: "Forecast".to_owned(),
            description: "Days to come".to_owned(),
            tags: vec!["weather".to_owned()],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn sent() -> a2a::SendMessageRequest {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    a2a::SendMessageRequest {
        tenant: "weather".to_owned(),
        message: Some(a2a::Message {
            message_id: "m-1".to_owned(),
            context_id: "c-1".to_owned(),
            role: a2a::Role::User.into(),
            parts: vec![a2a::Part {
                content: Some(a2a::part::Content::Text("Seattle".to_owned())),
                ..Default::default()
            }],
            metadata: Some(prost_types::Struct {
                fields: [("traceparent".to_owned(), text("00-1-2-01"))].into(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What a target begins with.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "asyncapi" => vec![
            with(
                0b1_0001,
                "greet\nasyncapi: 3.0.0\nservers:\n  web: {host: '{stage}.example:{port}', pathname: /in, protocol: https, variables: {stage: {default: test}, port: {default: '1'}}}\nchannels:\n  greetings: {address: 'greetings/{room}', servers: [{$ref: '#/servers/web'}]}\noperations:\n  greet: {action: receive, channel: {$ref: '#/channels/greetings'}, bindings: {http: {method: PUT}}}\n",
            ),
            with(
                0b1_0110,
                r#"news
{"asyncapi": "2.6.0", "servers": {"web": {"url": "http://{host}/in", "protocol": "http", "variables": {"host": {"default": "a"}}}},
 "channels": {"news": {"servers": ["web"], "publish": {}}}}"#,
            ),
        ],
        "backup" => {
            let block = |kind: u8, content: &[u8], check: usize| {
                let length = u32::try_from(content.len()).unwrap().to_le_bytes();
                [&[kind][..], &length, content, &vec![0; check]].concat()
            };
            let head = [&3_u32.to_le_bytes()[..], &1_000_i64.to_le_bytes(), b"registry"].concat();
            let entry = [&1_u32.to_le_bytes()[..], &2_u32.to_le_bytes(), b"k", b"vv"].concat();
            let end = [&1_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
            vec![
                [
                    b"MUSTERBK\x01\0\0\0".to_vec(),
                    block(b'F', &head, 8),
                    block(b'K', b"runs", 8),
                    block(b'E', &entry, 8),
                    block(b'Z', &end, 32),
                ]
                .concat(),
            ]
        }
        "card" => texts(&[
            r#"{"name": "weather", "description": "Weather", "version": "1.0.0",
                "supportedInterfaces": [{"url": "http://127.0.0.1:1/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
                "capabilities": {"streaming": true, "extensions": [{"uri": "urn:x", "params": {"maxConcurrency": 3}}]},
                "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
                "skills": [{"id": "s", "name": "S", "description": "Does s", "tags": ["t"]}]}"#,
            r#"{"name": "x", "signatures": [{"protected": "e30", "signature": "AA"}],
                "securitySchemes": {"b": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}, "skills": []}"#,
        ]),
        "challenge" => texts(&[
            r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv", opaque="FQhe/q\"aU925kf""#,
            r#"Basic realm="x", Digest realm="a\\b", nonce=abc, algorithm=MD5-sess, stale=true"#,
        ]),
        "cloud_event" => vec![
            with(
                0,
                r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}"#,
            ),
            with(
                0,
                r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-01-01T00:00:00Z",
                    "datacontenttype": "text/plain", "data_base64": "aGk=", "traceparent": "00-1-2-01"}"#,
            ),
            with(
                1,
                "ce-specversion:1.0\nce-id:1\nce-source:/s\nce-type:a%20b\ncontent-type:application/json\n\n{\"a\": 1}",
            ),
        ],
        "contract" => vec![
            with(
                0,
                "syntax = \"proto3\"; package t; import \"parts/a.proto\"; import \"google/protobuf/empty.proto\";\nservice S { rpc Get(A) returns (google.protobuf.Empty); rpc Watch(A) returns (stream A); }\0parts/a.proto\nsyntax = \"proto3\"; package t; message A { string name = 1; repeated A more = 2; map<string, int32> n = 3; oneof o { bool b = 4; E e = 5; } } enum E { ZERO = 0; }",
            ),
            with(
                0,
                "syntax = \"proto2\"; import \"google/protobuf/descriptor.proto\"; extend google.protobuf.MessageOptions { optional M m = 50000; }\nmessage M { option (m) = { m { n: 1 } }; optional M m = 1; optional int32 n = 2 [default = -7]; extensions 100 to max; }",
            ),
            with(
                1,
                prost_types::FileDescriptorSet {
                    file: prost_types::FileDescriptorSet::decode(muster_api::FILE_DESCRIPTOR_SET)
                        .unwrap()
                        .file
                        .into_iter()
                        .filter(|file| file.name().starts_with("google/"))
                        .collect(),
                }
                .encode_to_vec(),
            ),
            with(
                1,
                prost_types::FileDescriptorSet {
                    file: vec![prost_types::FileDescriptorProto {
                        name: Some("a.proto".to_owned()),
                        syntax: Some("proto3".to_owned()),
                        message_type: vec![prost_types::DescriptorProto {
                            name: Some("A".to_owned()),
                            field: vec![prost_types::FieldDescriptorProto {
                                name: Some("a".to_owned()),
                                number: Some(1),
                                r#type: Some(11),
                                type_name: Some(".A".to_owned()),
                                label: Some(1),
                                ..Default::default()
                            }],
                            ..Default::default()
                        }],
                        service: vec![prost_types::ServiceDescriptorProto {
                            name: Some("S".to_owned()),
                            method: vec![prost_types::MethodDescriptorProto {
                                name: Some("Get".to_owned()),
                                input_type: Some(".A".to_owned()),
                                output_type: Some(".A".to_owned()),
                                ..Default::default()
                            }],
                            ..Default::default()
                        }],
                        ..Default::default()
                    }],
                }
                .encode_to_vec(),
            ),
        ],
        "expression" => texts(&[
            "${ .a | map(. // 0) | add }",
            r#".b as {c: $x} | if $x then [limit(3; range(9))] else "no \(.d)" end"#,
            "reduce .a[] as $i (0; . + ($i | tostring | length)) | @base64",
            "[.[] | select(type == \"object\")] | to_entries | sort_by(.key)",
        ]),
        "frame" => vec![
            with(0, b"\0\0\0\0\x03abc"),
            with(2, b"\0\0\0\0\x03abc\0\0\0\0\0"),
            with(0, b"\x01\0\0\0\x01a"),
        ],
        "headers" => texts(&[
            // {"sub":"ada","iss":"us","kind":"end-user","roles":["agent-writer"],"targets":["weather"]}
            "eyJzdWIiOiJhZGEiLCJpc3MiOiJ1cyIsImtpbmQiOiJlbmQtdXNlciIsInJvbGVzIjpbImFnZW50LXdyaXRlciJdLCJ0YXJnZXRzIjpbIndlYXRoZXIiXX0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nvendor=x,other=y",
            "30S",
            "99999999H",
            "skill:weather_forecasting",
        ]),
        "identity" => texts(&[
            "spiffe://example.org/ns/agents/sa/weather",
            "By=spiffe://d/ns/a/sa/b;Hash=abc;Subject=\"CN=\\\"x\\\",O=y\";URI=spiffe://d/ns/a/sa/router;DNS=router",
        ]),
        "json" => texts(&[
            "POST /weather/message:send\n{\"message\": {\"messageId\": \"m\", \"role\": \"ROLE_USER\", \"parts\": [{\"text\": \"x\"}]}}",
            "POST /weather\n{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"GetTask\", \"params\": {\"id\": \"t\"}}",
            "GET /weather/tasks?pageSize=5&status=TASK_STATE_WORKING\n",
            "POST /tasks/t:cancel\n{}",
            "DELETE /weather/tasks/t/pushNotificationConfigs/c\n",
        ]),
        "log" => vec![
            with(
                0,
                "Mar 14 08:31:10 gateway sshd[2228]: Failed password for root from 192.0.2.143 port 52310 ssh2\nMar 14 08:31:12 gateway sshd[2228]: message repeated 5 times: [ Failed password for root from 192.0.2.143 port 52310 ssh2]\n",
            ),
            with(
                1,
                r#"{"@timestamp": "2014-03-14T08:31:10Z", "uri": "/x?id=1%2527%20OR%201=1", "src_ip": "192.0.2.1", "user": "ada", "status": 500}
{"ts": 1394786270, "event": "login_refused", "host": "gateway"}
"#,
            ),
            with(
                2,
                "<34>1 2014-03-14T08:31:10.003Z host su - ID47 [exampleSDID@32473 iut=\"3\"] 'su root' failed for ada on /dev/pts/8\n",
            ),
        ],
        "mcp" => texts(&[
            r#"{"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-06-18", "capabilities": {}}}
{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 3, "total": 10, "message": "third"}}
{"jsonrpc": "2.0", "id": "p", "method": "ping"}
{"jsonrpc": "2.0", "id": 2, "result": {"content": [{"type": "text", "text": "x"}]}}"#,
            r#"{"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2024-11-05"}}
{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": {"a": [1]}}}
{"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {}}
{"jsonrpc": "2.0", "id": 2, "error": {"code": -32601, "message": "no", "data": null}}"#,
        ]),
        "openapi" => vec![
            with(
                0b111,
                "getPet\nopenapi: 3.0.3\nservers: [{url: 'https://{stage}.example/api/', variables: {stage: {default: test}}}]\npaths:\n  /pets/{id}:\n    parameters:\n      - {name: id, in: path, required: true}\n    get:\n      operationId: getPet\n      parameters:\n        - $ref: '#/components/parameters/Tags'\n        - {name: filter, in: query, style: deepObject, schema: {type: object}}\ncomponents:\n  parameters:\n    Tags: {name: tags, in: query, explode: false, schema: {type: array}}\n",
            ),
            with(
                0b1001,
                r#"put
{"openapi": "3.1.0", "servers": [{"url": "/v1"}], "paths": {"/{id}": {"put": {"operationId": "put",
 "parameters": [{"name": "id", "in": "path", "schema": {"default": "x"}}],
 "requestBody": {"required": true, "content": {"application/merge-patch+json": {}}}}}}}"#,
            ),
            with(
                0b11,
                "form\nswagger: '2.0'\nhost: h.example\nbasePath: /v2\nschemes: [https]\nconsumes: [text/plain]\npaths:\n  /x:\n    post:\n      operationId: form\n      parameters:\n        - {name: id, in: header}\n        - {name: tags, in: formData, collectionFormat: pipes}\n",
            ),
        ],
        "page" => vec![
            List::Runs.token(&"search", &"019a").into_bytes(),
            List::History
                .token(&"search", &serde_json::json!({"after": 7}))
                .into_bytes(),
            {
                let cursor = Cursor {
                    caller: "c".to_owned(),
                    total: 3,
                    sources: vec![Source::new("weather".to_owned(), "a".to_owned())],
                };
                cursor.encode().into_bytes()
            },
        ],
        "peek" => vec![
            sent().encode_to_vec(),
            a2a::GetTaskRequest {
                tenant: "weather".to_owned(),
                id: "t".to_owned(),
                ..Default::default()
            }
            .encode_to_vec(),
            a2a::StreamResponse {
                payload: Some(a2a::stream_response::Payload::Task(a2a::Task {
                    id: "t".to_owned(),
                    ..Default::default()
                })),
            }
            .encode_to_vec(),
        ],
        "question" => texts(&[
            "What was the weather in Oslo and Seattle from 2014-03-01 to 2014-03-04 at 14:00?",
            "Seattle, tomorrow",
            "Launch, start 2014-03-03\n- Build\n  1. Design 2d (ada)\n  2. Write 3 days after Design\n- Test: 4h, priority high\n",
        ]),
        "registration" => vec![
            with(
                0,
                RegisterRequest {
                    instance: Some(Instance {
                        agent_id: "weather".to_owned(),
                        endpoint: "http://127.0.0.1:7411".to_owned(),
                        card: Some(card()),
                        ..Default::default()
                    }),
                }
                .encode_to_vec(),
            ),
            with(
                1,
                HeartbeatRequest {
                    lease_id: "l".to_owned(),
                    load: 0.5,
                    ..Default::default()
                }
                .encode_to_vec(),
            ),
            with(
                2,
                DiscoverRequest {
                    skills: vec!["forecast".to_owned()],
                    tags: vec!["weather".to_owned()],
                    text: "two cities".to_owned(),
                    ..Default::default()
                }
                .encode_to_vec(),
            ),
        ],
        "sse" => texts(&[
            ": hello\n\nid: 1\nevent: message\ndata: {\"a\":\ndata: 1}\n\n",
            "data: one\r\n\r\ndata:two\r\rdata\n\n",
        ]),
        "status" => vec![
            with(
                5,
                muster_a2a::error::ProtocolError::TaskNotFound
                    .status("no such task")
                    .details(),
            ),
            with(8, b"\x08\x08\x12\x01x"),
        ],
        "table" => vec![
            with(
                0,
                "city;rain;day\nOslo;2;2014-03-01\n\"Sea\"\"ttle\";4.5;2014-03-02\n;;\n",
            ),
            with(
                1,
                r#"[{"city": "Oslo", "rain": 2}, {"city": null, "rain": 4.5, "wet": true}]"#,
            ),
            with(
                2,
                r#"{"csv": "city,rain\nOslo,2\nOslo,4", "operation": {"type": "sql", "query": "SELECT city, avg(rain) AS rain FROM data GROUP BY city"}}"#,
            ),
            with(
                2,
                r#"{"rows": [{"x": 1, "y": 2}, {"x": 2, "y": 9}], "operations": ["summary", {"type": "chart", "kind": "line", "x": "x", "y": "y"}]}"#,
            ),
            with(7, "rain,wind\n2,3\n4,5\n90,4\n"),
        ],
        "token" => texts(&[
            "eyJhbGciOiJFZERTQSIsImtpZCI6ImUifQ.eyJzdWIiOiJhZGEiLCJleHAiOjE4MDAwMDAwMDB9.AAAA\n{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEiLCJleHAiOjE4MDAwMDAwMDB9.\n{\"keys\": []}",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEiLCJleHAiOjE4MDAwMDAwMDB9.c2lnbmF0dXJl\n",
        ]),
        "transcode" => texts(&[
            "POST /v1/instances\n{\"instance\": {\"agentId\": \"weather\", \"endpoint\": \"http://h\", \"card\": {\"name\": \"w\", \"skills\": [{\"id\": \"s\"}]}}}",
            "GET /v1/agents?pageSize=5&pageToken=x&skills=a&skills=b\n",
            "POST /v1/leases/l:heartbeat\n{\"load\": 0.5}",
            "GET /v1/inbox/a%20b\n",
            "POST /v1/inbox\n{\"ttl\": \"3.5s\"}",
        ]),
        "workflow" => texts(&[
            "document: { dsl: 1.0.3, namespace: test, name: one, version: 1.0.0 }\ndo:\n  - a: { set: { x: '${ .y }' } }\n  - b: { wait: PT1S }\n",
            "document: { dsl: 1.0.3, namespace: test, name: two, version: 1.0.0 }\ndo:\n  - a:\n      call: a2a\n      with: { server: agent://weather, method: SendMessage, parameters: { message: { parts: [ { text: x } ] } } }\n  - b:\n      try: [ { c: { call: http, with: { method: get, endpoint: 'http://127.0.0.1/x' } } } ]\n      catch: { retry: { limit: { attempt: { count: 3 } } } }\n  - d: { fork: { branches: [ { e: { raise: { error: { type: 'about:blank', status: 500 } } } } ] } }\n",
        ]),
        other => panic!("'{other}' has no seeds"),
    }
}

/// What becomes of a seed in a few steps.
fn mutant(seed: &[u8], others: &[Vec<u8>], chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..chance.random_range(1..=6) {
        let at = chance.random_range(0..=bytes.len());
        let end = (at + chance.random_range(0..=16)).min(bytes.len());
        match chance.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.random_range(0..8),
            1 => bytes.insert(at, TELLING[chance.random_range(0..TELLING.len())]),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].repeat(chance.random_range(1..=40));
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &others[chance.random_range(0..others.len())];
                let from = chance.random_range(0..=other.len());
                let piece = other[from..].to_vec();
                bytes.splice(at..end, piece);
            }
            5 if at < bytes.len() => bytes[at] = chance.random(),
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
    bytes
}

fn hold(name: &str, target: fn(&[u8]), bytes: &[u8]) {
    PANICKED.set(false);
    let outcome = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    let is_well = outcome.is_ok() && !PANICKED.get();
    assert!(is_well, "{name}: {:?}", String::from_utf8_lossy(bytes));
}

/// Gives a target its seeds, and what becomes of them.
fn holds(name: &str) {
    static NOTICED: Once = Once::new();
    NOTICED.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.set(true);
            told(panic);
        }));
    });
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target '{name}'"));
    let seeds = seeds(name);
    for (seed, number) in seeds.iter().zip(0_u64..) {
        hold(name, *target, seed);
        let mut chance = StdRng::seed_from_u64(number);
        for _ in 0..MUTANTS {
            hold(name, *target, &mutant(seed, &seeds, &mut chance));
        }
    }
}

/// A test for each target, so that a failure has its name.
macro_rules! hold_for_their_seeds_and_what_becomes_of_them {
    ($($name:ident),+ $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($name)),+];

        mod hold_for_their_seeds_and_what_becomes_of_them {
            $(
                #[test]
                fn $name() {
                    super::holds(stringify!($name));
                }
            )+
        }
    };
}

hold_for_their_seeds_and_what_becomes_of_them!(
    asyncapi,
    backup,
    card,
    challenge,
    cloud_event,
    contract,
    expression,
    frame,
    headers,
    identity,
    json,
    log,
    mcp,
    openapi,
    page,
    peek,
    question,
    registration,
    sse,
    status,
    table,
    token,
    transcode,
    workflow,
);

fn table(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folder, relative to the root, of each of our packages.
fn packages() -> BTreeMap<String, String> {
    let workspace = table(&repository_file("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folders = members.iter().map(|member| member.as_str().unwrap().to_owned());
    let named = |folder: String| {
        let manifest = table(&repository_file(&format!("{folder}/Cargo.toml")));
        (manifest["package"]["name"].as_str().unwrap().to_owned(), folder)
    };
    folders.map(named).collect()
}

/// The packages that the workspace calls by another name, by that name.
fn renamed() -> BTreeMap<String, String> {
    let workspace = table(&repository_file("Cargo.toml"));
    let dependencies = workspace["workspace"]["dependencies"].as_table().unwrap().iter();
    let renamed = dependencies.filter_map(|(name, value)| {
        let package = value.get("package")?.as_str()?;
        Some((name.clone(), package.to_owned()))
    });
    renamed.collect()
}

/// What a package needs to be built, whatever its own tests need.
fn needed(manifest: &Table, renamed: &BTreeMap<String, String>) -> BTreeSet<String> {
    let of = |table: &Table| -> BTreeSet<String> {
        let sections = ["dependencies", "build-dependencies"].into_iter();
        let tables = sections.filter_map(|section| table.get(section)?.as_table());
        let required = |value: &Value| value.get("optional").and_then(Value::as_bool) != Some(true);
        tables
            .flatten()
            .filter(|(_, value)| required(value))
            .map(|(name, _)| renamed.get(name).unwrap_or(name).clone())
            .collect()
    };
    let mut all = of(manifest);
    for target in manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
        .filter_map(|(_, value)| value.as_table())
    {
        all.extend(of(target));
    }
    all
}

#[test]
fn the_lock_of_the_fuzz_targets_is_complete_and_current_and_each_has_a_program() {
    let folder = "tests/fuzz";
    let manifest = table(&repository_file(&format!("{folder}/Cargo.toml")));
    let lock = table(&repository_file(&format!("{folder}/Cargo.lock")));
    let locked: BTreeMap<&str, BTreeSet<&str>> = lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package.get("source").is_none())
        .map(|package| {
            let listed = package.get("dependencies").and_then(Value::as_array);
            let names = listed.into_iter().flatten().map(|name| {
                // With a version where there are several.
                let name = name.as_str().unwrap();
                name.split(' ').next().unwrap()
            });
            (package["name"].as_str().unwrap(), names.collect())
        })
        .collect();
    let (packages, renamed) = (packages(), renamed());
    let mut pending = vec!["muster-fuzz".to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(name) = pending.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let manifest = match packages.get(&name) {
            Some(folder) => table(&repository_file(&format!("{folder}/Cargo.toml"))),
            None => manifest.clone(),
        };
        let in_lock = locked
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{folder}/Cargo.lock lacks {name}: cargo update --workspace there"));
        for dependency in needed(&manifest, &renamed) {
            assert!(
                in_lock.contains(dependency.as_str()),
                "{folder}/Cargo.lock does not know that {name} needs {dependency}: cargo update --workspace there"
            );
            if packages.contains_key(&dependency) {
                pending.push(dependency);
            }
        }
    }
    let programs = manifest["bin"].as_array().unwrap().iter();
    let programs: Vec<&str> = programs
        .map(|program| program["name"].as_str().unwrap())
        .collect();
    let names = targets::TARGETS.map(|(name, _)| name);
    assert_eq!(programs, names);
    assert_eq!(TESTED, names, "each has a test");
    for name in programs {
        let text =
            std::fs::read_to_string(repository_file(&format!("{folder}/fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            text.contains(&format!("muster_fuzz::{name}::run(bytes)")),
            "{name}"
        );
    }
}
