//! The inbox over gRPC: decode, call, encode, and the only map from its errors to statuses.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use muster_api::a2a::{SendMessageRequest, SendMessageResponse};
use muster_api::error::{Error as ApiError, Reason};
use muster_api::router as proto;
use muster_api::router::inbox_service_server::InboxService;
use muster_api::time;
use muster_runtime::trust::Access;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::entry::{self, Delivery, Entry, State};
use super::queue::{Filter, timestamp};
use super::store::{self, Lent};
use super::{Error, Inbox, Letter, waiting};
use crate::priority::Priority;
use crate::target::Target;

/// When to come again where there was no room: entries end within seconds, if anybody takes them.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// When to come again while the store is away, or full.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// Entries of a page when nothing is said, and at most.
const PAGE: usize = 50;
const MOST_OF_PAGE: usize = 100;

/// Entries of a replay or purge when nothing is said, and at most.
const BULK: usize = 100;
const MOST_OF_BULK: usize = 1000;

/// Entries that are received at once, at most.
const MOST_RECEIVED: usize = 100;

/// The limits of a consumer's lease.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// Longest name of a consumer, and longest reason for a release.
const LONGEST_NAME: usize = 128;

/// Says what the rest of a page token is; changes with its form.
const TOKEN: &str = "inbox-1";

/// See the module.
#[derive(Clone)]
pub struct Service {
    inbox: Arc<Inbox>,
}

