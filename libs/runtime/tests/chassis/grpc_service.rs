//! A gRPC service, written by hand so that it can misbehave, and a client of it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// `/Panic` panics, `/PanicLater` after its head, `/NotFound` answers that in its trailers.
#[derive(Clone)]
pub struct Peculiar;

impl NamedService for Peculiar {
    const NAME: &'static str = "example.v1.Peculiar";
}

impl tower::Service<Request<Body>> for Peculiar {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        async move {
            let body = match request.uri().path() {
                "/example.v1.Peculiar/PanicLater" => {
                    // An empty message, then nothing good.
                    Body::new(axum::body::Body::from_stream(super::stage::panics_after(
                        "\0\0\0\0\0",
                    )))
                }
                "/example.v1.Peculiar/NotFound" => not_found(),
                _ => panic!("on purpose"),
            };
            let mut response = Response::new(body);
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
            Ok(response)
        }
        .boxed()
    }
}

fn not_found() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(Code::NotFound as i32));
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 5]))),
        Ok(Frame::trailers(trailers)),
    ];
    Body::new(StreamBody::new(futures::stream::iter(frames)))
}

/// Calls a method with an empty message.
pub async fn call(channel: Channel, path: &'static str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = tonic::Request::new(HealthCheckRequest::default());
    let path = PathAndQuery::from_static(path);
    client.unary(request, path, codec).await.map(drop)
}
