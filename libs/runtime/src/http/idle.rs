//! Connections on which nothing is asked: after a time they are closed, so that whoever opens many and uses none does not keep the
//! places of others.
//!
//! hyper closes a connection of HTTP/1 that brings no next head in time. One of HTTP/2 it keeps for ever, as long as pings are
//! answered. So requests are counted, from their heads to the ends of their answers' bodies, and a connection that had none for
//! the whole time is told to end (GOAWAY): what its client has sent meanwhile is still answered.
//!
//! Rejected: a timer that each request resets (two locks of the timer for each request), and looking at the bytes that pass (pings
//! are bytes, too). What is looked at is a counter, now and then, so that a connection ends after at most twice the time.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Activity {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Request(Arc::clone(self))
    }

    /// Whether there has been any.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Ends once there was no request for `limit`.
    async fn idle(&self, limit: Duration) {
        let mut seen = None;
        loop {
            // Whatever has ended had begun.
            let ended = self.ended.load(Ordering::Acquire);
            let begun = self.begun.load(Ordering::Acquire);
            if seen == Some(begun) && begun == ended {
                return;
            }
            seen = (begun == ended).then_some(begun);
            tokio::time::sleep(limit).await;
        }
    }
}

/// A request that is under way; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Request(Arc<Activity>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// The body of an answer, with which its request ends.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _request: Request,
}

impl<B> Answer<B> {
    pub(super) const fn new(body: B, request: Request) -> Self {
        Self {
            body,
            _request: request,
        }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves a connection to its end. It is told to end when it had no request for `limit`, or once `stop` ends.
pub(super) async fn serve<C: GracefulConnection>(
    connection: C,
    activity: &Activity,
    limit: Duration,
    stop: impl Future<Output = ()>,
) -> C::Output {
    let graceful = GracefulShutdown::new();
    let mut served = pin!(graceful.watch(connection));
    tokio::select! {
        outcome = &mut served => return outcome,
        () = activity.idle(limit) => {}
        () = stop => {}
    }
    // It waits for the connection to be dropped, which it is when this returns.
    let telling = async {
        graceful.shutdown().await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        outcome = served => outcome,
        never = telling => match never {},
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_without_requests_is_idle() {
        let (activity, limit) = (Arc::new(Activity::default()), Duration::from_secs(60));
        let started = tokio::time::Instant::now();
        activity.idle(limit).await;
        assert_eq!(started.elapsed(), limit);
        let request = activity.begin();
        let mut idle = pin!(activity.idle(limit));
        for _ in 0..10 {
            tokio::time::advance(limit).await;
            assert!(idle.as_mut().now_or_never().is_none(), "a long stream");
        }
        drop(request);
        for _ in 0..10 {
            tokio::time::advance(limit).await;
            drop(activity.begin());
            assert!(idle.as_mut().now_or_never().is_none(), "requests now and then");
        }
        idle.await;
    }
}
