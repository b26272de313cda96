//! Messages whose callers ask for a durable answer: see [`crate::durable`] for what that means.
//!
//! Of a message with one answer the answer is kept; of a stream, what it begins with: a message is all there is, and a task
//! is followed from then on by its id, so that a repeated stream goes on from the task as it is and not from its first event.
//! The two share their records: a message that was sent once is not sent again by the other operation. Who repeats a streamed
//! message without streaming gets the task as it is, which may not have ended.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue};
use muster_a2a::ProtocolError;
use muster_api::a2a::{GetTaskRequest, SubscribeToTaskRequest};
use muster_rpc::deadline::Deadline;
use muster_runtime::trace::FutureExt as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::sync::oneshot;

use super::deliver::Delivery;
use super::leading::Way;
use super::{EncodedEvents, Forwarder, Reply, Scope, Times, encode, fingerprint};
use crate::call::{Call, EXTENSIONS};
use crate::deduplication::Key as MessageKey;
use crate::durable::{Entered, Lead};
use crate::error::Error;
use crate::fleet::Key;
use crate::operation::{GetTask, Method, Operation as _, SendMessage, SendStreamingMessage, SubscribeToTask};
use crate::peek::{Asked, Held, Sent};
use crate::store::answers::{Answer, Head, Said};

/// Number of the task in an answer, and in an event of a stream.
const TASK: u32 = 1;

/// What a call does that leads; nothing where another one has taken over.
type Led<M> = Result<Option<Reply<M>>, Error>;

impl Forwarder {
    /// Sends a message and waits for the answer, once among all who share the store; and whether it is the answer for good, and
    /// not a task as it is now.
    pub(super) async fn send_durably(
        self: &Arc<Self>,
        call: &Call,
        scope: &Scope,
        request: &Sent,
        key: &MessageKey,
        deadline: Deadline,
        way: &Arc<Way>,
    ) -> Result<(Reply<Bytes>, bool), Error> {
        let durable = &self.parts.durable;
        loop {
            let lead = match durable.enter(key, fingerprint(request), deadline).await? {
                Entered::Known(answer) => return self.say_again(call, key, answer).await,
                Entered::Lead(lead) => lead,
            };
            let forwarder = Arc::clone(self);
            let (call, scope, request) = (call.clone(), scope.clone(), request.clone());
            let way = Arc::clone(way);
            let led = self
                .go_on(async move {
                    let sending = forwarder.send_once(&call, &scope, &request, deadline, &way);
                    let reply = lead.working(sending).await?;
                    forwarder.keep(lead, SendMessage::METHOD, reply).await
                })
                .await?;
            if let Some(reply) = led {
                return Ok((reply, true));
            }
        }
    }

    /// Sends a message and follows the answer, once among all who share the store.
    pub(super) async fn stream_durably(
        self: &Arc<Self>,
        call: &Call,
        scope: &Scope,
        request: &Sent,
        key: &MessageKey,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let idle = Deadline::after(self.now(), self.parts.limits.stream_idle);
        let patience = call.deadline.unwrap_or(idle);
        let durable = &self.parts.durable;
        loop {
            let lead = match durable.enter(key, fingerprint(request), patience).await? {
                Entered::Known(answer) => return self.follow_again(call, key, answer).await,
                Entered::Lead(lead) => lead,
            };
            let forwarder = Arc::clone(self);
            let (call, scope, request) = (call.clone(), scope.clone(), request.clone());
            let led = self
                .go_on(async move { forwarder.begin(&call, &scope, &request, lead).await })
                .await?;
            if let Some(reply) = led {
                return Ok(reply);
            }
        }
    }

