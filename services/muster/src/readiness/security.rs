//! The scripted attacker: each attempt is refused, and the refusal is in the audit log where that can be read.
//!
//! What would lock others out is tried on parts of one's own.

use std::sync::Arc;

use futures::StreamExt as _;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{GetTaskRequest, send_message_response};
use muster_api::error::{Error, Reason};
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{Instance, ListAgentsRequest, RegisterRequest};
use muster_api::router::GetStatusRequest;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::workflow::{GetRunRequest, TerminateRunRequest};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::server;
use muster_runtime::trust::audit::chain;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller as Known, Grants, Kind, Role, Trust, Workload};
use serde_json::{Value, json};
use tonic::Code;

use super::attacker::{Caller, PATIENCE, confused, foreign, more_written, refused, unsigned, written};
use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::initialisation::agent_ids;
use super::target::{Issuer, Shows};
use super::trial::{Trial, eventually};
use crate::bench::part::Part;
use crate::connect::{self, Endpoints, Service};
use crate::trust::certs::{self, BUNDLE, InitArguments, OPERATOR};

/// A message that no part takes by default, in bytes.
const OVERSIZE: usize = 9 << 20;

/// Requests of a flood: some times what one caller may make at once.
const FLOOD: usize = 400;

/// Of them at a time.
const FLOOD_AT_ONCE: usize = 16;

/// Refused tokens from one address, more than are looked at in a minute.
const GUESSES: usize = 70;

/// A run that needs nobody.
const IDLE: &str = "document: { dsl: 1.0.3, namespace: readiness, name: idle, version: 1.0.0 }\ndo:\n  - rest: { wait: { minutes: 10 } }\n";

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Security,
        name: "nobody gets in without a token or a certificate",
        needs: &[],
        run: |trial| Box::pin(nobody(trial)),
    },
    Check {
        area: Area::Security,
        name: "an expired token is refused",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(with_claim(trial, "an expired token", "exp", json!(1))),
    },
    Check {
        area: Area::Security,
        name: "an unsigned token is refused",
        needs: &[],
        run: |trial| Box::pin(unsigned_token(trial)),
    },
    Check {
        area: Area::Security,
        name: "a token of a foreign key is refused",
        needs: &[],
        run: |trial| Box::pin(foreign_token(trial)),
    },
    Check {
        area: Area::Security,
        name: "a token of another issuer is refused",
        needs: &[Need::TokenKey],
        run: |trial| {
            Box::pin(with_claim(
                trial,
                "a token of another issuer",
                "iss",
                json!("somebody"),
            ))
        },
    },
    Check {
        area: Area::Security,
        name: "a token for another audience is refused",
        needs: &[Need::TokenKey],
        run: |trial| {
            Box::pin(with_claim(
                trial,
                "a token for another audience",
                "aud",
                json!("others"),
            ))
        },
    },
    Check {
        area: Area::Security,
        name: "the public key is no secret to sign with",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(confused_token(trial)),
    },
    Check {
        area: Area::Security,
        name: "a certificate of a foreign authority is refused",
        needs: &[Need::MutualTls],
        run: |trial| Box::pin(foreign_certificate(trial)),
    },
    Check {
        area: Area::Security,
        name: "a reader has no agent work and starts no run",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(reader(trial)),
    },
    Check {
        area: Area::Security,
        name: "a caller registers no agent",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(registering(trial)),
    },
    Check {
        area: Area::Security,
        name: "another caller's task is not there",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(others_task(trial)),
    },
    Check {
        area: Area::Security,
        name: "another caller's run is not there",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(others_run(trial)),
    },
    Check {
        area: Area::Security,
        name: "nobody speaks for others by a header",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(on_behalf_of(trial)),
    },
    Check {
        area: Area::Security,
        name: "nobody is a service by a header",
        needs: &[],
        run: |trial| Box::pin(forwarded_certificate(trial)),
    },
    Check {
        area: Area::Security,
        name: "a message that is too large is refused",
        needs: &[],
        run: |trial| Box::pin(oversize(trial)),
    },
    Check {
        area: Area::Security,
        name: "who floods is limited, and others are not",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(flood(trial)),
    },
    Check {
        area: Area::Security,
        name: "who guesses tokens is looked at no longer",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(guessing(trial)),
    },
    Check {
        area: Area::Security,
        name: "the audit logs are whole and name no token",
        needs: &[Need::AuditLog],
        run: |trial| Box::pin(audit(trial)),
    },
];

