//! Clients of the three services.

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::workflow::approval_service_client::ApprovalServiceClient;
use muster_api::workflow::schedule_service_client::ScheduleServiceClient;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::failure::Failure;

/// Largest answer the command line takes: a chart or a large output, not a flood.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Where the services answer.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// URL of the registry.
    pub registry: String,
    /// URL of the router.
    pub router: String,
    /// URL of the workflow engine.
    pub engine: String,
}

/// Which service a call went to, for the error when it fails.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// The registry.
    Registry,
    /// The router.
    Router,
    /// The workflow engine.
    Engine,
}

impl Endpoints {
    /// A client of the registry.
    pub fn registry(&self) -> Result<RegistryServiceClient<Channel>, Failure> {
        Ok(RegistryServiceClient::new(channel(&self.registry)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the router's controls.
    pub fn router(&self) -> Result<RouterServiceClient<Channel>, Failure> {
        Ok(RouterServiceClient::new(channel(&self.router)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the agents, through the router.
    pub fn agents(&self) -> Result<muster_a2a::grpc::Client, Failure> {
        Ok(muster_a2a::grpc::client(channel(&self.router)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the workflow engine.
    pub fn engine(&self) -> Result<WorkflowServiceClient<Channel>, Failure> {
        Ok(WorkflowServiceClient::new(channel(&self.engine)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the workflow engine's approvals.
    pub fn approvals(&self) -> Result<ApprovalServiceClient<Channel>, Failure> {
        Ok(ApprovalServiceClient::new(channel(&self.engine)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the workflow engine's schedules.
    pub fn schedules(&self) -> Result<ScheduleServiceClient<Channel>, Failure> {
        Ok(ScheduleServiceClient::new(channel(&self.engine)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// Turns a failed call to `service` into the command's failure.
    pub fn failure(&self, service: Service, status: &Status) -> Failure {
        let (name, url) = match service {
            Service::Registry => ("registry", &self.registry),
            Service::Router => ("router", &self.router),
            Service::Engine => ("engine", &self.engine),
        };
        Failure::from_status(name, url, status)
    }
}

/// A lazy channel to `url`.
pub fn channel(url: &str) -> Result<Channel, Failure> {
    let endpoint = muster_rpc::endpoint::parse(url).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(muster_rpc::channel::connect_lazy(&endpoint))
}

/// Whether the service at `url` says of itself, by `grpc.health.v1`, that it can do its work.
pub async fn is_serving(url: &str) -> bool {
    let Ok(channel) = channel(url) else { return false };
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}
