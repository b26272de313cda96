//! A service of gRPC whose callers are charged for each request, as those of A2A are.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use muster_runtime::trust::Access;
use muster_runtime::trust::policy::{self, Need};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::forward::Forwarder;

/// See the module.
#[derive(Clone)]
pub struct Charged<S> {
    inner: S,
    forwarder: Arc<Forwarder>,
}

impl<S> Charged<S> {
    /// The service, whose callers are charged by this.
    #[must_use]
    pub const fn new(inner: S, forwarder: Arc<Forwarder>) -> Self {
        Self { inner, forwarder }
    }
}

/// Whether it is what agents do for those who have asked already, and were charged then: taking messages out, and what follows.
fn is_own_work(path: &str) -> bool {
    policy::of_method(path).is_some_and(|rule| rule.need == Need::Service)
}

impl<S: NamedService> NamedService for Charged<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Charged<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let forwarder = Arc::clone(&self.forwarder);
        let another = self.inner.clone();
        // The one that was found ready.
        let mut inner = std::mem::replace(&mut self.inner, another);
        Box::pin(async move {
            let access = Access::in_extensions(request.extensions());
            let charged = if is_own_work(request.uri().path()) {
                Ok(())
            } else {
                forwarder.charge(&access).await
            };
            match charged {
                Ok(()) => inner.call(request).await,
                Err(error) => Ok(Status::from(error).into_http()),
            }
        })
    }
}
