//! What the parts say of their own health, in every state: starting, ready, degraded, draining.
//!
//! States that harm somebody are brought about in parts of one's own, beside the others.

use std::time::Duration;

use muster_api::a2a::{
    Message, Part as MessagePart, Role, SendMessageRequest, SendMessageResponse, part, send_message_response,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::Value;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::target::local::Member;
use super::target::probe::{PROBE, Probe};
use super::trial::{Trial, eventually};
use crate::bench::part::Part;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;

/// How long a part may take to get into a state.
const PATIENCE: Duration = Duration::from_secs(30);

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Health,
        name: "grpc.health.v1 says serving",
        needs: &[],
        run: |trial| Box::pin(serving(trial)),
    },
    Check {
        area: Area::Health,
        name: "ready: /health, /ready and /startup say so",
        needs: &[Need::HealthAddresses],
        run: |trial| Box::pin(ready(trial)),
    },
    Check {
        area: Area::Health,
        name: "starting: alive, not ready, and it says what it waits for",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(starting(trial)),
    },
    Check {
        area: Area::Health,
        name: "degraded: what it depends on is away, and it serves",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(degraded(trial)),
    },
    Check {
        area: Area::Health,
        name: "draining: no new work, and a call under way ends well",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(draining(trial)),
    },
];

async fn serving(trial: &mut Trial) -> Verdict {
    let mut said = Vec::new();
    for service in [Service::Registry, Service::Router, Service::Engine] {
        let name = service.name();
        let channel = trial.target.endpoints.channel(service)?;
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let answer = tokio::time::timeout(PATIENCE, HealthClient::new(channel).check(request)).await;
        let answer = answer.map_err(|_| Stop::failed(format!("the {name} does not answer")))?;
        let status = answer.map_err(|status| trial.target.endpoints.failure(service, &status))?;
        match status.into_inner().status() {
            ServingStatus::Serving => said.push(name),
            other => return Err(Stop::failed(format!("the {name} says {other:?}"))),
        }
    }
    Ok(Evidence::new(said.join(", ")))
}

/// What a health port answers to a question.
#[derive(Debug)]
struct Said {
    code: u16,
    status: String,
    body: Value,
}

/// Checks of the machine that a part runs on. What it is short of is told, and is no state of the part.
const OF_THE_MACHINE: [&str; 2] = ["disk", "memory"];

impl Said {
    /// The checks that are not as they should be: name and error.
    fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        let checks = self.body["checks"].as_object().into_iter().flatten();
        checks.filter_map(|(name, check)| Some((name.as_str(), check["error"].as_str()?)))
    }

    /// The same, to be read.
    fn wrong(&self) -> Vec<String> {
        self.errors()
            .map(|(name, error)| format!("{name}: {error}"))
            .collect()
    }

    /// Whether nothing is wrong but what the machine is short of.
    fn is_short_of_room(&self) -> bool {
        self.status == "degraded" && self.errors().all(|(name, _)| OF_THE_MACHINE.contains(&name))
    }

    fn is(&self, code: u16, status: &str) -> Result<(), String> {
        let is_this = self.status == status || (status == "healthy" && self.is_short_of_room());
        if self.code == code && is_this {
            return Ok(());
        }
        Err(format!(
            "{} {} in place of {code} {status}: {}",
            self.code,
            self.status,
            self.wrong().join("; ")
        ))
    }
}

async fn ask(http: &reqwest::Client, health: &str, question: &str) -> Result<Said, String> {
    let url = format!("{health}/{question}");
    let answer = http.get(&url).send().await;
    let answer = answer.map_err(|error| format!("{url}: {}", innermost(&error)))?;
    let code = answer.status().as_u16();
    let text = answer.text().await.map_err(|error| format!("{url}: {error}"))?;
    let body: Value =
        serde_json::from_str(&text).map_err(|error| format!("{url}: its answer is no JSON: {error}"))?;
    let status = body["status"].as_str().unwrap_or_default().to_owned();
    Ok(Said { code, status, body })
}

/// What lies at the bottom of an error.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

async fn ready(trial: &mut Trial) -> Verdict {
    let http = trial.target.http()?;
    let (mut wrong, mut short) = (Vec::new(), Vec::new());
    let mut count = 0;
    for place in &trial.target.places {
        let Some(health) = &place.health else { continue };
        count += 1;
        for question in ["health", "ready", "startup"] {
            let is_well = async {
                let said = ask(&http, health, question).await?;
                said.is(200, "healthy")
                    .map_err(|what| format!("/{question} says {what}"))?;
                Ok::<_, String>(said.wrong())
            };
            match is_well.await {
                Ok(room) => short.extend(room),
                Err(what) => {
                    wrong.push(format!("{}: {what}", place.name));
                    break;
                }
            }
        }
    }
    if wrong.is_empty() {
        short.sort_unstable();
        short.dedup();
        let room = if short.is_empty() {
            String::new()
        } else {
            format!("; short of room: {}", short.join("; "))
        };
        let text = format!("{count} parts, three questions each{room}");
        Ok(Evidence::new(text).figure("parts", count))
    } else {
        Err(Stop::Failed(wrong.join("; ")))
    }
}

fn health(member: &Member) -> String {
    format!("http://{}", member.addresses.health)
}

/// A registry and a router that follows it, beside the others.
fn pair(trial: &Trial, name: &str) -> Result<(Member, Member), Failure> {
    let stack = trial.target.stack()?;
    let registry = stack.spare(&format!("{name}-registry"), Part::Registry, &[])?;
    let router_name = format!("{name}-router");
    let router = stack.spare(
        &router_name,
        Part::Router,
        &[
            ("router.registry_url", registry.url()),
            (
                "router.data_directory",
                stack.directory().join(&router_name).display().to_string(),
            ),
        ],
    )?;
    Ok((registry, router))
}

