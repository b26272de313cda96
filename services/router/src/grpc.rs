//! The gRPC face: A2A's service and the router's own, and the only map from errors to statuses.
//!
//! A2A's service is not the generated one, which decodes each message and encodes it again: [`A2a`] passes on the bytes. What comes
//! simply is taken and answered without tonic's server ([`frame`]); everything else, and all refusals, are tonic's: framing, limits,
//! metadata, statuses. Compression is refused, so that what comes in is what goes out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue};
use muster_a2a::ProtocolError;
use muster_api::a2a;
use muster_api::error::{Error as ApiError, Reason};
use muster_api::extension::INSTANCE_METADATA;
use muster_api::router::router_service_server::RouterService;
use muster_api::router::{
    GetStatusRequest, GetStatusResponse, GetTuningRequest, GetTuningResponse, RevertTuningRequest,
    RevertTuningResponse,
};
use muster_runtime::trust::Access;
use prost_types::Struct;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tower::Service;

use crate::call::Call;
use crate::calls;
use crate::codec::{Passing, Pieces};
use crate::error::Error;
use crate::forward::{EncodedEvents, Forwarder, Reply};
use crate::frame;
use crate::inbox::Inbox;
use crate::metrics::Binding;
use crate::operation::{About, Method};
use crate::peek::{Asked, Sent};
use crate::quota::Whose;
use crate::status::{self, Sight};
use crate::target::Target;
use crate::tuning::service::{Tuner, Unknown, Wanted};

/// How long to wait after a full queue.
const QUEUE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
/// When a call may be made again for which no token was issued.
const TOKEN_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// How long to wait for a registry that has not answered yet.
const REGISTRY_RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// How long to wait before a task is looked for again: instances come back, or their leases end, within seconds.
const SEARCH_RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// How long to wait for a store that does not take or tell something: Redis fails over within seconds.
const STORE_RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// How long to wait for room among the durable answers, of which the oldest are forgotten once a minute.
const FULL_RETRY: std::time::Duration = std::time::Duration::from_secs(60);

/// A2A over gRPC.
#[derive(Clone)]
pub struct A2a {
    forwarder: Arc<Forwarder>,
    /// Largest message that is taken.
    limit: usize,
}

impl A2a {
    /// A service that forwards with this, and takes messages of at most `limit` bytes.
    #[must_use]
    pub const fn new(forwarder: Arc<Forwarder>, limit: usize) -> Self {
        Self { forwarder, limit }
    }

    async fn serve(self, method: &'static Method, request: http::Request<Body>) -> http::Response<Body> {
        let (mut head, body) = request.into_parts();
        let (message, trailers) = match frame::take(&head.headers, body, self.limit).await {
            Ok(taken) => taken,
            Err(body) => {
                let request = http::Request::from_parts(head, body);
                return Box::pin(self.serve_by_tonic(method, request)).await;
            }
        };
        head.headers.extend(trailers.into_iter().flatten());
        let asked = Taken {
            headers: head.headers,
            access: Access::in_extensions(&head.extensions),
            message,
        };
        let answer = if method.is_streamed {
            let answer = self.stream(method, asked).await;
            answer.map(|(headers, events)| frame::stream(headers, events))
        } else {
            let answer = self.single(method, asked).await;
            answer.and_then(|(headers, message)| frame::answer(headers, &message))
        };
        answer.unwrap_or_else(Status::into_http)
    }

    async fn serve_by_tonic(
        self,
        method: &'static Method,
        request: http::Request<Body>,
    ) -> http::Response<Body> {
        let mut grpc = Grpc::new(Passing)
            .max_decoding_message_size(self.limit)
            .max_encoding_message_size(usize::MAX);
        if method.is_streamed {
            let stream = tower::service_fn(|request| {
                let answer = self.stream(method, Taken::from(request));
                async { answer.await.map(with_headers) }
            });
            grpc.server_streaming(stream, request).await
        } else {
            let single = tower::service_fn(|request| {
                let answer = self.single(method, Taken::from(request));
                async { answer.await.map(with_headers) }
            });
            grpc.unary(single, request).await
        }
    }

