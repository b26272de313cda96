//! Traces as a collector gets them that is not ours (`rotel`): one trace from a caller through the engine, the router and two agents,
//! which goes on after a kill. And what a scraper sees of the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use muster_api::a2a::{AgentCapabilities, AgentExtension};
use muster_api::extension::{ROUTING, TRACE_IN_METADATA};
use muster_api::registry::RegisterRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_testkit::{FakeAgent, Process, Program, http, wait_for};
use muster_tests::{Dev, PATIENCE, tool};
use serde_json::json;

/// Two agents, and between them a pause in which the process is killed.
const TWO_AGENTS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: two-agents, version: 1.0.0 }
do:
  - before:
      call: a2a
      with:
        server: skill://weather_forecasting
        method: SendMessage
        parameters: { message: { parts: [ { text: "Seattle 2014-03-01 to 2014-03-02" } ] } }
  - pause: { wait: { seconds: 3 } }
  - after:
      call: a2a
      with:
        server: agent://customer-service
        method: SendMessage
        parameters: { message: { parts: [ { text: "How does the router choose an instance?" } ] } }
"#;

/// The caller's span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Runs the program that the package brings: it prints what it gets.
const ROTEL: &str = "import os, rotel, sys; \
    program = os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'); \
    os.execv(program, [program] + sys.argv[1:])";

/// A collector.
pub struct Rotel {
    process: Process,
    pub endpoint: String,
}

/// A span as the collector prints it.
#[derive(Debug, Clone, Default)]
struct Span {
    service: String,
    trace: String,
    parent: String,
    id: String,
    name: String,
    attributes: BTreeMap<String, String>,
}

