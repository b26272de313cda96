//! A gRPC service on a port of its own, with reflection or without, that does as it is told.
//!
//! It is `grpc.health.v1.Health`, because its contract is there for every crate: `Check` answers, fails or waits as the
//! name that it is asked about says, `Watch` streams three states.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, stream};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Which reflection is offered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reflection {
    V1,
    V1Alpha,
    None,
}

/// A running service.
pub struct Service {
    pub address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct State {
    calls: AtomicUsize,
    waiting: AtomicUsize,
}

impl Service {
    pub async fn start(reflection: Reflection) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let told = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let v1 = (reflection == Reflection::V1).then(|| told().build_v1().unwrap());
        let v1alpha = (reflection == Reflection::V1Alpha).then(|| told().build_v1alpha().unwrap());
        let service = HealthServer::new(Puppet(Arc::clone(&state)));
        let router = tonic::transport::Server::builder()
            .add_service(service)
            .add_optional_service(v1)
            .add_optional_service(v1alpha);
        let mut server = JoinSet::new();
        server.spawn(async move {
            router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            state,
            _server: server,
        }
    }

    /// How often it was asked.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// How many calls wait now. One whose caller has left is not among them.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::SeqCst)
    }
}

struct Puppet(Arc<State>);

/// Counts as long as it is there.
struct Waiting(Arc<State>);

impl Waiting {
    fn new(state: &Arc<State>) -> Self {
        state.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

fn is(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for Puppet {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let header = |name: &str| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or("none").to_owned()
        };
        match request.get_ref().service.as_str() {
            "unknown" => Err(Status::not_found("no service 'unknown'")),
            "secret" if header("authorization") != "Bearer t0ken-of-the-test" => Err(
                Status::unauthenticated(format!("who is '{}'?", header("authorization"))),
            ),
            "key" => Err(Status::failed_precondition(header("muster-step-key"))),
            "slow" => {
                let _waiting = Waiting::new(&self.0);
                std::future::pending().await
            }
            _ => Ok(Response::new(is(ServingStatus::Serving))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        if request.get_ref().service == "endless" {
            return Ok(Response::new(Box::pin(stream::repeat_with(|| {
                Ok(is(ServingStatus::Serving))
            }))));
        }
        let states = [
            ServingStatus::Unknown,
            ServingStatus::Serving,
            ServingStatus::NotServing,
        ];
        Ok(Response::new(Box::pin(stream::iter(
            states.map(|status| Ok(is(status))),
        ))))
    }
}