fn issuer(trial: &Trial) -> Result<&Issuer, Stop> {
    let issuer = trial.target.issuer();
    issuer.ok_or_else(|| Stop::skipped(Need::TokenKey.describe()))
}

/// An agent to be called: the probe where there is one, else any.
async fn an_agent(trial: &Trial) -> Result<String, Stop> {
    let agents = agent_ids(trial).await?;
    let probe = super::target::probe::PROBE;
    if agents.contains(probe) {
        return Ok(probe.to_owned());
    }
    agents
        .into_iter()
        .next()
        .ok_or_else(|| Stop::failed("no agent is registered"))
}

/// Neither the router nor the engine takes this caller for anybody.
async fn unknown(trial: &Trial, caller: &Caller, what: &str) -> Verdict {
    let agent = an_agent(trial).await?;
    let before = [Service::Router, Service::Engine].map(|service| written(trial, service));
    let answer = caller.send(trial, &agent, "readiness").await?;
    refused(answer, Code::Unauthenticated, &format!("at the router, {what}"))?;
    let answer = caller.list_runs(trial).await?;
    refused(answer, Code::Unauthenticated, &format!("at the engine, {what}"))?;
    let [router, engine] = before;
    more_written(trial, Service::Router, router, 1).await?;
    let seen = more_written(trial, Service::Engine, engine, 1).await?;
    Ok(Evidence::new(format!(
        "refused by the router and the engine; {seen}"
    )))
}

async fn nobody(trial: &mut Trial) -> Verdict {
    let mut evidence = unknown(trial, &Caller::nobody(), "nobody").await?;
    let channel = trial.target.channel(Service::Registry, Shows::Nothing, None)?;
    let request = Caller::nobody().request(ListAgentsRequest::default())?;
    let answer =
        tokio::time::timeout(PATIENCE, RegistryServiceClient::new(channel).list_agents(request)).await;
    match answer {
        Ok(Ok(_)) => return Err(Stop::failed("at the registry, nobody was let in")),
        // Without a certificate there is no connection.
        Ok(Err(_)) | Err(_) => evidence.text.push_str("; the registry answers nothing"),
    }
    Ok(evidence)
}

/// What a token of an admin would say.
fn wishes(trial: &Trial) -> Value {
    let now = SystemClock::default().now().as_second();
    trial.target.issuer().map_or_else(
        || json!({"sub": "readiness", "iss": "muster", "aud": "muster", "exp": now + 600, "roles": ["admin"]}),
        |issuer| issuer.claims("readiness", &["admin"]),
    )
}

async fn with_claim(trial: &mut Trial, what: &str, name: &str, value: Value) -> Verdict {
    let issuer = issuer(trial)?;
    // The same without the change is taken: else the refusal would say nothing.
    let mut claims = issuer.claims("readiness", &["admin"]);
    let good = Caller::with(issuer.sign(&claims)?);
    let answer = good.list_runs(trial).await?;
    answer.map_err(|status| {
        Stop::failed(format!(
            "a good token is refused: {}; is this the right key?",
            status.message()
        ))
    })?;
    claims[name] = value;
    let caller = Caller::with(issuer.sign(&claims)?);
    unknown(trial, &caller, what).await
}

async fn unsigned_token(trial: &mut Trial) -> Verdict {
    let caller = Caller::with(unsigned(&wishes(trial)));
    unknown(trial, &caller, "an unsigned token").await
}

