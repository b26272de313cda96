//! One message to every agent that has a skill, and what each of them says.
//!
//! Each agent gets it once, at the instance that the router would choose for any message to it. The answers are gathered until
//! the last has come or the time is up: who has not answered by then has failed, and the others' answers are there. Nothing is
//! kept; a broadcast that is sent again within the window of answered messages ([`crate::deduplication`]) gets the answers that
//! were given, and asks those again who failed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use muster_api::extension::SKILL_METADATA;
use muster_rpc::deadline::Deadline;
use muster_runtime::trust::Access;
use tonic::Status;

use super::entry::Failure;
use super::{Error, Inbox, outcome};
use crate::call::{self, Call};
use crate::message;
use crate::metrics::Binding;
use crate::peek::Sent;
use crate::routing::Routing;
use crate::target::Target;

/// Agents of one broadcast that are asked at once.
const AT_ONCE: usize = 32;

/// What one agent said.
#[derive(Debug, Clone)]
pub struct Said {
    /// The agent.
    pub agent: String,
    /// Which instance, and its answer, encoded; or why there is none.
    pub outcome: Result<(String, Bytes), Failure>,
}

impl Inbox {
    /// Sends a message to every agent that has a skill, and waits for their answers, at most that long; by agent.
    ///
    /// # Errors
    /// Names the field at fault; nobody ever had the skill, or too many have it.
    pub async fn broadcast(
        &self,
        skill: &str,
        request: Bytes,
        timeout: Option<Duration>,
        headers: &HeaderMap,
        access: &Access,
    ) -> Result<Vec<Said>, Error> {
        let parts = self.forwarder.parts();
        let sent = Sent::read(request).map_err(crate::error::Error::from)?;
        let message = message::check(&sent, parts.limits.message_bytes)?;
        if !message.task_id.is_empty() {
            let why = "names a task, which one agent has; a broadcast begins new ones";
            return Err(Error::field("message.taskId", why));
        }
        if skill.is_empty() {
            return Err(Error::field(
                "skill",
                "is empty; name the skill whose agents are meant",
            ));
        }
        let target = Target::parse(&format!("skill:{skill}"), "skill")?;
        // Of those who have the skill each is called by its id, for which a grant of the skill is enough.
        let refused = |refusal| crate::error::Error::Refused(Box::new(refusal));
        let namespace = parts.view.read().namespace().to_owned();
        access.namespace(&namespace).map_err(refused)?;
        access.target(&target.to_string()).map_err(refused)?;
        let routing = sent.routing.as_deref();
        let mut routing = routing.map_or_else(|| Ok(Routing::default()), Routing::decode)?;
        if !routing.skills.iter().any(|one| one == skill) {
            routing.skills.push(skill.to_owned());
        }
        let serving = parts.view.read().serving(Some(&target), &routing.skills)?;
        let agents: BTreeSet<String> = serving.iter().map(|instance| instance.id.agent.clone()).collect();
        let most = self.limits.broadcast_agents;
        if agents.len() > most {
            return Err(Error::TooManyAgents {
                skill: skill.to_owned(),
                agents: agents.len(),
                most,
            });
        }
        self.totals.broadcasts.fetch_add(1, Ordering::Relaxed);
        self.totals
            .matched
            .fetch_add(agents.len() as u64, Ordering::Relaxed);
        parts.meters.broadcast(agents.len());

        let now = parts.clock.monotonic();
        let allowed = timeout.unwrap_or(parts.limits.default_deadline);
        let deadline = Deadline::after(now, allowed.min(parts.limits.most_deadline));
        let mut passed_on = call::passed_on(headers);
        // The call is for an agent, which hears in this way which of its skills is meant.
        if let Ok(value) = HeaderValue::from_str(skill) {
            passed_on.insert(HeaderName::from_static(SKILL_METADATA), value);
        }
        let calls = agents.into_iter().map(|agent| {
            let call = Call {
                caller: access.caller().key().as_ref().to_owned(),
                access: access.beyond_grants(),
                target: Some(Target::Agent(agent.clone())),
                received: now,
                deadline: Some(deadline),
                routing: routing.clone(),
                passed_on: passed_on.clone(),
            };
            self.ask(agent, call, sent.clone())
        });
        let mut said: Vec<Said> = stream::iter(calls).buffered(AT_ONCE).collect().await;
        bound(&mut said, parts.limits.answer_bytes);
        Ok(said)
    }

    async fn ask(&self, agent: String, call: Call, sent: Sent) -> Said {
        let meters = &self.forwarder.parts().meters;
        meters.received();
        let outcome = self.forwarder.send(call, sent).await;
        meters.called(Binding::Broadcast, &agent, outcome.is_ok());
        let outcome = match outcome {
            Ok(reply) => {
                meters.outcome(Binding::Broadcast, None);
                Ok((reply.instance.instance.clone(), reply.message))
            }
            Err(error) => {
                let status = Status::from(error);
                meters.outcome(Binding::Broadcast, Some(status.code()));
                Err(outcome::failure(&status))
            }
        };
        Said { agent, outcome }
    }
}

/// Leaves out the answers after which all together are too large.
fn bound(said: &mut [Said], most: usize) {
    let mut bytes = 0_usize;
    for one in said {
        if let Ok((_, answer)) = &one.outcome {
            bytes = bytes.saturating_add(answer.len());
            if bytes > most {
                let message = format!(
                    "it answered, but all answers together are larger than {most} bytes; ask it alone, or read its task"
                );
                one.outcome = Err(Failure::new("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", &message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_together() {
        let answered = |agent: &str| Said {
            agent: agent.to_owned(),
            outcome: Ok((String::new(), Bytes::from_static(b"12345"))),
        };
        let mut said = vec![answered("a"), answered("b"), answered("c")];
        bound(&mut said, 10);
        let ok: Vec<bool> = said.iter().map(|one| one.outcome.is_ok()).collect();
        assert_eq!(ok, [true, true, false]);
    }
}
