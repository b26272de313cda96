//! Strangers: the official Python and JavaScript A2A clients, agents of both SDKs, `buf curl` and grpcurl by reflection.

#[path = "interop/canaries.rs"]
mod canaries;
#[path = "interop/kept.rs"]
mod kept;
#[path = "interop/traces.rs"]
mod traces;

use std::net::SocketAddr;
use std::process::Output;

use muster_api::a2a;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_testkit::{Process, Program, http, wait_for};
use muster_tests::{Dev, PATIENCE, Sdk, Stranger, repository_file, tool};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

async fn run(mut command: Command) -> Output {
    command.kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What goes before an agent's name in the URL of its card.
#[derive(Debug, Clone, Copy)]
enum Way {
    Direct,
    ThroughTheRouter,
}

impl Way {
    fn url(self, dev: &Dev, agent: &str) -> String {
        match self {
            Self::Direct => dev.url(agent),
            Self::ThroughTheRouter => format!("{}/{agent}", dev.url("router")),
        }
    }
}

/// Runs one of the clients over these bindings.
async fn works(client: Sdk, way: Way, bindings: &[&str]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(directory.path()).await;
    let (weather, helpdesk) = (way.url(&dev, "weather"), way.url(&dev, "customer-service"));
    for binding in bindings {
        let said = client.run("a2a_client", &[&weather, &helpdesk, binding]).await;
        assert_eq!(said["binding"], *binding);
    }
}

#[tokio::test]
async fn the_official_python_client_works_over_grpc() {
    works(Sdk::Python, Way::ThroughTheRouter, &["GRPC"]).await;
}

#[tokio::test]
async fn the_official_python_client_works_over_json_rpc() {
    works(Sdk::Python, Way::ThroughTheRouter, &["JSONRPC"]).await;
}

#[tokio::test]
async fn the_official_python_client_works_over_http_json() {
    works(Sdk::Python, Way::ThroughTheRouter, &["HTTP+JSON"]).await;
}

#[tokio::test]
async fn the_official_python_client_works_with_an_agent_alone() {
    works(Sdk::Python, Way::Direct, &["GRPC", "JSONRPC", "HTTP+JSON"]).await;
}

#[tokio::test]
async fn the_official_javascript_client_works_over_grpc() {
    works(Sdk::JavaScript, Way::ThroughTheRouter, &["GRPC"]).await;
}

#[tokio::test]
async fn the_official_javascript_client_works_over_json_rpc() {
    works(Sdk::JavaScript, Way::ThroughTheRouter, &["JSONRPC"]).await;
}

#[tokio::test]
async fn the_official_javascript_client_works_over_http_json() {
    works(Sdk::JavaScript, Way::ThroughTheRouter, &["HTTP+JSON"]).await;
}

#[tokio::test]
async fn the_official_javascript_client_works_with_an_agent_alone() {
    works(Sdk::JavaScript, Way::Direct, &["GRPC", "JSONRPC", "HTTP+JSON"]).await;
}

#[tokio::test]
async fn the_routers_own_card_lists_the_skills_of_all() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(directory.path()).await;
    let address = dev.url("router").trim_start_matches("http://").parse().unwrap();
    let card = http::get(address, "/.well-known/agent-card.json")
        .await
        .unwrap()
        .json();
    let skills = card["skills"].as_array().expect("skills");
    assert!(
        skills.iter().any(|skill| skill["id"] == "weather_forecasting"),
        "{card}"
    );
}

/// Has an agent join over a binding under an id, as long as what comes back lives.
fn joins(agent: &Stranger, registry: &str, id: &str, binding: &str) -> Process {
    let card = agent.url();
    let arguments = [
        "agents",
        "register",
        "--keep",
        "--card",
        &card,
        "--id",
        id,
        "--binding",
        binding,
    ];
    let program = Program::named("muster").env("MUSTER_REGISTRY_URL", registry);
    let program = arguments.into_iter().fold(program, Program::arg);
    program.start()
}

