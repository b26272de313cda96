//! `muster status`: every component and agent in one look, all of it measured now.

use std::time::Duration;

use muster_api::admin::{GetTrafficRequest, MethodTraffic, Refused};
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
    /// What the three say of the calls that they got.
    traffic: Vec<(Service, MethodTraffic)>,
}

/// Methods that are shown as the slowest.
const SLOWEST: usize = 5;

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
            traffic: traffic(endpoints).await,
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
        let registry = row("registry", &endpoints.registry, &self.registry, |registered| {
            let statistics = registered.statistics.as_ref();
            let own = statistics.and_then(|it| it.total.as_ref());
            let own = own.map_or_else(|| format!("{} agents", registered.agents.len()), agents::summary);
            match statistics.and_then(agents::foreign) {
                Some(foreign) => format!("{own}; {foreign}"),
                None => own,
            }
        });
        let router = row("router", &endpoints.router, &self.router, |status| {
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
        });
        let engine = row("engine", &endpoints.engine, &self.engine, |status| {
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
        });
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
        let slowest = self.slowest().map(|(service, method)| {
            let name = method.endpoint.trim_start_matches('/').to_owned();
            let took = format!("{:.1} ms", method.recent_seconds * 1e3);
            [
                service.name().to_owned(),
                name,
                took,
                method.calls_total.to_string(),
            ]
        });
        output.table(["SLOWEST AT", "METHOD", "RECENTLY", "CALLS"], slowest.collect());
        let refused: Vec<[String; 4]> = self
            .refused()
            .map(|(service, method, refused)| {
                let name = method.endpoint.trim_start_matches('/').to_owned();
                let calls = refused.calls_total.to_string();
                [service.name().to_owned(), name, refused.error_type.clone(), calls]
            })
            .collect();
        if refused.is_empty() {
            output.aside("nobody was refused since the start");
        } else {
            output.table(["REFUSED BY", "METHOD", "BECAUSE", "CALLS"], refused);
        }
    }

    /// The methods that have lately taken the longest until their answers began.
    fn slowest(&self) -> impl Iterator<Item = &(Service, MethodTraffic)> {
        let mut all: Vec<&(Service, MethodTraffic)> = self.traffic.iter().collect();
        all.sort_by(|(_, one), (_, other)| other.recent_seconds.total_cmp(&one.recent_seconds));
        all.into_iter().take(SLOWEST)
    }

    /// Who was refused, by method and reason.
    fn refused(&self) -> impl Iterator<Item = (Service, &MethodTraffic, &Refused)> {
        let all = self.traffic.iter();
        all.flat_map(|(service, method)| {
            method
                .refused
                .iter()
                .map(move |refused| (*service, method, refused))
        })
    }

    fn json(&self, endpoints: &Endpoints) -> Value {
        json!({
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
            "slowest": self.slowest().map(|(service, method)| json!({
                "component": service.name(),
                "endpoint": method.endpoint,
                "recentSeconds": method.recent_seconds,
                "callsTotal": method.calls_total,
            })).collect::<Vec<_>>(),
            "refused": self.refused().map(|(service, method, refused)| json!({
                "component": service.name(),
                "endpoint": method.endpoint,
                "statusCode": refused.status_code,
                "errorType": refused.error_type,
                "callsTotal": refused.calls_total,
            })).collect::<Vec<_>>(),
        })
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
    json!({
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

/// What each component says of the calls that it got; nothing of one that does not say.
async fn traffic(endpoints: &Endpoints) -> Vec<(Service, MethodTraffic)> {
    let ask = async |service: Service| {
        let mut client = endpoints.admin(service).ok()?;
        let asked = client.get_traffic(patient(GetTrafficRequest {}));
        let answer = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
        Some((service, answer.into_inner().methods))
    };
    let (registry, router, engine) =
        tokio::join!(ask(Service::Registry), ask(Service::Router), ask(Service::Engine));
    let all = [registry, router, engine].into_iter().flatten();
    all.flat_map(|(service, methods)| methods.into_iter().map(move |method| (service, method)))
        .collect()
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

fn row<T>(name: &str, url: &str, answer: &Answer<T>, say: impl Fn(&T) -> String) -> [String; 5] {
    let took = format!("{:.1} ms", answer.took.as_secs_f64() * 1e3);
    match &answer.outcome {
        Ok(value) => {
            let health = if answer.ready { "serving" } else { "NOT READY" };
            [name.into(), health.into(), url.into(), took, say(value)]
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
