//! `call: a2a`: methods of agents, and the agents that are called.

use std::fmt;
use std::str::FromStr;

use crate::document::{Authentication, Template, UriTemplate};
use crate::expression::Expression;

/// A call of an agent over A2A.
#[derive(Debug, Clone)]
pub struct A2aCall {
    /// Which agent.
    pub server: Server,
    /// Whether the address is that of the agent's card.
    pub card: bool,
    /// How the call authenticates itself; for agents by URL.
    pub authentication: Option<Authentication>,
    /// Which method.
    pub method: Method,
    /// Whether all events of a stream are the output, in order; otherwise what they add up to.
    pub events: bool,
    /// The method's parameters, as the author wrote them; [`crate::a2a::translate`] makes A2A 1.0 of them once
    /// they are evaluated.
    pub parameters: Template,
}

/// The agent of a call: written down, or computed when the call is made.
#[derive(Debug, Clone)]
pub enum Server {
    /// Known from the document.
    Fixed(Endpoint),
    /// An address on the network with variables in it.
    Template(UriTemplate),
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
    /// An address on the network: `https://…`, `http://…`, `grpcs://…` or `grpc://…`.
    Url(String),
}

/// A method of A2A 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Sends a message and waits for the answer.
    SendMessage,
    /// Sends a message and follows the answer while it grows.
    SendStreamingMessage,
    /// Reads a task.
    GetTask,
    /// Lists tasks.
    ListTasks,
    /// Cancels a task.
    CancelTask,
    /// Follows a task that is there.
    SubscribeToTask,
    /// Has an agent tell how a task goes on by calling back.
    CreateTaskPushNotificationConfig,
    /// Reads such a wish.
    GetTaskPushNotificationConfig,
    /// Lists such wishes.
    ListTaskPushNotificationConfigs,
    /// Takes such a wish back.
    DeleteTaskPushNotificationConfig,
    /// Reads the card that an agent shows to those whom it knows.
    GetExtendedAgentCard,
}

/// Why text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme, or none.
    #[error(
        "'{0}' is not an address of an agent; write agent://ID, skill://SKILL or a URL such as https://agent.example.com"
    )]
    Form(String),
    /// An address on the network.
    #[error("'{0}' is not an address on the network: it names no host, or has blanks in it")]
    Url(String),
    /// The id after `agent://`.
    #[error("'{0}' is not an agent id: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends")]
    Agent(String),
    /// The skill after `skill://`.
    #[error("'{0}' is not a skill id: 1 to 128 of letters, digits, '_', '-' and '.'")]
    Skill(String),
}

/// What addresses on the network begin with.
pub(crate) const SCHEMES: [&str; 4] = ["http", "https", "grpc", "grpcs"];

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            Some(("agent", id)) if is_agent_id(id) => Ok(Self::Agent(id.to_owned())),
            Some(("agent", id)) => Err(EndpointError::Agent(id.to_owned())),
            Some(("skill", id)) if is_skill_id(id) => Ok(Self::Skill(id.to_owned())),
            Some(("skill", id)) => Err(EndpointError::Skill(id.to_owned())),
            Some((scheme, rest)) if SCHEMES.contains(&scheme) => {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let plain = |character: char| !character.is_control() && !character.is_whitespace();
                if host.is_empty() || !text.chars().all(plain) {
                    return Err(EndpointError::Url(text.to_owned()));
                }
                Ok(Self::Url(text.to_owned()))
            }
            _ => Err(EndpointError::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(formatter, "agent://{id}"),
            Self::Skill(id) => write!(formatter, "skill://{id}"),
            Self::Url(url) => formatter.write_str(url),
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
    const NAMES: [(Self, &'static str, &'static str); 11] = [
        (Self::SendMessage, "SendMessage", "message/send"),
        (
            Self::SendStreamingMessage,
            "SendStreamingMessage",
            "message/stream",
        ),
        (Self::GetTask, "GetTask", "tasks/get"),
        (Self::ListTasks, "ListTasks", "tasks/list"),
        (Self::CancelTask, "CancelTask", "tasks/cancel"),
        (Self::SubscribeToTask, "SubscribeToTask", "tasks/resubscribe"),
        (
            Self::CreateTaskPushNotificationConfig,
            "CreateTaskPushNotificationConfig",
            "tasks/pushNotificationConfig/set",
        ),
        (
            Self::GetTaskPushNotificationConfig,
            "GetTaskPushNotificationConfig",
            "tasks/pushNotificationConfig/get",
        ),
        (
            Self::ListTaskPushNotificationConfigs,
            "ListTaskPushNotificationConfigs",
            "tasks/pushNotificationConfig/list",
        ),
        (
            Self::DeleteTaskPushNotificationConfig,
            "DeleteTaskPushNotificationConfig",
            "tasks/pushNotificationConfig/delete",
        ),
        (
            Self::GetExtendedAgentCard,
            "GetExtendedAgentCard",
            "agent/getAuthenticatedExtendedCard",
        ),
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
        let named = Self::NAMES.iter().find(|(method, ..)| *method == self);
        named.map_or("", |(_, name, _)| name)
    }

    /// Whether the answer is a stream.
    #[must_use]
    pub fn streams(self) -> bool {
        matches!(self, Self::SendStreamingMessage | Self::SubscribeToTask)
    }

    /// Whether `name` asks for all events of a stream: the names of the DSL do, as the DSL says. Those of A2A 1.0 ask for
    /// what the events add up to, the task or the message.
    #[must_use]
    pub fn asks_for_events(name: &str) -> bool {
        Self::NAMES
            .iter()
            .any(|(method, _, old)| *old == name && method.streams())
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
            "https://agent.test/a/b?c=d",
            "grpc://127.0.0.1:50051",
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
            ("https:///x", EndpointError::Url("https:///x".into())),
            ("http://a b", EndpointError::Url("http://a b".into())),
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
        assert_eq!(Method::by_name("message/shout"), None);
        assert!(Method::asks_for_events("message/stream") && Method::asks_for_events("tasks/resubscribe"));
        assert!(!Method::asks_for_events("SubscribeToTask") && !Method::asks_for_events("message/send"));
    }
}
