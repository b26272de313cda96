//! Which adapter carries a request out.

use async_trait::async_trait;
use muster_workflow_dsl::request::Request;
use serde_json::Value;

use super::router::Router;
use super::{Call, Caller, Failure, Progress};

/// All adapters.
pub struct Callers {
    /// Agents of the fleet.
    pub router: Router,
}

#[async_trait]
impl Caller for Callers {
    async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure> {
        match &*call.request {
            Request::A2a(request) => self.router.call(request, call, progress).await,
        }
    }

    async fn stop(&self, call: &Call, progress: &Progress) -> Result<(), Failure> {
        match &*call.request {
            Request::A2a(request) => self.router.stop(request, progress).await,
        }
    }
}
