//! `call: a2a`: methods of agents, and the agents that are called.

use std::fmt;
use std::str::FromStr;

use crate::document::Template;
use crate::expression::Expression;

/// A call of an agent over A2A.
#[derive(Debug, Clone)]
pub struct A2aCall {
    /// Which agent.
    pub server: Server,
    /// Which method.
    pub method: Method,
    /// The method's parameters, as the author wrote them; [`crate::a2a::translate`] makes A2A 1.0 of them once
    /// they are evaluated.
    pub parameters: Template,
}

/// The agent of a call: written down, or computed when the call is made.
#[derive(Debug, Clone)]
pub enum Server {
    /// Known from the document.
    Fixed(Endpoint),
    /// The expression must yield text that [`Endpoint::from_str`] accepts.
    Computed(Expression),
}

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `agent://ID`: the agent with this id.
    Agent(String),
    /// `skill://SKILL`: any agent that has this skill.
    Skill(String),
}

/// A method of A2A 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Sends a message and waits for the answer.
    SendMessage,
    /// Sends a message and follows the answer while it grows; for a workflow the last state is the answer.
    SendStreamingMessage,
    /// Reads a task.
    GetTask,
    /// Lists tasks.
    ListTasks,
    /// Cancels a task.
    CancelTask,
}

/// Why text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme, or none.
    #[error("'{0}' is not an address of an agent; write agent://ID or skill://SKILL")]
    Form(String),
    /// An address on the network.
    #[error(
        "calls to URLs such as '{0}' are not supported yet; register the agent and write agent://ID or skill://SKILL"
    )]
    Url(String),
    /// The id after `agent://`.
    #[error("'{0}' is not an agent id: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends")]
    Agent(String),
    /// The skill after `skill://`.
    #[error("'{0}' is not a skill id: 1 to 128 of letters, digits, '_', '-' and '.'")]
    Skill(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            Some(("agent", id)) if is_agent_id(id) => Ok(Self::Agent(id.to_owned())),
            Some(("agent", id)) => Err(EndpointError::Agent(id.to_owned())),
            Some(("skill", id)) if is_skill_id(id) => Ok(Self::Skill(id.to_owned())),
            Some(("skill", id)) => Err(EndpointError::Skill(id.to_owned())),
            Some(("http" | "https" | "grpc" | "grpcs", _)) => Err(EndpointError::Url(text.to_owned())),
            _ => Err(EndpointError::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(formatter, "agent://{id}"),
            Self::Skill(id) => write!(formatter, "skill://{id}"),
        }
    }
}

fn is_agent_id(text: &str) -> bool {
    muster_api::names::is_dns_label(text)
}

fn is_skill_id(text: &str) -> bool {
    const LONGEST: usize = 128;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(allowed)
}

impl Method {
    /// Each method with its name in A2A 1.0 and the name that the DSL knows it by.
    const NAMES: [(Self, &'static str, &'static str); 5] = [
        (Self::SendMessage, "SendMessage", "message/send"),
        (
            Self::SendStreamingMessage,
            "SendStreamingMessage",
            "message/stream",
        ),
        (Self::GetTask, "GetTask", "tasks/get"),
        (Self::ListTasks, "ListTasks", "tasks/list"),
        (Self::CancelTask, "CancelTask", "tasks/cancel"),
    ];

    /// Methods of the protocol that a workflow cannot call yet, under all their names.
    pub const UNSUPPORTED: &'static [&'static str] = &[
        "SubscribeToTask",
        "tasks/resubscribe",
        "CreateTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/set",
        "GetTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/get",
        "ListTaskPushNotificationConfigs",
        "tasks/pushNotificationConfig/list",
        "DeleteTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/delete",
        "GetExtendedAgentCard",
        "agent/getAuthenticatedExtendedCard",
    ];

    /// The method that `name` means, in A2A 1.0 or in the DSL.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, new, old)| *new == name || *old == name)
            .map(|(method, ..)| *method)
    }

    /// All names that [`Self::by_name`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().flat_map(|(_, new, old)| [*new, *old])
    }

    /// The name in A2A 1.0.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SendMessage => "SendMessage",
            Self::SendStreamingMessage => "SendStreamingMessage",
            Self::GetTask => "GetTask",
            Self::ListTasks => "ListTasks",
            Self::CancelTask => "CancelTask",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for text in [
            "agent://weather",
            "skill://weather_forecasting",
            "skill://a.b-C_9",
        ] {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_endpoint_says_what_is() {
        for (text, expected) in [
            ("weather", EndpointError::Form("weather".into())),
            ("tcp://x", EndpointError::Form("tcp://x".into())),
            (
                "https://a.example/",
                EndpointError::Url("https://a.example/".into()),
            ),
            ("agent://", EndpointError::Agent(String::new())),
            ("agent://Weather", EndpointError::Agent("Weather".into())),
            ("skill://a b", EndpointError::Skill("a b".into())),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn methods_have_two_names() {
        for (method, new, old) in Method::NAMES {
            assert_eq!(Method::by_name(new), Some(method));
            assert_eq!(Method::by_name(old), Some(method));
            assert_eq!(method.name(), new);
        }
        for name in Method::UNSUPPORTED {
            assert_eq!(Method::by_name(name), None);
        }
    }
}
