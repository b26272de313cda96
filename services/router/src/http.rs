//! The HTTP face: A2A's JSON-RPC and HTTP+JSON bindings, and the agent cards.
//!
//! The bindings themselves are [`muster_a2a`]'s; here is what a request means to a router. `GET
//! /.well-known/agent-card.json` is the router's own card, `GET /{target}/.well-known/agent-card.json` that of a target. Both
//! are signed where there is a key, whose public half is at `/.well-known/jwks.json`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue};
use muster_a2a::card::sign::Signer;
use muster_a2a::card::{self, Served};
use muster_a2a::{Answer, Head, Reply as Answered, Request, Service};
use muster_api::extension::INSTANCE_METADATA;
use muster_runtime::trust::Access;
use prost_types::Struct;
use tonic::Status;

use crate::call::Call;
use crate::calls;
use crate::cards::Front;
use crate::error::Error;
use crate::forward::{Events, Forwarder, Reply};
use crate::grpc::routing_of;
use crate::metrics::Binding;
use crate::operation::{
    CancelTask, CreateTaskPushNotificationConfig, DeleteTaskPushNotificationConfig, GetExtendedAgentCard,
    GetTask, GetTaskPushNotificationConfig, ListTaskPushNotificationConfigs, ListTasks, Operation, Single,
    Tenanted,
};
use crate::target::Target;

/// What the routes of cards need.
#[derive(Clone)]
pub struct Cards {
    /// The core.
    pub forwarder: Arc<Forwarder>,
    /// How long a card may be used without asking again.
    pub max_age: Duration,
}

impl Cards {
    fn front(&self) -> &Front {
        &self.forwarder.parts().front
    }
}

/// The routes of cards.
pub fn card_routes(cards: Cards) -> Router {
    let signer = cards.front().signer.as_deref();
    let key_set = signer.map(Signer::route).unwrap_or_default();
    Router::new()
        .merge(key_set)
        .route("/.well-known/agent-card.json", get(card_of_router))
        .route("/{target}/.well-known/agent-card.json", get(card_of_target))
        .with_state(cards)
}

async fn card_of_router(State(cards): State<Cards>, headers: HeaderMap) -> Response {
    let card = cards.front().of_router(&cards.forwarder.parts().view.read());
    respond(&cards, &headers, Ok(card))
}

async fn card_of_target(
    State(cards): State<Cards>,
    Path(target): Path<String>,
    headers: HeaderMap,
) -> Response {
    let card = Target::parse(&target, "path").and_then(|target| {
        let view = cards.forwarder.parts().view.read();
        cards.front().of_target(&view, &target)
    });
    respond(&cards, &headers, card)
}

fn respond(cards: &Cards, headers: &HeaderMap, card: Result<muster_api::a2a::AgentCard, Error>) -> Response {
    let served = card
        .map_err(|error| Box::new(Status::from(error)))
        .and_then(|card| {
            let card = cards
                .front()
                .signed(card)
                .map_err(|what| Box::new(Status::internal(what)))?;
            Served::new(&card)
        });
    match served {
        Ok(served) => served.respond(headers, cards.max_age),
        Err(status) => card::refused(&status),
    }
}

/// The router as the JSON bindings have it.
pub struct Http {
    forwarder: Arc<Forwarder>,
}

impl Http {
    /// A service that forwards with this.
    #[must_use]
    pub const fn new(forwarder: Arc<Forwarder>) -> Self {
        Self { forwarder }
    }

