//! Who should not be let in: nobody, wrong tokens and certificates, and headers that say that it is somebody else.

use std::sync::Arc;

use muster_api::registry::ListAgentsRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::router::GetStatusRequest;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_jose::forged;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::server;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller as Known, Grants, Kind, Role, Trust, Workload};
use serde_json::{Value, json};
use tonic::Code;

use super::{an_agent, issuer};
use crate::connect::{self, Endpoints, Service};
use crate::readiness::attacker::{Caller, PATIENCE, confused, foreign, more_written, refused, written};
use crate::readiness::check::{Evidence, Need, Stop, Verdict};
use crate::readiness::target::Shows;
use crate::readiness::trial::Trial;
use crate::trust::certs::{self, BUNDLE, InitArguments, OPERATOR};

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

pub(super) async fn nobody(trial: &mut Trial) -> Verdict {
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

pub(super) async fn with_claim(trial: &mut Trial, what: &str, name: &str, value: Value) -> Verdict {
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

pub(super) async fn unsigned_token(trial: &mut Trial) -> Verdict {
    let caller = Caller::with(forged::unsigned(&wishes(trial)));
    unknown(trial, &caller, "an unsigned token").await
}

pub(super) async fn foreign_token(trial: &mut Trial) -> Verdict {
    let caller = Caller::with(foreign(&wishes(trial), trial.target.issuer())?);
    unknown(trial, &caller, "a token of a foreign key").await
}

pub(super) async fn confused_token(trial: &mut Trial) -> Verdict {
    let caller = Caller::with(confused(&wishes(trial), issuer(trial)?)?);
    unknown(trial, &caller, "a token signed with the public key").await
}

pub(super) async fn foreign_certificate(trial: &mut Trial) -> Verdict {
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

pub(super) async fn on_behalf_of(trial: &mut Trial) -> Verdict {
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

pub(super) async fn forwarded_certificate(trial: &mut Trial) -> Verdict {
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
