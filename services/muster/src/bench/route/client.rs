//! One caller: it sends a text to the agent and looks whether that comes back.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use muster_a2a::grpc::Client as Agents;
use muster_api::a2a::{
    Message, Part, Role, SendMessageRequest, part, send_message_response, stream_response,
};
use muster_rpc::channel::{self, Config};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::bench::part::AGENT;
use crate::failure::Failure;

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// `SendMessage`: one answer.
    Unary,
    /// `SendStreamingMessage`: a stream, which has one message and ends.
    Streaming,
}

impl Call {
    /// Its name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Streaming => "streaming",
        }
    }
}

/// Metadata that go with each call.
pub type Metadata = (AsciiMetadataKey, AsciiMetadataValue);

/// Reads `KEY=VALUE`.
pub fn metadata(text: &str) -> Result<Metadata, String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    let key = key
        .parse()
        .map_err(|_| format!("`{key}` is no name of metadata"))?;
    let value = value.parse().map_err(|_| "the value is not ASCII".to_owned())?;
    Ok((key, value))
}

/// A connection for clients, with the settings for peers of any kind.
pub fn channel(url: &str) -> Result<Channel, Failure> {
    let endpoint = muster_rpc::endpoint::parse(url).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(channel::connect_lazy_with(&endpoint, &Config::agent()))
}

/// What all callers of a measurement send.
#[derive(Debug, Clone)]
pub struct Sent {
    /// How.
    pub call: Call,
    /// The text.
    pub text: Arc<str>,
    /// Metadata.
    pub metadata: Vec<Metadata>,
    /// When the caller gives up, if it does.
    pub deadline: Option<Duration>,
}

/// One caller.
#[derive(Debug, Clone)]
pub struct Caller {
    client: Agents,
    sent: Arc<Sent>,
    name: Arc<str>,
    number: u64,
}

impl Caller {
    /// A caller on this connection.
    pub fn new(channel: Channel, sent: Arc<Sent>) -> Self {
        Self {
            client: muster_a2a::grpc::client(channel),
            sent,
            name: uuid::Uuid::now_v7().to_string().into(),
            number: 0,
        }
    }

    /// Callers on so many connections, which take turns at where they go to.
    pub fn several(
        urls: &[String],
        connections: u32,
        callers: u32,
        sent: &Arc<Sent>,
    ) -> Result<Vec<Self>, Failure> {
        let turns = urls.iter().cycle().take(connections.max(1) as usize);
        let channels: Result<Vec<_>, _> = turns.map(|url| channel(url)).collect();
        let channels = channels?;
        let turns = channels.iter().cycle().take(callers as usize);
        Ok(turns
            .map(|channel| Self::new(channel.clone(), Arc::clone(sent)))
            .collect())
    }

    /// Another caller on the same connection.
    pub fn another(&self) -> Self {
        Self {
            name: uuid::Uuid::now_v7().to_string().into(),
            ..self.clone()
        }
    }

    /// The same caller for one call, so that it can have several under way.
    pub fn once(&mut self) -> Self {
        self.number += 1;
        self.clone()
    }

    /// Sends one message and waits for all of its answer.
    pub async fn call(&mut self) -> Result<(), Status> {
        self.number += 1;
        let request = self.request();
        let answer = match self.sent.call {
            Call::Unary => {
                let answer = self.client.send_message(request).await?.into_inner();
                match answer.payload {
                    Some(send_message_response::Payload::Message(message)) => Some(message),
                    Some(send_message_response::Payload::Task(_)) | None => None,
                }
            }
            Call::Streaming => {
                let mut events = self.client.send_streaming_message(request).await?.into_inner();
                let mut last = None;
                while let Some(event) = events.message().await? {
                    last = match event.payload {
                        Some(stream_response::Payload::Message(message)) if last.is_none() => Some(message),
                        _ => return Err(Status::data_loss("the stream has more than one message")),
                    };
                }
                last
            }
        };
        if answer.is_some_and(|message| has_text(&message, &self.sent.text)) {
            Ok(())
        } else {
            Err(Status::data_loss("the answer is not what was sent"))
        }
    }

    fn request(&self) -> Request<SendMessageRequest> {
        let mut request = Request::new(SendMessageRequest {
            tenant: AGENT.to_owned(),
            message: Some(Message {
                // A message that is sent twice is answered once; so no two may have the same id.
                message_id: format!("{}-{}", self.name, self.number),
                role: Role::User.into(),
                parts: vec![Part {
                    content: Some(part::Content::Text(String::from(&*self.sent.text))),
                    ..Part::default()
                }],
                ..Message::default()
            }),
            ..SendMessageRequest::default()
        });
        for (key, value) in &self.sent.metadata {
            request.metadata_mut().insert(key.clone(), value.clone());
        }
        if let Some(deadline) = self.sent.deadline {
            request.set_timeout(deadline);
        }
        request
    }
}

fn has_text(message: &Message, text: &str) -> bool {
    let content = message.parts.first().and_then(|part| part.content.as_ref());
    matches!(content, Some(part::Content::Text(answer)) if answer == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_read_or_refused() {
        let (key, value) = metadata("authorization=Bearer a=b").expect("well formed");
        assert_eq!(
            (key.as_str(), value.to_str().expect("text")),
            ("authorization", "Bearer a=b")
        );
        for wrong in ["authorization", "a b=c", "key=\n"] {
            assert!(metadata(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn no_two_messages_have_the_same_id() {
        let sent = Arc::new(Sent {
            call: Call::Unary,
            text: "x".into(),
            metadata: Vec::new(),
            deadline: None,
        });
        let mut callers = Caller::several(&["http://127.0.0.1:1".to_owned()], 2, 3, &sent).expect("callers");
        let mut ids = std::collections::BTreeSet::new();
        for caller in &mut callers {
            for _ in 0..3 {
                let message = caller.once().request().into_inner().message;
                ids.insert(message.expect("a message").message_id);
            }
        }
        assert_eq!(ids.len(), 9);
    }
}
