//! The frames that gRPC puts around messages, of calls that are passed on.
//!
//! Most messages come in one piece, uncompressed, and with a status that is OK. Such a message is taken out of its frame where it lies,
//! and goes on in one piece, without the buffers and the layers of tonic's codec. Whatever is not as simple as that (a message in
//! several pieces, compression, no message, an error, broken frames) is given to tonic with what has been read of it put back. So
//! the rules of the protocol stay in one place, which is not here, and all that is decided here is what is simple; the tests hold
//! one against the other.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::BoxStream;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, StatusCode, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use muster_a2a::client::TooLarge;
use muster_rpc::channel::Direct;
use muster_rpc::direct::Incoming;
use tonic::client::Grpc;
use tonic::codec::{EncodeBody, SingleMessageCompressionOverride, Streaming};
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Response, Status};

use crate::codec::{Passing, Pieces};
use crate::operation::Method;

/// Before each message: whether it is compressed, and its length.
const HEAD: usize = 5;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What no request says beside what gRPC says in it.
const RESERVED: [&str; 3] = ["grpc-status", "grpc-message", "grpc-message-type"];

/// The message in a piece that is one frame, uncompressed, whose message is not over the limit.
fn only(piece: &Bytes, limit: usize) -> Option<Bytes> {
    let &[0, a, b, c, d] = piece.first_chunk::<HEAD>()? else {
        return None;
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (length <= limit && piece.len() == HEAD + length).then(|| piece.slice(HEAD..))
}

/// What tonic says of an answer, with its type where that is larger than the limit. tonic has words alone for it; that an agent says the
/// same ones of what it was sent, with the same limit, does no harm: neither says anything of the agent.
fn typed(mut status: Status, limit: usize) -> Status {
    let words = status.message();
    if status.code() == Code::OutOfRange
        && words.starts_with("Error, decoded message length too large")
        && words.ends_with(&format!("the limit is: {limit} bytes"))
    {
        status.set_source(Arc::new(TooLarge { limit }));
    }
    status
}

/// A message in its frame.
fn framed(message: &Pieces) -> Result<Bytes, Status> {
    let length = u32::try_from(message.len())
        .map_err(|_| Status::resource_exhausted("a message of more than 4 GiB cannot be sent"))?;
    let mut frame = BytesMut::with_capacity(HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    for piece in &message.0 {
        frame.put_slice(piece);
    }
    Ok(frame.freeze())
}

/// Whether it says nothing: an end that comes by itself.
fn is_empty<T>(frame: &Frame<T>) -> bool
where
    T: AsRef<[u8]>,
{
    frame.data_ref().is_some_and(|piece| piece.as_ref().is_empty())
}

fn is_well(trailers: &HeaderMap) -> bool {
    trailers.get(GRPC_STATUS).is_some_and(|status| *status == OK)
}

/// A body of which some was read and is put back.
struct Again<B: Body> {
    first: VecDeque<Result<Frame<B::Data>, B::Error>>,
    rest: B,
}

/// What was read is handed out, and never pinned.
impl<B: Body + Unpin> Unpin for Again<B> {}

impl<B: Body + Unpin> Body for Again<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        match this.first.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The one message of a request, and what follows it; or its body as it was, where that is for tonic.
///
/// # Errors
/// The body is for tonic.
pub async fn take(
    headers: &HeaderMap,
    mut body: tonic::body::Body,
    limit: usize,
) -> Result<(Bytes, Option<HeaderMap>), tonic::body::Body> {
    let (mut first, mut message, mut trailers) = (VecDeque::new(), None, None);
    let mut is_simple = !headers.contains_key(GRPC_ENCODING);
    while is_simple && !(message.is_some() && body.is_end_stream()) {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) if is_empty(&frame) => {}
            Some(Ok(frame)) if message.is_some() && frame.is_trailers() => {
                trailers = frame.into_trailers().ok();
                break;
            }
            Some(frame) => {
                let piece = frame.as_ref().ok().and_then(Frame::data_ref);
                let found = piece.and_then(|piece| only(piece, limit));
                is_simple = message.is_none() && found.is_some();
                message = found;
                first.push_back(frame);
            }
        }
    }
    match message {
        Some(message) if is_simple => Ok((message, trailers)),
        _ => Err(tonic::body::Body::new(Again { first, rest: body })),
    }
}

