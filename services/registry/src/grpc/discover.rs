//! Discover over gRPC without a copy of any card.
//!
//! An answer names up to a hundred instances with their cards, which are most of it. The generated server would have it as a
//! message: each card copied with all its texts, counted, encoded and dropped. Here the answer is written as the bytes that it
//! is, and a card is encoded once for all answers that it is in ([`Card::encoded`](crate::instance::Card::encoded)). Fields of a
//! message may come in any order, so a card follows the rest of its instance. Everything else is the generated server's.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_api::registry as proto;
use muster_api::registry::registry_service_server::RegistryServiceServer;
use muster_runtime::trust::Access;
use prost::Message as _;
use prost::bytes::BufMut;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};

use super::{Service, status};
use crate::discovery::Found;
use crate::instance::{Instance, wire};
use crate::reach::Reach;
use crate::registry::Registry;

const PATH: &str = "/muster.registry.v1.RegistryService/Discover";
/// Keys of the fields `DiscoverResponse.instances` and `Instance.card`: the number, and that a length comes next.
const INSTANCES: u8 = (1 << 3) | 2;
const CARD: u8 = (4 << 3) | 2;
/// Bytes that an instance has beside its card, about; for room in the buffer.
const ABOUT: usize = 512;

/// The registry's service.
#[derive(Clone)]
pub struct Server {
    generated: RegistryServiceServer<Service>,
    registry: Arc<Registry>,
    max_message_bytes: usize,
}

impl Server {
    /// Serves this, and takes messages of at most so many bytes.
    #[must_use]
    pub fn new(service: Service, max_message_bytes: usize) -> Self {
        let registry = Arc::clone(&service.registry);
        Self {
            generated: RegistryServiceServer::new(service).max_decoding_message_size(max_message_bytes),
            registry,
            max_message_bytes,
        }
    }

    async fn discover(self, request: http::Request<Body>) -> http::Response<Body> {
        let registry = &self.registry;
        let answer = tower::service_fn(|request: Request<proto::DiscoverRequest>| async move {
            let reach = Reach::of(&Access::in_extensions(request.extensions()));
            let found = registry.discover(request.into_inner(), reach).await;
            let (found, next_page_token) = found.map_err(status)?;
            Ok(Response::new(Answer {
                found,
                next_page_token,
            }))
        });
        let mut grpc = Grpc::new(Written).max_decoding_message_size(self.max_message_bytes);
        grpc.unary(answer, request).await
    }
}

impl NamedService for Server {
    const NAME: &'static str = RegistryServiceServer::<Service>::NAME;
}

impl tower::Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() == PATH {
            return self.clone().discover(request).map(Ok).boxed();
        }
        self.generated.call(request)
    }
}

/// What was found, as it is to be written.
struct Answer {
    found: Found,
    next_page_token: String,
}

impl Answer {
    fn write(&self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        for instance in &self.found.instances {
            write_instance(instance, buffer)?;
        }
        let rest = proto::DiscoverResponse {
            instances: Vec::new(),
            nearest_skills: self.found.nearest_skills.clone(),
            next_page_token: self.next_page_token.clone(),
        };
        rest.encode(buffer)
    }
}

fn write_instance(instance: &Instance, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
    let card = instance.profile.card.encoded();
    let rest = wire::without_card(instance);
    let card_field = 1 + prost::length_delimiter_len(card.len()) + card.len();
    buffer.put_u8(INSTANCES);
    prost::encode_length_delimiter(rest.encoded_len() + card_field, buffer)?;
    rest.encode(buffer)?;
    buffer.put_u8(CARD);
    prost::encode_length_delimiter(card.len(), buffer)?;
    buffer.put_slice(card);
    Ok(())
}

/// Reads requests as messages and writes answers as bytes.
#[derive(Debug, Clone, Copy)]
struct Written;

impl Codec for Written {
    type Encode = Answer;
    type Decode = proto::DiscoverRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Written {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let instances = answer.found.instances.iter();
        let about: usize = instances
            .map(|instance| ABOUT + instance.profile.card.encoded_len())
            .sum();
        buffer.reserve(about);
        let written = answer.write(buffer);
        written.map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Written {
    type Item = proto::DiscoverRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let read = proto::DiscoverRequest::decode(buffer);
        // As tonic's own decoder says it.
        read.map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{AgentCard, AgentSkill};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::instance::Report;

    fn instance(number: u128, description: usize) -> Instance {
        let message = proto::Instance {
            agent_id: "weather".to_owned(),
            region: "eu".to_owned(),
            card: Some(AgentCard {
                description: "d".repeat(description),
                skills: vec![AgentSkill {
                    id: "s".to_owned(),
                    ..AgentSkill::default()
                }],
                ..AgentCard::default()
            }),
            endpoint: "http://127.0.0.1:1".to_owned(),
            ..proto::Instance::default()
        };
        let (profile, _) = wire::registration(message, Uuid::from_u128(number + 1)).unwrap();
        Instance {
            profile: Arc::new(profile),
            report: Report::FRESH,
            registered_at: jiff::Timestamp::UNIX_EPOCH,
            last_heartbeat_at: jiff::Timestamp::UNIX_EPOCH,
            epoch: 7,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_what_the_message_would_be(
            count in 0_u128..4, description in 0_usize..40_000, near in prop::collection::vec("[a-z]{1,8}", 0..3),
        ) {
            let answer = Answer {
                found: Found {
                    instances: (0..count).map(|number| instance(number, description)).collect(),
                    more: false,
                    nearest_skills: near.clone(),
                },
                next_page_token: "next".to_owned(),
            };
            let mut bytes = Vec::new();
            answer.write(&mut bytes).unwrap();
            let expected = proto::DiscoverResponse {
                instances: answer.found.instances.iter().map(Into::into).collect(),
                nearest_skills: near,
                next_page_token: "next".to_owned(),
            };
            prop_assert_eq!(bytes.len(), expected.encoded_len());
            prop_assert_eq!(proto::DiscoverResponse::decode(bytes.as_slice()).unwrap(), expected);
        }
    }
}
