//! The calls a run has in flight.
//!
//! They follow the interpreter's wishes: what it wants and is not under way is started, what is under way and not
//! wanted any more is abandoned, and the other side is told where there is a way to. Everything is owned here and ends
//! with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::caller::{Call, Caller, Failure, Kind, Note, Progress};
use crate::metrics::Meter;
use crate::trail::Places;
use muster_runtime::clock::SharedClock;
use muster_runtime::trace::{self, FutureExt as _};
use muster_workflow_dsl::run::{Blocker, BlockerKind};

/// Identity of a call within its run: activation and attempt.
pub(crate) type Key = (u64, u32);

/// A call that has ended.
pub(crate) type Ended = (Key, Result<Value, Failure>);

/// How long agents are given to hear that their work is not wanted any more.
const FAREWELL: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Calls {
    caller: Arc<dyn Caller>,
    clock: SharedClock,
    meter: Arc<Meter>,
    /// Name of the workflow.
    workflow: Arc<str>,
    /// Where the spans of the run are, where anything is traced.
    places: Option<Places>,
    tasks: JoinSet<Ended>,
    in_flight: BTreeMap<Key, InFlight>,
    farewells: JoinSet<()>,
}

struct InFlight {
    task: AbortHandle,
    call: Arc<Call>,
    progress: Arc<Progress>,
}

impl Calls {
    pub(crate) fn new(caller: Arc<dyn Caller>, clock: SharedClock, meter: Arc<Meter>) -> Self {
        Self {
            caller,
            clock,
            meter,
            workflow: Arc::from(""),
            places: None,
            tasks: JoinSet::new(),
            in_flight: BTreeMap::new(),
            farewells: JoinSet::new(),
        }
    }

    /// The calls from now on are of this workflow, and traced there.
    pub(crate) fn are_of(&mut self, workflow: &str, places: Option<Places>) {
        self.workflow = Arc::from(workflow);
        self.places = places;
    }

    /// Makes the calls in flight those that are wanted.
    pub(crate) fn follow(&mut self, wanted: impl IntoIterator<Item = (Key, Call)>) {
        let mut keep = BTreeSet::new();
        for (key, call) in wanted {
            keep.insert(key);
            if !self.in_flight.contains_key(&key) {
                self.start(key, call);
            }
        }
        let unwanted: Vec<Key> = self
            .in_flight
            .keys()
            .filter(|key| !keep.contains(key))
            .copied()
            .collect();
        for key in unwanted {
            self.abandon(key);
        }
    }

    fn start(&mut self, key: Key, call: Call) {
        let progress = Arc::new(Progress::default());
        let (caller, clock, meter) = (
            Arc::clone(&self.caller),
            Arc::clone(&self.clock),
            Arc::clone(&self.meter),
        );
        let call = Arc::new(call);
        let (made, reported) = (Arc::clone(&call), Arc::clone(&progress));
        let workflow = Arc::clone(&self.workflow);
        let (context, calling) = match &self.places {
            Some(places) => {
                let (context, calling) = places.calling(key, &call, clock.now());
                (context, Some(calling))
            }
            // Its logs say whose call it is.
            None => (trace::about_task(Arc::clone(&call.task)), None),
        };
        let task = self.tasks.spawn(async move {
            let start = clock.monotonic();
            let calls = async {
                tracing::debug!(called = made.request.target(), attempt = key.1, "a call is made");
                caller.call(&made, &reported).await
            };
            let outcome = calls.with_context(context).await;
            if let Some(calling) = calling {
                calling.ended(&outcome, clock.now());
            }
            let step = (&*workflow, &*made.task);
            meter.call(
                step,
                &made.request,
                &outcome,
                clock.monotonic().saturating_sub(start),
            );
            (key, outcome)
        });
        self.in_flight.insert(key, InFlight { task, call, progress });
    }

    fn abandon(&mut self, key: Key) {
        let Some(call) = self.in_flight.remove(&key) else {
            return;
        };
        call.task.abort();
        self.tell(call.call, call.progress);
    }

