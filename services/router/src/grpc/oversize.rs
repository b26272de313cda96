//! Says MESSAGE_TOO_LARGE where tonic says OUT_OF_RANGE.
//!
//! tonic refuses a message over the limit before any handler sees it, with a bare OUT_OF_RANGE. This wrapper around
//! the service replaces that answer by the catalogue's, so that callers find the reason and the remedy. The limit
//! itself stays tonic's: nothing larger is ever held in memory.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_api::error::{Error as ApiError, Reason};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

/// What tonic's message says of a request over the limit.
const SIGN: &str = "decoded message length too large";

/// A gRPC service whose refusals of large messages are typed.
#[derive(Debug, Clone)]
pub struct Oversize<S> {
    inner: S,
    limit: usize,
}

impl<S> Oversize<S> {
    /// Wraps a service that takes messages up to `limit` bytes.
    #[must_use]
    pub const fn new(inner: S, limit: usize) -> Self {
        Self { inner, limit }
    }
}

impl<S: NamedService> NamedService for Oversize<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Oversize<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let limit = self.limit;
        self.inner
            .call(request)
            .map(move |response| response.map(|response| typed(response, limit)))
            .boxed()
    }
}

/// The response, or the typed refusal in its place.
fn typed(response: http::Response<Body>, limit: usize) -> http::Response<Body> {
    let too_large = Status::from_header_map(response.headers())
        .is_some_and(|status| status.code() == Code::OutOfRange && status.message().contains(SIGN));
    if !too_large {
        return response;
    }
    let message = format!("the message is larger than the {limit} bytes that are taken");
    let refusal = ApiError::new(Reason::MessageTooLarge, message).with_metadata("limit", limit.to_string());
    Status::from(refusal).into_http()
}