impl Service {
    /// A service of this inbox.
    #[must_use]
    pub const fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl InboxService for Service {
    async fn enqueue(&self, request: Request<proto::EnqueueRequest>) -> Answer<proto::EnqueueResponse> {
        let (metadata, extensions, request) = request.into_parts();
        let letter = Letter {
            access: Access::in_extensions(&extensions),
            priority: priority(request.priority)?,
            delivery: delivery(request.delivery)?,
            ttl: span("ttl", request.ttl.as_ref())?,
            delay: span("delay", request.delay.as_ref())?.unwrap_or_default(),
            request: encoded(request.message.as_ref())?,
            target: request.target,
            headers: metadata.into_headers(),
        };
        let (entry, existed) = self.inbox.enqueue(letter).await?;
        let entry = Some(entry_to_proto(&entry));
        Ok(Response::new(proto::EnqueueResponse { entry, existed }))
    }

    async fn get_entry(&self, request: Request<proto::GetEntryRequest>) -> Answer<proto::GetEntryResponse> {
        let access = Access::in_extensions(request.extensions());
        let id = id(request.get_ref().entry_id.as_str())?;
        let kept = self.inbox.read_for(&access, id).await?;
        let entry = proto::Entry {
            message: kept.body.map(|body| message(&kept.entry, &body)).transpose()?,
            answer: kept.answer.map(|answer| read_answer(&answer)).transpose()?,
            ..entry_to_proto(&kept.entry)
        };
        Ok(Response::new(proto::GetEntryResponse { entry: Some(entry) }))
    }

    async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Answer<proto::ListEntriesResponse> {
        let access = Access::in_extensions(request.extensions());
        let request = request.into_inner();
        let filter = filter(request.filter.as_ref(), &access)?;
        let after = after(&filter, &request.page_token)?;
        let size = limit(request.page_size, PAGE, MOST_OF_PAGE);
        let page = self.inbox.list(&filter, after, size).await?;
        Ok(Response::new(proto::ListEntriesResponse {
            entries: page.entries.iter().map(entry_to_proto).collect(),
            next_page_token: page.next.map(|last| token(&filter, last)).unwrap_or_default(),
        }))
    }

    async fn cancel_entry(
        &self,
        request: Request<proto::CancelEntryRequest>,
    ) -> Answer<proto::CancelEntryResponse> {
        let access = Access::in_extensions(request.extensions());
        let id = id(&request.get_ref().entry_id)?;
        let kept = self.inbox.read_for(&access, id).await?;
        let entry = self.inbox.cancel(&kept.entry.id).await?;
        let entry = Some(entry_to_proto(&entry));
        Ok(Response::new(proto::CancelEntryResponse { entry }))
    }

    async fn replay_entries(
        &self,
        request: Request<proto::ReplayEntriesRequest>,
    ) -> Answer<proto::ReplayEntriesResponse> {
        let access = Access::in_extensions(request.extensions());
        let request = request.into_inner();
        let target = target("target", &request.target)?;
        let (count, more) = if request.entry_id.is_empty() {
            let most = limit(request.limit, BULK, MOST_OF_BULK);
            self.inbox.replay_all(target, only(&access), most).await?
        } else {
            let kept = self.inbox.read_for(&access, &request.entry_id).await?;
            self.inbox.replay(&kept.entry.id).await?;
            (1, false)
        };
        let count = number(count);
        Ok(Response::new(proto::ReplayEntriesResponse { count, more }))
    }

    async fn purge_entries(
        &self,
        request: Request<proto::PurgeEntriesRequest>,
    ) -> Answer<proto::PurgeEntriesResponse> {
        let access = Access::in_extensions(request.extensions());
        let request = request.into_inner();
        let (count, more) = if request.entry_id.is_empty() {
            let filter = filter(request.filter.as_ref(), &access)?;
            if !filter.status.is_some_and(entry::Status::has_ended) {
                let message = "must be ENTRY_STATUS_DONE or ENTRY_STATUS_DEAD: only what has ended is purged";
                return Err(Error::field("filter.status", message).into());
            }
            let most = limit(request.limit, BULK, MOST_OF_BULK);
            self.inbox.purge_all(&filter, most).await?
        } else {
            let kept = self.inbox.read_for(&access, &request.entry_id).await?;
            self.inbox.purge(&kept.entry.id).await?;
            (1, false)
        };
        let count = number(count);
        Ok(Response::new(proto::PurgeEntriesResponse { count, more }))
    }

    async fn receive(&self, request: Request<proto::ReceiveRequest>) -> Answer<proto::ReceiveResponse> {
        let access = Access::in_extensions(request.extensions());
        let request = request.into_inner();
        access.acts_as(&request.target)?;
        let lease = self.lease(request.lease.as_ref())?;
        let most = limit(request.limit, 1, MOST_RECEIVED);
        short("consumer", &request.consumer)?;
        let consumer = match request.consumer.as_str() {
            "" => "a consumer",
            named => named,
        };
        let wait = span("wait", request.wait.as_ref())?.unwrap_or_default();
        if wait > waiting::LONGEST {
            return Err(Error::field("wait", "must be at most 60 s").into());
        }
        let lent = self.inbox.receive(&request.target, most, lease, consumer, wait);
        let lent = lent.await?;
        let entries = lent.iter().map(received).collect::<Result<_, _>>()?;
        Ok(Response::new(proto::ReceiveResponse { entries }))
    }

    async fn acknowledge(
        &self,
        request: Request<proto::AcknowledgeRequest>,
    ) -> Answer<proto::AcknowledgeResponse> {
        let request = request.into_inner();
        let answer = request
            .answer
            .as_ref()
            .map(|answer| Bytes::from(answer.encode_to_vec()));
        let entry = self
            .inbox
            .acknowledge(id(&request.entry_id)?, request.lease_token, answer)
            .await?;
        let entry = Some(entry_to_proto(&entry));
        Ok(Response::new(proto::AcknowledgeResponse { entry }))
    }

    async fn release(&self, request: Request<proto::ReleaseRequest>) -> Answer<proto::ReleaseResponse> {
        let request = request.into_inner();
        let delay = span("delay", request.delay.as_ref())?.unwrap_or_default();
        let most = self.inbox.limits().most_ttl;
        if delay > most {
            let message = format!("must be at most {} s", most.as_secs());
            return Err(Error::field("delay", message).into());
        }
        let entry = self
            .inbox
            .release(
                id(&request.entry_id)?,
                request.lease_token,
                &request.reason,
                delay,
                request.give_up,
            )
            .await?;
        let entry = Some(entry_to_proto(&entry));
        Ok(Response::new(proto::ReleaseResponse { entry }))
    }

    async fn extend_lease(
        &self,
        request: Request<proto::ExtendLeaseRequest>,
    ) -> Answer<proto::ExtendLeaseResponse> {
        let request = request.into_inner();
        let lease = self.lease(request.lease.as_ref())?;
        let entry = self
            .inbox
            .extend(id(&request.entry_id)?, request.lease_token, lease)
            .await?;
        let entry = Some(entry_to_proto(&entry));
        Ok(Response::new(proto::ExtendLeaseResponse { entry }))
    }

    async fn broadcast(&self, request: Request<proto::BroadcastRequest>) -> Answer<proto::BroadcastResponse> {
        let (metadata, extensions, request) = request.into_parts();
        let access = Access::in_extensions(&extensions);
        let timeout = span("timeout", request.timeout.as_ref())?;
        let message = encoded(request.message.as_ref())?;
        let headers = metadata.into_headers();
        let said = self
            .inbox
            .broadcast(&request.skill, message, timeout, &headers, &access)
            .await?;
        let answers: Vec<_> = said.into_iter().map(said_to_proto).collect::<Result<_, _>>()?;
        let is_answer = |answer: &&proto::BroadcastAnswer| {
            matches!(answer.outcome, Some(proto::broadcast_answer::Outcome::Answer(_)))
        };
        let answered = answers.iter().filter(is_answer).count();
        Ok(Response::new(proto::BroadcastResponse {
            matched: number(answers.len()),
            answered: number(answered),
            failed: number(answers.len() - answered),
            answers,
        }))
    }
}

impl Service {
    fn lease(&self, lease: Option<&prost_types::Duration>) -> Result<Duration, Error> {
        let lease = span("lease", lease)?.unwrap_or(self.inbox.limits().lease);
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
            return Err(Error::field("lease", "must be from 1 s to 3600 s"));
        }
        Ok(lease)
    }
}