async fn foreign_token(trial: &mut Trial) -> Verdict {
    let caller = Caller::with(foreign(&wishes(trial), trial.target.issuer())?);
    unknown(trial, &caller, "a token of a foreign key").await
}

async fn confused_token(trial: &mut Trial) -> Verdict {
    let caller = Caller::with(confused(&wishes(trial), issuer(trial)?)?);
    unknown(trial, &caller, "a token signed with the public key").await
}

async fn foreign_certificate(trial: &mut Trial) -> Verdict {
    let bundle = trial
        .target
        .certificates()
        .map(|directory| directory.join(BUNDLE));
    let bundle = bundle.ok_or_else(|| Stop::skipped(Need::MutualTls.describe()))?;
    let directory = tempfile::tempdir().map_err(|error| Stop::failed(error.to_string()))?;
    let foreign = directory.path().join("certificates");
    certs::init(
        &InitArguments::in_directory(&foreign),
        SystemClock::default().now(),
    )?;
    // The attacker's own certificate says that it is the operator, by an authority of the attacker's. To come as far as to show it,
    // the attacker trusts the target, too.
    let mut config = connect::trust_of(&foreign, OPERATOR, certs::TRUST_DOMAIN, certs::NAMESPACE);
    let both = directory.path().join("both.pem");
    let mut authorities = Vec::new();
    for file in [bundle, config.native.authorities] {
        let text =
            std::fs::read(&file).map_err(|error| Stop::failed(format!("{}: {error}", file.display())))?;
        authorities.extend(text);
    }
    std::fs::write(&both, authorities).map_err(|error| Stop::failed(error.to_string()))?;
    config.native.authorities = both;
    let clock = Arc::new(SystemClock::default());
    let trust = Trust::open(&config, &server::Config::default(), Workload::Operator, clock)
        .map_err(|error| Stop::failed(error.to_string()))?;
    let endpoints = Endpoints {
        trust,
        ..trial.target.endpoints.clone()
    };
    for service in [Service::Registry, Service::Router, Service::Engine] {
        let call = async {
            let channel = endpoints.channel(service)?;
            let answered = match service {
                Service::Registry => {
                    let request = Caller::nobody().request(ListAgentsRequest::default())?;
                    RegistryServiceClient::new(channel)
                        .list_agents(request)
                        .await
                        .is_ok()
                }
                Service::Router => {
                    let request = Caller::nobody().request(GetStatusRequest {})?;
                    RouterServiceClient::new(channel)
                        .get_status(request)
                        .await
                        .is_ok()
                }
                Service::Engine => {
                    let request = Caller::nobody().request(muster_api::workflow::GetStatusRequest {})?;
                    let mut client =
                        muster_api::workflow::workflow_service_client::WorkflowServiceClient::new(channel);
                    client.get_status(request).await.is_ok()
                }
            };
            Ok::<_, Stop>(answered)
        };
        let answered = tokio::time::timeout(PATIENCE, call).await.unwrap_or(Ok(false))?;
        if answered {
            return Err(Stop::failed(format!(
                "the {} takes the certificate of a foreign authority",
                service.name()
            )));
        }
    }
    Ok(Evidence::new(
        "refused by the registry, the router and the engine",
    ))
}

async fn reader(trial: &mut Trial) -> Verdict {
    let reader = Caller::with(issuer(trial)?.token("readiness-reader", &["agent-reader"])?);
    let agent = an_agent(trial).await?;
    let before = [Service::Router, Service::Engine].map(|service| written(trial, service));
    let answer = reader.send(trial, &agent, "readiness").await?;
    refused(answer, Code::PermissionDenied, "a reader who has an agent work")?;
    let request = reader.request(trial.made.request(IDLE, "{}"))?;
    let answer = reader.engine(trial)?.start_run(request).await;
    refused(answer, Code::PermissionDenied, "a reader who starts a run")?;
    let [router, engine] = before;
    more_written(trial, Service::Router, router, 1).await?;
    let seen = more_written(trial, Service::Engine, engine, 1).await?;
    Ok(Evidence::new(format!(
        "SendMessage and StartRun are refused; {seen}"
    )))
}