    /// Tells the other side that nobody waits for the call any more.
    fn tell(&mut self, call: Arc<Call>, progress: Arc<Progress>) {
        let caller = Arc::clone(&self.caller);
        self.farewells.spawn(async move {
            if let Err(failure) = caller.stop(&call, &progress).await {
                tracing::info!(target = call.request.target(), %failure, "nobody could be told to stop");
            }
        });
    }

    /// A call of an earlier life is not wanted any more: the other side may be at work on it still.
    pub(crate) fn disown(&mut self, call: Call) {
        self.tell(Arc::new(call), Arc::default());
    }

    /// The next call that has ended; never, while none is in flight.
    pub(crate) async fn ended(&mut self) -> Ended {
        loop {
            match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(joined) => {
                    if let Some(ended) = self.take(joined) {
                        return ended;
                    }
                }
            }
        }
    }

    /// A call that has ended, if one has.
    pub(crate) fn try_ended(&mut self) -> Option<Ended> {
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            let ended = self.take(joined);
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// The outcome of a task, if its call is still wanted.
    fn take(&mut self, joined: Result<(Id, Ended), JoinError>) -> Option<Ended> {
        match joined {
            Ok((_, (key, mut outcome))) => {
                let call = self.in_flight.remove(&key)?;
                if let Err(failure) = &mut outcome {
                    failure.usage = failure.usage.or_else(|| call.progress.usage());
                }
                if let Err(failure) = &outcome
                    && failure.leaves_open()
                    && call.progress.is_open()
                {
                    self.tell(call.call, call.progress);
                }
                Some((key, outcome))
            }
            Err(error) => {
                let key = self
                    .in_flight
                    .iter()
                    .find(|(_, call)| call.task.id() == error.id())
                    .map(|(key, _)| *key)?;
                if let Some(call) = self.in_flight.remove(&key).filter(|call| call.progress.is_open()) {
                    self.tell(call.call, call.progress);
                }
                let detail = format!("the call ended in a defect of the engine: {error}");
                Some((
                    key,
                    Err(Failure {
                        kind: Kind::Runtime,
                        status: 500,
                        detail,
                        usage: None,
                    }),
                ))
            }
        }
    }

    /// Whether none is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Adds to the blockers of a run what is known of its calls in flight beyond that they are.
    pub(crate) fn explain(&self, blockers: &mut [Blocker]) {
        for blocker in blockers
            .iter_mut()
            .filter(|blocker| matches!(blocker.kind, BlockerKind::Call | BlockerKind::Process))
        {
            let number = |key: &str| blocker.details.get(key).and_then(Value::as_u64);
            let (Some(activation), Some(attempt)) = (number("activation"), number("attempt")) else {
                continue;
            };
            let key = (activation, u32::try_from(attempt).unwrap_or(u32::MAX));
            let Some(call) = self.in_flight.get(&key) else {
                continue;
            };
            if let Some(task) = call.progress.task_id() {
                blocker.details.insert("taskId".to_owned(), task.into());
            }
            if let Some(note) = call.progress.note() {
                annotate(blocker, note);
            }
        }
    }

    /// Abandons what is in flight and waits until the agents have heard of it, or have had the time.
    pub(crate) async fn end(mut self) {
        self.follow([]);
        self.leave().await;
    }

    /// Waits until those who were told to stop have heard of it, or have had the time. Calls in flight are dropped
    /// without a word.
    pub(crate) async fn leave(&mut self) {
        let told = async { while self.farewells.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, told).await.is_err() {
            tracing::info!("agents did not confirm in time that they stop");
        }
    }
}