fn encoded(message: Option<&SendMessageRequest>) -> Result<Bytes, Error> {
    let missing = || Error::field("message", "is missing; give the request that would send it");
    Ok(message.ok_or_else(missing)?.encode_to_vec().into())
}

fn id(id: &str) -> Result<&str, Error> {
    if id.is_empty() {
        return Err(Error::field("entry_id", "is empty; name the entry"));
    }
    Ok(id)
}

fn short(field: &str, text: &str) -> Result<(), Error> {
    if text.len() > LONGEST_NAME {
        return Err(Error::field(
            field,
            format!("is longer than {LONGEST_NAME} bytes"),
        ));
    }
    Ok(())
}

fn span(field: &str, span: Option<&prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let Some(span) = span else { return Ok(None) };
    let span = time::duration_from_proto(span).and_then(|span| Duration::try_from(span).ok());
    span.map(Some)
        .ok_or_else(|| Error::field(field, "must not be negative"))
}

fn limit(asked: u32, usual: usize, most: usize) -> usize {
    match usize::try_from(asked).unwrap_or(most) {
        0 => usual,
        asked => asked.min(most),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn target(field: &str, text: &str) -> Result<Option<String>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(Target::parse(text, field)?.to_string()))
}

/// Whose entries are meant; everybody's for those who see them.
fn only(access: &Access) -> Option<String> {
    (!access.sees_all()).then(|| access.caller().key().as_ref().to_owned())
}

fn filter(filter: Option<&proto::EntryFilter>, access: &Access) -> Result<Filter, Error> {
    let caller = only(access);
    let Some(filter) = filter else {
        return Ok(Filter {
            caller,
            ..Filter::default()
        });
    };
    let status = match proto::EntryStatus::try_from(filter.status) {
        Ok(proto::EntryStatus::Unspecified) => None,
        Ok(proto::EntryStatus::Pending) => Some(entry::Status::Pending),
        Ok(proto::EntryStatus::Delivering) => Some(entry::Status::Delivering),
        Ok(proto::EntryStatus::Done) => Some(entry::Status::Done),
        Ok(proto::EntryStatus::Dead) => Some(entry::Status::Dead),
        Err(_) => {
            return Err(Error::field(
                "filter.status",
                "is none of the statuses of an entry",
            ));
        }
    };
    let target = target("filter.target", &filter.target)?;
    Ok(Filter {
        status,
        target,
        caller,
    })
}

