//! Who may take a call: whoever serves its target, or the owner of its task.

use super::Forwarder;
use crate::call::Call;
use crate::error::Error;
use crate::message;
use crate::operation::{About, Method};
use crate::peek::{self, Asked};
use crate::store::Owner;
use crate::target::Target;

/// Who may take a call.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Whoever serves the target and has the skills.
    Serving {
        /// Whom it is for.
        target: Option<Target>,
        /// What they must be able to do.
        skills: Vec<String>,
    },
    /// The instance that owns the task, or another of its agent when it is gone.
    Owner(Owner),
}

impl Scope {
    /// The scope in one line, for messages and keys.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Serving {
                target: Some(target), ..
            } => target.to_string(),
            Self::Serving { target: None, skills } => skills.join("+"),
            Self::Owner(owner) => owner.agent.clone(),
        }
    }
}

impl Forwarder {
    pub(super) async fn scope_of_message(
        &self,
        call: &Call,
        message: &peek::Message,
    ) -> Result<Scope, Error> {
        if message.task_id.is_empty() {
            self.scope_of_target(call)
        } else {
            self.owner(call, &message.task_id).await
        }
    }

    pub(super) async fn scope_of(&self, method: &Method, call: &Call, asked: &Asked) -> Result<Scope, Error> {
        match method.about {
            About::Task { field, .. } => {
                message::check_task_id(field, &asked.task)?;
                self.owner(call, &asked.task).await
            }
            About::Message | About::Target => self.scope_of_target(call),
        }
    }

    fn scope_of_target(&self, call: &Call) -> Result<Scope, Error> {
        if call.target.is_none() && call.routing.skills.is_empty() {
            return Err(Error::TargetMissing);
        }
        // Whom nobody knows is refused here, before it takes a place in the queue.
        self.parts
            .view
            .read()
            .check(call.target.as_ref(), &call.routing.skills)?;
        Ok(Scope::Serving {
            target: call.target.clone(),
            skills: call.routing.skills.clone(),
        })
    }

    /// The owner of a task. A task that no owner is known of may still be the target's, from before the router's
    /// memory or through another router, so that its instances are asked; without a target it is unknown. So are the
    /// instances of an agent whose instance that had the task is gone: it may be back under another id.
    pub(super) async fn owner(&self, call: &Call, task: &str) -> Result<Scope, Error> {
        let unknown = || Error::UnknownTask {
            task: task.to_owned(),
        };
        let (ownership, now) = (&self.parts.ownership, self.parts.clock.now());
        let mut owner = ownership.of(task, now).await?;
        if owner.as_ref().is_some_and(|owner| self.is_gone(owner)) {
            // Another router may have seen the task go to another instance.
            owner = ownership.of_now(task, now).await?;
        }
        match (owner, &call.target) {
            (Some(owner), Some(Target::Agent(agent))) if owner.agent != *agent => Err(unknown()),
            (Some(owner), _) if self.is_gone(&owner) => {
                let scope = Scope::Serving {
                    target: Some(Target::Agent(owner.agent.clone())),
                    skills: Vec::new(),
                };
                self.locate(call, scope, task).await
            }
            (Some(owner), _) => Ok(Scope::Owner(owner)),
            (None, Some(_)) => self.locate(call, self.scope_of_target(call)?, task).await,
            (None, None) => Err(unknown()),
        }
    }

    /// Whether the owner is gone, while several others of its agent are there.
    fn is_gone(&self, owner: &Owner) -> bool {
        let view = self.parts.view.read();
        let others = view.serving(Some(&Target::Agent(owner.agent.clone())), &[]);
        view.instance(&owner.key()).is_none() && others.is_ok_and(|others| others.len() > 1)
    }
}
