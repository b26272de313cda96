//! Which adapter carries a request out.

use std::sync::Arc;

use async_trait::async_trait;
use muster_workflow_dsl::document::Endpoint;
use muster_workflow_dsl::request::Request;
use muster_workflow_dsl::secret::has_marker;
use serde_json::Value;

use super::direct::Direct;
use super::emit::Emitter;
use super::grpc::Grpc;
use super::mcp::Mcp;
use super::process::Processes;
use super::router::Router;
use super::web::Web;
use super::{Call, Caller, Failure, Kind, Progress};

/// All adapters.
pub struct Callers {
    /// Agents of the fleet.
    pub router: Router,
    /// Agents by URL.
    pub direct: Direct,
    /// gRPC services.
    pub grpc: Grpc,
    /// MCP servers.
    pub mcp: Mcp,
    /// Services over HTTP.
    pub web: Arc<Web>,
    /// The log of events.
    pub emitter: Emitter,
    /// Processes of the operating system.
    pub processes: Processes,
}

#[async_trait]
impl Caller for Callers {
    async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure> {
        match &*call.request {
            Request::A2a(request) if has_marker(&request.parameters) => {
                // Agents keep what they are sent, and the router shows it.
                let detail =
                    "a secret does not go into a message to an agent; give the agent the secret itself";
                Err(Failure::new(Kind::Configuration, 400, detail))
            }
            Request::A2a(request) => match request.endpoint {
                Endpoint::Url(_) => self.direct.call(request, call, progress).await,
                Endpoint::Agent(_) | Endpoint::Skill(_) => self.router.call(request, call, progress).await,
            },
            Request::AsyncApi(request) => self.web.asyncapi(request, call, progress).await,
            Request::Grpc(request) => self.grpc.call(request, call, progress).await,
            Request::Http(request) => self.web.http(request, call, progress).await,
            Request::Mcp(request) => self.mcp.call(request, call, progress).await,
            Request::OpenApi(request) => self.web.openapi(request, call, progress).await,
            Request::Emit(request) => self.emitter.call(request, progress).await,
            Request::Process(request) => self.processes.call(request, call, progress).await,
            // Carried out by the engine itself.
            Request::Workflow(_) => Err(Failure::new(Kind::Runtime, 500, "a run is no call")),
        }
    }

    async fn stop(&self, call: &Call, progress: &Progress) -> Result<(), Failure> {
        match &*call.request {
            Request::A2a(request) => match request.endpoint {
                Endpoint::Url(_) => self.direct.stop(request, call, progress).await,
                Endpoint::Agent(_) | Endpoint::Skill(_) => self.router.stop(request, call, progress).await,
            },
            Request::Mcp(request) => self.mcp.stop(request, call, progress).await,
            // Whoever hangs up has said it.
            Request::AsyncApi(_) | Request::Grpc(_) | Request::Http(_) | Request::OpenApi(_) => Ok(()),
            // What is in the log stays there.
            Request::Emit(_) => Ok(()),
            Request::Process(request) => self.processes.stop(request, call).await,
            Request::Workflow(_) => Ok(()),
        }
    }
}
