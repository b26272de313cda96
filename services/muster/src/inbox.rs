//! `muster inbox`: messages that the router keeps and delivers for senders who do not wait; and `muster broadcast`: one message
//! to every agent that has a skill.

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;
use muster_api::a2a::{
    Message, Part, Role, SendMessageRequest, SendMessageResponse, part, send_message_response,
};
use muster_api::extension::SKILL_TARGET_PREFIX;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_api::{router as proto, time};
use serde_json::{Value, json};

use crate::connect::{Channel, Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::listing::Listing;
use crate::send;

/// Largest answer the command line takes: that of a broadcast, with all answers in it.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What the router adds to the wait for a broadcast's answers, at most: to gather them, and the way.
const GRACE: u64 = 5;

/// Entries that one call replays or purges.
const BULK: u32 = 1000;

/// `muster inbox …`
#[derive(Debug, Subcommand)]
pub enum InboxCommand {
    /// Leave a message for an agent, or for whoever has a skill, and do not wait for the answer.
    Enqueue(EnqueueArguments),
    /// List entries, oldest first.
    List {
        /// Which entries.
        #[command(flatten)]
        search: Search,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show an entry with its message, and its answer where it is done.
    Get {
        /// The entry's id.
        id: String,
    },
    /// Do not deliver an entry that still waits.
    Cancel {
        /// The entry's id.
        id: String,
    },
    /// Put dead letters back into the queue.
    Replay {
        /// The entry's id.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All dead letters.
        #[arg(long)]
        all: bool,
        /// With `--all`: of this target only, an agent's id or `skill:SKILL`.
        #[arg(long, requires = "all")]
        target: Option<String>,
    },
    /// Forget entries that have ended.
    Purge {
        /// The entry's id.
        #[arg(required_unless_present = "status", conflicts_with = "status")]
        id: Option<String>,
        /// All in this state.
        #[arg(long, value_enum)]
        status: Option<EndedFilter>,
        /// With `--status`: of this target only, an agent's id or `skill:SKILL`.
        #[arg(long, requires = "status")]
        target: Option<String>,
    },
}

/// Arguments of `muster inbox enqueue`.
#[derive(Debug, Args)]
pub struct EnqueueArguments {
    /// The agent that it is for.
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "skill",
        conflicts_with = "skill"
    )]
    agent: Option<String>,
    /// For any agent that has this skill.
    #[arg(long, value_name = "SKILL")]
    skill: Option<String>,
    /// How urgent it is.
    #[arg(long, value_enum, default_value_t = Priority::Normal)]
    priority: Priority,
    /// How long it may take to be delivered, such as 30s, 5m or 2h; the router's default where nothing is said.
    #[arg(long, value_name = "TIME", value_parser = span)]
    ttl: Option<SignedDuration>,
    /// How long it is held back.
    #[arg(long, value_name = "TIME", value_parser = span)]
    delay: Option<SignedDuration>,
    /// Its id: the same id with the same message is taken in once. A fresh one where none is given.
    #[arg(long)]
    id: Option<String>,
    /// Leave it to be fetched by a consumer, in place of being delivered.
    #[arg(long)]
    pull: bool,
    /// A JSON value, or `@FILE` with one.
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The text.
    #[arg(required_unless_present = "data")]
    text: Option<String>,
}

/// Arguments of `muster broadcast`.
#[derive(Debug, Args)]
pub struct BroadcastArguments {
    /// The skill whose agents are meant.
    #[arg(long, value_name = "SKILL")]
    skill: String,
    /// Seconds to wait for the answers.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// A JSON value, or `@FILE` with one.
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The text.
    #[arg(required_unless_present = "data")]
    text: Option<String>,
}

/// Which entries to list.
#[derive(Debug, Args)]
pub struct Search {
    /// Only those in this state.
    #[arg(long, value_enum)]
    status: Option<StatusFilter>,
    /// Only those for this target: an agent's id, or `skill:SKILL`.
    #[arg(long)]
    target: Option<String>,
}

/// How urgent a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Priority {
    /// After all others.
    Low,
    /// The usual.
    Normal,
    /// Before normal ones.
    High,
    /// Before all others.
    Urgent,
}