impl Rotel {
    pub async fn start() -> Self {
        let program = Program::at(tool("python")).arg("-c").arg(ROTEL);
        let (grpc, web) = (program.ports().data, program.ports().health);
        let directory = std::env::temp_dir().join(format!("rotel-{grpc}"));
        let arguments = [
            "start".to_owned(),
            "--exporter=blackhole".to_owned(),
            "--debug-log=traces".to_owned(),
            "--debug-log-verbosity=detailed".to_owned(),
            "--batch-timeout=50ms".to_owned(),
            format!("--otlp-grpc-endpoint=127.0.0.1:{grpc}"),
            format!("--otlp-http-endpoint=127.0.0.1:{web}"),
            format!("--pid-file={}.pid", directory.display()),
            format!("--log-file={}.log", directory.display()),
        ];
        let process = arguments.into_iter().fold(program, Program::arg).start();
        let address = format!("127.0.0.1:{grpc}");
        wait_for("the collector", PATIENCE, async || {
            tokio::net::TcpStream::connect(&address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;
        Self {
            process,
            endpoint: format!("http://{address}"),
        }
    }

    /// Everything that it got, in words.
    pub fn said(&self) -> String {
        self.process.stdout()
    }

    /// The spans that it got of the caller's trace.
    fn spans(&self) -> Vec<Span> {
        let said = self.process.stdout();
        let mut spans: Vec<Span> = Vec::new();
        let (mut service, mut in_resource) = (String::new(), false);
        for line in said.lines().map(str::trim) {
            if line.starts_with("Resource attributes") {
                in_resource = true;
            } else if line.starts_with("Span #") {
                in_resource = false;
                spans.push(Span {
                    service: service.clone(),
                    ..Span::default()
                });
            } else if let Some(attribute) = line.strip_prefix("-> ") {
                let Some((key, value)) = attribute.split_once(": ") else {
                    continue;
                };
                let value = value
                    .split_once('(')
                    .and_then(|(_, value)| value.strip_suffix(')'));
                let value = value.unwrap_or_default().to_owned();
                match spans.last_mut() {
                    _ if in_resource && key == "service.name" => service = value,
                    Some(span) if !in_resource => {
                        span.attributes.insert(key.to_owned(), value);
                    }
                    _ => {}
                }
            } else if let (Some((key, value)), Some(span)) = (line.split_once(':'), spans.last_mut()) {
                let value = value.trim().to_owned();
                match key.trim() {
                    "Trace ID" => span.trace = value,
                    "Parent ID" => span.parent = value,
                    "ID" => span.id = value,
                    "Name" => span.name = value,
                    _ => {}
                }
            }
        }
        spans.retain(|span| span.trace == TRACE);
        spans
    }
}

/// The spans from one up to the caller, by service and name.
fn ancestry<'s>(spans: &HashMap<&str, &'s Span>, from: &'s Span) -> Vec<String> {
    let mut line = vec![format!("{}: {}", from.service, from.name)];
    let mut at = from;
    while let Some(parent) = spans.get(at.parent.as_str()) {
        line.push(format!("{}: {}", parent.service, parent.name));
        at = parent;
    }
    line.push(at.parent.clone());
    line
}

fn dev_arguments(rotel: &Rotel) -> [String; 6] {
    [
        "--set".to_owned(),
        format!("telemetry.otlp.endpoint={}", rotel.endpoint),
        "--set".to_owned(),
        "telemetry.otlp.batch_interval_milliseconds=20".to_owned(),
        "--set".to_owned(),
        // Only what the caller wants recorded is.
        "telemetry.otlp.sample_ratio=0".to_owned(),
    ]
}

async fn started(directory: &std::path::Path, rotel: &Rotel) -> Dev {
    let arguments = dev_arguments(rotel);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Dev::start_with(directory, &arguments).await
}

#[tokio::test]
async fn a_run_is_one_trace_from_its_caller_to_the_agents_and_goes_on_after_a_kill() {
    let rotel = Rotel::start().await;
    let directory = tempfile::tempdir().unwrap();
    let dev = started(directory.path(), &rotel).await;
    let engine = dev
        .url("workflow-engine")
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let body = json!({"runId": "traced", "document": TWO_AGENTS}).to_string();
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", parent.as_str()),
    ];
    let method = http::Method::POST;
    let accepted = http::send(engine, method, "/v1/runs", &headers, body.into_bytes().into()).await;
    assert_eq!(accepted.unwrap().status.as_u16(), 200);
    told(&rotel, "weather", "before", "skill://weather_forecasting", false).await;
    dev.process.kill().await;

    let dev = started(directory.path(), &rotel).await;
    dev.completed("traced").await;
    told(&rotel, "weather", "before", "skill://weather_forecasting", true).await;
    let spans = told(
        &rotel,
        "customer-service",
        "after",
        "agent://customer-service",
        true,
    )
    .await;
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "no span is told twice: {spans:#?}");
    assert!(spans.iter().any(|span| span.name == "step pause"), "{spans:#?}");

    scraped(&dev).await;
    let said = dev.process.stderr();
    assert!(said.is_empty() || !said.contains("panic"), "{said}");
}

/// Waits until all that is between the work of an agent and the caller was told: of a run that goes on, up to its step.
async fn told(rotel: &Rotel, agent: &str, step: &str, target: &str, has_ended: bool) -> Vec<Span> {
    let mut expected = vec![
        format!("{agent}: invoke_agent {agent}"),
        format!("{agent}: lf.a2a.v1.A2AService/SendMessage"),
        format!("router: invoke_agent {agent}"),
        "router: lf.a2a.v1.A2AService/SendMessage".to_owned(),
        format!("workflow-engine: SendMessage {target}"),
        format!("workflow-engine: step {step}"),
    ];
    if has_ended {
        expected.extend([
            "workflow-engine: run two-agents".to_owned(),
            "workflow-engine: POST /v1/runs".to_owned(),
            CALLER.to_owned(),
        ]);
    }
    wait_for("the spans of the run", PATIENCE, async || {
        let spans = rotel.spans();
        let by_id: HashMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
        let mut work = spans.iter();
        let Some(work) =
            work.find(|span| span.service == agent && span.attributes.contains_key("muster.task.id"))
        else {
            return Err(format!("nothing of {agent}: {spans:#?}"));
        };
        let mut line = ancestry(&by_id, work);
        if !has_ended {
            line.truncate(expected.len());
        }
        if line != expected {
            return Err(format!("{line:#?}, and expected is {expected:#?}"));
        }
        let attempt = by_id[by_id[work.parent.as_str()].parent.as_str()];
        assert_eq!(work.attributes["gen_ai.operation.name"], "invoke_agent");
        assert_eq!(attempt.attributes["gen_ai.agent.id"], agent);
        assert_eq!(attempt.attributes["muster.retry.count"], "0");
        assert!(
            attempt.attributes.contains_key("muster.instance.id"),
            "{attempt:?}"
        );
        drop(by_id);
        Ok(spans)
    })
    .await
}