    async fn single(&self, method: &'static Method, taken: Taken) -> Result<(HeaderMap, Pieces), Status> {
        let mut target = None;
        let outcome = async {
            let access = taken.access.clone();
            self.forwarder.charge(&access).await?;
            if method.about == About::Message {
                let (call, sent) = self.read_message(taken)?;
                target.clone_from(&call.target);
                self.forwarder.send(call, sent).await
            } else {
                let (call, asked) = self.read(method, taken)?;
                target.clone_from(&call.target);
                self.forwarder.ask(method, &call, asked).await
            }
        };
        let outcome = outcome.await;
        self.answer(outcome, target.as_ref(), Pieces::from)
    }

    async fn stream(
        &self,
        method: &'static Method,
        taken: Taken,
    ) -> Result<(HeaderMap, EventStream), Status> {
        let mut target = None;
        let outcome = async {
            let access = taken.access.clone();
            self.forwarder.charge(&access).await?;
            if method.about == About::Message {
                let (call, sent) = self.read_message(taken)?;
                target.clone_from(&call.target);
                self.forwarder.send_and_follow(&call, sent).await
            } else {
                let (call, asked) = self.read(method, taken)?;
                target.clone_from(&call.target);
                self.forwarder.follow(method, &call, asked).await
            }
        };
        let outcome = outcome.await;
        self.answer(outcome, target.as_ref(), |events: EncodedEvents| {
            events
                .map(|event| event.map(Pieces::from).map_err(Status::from))
                .boxed()
        })
    }

    /// What a request to send a message says in and around it.
    fn read_message(&self, taken: Taken) -> Result<(Call, Sent), Error> {
        let Taken {
            headers,
            access,
            message,
        } = taken;
        let sent = Sent::read(message)?;
        let routing = sent.routing.as_deref();
        let now = self.forwarder.parts().clock.monotonic();
        let call = Call::read_encoded(&headers, sent.encoded.tenant(), routing, access, now)?;
        Ok((call, sent))
    }

    /// The same of another request, which carries no routing.
    fn read(&self, method: &'static Method, taken: Taken) -> Result<(Call, Asked), Error> {
        let Taken {
            headers,
            access,
            message,
        } = taken;
        let asked = Asked::read(method, message)?;
        let now = self.forwarder.parts().clock.monotonic();
        let call = Call::read_encoded(&headers, asked.encoded.tenant(), None, access, now)?;
        Ok((call, asked))
    }

    fn answer<M, N>(
        &self,
        outcome: Result<Reply<M>, Error>,
        target: Option<&Target>,
        convert: impl FnOnce(M) -> N,
    ) -> Result<(HeaderMap, N), Status> {
        let meters = &self.forwarder.parts().meters;
        let reply = outcome.map_err(|error| {
            let agent = calls::blamed(&self.forwarder.parts().view.read(), &error, target);
            meters.called(Binding::Grpc, &agent, false);
            let status = Status::from(error);
            meters.outcome(Binding::Grpc, Some(status.code()));
            status
        })?;
        meters.outcome(Binding::Grpc, None);
        meters.called(Binding::Grpc, &reply.instance.agent, true);
        let mut headers = reply.extensions;
        // Instance ids are UUIDs; one that is no ASCII cannot be told.
        if let Ok(instance) = HeaderValue::from_str(reply.instance.instance.as_str()) {
            headers.insert(INSTANCE_METADATA, instance);
        }
        Ok((headers, convert(reply.message)))
    }
}

/// A request that has come in.
struct Taken {
    headers: HeaderMap,
    access: Access,
    message: Bytes,
}

impl From<Request<Bytes>> for Taken {
    fn from(request: Request<Bytes>) -> Self {
        let (metadata, extensions, message) = request.into_parts();
        Self {
            headers: metadata.into_headers(),
            access: Access::in_extensions(&extensions),
            message,
        }
    }
}

fn with_headers<T>((headers, message): (HeaderMap, T)) -> Response<T> {
    let mut response = Response::new(message);
    *response.metadata_mut() = MetadataMap::from_headers(headers);
    response
}

type EventStream = BoxStream<'static, Result<Pieces, Status>>;

impl NamedService for A2a {
    const NAME: &'static str = "lf.a2a.v1.A2AService";
}

