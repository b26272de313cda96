//! `muster status`: every component and agent in one look, all of it measured now: is it healthy, what is slow, who was refused.

mod told;

use std::time::Duration;

use muster_api::registry::{Agent, GetStatisticsResponse};
use muster_api::router::{
    GetStatusRequest as RouterStatusRequest, GetStatusResponse as RouterStatus, InboxStatistics,
};
use muster_api::workflow::{GetStatusRequest as EngineStatusRequest, GetStatusResponse as EngineStatus};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tonic::Request;

use crate::agents;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use told::Told;

/// How long one component may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one component said, and how long it took.
struct Answer<T> {
    outcome: Result<T, Failure>,
    took: Duration,
    /// Whether the component says that it can do its work; one that answers may still have lost its store.
    ready: bool,
}

/// What the registry said.
struct Registered {
    agents: Vec<Agent>,
    /// Not from a registry that does not count.
    statistics: Option<GetStatisticsResponse>,
}

/// Everything `status` knows.
pub struct Picture {
    registry: Answer<Registered>,
    router: Answer<RouterStatus>,
    engine: Answer<EngineStatus>,
    /// What the three say of themselves.
    told: Vec<Told>,
}

/// Runs `muster status`; fails with "unavailable" when a component does not answer.
pub async fn run(endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let picture = Picture::take(endpoints).await?;
    if output.is_json() {
        output.json(&picture.json(endpoints));
    } else {
        picture.print(endpoints, output);
    }
    let silent = picture.silent();
    if silent.is_empty() {
        return Ok(());
    }
    Err(
        Failure::unavailable(format!("not serving: {}", silent.join(", ")))
            .with_remedy("start it, look at its log and /ready, or name where it answers with --registry, --router or --engine"),
    )
}

impl Picture {
    /// Asks all components at once.
    pub async fn take(endpoints: &Endpoints) -> Result<Self, Failure> {
        let (mut router, mut engine) = (endpoints.router()?, endpoints.engine()?);
        let (registry, router, engine) = tokio::join!(
            timed(endpoints, Service::Registry, async {
                Ok(Registered {
                    agents: agents::all(endpoints, &[], "").await?,
                    statistics: agents::statistics(endpoints).await?,
                })
            }),
            timed(endpoints, Service::Router, async {
                let answer = router.get_status(patient(RouterStatusRequest {})).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|s| endpoints.failure(Service::Router, &s))
            }),
            timed(endpoints, Service::Engine, async {
                let answer = engine.get_status(patient(EngineStatusRequest {})).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|s| endpoints.failure(Service::Engine, &s))
            }),
        );
        Ok(Self {
            registry,
            router,
            engine,
            told: told::ask(endpoints).await,
        })
    }

    /// What the router measured, by instance.
    fn latencies(&self) -> agents::Latencies {
        let instances = self.router.outcome.iter().flat_map(|status| &status.instances);
        instances
            .map(|instance| (instance.instance_id.clone(), instance.latency_seconds))
            .collect()
    }

    fn silent(&self) -> Vec<&'static str> {
        [
            ("registry", !self.registry.serves()),
            ("router", !self.router.serves()),
            ("engine", !self.engine.serves()),
        ]
        .into_iter()
        .filter_map(|(name, silent)| silent.then_some(name))
        .collect()
    }

    /// The tables for people.
    pub fn print(&self, endpoints: &Endpoints, output: &Output) {
        let registry = row(
            "registry",
            &endpoints.registry,
            &self.registry,
            self.health(Service::Registry),
            |registered| {
                let statistics = registered.statistics.as_ref();
                let own = statistics.and_then(|it| it.total.as_ref());
                let own = own.map_or_else(|| format!("{} agents", registered.agents.len()), agents::summary);
                match statistics.and_then(agents::foreign) {
                    Some(foreign) => format!("{own}; {foreign}"),
                    None => own,
                }
            },
        );
        let router = row(
            "router",
            &endpoints.router,
            &self.router,
            self.health(Service::Router),
            |status| {
                let view = if status.view_stale {
                    format!(", view STALE for {:.0} s", status.view_age_seconds)
                } else {
                    String::new()
                };
                let inbox = match &status.inbox {
                    Some(inbox) if inbox.pending + inbox.delivering + inbox.dead > 0 => format!(
                        ", inbox: {} pending, {} dead",
                        inbox.pending + inbox.delivering,
                        inbox.dead
                    ),
                    _ => String::new(),
                };
                let elsewhere = elsewhere(status);
                format!(
                    "queue {} of {}, {} in flight, {} answered, {} failed{elsewhere}{inbox}{view}",
                    status.queue_depth,
                    status.queue_capacity,
                    status.in_flight,
                    status.succeeded_total,
                    status.failed_total
                )
            },
        );
        let engine = row(
            "engine",
            &endpoints.engine,
            &self.engine,
            self.health(Service::Engine),
            |status| {
                let engines = match status.engines {
                    0 | 1 => String::new(),
                    engines => format!("{engines} engines share the store; "),
                };
                format!(
                    "{engines}runs: {} active of {}, {} pending, {} waiting, {} completed, {} faulted, {} cancelled",
                    status.running,
                    status.max_concurrent,
                    status.pending,
                    status.waiting,
                    status.completed_total,
                    status.faulted_total,
                    status.cancelled_total
                )
            },
        );
        output.table(
            ["COMPONENT", "HEALTH", "ENDPOINT", "ANSWERED IN", "WHAT IT SAYS"],
            vec![registry, router, engine],
        );
        if let Ok(registered) = &self.registry.outcome {
            if let Some(statistics) = &registered.statistics {
                agents::peers(statistics, output);
            }
            agents::table(&registered.agents, &self.latencies(), output);
        }
        if let Ok(status) = &self.router.outcome {
            agents_at_router(status, output);
        }
        told::print(&self.told, output);
    }

    /// What a service says of its health, where that is more than that it serves.
    fn health(&self, service: Service) -> Option<&str> {
        let told = self.told.iter().find(|told| told.service() == service);
        told.and_then(Told::health)
    }

    fn json(&self, endpoints: &Endpoints) -> Value {
        let (slowest, refused) = told::json(&self.told);
        let mut value = json!({
            "registry": component(&endpoints.registry, &self.registry, |registered| {
                json!({
                    "agents": registered.agents.iter().map(agents::agent_json).collect::<Vec<_>>(),
                    "statistics": registered.statistics.as_ref().map(agents::statistics_json),
                })
            }),
            "router": component(&endpoints.router, &self.router, router_json),
            "engine": component(&endpoints.engine, &self.engine, |status| json!({
                "engines": status.engines,
                "running": status.running,
                "pending": status.pending,
                "waiting": status.waiting,
                "maxConcurrent": status.max_concurrent,
                "completedTotal": status.completed_total,
                "faultedTotal": status.faulted_total,
                "cancelledTotal": status.cancelled_total,
            })),
            "slowest": slowest,
            "refused": refused,
        });
        for told in &self.told {
            let component = &mut value[told.service().name()];
            if let (Value::Object(component), Value::Object(own)) = (component, told.json()) {
                component.extend(own);
            }
        }
        value
    }
}

