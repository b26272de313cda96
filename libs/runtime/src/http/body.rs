//! Bodies on their way through the chassis: requests' bounded, answers' watched.
//!
//! A gRPC status comes after the messages, so a gRPC answer is counted when its stream ends: with its code, as 500
//! when it ended without one, as 499 when the client left before. A body that panics ends with INTERNAL for gRPC
//! and as a broken answer for HTTP, whose head was sent; its connection lives.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::HeaderMap;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, SizeHint};
use muster_api::error::{Error, Reason};
use tokio::time::Sleep;
use tonic::{Code, Status};

use super::answers;
use crate::metrics::Metrics;
use crate::tasks::panic_message;

/// Whether a body turned out larger than its limit.
#[derive(Clone, Default)]
pub(super) struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The request with a body that fails after `limit` bytes, however it is read.
pub(super) fn limited(request: Request, limit: usize) -> (Request, Exceeded) {
    let exceeded = Exceeded::default();
    let told = exceeded.clone();
    let request = request.map(|body| {
        Body::new(Limited::new(body, limit).map_err(move |error| {
            if error.is::<LengthLimitError>() {
                told.0.store(true, Ordering::Release);
            }
            error
        }))
    });
    (request, exceeded)
}

/// The request with a body that fails when it has not come in within `limit`. The error is a [`Status`], which gRPC services
/// answer with as it is; others find it among the error's sources.
///
/// A stream of requests is a body, too. Of the services here only gRPC's reflection has one.
pub(super) fn timed(request: Request, limit: Duration) -> Request {
    request.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Timed {
            body,
            limit,
            end: None,
        })
    })
}

/// A request's body with an end. The timer starts when the body is first waited for: most come with their heads.
struct Timed {
    body: Body,
    limit: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let ready @ Poll::Ready(_) = Pin::new(&mut this.body).poll_frame(context) {
            return ready;
        }
        let limit = this.limit;
        let end = this
            .end
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Some(Err(axum::Error::new(too_slow(limit)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_slow(limit: Duration) -> Status {
    let message = format!(
        "the request did not come in within {} s; send it faster, or raise `server.body_timeout_seconds`",
        limit.as_secs()
    );
    Error::new(Reason::DeadlineExceeded, message).into()
}

/// One request that is still to be counted.
pub(super) struct Count {
    metrics: Metrics,
    method: &'static str,
    endpoint: String,
}

impl Count {
    pub(super) fn new(metrics: Metrics, method: &'static str, endpoint: String) -> Self {
        Self {
            metrics,
            method,
            endpoint,
        }
    }

    pub(super) fn add(self, status: u16) {
        let counter = self.metrics.counter(
            "http_requests_total",
            &[
                ("method", self.method.to_owned()),
                ("endpoint", self.endpoint),
                ("status_code", status.to_string()),
            ],
        );
        counter.increment(1);
    }
}

/// The HTTP status of the gRPC status in these headers or trailers.
pub(super) fn status_of(headers: &HeaderMap) -> Option<u16> {
    // Not `Status::from_header_map`: it panics at details that are no Base64.
    let code = headers.get(answers::GRPC_STATUS)?;
    Some(http_status(Code::from_bytes(code.as_bytes())))
}

/// As `google.rpc.Code` names them.
pub(crate) fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => CLIENT_LEFT,
        Code::Unknown | Code::Internal | Code::DataLoss => NO_STATUS,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    }
}

const CLIENT_LEFT: u16 = 499;
const NO_STATUS: u16 = 500;

/// An answer's body.
pub(super) struct Watched {
    /// Nothing after a panic: what panicked is not asked again.
    body: Option<Body>,
    endpoint: String,
    grpc: bool,
    /// A gRPC request whose status is still to come.
    count: Option<Count>,
}

impl Watched {
    pub(super) fn new(body: Body, endpoint: String, grpc: bool, count: Option<Count>) -> Self {
        Self {
            body: Some(body),
            endpoint,
            grpc,
            count,
        }
    }

    fn ends_with(&mut self, status: u16) {
        if let Some(count) = self.count.take() {
            count.add(status);
        }
    }

    fn panicked(&mut self, panic: &(dyn std::any::Any + Send)) -> Result<Frame<Bytes>, axum::Error> {
        let reason = panic_message(panic);
        tracing::error!(endpoint = self.endpoint, reason, "an answer's body panicked");
        self.body = None;
        self.ends_with(NO_STATUS);
        if self.grpc {
            Ok(Frame::trailers(answers::panicked_trailers()))
        } else {
            Err(axum::Error::new("the answer's body panicked"))
        }
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Some(body) = this.body.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = match catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(context))) {
            Ok(polled) => polled,
            Err(panic) => Poll::Ready(Some(this.panicked(panic.as_ref()))),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.ends_with(status_of(trailers).unwrap_or(NO_STATUS));
                }
            }
            Poll::Ready(Some(Err(_)) | None) => this.ends_with(NO_STATUS),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let ended = self.is_end_stream();
        self.ends_with(if ended { NO_STATUS } else { CLIENT_LEFT });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(metrics: &Metrics, body: Body) -> Watched {
        let count = Count::new(metrics.clone(), "POST", "/p.S/M".to_owned());
        Watched::new(body, "/p.S/M".to_owned(), true, Some(count))
    }

    fn one(status: u16) -> String {
        format!(r#"http_requests_total{{method="POST",endpoint="/p.S/M",status_code="{status}"}} 1"#)
    }

    #[tokio::test]
    async fn a_grpc_answer_counts_once_with_what_ended_it() {
        let metrics = Metrics::new(&[]).unwrap();
        let trailers = HeaderMap::from_iter([(
            answers::GRPC_STATUS,
            http::HeaderValue::from(Code::NotFound as i32),
        )]);
        let frames = [
            Ok::<_, axum::Error>(Frame::data(Bytes::from("x"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames)));
        drop(counted(&metrics, body).collect().await.unwrap());
        drop(counted(
            &metrics,
            Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>()),
        ));
        drop(counted(&metrics, Body::from("x")).collect().await.unwrap());
        let text = metrics.render();
        for status in [404, 499, 500] {
            assert!(text.contains(&one(status)), "{status}: {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_fails_with_a_status_and_one_in_time_does_not() {
        let slow = |pause| {
            let parts = futures::stream::unfold(0, move |part| async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                (part < 5).then(|| (Ok::<_, axum::Error>(Bytes::from("x")), part + 1))
            });
            let request = Request::new(Body::from_stream(parts));
            axum::body::to_bytes(timed(request, Duration::from_secs(10)).into_body(), 100)
        };
        assert_eq!(slow(1).await.unwrap(), "xxxxx");
        let error = slow(3).await.unwrap_err();
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        let status = std::iter::from_fn(|| {
            let error = source?;
            source = error.source();
            Some(error)
        })
        .find_map(|error| error.downcast_ref::<Status>())
        .unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_panic_ends_a_grpc_answer_with_internal_and_breaks_an_http_one() {
        let panicking = || {
            Body::from_stream(futures::stream::poll_fn(
                |_| -> Poll<Option<Result<Bytes, axum::Error>>> {
                    assert!(!std::hint::black_box(true), "on purpose");
                    Poll::Ready(None)
                },
            ))
        };
        let metrics = Metrics::new(&[]).unwrap();
        let answer = counted(&metrics, panicking()).collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()[answers::GRPC_STATUS], "13");
        assert!(metrics.render().contains(&one(500)));
        let broken = Watched::new(panicking(), "/x".to_owned(), false, None)
            .collect()
            .await;
        assert!(broken.unwrap_err().to_string().contains("panicked"));
    }
}