/// A message to an agent over HTTP+JSON, with these headers.
async fn posted(address: SocketAddr, path: &str, headers: &[(&str, &str)], metadata: serde_json::Value) {
    let body = json!({"message": {
        "messageId": format!("traced-{path}"),
        "role": "ROLE_USER",
        "parts": [{"text": "Seattle 2014-03-01 to 2014-03-02"}],
        "metadata": metadata,
    }});
    let plain = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let headers = [&plain[..], headers].concat();
    let method = http::Method::POST;
    let answer = http::send(
        address,
        method,
        path,
        &headers,
        body.to_string().into_bytes().into(),
    )
    .await;
    let answer = answer.unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
}

/// The span whose work an agent does, as the collector knows it.
async fn known(rotel: &Rotel, service: &str, name: &str) -> Span {
    wait_for("the span", PATIENCE, async || {
        let spans = rotel.spans();
        let mut spans = spans.iter();
        spans
            .find(|span| span.service == service && span.name == name)
            .cloned()
            .ok_or_else(|| format!("no {name} of {service}"))
    })
    .await
}

#[tokio::test]
async fn an_agent_that_sees_no_headers_reads_the_trace_from_the_metadata_of_its_messages() {
    let rotel = Rotel::start().await;
    let directory = tempfile::tempdir().unwrap();
    let dev = started(directory.path(), &rotel).await;
    let address = |service: &str| -> SocketAddr {
        let url = dev.url(service);
        url.trim_start_matches("http://").parse().unwrap()
    };

    // Our own agent, called by somebody who sets no header.
    let own = json!({"traceparent": format!("00-{TRACE}-{CALLER}-01"), "tracestate": "vendor=x"});
    posted(address("weather"), "/message:send", &[], own).await;
    let work = known(&rotel, "weather", "invoke_agent weather").await;
    assert_eq!((work.trace.as_str(), work.parent.as_str()), (TRACE, CALLER));

    // A stranger behind the router, whose card asks for it, and one whose card does not.
    let mut registry = RegistryServiceClient::connect(dev.url("registry")).await.unwrap();
    let (asking, other) = (FakeAgent::start("asking").await, FakeAgent::start("other").await);
    for agent in [&asking, &other] {
        let mut instance = agent.instance(&["act"]);
        if agent.id() == "asking" {
            instance.card.as_mut().unwrap().capabilities = Some(asks_for_the_trace());
        }
        let request = RegisterRequest {
            instance: Some(instance),
        };
        registry.register(request).await.unwrap();
    }
    wait_for("the router to know both", PATIENCE, async || {
        let status = dev.muster(&["status", "-o", "json"]).await.success().json();
        let known = status["router"]["instances"].as_array().unwrap();
        let knows = |agent: &str| known.iter().any(|instance| instance["agent"] == agent);
        if knows("asking") && knows("other") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=x")];
    for agent in ["asking", "other"] {
        let path = format!("/{agent}/message:send");
        posted(address("router"), &path, &headers, json!({"own": "kept"})).await;
    }
    let attempt = known(&rotel, "router", "invoke_agent asking").await;
    let texts = |agent: &FakeAgent| -> BTreeMap<String, String> {
        let message = agent.calls()[0].request.message.clone().unwrap();
        let fields = message.metadata.unwrap_or_default().fields.into_iter();
        fields
            .map(|(name, value)| match value.kind {
                Some(prost_types::value::Kind::StringValue(text)) => (name, text),
                other => panic!("{name}: {other:?}"),
            })
            .collect()
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let span = format!("00-{TRACE}-{}-01", attempt.id);
    let expected = [
        pair("own", "kept"),
        pair("traceparent", &span),
        pair("tracestate", "vendor=x"),
    ];
    assert_eq!(texts(&asking), BTreeMap::from(expected));
    assert_eq!(texts(&other), BTreeMap::from([pair("own", "kept")]));
}

fn asks_for_the_trace() -> AgentCapabilities {
    let yes = prost_types::Value {
        kind: Some(prost_types::value::Kind::BoolValue(true)),
    };
    let params = prost_types::Struct {
        fields: [(TRACE_IN_METADATA.to_owned(), yes)].into(),
    };
    AgentCapabilities {
        streaming: Some(true),
        extensions: vec![AgentExtension {
            uri: ROUTING.to_owned(),
            params: Some(params),
            ..AgentExtension::default()
        }],
        ..AgentCapabilities::default()
    }
}

/// Every metric that dashboards know by name is there, with its labels and its bounds, and the traced request is an example.
async fn scraped(dev: &Dev) {
    let document = json!({"skill": "customer_inquiry", "question": "How does the router choose an instance?", "satisfaction": 4, "elapsed_minutes": 2});
    for arguments in [
        vec![
            "send",
            "--agent",
            "customer-service",
            "--data",
            &document.to_string(),
        ],
        vec![
            "send",
            "--skill",
            "weather_forecasting",
            "Seattle 2014-03-01 to 2014-03-02",
        ],
    ] {
        let _answered = dev.muster(&arguments).await.success();
    }
    let registry = dev.url("registry");
    let registry = registry.trim_start_matches("http://").parse().unwrap();
    let found = http::get(registry, "/v1/instances?skills=weather_forecasting").await;
    assert_eq!(found.unwrap().status, 200);
    // Refused, and counted.
    assert_ne!(dev.muster(&["send", "--agent", "nobody", "x"]).await.code, 0);
    let expected = [
        ("registry", "agent_info{service=\"registry\",version=\""),
        ("registry", "agent_discovery_requests_total{capability=\""),
        (
            "router",
            "http_requests_total{method=\"POST\",endpoint=\"/lf.a2a.v1.A2AService/SendMessage\",status_code=\"200\"}",
        ),
        (
            "router",
            "http_request_duration_seconds_bucket{method=\"POST\",endpoint=\"/lf.a2a.v1.A2AService/SendMessage\",le=\"2.5\"}",
        ),
        (
            "router",
            "grpc_server_handled_total{grpc_service=\"lf.a2a.v1.A2AService\",grpc_method=\"SendMessage\",grpc_code=\"Ok\"}",
        ),
        (
            "router",
            "grpc_server_handling_seconds_bucket{grpc_service=\"lf.a2a.v1.A2AService\",grpc_method=\"SendMessage\",grpc_code=\"NotFound\",le=\"30\"}",
        ),
        (
            "router",
            "errors_total{error_type=\"not_found\",component=\"router\"}",
        ),
        (
            "router",
            "a2a_messages_sent_total{message_type=\"send_message\",recipient=\"customer-service\"}",
        ),
        (
            "router",
            "a2a_message_latency_seconds_bucket{message_type=\"send_message\",le=\"0.05\"}",
        ),
        ("router", "router_queue_wait_seconds_bucket{le=\"0.001\"}"),
        ("router", "router_agent_places{recipient=\"weather\"}"),
        (
            "router",
            "router_breakers{recipient=\"weather\",state=\"closed\"} 1",
        ),
        ("router", "memory_usage_bytes "),
        ("router", "cpu_usage_percent "),
        ("router", "process_cpu_seconds_total "),
        ("router", "process_open_fds "),
        ("router", "process_start_time_seconds "),
        ("router", "tokio_workers "),
        ("router", "tokio_global_queue_depth "),
        ("router", "telemetry_spans_total{outcome=\"dropped\"} 0"),
        ("workflow-engine", "active_workflows 0"),
        (
            "workflow-engine",
            "workflow_executions_total{workflow_type=\"two-agents\",status=\"completed\"} 1",
        ),
        (
            "workflow-engine",
            "workflow_duration_seconds_bucket{workflow_type=\"two-agents\",le=\"1800\"}",
        ),
        (
            "workflow-engine",
            "workflow_store_commit_seconds_bucket{le=\"0.1\"}",
        ),
        (
            "workflow-engine",
            "workflow_store_commit_batches_bucket{le=\"1\"}",
        ),
        (
            "workflow-engine",
            "background_runs_total{background=\"cleanup\",outcome=\"success\"} 1",
        ),
        (
            "weather",
            "a2a_messages_received_total{message_type=\"send_message\",sender=\"router\"}",
        ),
        ("weather", "agent_task_duration_seconds_bucket{le=\"5\"}"),
        ("customer-service", "customer_satisfaction_score 4"),
        (
            "customer-service",
            "issue_resolution_time_seconds_bucket{issue_type=\"customer_inquiry\",complexity=\"unknown\",le=\"300\"} 1",
        ),
    ];
    wait_for("every metric", PATIENCE, async || {
        let mut scraped = HashMap::new();
        for (service, _) in expected {
            let text = http::get(dev.metrics_address(service), "/metrics").await?.text();
            scraped.insert(service, text);
        }
        let has = |service: &str, series: &str| {
            scraped[service]
                .lines()
                .any(|line| line.starts_with(series.trim_end()))
        };
        let mut missing = expected.iter().filter(|(service, series)| !has(service, series));
        missing.next().map_or(Ok(()), |(service, series)| {
            Err(format!("{service}: {series}\n{}", scraped[service]))
        })
    })
    .await;
    let open = [("accept", "application/openmetrics-text; version=1.0.0")];
    let example = format!(" # {{trace_id=\"{TRACE}\"}} ");
    for (service, metric) in [
        ("router", "http_request_duration_seconds_bucket{"),
        ("customer-service", "http_request_duration_seconds_bucket{"),
    ] {
        let address = dev.metrics_address(service);
        let none = Vec::<u8>::new().into();
        let text = http::send(address, http::Method::GET, "/metrics", &open, none)
            .await
            .unwrap()
            .text();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let mut buckets = text.lines().filter(|line| line.starts_with(metric));
        assert!(buckets.any(|line| line.contains(&example)), "{service}: {text}");
    }

    // What is logged of a request is found by its trace.
    let router = dev.url("router").trim_start_matches("http://").parse().unwrap();
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("muster-on-behalf-of", "nobody"),
    ];
    let body =
        json!({"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}}).to_string();
    let path = "/weather/message:send";
    let answer = http::send(router, http::Method::POST, path, &headers, body.into())
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 400, "{}", answer.text());
    wait_for("the line of the log", PATIENCE, async || {
        let said = dev.process.stderr();
        let lines = said
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut lines = lines.filter(|line| line["trace_id"] == TRACE);
        if lines.any(|line| line["level"] == "WARN" && line["span_id"].is_string()) {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;

    let status = dev.muster(&["status", "-o", "json"]).await.success().json();
    let refused = status["refused"].as_array().unwrap();
    assert!(
        refused
            .iter()
            .any(|row| row["component"] == "router" && row["errorType"] == "not_found"),
        "{status}"
    );
    assert!(!status["slowest"].as_array().unwrap().is_empty(), "{status}");
    let report = dev
        .muster(&["optimize", "report", "-o", "json"])
        .await
        .success()
        .json();
    assert_eq!(
        (&report["applies"], &report["score"]),
        (&json!(false), &json!(100)),
        "{report}"
    );

    let quieter = [
        "log-level",
        "router",
        "debug",
        "--revert-after",
        "3600",
        "-o",
        "json",
    ];
    let changed = dev.muster(&quieter).await.success().json();
    assert_eq!(
        (&changed["previous"], &changed["filter"]),
        (&json!("INFO"), &json!("debug"))
    );
    assert!(changed["revertsAt"].is_string(), "{changed}");
    dev.muster(&["send", "--skill", "weather_forecasting", "Seattle 2014-03-01"])
        .await;
    wait_for("lines at the new level", Duration::from_secs(30), async || {
        let said = dev.process.stderr();
        if said.contains("\"level\":\"DEBUG\"") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    let wrong = dev.muster(&["log-level", "router", "muster_router=loud"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
}