impl Service<http::Request<Body>> for A2a {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let Some(method) = Method::at(path) else {
            let status = Status::unimplemented(format!(
                "A2A 1.0 has no operation at {path}; list them by gRPC reflection"
            ));
            return Box::pin(async move { Ok(status.into_http()) });
        };
        let service = self.clone();
        service.forwarder.parts().meters.received();
        Box::pin(async move { Ok(service.serve(method, request).await) })
    }
}

/// Where the routing extension may stand in a message.
#[must_use]
pub fn routing_of(request: &a2a::SendMessageRequest) -> Vec<Option<&Struct>> {
    let message = request.message.as_ref();
    vec![
        request.metadata.as_ref(),
        message.and_then(|message| message.metadata.as_ref()),
    ]
}

/// The router's own controls.
#[derive(Clone)]
pub struct Control {
    forwarder: Arc<Forwarder>,
    inbox: Arc<Inbox>,
    queue_capacity: usize,
    tuner: Arc<Tuner>,
}

impl Control {
    /// Controls of this forwarder, whose queue holds that many messages, of this inbox, and of what tunes it.
    #[must_use]
    pub const fn new(
        forwarder: Arc<Forwarder>,
        inbox: Arc<Inbox>,
        queue_capacity: usize,
        tuner: Arc<Tuner>,
    ) -> Self {
        Self {
            forwarder,
            inbox,
            queue_capacity,
            tuner,
        }
    }
}

