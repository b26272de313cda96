//! Runs that call agents through two routers behind one address, of which one after the other is stopped or killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use muster_api::registry::RegisterRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{GetRunRequest, RunStatus, StartRunRequest, start_run_request};
use muster_testkit::{FakeAgent, Program, wait_for};
use muster_tests::PATIENCE;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::front::Front;
use crate::system::{Running, System, channel, outcome};

/// Runs that are under way all the time.
const AT_ONCE: usize = 20;

/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(20);

/// Four calls, one after the other, of an agent that does not tell messages apart.
const CALLS: &str = r#"
document: { dsl: 1.0.0, namespace: test, name: calls, version: 1.0.0 }
do:
  - first: &call
      call: a2a
      with:
        server: agent://counter
        method: SendMessage
        parameters: { message: { parts: [ { text: "${ $workflow.id + \" \" + $task.name }" } ] } }
      output: { as: "${ $task.name }" }
  - second: *call
  - third: *call
  - fourth: *call
"#;

/// Two routers, an engine that reaches both by one address, and an agent that counts.
struct Fleet {
    system: System,
    engine: Running,
    agent: FakeAgent,
    _front: Front,
}

impl Fleet {
    async fn start() -> Self {
        // Nobody gives signs of life for the agent.
        let long = [("REGISTRY__LEASE_DURATION", "3600")];
        let system = System::with_routers(2, &long, &[]).await;
        let addresses = system.routers.iter().map(|router| router.program.data_address());
        let front = Front::of(addresses.collect()).await;
        let own = system.directory.path().join("engine");
        let engine = Program::named("muster-workflow-engine")
            .env("MUSTER__ENGINE__ROUTER_URL", front.url())
            .env("MUSTER__ENGINE__DATA_DIRECTORY", own.display().to_string());
        let agent = FakeAgent::start("counter").await;
        let instance = Some(agent.instance(&["count"]));
        let mut registry = RegistryServiceClient::new(channel(&system.registry));
        registry.register(RegisterRequest { instance }).await.unwrap();
        for router in 0..2 {
            system.knows(router, 1).await;
        }
        Self {
            engine: Running::of(engine).await,
            system,
            agent,
            _front: front,
        }
    }

    /// Stops a router in order, or kills it, and starts it again.
    async fn restart(&mut self, router: usize, in_order: bool) {
        let Running { program, mut process } = self.system.routers.remove(router);
        if in_order {
            let status = process.terminate().await;
            assert!(status.success(), "{status}: {}", process.stderr());
        } else {
            process.kill().await;
        }
        self.system.routers.insert(router, Running::of(program).await);
        self.system.knows(router, 1).await;
    }

    /// How often each step was called, by its key; and that each has one message id, so that whoever tells messages apart by
    /// theirs does nothing twice.
    fn calls_by_step(&self) -> BTreeMap<String, usize> {
        let steps = self.agent.calls_by_step_key();
        let messages = self.agent.calls_by_message_id();
        assert_eq!(steps.len(), messages.len(), "a step was sent under another id");
        steps
    }
}

/// Runs that are kept under way.
struct Load {
    runs: JoinSet<()>,
    stop: Arc<AtomicBool>,
    completed: Arc<AtomicUsize>,
}

impl Load {
    fn start(engine: &Program) -> Self {
        let (stop, completed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut runs = JoinSet::new();
        for place in 0..AT_ONCE {
            let engine = WorkflowServiceClient::new(channel(engine));
            let (stop, completed) = (Arc::clone(&stop), Arc::clone(&completed));
            runs.spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    run(engine.clone(), format!("run-{place}-{number}")).await;
                    completed.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            });
        }
        Self {
            runs,
            stop,
            completed,
        }
    }

    /// Waits until so many more have completed.
    async fn goes_on(&self, count: usize) {
        let before = self.completed.load(Ordering::Relaxed);
        wait_for("runs to complete", PATIENCE, async || {
            self.completed.load(Ordering::Relaxed) >= before + count
        })
        .await;
    }

    /// Lets those that are under way complete; how many have.
    async fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        while !self.runs.is_empty() {
            outcome(&mut self.runs, PATIENCE).await;
        }
        self.completed.load(Ordering::Relaxed)
    }
}

/// Starts a run and waits until it has completed.
async fn run(mut engine: WorkflowServiceClient<Channel>, id: String) {
    let request = StartRunRequest {
        run_id: id.clone(),
        source: Some(start_run_request::Source::Document(CALLS.to_owned())),
        ..StartRunRequest::default()
    };
    engine.start_run(request).await.unwrap();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let request = GetRunRequest { run_id: id.clone() };
        let run = engine.get_run(request).await.unwrap().into_inner().run.unwrap();
        let status = run.status();
        assert!(status != RunStatus::Faulted, "{id}: {:?}", run.error);
        if status == RunStatus::Completed {
            return;
        }
    }
}

#[tokio::test]
async fn routers_that_are_stopped_in_order_fail_no_run_and_repeat_no_call() {
    let mut fleet = Fleet::start().await;
    let load = Load::start(&fleet.engine.program);
    for round in 0..10 {
        load.goes_on(AT_ONCE).await;
        fleet.restart(round % 2, true).await;
    }
    let completed = load.end().await;
    let steps = fleet.calls_by_step();
    assert_eq!(steps.len(), 4 * completed, "each step was called");
    // Requests that a router had begun were answered by it, and the others it has never seen.
    assert!(steps.values().all(|calls| *calls == 1), "{steps:?}");
}

#[tokio::test]
async fn routers_that_are_killed_fail_no_run_and_what_was_under_way_comes_again_under_its_id() {
    const KILLS: usize = 4;
    let mut fleet = Fleet::start().await;
    let load = Load::start(&fleet.engine.program);
    for round in 0..KILLS {
        load.goes_on(AT_ONCE).await;
        fleet.restart(round % 2, false).await;
    }
    let completed = load.end().await;
    let steps = fleet.calls_by_step();
    assert_eq!(steps.len(), 4 * completed, "each step was called");
    let most = steps.values().max().copied().unwrap_or_default();
    assert!(most <= 1 + KILLS, "{steps:?}");
}