/// The agents that were called lately, and whom others wait for.
fn agents_at_router(status: &RouterStatus, output: &Output) {
    let waiting = |agent: &str| {
        let line = status.lines.iter().find(|line| line.target == agent);
        line.map_or(0, |line| line.waiting)
    };
    let called = status
        .agents
        .iter()
        .filter(|agent| agent.last_calls > 0 || agent.messages > 0 || agent.breakers_open > 0);
    let rows: Vec<[String; 8]> = called
        .map(|agent| {
            let [p50, p95] = told::quantiles(agent.p50_seconds, agent.p95_seconds);
            [
                agent.agent_id.clone(),
                agent.last_calls.to_string(),
                told::share(agent.last_failed, agent.last_calls),
                p50,
                p95,
                format!("{} of {}", agent.messages, agent.places),
                waiting(&agent.agent_id).to_string(),
                format!("{} of {}", agent.breakers_open, agent.instances),
            ]
        })
        .collect();
    if !rows.is_empty() {
        output.table(
            [
                "CALLED AGENT",
                "CALLS IN 5 MIN",
                "FAILED",
                "P50",
                "P95",
                "BUSY",
                "WAIT",
                "BREAKERS OPEN",
            ],
            rows,
        );
    }
    let lines: Vec<[String; 2]> = status
        .lines
        .iter()
        .filter(|line| status.agents.iter().all(|agent| agent.agent_id != line.target))
        .map(|line| [line.target.clone(), line.waiting.to_string()])
        .collect();
    if !lines.is_empty() {
        output.table(["LINE FOR", "WAIT"], lines);
    }
}

/// How many attempts went to other regions than the router's own; empty where none did.
fn elsewhere(status: &RouterStatus) -> String {
    let others = status.regions.iter().filter(|row| row.region != status.region);
    let sent: u64 = others.map(|row| row.sent_total).sum();
    if status.region.is_empty() || sent == 0 {
        return String::new();
    }
    format!(", {sent} sent to other regions than {}", status.region)
}