fn priority(priority: i32) -> Result<Option<Priority>, Error> {
    Ok(match proto::EntryPriority::try_from(priority) {
        Ok(proto::EntryPriority::Unspecified) => None,
        Ok(proto::EntryPriority::Low) => Some(Priority::Low),
        Ok(proto::EntryPriority::Normal) => Some(Priority::Normal),
        Ok(proto::EntryPriority::High) => Some(Priority::High),
        Ok(proto::EntryPriority::Urgent) => Some(Priority::Urgent),
        Err(_) => {
            return Err(Error::field(
                "priority",
                "is none of LOW, NORMAL, HIGH and URGENT",
            ));
        }
    })
}

fn delivery(delivery: i32) -> Result<Delivery, Error> {
    Ok(match proto::EntryDelivery::try_from(delivery) {
        Ok(proto::EntryDelivery::Unspecified | proto::EntryDelivery::Push) => Delivery::Push,
        Ok(proto::EntryDelivery::Pull) => Delivery::Pull,
        Err(_) => return Err(Error::field("delivery", "is neither PUSH nor PULL")),
    })
}

/// The token for the page after a sequence.
fn token(filter: &Filter, last: u64) -> String {
    let status = filter.status.map_or("", entry::Status::name);
    let target = filter.target.as_deref().unwrap_or_default();
    URL_SAFE_NO_PAD.encode(format!("{TOKEN}\n{status}\n{target}\n{last}"))
}

/// The sequence after which a page begins; 0 for the first.
fn after(filter: &Filter, text: &str) -> Result<u64, Error> {
    if text.is_empty() {
        return Ok(0);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::PageToken)?;
    let read = String::from_utf8(bytes).map_err(|_| Error::PageToken)?;
    let last = read.rsplit('\n').next().and_then(|last| last.parse().ok());
    let last = last.ok_or(Error::PageToken)?;
    if token(filter, last) == text {
        Ok(last)
    } else {
        Err(Error::PageToken)
    }
}

/// What this process, or one like it, has written.
fn damaged(error: &prost::DecodeError) -> Error {
    Error::Store(store::Error::Unavailable(format!(
        "an entry's message is damaged: {error}"
    )))
}

fn message(entry: &Entry, body: &[u8]) -> Result<SendMessageRequest, Error> {
    let mut message = SendMessageRequest::decode(body).map_err(|error| damaged(&error))?;
    message.tenant.clone_from(&entry.target);
    Ok(message)
}

fn read_answer(answer: &[u8]) -> Result<SendMessageResponse, Error> {
    SendMessageResponse::decode(answer).map_err(|error| damaged(&error))
}

fn received(lent: &Lent) -> Result<proto::ReceivedEntry, Error> {
    let entry = proto::Entry {
        message: Some(message(&lent.entry, &lent.body)?),
        ..entry_to_proto(&lent.entry)
    };
    Ok(proto::ReceivedEntry {
        entry: Some(entry),
        lease_token: lent.token.clone(),
    })
}

