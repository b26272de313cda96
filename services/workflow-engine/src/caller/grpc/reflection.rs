//! The contract of a service, as its server tells it: `grpc.reflection.v1`, else `v1alpha`.
//!
//! The two versions are the same on the wire but for the name. A server may answer with the file alone or with all that
//! it imports; what is missing is asked for, file by file, over the same stream. Google's well-known files, which some
//! servers do not serve, are known here.

use std::collections::{BTreeMap, HashSet};

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::options;

/// Versions of the protocol, newest first.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Most files of one contract.
const MOST_FILES: usize = 500;

/// Most bytes of one contract.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// Why there is no contract.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call of the reflection failed.
    #[error("{0}")]
    Status(#[from] Status),
    /// The server answers, but not with the contract.
    #[error("{0}")]
    Answer(String),
}

/// The contract that `service` is part of.
pub(super) async fn contract(
    channel: &Channel,
    metadata: &MetadataMap,
    service: &str,
) -> Result<DescriptorPool, Error> {
    let mut refusal = None;
    for path in PATHS {
        match Conversation::begin(channel, metadata, path, service).await {
            Ok((conversation, first)) => return conversation.gather(first).await,
            Err(Error::Status(status)) if status.code() == Code::Unimplemented => refusal = Some(status),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Status(refusal.unwrap_or_else(|| {
        Status::unimplemented("the server does not offer reflection")
    })))
}

/// A stream of questions and answers.
struct Conversation {
    questions: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
}

impl Conversation {
    /// Asks for the file with the service. Whether the server knows the protocol shows with the first answer.
    async fn begin(
        channel: &Channel,
        metadata: &MetadataMap,
        path: &'static str,
        service: &str,
    ) -> Result<(Self, Vec<FileDescriptorProto>), Error> {
        let (questions, asked) = mpsc::channel(1);
        let mut client = Grpc::new(channel.clone()).max_decoding_message_size(MOST_BYTES);
        client
            .ready()
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        let question = question(MessageRequest::FileContainingSymbol(service.to_owned()));
        // There is room for one.
        let _ = questions.try_send(question);
        let mut request = Request::new(ReceiverStream::new(asked));
        *request.metadata_mut() = metadata.clone();
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let answers = client
            .streaming(request, PathAndQuery::from_static(path), codec)
            .await?
            .into_inner();
        let mut conversation = Self { questions, answers };
        let first = conversation.answer().await?;
        Ok((conversation, first))
    }

    async fn ask(&mut self, what: MessageRequest) -> Result<Vec<FileDescriptorProto>, Error> {
        if self.questions.send(question(what)).await.is_err() {
            return Err(Error::Answer("the server ended the reflection early".to_owned()));
        }
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Vec<FileDescriptorProto>, Error> {
        let answer = self.answers.message().await?;
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::FileDescriptorResponse(files)) => files
                .file_descriptor_proto
                .iter()
                .map(|file| {
                    FileDescriptorProto::decode(file.as_slice()).map_err(|error| {
                        Error::Answer(format!("a file of the contract is unreadable: {error}"))
                    })
                })
                .collect(),
            Some(MessageResponse::ErrorResponse(error)) => Err(Error::Status(Status::new(
                Code::from(error.error_code),
                error.error_message,
            ))),
            Some(_) => Err(Error::Answer("the server answers another question".to_owned())),
            None => Err(Error::Answer("the server ended the reflection early".to_owned())),
        }
    }

    /// Asks for what is imported and not there yet, until nothing is missing.
    async fn gather(mut self, first: Vec<FileDescriptorProto>) -> Result<DescriptorPool, Error> {
        let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
        let mut new = first;
        let mut bytes = 0;
        loop {
            for file in new {
                bytes += file.encoded_len();
                files.insert(file.name().to_owned(), file);
            }
            if files.len() > MOST_FILES || bytes > MOST_BYTES {
                return Err(Error::Answer(format!(
                    "the contract has more than {MOST_FILES} files or {MOST_BYTES} bytes"
                )));
            }
            let missing = files
                .values()
                .flat_map(|file| &file.dependency)
                .find(|name| !files.contains_key(*name))
                .cloned();
            let Some(name) = missing else { break };
            new = match well_known(&name) {
                Some(file) => vec![file],
                None => self.ask(MessageRequest::FileByFilename(name.clone())).await?,
            };
            if !new.iter().any(|file| file.name() == name) {
                return Err(Error::Answer(format!(
                    "the server does not tell '{name}', which its contract imports"
                )));
            }
        }
        pool(files.into_values())
    }
}

