//! What a service offers on its data port: gRPC services, their RPCs over plain HTTP by the contract's
//! `google.api.http` rules, and HTTP routes of its own, which go before the rules.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tower::{Service, ServiceExt as _};

/// A gRPC service whose type is forgotten.
pub(crate) type Grpc =
    Arc<dyn Fn(http::Request<Body>) -> Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync>;

/// gRPC services and HTTP routes, with the contract for reflection.
pub struct Surface {
    pub(crate) descriptor_set: &'static [u8],
    pub(crate) services: Vec<&'static str>,
    pub(crate) is_behind_router: bool,
    direct: Vec<(&'static str, Grpc)>,
    routes: RoutesBuilder,
    http: Router,
}

impl Surface {
    /// Nothing yet; `descriptor_set` is the encoded `FileDescriptorSet` for reflection.
    #[must_use]
    pub fn new(descriptor_set: &'static [u8]) -> Self {
        Self {
            descriptor_set,
            services: Vec::new(),
            is_behind_router: false,
            direct: Vec::new(),
            routes: Routes::builder(),
            http: Router::new(),
        }
    }

    /// Adds a gRPC service; `grpc.health.v1` knows it by its name. It bounds its messages itself, with
    /// `max_decoding_message_size`.
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME);
        let direct = service.clone();
        let direct = move |request| -> Pin<Box<dyn Future<Output = Response> + Send>> {
            let answer = direct.clone().oneshot(request);
            Box::pin(async move {
                let answer = answer.await.unwrap_or_else(|never| match never {});
                answer.into_response()
            })
        };
        self.direct.push((S::NAME, Arc::new(direct)));
        self.routes.add_service(service);
        self
    }

    /// Takes calls that come through the router alone, and those of admins: for what does not tell its callers apart.
    #[must_use]
    pub const fn behind_router(mut self) -> Self {
        self.is_behind_router = true;
        self
    }

    /// Adds HTTP routes; they must not set a fallback. Their bodies are bounded by
    /// [`max_body_bytes`](crate::server::Config::max_body_bytes), whichever way a handler reads them.
    #[must_use]
    pub fn http(mut self, routes: Router) -> Self {
        self.http = self.http.merge(routes);
        self
    }

    /// The gRPC services as routes, the HTTP routes, and the gRPC services by name.
    pub(crate) fn into_parts(self) -> (RoutesBuilder, Router, Vec<(&'static str, Grpc)>) {
        (self.routes, self.http, self.direct)
    }
}