/// States to filter entries by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusFilter {
    /// Waits.
    Pending,
    /// Is with somebody.
    Delivering,
    /// Was answered.
    Done,
    /// Is a dead letter.
    Dead,
}

/// States in which an entry has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EndedFilter {
    /// Was answered.
    Done,
    /// Is a dead letter.
    Dead,
}

impl From<Priority> for proto::EntryPriority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
            Priority::Urgent => Self::Urgent,
        }
    }
}

impl From<StatusFilter> for proto::EntryStatus {
    fn from(filter: StatusFilter) -> Self {
        match filter {
            StatusFilter::Pending => Self::Pending,
            StatusFilter::Delivering => Self::Delivering,
            StatusFilter::Done => Self::Done,
            StatusFilter::Dead => Self::Dead,
        }
    }
}

impl From<EndedFilter> for proto::EntryStatus {
    fn from(filter: EndedFilter) -> Self {
        match filter {
            EndedFilter::Done => Self::Done,
            EndedFilter::Dead => Self::Dead,
        }
    }
}

/// A time span: seconds, or a number with its unit.
fn span(text: &str) -> Result<SignedDuration, String> {
    let read = match text.parse::<u32>() {
        Ok(seconds) => Ok(SignedDuration::from_secs(seconds.into())),
        Err(_) => text.parse::<SignedDuration>(),
    };
    match read {
        Ok(span) if !span.is_negative() => Ok(span),
        Ok(_) => Err("must not be negative".to_owned()),
        Err(_) => Err("is no time; write such as 30s, 5m, 2h or 1h 30m".to_owned()),
    }
}

