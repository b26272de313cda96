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
use super::requests::{Count, Ending, Route};
use crate::tasks::panic_message;
use crate::trace::Span;

/// Whether a body, which others read, has gone over its limit.
#[derive(Clone, Default)]
pub(super) struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The request with a body that fails after `limit` bytes, however it is read.
pub(super) fn limited(request: Request, limit: usize) -> (Request, Exceeded) {
    let exceeded = Exceeded::default();
    let told = exceeded.clone();
    let request = request.map(|body| {
        Body::new(Limited::new(body, limit).map_err(move |error| {
            if error.is::<LengthLimitError>() {
                told.set();
            }
            error
        }))
    });
    (request, exceeded)
}

/// The request with a body that fails when it has not come in within `limit`. The error is a [`Status`], which gRPC services
/// answer with as it is; others find it among the error's sources. `told` hears of it.
///
/// A stream of requests is a body, too. Of the services here only gRPC's reflection has one.
pub(super) fn timed(request: Request, limit: Duration, told: Option<Exceeded>) -> Request {
    request.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Timed {
            body,
            limit,
            end: None,
            told,
        })
    })
}

/// A request's body with an end. The timer starts when the body is first waited for: most come with their heads.
struct Timed {
    body: Body,
    limit: Duration,
    end: Option<Pin<Box<Sleep>>>,
    told: Option<Exceeded>,
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
        if let Some(told) = &this.told {
            told.set();
        }
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

/// How a request ended whose gRPC status is in these headers or trailers.
pub(super) fn ending_of(headers: &HeaderMap) -> Option<Ending> {
    // Not `Status::from_header_map`: it panics at details that are no Base64.
    let code = Code::from_bytes(headers.get(answers::GRPC_STATUS)?.as_bytes());
    Some(Ending {
        status: http_status(code),
        code: Some(code),
    })
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

/// A gRPC answer without a status of its own.
const fn without_status(status: u16) -> Ending {
    let code = if status == CLIENT_LEFT {
        Code::Cancelled
    } else {
        Code::Unknown
    };
    Ending {
        status,
        code: Some(code),
    }
}

/// An answer's body.
pub(super) struct Watched {
    /// Nothing after a panic: what panicked is not asked again.
    body: Option<Body>,
    route: Arc<Route>,
    grpc: bool,
    later: Option<Later>,
}

/// What is still to be done when an answer has ended.
pub(super) enum Later {
    /// A gRPC request whose status is still to come is counted.
    Count(Count),
    /// The span of a request that was counted ends.
    Span(#[expect(dead_code, reason = "ends when it is dropped")] Span),
}

impl Watched {
    pub(super) fn new(body: Body, route: Arc<Route>, grpc: bool, later: Option<Later>) -> Self {
        Self {
            body: Some(body),
            route,
            grpc,
            later,
        }
    }

    fn ends_with(&mut self, ending: Ending) {
        if let Some(Later::Count(count)) = self.later.take() {
            let _span = count.add(ending);
        }
    }

    fn panicked(&mut self, panic: &(dyn std::any::Any + Send)) -> Result<Frame<Bytes>, axum::Error> {
        let reason = panic_message(panic);
        tracing::error!(
            endpoint = &*self.route.endpoint,
            reason,
            "an answer's body panicked"
        );
        self.body = None;
        self.ends_with(without_status(NO_STATUS));
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
                    this.ends_with(ending_of(trailers).unwrap_or(without_status(NO_STATUS)));
                }
            }
            Poll::Ready(Some(Err(_)) | None) => this.ends_with(without_status(NO_STATUS)),
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
        self.ends_with(without_status(if ended { NO_STATUS } else { CLIENT_LEFT }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::http::requests::Requests;
    use crate::metrics::Metrics;

    fn route(metrics: &Metrics) -> Arc<Route> {
        let clock = Arc::new(ManualClock::default());
        Requests::new(metrics.clone(), clock, "example").route("POST", "/p.S/M")
    }

    fn counted(metrics: &Metrics, body: Body) -> Watched {
        let route = route(metrics);
        let count = Count::new(Arc::clone(&route), Duration::ZERO, Span::default());
        Watched::new(body, route, true, Some(Later::Count(count)))
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
        for (kind, code) in [
            ("not_found", "NotFound"),
            ("cancelled", "Cancelled"),
            ("internal", "Unknown"),
        ] {
            let errors = format!(r#"errors_total{{error_type="{kind}",component="example"}} 1"#);
            let handled = format!(
                r#"grpc_server_handled_total{{grpc_service="p.S",grpc_method="M",grpc_code="{code}"}} 1"#
            );
            assert!(
                text.contains(&errors) && text.contains(&handled),
                "{kind}: {text}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_fails_with_a_status_and_one_in_time_does_not() {
        let late = Exceeded::default();
        let slow = |pause| {
            let parts = futures::stream::unfold(0, move |part| async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                (part < 5).then(|| (Ok::<_, axum::Error>(Bytes::from("x")), part + 1))
            });
            let request = Request::new(Body::from_stream(parts));
            let request = timed(request, Duration::from_secs(10), Some(late.clone()));
            axum::body::to_bytes(request.into_body(), 100)
        };
        assert_eq!(slow(1).await.unwrap(), "xxxxx");
        assert!(!late.get());
        let error = slow(3).await.unwrap_err();
        assert!(late.get());
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
        let broken = Watched::new(panicking(), route(&metrics), false, None)
            .collect()
            .await;
        assert!(broken.unwrap_err().to_string().contains("panicked"));
    }
}