async fn starting(trial: &mut Trial) -> Verdict {
    let http = trial.target.http()?;
    let (mut registry, mut router) = pair(trial, "starting")?;
    router.start().await?;
    let place = health(&router);
    let waits = eventually(PATIENCE, async || {
        ask(&http, &place, "health").await?.is(200, "healthy")?;
        ask(&http, &place, "startup").await?.is(503, "starting")?;
        let said = ask(&http, &place, "ready").await?;
        said.is(503, "starting")?;
        Ok(said.wrong().join("; "))
    });
    let waits = waits.await.map_err(Stop::Failed)?;
    if waits.is_empty() {
        return Err(Stop::failed("/ready does not say what it waits for"));
    }
    let clock = SystemClock::default();
    let before = clock.monotonic();
    registry.start().await?;
    let came = eventually(PATIENCE, async || {
        ask(&http, &place, "startup").await?.is(200, "healthy")?;
        ask(&http, &place, "ready").await?.is(200, "healthy")
    });
    came.await.map_err(Stop::Failed)?;
    let took = clock.monotonic().saturating_sub(before).as_secs_f64();
    Ok(Evidence::new(format!(
        "a router without its registry waits ({waits}), and is ready {took:.2} s after it started"
    ))
    .figure("readySeconds", took))
}

async fn degraded(trial: &mut Trial) -> Verdict {
    let http = trial.target.http()?;
    let (mut registry, mut router) = pair(trial, "degraded")?;
    registry.start().await?;
    router.start().await?;
    let place = health(&router);
    let well = || {
        eventually(PATIENCE, async || {
            ask(&http, &place, "ready").await?.is(200, "healthy")
        })
    };
    well().await.map_err(Stop::Failed)?;
    if let Some(process) = registry.process.take() {
        process.kill().await;
    }
    let said = eventually(PATIENCE, async || {
        let said = ask(&http, &place, "ready").await?;
        said.is(200, "degraded")?;
        if said.is_short_of_room() {
            return Err("/ready does not say that the registry is away".to_owned());
        }
        Ok(said.wrong().join("; "))
    });
    let said = said.await.map_err(Stop::Failed)?;
    ask(&http, &place, "health")
        .await
        .and_then(|said| said.is(200, "healthy"))
        .map_err(|what| Stop::failed(format!("/health says {what}, which would restart it")))?;
    registry.start().await?;
    well()
        .await
        .map_err(|what| Stop::failed(format!("its registry is back: {what}")))?;
    Ok(Evidence::new(format!(
        "a router whose registry was killed says: {said}; healthy again once it is back"
    )))
}

/// A call of the probe; the answer comes when the probe lets it go.
pub async fn held_call(endpoints: &Endpoints, id: String) -> Result<(), Status> {
    let data = part::Content::Data(a2a_pb::pbconv::json_value_to_proto_value(&Probe::hold()));
    let request = SendMessageRequest {
        tenant: PROBE.to_owned(),
        message: Some(Message {
            message_id: id,
            role: Role::User.into(),
            parts: vec![MessagePart {
                content: Some(data),
                ..MessagePart::default()
            }],
            ..Message::default()
        }),
        ..SendMessageRequest::default()
    };
    let mut client = endpoints
        .agents()
        .map_err(|failure| Status::internal(failure.message))?;
    let answer: SendMessageResponse = client.send_message(request).await?.into_inner();
    match answer.payload {
        Some(send_message_response::Payload::Task(_) | send_message_response::Payload::Message(_)) => Ok(()),
        None => Err(Status::internal("the answer is empty")),
    }
}

async fn draining(trial: &mut Trial) -> Verdict {
    let http = trial.target.http()?;
    let stack = trial.target.stack()?;
    let mut router = stack.spare(
        "draining-router",
        Part::Router,
        &[
            ("router.registry_url", trial.target.endpoints.registry.clone()),
            (
                "router.data_directory",
                stack.directory().join("draining-router").display().to_string(),
            ),
        ],
    )?;
    router.start().await?;
    let place = health(&router);
    let well = eventually(PATIENCE, async || {
        ask(&http, &place, "ready").await?.is(200, "healthy")
    });
    well.await.map_err(Stop::Failed)?;
    let endpoints = Endpoints {
        router: router.url(),
        ..trial.target.endpoints.clone()
    };
    let process = router
        .process
        .take()
        .ok_or_else(|| Stop::failed("the router has not started"))?;
    let probe = stack.probe()?;
    let call = held_call(&endpoints, trial.made.name());
    let drain = async {
        tokio::time::timeout(PATIENCE, probe.holds(1))
            .await
            .map_err(|_| "the call did not reach the probe".to_owned())?;
        process.ask_to_stop().map_err(|failure| failure.message)?;
        let drains = eventually(PATIENCE, async || {
            ask(&http, &place, "ready").await?.is(503, "draining")
        });
        let outcome = drains.await;
        probe.release();
        outcome
    };
    let (answer, drained) = tokio::join!(call, drain);
    drained.map_err(Stop::Failed)?;
    answer.map_err(|status| {
        Stop::failed(format!(
            "the call that was under way failed: {}",
            status.message()
        ))
    })?;
    let (status, took) = process.ended().await?;
    if !status.success() {
        return Err(Stop::failed(format!("the router ended with {status}")));
    }
    let took = took.as_secs_f64();
    Ok(Evidence::new(format!(
        "SIGTERM with a call under way: /ready says draining, the call was answered, the process ended in order {took:.2} s later"
    ))
    .figure("endedAfterSeconds", took))
}