async fn registering(trial: &mut Trial) -> Verdict {
    let token = issuer(trial)?.token("readiness-writer", &["agent-writer"])?;
    let before = written(trial, Service::Registry);
    // With the operator's certificate there is a connection; the token says who calls.
    let channel = trial
        .target
        .channel(Service::Registry, Shows::Certificate, Some(&token))?;
    let request = RegisterRequest {
        instance: Some(Instance {
            agent_id: "readiness-intruder".to_owned(),
            endpoint: "http://127.0.0.1:9".to_owned(),
            ..Instance::default()
        }),
    };
    let request = Caller::nobody().request(request)?;
    let answer = RegistryServiceClient::new(channel).register(request).await;
    refused(answer, Code::PermissionDenied, "a caller who registers an agent")?;
    let seen = more_written(trial, Service::Registry, before, 1).await?;
    Ok(Evidence::new(format!("Register is refused; {seen}")))
}

async fn others_task(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    let ada = Caller::with(issuer.token("readiness-ada", &["agent-writer"])?);
    let eve = Caller::with(issuer.token("readiness-eve", &["agent-writer"])?);
    let agent = an_agent(trial).await?;
    let answer = ada.send(trial, &agent, "readiness").await?;
    let answer = answer.map_err(|status| {
        Stop::failed(format!(
            "a writer's message to {agent} is refused: {}",
            status.message()
        ))
    })?;
    let Some(send_message_response::Payload::Task(task)) = answer.payload else {
        return Err(Stop::skipped(format!(
            "{agent} answers with a message, and not with a task"
        )));
    };
    let get = async |caller: &Caller| {
        let request = GetTaskRequest {
            tenant: agent.clone(),
            id: task.id.clone(),
            ..GetTaskRequest::default()
        };
        let channel = trial
            .target
            .channel(Service::Router, Shows::Nothing, caller.token.as_deref())?;
        let answer = A2aServiceClient::new(channel)
            .get_task(caller.request(request)?)
            .await;
        Ok::<_, Stop>(answer)
    };
    let own = get(&ada).await?;
    own.map_err(|status| Stop::failed(format!("the caller's own task is refused: {}", status.message())))?;
    let before = written(trial, Service::Router);
    refused(
        get(&eve).await?,
        Code::NotFound,
        "another caller who reads the task",
    )?;
    let seen = more_written(trial, Service::Router, before, 1).await?;
    Ok(Evidence::new(format!(
        "its caller reads the task, for another it does not exist; {seen}"
    )))
}

async fn others_run(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    let ada = Caller::with(issuer.token("readiness-ada", &["agent-writer"])?);
    let eve = Caller::with(issuer.token("readiness-eve", &["agent-writer"])?);
    let request = trial.made.request(IDLE, "{}");
    let run_id = request.run_id.clone();
    let started = ada.engine(trial)?.start_run(ada.request(request)?).await;
    started.map_err(|status| Stop::failed(format!("a writer's run is refused: {}", status.message())))?;
    let get = async |caller: &Caller| {
        let request = GetRunRequest {
            run_id: run_id.clone(),
        };
        Ok::<_, Stop>(caller.engine(trial)?.get_run(caller.request(request)?).await)
    };
    let own = get(&ada).await?;
    own.map_err(|status| Stop::failed(format!("the caller's own run is refused: {}", status.message())))?;
    let before = written(trial, Service::Engine);
    refused(
        get(&eve).await?,
        Code::NotFound,
        "another caller who reads the run",
    )?;
    let request = TerminateRunRequest {
        run_id: run_id.clone(),
        ..TerminateRunRequest::default()
    };
    let ended = eve.engine(trial)?.terminate_run(eve.request(request)?).await;
    refused(ended, Code::NotFound, "another caller who ends the run")?;
    let seen = more_written(trial, Service::Engine, before, 1).await?;
    Ok(Evidence::new(format!(
        "its caller reads the run, for another it does not exist; {seen}"
    )))
}

