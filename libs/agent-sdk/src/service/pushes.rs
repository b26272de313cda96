//! Push configurations: the one that comes with a message, and the operations on those of a task.

use a2a_pb::proto as pb;
use muster_a2a::{Answer, ProtocolError};
use tonic::Status;
use uuid::Uuid;

use super::Desk;
use super::checks::{check_task_id, invalid};
use crate::tasks::record::Push;
use crate::tasks::whose::Own;
use crate::{Agent, pages};

impl<A: Agent> Desk<A> {
    /// The push configuration that comes with a message.
    pub(super) fn push_of(&self, request: &pb::SendMessageRequest) -> Result<Option<Push>, Box<Status>> {
        let config = request
            .configuration
            .as_ref()
            .and_then(|configuration| configuration.task_push_notification_config.as_ref());
        let Some(config) = config else { return Ok(None) };
        if !self.pushes.are_allowed() {
            return Err(no_push());
        }
        let task = request
            .message
            .as_ref()
            .map_or("", |message| message.task_id.as_str());
        let config = self.checked_push(config, task, "configuration.task_push_notification_config.")?;
        Ok(Some(Push {
            config: Some(config),
            owed: false,
        }))
    }

    /// Refuses operations on configurations where nothing may be pushed, and those that name no task.
    pub(super) fn check_push(&self, task: &str) -> Result<(), Box<Status>> {
        if self.pushes.are_allowed() {
            check_task_id("task_id", task)
        } else {
            Err(no_push())
        }
    }

    /// A configuration that can be kept, with an id.
    pub(super) fn checked_push(
        &self,
        config: &pb::TaskPushNotificationConfig,
        task: &str,
        path: &str,
    ) -> Result<pb::TaskPushNotificationConfig, Box<Status>> {
        self.pushes
            .check(config)
            .map_err(|(field, message)| invalid(&format!("{path}{field}"), message))?;
        let id = if config.id.is_empty() {
            Uuid::now_v7().to_string()
        } else {
            config.id.clone()
        };
        Ok(pb::TaskPushNotificationConfig {
            tenant: String::new(),
            id,
            task_id: task.to_owned(),
            ..config.clone()
        })
    }

    pub(super) async fn create_push(
        &self,
        own: Own<'_>,
        config: &pb::TaskPushNotificationConfig,
    ) -> Result<Answer, Status> {
        let task = config.task_id.as_str();
        own.pushes(task).await?;
        let config = self.checked_push(config, task, "").map_err(|status| *status)?;
        own.put_push(task, config.clone()).await?;
        Ok(Answer::PushConfig(config))
    }

    pub(super) async fn get_push(
        own: Own<'_>,
        request: &pb::GetTaskPushNotificationConfigRequest,
    ) -> Result<Answer, Status> {
        let configs = own.pushes(&request.task_id).await?;
        let config = configs.into_iter().find(|config| config.id == request.id);
        config.map(Answer::PushConfig).ok_or_else(|| {
            let shown: String = request.id.chars().take(64).collect();
            ProtocolError::TaskNotFound.status(format!(
                "task '{}' has no push configuration '{shown}'",
                request.task_id
            ))
        })
    }

    pub(super) async fn list_pushes(
        own: Own<'_>,
        request: &pb::ListTaskPushNotificationConfigsRequest,
    ) -> Result<Answer, Status> {
        let page = pages::Page::read(request).map_err(|status| *status)?;
        let configs = own.pushes(&request.task_id).await?;
        Ok(Answer::PushConfigs(page.of(configs)))
    }
}

fn no_push() -> Box<Status> {
    Box::new(
        ProtocolError::PushNotificationNotSupported
            .status("this agent pushes nothing; its operator allows no address (`agent.outbound.allow`)"),
    )
}
