//! Who sends too much: a message that is too large, more requests than a caller may make, guess after guess.

use futures::StreamExt as _;
use muster_api::a2a::GetTaskRequest;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::error::{Error, Reason};
use tonic::Code;

use super::{an_agent, issuer};
use crate::bench::part::Part;
use crate::connect::Service;
use crate::readiness::attacker::{PATIENCE, line_written, refused};
use crate::readiness::check::{Evidence, Stop, Verdict};
use crate::readiness::target::Shows;
use crate::readiness::trial::{Trial, eventually};

/// A message that no part takes by default, in bytes.
const OVERSIZE: usize = 9 << 20;

/// Requests of a flood: some times what one caller may make at once.
const FLOOD: usize = 400;

/// Of them at a time.
const FLOOD_AT_ONCE: usize = 16;

/// Refused tokens from one address, more than are looked at in a minute.
const GUESSES: usize = 70;

pub(super) async fn oversize(trial: &mut Trial) -> Verdict {
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

pub(super) async fn flood(trial: &mut Trial) -> Verdict {
    let issuer = issuer(trial)?;
    // A name of its own: of one caller, one line a minute is written.
    let name = trial.made.name();
    let flooding = issuer.token(&name, &["agent-reader"])?;
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
    let seen = line_written(trial, Service::Router, "the flood", |line| {
        line["event"] == "rate_limited" && line["user"] == name.as_str()
    });
    Ok(Evidence::new(format!(
        "{} of {FLOOD} requests were refused with RATE_LIMITED and a time to come again; another caller was not; {}",
        refusals.len(),
        seen.await?
    ))
    .figure("refused", refusals.len()))
}

pub(super) async fn guessing(trial: &mut Trial) -> Verdict {
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
