//! Who may take a call: whoever serves its target, or the owner of its task.

use muster_api::extension::SKILL_TARGET_PREFIX;
use muster_runtime::trust::Grants;

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
    /// The instance that owns the task, or another of its agent that shares its store; any other of its agent when it is gone.
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

/// Refuses a caller who has no grant for the target, for one of the skills that the agent must have, or for the namespace.
pub(crate) fn may_reach(call: &Call, namespace: &str) -> Result<(), Error> {
    let refused = |refusal| Error::Refused(Box::new(refusal));
    call.access.namespace(namespace).map_err(refused)?;
    if let Some(target) = &call.target {
        return call.access.target(&target.to_string()).map_err(refused);
    }
    for skill in &call.routing.skills {
        let target = format!("{SKILL_TARGET_PREFIX}{skill}");
        call.access.target(&target).map_err(refused)?;
    }
    Ok(())
}

impl Scope {
    /// On whose behalf the task was begun that the call is about.
    pub(super) fn begun_by(&self) -> Option<&str> {
        match self {
            Self::Serving { .. } => None,
            Self::Owner(owner) => owner.caller.as_deref(),
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
        may_reach(call, self.parts.view.read().namespace())?;
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
        let begun_by = owner.as_ref().and_then(|owner| owner.caller.clone());
        // Who may not see it hears what he would if there were none; and of what the router has not seen begin it knows
        // nobody whose it is.
        if !call.access.sees(begun_by.as_deref(), task) {
            return Err(unknown());
        }
        if owner.as_ref().is_some_and(|owner| !self.is_granted(call, owner)) {
            return Err(unknown());
        }
        let begun_by = begun_by.unwrap_or_else(|| call.caller.clone());
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
                self.locate(call, scope, task, &begun_by).await
            }
            (Some(owner), _) => Ok(Scope::Owner(owner)),
            (None, Some(_)) => {
                self.locate(call, self.scope_of_target(call)?, task, &begun_by)
                    .await
            }
            (None, None) => Err(unknown()),
        }
    }

    /// Whether a caller may reach the agent that has its task: by the agent's id, or by one of its skills, since the task may have
    /// begun by that. A caller may have tokens with different grants, and lose grants while its tasks go on. A refusal is in the
    /// audit log; the caller hears what it would if there were no such task.
    fn is_granted(&self, call: &Call, owner: &Owner) -> bool {
        let (access, agent) = (&call.access, owner.agent.as_str());
        let grants = &access.caller().grants;
        if access.sees_all() || *grants == Grants::default() {
            return true;
        }
        let view = self.parts.view.read();
        if access.namespace(view.namespace()).is_err() {
            return false;
        }
        let has_skill = |skill: &str| grants.reaches_target(&format!("{SKILL_TARGET_PREFIX}{skill}"));
        // Where an agent is not known, nobody is reached.
        let is_reached = view
            .skills_of(agent)
            .is_none_or(|mut skills| skills.any(has_skill));
        drop(view);
        is_reached || access.target(agent).is_ok()
    }

    /// Whether the owner is gone, while several others of its agent are there.
    fn is_gone(&self, owner: &Owner) -> bool {
        let view = self.parts.view.read();
        let others = view.serving(Some(&Target::Agent(owner.agent.clone())), &[]);
        view.instance(&owner.key()).is_none() && others.is_ok_and(|others| others.len() > 1)
    }
}