fn annotate(blocker: &mut Blocker, note: Note) {
    let Note {
        kind,
        text,
        since,
        next,
        details,
    } = note;
    blocker.message.push_str(": ");
    blocker.message.push_str(&text);
    blocker.kind = kind.unwrap_or(blocker.kind);
    blocker.since = since.or(blocker.since);
    if let Some(next) = next {
        let seconds = next.as_secs_f64();
        blocker
            .details
            .insert("triesAgainAfterSeconds".to_owned(), seconds.into());
    }
    blocker.details.insert("note".to_owned(), text.into());
    blocker.details.extend(details);
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use muster_runtime::Metrics;
    use muster_runtime::clock::ManualClock;
    use muster_workflow_dsl::document::{Endpoint, Method};
    use muster_workflow_dsl::request::{A2a, Request};
    use parking_lot::Mutex;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::metrics::DEFINITIONS;
    use crate::secrets::Grant;

    /// Answers agents called `quick` and lets all others wait, with a task that it names after them.
    #[derive(Default)]
    struct Fake {
        stopped: Mutex<Vec<(String, String)>>,
    }

    #[async_trait]
    impl Caller for Fake {
        async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure> {
            let Request::A2a(request) = &*call.request else {
                panic!("only agents are called here");
            };
            match request.endpoint.to_string().trim_start_matches("agent://") {
                "quick" => Ok(json!("done")),
                "broken" => panic!("a defect"),
                target => {
                    progress.learn_task(&format!("task of {target}"));
                    progress.set_note(Some("thinks".into()));
                    std::future::pending().await
                }
            }
        }

        async fn stop(&self, call: &Call, progress: &Progress) -> Result<(), Failure> {
            if let Some(task) = progress.task_id() {
                self.stopped.lock().push((call.request.target(), task));
            }
            Ok(())
        }
    }

    fn calls(caller: &Arc<Fake>) -> Calls {
        let meter = Meter::new(Metrics::new(DEFINITIONS).unwrap());
        Calls::new(
            Arc::clone(caller) as Arc<dyn Caller>,
            Arc::new(ManualClock::default()),
            Arc::new(meter),
        )
    }

    fn call(target: &str) -> Call {
        Call {
            request: Arc::new(Request::A2a(A2a {
                endpoint: Endpoint::Agent(target.into()),
                card: false,
                authentication: None,
                events: false,
                method: Method::SendMessage,
                parameters: Arc::new(json!({})),
            })),
            task: "/do/0/call".into(),
            message_id: Uuid::nil(),
            step_key: Uuid::nil(),
            epoch: None,
            timeout: Duration::from_secs(1),
            resent: false,
            grant: Grant::default(),
            kept: None,
            behalf: None,
        }
    }

    #[tokio::test]
    async fn what_is_wanted_is_called_once_and_what_is_not_is_abandoned_and_told() {
        let caller = Arc::new(Fake::default());
        let mut calls = calls(&caller);
        calls.follow([((1, 0), call("slow")), ((2, 0), call("quick"))]);
        assert_eq!(calls.ended().await, ((2, 0), Ok(json!("done"))));
        calls.follow([((1, 0), call("slow"))]);
        assert_eq!(calls.try_ended(), None, "it was called before");
        let blocker = Blocker::new(BlockerKind::Call, "waits")
            .with("activation", 1)
            .with("attempt", 0);
        let mut explained = vec![blocker.clone()];
        while explained[0].message == "waits" {
            tokio::task::yield_now().await;
            explained = vec![blocker.clone()];
            calls.explain(&mut explained);
        }
        assert_eq!(explained[0].message, "waits: thinks");
        assert_eq!(explained[0].details["taskId"], "task of slow");
        calls.follow([]);
        assert!(calls.is_empty());
        calls.end().await;
        assert_eq!(
            *caller.stopped.lock(),
            [("agent://slow".to_owned(), "task of slow".to_owned())]
        );
    }

    #[tokio::test]
    async fn a_panic_in_a_call_is_its_failure() {
        let mut calls = calls(&Arc::new(Fake::default()));
        calls.follow([((1, 0), call("broken"))]);
        let (key, outcome) = calls.ended().await;
        assert_eq!((key, outcome.unwrap_err().status), ((1, 0), 500));
    }
}
