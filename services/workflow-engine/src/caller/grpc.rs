//! Calls of gRPC services, whatever their contract: it comes from a `.proto` file, or from the server by reflection.
//!
//! One request is sent, whether the method takes one or a stream of them. One answer is the call's output; the answers of a
//! method that streams them are a list. A call that is abandoned is dropped with its connection, which tells the server.

mod codec;
mod link;
mod method;
mod options;
pub mod proto;
pub mod reflection;

use std::collections::HashMap;
use std::sync::Arc;

use muster_api::extension::{EPOCH_METADATA, STEP_KEY_METADATA};
use muster_api::json;
use muster_rpc::deadline::Deadline;
use muster_runtime::clock::SharedClock;
use muster_workflow_dsl::request::{self, Resource, shown};
use prost_reflect::DescriptorPool;
use serde_json::Value;
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;

use super::http::within;
use super::session::Session;
use super::web::Web;
use super::{Call, Failure, Kind, Progress, judgement};
pub(super) use link::{Place, connect};
pub use method::Method;

/// Calls gRPC services.
pub struct Grpc {
    web: Arc<Web>,
    clock: SharedClock,
    /// Largest answer.
    most_bytes: usize,
}

impl Grpc {
    /// Calls over the connections of `web`.
    #[must_use]
    pub fn new(web: Arc<Web>, clock: SharedClock, most_bytes: usize) -> Self {
        Self {
            web,
            clock,
            most_bytes,
        }
    }

    /// Makes the call and returns the answer as ProtoJSON.
    pub(super) async fn call(
        &self,
        request: &request::Grpc,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let mut session = self.web.session(call).await?;
        progress.set_note(Some("obtains the service's contract first".to_owned()));
        let deadline = Deadline::after(self.clock.monotonic(), call.timeout);
        let target = request.target();
        let outcome = within(
            call.timeout,
            &target,
            self.work(request, call, progress, &mut session, deadline),
        )
        .await;
        session.cleaned(outcome)
    }

    async fn work(
        &self,
        request: &request::Grpc,
        call: &Call,
        progress: &Progress,
        session: &mut Session,
        deadline: Deadline,
    ) -> Result<Value, Failure> {
        let place = Place {
            host: session.text(&request.host),
            port: request.port,
            tls: request.tls,
        };
        let mut metadata = MetadataMap::new();
        if let Some(authentication) = &request.authentication {
            let value = self.web.authorization(authentication, session).await?;
            let mut value = MetadataValue::try_from(value).map_err(|_| {
                let detail = "the credentials contain characters that no metadata may have";
                Failure::new(Kind::Validation, 400, detail)
            })?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        let compiled = match &request.proto {
            Some(proto) => Some(self.compiled(proto, session).await?),
            None => None,
        };
        let channel = connect(self.web.outbound(), &place).await?;
        let contract = match compiled {
            Some(contract) => contract,
            None => reflected(&channel, &metadata, &place, &request.service).await?,
        };
        progress.set_note(None);
        let method = Method::find(&contract, &request.service, &request.method)?;
        let target = format!("{}/{} at {}", request.service, request.method, place.shown());
        let mut asked = Request::new(method.request(&session.value(&request.arguments))?);
        if let Ok(step_key) = call.step_key.to_string().parse() {
            metadata.insert(STEP_KEY_METADATA, step_key);
        }
        if let Some(epoch) = call.epoch {
            metadata.insert(EPOCH_METADATA, epoch.into());
        }
        *asked.metadata_mut() = metadata;
        muster_runtime::trace::inject_request(&mut asked);
        deadline.apply(&mut asked, self.clock.monotonic());
        self.answer(&method, &channel, asked, &target).await
    }

    async fn answer(
        &self,
        method: &Method,
        channel: &Channel,
        asked: Request<prost_reflect::DynamicMessage>,
        target: &str,
    ) -> Result<Value, Failure> {
        let failed = |status| judgement::failure(target, &status);
        // The limit of the channel is above ours, so that an answer over the limit is told apart from a broken one.
        let limit = self.most_bytes.saturating_mul(4);
        if !method.streams() {
            let answer = method.unary(channel, asked, limit).await.map_err(failed)?;
            let value = method.json(&answer)?;
            self.bound(json::length(&value), target)?;
            return Ok(value);
        }
        let mut answers = method.stream(channel, asked, limit).await.map_err(failed)?;
        let mut values = Vec::new();
        let mut bytes = 2;
        while let Some(answer) = answers.message().await.map_err(failed)? {
            let value = method.json(&answer)?;
            bytes += json::length(&value) + 1;
            self.bound(bytes, target)?;
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn bound(&self, bytes: usize, target: &str) -> Result<(), Failure> {
        let limit = self.most_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let detail = format!(
            "the answer of {target} with {bytes} bytes or more is over the limit of {limit}; ask for less, or raise \
             'engine.max_payload_bytes'"
        );
        Err(Failure::new(Kind::Runtime, 413, detail))
    }

    /// The contract from its source.
    async fn compiled(&self, proto: &Resource, session: &mut Session) -> Result<DescriptorPool, Failure> {
        let root = &proto.endpoint;
        let shown = shown(&root.uri);
        let wrong = |what: String| {
            let detail = format!("the contract at '{shown}': {what}");
            Failure::new(Kind::Validation, 400, detail)
        };
        let mut sources = HashMap::new();
        let mut next = proto::ROOT.to_owned();
        let mut place = root.clone();
        loop {
            let source = self.web.document(&place, session).await?;
            sources.insert(next, source.to_string());
            if sources.len() > proto::MOST_FILES {
                return Err(wrong(format!("it has more than {} files", proto::MOST_FILES)));
            }
            match proto::compile(&sources) {
                proto::Compiled::Contract(contract) => return Ok(contract),
                proto::Compiled::Wrong(what) => return Err(wrong(what)),
                proto::Compiled::Missing(name) => {
                    place.uri = proto::beside(&root.uri, &name)
                        .ok_or_else(|| wrong(format!("'{name}', which it imports, is not beside it")))?;
                    next = name;
                }
            }
        }
    }
}

/// The contract as the server tells it.
async fn reflected(
    channel: &Channel,
    metadata: &MetadataMap,
    place: &Place,
    service: &str,
) -> Result<DescriptorPool, Failure> {
    let shown = place.shown();
    reflection::contract(channel, metadata, service)
        .await
        .map_err(|error| match error {
            reflection::Error::Status(status) if status.code() == tonic::Code::Unimplemented => {
                let detail = format!(
                    "'{shown}' does not offer reflection; name the service's contract in 'proto', such as \
                     proto: {{endpoint: https://example.com/service.proto}}"
                );
                Failure::new(Kind::Communication, 501, detail)
            }
            reflection::Error::Status(status) => {
                judgement::failure(&format!("{service} at {shown} (reflection)"), &status)
            }
            reflection::Error::Answer(what) => Failure::new(
                Kind::Communication,
                502,
                format!("the reflection of '{shown}': {what}"),
            ),
        })
}