#[tonic::async_trait]
impl RouterService for Control {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let parts = self.forwarder.parts();
        let sight = Sight::of(parts, &access);
        let mut answer = status::read(parts, self.queue_capacity, sight);
        status::add_inbox(&mut answer, &self.inbox, sight).await;
        Ok(Response::new(answer))
    }

    async fn get_tuning(
        &self,
        request: Request<GetTuningRequest>,
    ) -> Result<Response<GetTuningResponse>, Status> {
        let access = Access::in_extensions(request.extensions());
        let sight = Sight::of(self.forwarder.parts(), &access);
        Ok(Response::new(status::tuning(self.tuner.report(), sight)))
    }

    async fn revert_tuning(
        &self,
        request: Request<RevertTuningRequest>,
    ) -> Result<Response<RevertTuningResponse>, Status> {
        let RevertTuningRequest { numbers, all } = request.into_inner();
        let wanted = match (numbers.is_empty(), all) {
            (true, true) => Wanted::All,
            (false, false) => Wanted::Numbers(numbers),
            _ => {
                let message = "name the changes, or take back all of them";
                return Err(ApiError::invalid_field("numbers", message).into());
            }
        };
        match self.tuner.revert(wanted) {
            Ok(reverted) => Ok(Response::new(RevertTuningResponse {
                reverted: reverted.into_iter().map(status::change).collect(),
            })),
            Err(Unknown(number)) => {
                let message = format!("no change {number} of the router is in force");
                Err(ApiError::new(Reason::ChangeNotFound, message).into())
            }
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let of = |reason| ApiError::new(reason, message.clone());
        let status: ApiError = match error {
            Error::InvalidField { field, .. } => of(Reason::InvalidField).with_field(field),
            Error::TargetMissing => of(Reason::TargetMissing),
            Error::UnknownAgent { nearest, .. } => {
                of(Reason::AgentNotFound).with_metadata("nearest", nearest.join(","))
            }
            Error::UnknownSkill { skill, nearest } => of(Reason::SkillNotFound)
                .with_metadata("skills", skill)
                .with_metadata("nearest", nearest.join(",")),
            Error::UnmatchedSkills {
                skills,
                nearest,
                lacking,
                ..
            } => of(Reason::SkillNotFound)
                .with_metadata("skills", skills.join(","))
                .with_metadata("nearest", nearest)
                .with_metadata("lacking", lacking.join(",")),
            Error::NoInstance {
                retry_after, cause, ..
            } => of(Reason::NoInstanceAvailable)
                .with_retry_after(retry_after)
                .with_metadata("cause", cause),
            Error::Unstreamed { .. } => return ProtocolError::UnsupportedOperation.status(message),
            Error::NoView => of(Reason::DependencyUnavailable)
                .with_retry_after(REGISTRY_RETRY)
                .with_metadata("service", "registry"),
            Error::Overloaded { retry_after, .. } => {
                of(Reason::AgentOverloaded).with_retry_after(retry_after)
            }
            Error::QueueFull { .. } => of(Reason::QueueFull).with_retry_after(QUEUE_RETRY),
            Error::RateLimited {
                per_minute,
                retry_after,
            } => of(Reason::RateLimited)
                .with_retry_after(retry_after)
                .with_metadata("per_minute", per_minute.to_string()),
            Error::QuotaExceeded(spent) => of(Reason::QuotaExceeded)
                .with_retry_after(spent.retry_after)
                .with_metadata("agent", spent.agent)
                .with_metadata("per_minute", spent.per_minute.to_string())
                .with_metadata(
                    "of",
                    match spent.whose {
                        Whose::All => "all",
                        Whose::Callers => "caller",
                    },
                ),
            Error::Expired { .. } => of(Reason::MessageExpired),
            Error::DeadlineExceeded { .. } | Error::StreamIdle { .. } => of(Reason::DeadlineExceeded),
            Error::StreamStalled { .. } => of(Reason::StreamStalled),
            Error::TooLarge { limit, .. } => {
                of(Reason::MessageTooLarge).with_metadata("limit", limit.to_string())
            }
            Error::Unreachable {
                agent,
                instance,
                is_repeatable,
                ..
            } => {
                let unreachable = of(Reason::AgentUnreachable)
                    .with_metadata("agent", agent)
                    .with_metadata("instance", instance)
                    .with_metadata("safe_to_retry", is_repeatable.to_string());
                // Where it may be done twice, whoever called looks first.
                if is_repeatable {
                    unreachable.with_retry_after(SEARCH_RETRY)
                } else {
                    unreachable
                }
            }
            Error::InvalidAnswer { .. } => return ProtocolError::InvalidAgentResponse.status(message),
            Error::Credentials { agent, .. } => of(Reason::CredentialsMissing).with_metadata("agent", agent),
            Error::Token { agent, .. } => of(Reason::DependencyUnavailable)
                .with_metadata("agent", agent)
                .with_retry_after(TOKEN_RETRY),
            Error::UnknownTask { .. } => return ProtocolError::TaskNotFound.status(message),
            Error::TaskUnlocated { .. } => of(Reason::NoInstanceAvailable)
                .with_retry_after(SEARCH_RETRY)
                .with_metadata("cause", "unreachable"),
            Error::MessageIdReused { .. } => of(Reason::MessageIdReused),
            Error::VersionNotSupported { .. } => return ProtocolError::VersionNotSupported.status(message),
            Error::Store { .. } => of(Reason::StoreUnavailable).with_retry_after(STORE_RETRY),
            Error::AnswersFull => of(Reason::AnswersFull).with_retry_after(FULL_RETRY),
            Error::AnswerNotKept { .. } => of(Reason::AnswerNotKept),
            Error::InvalidPageToken { .. } => of(Reason::InvalidPageToken),
            Error::Unlisted { agent, instance, .. } => of(Reason::NoInstanceAvailable)
                .with_retry_after(SEARCH_RETRY)
                .with_metadata("cause", "unreachable")
                .with_metadata("agent", agent)
                .with_metadata("instance", instance),
            Error::PageTooLarge { limit, .. } => {
                of(Reason::MessageTooLarge).with_metadata("limit", limit.to_string())
            }
            Error::ShuttingDown => of(Reason::ShuttingDown).with_retry_after(STORE_RETRY),
            Error::Agent(status) => return *status,
            Error::Refused(refusal) => return (*refusal).into(),
        };
        status.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn errors_of_a2a_carry_its_domain_and_ours_carry_ours() {
        let unknown = Status::from(Error::UnknownTask { task: "t".to_owned() });
        assert_eq!(ProtocolError::of(&unknown), Some(ProtocolError::TaskNotFound));

        let full = Status::from(Error::QueueFull { waiting: 3 });
        let error = ApiError::from_status(&full).unwrap();
        assert_eq!(error.reason, Reason::QueueFull);
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn an_agents_own_status_is_passed_on_unchanged() {
        let details = ErrorDetails::with_error_info("X", "agent.example", [("k".to_owned(), "v".to_owned())]);
        let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
        let passed = Status::from(Error::Agent(Box::new(status.clone())));
        assert_eq!(
            (passed.code(), passed.message(), passed.details()),
            (status.code(), status.message(), status.details())
        );
    }
}
