//! Methods whose answer is passed on as it is: one message out, one back.

use a2a_pb::protojson;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{
    CancelTaskRequest, DeleteTaskPushNotificationConfigRequest, GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest, GetTaskRequest, ListTaskPushNotificationConfigsRequest,
    ListTasksRequest, TaskPushNotificationConfig,
};
use muster_rpc::deadline::Deadline;
use muster_runtime::trust::identity::Channel;
use muster_workflow_dsl::document::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::{Addressed, Outcome, Router};
use crate::caller::{Failure, Kind, Progress, answer};

/// A request that names a tenant.
trait Tenanted: prost::Message + Default + Clone {
    /// Its ProtoJSON twin.
    type Json: DeserializeOwned + prost::Message;

    fn set_tenant(&mut self, tenant: String);
}

macro_rules! tenanted {
    ($($request:ident),+ $(,)?) => {
        $(impl Tenanted for $request {
            type Json = protojson::$request;

            fn set_tenant(&mut self, tenant: String) {
                self.tenant = tenant;
            }
        })+
    };
}

tenanted!(
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    TaskPushNotificationConfig,
);

/// The call under way.
struct Asking<'a> {
    router: &'a Router,
    call: &'a Addressed<'a>,
    progress: &'a Progress,
    deadline: Deadline,
}

impl Asking<'_> {
    async fn ask<T: Tenanted, Answer, F>(
        &self,
        send: impl Fn(A2aServiceClient<Channel>, Request<T>) -> F,
        convert: impl Fn(&Answer) -> Result<Value, Failure>,
    ) -> Result<Value, Outcome>
    where
        F: Future<Output = Result<Response<Answer>, Status>>,
    {
        let mut message = answer::request::<T::Json, T>(self.call.parameters)?;
        message.set_tenant(self.call.target.clone());
        let answer = self
            .router
            .patiently(self.progress, self.deadline, || {
                let request = self.router.request(message.clone(), self.call, self.deadline);
                send(self.router.client.clone(), request)
            })
            .await?;
        Ok(convert(answer.get_ref())?)
    }
}

impl Router {
    /// Makes the call; for methods that neither send a message nor stream.
    pub(super) async fn plain(
        &self,
        method: Method,
        call: &Addressed<'_>,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Outcome> {
        let asking = Asking {
            router: self,
            call,
            progress,
            deadline,
        };
        let config = answer::json::<protojson::TaskPushNotificationConfig>;
        match method {
            Method::GetTask => {
                let send = |mut client: A2aServiceClient<_>, request: Request<GetTaskRequest>| async move {
                    client.get_task(request).await
                };
                asking.ask(send, answer::any_task).await
            }
            Method::CancelTask => {
                let send = |mut client: A2aServiceClient<_>, request: Request<CancelTaskRequest>| async move {
                    client.cancel_task(request).await
                };
                asking.ask(send, answer::any_task).await
            }
            Method::ListTasks => {
                let send = |mut client: A2aServiceClient<_>, request: Request<ListTasksRequest>| async move {
                    client.list_tasks(request).await
                };
                asking.ask(send, answer::list).await
            }
            Method::CreateTaskPushNotificationConfig => {
                let send = |mut client: A2aServiceClient<_>, request: Request<_>| async move {
                    client.create_task_push_notification_config(request).await
                };
                asking.ask(send, config).await
            }
            Method::GetTaskPushNotificationConfig => {
                let send = |mut client: A2aServiceClient<_>, request: Request<_>| async move {
                    client.get_task_push_notification_config(request).await
                };
                asking.ask(send, config).await
            }
            Method::ListTaskPushNotificationConfigs => {
                let send = |mut client: A2aServiceClient<_>, request: Request<_>| async move {
                    client.list_task_push_notification_configs(request).await
                };
                let list = answer::json::<protojson::ListTaskPushNotificationConfigsResponse>;
                asking.ask(send, list).await
            }
            Method::DeleteTaskPushNotificationConfig => {
                let send = |mut client: A2aServiceClient<_>, request: Request<_>| async move {
                    client.delete_task_push_notification_config(request).await
                };
                asking.ask(send, |()| Ok(json!({}))).await
            }
            Method::GetExtendedAgentCard => {
                let send = |mut client: A2aServiceClient<_>, request: Request<_>| async move {
                    client.get_extended_agent_card(request).await
                };
                let card = answer::json::<protojson::AgentCard>;
                asking.ask(send, card).await
            }
            Method::SendMessage | Method::SendStreamingMessage | Method::SubscribeToTask => {
                let detail = format!("{} is not carried out here", method.name());
                Err(Failure::new(Kind::Runtime, 500, detail))?
            }
        }
    }
}