/// An answer of one message that is OK.
pub(crate) fn answer(
    headers: HeaderMap,
    message: &Pieces,
) -> Result<http::Response<tonic::body::Body>, Status> {
    let one = One {
        message: Some(framed(message)?),
        has_ended: false,
    };
    let mut response = http::Response::new(tonic::body::Body::new(one));
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    Ok(response)
}

/// An answer of messages, one after the other, whose status is told when they end.
pub(crate) fn stream(
    headers: HeaderMap,
    messages: BoxStream<'static, Result<Pieces, Status>>,
) -> http::Response<tonic::body::Body> {
    let compression = SingleMessageCompressionOverride::default();
    let body = EncodeBody::new_server(Passing, messages, None, compression, Some(usize::MAX));
    let mut response = http::Response::new(tonic::body::Body::new(body));
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// One message, and the status.
struct One {
    message: Option<Bytes>,
    has_ended: bool,
}

impl Body for One {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(message) = this.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut this.has_ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, OK);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// An agent that is called over gRPC.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    way: &'a Direct,
    origin: &'a Uri,
    /// Largest message that is taken of it.
    limit: usize,
}

impl<'a> Peer<'a> {
    /// The agent at the end of this way, of which messages of at most `limit` bytes are taken.
    #[must_use]
    pub const fn new((way, origin): (&'a Direct, &'a Uri), limit: usize) -> Self {
        Self { way, origin, limit }
    }

    /// Makes a call that has one answer.
    ///
    /// # Errors
    /// The agent's status, or why there is none.
    pub async fn ask(
        self,
        request: Request<Pieces>,
        method: &'static Method,
    ) -> Result<Response<Bytes>, Status> {
        single(self.call(request, method).await?, self.limit).await
    }

    /// Makes a call that has a stream of answers.
    ///
    /// # Errors
    /// The agent's status, or why there is none.
    pub async fn follow(
        self,
        request: Request<Pieces>,
        method: &'static Method,
    ) -> Result<Response<Messages>, Status> {
        messages(self.call(request, method).await?, self.limit).await
    }

    async fn call(
        self,
        request: Request<Pieces>,
        method: &'static Method,
    ) -> Result<http::Response<Incoming>, Status> {
        let (metadata, _, message) = request.into_parts();
        let mut headers = metadata.into_headers();
        for name in RESERVED {
            headers.remove(name);
        }
        headers.insert(header::TE, TRAILERS);
        headers.insert(header::CONTENT_TYPE, GRPC);
        let mut call = http::Request::new(framed(&message)?);
        *call.method_mut() = Verb::POST;
        *call.version_mut() = Version::HTTP_2;
        *call.uri_mut() = at(self.origin, method.path)?;
        *call.headers_mut() = headers;
        let answer = self.way.send(call).await;
        answer.map_err(|error| Status::from_error(Box::new(error)))
    }
}

/// A path at who is addressed so.
fn at(origin: &Uri, path: &'static str) -> Result<Uri, Status> {
    let mut parts = origin.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    Uri::from_parts(parts).map_err(|error| Status::internal(format!("{origin} is no address: {error}")))
}

/// Whether messages can come with this head, whose status is told after them.
fn is_simple<B>(response: &http::Response<B>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::OK
        && !headers.contains_key(GRPC_STATUS)
        && !headers.contains_key(GRPC_ENCODING)
}