async fn on_behalf_of(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    let admin = Known::new(
        Kind::EndUser,
        Some(&issuer.name),
        "root",
        [Role::Admin].into_iter().collect(),
        Grants::default(),
    );
    let eve = Caller::with(issuer.token("readiness-eve", &["agent-writer"])?)
        .header(ON_BEHALF_OF_METADATA, admin.to_text());
    let before = written(trial, Service::Router);
    let answer = eve.send(trial, &an_agent(trial).await?, "readiness").await?;
    refused(
        answer,
        Code::PermissionDenied,
        "a caller who claims to speak for an admin",
    )?;
    let seen = more_written(trial, Service::Router, before, 1).await?;
    Ok(Evidence::new(format!(
        "{ON_BEHALF_OF_METADATA} of a caller is refused; {seen}"
    )))
}

async fn forwarded_certificate(trial: &mut Trial) -> Verdict {
    let operator = format!(
        "By=spiffe://{domain}/ns/{namespace}/sa/router;Hash=00;URI=spiffe://{domain}/ns/{namespace}/sa/{OPERATOR}",
        domain = certs::TRUST_DOMAIN,
        namespace = certs::NAMESPACE
    );
    let caller = Caller::nobody().header("x-forwarded-client-cert", operator);
    unknown(
        trial,
        &caller,
        "who names the operator in x-forwarded-client-cert",
    )
    .await
}