fn client(endpoints: &Endpoints) -> Result<InboxServiceClient<Channel>, Failure> {
    Ok(InboxServiceClient::new(endpoints.channel(Service::Router)?)
        .max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// Runs `muster inbox …`.
pub async fn run(command: InboxCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let failure = |status: tonic::Status| endpoints.failure(Service::Router, &status);
    match command {
        InboxCommand::Enqueue(arguments) => enqueue(&arguments, endpoints, output).await,
        InboxCommand::List { search, limit } => list(&search, limit, endpoints, output).await,
        InboxCommand::Get { id } => {
            let request = proto::GetEntryRequest { entry_id: id };
            let answer = client(endpoints)?.get_entry(request).await.map_err(failure)?;
            show(&entry_of(answer.into_inner().entry)?, output)
        }
        InboxCommand::Cancel { id } => {
            let request = proto::CancelEntryRequest { entry_id: id };
            let answer = client(endpoints)?.cancel_entry(request).await.map_err(failure)?;
            show(&entry_of(answer.into_inner().entry)?, output)
        }
        InboxCommand::Replay { id, target, .. } => replay(id, target, endpoints, output).await,
        InboxCommand::Purge { id, status, target } => purge(id, status, target, endpoints, output).await,
    }
}

async fn enqueue(
    arguments: &EnqueueArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let target = match (&arguments.agent, &arguments.skill) {
        (Some(agent), _) => agent.clone(),
        (None, Some(skill)) => format!("{SKILL_TARGET_PREFIX}{skill}"),
        (None, None) => return Err(Failure::usage("name a target with --agent ID or --skill SKILL")),
    };
    let delivery = if arguments.pull {
        proto::EntryDelivery::Pull
    } else {
        proto::EntryDelivery::Push
    };
    let request = proto::EnqueueRequest {
        target,
        message: Some(message(
            arguments.id.clone(),
            arguments.text.as_deref(),
            arguments.data.as_deref(),
        )?),
        priority: proto::EntryPriority::from(arguments.priority).into(),
        ttl: arguments.ttl.map(time::duration_to_proto),
        delay: arguments.delay.map(time::duration_to_proto),
        delivery: delivery.into(),
    };
    let answer = client(endpoints)?.enqueue(request).await;
    let answer = answer
        .map_err(|status| endpoints.failure(Service::Router, &status))?
        .into_inner();
    let entry = entry_of(answer.entry)?;
    if output.is_json() {
        let mut value = entry_json(&entry)?;
        value["existed"] = json!(answer.existed);
        output.json(&value);
    } else if answer.existed {
        let status = status_name(&entry);
        output.line(&format!("{} was there before, and is {status}", entry.entry_id));
    } else {
        output.line(&format!("{} waits for {}", entry.entry_id, entry.target));
        output.line(&format!(
            "  → what became of it: muster inbox get {}",
            entry.entry_id
        ));
    }
    Ok(())
}

fn message(
    id: Option<String>,
    text: Option<&str>,
    data: Option<&str>,
) -> Result<SendMessageRequest, Failure> {
    let mut parts = Vec::new();
    if let Some(text) = text {
        parts.push(part::Content::Text(text.to_owned()));
    }
    if let Some(data) = data {
        let value = send::json_argument("--data", data)?;
        parts.push(part::Content::Data(a2a_pb::pbconv::json_value_to_proto_value(
            &value,
        )));
    }
    let parts = parts.into_iter().map(|content| Part {
        content: Some(content),
        ..Part::default()
    });
    Ok(SendMessageRequest {
        message: Some(Message {
            message_id: id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            role: Role::User.into(),
            parts: parts.collect(),
            ..Message::default()
        }),
        ..SendMessageRequest::default()
    })
}

async fn list(search: &Search, limit: u32, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = client(endpoints)?;
    let filter = filter(search.status.map(Into::into), search.target.clone());
    let Listing { entries, more } = Listing::gather(limit, async |page_size, page_token| {
        let request = proto::ListEntriesRequest {
            filter: Some(filter.clone()),
            page_size,
            page_token,
        };
        let answer = client.list_entries(request).await;
        let answer = answer
            .map_err(|status| endpoints.failure(Service::Router, &status))?
            .into_inner();
        Ok((answer.entries, answer.next_page_token))
    })
    .await?;
    if output.is_json() {
        let entries = entries.iter().map(entry_json).collect::<Result<Vec<_>, _>>()?;
        output.json(&json!({"entries": entries, "more": more}));
        return Ok(());
    }
    if entries.is_empty() {
        output.line("no such entries");
        return Ok(());
    }
    let rows = entries.iter().map(row).collect();
    output.table(
        [
            "ENTRY", "FOR", "STATUS", "PRIORITY", "ENQUEUED", "ATTEMPTS", "WHY",
        ],
        rows,
    );
    if more {
        output.line(&format!(
            "  → there are more; see them with --limit {}",
            limit.saturating_mul(2)
        ));
    }
    Ok(())
}

fn filter(status: Option<proto::EntryStatus>, target: Option<String>) -> proto::EntryFilter {
    proto::EntryFilter {
        status: status.unwrap_or_default().into(),
        target: target.unwrap_or_default(),
    }
}

async fn replay(
    id: Option<String>,
    target: Option<String>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let mut client = client(endpoints)?;
    let count = in_portions(async || {
        let request = proto::ReplayEntriesRequest {
            entry_id: id.clone().unwrap_or_default(),
            target: target.clone().unwrap_or_default(),
            limit: BULK,
        };
        let answer = client.replay_entries(request).await;
        let answer = answer
            .map_err(|status| endpoints.failure(Service::Router, &status))?
            .into_inner();
        Ok((answer.count, answer.more))
    });
    told(count.await?, "put back", output);
    Ok(())
}

async fn purge(
    id: Option<String>,
    status: Option<EndedFilter>,
    target: Option<String>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let mut client = client(endpoints)?;
    let count = in_portions(async || {
        let request = proto::PurgeEntriesRequest {
            entry_id: id.clone().unwrap_or_default(),
            filter: Some(filter(status.map(Into::into), target.clone())),
            limit: BULK,
        };
        let answer = client.purge_entries(request).await;
        let answer = answer
            .map_err(|status| endpoints.failure(Service::Router, &status))?
            .into_inner();
        Ok((answer.count, answer.more))
    });
    told(count.await?, "forgotten", output);
    Ok(())
}

/// Calls until there are no more; how many were done in all.
async fn in_portions(mut call: impl AsyncFnMut() -> Result<(u32, bool), Failure>) -> Result<u64, Failure> {
    let mut done = 0;
    loop {
        let (count, more) = call().await?;
        done += u64::from(count);
        if !more || count == 0 {
            return Ok(done);
        }
    }
}

fn told(count: u64, what: &str, output: &Output) {
    if output.is_json() {
        output.json(&json!({"count": count}));
    } else {
        let entries = if count == 1 { "entry was" } else { "entries were" };
        output.line(&format!("{count} {entries} {what}"));
    }
}

/// Runs `muster broadcast`; fails when no agent answered.
pub async fn broadcast(
    arguments: BroadcastArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let mut request = tonic::Request::new(proto::BroadcastRequest {
        message: Some(message(
            None,
            arguments.text.as_deref(),
            arguments.data.as_deref(),
        )?),
        timeout: Some(prost_types::Duration {
            seconds: i64::try_from(arguments.timeout).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        skill: arguments.skill,
    });
    request.set_timeout(std::time::Duration::from_secs(arguments.timeout + GRACE));
    let answer = client(endpoints)?.broadcast(request).await;
    let answer = answer
        .map_err(|status| endpoints.failure(Service::Router, &status))?
        .into_inner();
    if output.is_json() {
        let answers = answer
            .answers
            .iter()
            .map(said_json)
            .collect::<Result<Vec<_>, _>>()?;
        output.json(&json!({
            "matched": answer.matched,
            "answered": answer.answered,
            "failed": answer.failed,
            "answers": answers,
        }));
    } else {
        for said in &answer.answers {
            said_for_people(said, output);
        }
        output.line(&format!(
            "{} of {} agents answered",
            answer.answered, answer.matched
        ));
    }
    if answer.answered == 0 {
        return Err(Failure::unavailable("no agent answered")
            .with_remedy("see who has the skill, and how they are, with `muster agents list`"));
    }
    Ok(())
}

fn said_json(said: &proto::BroadcastAnswer) -> Result<Value, Failure> {
    use proto::broadcast_answer::Outcome;
    let mut value = json!({"agent": said.agent_id});
    match &said.outcome {
        Some(Outcome::Answer(answer)) => {
            value["instance"] = json!(said.instance_id);
            value["answer"] = answer_json(answer)?;
        }
        Some(Outcome::Failure(failure)) => value["failure"] = failure_json(failure),
        None => {}
    }
    Ok(value)
}

fn said_for_people(said: &proto::BroadcastAnswer, output: &Output) {
    use proto::broadcast_answer::Outcome;
    output.heading(&said.agent_id);
    match &said.outcome {
        Some(Outcome::Answer(answer)) => answer_for_people(answer, output),
        Some(Outcome::Failure(failure)) => output.line(&failure_line(failure)),
        None => {}
    }
}

fn answer_for_people(answer: &SendMessageResponse, output: &Output) {
    match &answer.payload {
        // What the task came to is told by itself; here it does not decide how the command ends.
        Some(send_message_response::Payload::Task(task)) => {
            if let Err(failure) = send::finish(task, None, output) {
                output.line(&failure.message);
            }
        }
        Some(send_message_response::Payload::Message(message)) => {
            for part in &message.parts {
                if let Some(part::Content::Text(text)) = &part.content {
                    output.line(text);
                }
            }
        }
        None => {}
    }
}

fn answer_json(answer: &SendMessageResponse) -> Result<Value, Failure> {
    match a2a_pb::pbconv::from_proto_send_message_response(answer) {
        Some(native) => send::protojson(a2a_pb::protojson_conv::to_value(&native)),
        None => Ok(Value::Null),
    }
}

fn entry_of(entry: Option<proto::Entry>) -> Result<proto::Entry, Failure> {
    entry.ok_or_else(|| Failure::failed("the router answered without an entry"))
}

fn status_name(entry: &proto::Entry) -> String {
    lower(entry.status().as_str_name(), "ENTRY_STATUS_")
}

/// A name of the contract as people write it.
fn lower(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

fn at(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.and_then(time::from_proto).map(time::rfc3339)
}

fn failure_json(failure: &proto::EntryFailure) -> Value {
    json!({"code": failure.code, "reason": failure.reason, "message": failure.message})
}

fn failure_line(failure: &proto::EntryFailure) -> String {
    format!("{}: {}", failure.code, failure.message)
}

fn dead_reason(entry: &proto::Entry) -> Option<String> {
    let reason = entry.dead_reason();
    (reason != proto::DeadReason::Unspecified).then(|| lower(reason.as_str_name(), "DEAD_REASON_"))
}

fn entry_json(entry: &proto::Entry) -> Result<Value, Failure> {
    let mut value = json!({
        "id": entry.entry_id,
        "target": entry.target,
        "status": status_name(entry),
        "priority": lower(entry.priority().as_str_name(), "ENTRY_PRIORITY_"),
        "delivery": lower(entry.delivery().as_str_name(), "ENTRY_DELIVERY_"),
        "enqueuedAt": at(entry.enqueued_at.as_ref()),
        "notBefore": at(entry.not_before.as_ref()),
        "expiresAt": at(entry.expires_at.as_ref()),
        "endedAt": at(entry.ended_at.as_ref()),
        "attempts": entry.attempts,
        "failures": entry.failures,
        "deadReason": dead_reason(entry),
        "lastFailure": entry.last_failure.as_ref().map(failure_json),
    });
    if let Some(until) = at(entry.leased_until.as_ref()) {
        value["leasedUntil"] = json!(until);
        value["leasedBy"] = json!(entry.leased_by);
    }
    if !entry.agent_id.is_empty() {
        value["agent"] = json!(entry.agent_id);
        value["instance"] = json!(entry.instance_id);
    }
    if let Some(request) = &entry.message {
        let native = a2a_pb::pbconv::from_proto_send_message_request(request);
        let mut request = send::protojson(a2a_pb::protojson_conv::to_value(&native))?;
        value["message"] = request["message"].take();
    }
    if let Some(answer) = &entry.answer {
        value["answer"] = answer_json(answer)?;
    }
    if entry.answer_bytes_dropped > 0 {
        value["answerBytesDropped"] = json!(entry.answer_bytes_dropped);
    }
    Ok(value)
}

fn row(entry: &proto::Entry) -> [String; 7] {
    let failure = entry.last_failure.as_ref().map(failure_line).unwrap_or_default();
    let why = match dead_reason(entry) {
        Some(reason) if failure.is_empty() => reason,
        Some(reason) => format!("{reason}: {failure}"),
        None => failure,
    };
    [
        entry.entry_id.clone(),
        entry.target.clone(),
        status_name(entry),
        lower(entry.priority().as_str_name(), "ENTRY_PRIORITY_"),
        at(entry.enqueued_at.as_ref()).unwrap_or_default(),
        entry.attempts.to_string(),
        why,
    ]
}

fn show(entry: &proto::Entry, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        output.json(&entry_json(entry)?);
        return Ok(());
    }
    let [id, target, status, priority, enqueued, attempts, why] = row(entry);
    output.line(&format!("{id} for {target}: {status}"));
    output.line(&format!(
        "  enqueued {enqueued}, priority {priority}, attempts {attempts}"
    ));
    if status == "pending"
        && let (Some(from), Some(until)) = (at(entry.not_before.as_ref()), at(entry.expires_at.as_ref()))
    {
        output.line(&format!("  delivered from {from} on, dead at {until}"));
    }
    if !why.is_empty() {
        output.line(&format!("  {why}"));
    }
    if status == "dead" {
        output.line(&format!("  → try it again with: muster inbox replay {id}"));
    }
    if !entry.agent_id.is_empty() {
        output.line(&format!(
            "  answered by {} ({})",
            entry.agent_id, entry.instance_id
        ));
    }
    if entry.answer_bytes_dropped > 0 {
        output.line(&format!(
            "  the answer had {} bytes, too many to be kept",
            entry.answer_bytes_dropped
        ));
    }
    if let Some(answer) = &entry.answer {
        answer_for_people(answer, output);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, seconds) in [("90", 90), ("30s", 30), ("5m", 300), ("1h 30m", 5400)] {
            assert_eq!(span(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-5s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
