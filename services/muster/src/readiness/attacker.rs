//! Who should not get in: the tokens and calls of an attacker, and whether a refusal was written down.

use std::time::Duration;

use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{Message, Part, Role, SendMessageRequest, SendMessageResponse, part};
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{ListRunsRequest, ListRunsResponse};
use muster_jose::forged;
use muster_runtime::trust::audit::chain;
use serde_json::Value;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};

use super::check::Stop;
use super::target::{Issuer, Shows};
use super::trial::{Trial, eventually};
use crate::connect::Service;
use crate::failure::Failure;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a line may take to be in the log.
const WRITTEN: Duration = Duration::from_secs(5);

/// A caller as an attacker makes it up.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The token that is shown.
    pub token: Option<String>,
    /// Headers beside it.
    pub headers: Vec<(&'static str, String)>,
}

impl Caller {
    /// Nobody.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Whoever has this token.
    pub fn with(token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            headers: Vec::new(),
        }
    }

    /// With a header besides.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A request of this caller.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Stop> {
        let mut request = Request::new(message);
        request.set_timeout(PATIENCE);
        for (name, value) in &self.headers {
            let value = AsciiMetadataValue::try_from(value.as_str())
                .map_err(|_| Stop::failed(format!("the header {name} is not plain ASCII")))?;
            request.metadata_mut().insert(*name, value);
        }
        Ok(request)
    }

    /// Has an agent work.
    pub async fn send(
        &self,
        trial: &Trial,
        target: &str,
        text: &str,
    ) -> Result<Result<SendMessageResponse, Status>, Stop> {
        let request = SendMessageRequest {
            tenant: target.to_owned(),
            message: Some(Message {
                message_id: trial.made.name(),
                role: Role::User.into(),
                parts: vec![Part {
                    content: Some(part::Content::Text(text.to_owned())),
                    ..Part::default()
                }],
                ..Message::default()
            }),
            ..SendMessageRequest::default()
        };
        let channel = trial
            .target
            .channel(Service::Router, Shows::Nothing, self.token.as_deref())?;
        let mut client = A2aServiceClient::new(channel);
        let answer = client.send_message(self.request(request)?).await;
        Ok(answer.map(tonic::Response::into_inner))
    }

    /// Looks at the runs.
    pub async fn list_runs(&self, trial: &Trial) -> Result<Result<ListRunsResponse, Status>, Stop> {
        let mut client = self.engine(trial)?;
        let request = ListRunsRequest {
            page_size: 1,
            ..ListRunsRequest::default()
        };
        let answer = client.list_runs(self.request(request)?).await;
        Ok(answer.map(tonic::Response::into_inner))
    }

    /// A client of the engine.
    pub fn engine(&self, trial: &Trial) -> Result<WorkflowServiceClient<crate::connect::Channel>, Failure> {
        let channel = trial
            .target
            .channel(Service::Engine, Shows::Nothing, self.token.as_deref())?;
        Ok(WorkflowServiceClient::new(channel))
    }
}

/// The call must be refused with this code.
pub fn refused<T>(answer: Result<T, Status>, code: Code, what: &str) -> Result<(), Stop> {
    match answer {
        Ok(_) => Err(Stop::failed(format!("{what} was let in"))),
        Err(status) if status.code() == code => Ok(()),
        Err(status) => Err(Stop::failed(format!(
            "{what} was answered with {:?} ({}) in place of {code:?}",
            status.code(),
            status.message()
        ))),
    }
}

/// How many refusals a service has written down; `None` where its log is out of reach.
pub fn written(trial: &Trial, service: Service) -> Option<usize> {
    let directories = trial.target.audits(service);
    if directories.is_empty() {
        return None;
    }
    let lines = directories
        .iter()
        .filter_map(|directory| chain::lines(directory).ok());
    let refused = |lines: &Vec<Value>| lines.iter().filter(|line| line["outcome"] == "refused").count();
    Some(lines.map(|lines| refused(&lines)).sum())
}

/// Waits until so many more refusals are written down than there were; says in words what was seen.
pub async fn more_written(
    trial: &Trial,
    service: Service,
    before: Option<usize>,
    more: usize,
) -> Result<&'static str, Stop> {
    let Some(before) = before else {
        return Ok("the audit log is out of reach");
    };
    let seen = eventually(WRITTEN, async || {
        let now = written(trial, service).unwrap_or(0);
        if now >= before + more {
            return Ok(());
        }
        Err(format!(
            "{} of {more} refusals are in the audit log of the {}",
            now.saturating_sub(before),
            service.name()
        ))
    });
    seen.await.map_err(Stop::Failed)?;
    Ok("written down in the audit log")
}

/// Waits until such a line is written down; says in words what was seen.
pub async fn line_written(
    trial: &Trial,
    service: Service,
    what: &str,
    is_it: impl Fn(&Value) -> bool,
) -> Result<&'static str, Stop> {
    let directories = trial.target.audits(service);
    if directories.is_empty() {
        return Ok("the audit log is out of reach");
    }
    let seen = eventually(WRITTEN, async || {
        for directory in &directories {
            let lines = chain::lines(directory).map_err(|error| error.to_string())?;
            if lines.iter().any(&is_it) {
                return Ok(());
            }
        }
        let name = service.name();
        Err(format!("{what} is not in the audit log of the {name}"))
    });
    seen.await.map_err(Stop::Failed)?;
    Ok("written down in the audit log")
}

/// A token signed with a key of the attacker's, under the name of the right one where that is known.
pub fn foreign(claims: &Value, issuer: Option<&Issuer>) -> Result<String, Failure> {
    let public = issuer.and_then(|issuer| serde_json::from_str::<Value>(&issuer.public).ok());
    let name = public.and_then(|public| public["keys"][0]["kid"].as_str().map(str::to_owned));
    forged::foreign(claims, &name.unwrap_or_default()).map_err(Failure::failed)
}

/// A token signed with the public key as if it were a shared secret.
pub fn confused(claims: &Value, issuer: &Issuer) -> Result<String, Failure> {
    forged::confused(claims, &issuer.public).map_err(Failure::failed)
}