    /// Has the worker do it, so that it goes on when its caller leaves.
    async fn go_on<M: Send + 'static>(&self, work: impl Future<Output = Led<M>> + Send + 'static) -> Led<M> {
        let (told, outcome) = oneshot::channel();
        // It goes on in the trace of who asked first.
        let work = work.with_current_context();
        let work = async move {
            // A caller who has left asks again if the answer matters.
            let _told = told.send(work.await);
        };
        self.parts.durable.work(work).await?;
        outcome.await.unwrap_or(Err(Error::ShuttingDown))
    }

    /// Begins a stream, up to its first event, which is kept before anybody sees it.
    async fn begin(
        self: &Arc<Self>,
        call: &Call,
        scope: &Scope,
        request: &Sent,
        lead: Lead,
    ) -> Led<EncodedEvents> {
        let method = SendStreamingMessage::METHOD;
        let beginning = async {
            let reply = self.begin_stream(call, scope, request).await?;
            let Reply {
                message: mut events,
                instance,
                extensions,
            } = reply;
            let first = events.next().await.transpose()?;
            Ok::<_, Error>((first, events, instance, extensions))
        };
        let (first, events, instance, extensions) = lead.working(beginning).await?;
        let Some(first) = first else {
            // A stream without an event says nothing that could be said again.
            return Ok(Some(Reply {
                message: events,
                instance,
                extensions,
            }));
        };
        let first = Reply {
            message: first,
            instance,
            extensions,
        };
        let kept = self.keep(lead, method, first).await?;
        Ok(kept.map(|first| first.map(|first| stream::once(async { Ok(first) }).chain(events).boxed())))
    }

    /// Keeps an answer, or a stream's first event.
    async fn keep(&self, lead: Lead, method: &'static Method, reply: Reply<Bytes>) -> Led<Bytes> {
        let most = self.parts.durable.answer_bytes();
        let answer = to_keep(method, &reply, most)?;
        Ok(lead.keep(answer).await?.then_some(reply))
    }

    /// The answer that was given before; and whether it is that, and not a task as it is now.
    async fn say_again(
        &self,
        call: &Call,
        key: &MessageKey,
        answer: Answer,
    ) -> Result<(Reply<Bytes>, bool), Error> {
        let Answer { head, bytes } = answer;
        match &head.said {
            Said::Whole => Ok((reply_of(&head, bytes.into()), true)),
            Said::Task(task) => {
                let reply = self.task_as_it_is(call, task).await?;
                Ok((reply.map(|task| wrapped(&task)), false))
            }
            Said::TooLarge(bytes) => Err(not_kept(key, *bytes)),
        }
    }

    /// A stream of what became of a message since it was sent.
    async fn follow_again(
        self: &Arc<Self>,
        call: &Call,
        key: &MessageKey,
        answer: Answer,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let Answer { head, bytes } = answer;
        let task = match &head.said {
            Said::Whole => match Held::read(SendMessage::METHOD, &bytes) {
                Ok(Held::Task { id, has_ended: false }) => id,
                // An answer and an event have the task and the message under the same numbers.
                _ => return Ok(only(reply_of(&head, bytes.into()))),
            },
            Said::Task(task) => task.clone(),
            Said::TooLarge(bytes) => return Err(not_kept(key, *bytes)),
        };
        let reply = self.task_as_it_is(call, &task).await?;
        let event = reply.map(|task| wrapped(&task));
        if has_ended(&event.message) {
            return Ok(only(event));
        }
        match self.subscribe_to(call, &task).await {
            // It may have ended just now, and what has ended is not followed.
            Err(Error::Agent(status)) if ProtocolError::of(&status).is_some() => {
                let event = self.task_as_it_is(call, &task).await?.map(|task| wrapped(&task));
                if has_ended(&event.message) {
                    Ok(only(event))
                } else {
                    Err(Error::Agent(status))
                }
            }
            followed => followed,
        }
    }

    /// What the owner of a task says of it now.
    async fn task_as_it_is(&self, call: &Call, task: &str) -> Result<Reply<Bytes>, Error> {
        let request = GetTaskRequest {
            id: task.to_owned(),
            ..GetTaskRequest::default()
        };
        let method = GetTask::METHOD;
        let asked = Asked::read(method, encode(&request))?;
        let scope = self.owner(call, task).await?;
        let times = Times {
            deadline: Some(self.deadline(call)),
            expiry: None,
        };
        let _permit = self.place(call, times).await?;
        let delivery = Delivery::new(method, call, &scope, &asked.encoded, times);
        let (reply, _) = self.deliver_single(&delivery, None).await?;
        Ok(reply)
    }

    async fn subscribe_to(self: &Arc<Self>, call: &Call, task: &str) -> Result<Reply<EncodedEvents>, Error> {
        let request = SubscribeToTaskRequest {
            id: task.to_owned(),
            ..SubscribeToTaskRequest::default()
        };
        let method = SubscribeToTask::METHOD;
        let asked = Asked::read(method, encode(&request))?;
        let scope = self.owner(call, task).await?;
        self.follow_at(method, call, &scope, &asked.encoded).await
    }
}

/// What is kept of an answer, or of a stream that begins with it.
fn to_keep(method: &'static Method, reply: &Reply<Bytes>, most: usize) -> Result<Answer, Error> {
    let bytes = reply.message.len();
    let held = Held::read(method, &reply.message)?;
    let said = match held {
        Held::Task { id, .. } if method.is_streamed || bytes > most => Said::Task(id),
        _ if bytes > most => Said::TooLarge(bytes),
        _ => Said::Whole,
    };
    let extensions = reply.extensions.get_all(&EXTENSIONS).iter();
    let bytes = match said {
        Said::Whole => reply.message.to_vec(),
        Said::Task(_) | Said::TooLarge(_) => Vec::new(),
    };
    let head = Head {
        agent: reply.instance.agent.clone(),
        instance: reply.instance.instance.clone(),
        extensions: extensions
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect(),
        said,
    };
    Ok(Answer { head, bytes })
}

