//! Starting, stopping and asking an engine.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_api::workflow as proto;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_runtime::clock::{Clock, SharedClock, SystemClock};
use muster_runtime::{Listeners, Shutdown};
use muster_testkit::{FakeAgent, wait_for};
use muster_workflow_engine::Config;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub type Client = WorkflowServiceClient<Channel>;

/// An engine, the router it calls, and the directory it keeps its runs in.
pub struct Engine {
    pub router: FakeAgent,
    pub client: Client,
    config: Config,
    clock: Arc<Ahead>,
    running: Running,
    _directory: TempDir,
}

/// The machine's clock, ahead by so many seconds.
#[derive(Default)]
struct Ahead {
    clock: SystemClock,
    seconds: AtomicI64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now() + SignedDuration::from_secs(self.seconds.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

struct Running {
    data: SocketAddr,
    shutdown: Shutdown,
    task: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Engine {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with changed settings.
    pub async fn start_with(change: impl FnOnce(&mut muster_workflow_engine::config::Engine)) -> Self {
        let router = FakeAgent::start("router").await;
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.engine.router_url = router.endpoint();
        config.engine.data_directory = directory.path().join("engine");
        config.engine.agent_wait_seconds = 20;
        change(&mut config.engine);
        let clock = Arc::new(Ahead::default());
        let (client, running) = launch(&config, &clock).await;
        Self {
            router,
            client,
            config,
            clock,
            running,
            _directory: directory,
        }
    }

    /// Ends the engine in order and waits until it has let its directory go.
    pub async fn stop(&mut self) {
        self.running.shutdown.trigger();
        let ended = tokio::time::timeout(PATIENCE, self.running.task.join_next()).await;
        ended
            .expect("it stops")
            .expect("it ran")
            .expect("no panic")
            .expect("no error");
    }

    /// Ends it and starts it again on the same directory.
    pub async fn restart(&mut self) {
        self.stop().await;
        let (client, running) = launch(&self.config, &self.clock).await;
        self.client = client;
        self.running = running;
    }

    /// Ends it and starts it again on the same directory with changed settings.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut muster_workflow_engine::config::Engine)) {
        change(&mut self.config.engine);
        self.restart().await;
    }

    /// Starts it after [`Self::stop`] with changed settings.
    pub async fn restart_stopped_with(
        &mut self,
        change: impl FnOnce(&mut muster_workflow_engine::config::Engine),
    ) {
        change(&mut self.config.engine);
        self.launch().await;
    }

    /// Starts it again after so many days, by its own clock.
    pub async fn restart_later(&mut self, days: i64) {
        self.stop().await;
        let seconds = days * 24 * 60 * 60;
        self.clock.seconds.fetch_add(seconds, Ordering::Relaxed);
        self.launch().await;
    }

    /// Lets so much time pass, by its own clock. What it sleeps for already is not woken by that.
    pub fn pass(&self, seconds: i64) {
        self.clock.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Where it speaks gRPC and HTTP.
    pub fn address(&self) -> SocketAddr {
        self.running.data
    }

    pub fn data_directory(&self) -> &Path {
        &self.config.engine.data_directory
    }

    /// Starts it after [`Self::stop`].
    pub async fn launch(&mut self) {
        let (client, running) = launch(&self.config, &self.clock).await;
        self.client = client;
        self.running = running;
    }

    pub async fn start_run(&self, document: &str, id: &str, input: &str) -> Result<proto::Run, Status> {
        let source = proto::start_run_request::Source::Document(document.to_owned());
        let request = proto::StartRunRequest {
            run_id: id.to_owned(),
            source: Some(source),
            input_json: input.to_owned(),
            ..Default::default()
        };
        let response = self.client.clone().start_run(request).await?;
        Ok(response.into_inner().run.unwrap())
    }

    pub async fn run(&self, id: &str) -> proto::Run {
        let request = proto::GetRunRequest {
            run_id: id.to_owned(),
        };
        self.client
            .clone()
            .get_run(request)
            .await
            .unwrap()
            .into_inner()
            .run
            .unwrap()
    }

    /// Waits until the run has that status.
    pub async fn until(&self, id: &str, status: proto::RunStatus) -> proto::Run {
        wait_for(&format!("run {id} to be {status:?}"), PATIENCE, async || {
            let run = self.run(id).await;
            if run.status() == status {
                Ok(run)
            } else {
                Err(format!("{:?} {:?} {:?}", run.status(), run.error, run.activity))
            }
        })
        .await
    }

    /// Starts a run, waits for its output.
    pub async fn output(&self, document: &str, input: &str) -> serde_json::Value {
        let run = self.start_run(document, "", input).await.unwrap();
        let run = self.until(&run.run_id, proto::RunStatus::Completed).await;
        serde_json::from_str(&run.output_json).unwrap()
    }

    /// Starts a run, waits for its error.
    pub async fn fault(&self, document: &str) -> proto::RunError {
        let run = self.start_run(document, "", "").await.unwrap();
        self.until(&run.run_id, proto::RunStatus::Faulted)
            .await
            .error
            .unwrap()
    }

    pub async fn history(&self, id: &str) -> Vec<proto::HistoryEvent> {
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = proto::GetHistoryRequest {
                run_id: id.to_owned(),
                page_size: 3,
                page_token,
            };
            let page = self
                .client
                .clone()
                .get_history(request)
                .await
                .unwrap()
                .into_inner();
            assert!(page.events.len() <= 3);
            events.extend(page.events);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return events;
            }
        }
    }

    pub async fn cancel(&self, id: &str) -> Result<proto::Run, Status> {
        let request = proto::CancelRunRequest {
            run_id: id.to_owned(),
            reason: "not needed".to_owned(),
            ..Default::default()
        };
        Ok(self
            .client
            .clone()
            .cancel_run(request)
            .await?
            .into_inner()
            .run
            .unwrap())
    }

    pub async fn status(&self) -> proto::GetStatusResponse {
        self.client
            .clone()
            .get_status(proto::GetStatusRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    /// Waits until the router holds that many answers.
    pub async fn until_held(&self, count: usize) {
        wait_for("calls to be held", PATIENCE, async || {
            let held = self.router.held();
            if held == count {
                Ok(())
            } else {
                Err(format!("{held} are"))
            }
        })
        .await;
    }
}

async fn launch(config: &Config, clock: &Arc<Ahead>) -> (Client, Running) {
    let listeners = Listeners::ephemeral().unwrap();
    let data = listeners.data_address();
    let endpoint = format!("http://{data}");
    let shutdown = Shutdown::new();
    let mut task = JoinSet::new();
    let clock: SharedClock = Arc::clone(clock) as SharedClock;
    task.spawn(muster_workflow_engine::run_by(
        Some(clock),
        config.clone(),
        listeners,
        shutdown.clone(),
    ));
    let channel = tonic::transport::Endpoint::from_shared(endpoint)
        .unwrap()
        .connect_lazy();
    let client = WorkflowServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let answers = wait_for("the engine to answer", PATIENCE, async || {
        client.clone().get_status(proto::GetStatusRequest {}).await
    });
    tokio::select! {
        _ = answers => {}
        ended = task.join_next() => panic!("the engine has ended: {ended:?}"),
    }
    (client, Running { data, shutdown, task })
}

/// The reason of one of our errors.
pub fn reason(status: &Status) -> String {
    muster_api::error::Error::from_status(status).map_or_else(
        || format!("not ours: {status}"),
        |error| error.reason.name().to_owned(),
    )
}

/// A document with these tasks.
pub fn document(tasks: &str) -> String {
    format!("document: {{dsl: '1.0.0', namespace: test, name: test, version: '1.0.0'}}\ndo:\n{tasks}")
}

/// A task that sends text to an agent; its output is the text that comes back.
pub fn send(name: &str, text: &str) -> String {
    format!(
        "  - {name}:\n      call: a2a\n      with:\n        server: agent://{name}\n        method: SendMessage\n        \
         parameters: {{message: {{parts: [{{text: '{text}'}}]}}}}\n      output: {{as: '${{ .artifacts[0].parts[1].text }}'}}\n"
    )
}

/// Waits until the router was asked that often.
pub async fn until_calls(engine: &Engine, count: usize) {
    wait_for("calls to arrive", PATIENCE, async || {
        let calls = engine.router.calls().len();
        if calls == count {
            Ok(())
        } else {
            Err(format!("{calls} have"))
        }
    })
    .await;
}

/// Waits until the run has ended in any way.
pub async fn ended(engine: &Engine, id: &str) -> proto::Run {
    wait_for(&format!("{id} to end"), PATIENCE, async || {
        let run = engine.run(id).await;
        match run.status() {
            proto::RunStatus::Completed | proto::RunStatus::Faulted | proto::RunStatus::Cancelled => Ok(run),
            other => Err(format!("{other:?} {:?}", run.activity)),
        }
    })
    .await
}
