//! gRPC with bytes in place of generated types; the official descriptors alone say what they mean.

use std::net::SocketAddr;
use std::sync::LazyLock;

use muster_api::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::{Answer, Code, Driver, Events, Operation, Outcome, PATIENCE, Refusal};

/// Bytes that a server may send ahead; the least that is usual.
const WINDOW: u32 = 64 * 1024 - 1;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the contract's descriptors"));

pub async fn call(driver: &Driver, operation: Operation, params: &Value) -> Outcome {
    let (method, request, response) = operation.names();
    let mut client = client(driver.address).await;
    let message = encode(request, params);
    let called = client.unary(carrying(driver, message), path(method), Raw);
    let answer = in_time(method, called).await.map_err(|status| refusal(&status))?;
    Ok(Answer {
        value: decode(response, &answer.into_inner()),
        media_type: String::new(),
    })
}

pub async fn stream(driver: &Driver, operation: Operation, params: &Value) -> Result<Events, Refusal> {
    let (method, request, response) = operation.names();
    let mut client = client(driver.address).await;
    let message = encode(request, params);
    let called = client.server_streaming(carrying(driver, message), path(method), Raw);
    let mut stream = in_time(method, called)
        .await
        .map_err(|status| refusal(&status))?
        .into_inner();
    let (sender, receiver) = mpsc::channel(1);
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        loop {
            let event = match stream.message().await {
                Ok(None) => return,
                Ok(Some(bytes)) => Ok(decode(response, &bytes)),
                Err(status) => Err(refusal(&status)),
            };
            let ended = event.is_err();
            if sender.send(event).await.is_err() || ended {
                return;
            }
        }
    });
    Ok(Events {
        receiver,
        media_type: String::new(),
        _reader: reader,
    })
}

pub async fn call_named(driver: &Driver, method: &str) -> Result<(), Refusal> {
    let mut client = client(driver.address).await;
    let called = client.unary(carrying(driver, Vec::new()), path(method), Raw);
    match in_time(method, called).await {
        Ok(_) => Ok(()),
        Err(status) => Err(refusal(&status)),
    }
}

async fn in_time<T>(method: &str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| panic!("{method}: no answer within {PATIENCE:?}"))
}

async fn client(address: SocketAddr) -> tonic::client::Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("a fresh connection is ready");
    client
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/lf.a2a.v1.A2AService/{method}")).expect("a path")
}

fn carrying(driver: &Driver, message: Vec<u8>) -> Request<Vec<u8>> {
    let mut request = Request::new(message);
    for (name, value) in &driver.headers {
        let key: AsciiMetadataKey = name.parse().expect("a key");
        let value: AsciiMetadataValue = value.parse().expect("ASCII");
        request.metadata_mut().insert(key, value);
    }
    request
}

fn descriptor(name: &str) -> MessageDescriptor {
    let full = if name.contains('.') {
        name.to_owned()
    } else {
        format!("lf.a2a.v1.{name}")
    };
    POOL.get_message_by_name(&full)
        .unwrap_or_else(|| panic!("no message {full} in the contract"))
}

fn encode(name: &str, value: &Value) -> Vec<u8> {
    DynamicMessage::deserialize(descriptor(name), value)
        .unwrap_or_else(|error| panic!("not ProtoJSON of {name} ({error}): {value}"))
        .encode_to_vec()
}

fn decode(name: &str, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(descriptor(name), bytes)
        .unwrap_or_else(|error| panic!("the answer is no {name}: {error}"));
    let mut value = serde_json::to_value(message).expect("JSON");
    muster_api::json::restore_integers(&mut value);
    value
}

fn refusal(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let info = details.error_info().map(|info| {
        json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": info.reason,
            "domain": info.domain,
            "metadata": info.metadata,
        })
    });
    Refusal {
        code: Code::Grpc(status.code()),
        message: status.message().to_owned(),
        details: info.into_iter().collect(),
        media_type: String::new(),
    }
}

/// Messages as their bytes.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