/// ProtoJSON of a request that says this.
fn saying(text: &str) -> Value {
    let id = uuid::Uuid::now_v7();
    json!({ "message": { "messageId": id, "role": "ROLE_USER", "parts": [{ "text": text }] } })
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> http::Response {
    let headers = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let body = body.to_string().into_bytes().into();
    let sent = http::send(address, http::Method::POST, path, &headers, body).await;
    sent.unwrap_or_else(|error| panic!("{error}"))
}

async fn rpc(address: SocketAddr, path: &str, method: &str, params: Value) -> http::Response {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    post(address, path, &body).await
}

/// Says something over gRPC to a tenant; gives the task.
async fn say_over_grpc(url: String, tenant: &str, text: &str) -> a2a::Task {
    let mut client = A2aServiceClient::connect(url).await.expect("a connection");
    let mut request = tonic::Request::new(a2a::SendMessageRequest {
        tenant: tenant.to_owned(),
        message: Some(a2a::Message {
            message_id: uuid::Uuid::now_v7().to_string(),
            role: a2a::Role::User.into(),
            parts: vec![a2a::Part {
                content: Some(a2a::part::Content::Text(text.to_owned())),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    });
    let version = "1.0".parse().expect("ASCII");
    request.metadata_mut().insert("a2a-version", version);
    let answer = client
        .send_message(request)
        .await
        .expect("an answer")
        .into_inner();
    match answer.payload {
        Some(a2a::send_message_response::Payload::Task(task)) => task,
        other => panic!("no task but {other:?}"),
    }
}

fn completed_with(task: &Value, text: &str) {
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
    assert_eq!(task["artifacts"][0]["parts"][0]["text"], text, "{task}");
}

#[tokio::test]
async fn an_agent_of_the_official_python_sdk_answers_on_every_binding() {
    answers_on_every_binding(&Stranger::start(Sdk::Python).await).await;
}

#[tokio::test]
async fn an_agent_of_the_official_javascript_sdk_answers_on_every_binding() {
    answers_on_every_binding(&Stranger::start(Sdk::JavaScript).await).await;
}

async fn answers_on_every_binding(agent: &Stranger) {
    let answer = rpc(agent.web(), "/jsonrpc", "SendMessage", saying("echo one")).await;
    completed_with(&answer.json()["result"]["task"], "one");
    let answer = post(agent.web(), "/rest/message:send", &saying("echo two")).await;
    completed_with(&answer.json()["task"], "two");
    let task = say_over_grpc(agent.grpc_url(), "", "echo three").await;
    assert_eq!(task.status.unwrap_or_default().state(), a2a::TaskState::Completed);
}

#[tokio::test]
async fn an_agent_of_the_official_python_sdk_is_reached_through_the_router() {
    is_reached_through_the_router(&Stranger::start(Sdk::Python).await).await;
}

#[tokio::test]
async fn an_agent_of_the_official_javascript_sdk_is_reached_through_the_router() {
    is_reached_through_the_router(&Stranger::start(Sdk::JavaScript).await).await;
}

async fn is_reached_through_the_router(agent: &Stranger) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(directory.path()).await;
    let router: SocketAddr = dev
        .url("router")
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    // One after the other, so that the skill leads to the one binding that is tried.
    for (id, binding) in [
        ("by-grpc", "GRPC"),
        ("by-rpc", "JSONRPC"),
        ("by-rest", "HTTP+JSON"),
    ] {
        let joined = joins(agent, &dev.url("registry"), id, binding);
        let card = format!("/{id}/.well-known/agent-card.json");
        wait_for(&format!("the router to know {id}"), PATIENCE, async || {
            let card = http::get(router, &card).await;
            card.is_ok_and(|card| card.status == 200)
        })
        .await;
        serves_every_operation(&dev, router, id).await;
        drop(joined);
    }
}

/// The address in a URL of a host alone.
fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

/// Runs the script of the official Python package that signs and verifies cards.
async fn signing(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(tool("python"));
    command
        .arg(repository_file("tests/interop/a2a_signing.py"))
        .args(arguments);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("Python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let exchanged = tokio::time::timeout(PATIENCE, async {
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        child.wait_with_output().await
    });
    exchanged
        .await
        .expect("Python ends")
        .expect("Python is spoken with")
}

#[tokio::test]
async fn cards_signed_with_ed25519_are_verified_by_the_official_python_sdk_and_its_own_by_us() {
    signatures_are_good_on_both_sides("EdDSA").await;
}

#[tokio::test]
async fn cards_signed_with_es256_are_verified_by_the_official_python_sdk_and_its_own_by_us() {
    signatures_are_good_on_both_sides("ES256").await;
}

async fn signatures_are_good_on_both_sides(algorithm: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (key, trusted) = (path("key.pem"), path("jwks.json"));
    assert!(signing(&["key", algorithm, &key], "").await.status.success());
    let key_set = signing(&["jwks", &key, "k1"], "").await;
    std::fs::write(&trusted, &key_set.stdout).expect("the keys are written");

    // The registry takes signed cards only, so that the fleet comes up says that ours are.
    let settings = [
        format!("router.card_signing.key_file={key}"),
        "router.card_signing.key_id=k1".to_owned(),
        format!("agent.card_signing.key_file={key}"),
        "agent.card_signing.key_id=k1".to_owned(),
        format!("registry.card_trust.jwks_file={trusted}"),
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let dev = Dev::start_with(&directory.path().join("data"), &arguments).await;
    let served = http::get(address(&dev.url("router")), "/.well-known/jwks.json").await;
    let served_keys = path("served.json");
    std::fs::write(&served_keys, served.expect("the keys").text()).expect("the keys are written");
    for (service, place) in [
        ("router", "/weather/.well-known/agent-card.json"),
        ("router", "/.well-known/agent-card.json"),
        ("weather", "/.well-known/agent-card.json"),
    ] {
        let card = http::get(address(&dev.url(service)), place)
            .await
            .expect("a card");
        let again = http::get(address(&dev.url(service)), place)
            .await
            .expect("a card");
        assert_eq!(card.headers["etag"], again.headers["etag"], "{place}");
        let verified = signing(&["verify", &served_keys], &card.text()).await;
        assert!(verified.status.success(), "{place}: {}", text(&verified.stderr));
        let changed = card
            .text()
            .replacen("\"description\":\"", "\"description\":\"Not ", 1);
        let refused = signing(&["verify", &served_keys], &changed).await;
        assert!(!refused.status.success(), "{place}");
        let url = format!("{}{place}", dev.url(service));
        let verified = dev
            .muster(&["agents", "card", "verify", &url, "--jwks", &trusted])
            .await;
        assert_eq!(verified.code, 0, "{verified:?}");
    }

    // The other way round.
    let mut card = http::get(address(&dev.url("weather")), "/.well-known/agent-card.json")
        .await
        .expect("a card")
        .json();
    card["signatures"] = json!([]);
    let signed = text(&signing(&["sign", &key, "k1"], &card.to_string()).await.stdout);
    let file = path("card.json");
    for (content, is_good) in [
        (signed.clone(), true),
        (signed.replacen("eather", "hether", 1), false),
    ] {
        std::fs::write(&file, content).expect("the card is written");
        let finished = dev
            .muster(&["agents", "card", "verify", &file, "--jwks", &trusted])
            .await;
        assert_eq!(finished.code == 0, is_good, "{finished:?}");
    }

    // An agent whose card nobody has signed does not join.
    let stranger = Stranger::start(Sdk::Python).await;
    let card = stranger.url();
    let refused = dev.muster(&["agents", "register", "--card", &card]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("signatures"), "{refused:?}");
}

/// What a caller of the router can ask of the agent of that id.
async fn serves_every_operation(dev: &Dev, router: SocketAddr, id: &str) {
    let path = format!("/{id}");
    for target in [id, "skill:stranger_echo"] {
        let task = say_over_grpc(dev.url("router"), target, "echo hello").await;
        assert_eq!(task.status.unwrap_or_default().state(), a2a::TaskState::Completed);
        let there = format!("/{target}");
        let answer = rpc(router, &there, "SendMessage", saying("echo hello")).await;
        completed_with(&answer.json()["result"]["task"], "hello");
        let answer = post(router, &format!("{there}/message:send"), &saying("echo hello")).await;
        completed_with(&answer.json()["task"], "hello");
    }

    let streamed = rpc(router, &path, "SendStreamingMessage", saying("echo hello")).await;
    let streamed = streamed.text();
    let events: Vec<Value> = streamed
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    assert!(events[0]["result"]["task"].is_object(), "{streamed}");
    let last = events.last().expect("events");
    assert_eq!(
        last["result"]["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED",
        "{streamed}"
    );

    // A task that is open belongs to the agent, which is asked about it and can be told to stop.
    let open = say_over_grpc(dev.url("router"), id, "ask").await;
    let got = rpc(router, &path, "GetTask", json!({ "id": open.id }))
        .await
        .json();
    assert_eq!(
        got["result"]["status"]["state"], "TASK_STATE_INPUT_REQUIRED",
        "{got}"
    );
    let canceled = rpc(router, &path, "CancelTask", json!({ "id": open.id }))
        .await
        .json();
    assert_eq!(
        canceled["result"]["status"]["state"], "TASK_STATE_CANCELED",
        "{canceled}"
    );
}

#[tokio::test]
async fn reflection_and_health_serve_buf_curl_and_grpcurl() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path()).await;
    let expected = [
        ("registry", "muster.registry.v1.RegistryService"),
        ("router", "lf.a2a.v1.A2AService"),
        ("workflow-engine", "muster.workflow.v1.WorkflowService"),
        ("weather", "lf.a2a.v1.A2AService"),
        ("planning", "lf.a2a.v1.A2AService"),
        ("customer-service", "lf.a2a.v1.A2AService"),
        ("data-analysis", "lf.a2a.v1.A2AService"),
        ("security-monitor", "lf.a2a.v1.A2AService"),
    ];
    for (service, contract) in expected {
        let url = dev.url(service);
        let address = url.trim_start_matches("http://");

        // grpcurl asks for reflection v1alpha.
        let mut command = Command::new(tool("grpcurl"));
        command.args(["-plaintext", address, "list"]);
        let output = run(command).await;
        let listed = text(&output.stdout);
        assert!(
            output.status.success() && listed.contains(contract),
            "{service}: {listed}{}",
            text(&output.stderr)
        );

        let others = ["muster.registry.v1.", "lf.a2a.v1.", "muster.workflow.v1."];
        for other in others.iter().filter(|other| !contract.starts_with(**other)) {
            assert!(
                !listed.contains(other),
                "{service} lists what it does not serve: {listed}"
            );
        }

        // buf curl asks for v1.
        let mut command = Command::new(tool("buf"));
        let method = format!("{url}/grpc.health.v1.Health/Check");
        command.args(["curl", "--http2-prior-knowledge", "--protocol", "grpc", "--data"]);
        command.arg(format!(r#"{{"service": "{contract}"}}"#)).arg(method);
        let output = run(command).await;
        let said = text(&output.stdout);
        assert!(
            output.status.success(),
            "{service}: {said}{}",
            text(&output.stderr)
        );
        assert!(said.contains("\"SERVING\""), "{service}: {said}");
    }
}

/// A run of this document, on one `muster dev`: its status and output.
async fn outcome(dev: &Dev, directory: &std::path::Path, document: &str) -> Value {
    let path = directory.join("document.yaml");
    std::fs::write(&path, document).expect("the document is written");
    let path = path.display().to_string();
    let finished = dev
        .muster(&["workflow", "run", &path, "--wait", "-o", "json"])
        .await;
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// A document with one call of an MCP server.
fn mcp(transport: &str, method: &str, parameters: &str) -> String {
    format!(
        "document: {{dsl: '1.0.3', namespace: test, name: test, version: '1.0.0'}}\ndo:\n  - ask:\n      call: mcp\n      \
         with: {{method: {method}, parameters: {parameters}, transport: {transport}}}\n"
    )
}

#[tokio::test]
async fn a_server_of_the_official_python_package_is_called_over_both_transports() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let python = tool("python").display().to_string();
    let script = repository_file("tests/interop/mcp_server.py")
        .display()
        .to_string();
    let allowed = format!("engine.mcp_stdio_commands=[\"{python}\"]");
    let dev = Dev::start_with(directory.path(), &["--set", &allowed]).await;

    let ports = muster_testkit::Ports::reserve();
    let port = ports.data;
    let log = directory.path().join("log");
    let mut server = Command::new(&python);
    server
        .args([&script, &port.to_string()])
        .env("MCP_TEST_LOG", &log)
        .kill_on_drop(true);
    let _server = server.spawn().expect("the server starts");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the server to answer", PATIENCE, async || {
        muster_testkit::http::get(address, "/mcp").await
    })
    .await;

    let over_http = format!("{{http: {{endpoint: 'http://{address}/mcp'}}}}");
    let over_stdio = format!("{{stdio: {{command: '{python}', arguments: ['{script}', stdio]}}}}");
    for transport in [&over_http, &over_stdio] {
        let call = async |method: &str, parameters: &str| {
            let run = outcome(&dev, directory.path(), &mcp(transport, method, parameters)).await;
            assert_eq!(run["status"], "completed", "{transport} {method}: {run}");
            run["output"].clone()
        };
        let sum = call("tools/call", "{name: add, arguments: {a: 2, b: 3}}").await;
        assert_eq!(sum["structuredContent"]["result"], 5, "{sum}");
        let failed = call("tools/call", "{name: fail, arguments: {}}").await;
        assert_eq!(failed["isError"], true, "{failed}");
        let tools = call("tools/list", "{}").await;
        assert_eq!(tools["tools"].as_array().map(Vec::len), Some(3), "{tools}");
        let prompt = call("prompts/get", "{name: review, arguments: {code: x}}").await;
        assert_eq!(prompt["messages"][0]["content"]["text"], "Please review: x");
        let note = call("resources/read", "{uri: 'note://ada'}").await;
        assert_eq!(note["contents"][0]["text"], "about ada");
        let templates = call("resources/templates/list", "{}").await;
        assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "note://{name}");
        call("prompts/list", "{}").await;
        call("resources/list", "{}").await;
    }

    let slow = mcp(&over_http, "tools/call", "{name: slow, arguments: {}}")
        + "      timeout: {after: {seconds: 1}}\n";
    let run = outcome(&dev, directory.path(), &slow).await;
    assert_eq!(run["status"], "faulted", "{run}");
    wait_for("the server to cancel its work", PATIENCE, async || {
        std::fs::read_to_string(&log).map_err(|error| error.to_string())
    })
    .await;
}