async fn oversize(trial: &mut Trial) -> Verdict {
    let mut client = trial.target.endpoints.agents()?;
    let text = "x".repeat(OVERSIZE);
    let message = |text: String| muster_api::a2a::SendMessageRequest {
        // Nobody, so that no agent gets it where it is taken.
        tenant: "readiness-nobody".to_owned(),
        message: Some(muster_api::a2a::Message {
            message_id: trial.made.name(),
            role: muster_api::a2a::Role::User.into(),
            parts: vec![muster_api::a2a::Part {
                content: Some(muster_api::a2a::part::Content::Text(text)),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = tokio::time::timeout(PATIENCE, client.send_message(message(text))).await;
    let answer = answer.map_err(|_| Stop::failed("the router does not answer a large message"))?;
    match answer {
        Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange) => {}
        Err(status) => {
            return Err(Stop::failed(format!(
                "{} MiB were answered with {:?}: {}",
                OVERSIZE >> 20,
                status.code(),
                status.message()
            )));
        }
        Ok(_) => return Err(Stop::failed(format!("{} MiB were taken", OVERSIZE >> 20))),
    }
    let small = client.send_message(message("small".to_owned())).await;
    refused(
        small,
        Code::NotFound,
        "a small message to nobody, after the large one",
    )?;
    Ok(Evidence::new(format!(
        "{} MiB are refused, and the next message is looked at as before",
        OVERSIZE >> 20
    )))
}

async fn flood(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    let flooding = issuer.token("readiness-flood", &["agent-reader"])?;
    let other = issuer.token("readiness-calm", &["agent-reader"])?;
    let agent = an_agent(trial).await?;
    let client = |token: &str| {
        let channel = trial
            .target
            .channel(Service::Router, Shows::Nothing, Some(token))?;
        Ok::<_, Stop>(A2aServiceClient::new(channel))
    };
    let request = || GetTaskRequest {
        tenant: agent.clone(),
        id: "readiness-none".to_owned(),
        ..GetTaskRequest::default()
    };
    let flooding = client(&flooding)?;
    let answers: Vec<_> = futures::stream::iter(0..FLOOD)
        .map(|_| {
            let mut client = flooding.clone();
            let request = request();
            async move { client.get_task(request).await }
        })
        .buffer_unordered(FLOOD_AT_ONCE)
        .collect()
        .await;
    let refusals: Vec<Error> = answers
        .iter()
        .filter_map(|answer| Error::from_status(answer.as_ref().err()?))
        .filter(|error| error.reason == Reason::RateLimited)
        .collect();
    if refusals.is_empty() {
        return Err(Stop::failed(format!(
            "{FLOOD} requests of one caller at once were all taken; set router.api_rate_limit"
        )));
    }
    if refusals.iter().any(|error| error.retry_after.is_none()) {
        return Err(Stop::failed("a refusal does not say when to come again"));
    }
    let calm = client(&other)?.get_task(request()).await;
    refused(calm, Code::NotFound, "another caller's request meanwhile")?;
    Ok(Evidence::new(format!(
        "{} of {FLOOD} requests were refused with RATE_LIMITED and a time to come again; another caller was not",
        refusals.len()
    ))
    .figure("refused", refusals.len()))
}

async fn guessing(trial: &mut Trial) -> Verdict {
    let stack = trial.target.stack()?;
    let name = "guessed-router";
    let directory = stack.directory().join(name).display().to_string();
    let registry = trial.target.endpoints.registry.clone();
    let settings = [
        ("router.registry_url", registry),
        ("router.data_directory", directory),
    ];
    let mut router = stack.spare(name, Part::Router, &settings)?;
    router.start().await?;
    let issuer = issuer(trial)?;
    let (known, fresh) = (
        issuer.token("readiness-known", &["agent-reader"])?,
        issuer.token("readiness-fresh", &["agent-reader"])?,
    );
    let http = trial.target.http()?;
    let url = format!("{}/v1/status", router.url());
    let ask = async |token: &str| {
        let answer = http.get(&url).bearer_auth(token).send().await;
        answer
            .map(|answer| answer.status().as_u16())
            .map_err(|error| error.to_string())
    };
    let taken = eventually(PATIENCE, async || match ask(&known).await? {
        200 => Ok(()),
        other => Err(format!("a good token is answered with {other}")),
    });
    taken.await.map_err(Stop::Failed)?;
    let mut limited_after = None;
    for number in 0..GUESSES {
        match ask(&format!("guess-{number}")).await.map_err(Stop::Failed)? {
            401 => {}
            429 => {
                limited_after = Some(number);
                break;
            }
            other => return Err(Stop::failed(format!("a guessed token is answered with {other}"))),
        }
    }
    let Some(after) = limited_after else {
        return Err(Stop::failed(format!(
            "{GUESSES} guessed tokens were all looked at"
        )));
    };
    if ask(&fresh).await.map_err(Stop::Failed)? != 429 {
        return Err(Stop::failed("a new token is still looked at"));
    }
    if ask(&known).await.map_err(Stop::Failed)? != 200 {
        return Err(Stop::failed("a token that was known before is refused, too"));
    }
    Ok(Evidence::new(format!(
        "after {after} guesses no new token of that address is looked at; a known one goes on"
    ))
    .figure("guesses", after))
}

async fn audit(trial: &mut Trial) -> Verdict {
    let mut lines = 0;
    for service in [Service::Registry, Service::Router, Service::Engine] {
        let Some(directory) = trial.target.audit(service) else {
            continue;
        };
        if !directory.is_dir() {
            return Err(Stop::failed(format!(
                "the {} writes no audit log",
                service.name()
            )));
        }
        // While it is written, its last line may not be whole yet.
        let whole = eventually(PATIENCE, async || {
            chain::verify(&directory).map_err(|broken| broken.to_string())
        });
        whole.await.map_err(Stop::Failed)?;
        let files = chain::files(&directory).map_err(|error| Stop::failed(error.to_string()))?;
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|error| Stop::failed(error.to_string()))?;
            lines += text.lines().count();
            // The beginning of every token: a header of JSON in Base64.
            if text.contains("eyJ") {
                return Err(Stop::failed(format!("a token is in {}", file.display())));
            }
        }
    }
    Ok(
        Evidence::new(format!("{lines} lines, no chain is broken, no token is in them"))
            .figure("lines", lines),
    )
}
