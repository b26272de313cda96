//! What the bindings speak with a service: requests, answers, and what stands around them.
//!
//! The version is asked for on every binding: a missing `A2A-Version` means 0.3 to the protocol, and a caller that was let
//! pass without it would be misread the day that another version is spoken here, too.

use std::future::Future;

use futures::stream::BoxStream;
use http::{Extensions, HeaderMap, HeaderName};
use muster_api::a2a;
use tonic::Status;

use crate::SUPPORTED_VERSION;
use crate::error::ProtocolError;

/// Header that names the A2A version.
pub const VERSION: HeaderName = HeaderName::from_static("a2a-version");

/// Header that names the A2A extensions in use, separated by commas.
pub const EXTENSIONS: HeaderName = HeaderName::from_static("a2a-extensions");

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binding {
    /// gRPC.
    Grpc,
    /// JSON-RPC over HTTP.
    JsonRpc,
    /// HTTP+JSON.
    HttpJson,
}

/// What stands around a request.
#[derive(Debug, Clone)]
pub struct Head {
    /// How it came.
    pub binding: Binding,
    /// Headers; gRPC metadata are headers, too. A version in the query has become one.
    pub headers: HeaderMap,
    /// The tenant in the URL's path.
    pub tenant: Option<String>,
    /// What whoever stands before the binding has found out about the request.
    pub extensions: Extensions,
}

/// A request, whatever the binding.
#[derive(Debug, Clone)]
pub enum Request {
    /// Sends a message and waits for the answer.
    SendMessage(a2a::SendMessageRequest),
    /// Sends a message and follows the answer.
    SendStreamingMessage(a2a::SendMessageRequest),
    /// Reads a task.
    GetTask(a2a::GetTaskRequest),
    /// Lists tasks.
    ListTasks(a2a::ListTasksRequest),
    /// Cancels a task.
    CancelTask(a2a::CancelTaskRequest),
    /// Follows a task.
    SubscribeToTask(a2a::SubscribeToTaskRequest),
    /// Has a task's updates pushed.
    CreatePushConfig(a2a::TaskPushNotificationConfig),
    /// Reads where a task's updates are pushed to.
    GetPushConfig(a2a::GetTaskPushNotificationConfigRequest),
    /// Lists where a task's updates are pushed to.
    ListPushConfigs(a2a::ListTaskPushNotificationConfigsRequest),
    /// Ends a push.
    DeletePushConfig(a2a::DeleteTaskPushNotificationConfigRequest),
    /// Reads the extended card.
    GetExtendedAgentCard(a2a::GetExtendedAgentCardRequest),
}

impl Request {
    /// The operation's name, as in the contract.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::SendMessage(_) => "SendMessage",
            Self::SendStreamingMessage(_) => "SendStreamingMessage",
            Self::GetTask(_) => "GetTask",
            Self::ListTasks(_) => "ListTasks",
            Self::CancelTask(_) => "CancelTask",
            Self::SubscribeToTask(_) => "SubscribeToTask",
            Self::CreatePushConfig(_) => "CreateTaskPushNotificationConfig",
            Self::GetPushConfig(_) => "GetTaskPushNotificationConfig",
            Self::ListPushConfigs(_) => "ListTaskPushNotificationConfigs",
            Self::DeletePushConfig(_) => "DeleteTaskPushNotificationConfig",
            Self::GetExtendedAgentCard(_) => "GetExtendedAgentCard",
        }
    }
}

/// A stream of answers; an error is its last item.
pub type Events = BoxStream<'static, Result<a2a::StreamResponse, Status>>;

/// An answer, whatever the binding.
pub enum Answer {
    /// To a message.
    Sent(a2a::SendMessageResponse),
    /// A task.
    Task(a2a::Task),
    /// A page of tasks.
    Tasks(a2a::ListTasksResponse),
    /// Where a task's updates are pushed to.
    PushConfig(a2a::TaskPushNotificationConfig),
    /// A page of those.
    PushConfigs(a2a::ListTaskPushNotificationConfigsResponse),
    /// It is done, and there is nothing to say.
    Done,
    /// A card.
    Card(a2a::AgentCard),
    /// What happens, as it does.
    Events(Events),
}

/// An answer with its headers.
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// Headers that go with it.
    pub headers: HeaderMap,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            headers: HeaderMap::new(),
        }
    }
}

/// Something that serves A2A.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. The answer is of the request's kind.
    fn answer(&self, head: Head, request: Request) -> impl Future<Output = Result<Reply, Status>> + Send;

    /// Whether JSON-RPC is served below this path; the root is always.
    fn has_target(&self, target: &str) -> bool;

    /// Hears of a request that its binding could not read; for metrics.
    fn unreadable(&self, binding: Binding, status: &Status) {
        let _ = (binding, status);
    }
}

impl Head {
    /// Refuses every version but ours.
    ///
    /// # Errors
    /// `VersionNotSupported`.
    pub fn check_version(&self) -> Result<(), Box<Status>> {
        check_version(&self.headers).map_err(|version| Box::new(version_not_supported(&version)))
    }

    /// The extensions that the caller uses.
    #[must_use]
    pub fn extensions(&self) -> Vec<&str> {
        self.headers
            .get_all(EXTENSIONS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|uri| !uri.is_empty())
            .collect()
    }
}

/// Refuses every version but ours, whatever its patch.
///
/// # Errors
/// The version that the headers name, or that their silence means.
pub fn check_version(headers: &HeaderMap) -> Result<(), String> {
    let named = match headers.get(VERSION).map(|value| value.to_str()) {
        None => "",
        Some(Ok(version)) => version.trim(),
        Some(Err(_)) => "(no text)",
    };
    let patch = named
        .strip_prefix(SUPPORTED_VERSION)
        .and_then(|rest| rest.strip_prefix('.'));
    let is_ours = named == SUPPORTED_VERSION
        || patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()));
    match (is_ours, named) {
        (true, _) => Ok(()),
        (false, "") => Err("0.3".to_owned()),
        (false, other) => Err(other.chars().take(32).collect()),
    }
}

/// The error for a version that is not ours.
#[must_use]
pub fn version_not_supported(version: &str) -> Status {
    ProtocolError::VersionNotSupported.status(format!(
        "A2A version '{version}' is not supported; {SUPPORTED_VERSION} is spoken here, and is to be named in `A2A-Version`"
    ))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(pairs: &[(HeaderName, &'static str)]) -> Head {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        Head {
            binding: Binding::Grpc,
            headers,
            tenant: None,
            extensions: Extensions::new(),
        }
    }

    #[test]
    fn only_1_0_is_spoken_whatever_its_patch_and_silence_means_0_3() {
        for version in ["0.3", "1.1", "2.0", "one", "", "1.0.", "1.0.x", "1.01"] {
            let refused = head(&[(VERSION, version)]).check_version().unwrap_err();
            assert_eq!(
                ProtocolError::of(&refused),
                Some(ProtocolError::VersionNotSupported),
                "{version}"
            );
        }
        assert!(head(&[(VERSION, " 1.0 ")]).check_version().is_ok());
        assert!(head(&[(VERSION, "1.0.1")]).check_version().is_ok());
        let silent = head(&[]).check_version().unwrap_err();
        assert!(silent.message().contains("'0.3'"), "{silent}");
    }

    #[test]
    fn extensions_are_read_from_every_header_of_that_name() {
        let head = head(&[(EXTENSIONS, "urn:a, urn:b"), (EXTENSIONS, "urn:c,")]);
        assert_eq!(head.extensions(), ["urn:a", "urn:b", "urn:c"]);
    }
}
