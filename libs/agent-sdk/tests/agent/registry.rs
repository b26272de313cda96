//! A registry that does as the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::stream::BoxStream;
use jiff::SignedDuration;
use muster_api::error::{Error, Reason};
use muster_api::registry::registry_service_server::{RegistryService, RegistryServiceServer};
use muster_api::registry::{
    DeregisterRequest, DeregisterResponse, DiscoverRequest, DiscoverResponse, DrainRequest, DrainResponse,
    ForgetManagedAgentRequest, ForgetManagedAgentResponse, GetAgentRequest, GetAgentResponse,
    GetStatisticsRequest, GetStatisticsResponse, HeartbeatRequest, HeartbeatResponse, Instance, Lease,
    ListAgentsRequest, ListAgentsResponse, ListManagedAgentsRequest, ListManagedAgentsResponse,
    RegisterByCardRequest, RegisterByCardResponse, RegisterRequest, RegisterResponse, WatchAgentsRequest,
    WatchAgentsResponse,
};
use muster_api::time::duration_to_proto;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What the registry has seen and is to do; clones share it.
#[derive(Clone, Default)]
pub struct Script {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    lease: Mutex<Option<String>>,
    registered: Mutex<Vec<Instance>>,
    heartbeats: Mutex<Vec<HeartbeatRequest>>,
    deregistered: AtomicU64,
    drains: AtomicBool,
    refuses: AtomicBool,
}

/// A registry that listens; dropping it ends it.
pub struct FakeRegistry {
    pub address: SocketAddr,
    served: JoinSet<()>,
}

impl FakeRegistry {
    pub async fn start(script: &Script) -> Self {
        Self::start_at(script, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(script: &Script, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = RegistryServiceServer::new(script.clone());
        let mut served = JoinSet::new();
        served.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, served }
    }
}

impl FakeRegistry {
    /// Ends it; its port is free afterwards.
    pub async fn stop(mut self) {
        self.served.shutdown().await;
    }
}

impl Script {
    /// Forgets the lease, as after its end or a restart.
    pub fn forget(&self) {
        *self.inner.lease.lock() = None;
    }

    pub fn drain(&self) {
        self.inner.drains.store(true, Ordering::SeqCst);
    }

    pub fn refuse(&self, refuses: bool) {
        self.inner.refuses.store(refuses, Ordering::SeqCst);
    }

    pub fn registered(&self) -> Vec<Instance> {
        self.inner.registered.lock().clone()
    }

    pub fn heartbeats(&self) -> Vec<HeartbeatRequest> {
        self.inner.heartbeats.lock().clone()
    }

    pub fn holds_a_lease(&self) -> bool {
        self.inner.lease.lock().is_some()
    }

    pub fn deregistered(&self) -> u64 {
        self.inner.deregistered.load(Ordering::SeqCst)
    }
}

fn lease(id: &str) -> Lease {
    Lease {
        lease_id: id.to_owned(),
        epoch: 1,
        time_to_live: Some(duration_to_proto(SignedDuration::from_secs(30))),
        heartbeat_interval: Some(duration_to_proto(SignedDuration::from_millis(50))),
    }
}

#[tonic::async_trait]
impl RegistryService for Script {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let instance = request.into_inner().instance.unwrap();
        if self.inner.refuses.load(Ordering::SeqCst) {
            return Err(Error::invalid_field("instance.endpoint", "is not reachable").into());
        }
        let id = {
            let mut registered = self.inner.registered.lock();
            registered.push(instance.clone());
            format!("lease-{}", registered.len())
        };
        *self.inner.lease.lock() = Some(id.clone());
        Ok(Response::new(RegisterResponse {
            instance: Some(instance),
            lease: Some(lease(&id)),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        if self.inner.lease.lock().as_deref() != Some(request.lease_id.as_str()) {
            return Err(Error::new(Reason::LeaseNotFound, "no such lease").into());
        }
        let id = request.lease_id.clone();
        self.inner.heartbeats.lock().push(request);
        Ok(Response::new(HeartbeatResponse {
            lease: Some(lease(&id)),
            drain_requested: self.inner.drains.load(Ordering::SeqCst),
        }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let mut lease = self.inner.lease.lock();
        if lease.as_deref() == Some(request.into_inner().lease_id.as_str()) {
            *lease = None;
            self.inner.deregistered.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Response::new(DeregisterResponse {}))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn discover(&self, _: Request<DiscoverRequest>) -> Result<Response<DiscoverResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn get_agent(&self, _: Request<GetAgentRequest>) -> Result<Response<GetAgentResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn get_statistics(
        &self,
        _: Request<GetStatisticsRequest>,
    ) -> Result<Response<GetStatisticsResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn register_by_card(
        &self,
        _: Request<RegisterByCardRequest>,
    ) -> Result<Response<RegisterByCardResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn list_managed_agents(
        &self,
        _: Request<ListManagedAgentsRequest>,
    ) -> Result<Response<ListManagedAgentsResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    async fn forget_managed_agent(
        &self,
        _: Request<ForgetManagedAgentRequest>,
    ) -> Result<Response<ForgetManagedAgentResponse>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }

    type WatchAgentsStream = BoxStream<'static, Result<WatchAgentsResponse, Status>>;

    async fn watch_agents(
        &self,
        _: Request<WatchAgentsRequest>,
    ) -> Result<Response<Self::WatchAgentsStream>, Status> {
        Err(Status::unimplemented("agents do not ask for this"))
    }
}
