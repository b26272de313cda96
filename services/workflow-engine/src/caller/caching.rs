//! Answers of calls that their document declares idempotent, kept for a while.
//!
//! Two calls are the same if they are of the same namespace and have the same request, with all its arguments evaluated. An
//! answer that is found is recorded like any other; it cost nothing, so its report of what it used is left out. Only good
//! ends are kept, and only what is not too large.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use muster_runtime::clock::SharedClock;
use muster_workflow_dsl::request::Request;
use muster_workflow_dsl::secret::has_marker;
use muster_workflow_dsl::usage;
use serde_json::Value;

use super::{Call, Caller, Failure, Progress};
use crate::store::Store;

/// Largest answer that is kept, as JSON in bytes.
const LARGEST: usize = 256 * 1024;

/// Which answer may stand for that of a call, and how long its own may stand for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What is asked, and for whom.
    pub key: String,
    /// How long.
    pub ttl: Duration,
}

impl Kept {
    /// The answers to this request of this namespace.
    #[must_use]
    pub fn new(namespace: &str, request: &Request, ttl: Duration) -> Option<Self> {
        let request = serde_json::to_string(request).ok()?;
        Some(Self {
            key: muster_workflow_dsl::digest(&format!("{namespace}\n{request}")),
            ttl,
        })
    }
}

/// Looks for an answer before it asks another caller for it.
pub struct Caching {
    /// Who is asked where no answer is kept.
    pub inner: Arc<dyn Caller>,
    /// Where answers are kept.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: SharedClock,
}

#[async_trait]
impl Caller for Caching {
    async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure> {
        let Some(kept) = &call.kept else {
            return self.inner.call(call, progress).await;
        };
        match self.store.answer(&kept.key, self.clock.now()).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot look for a kept answer"),
        }
        let answer = self.inner.call(call, progress).await?;
        let is_agent = matches!(*call.request, Request::A2a(_));
        if let Some(worth) = worth_keeping(&answer, is_agent) {
            let ttl = SignedDuration::try_from(kept.ttl).unwrap_or(SignedDuration::ZERO);
            let until = self.clock.now().checked_add(ttl).unwrap_or(jiff::Timestamp::MAX);
            if let Err(error) = self.store.keep_answer(&kept.key, &worth, until).await {
                tracing::warn!(%error, "cannot keep an answer");
            }
        }
        Ok(answer)
    }

    async fn stop(&self, call: &Call, progress: &Progress) -> Result<(), Failure> {
        self.inner.stop(call, progress).await
    }
}

/// The answer as it is kept, if it is final and not too large. One that holds a secret has the marker of this run in its place,
/// which says nothing to another run.
fn worth_keeping(answer: &Value, is_agent: bool) -> Option<Value> {
    let is_open = |state: &str| is_agent && state != "TASK_STATE_COMPLETED";
    if last_state(answer).is_some_and(is_open)
        || has_marker(answer)
        || muster_api::json::length(answer) > LARGEST
    {
        return None;
    }
    let mut answer = answer.clone();
    forget_cost(&mut answer);
    // The events of a stream.
    for event in answer.as_array_mut().into_iter().flatten() {
        for part in ["task", "message", "statusUpdate"] {
            event.get_mut(part).into_iter().for_each(forget_cost);
        }
    }
    Some(answer)
}

/// The state of the task that an agent has answered with: at once, or last of all in a stream.
fn last_state(answer: &Value) -> Option<&str> {
    fn state(value: &Value) -> Option<&str> {
        let places = [
            "/status/state",
            "/task/status/state",
            "/statusUpdate/status/state",
        ];
        let mut found = places.iter().filter_map(|place| value.pointer(place));
        found.next()?.as_str()
    }
    match answer {
        Value::Array(events) => events.iter().rev().find_map(state),
        answer => state(answer),
    }
}

fn forget_cost(answer: &mut Value) {
    for place in ["/metadata", "/status/message/metadata"] {
        if let Some(Value::Object(metadata)) = answer.pointer_mut(place) {
            metadata.remove(usage::KEY);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_good_ends_are_kept_and_without_what_they_cost() {
        let done = json!({"status": {"state": "TASK_STATE_COMPLETED"}, "metadata": {usage::KEY: {"tokens": 1}, "x": 1}});
        let kept = worth_keeping(&done, true).unwrap();
        assert_eq!(kept["metadata"], json!({"x": 1}));
        for part in ["task", "message", "statusUpdate"] {
            let streamed = json!([{"artifactUpdate": {}}, {part: done}]);
            let kept = worth_keeping(&streamed, true).unwrap();
            assert_eq!(kept[1][part]["metadata"], json!({"x": 1}));
        }
        let open = json!({"status": {"state": "TASK_STATE_INPUT_REQUIRED"}});
        assert_eq!(worth_keeping(&open, true), None);
        assert_eq!(
            worth_keeping(&open, false),
            Some(open.clone()),
            "what is no agent's is no task"
        );
        for last in [json!({"task": open}), json!({"statusUpdate": open})] {
            assert_eq!(
                worth_keeping(&json!([{"task": done}, last, {"artifactUpdate": {}}]), true),
                None
            );
        }
        assert_eq!(worth_keeping(&json!("x".repeat(LARGEST)), true), None);
        assert_eq!(worth_keeping(&json!({"any": 1}), true), Some(json!({"any": 1})));
        let marker = muster_workflow_dsl::secret::Nonce::fresh().marker(&["token"]);
        assert_eq!(
            worth_keeping(&json!({"echo": format!("Bearer {marker}")}), false),
            None
        );
    }
}