fn question(message: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    }
}

fn well_known(name: &str) -> Option<FileDescriptorProto> {
    let pool = DescriptorPool::global();
    let file = pool.get_file_by_name(name)?;
    Some(file.file_descriptor_proto().clone())
}

/// A pool of the files, each after those that it imports.
///
/// # Errors
/// They do not fit together.
pub fn pool(files: impl Iterator<Item = FileDescriptorProto>) -> Result<DescriptorPool, Error> {
    let files: Vec<FileDescriptorProto> = files.collect();
    if files.iter().any(options::are_too_deep) {
        let most = options::MOST_LEVELS;
        let what = format!("an option of the contract has more than {most} levels of braces");
        return Err(Error::Answer(what));
    }
    // The library that builds the pool panics on another syntax, in place of saying so.
    let is_known =
        |file: &FileDescriptorProto| matches!(file.syntax.as_deref(), None | Some("proto2" | "proto3"));
    if let Some(file) = files.iter().find(|file| !is_known(file)) {
        let (name, syntax) = (file.name(), file.syntax());
        return Err(Error::Answer(format!(
            "the file '{name}' of the contract has the syntax '{syntax}'; proto2 and proto3 are known"
        )));
    }
    let mut pool = DescriptorPool::new();
    let mut seen = HashSet::new();
    let files = files
        .into_iter()
        .filter(|file| seen.insert(file.name().to_owned()));
    pool.add_file_descriptor_protos(files)
        .map_err(|error| Error::Answer(format!("the contract is inconsistent: {error}")))?;
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use prost_types::uninterpreted_option::NamePart;
    use prost_types::{DescriptorProto, FileOptions, UninterpretedOption};

    use super::*;

    #[test]
    fn a_syntax_that_nobody_knows_is_refused() {
        for (syntax, expected) in [
            ("proto3", None),
            ("editions", Some("'a.proto'")),
            ("", Some("''")),
        ] {
            let file = FileDescriptorProto {
                name: Some("a.proto".to_owned()),
                syntax: Some(syntax.to_owned()),
                ..FileDescriptorProto::default()
            };
            let error = pool(std::iter::once(file)).err().map(|error| error.to_string());
            let is_as_expected = match (&error, expected) {
                (Some(error), Some(expected)) => error.contains(expected),
                (error, expected) => error.is_some() == expected.is_some(),
            };
            assert!(is_as_expected, "{syntax}: {error:?}");
        }
    }

    #[test]
    fn a_server_tells_no_option_of_a_hundred_thousand_levels() {
        const DEEP: usize = 100_000;
        let file = FileDescriptorProto {
            name: Some("a.proto".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("M".to_owned()),
                ..DescriptorProto::default()
            }],
            options: Some(FileOptions {
                uninterpreted_option: vec![UninterpretedOption {
                    name: vec![NamePart {
                        name_part: "m".to_owned(),
                        is_extension: true,
                    }],
                    aggregate_value: Some("m { ".repeat(DEEP) + &"}".repeat(DEEP)),
                    ..UninterpretedOption::default()
                }],
                ..FileOptions::default()
            }),
            ..FileDescriptorProto::default()
        };
        let error = pool(std::iter::once(file)).unwrap_err();
        assert!(error.to_string().contains("more than 100 levels"), "{error}");
    }
}