fn router_json(status: &RouterStatus) -> Value {
    let instances: Vec<Value> = status
        .instances
        .iter()
        .map(|instance| {
            json!({
                "agent": instance.agent_id,
                "id": instance.instance_id,
                "endpoint": instance.endpoint,
                "inFlight": instance.in_flight,
                "reportedLoad": instance.reported_load,
                "succeededTotal": instance.succeeded_total,
                "failedTotal": instance.failed_total,
                "latencySeconds": instance.latency_seconds,
                "breaker": instance.breaker,
                "region": instance.region,
                "share": instance.share,
                "messages": instance.messages,
                "places": instance.places,
            })
        })
        .collect();
    let regions: Vec<Value> = status
        .regions
        .iter()
        .map(|row| json!({"region": row.region, "instances": row.instances, "sentTotal": row.sent_total}))
        .collect();
    let calls: Vec<Value> = status
        .calls
        .iter()
        .map(|row| {
            json!({
                "agent": row.agent_id,
                "binding": row.binding,
                "receivedTotal": row.received_total,
                "succeededTotal": row.succeeded_total,
                "failedTotal": row.failed_total,
            })
        })
        .collect();
    let agents: Vec<Value> = status
        .agents
        .iter()
        .map(|agent| {
            json!({
                "agent": agent.agent_id,
                "lastCalls": agent.last_calls,
                "lastFailed": agent.last_failed,
                "p50Seconds": agent.p50_seconds,
                "p95Seconds": agent.p95_seconds,
                "instances": agent.instances,
                "messages": agent.messages,
                "places": agent.places,
                "breakersOpen": agent.breakers_open,
            })
        })
        .collect();
    let lines: Vec<Value> = status
        .lines
        .iter()
        .map(|line| json!({"target": line.target, "waiting": line.waiting}))
        .collect();
    json!({
        "agents": agents,
        "lines": lines,
        "queueDepth": status.queue_depth,
        "queueCapacity": status.queue_capacity,
        "inFlight": status.in_flight,
        "succeededTotal": status.succeeded_total,
        "failedTotal": status.failed_total,
        "receivedTotal": status.received_total,
        "sentTotal": status.sent_total,
        "broadcastTotal": status.broadcast_total,
        "matchedTotal": status.matched_total,
        "inbox": status.inbox.as_ref().map(inbox_json),
        "calls": calls,
        "region": status.region,
        "regions": regions,
        "viewStale": status.view_stale,
        "viewAgeSeconds": status.view_age_seconds,
        "instances": instances,
    })
}

fn inbox_json(inbox: &InboxStatistics) -> Value {
    let targets: Vec<Value> = inbox
        .targets
        .iter()
        .map(|row| json!({"target": row.target, "size": row.size}))
        .collect();
    json!({
        "pending": inbox.pending,
        "delivering": inbox.delivering,
        "done": inbox.done,
        "dead": inbox.dead,
        "capacity": inbox.capacity,
        "oldestPendingSeconds": inbox.oldest_pending_seconds,
        "enqueuedTotal": inbox.enqueued_total,
        "deliveredTotal": inbox.delivered_total,
        "deadTotal": inbox.dead_total,
        "targets": targets,
    })
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

impl<T> Answer<T> {
    fn serves(&self) -> bool {
        self.ready && self.outcome.is_ok()
    }
}

async fn timed<T>(
    endpoints: &Endpoints,
    service: Service,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Answer<T> {
    let clock = SystemClock::default();
    let before = clock.monotonic();
    let outcome = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::unavailable(format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    };
    let took = clock.monotonic().saturating_sub(before);
    let ready = outcome.is_ok()
        && tokio::time::timeout(PATIENCE, endpoints.is_serving(service))
            .await
            .unwrap_or(false);
    Answer { outcome, took, ready }
}

fn row<T>(
    name: &str,
    url: &str,
    answer: &Answer<T>,
    health: Option<&str>,
    say: impl Fn(&T) -> String,
) -> [String; 5] {
    let took = format!("{:.1} ms", answer.took.as_secs_f64() * 1e3);
    match &answer.outcome {
        Ok(value) => {
            let serves = if answer.ready { "serving" } else { "NOT READY" };
            let health = health.map_or_else(|| serves.to_owned(), |health| format!("{serves}, {health}"));
            [name.into(), health, url.into(), took, say(value)]
        }
        Err(failure) => [
            name.into(),
            "NOT ANSWERING".into(),
            url.into(),
            "–".into(),
            failure.message.clone(),
        ],
    }
}

fn component<T>(url: &str, answer: &Answer<T>, say: impl Fn(&T) -> Value) -> Value {
    let mut value = match &answer.outcome {
        Ok(said) => say(said),
        Err(failure) => json!({"error": failure.message}),
    };
    value["endpoint"] = json!(url);
    value["serving"] = json!(answer.serves());
    value["answeredInSeconds"] = json!(answer.took.as_secs_f64());
    value
}