/// The one message of an answer.
async fn single<B>(response: http::Response<B>, limit: usize) -> Result<Response<Bytes>, Status>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError> + Send,
{
    let is_simple = is_simple(&response);
    let (mut head, mut body) = response.into_parts();
    let (mut first, mut message) = (VecDeque::new(), None);
    while is_simple && let Some(frame) = body.frame().await {
        let frame = match (frame, message.take()) {
            (Ok(frame), none) if is_empty(&frame) => {
                message = none;
                continue;
            }
            (Ok(frame), Some(message)) if frame.trailers_ref().is_some_and(is_well) => {
                // Beside the status there are hardly ever any.
                if let Some(trailers) = frame.into_trailers().ok().filter(|all| all.len() > 1) {
                    head.headers.extend(trailers);
                }
                let metadata = MetadataMap::from_headers(head.headers);
                return Ok(Response::from_parts(metadata, message, Extensions::default()));
            }
            (frame, None) => frame,
            (frame, Some(_)) => {
                first.push_back(frame);
                break;
            }
        };
        let piece = frame.as_ref().ok().and_then(Frame::data_ref);
        message = piece.and_then(|piece| only(piece, limit));
        first.push_back(frame);
        if message.is_none() {
            break;
        }
    }
    let response = http::Response::from_parts(head, Again { first, rest: body });
    Box::pin(single_by_tonic(response, limit)).await
}

async fn single_by_tonic<B>(response: http::Response<B>, limit: usize) -> Result<Response<Bytes>, Status>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let mut response = Some(response);
    let here = tower::service_fn(move |_: http::Request<tonic::body::Body>| {
        ready(response.take().ok_or("it is answered once"))
    });
    Grpc::new(here)
        .max_decoding_message_size(limit)
        .unary(
            Request::new(Pieces::default()),
            PathAndQuery::from_static("/"),
            Passing,
        )
        .await
        .map_err(|status| typed(status, limit))
}

async fn messages<B>(response: http::Response<B>, limit: usize) -> Result<Response<Messages<B>>, Status>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError> + Send,
{
    if is_simple(&response) {
        let (head, body) = response.into_parts();
        let messages = Messages {
            source: Source::Simple(body),
            limit,
        };
        let metadata = MetadataMap::from_headers(head.headers);
        return Ok(Response::from_parts(metadata, messages, Extensions::default()));
    }
    let mut response = Some(response);
    let here = tower::service_fn(move |_: http::Request<tonic::body::Body>| {
        ready(response.take().ok_or("it is answered once"))
    });
    let mut grpc = Grpc::new(here).max_decoding_message_size(limit);
    let asked = Request::new(Pieces::default());
    let streamed = grpc.server_streaming(asked, PathAndQuery::from_static("/"), Passing);
    let streamed = Box::pin(streamed).await?;
    Ok(streamed.map(|stream| Messages {
        source: Source::Tonic(Box::new(stream)),
        limit,
    }))
}

/// The messages of a streamed answer.
pub struct Messages<B = Incoming> {
    source: Source<B>,
    limit: usize,
}

enum Source<B> {
    /// Each message was simple so far.
    Simple(B),
    /// One was not.
    Tonic(Box<Streaming<Bytes>>),
    /// No more comes.
    Over,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError> + Send,
{
    /// The next message; none at the end.
    ///
    /// # Errors
    /// The agent's status, or why the stream broke.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let frame = match &mut self.source {
                Source::Over => return Ok(None),
                Source::Tonic(stream) => {
                    let message = stream.message().await;
                    return message.map_err(|status| typed(status, self.limit));
                }
                Source::Simple(body) => body.frame().await,
            };
            if let Some(Ok(frame)) = &frame {
                if is_empty(frame) {
                    continue;
                }
                if let Some(message) = frame.data_ref().and_then(|piece| only(piece, self.limit)) {
                    return Ok(Some(message));
                }
                if frame.trailers_ref().is_some_and(is_well) {
                    self.source = Source::Over;
                    return Ok(None);
                }
            }
            if let Source::Simple(rest) = std::mem::replace(&mut self.source, Source::Over) {
                let first = frame.into_iter().collect();
                let body = Again { first, rest };
                let stream = Streaming::new_response(Passing, body, StatusCode::OK, None, Some(self.limit));
                self.source = Source::Tonic(Box::new(stream));
            }
        }
    }
}

#[cfg(test)]
mod tests;