    async fn forward(&self, head: &Head, request: Request, seen: &mut Seen) -> Result<Answered, Error> {
        let forwarder = &self.forwarder;
        let access = Access::in_extensions(&head.extensions);
        forwarder.charge(&access).await?;
        access
            .operation(request.operation())
            .map_err(|refusal| Error::Refused(Box::new(refusal)))?;
        Ok(match request {
            Request::SendMessage(message) => {
                let call = self.call(head, &message, routing_of(&message), seen)?;
                answered(forwarder.send_message(call, message).await?, seen, Answer::Sent)
            }
            Request::SendStreamingMessage(message) => {
                let call = self.call(head, &message, routing_of(&message), seen)?;
                answered(
                    forwarder.send_streaming_message(&call, message).await?,
                    seen,
                    events,
                )
            }
            Request::SubscribeToTask(request) => {
                let call = self.call(head, &request, Vec::new(), seen)?;
                answered(forwarder.subscribe(&call, request).await?, seen, events)
            }
            Request::GetTask(request) => {
                self.single::<GetTask, _>(head, request, seen, Answer::Task)
                    .await?
            }
            Request::CancelTask(request) => {
                self.single::<CancelTask, _>(head, request, seen, Answer::Task)
                    .await?
            }
            Request::ListTasks(request) => {
                self.single::<ListTasks, _>(head, request, seen, Answer::Tasks)
                    .await?
            }
            Request::GetExtendedAgentCard(request) => {
                self.single::<GetExtendedAgentCard, _>(head, request, seen, Answer::Card)
                    .await?
            }
            Request::CreatePushConfig(request) => {
                self.single::<CreateTaskPushNotificationConfig, _>(head, request, seen, Answer::PushConfig)
                    .await?
            }
            Request::GetPushConfig(request) => {
                self.single::<GetTaskPushNotificationConfig, _>(head, request, seen, Answer::PushConfig)
                    .await?
            }
            Request::ListPushConfigs(request) => {
                self.single::<ListTaskPushNotificationConfigs, _>(head, request, seen, Answer::PushConfigs)
                    .await?
            }
            Request::DeletePushConfig(request) => {
                self.single::<DeleteTaskPushNotificationConfig, _>(head, request, seen, |()| Answer::Done)
                    .await?
            }
        })
    }

    async fn single<O, M>(
        &self,
        head: &Head,
        request: O::Request,
        seen: &mut Seen,
        wrap: fn(M) -> Answer,
    ) -> Result<Answered, Error>
    where
        O: Operation<Answer = Single<M>>,
        M: prost::Message + Default + 'static,
    {
        let call = self.call(head, &request, Vec::new(), seen)?;
        Ok(answered(
            self.forwarder.single::<O, M>(&call, request).await?,
            seen,
            wrap,
        ))
    }

    fn call<T: Tenanted>(
        &self,
        head: &Head,
        request: &T,
        routing: Vec<Option<&Struct>>,
        seen: &mut Seen,
    ) -> Result<Call, Error> {
        let now = self.forwarder.parts().clock.monotonic();
        let call = Call::read(
            &head.headers,
            head.tenant.as_deref(),
            request.tenant(),
            routing,
            Access::in_extensions(&head.extensions),
            now,
        )?;
        seen.target.clone_from(&call.target);
        Ok(call)
    }

    fn count(&self, binding: muster_a2a::Binding, code: Option<tonic::Code>) {
        self.forwarder
            .parts()
            .meters
            .outcome(Binding::from(binding), code);
    }
}

impl Service for Http {
    async fn answer(&self, head: Head, request: Request) -> Result<Answered, Status> {
        self.forwarder.parts().meters.received();
        let mut seen = Seen::default();
        let outcome = self.forward(&head, request, &mut seen).await;
        if let Err(error) = &outcome {
            let view = self.forwarder.parts().view.read();
            seen.agent = calls::blamed(&view, error, seen.target.as_ref());
        }
        let meters = &self.forwarder.parts().meters;
        meters.called(Binding::from(head.binding), &seen.agent, outcome.is_ok());
        let outcome = outcome.map_err(Status::from);
        self.count(head.binding, outcome.as_ref().err().map(Status::code));
        outcome
    }

    /// Who is not known is refused as JSON-RPC has it, with the nearest names.
    fn has_target(&self, _: &str) -> bool {
        true
    }

    fn unreadable(&self, binding: muster_a2a::Binding, status: &Status) {
        self.count(binding, Some(status.code()));
    }
}

/// What was seen of a call, for the statistics.
#[derive(Default)]
struct Seen {
    /// Whom it is for.
    target: Option<Target>,
    /// Who answered.
    agent: String,
}

fn answered<M>(reply: Reply<M>, seen: &mut Seen, wrap: fn(M) -> Answer) -> Answered {
    seen.agent.clone_from(&reply.instance.agent);
    let mut headers = reply.extensions;
    if let Ok(instance) = HeaderValue::from_str(&reply.instance.instance) {
        headers.insert(INSTANCE_METADATA, instance);
    }
    Answered {
        answer: wrap(reply.message),
        headers,
    }
}

fn events(events: Events) -> Answer {
    Answer::Events(events.map(|event| event.map_err(Status::from)).boxed())
}