fn entry_to_proto(entry: &Entry) -> proto::Entry {
    let at = |time| Some(time::to_proto(timestamp(time)));
    let status = match entry.status() {
        entry::Status::Pending => proto::EntryStatus::Pending,
        entry::Status::Delivering => proto::EntryStatus::Delivering,
        entry::Status::Done => proto::EntryStatus::Done,
        entry::Status::Dead => proto::EntryStatus::Dead,
    };
    let priority = match entry.priority() {
        Priority::Low => proto::EntryPriority::Low,
        Priority::Normal => proto::EntryPriority::Normal,
        Priority::High => proto::EntryPriority::High,
        Priority::Urgent => proto::EntryPriority::Urgent,
    };
    let delivery = match entry.delivery {
        Delivery::Push => proto::EntryDelivery::Push,
        Delivery::Pull => proto::EntryDelivery::Pull,
    };
    let mut result = proto::Entry {
        entry_id: entry.id.clone(),
        target: entry.target.clone(),
        priority: priority.into(),
        delivery: delivery.into(),
        status: status.into(),
        enqueued_at: at(entry.enqueued_at),
        not_before: at(entry.not_before),
        expires_at: at(entry.expires_at),
        attempts: entry.attempts,
        failures: entry.failures,
        last_failure: entry.last_failure.as_ref().map(failure_to_proto),
        ..proto::Entry::default()
    };
    match &entry.state {
        State::Pending { .. } => {}
        State::Delivering { until, by, .. } => {
            result.leased_until = at(*until);
            result.leased_by.clone_from(by);
        }
        State::Done {
            at: ended,
            agent,
            instance,
            dropped,
            ..
        } => {
            result.ended_at = at(*ended);
            result.agent_id.clone_from(agent);
            result.instance_id.clone_from(instance);
            result.answer_bytes_dropped = *dropped;
        }
        State::Dead { at: ended, reason } => {
            result.ended_at = at(*ended);
            let reason = match reason {
                entry::Reason::Expired => proto::DeadReason::Expired,
                entry::Reason::Refused => proto::DeadReason::Refused,
                entry::Reason::Failed => proto::DeadReason::Failed,
                entry::Reason::Cancelled => proto::DeadReason::Cancelled,
            };
            result.dead_reason = reason.into();
        }
    }
    result
}

fn failure_to_proto(failure: &entry::Failure) -> proto::EntryFailure {
    proto::EntryFailure {
        code: failure.code.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
    }
}

fn said_to_proto(said: super::broadcast::Said) -> Result<proto::BroadcastAnswer, Error> {
    use proto::broadcast_answer::Outcome;
    let (instance_id, outcome) = match said.outcome {
        Ok((instance, answer)) => (instance, Outcome::Answer(read_answer(&answer)?)),
        Err(failure) => (String::new(), Outcome::Failure(failure_to_proto(&failure))),
    };
    Ok(proto::BroadcastAnswer {
        agent_id: said.agent,
        instance_id,
        outcome: Some(outcome),
    })
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let of = |reason| ApiError::new(reason, message.clone());
        let status = match error {
            Error::Router(error) => return error.into(),
            Error::PageToken => of(Reason::InvalidPageToken).with_field("page_token"),
            Error::TooManyAgents { agents, .. } => {
                of(Reason::TooManyAgents).with_metadata("matched", agents.to_string())
            }
            Error::Store(error) => match error {
                store::Error::Unknown(_) => of(Reason::EntryNotFound),
                store::Error::IdReused(_) => of(Reason::MessageIdReused),
                store::Error::Full(_) => of(Reason::InboxFull).with_retry_after(FULL_RETRY),
                store::Error::LeaseLost(_) => of(Reason::EntryLeaseLost),
                store::Error::State(_, state) => of(Reason::EntryState).with_metadata("status", state),
                store::Error::Unavailable(_) => of(Reason::StoreUnavailable).with_retry_after(STORE_RETRY),
            },
        };
        status.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::queue::Full;

    #[test]
    fn a_token_is_good_for_its_filter_alone() {
        let dead = Filter {
            status: Some(entry::Status::Dead),
            target: Some("skill:a\u{fc}".to_owned()),
            caller: None,
        };
        let made = token(&dead, 77);
        assert_eq!(after(&dead, &made).unwrap(), 77);
        assert!(after(&Filter::default(), &made).is_err());
        assert!(after(&dead, "nonsense").is_err());
        assert_eq!(after(&dead, "").unwrap(), 0);
    }

    #[test]
    fn what_is_full_or_away_says_when_to_come_again() {
        for (store, expected) in [
            (
                store::Error::Full(Full::Target(5)),
                (Reason::InboxFull, Some(FULL_RETRY)),
            ),
            (
                store::Error::Unavailable("nobody answers".to_owned()),
                (Reason::StoreUnavailable, Some(STORE_RETRY)),
            ),
        ] {
            let status = Status::from(Error::Store(store));
            let error = ApiError::from_status(&status).unwrap();
            assert_eq!((error.reason, error.retry_after), expected);
        }
    }
}
