//! Everything that can go wrong with a message on its way, as the domain sees it. `grpc.rs` turns it into a
//! status, exhaustively, and nothing else does.

use std::time::Duration;

use tonic::Status;

use crate::quota::{Spent, Whose};

/// Why a request was refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A field of the request is missing or malformed.
    #[error("{field}: {message}")]
    InvalidField {
        /// Path of the field.
        field: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// The request names no target, and no task that would tell.
    #[error("the request names no target")]
    TargetMissing,
    /// No agent has that id.
    #[error("no agent '{agent}' is registered{}", suggested(nearest))]
    UnknownAgent {
        /// The id.
        agent: String,
        /// Ids that are spelt alike.
        nearest: Vec<String>,
    },
    /// No agent has that skill.
    #[error("no registered agent has the skill '{skill}'{}", suggested(nearest))]
    UnknownSkill {
        /// The skill.
        skill: String,
        /// Skills that are spelt alike.
        nearest: Vec<String>,
    },
    /// Each skill exists, but nobody has all of them.
    #[error(
        "no registered agent{of} has all of the skills {}; '{nearest}' lacks {}",
        skills.join(", "),
        lacking.join(", ")
    )]
    UnmatchedSkills {
        /// What was asked for.
        skills: Vec<String>,
        /// ` 'AGENT'`, where one was named.
        of: String,
        /// The agent that lacks the fewest.
        nearest: String,
        /// What it lacks.
        lacking: Vec<String>,
    },
    /// The agents that would do take no work now.
    #[error("no instance of '{target}' takes work now: {why}")]
    NoInstance {
        /// Whom the message was for.
        target: String,
        /// What is the matter with each kind of instance.
        why: String,
        /// The same in a word for programs: `breaker`, `draining`, `unreachable` or `none`.
        cause: &'static str,
        /// When one may take work again.
        retry_after: Duration,
    },
    /// A stream is asked for of agents that do not stream.
    #[error(
        "'{target}' does not stream, as its card says; send the message without streaming, and read its task with GetTask"
    )]
    Unstreamed {
        /// Whom the request was for.
        target: String,
    },
    /// Nothing was heard of the registry since the start.
    #[error("the router has not heard of any agent yet, because the registry has not answered")]
    NoView,
    /// Too many calls wait already.
    #[error("{waiting} calls wait already, which is the limit")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// More work comes for the target than it does.
    #[error("'{target}' is overloaded: {waiting} calls wait for it already, and more come than are answered")]
    Overloaded {
        /// Whom the message was for.
        target: String,
        /// How many wait.
        waiting: usize,
        /// When there may be room.
        retry_after: Duration,
    },
    /// The caller has made as many requests as it may.
    #[error(
        "the caller makes more than {per_minute} requests a minute, which is the limit; the next one is taken in {} s",
        seconds(*retry_after)
    )]
    RateLimited {
        /// The limit.
        per_minute: u32,
        /// When the next one is taken.
        retry_after: Duration,
    },
    /// The agent takes no more messages for now.
    #[error(
        "agent '{}' takes {} messages a minute {}, and has had them; it takes the next one in {} s",
        _0.agent,
        _0.per_minute,
        whose(_0.whose),
        seconds(_0.retry_after)
    )]
    QuotaExceeded(Spent),
    /// The message's time to live has passed.
    #[error("the message's time to live of {ttl_seconds} s has passed {place}")]
    Expired {
        /// As the message said.
        ttl_seconds: f64,
        /// Where it was then.
        place: &'static str,
    },
    /// The caller's deadline passed.
    #[error("{what} took longer than the caller allowed")]
    DeadlineExceeded {
        /// What was waited for.
        what: String,
    },
    /// A stream stayed silent for too long.
    #[error("agent '{agent}' sent nothing for {} s", idle.as_secs())]
    StreamIdle {
        /// The agent.
        agent: String,
        /// How long.
        idle: Duration,
    },
    /// The caller left an event of a stream unread for too long.
    #[error("the caller read nothing for {} s, and the stream was ended", stall.as_secs())]
    StreamStalled {
        /// How long.
        stall: Duration,
    },
    /// The message is larger than allowed.
    #[error("the message has {bytes} bytes; at most {limit} are taken")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The agent was reached and broke off.
    #[error("instance {instance} of agent '{agent}' broke off: {detail}; {}", again(*is_repeatable))]
    Unreachable {
        /// The agent.
        agent: String,
        /// The instance.
        instance: String,
        /// What the connection said.
        detail: String,
        /// Whether doing it again does no harm, should it have been done.
        is_repeatable: bool,
    },
    /// The agent answered with something that is not A2A.
    #[error("agent '{agent}' gave an answer that is not A2A: {detail}")]
    InvalidAnswer {
        /// The agent.
        agent: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The agent asks for credentials that are not given.
    #[error("agent '{agent}' was not called: {what}")]
    Credentials {
        /// The agent.
        agent: String,
        /// What it asks for, and what is the matter.
        what: String,
    },
    /// The agent asks for a token that cannot be obtained.
    #[error("agent '{agent}' was not called: {what}")]
    Token {
        /// The agent.
        agent: String,
        /// Who issues none, and why.
        what: String,
    },
    /// Nobody is known to own that task.
    #[error("no agent is known to own task '{task}'")]
    UnknownTask {
        /// The task's id.
        task: String,
    },
    /// None of the target's instances that could be asked has the task, and not all could be asked.
    #[error(
        "task '{task}' is with none of the instances of '{target}' that answered, and {unasked} could not be asked"
    )]
    TaskUnlocated {
        /// The task's id.
        task: String,
        /// Whom the request was for.
        target: String,
        /// How many instances could not be asked.
        unasked: usize,
    },
    /// The message id was used with another body.
    #[error("message id '{message}' was used before with another message for the same target")]
    MessageIdReused {
        /// The message id.
        message: String,
    },
    /// The caller speaks another version of A2A.
    #[error("A2A version '{version}' is not supported; this router speaks 1.0")]
    VersionNotSupported {
        /// What the caller asked for.
        version: String,
    },
    /// The store does not take or tell something.
    #[error("{what}: {detail}")]
    Store {
        /// What cannot be done.
        what: &'static str,
        /// What the store said.
        detail: String,
    },
    /// No more durable answers are kept.
    #[error("as many durable messages were answered lately as may be remembered")]
    AnswersFull,
    /// The message was answered before, but the answer was too large to be kept.
    #[error(
        "message '{message}' was answered before, with {bytes} bytes, which were too many to be kept; it is not sent again"
    )]
    AnswerNotKept {
        /// The message's id.
        message: String,
        /// How large the answer was.
        bytes: usize,
    },
    /// The page token is none, or names what is gone.
    #[error("pageToken: {what}; list from the beginning")]
    InvalidPageToken {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Not all who have tasks could be asked for them.
    #[error(
        "the list would not be complete: instance {instance} of agent '{agent}' could not be asked: {detail}"
    )]
    Unlisted {
        /// The agent.
        agent: String,
        /// The instance.
        instance: String,
        /// What happened.
        detail: String,
    },
    /// The tasks of a page are too large together.
    #[error(
        "the tasks that {instances} instances have for this page are more than {limit} bytes; ask for fewer a page, for less history, or without artifacts"
    )]
    PageTooLarge {
        /// How many instances were asked.
        instances: usize,
        /// The limit.
        limit: usize,
    },
    /// The router is shutting down.
    #[error("the router is shutting down")]
    ShuttingDown,
    /// The caller may not do that.
    #[error(transparent)]
    Refused(Box<muster_api::error::Error>),
    /// The agent's own answer, passed on unchanged.
    #[error("{}", _0.message())]
    Agent(Box<Status>),
}

/// Rounded up, so that nobody comes too early.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).ceil() / 1000.0
}

const fn whose(whose: Whose) -> &'static str {
    match whose {
        Whose::All => "of all callers together",
        Whose::Callers => "of each caller",
    }
}

const fn again(is_repeatable: bool) -> &'static str {
    if is_repeatable {
        "trying again is safe"
    } else {
        "it may have been done already, so trying again may do it twice"
    }
}

fn suggested(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = nearest.iter().map(|name| format!("'{name}'")).collect();
    format!("; did you mean {}?", quoted.join(", "))
}
