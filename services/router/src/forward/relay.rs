//! A stream on its way from an agent to a caller, event by event.
//!
//! The next event is fetched when the caller asks for it, so a slow caller slows the agent down and not the
//! router's memory up. Dropping the stream cancels the call to the agent, frees the place, and is no verdict on the
//! instance. A stream that has begun is never moved to another instance: the caller has seen part of it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use muster_api::a2a::{StreamResponse, stream_response};
use muster_rpc::deadline::Deadline;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::failure::Failure;
use super::{Events, Forwarder, empty_answer, exceeded};
use crate::admission::Permit;
use crate::error::Error;
use crate::fleet::Key;
use crate::link::Flight;
use crate::measure::Verdict;

/// The events of `inbound`, and what they hold until they end.
pub(super) fn events(
    forwarder: &Arc<Forwarder>,
    inbound: Streaming<StreamResponse>,
    instance: Key,
    flight: Option<Flight>,
    permit: Permit,
    deadline: Option<Deadline>,
) -> Events {
    let relay = Relay {
        forwarder: Arc::clone(forwarder),
        inbound,
        instance,
        lost: flight.as_ref().map(Flight::lost).unwrap_or_default(),
        flight,
        owned: None,
        deadline,
        _permit: permit,
    };
    stream::unfold(Some(relay), |relay| async {
        let mut relay = relay?;
        match relay.next().await {
            Some(Ok(event)) => Some((Ok(event), Some(relay))),
            // After an error nothing follows, and everything is let go at once.
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    })
    .boxed()
}

struct Relay {
    forwarder: Arc<Forwarder>,
    inbound: Streaming<StreamResponse>,
    instance: Key,
    /// Resolves when the instance is lost.
    lost: CancellationToken,
    /// `None` once the verdict is given.
    flight: Option<Flight>,
    /// The task whose owner is kept already.
    owned: Option<String>,
    deadline: Option<Deadline>,
    _permit: Permit,
}

impl Relay {
    async fn next(&mut self) -> Option<Result<StreamResponse, Error>> {
        let idle = self.forwarder.parts.limits.stream_idle;
        let left = match self
            .deadline
            .map(|deadline| deadline.remaining(self.forwarder.now()))
        {
            Some(left) => left.unwrap_or_default(),
            None => Duration::MAX,
        };
        let message = tokio::select! {
            message = tokio::time::timeout(idle.min(left), self.inbound.message()) => message,
            () = self.lost.cancelled() => return Some(Err(self.failed(Failure::lost()))),
        };
        match message {
            Ok(Ok(Some(event))) => Some(self.pass(event).await),
            Ok(Ok(None)) => {
                self.verdict(Verdict::Answered(None));
                None
            }
            Ok(Err(status)) => Some(Err(self.failed(Failure::of(status)))),
            Err(_) => Some(Err(self.ran_out(left <= idle, idle))),
        }
    }

    fn failed(&mut self, failure: Failure) -> Error {
        self.verdict(failure.verdict());
        failure.into_error(&self.instance)
    }

    fn ran_out(&mut self, of_deadline: bool, idle: Duration) -> Error {
        let agent = self.instance.agent.clone();
        if of_deadline {
            self.verdict(Verdict::Unknown);
            exceeded(&format!("the stream of agent '{agent}'"))
        } else {
            self.verdict(Verdict::Failed);
            Error::StreamIdle { agent, idle }
        }
    }

    /// Passes an event on, once the owner of its task is kept.
    async fn pass(&mut self, event: StreamResponse) -> Result<StreamResponse, Error> {
        let task = match &event.payload {
            Some(stream_response::Payload::Task(task)) => Some(&task.id),
            Some(stream_response::Payload::StatusUpdate(update)) => Some(&update.task_id),
            Some(stream_response::Payload::ArtifactUpdate(update)) => Some(&update.task_id),
            Some(stream_response::Payload::Message(_)) => None,
            None => return Err(empty_answer(&self.instance)),
        };
        if let Some(task) = task
            && self.owned.as_ref() != Some(task)
        {
            self.forwarder.own(task, &self.instance, false).await?;
            self.owned = Some(task.clone());
        }
        Ok(event)
    }

    fn verdict(&mut self, verdict: Verdict) {
        if let Some(flight) = self.flight.take() {
            self.forwarder.end(flight, verdict, &self.instance.agent);
        }
    }
}