fn reply_of(head: &Head, message: Bytes) -> Reply<Bytes> {
    let mut extensions = HeaderMap::new();
    for value in &head.extensions {
        // It was one when it came.
        if let Ok(value) = HeaderValue::from_str(value) {
            extensions.append(EXTENSIONS, value);
        }
    }
    Reply {
        message,
        instance: Arc::new(Key {
            agent: head.agent.clone(),
            instance: head.instance.clone(),
        }),
        extensions,
    }
}

/// A task as an answer, or as an event of a stream.
fn wrapped(task: &Bytes) -> Bytes {
    let mut answer = Vec::with_capacity(task.len() + 8);
    encode_key(TASK, WireType::LengthDelimited, &mut answer);
    encode_varint(task.len() as u64, &mut answer);
    answer.extend_from_slice(task);
    answer.into()
}

fn has_ended(answer: &Bytes) -> bool {
    matches!(
        Held::read(SendMessage::METHOD, answer),
        Ok(Held::Task { has_ended: true, .. })
    )
}

fn only(event: Reply<Bytes>) -> Reply<EncodedEvents> {
    event.map(|event| stream::once(async { Ok(event) }).boxed())
}

fn not_kept(key: &MessageKey, bytes: usize) -> Error {
    Error::AnswerNotKept {
        message: key.message.clone(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{
        self, SendMessageResponse, StreamResponse, TaskState, send_message_response, stream_response,
    };
    use prost::Message as _;

    use super::*;

    fn task(state: TaskState) -> a2a::Task {
        a2a::Task {
            id: "t".to_owned(),
            status: Some(a2a::TaskStatus {
                state: state.into(),
                ..a2a::TaskStatus::default()
            }),
            ..a2a::Task::default()
        }
    }

    fn reply(message: impl prost::Message) -> Reply<Bytes> {
        let mut extensions = HeaderMap::new();
        extensions.append(EXTENSIONS, HeaderValue::from_static("urn:x"));
        Reply {
            message: encode(&message),
            instance: Arc::new(Key {
                agent: "weather".to_owned(),
                instance: "w1".to_owned(),
            }),
            extensions,
        }
    }

    fn of_task(state: TaskState) -> SendMessageResponse {
        SendMessageResponse {
            payload: Some(send_message_response::Payload::Task(task(state))),
        }
    }

    #[test]
    fn an_answer_is_kept_whole_or_by_its_task() {
        let ended = reply(of_task(TaskState::Completed));
        let whole = to_keep(SendMessage::METHOD, &ended, 1000).unwrap();
        assert_eq!(whole.head.said, Said::Whole);
        let again = reply_of(&whole.head, whole.bytes.clone().into());
        assert_eq!(
            (again.message, again.instance, again.extensions),
            (
                ended.message.clone(),
                Arc::clone(&ended.instance),
                ended.extensions.clone()
            )
        );
        let large = to_keep(SendMessage::METHOD, &ended, 3).unwrap();
        assert_eq!(
            (large.head.said, large.bytes.len()),
            (Said::Task("t".to_owned()), 0)
        );
        let streamed = reply(StreamResponse {
            payload: Some(stream_response::Payload::Task(task(TaskState::Working))),
        });
        let streamed = to_keep(SendStreamingMessage::METHOD, &streamed, 1000).unwrap();
        assert_eq!(streamed.head.said, Said::Task("t".to_owned()));
        let message = reply(SendMessageResponse {
            payload: Some(send_message_response::Payload::Message(a2a::Message::default())),
        });
        let bytes = message.message.len();
        let large = to_keep(SendMessage::METHOD, &message, 1).unwrap();
        assert_eq!(large.head.said, Said::TooLarge(bytes));
    }

    #[test]
    fn a_task_alone_becomes_an_answer_and_an_event() {
        for state in [TaskState::Completed, TaskState::Working] {
            let wrapped = wrapped(&encode(&task(state)));
            assert_eq!(
                SendMessageResponse::decode(wrapped.as_ref()).unwrap(),
                of_task(state)
            );
            let event = StreamResponse::decode(wrapped.as_ref()).unwrap();
            assert_eq!(event.payload, Some(stream_response::Payload::Task(task(state))));
            assert_eq!(has_ended(&wrapped), state == TaskState::Completed);
        }
    }
}
