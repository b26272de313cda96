//! `muster.workflow.v1.EventService`: decode, ask the log, encode.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use muster_api::time::to_proto;
use muster_api::workflow as proto;
use muster_api::workflow::event_service_server::EventService;
use muster_workflow_dsl::cloud_event::CloudEvent;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::events::{Events, MOST_AT_ONCE, Wanted};
use crate::store::events::{Added, Logged};

/// `muster.workflow.v1.EventService`.
pub struct EventLog {
    events: Arc<Events>,
}

impl EventLog {
    /// Serves this log.
    #[must_use]
    pub fn new(events: Arc<Events>) -> Self {
        Self { events }
    }
}

#[tonic::async_trait]
impl EventService for EventLog {
    async fn publish_events(
        &self,
        request: Request<proto::PublishEventsRequest>,
    ) -> Result<Response<proto::PublishEventsResponse>, Status> {
        let texts = request.into_inner().events_json;
        let field = |message: String| Error::field("events_json", message);
        if texts.is_empty() || texts.len() > MOST_AT_ONCE {
            let message = format!(
                "has {} events; 1 to {MOST_AT_ONCE} are taken at once",
                texts.len()
            );
            return Err(field(message).into());
        }
        let mut events = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let value = serde_json::from_str(text)
                .map_err(|error| field(format!("event {index} is not JSON: {error}")))?;
            let event = self.events.complete(value);
            events.push(event.map_err(|message| field(format!("event {index}: {message}")))?);
        }
        let added = self.events.publish(events.clone()).await?;
        let events = events
            .iter()
            .zip(added)
            .map(|(event, added)| published(event, added));
        Ok(Response::new(proto::PublishEventsResponse {
            events: events.collect(),
        }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let proto::ListEventsRequest {
            r#type,
            source,
            from_position,
            page_size,
            page_token,
        } = request.into_inner();
        let wanted = wanted(r#type, source);
        let (events, next_page_token) = self
            .events
            .list(&wanted, from_position, page_size, &page_token)
            .await?;
        Ok(Response::new(proto::ListEventsResponse {
            events: events.into_iter().map(logged).collect(),
            next_page_token,
        }))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<proto::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<proto::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let proto::WatchEventsRequest {
            r#type,
            source,
            from_position,
        } = request.into_inner();
        let events = self.events.watch(wanted(r#type, source), from_position).await?;
        let events = events.map(|event| {
            Ok(proto::WatchEventsResponse {
                event: Some(logged(event?)),
            })
        });
        Ok(Response::new(Box::pin(events)))
    }
}

fn wanted(kind: String, source: String) -> Wanted {
    let given = |text: String| (!text.is_empty()).then_some(text);
    Wanted {
        kind: given(kind),
        source: given(source),
    }
}

fn published(event: &CloudEvent, added: Added) -> proto::Published {
    proto::Published {
        position: added.position,
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        duplicate: added.duplicate,
    }
}

fn logged(logged: Logged) -> proto::LoggedEvent {
    let event = &logged.event;
    proto::LoggedEvent {
        position: logged.position,
        received_at: Some(to_proto(logged.received_at)),
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        r#type: event.kind().to_owned(),
        event_json: event.to_value().to_string(),
    }
}
