//! One method of a service, by its descriptor: JSON in, JSON out.

use http::uri::PathAndQuery;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde_json::Value;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::codec::Dynamic;
use crate::caller::{Failure, Kind};

/// One method of a service.
#[derive(Debug, Clone)]
pub struct Method {
    descriptor: MethodDescriptor,
    /// Whether fields at their default are in the JSON that comes back.
    complete: bool,
}

impl Method {
    /// The method `name` of `service`, which is a part of `contract`.
    ///
    /// # Errors
    /// There is none; what there is.
    pub fn find(contract: &DescriptorPool, service: &str, name: &str) -> Result<Self, Failure> {
        let missing = |detail: String| Failure::new(Kind::Validation, 404, detail);
        let Some(found) = contract.get_service_by_name(service) else {
            let names: Vec<String> = contract
                .services()
                .map(|service| service.full_name().to_owned())
                .collect();
            let nearest = muster_api::names::suggestion(service, names.iter().map(String::as_str));
            return Err(missing(format!(
                "the contract has no service '{service}'; it has {}{nearest}",
                listed(&names)
            )));
        };
        let method = found.methods().find(|method| method.name() == name);
        let Some(descriptor) = method else {
            let names: Vec<String> = found.methods().map(|method| method.name().to_owned()).collect();
            let nearest = muster_api::names::suggestion(name, names.iter().map(String::as_str));
            return Err(missing(format!(
                "the service '{service}' has no method '{name}'; it has {}{nearest}",
                listed(&names)
            )));
        };
        Ok(Self {
            descriptor,
            complete: true,
        })
    }

    /// The same, leaving fields at their default away from the JSON that comes back.
    #[must_use]
    pub(in crate::caller) fn sparse(self) -> Self {
        Self {
            complete: false,
            ..self
        }
    }

    /// Whether it answers with a stream.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.descriptor.is_server_streaming()
    }

    /// The request that `arguments` stand for.
    ///
    /// # Errors
    /// They do not fit its type.
    pub fn request(&self, arguments: &Value) -> Result<DynamicMessage, Failure> {
        let input = self.descriptor.input();
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(input.clone(), arguments, &options).map_err(|error| {
            let fields: Vec<String> = input.fields().map(|field| field.json_name().to_owned()).collect();
            let detail = format!(
                "the arguments are not a {}, which has {}: {error}",
                input.full_name(),
                listed(&fields)
            );
            Failure::new(Kind::Validation, 400, detail)
        })
    }

    fn path(&self) -> Result<PathAndQuery, Status> {
        let service = self.descriptor.parent_service();
        format!("/{}/{}", service.full_name(), self.descriptor.name())
            .parse()
            .map_err(|error| Status::internal(format!("{error}")))
    }

    fn codec(&self) -> Dynamic {
        Dynamic {
            answer: self.answer(),
        }
    }

    fn answer(&self) -> MessageDescriptor {
        self.descriptor.output()
    }

    /// Asks and waits for the one answer.
    ///
    /// # Errors
    /// What comes back instead.
    pub(in crate::caller) async fn unary(
        &self,
        channel: &Channel,
        request: Request<DynamicMessage>,
        most_bytes: usize,
    ) -> Result<DynamicMessage, Status> {
        let mut answers = self.stream(channel, request, most_bytes).await?;
        let answer = answers.message().await?;
        let answer = answer.ok_or_else(|| Status::internal("the answer is empty"))?;
        match answers.message().await? {
            None => Ok(answer),
            Some(_) => Err(Status::internal("there is more than one answer")),
        }
    }

    /// Asks and follows the answers. One request is sent, whether the method takes one or many.
    ///
    /// # Errors
    /// What comes back instead.
    pub(in crate::caller) async fn stream(
        &self,
        channel: &Channel,
        request: Request<DynamicMessage>,
        most_bytes: usize,
    ) -> Result<Streaming<DynamicMessage>, Status> {
        let mut client = Grpc::new(channel.clone())
            .max_decoding_message_size(most_bytes)
            .max_encoding_message_size(usize::MAX);
        client
            .ready()
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        let answers = client
            .server_streaming(request, self.path()?, self.codec())
            .await?;
        Ok(answers.into_inner())
    }

    /// An answer as ProtoJSON.
    ///
    /// # Errors
    /// It holds what has no JSON.
    pub fn json(&self, answer: &DynamicMessage) -> Result<Value, Failure> {
        let options = SerializeOptions::new().skip_default_fields(!self.complete);
        answer
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| {
                let name = self.answer().full_name().to_owned();
                Failure::new(
                    Kind::Communication,
                    502,
                    format!("the answer, a {name}, is not JSON: {error}"),
                )
            })
    }
}

/// `a, b, c`, shortened.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let more = if names.len() > MOST { ", …" } else { "" };
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("'{name}'")).collect();
    format!("{}{more}", shown.join(", "))
}
