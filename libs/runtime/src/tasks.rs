//! Supervised background tasks: named, panics told, the end of an essential one ends the service.
//!
//! At a shutdown an essential task may finish what it has begun: it hears of the shutdown itself, and is waited
//! for until the drain's deadline. Ordinary tasks have nothing to finish; they are stopped wherever they wait,
//! after the essential ones, which may need them.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Error, Shutdown};

/// How long a task that is stopped may take to come to a point where it waits.
const YIELD: Duration = Duration::from_secs(1);

/// Spawns tasks that the chassis watches and stops.
#[derive(Debug, Clone)]
pub struct Tasks {
    essential: Group,
    ordinary: Group,
    shutdown: Shutdown,
    ended: mpsc::Sender<Error>,
}

/// Tasks that are stopped together.
#[derive(Debug, Clone, Default)]
struct Group {
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// Where the chassis hears of essential tasks that ended.
pub(crate) type Ended = mpsc::Receiver<Error>;

impl Tasks {
    pub(crate) fn new(shutdown: Shutdown) -> (Self, Ended) {
        // One place: the first end of an essential task ends the service; later ones add nothing.
        let (ended, receiver) = mpsc::channel(1);
        let tasks = Self {
            essential: Group::default(),
            ordinary: Group::default(),
            shutdown,
            ended,
        };
        (tasks, receiver)
    }

    /// Tasks of a part that lives without a chassis, as in a simulation: nobody hears of the end of an essential one.
    #[must_use]
    pub fn unsupervised(shutdown: Shutdown) -> Self {
        Self::new(shutdown).0
    }

    /// Spawns a task without which the service is not one. It returns when a shutdown was asked for, as soon as it
    /// has finished what it must: the service waits for it until the drain's deadline, then cuts it. When it
    /// returns, fails or panics before a shutdown, the service ends with its name and reason. One that has nothing
    /// to finish and does not listen for the shutdown is for [`Tasks::essential_until_shutdown`].
    pub fn essential<E: Display>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let name = name.into();
        let cut = name.clone();
        let task = async move { task.await.map_err(|error| error.to_string()) };
        let task = watched(name, self.shutdown.clone(), self.ended.clone(), task);
        self.essential.spawn(task, move || {
            tracing::warn!(
                task = cut,
                "an essential task did not end within the drain deadline and is cut"
            );
        });
    }

    /// Like [`Tasks::essential`] for a task that may be stopped wherever it waits: at a shutdown nothing waits for
    /// it.
    pub fn essential_until_shutdown<E: Display>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let task = async move { task.await.map_err(|error| error.to_string()) };
        let task = watched(name.into(), self.shutdown.clone(), self.ended.clone(), task);
        self.ordinary.spawn(task, || {});
    }

    /// Spawns a task that may end; its panic is logged.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let task = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(
                    task = name,
                    reason = panic_message(panic.as_ref()),
                    "a task panicked"
                );
            }
        };
        self.ordinary.spawn(task, || {});
    }

    /// Waits until the essential tasks have ended, or for so long.
    pub async fn idle(&self, most: Duration) {
        self.finish(Instant::now() + most).await;
    }

    /// Waits for the essential tasks until `deadline`.
    pub(crate) async fn finish(&self, deadline: Instant) {
        self.essential.tracker.close();
        // Those that are left are named when they are cut.
        let _late = tokio::time::timeout_at(deadline, self.essential.tracker.wait()).await;
    }

    /// Stops what still runs; a task that does not yield is left behind after a second.
    pub(crate) async fn stop(&self) {
        let groups = [&self.essential, &self.ordinary];
        for group in groups {
            group.stop.cancel();
            group.tracker.close();
        }
        let all = async {
            for group in groups {
                group.tracker.wait().await;
            }
        };
        if tokio::time::timeout(YIELD, all).await.is_err() {
            let remaining = self.essential.tracker.len() + self.ordinary.tracker.len();
            tracing::warn!(remaining, "tasks did not stop");
        }
    }
}

impl Group {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, cut: impl FnOnce() + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => cut(),
            }
        });
    }
}

/// `task`, whose end before a shutdown is told.
async fn watched(
    name: String,
    shutdown: Shutdown,
    ended: mpsc::Sender<Error>,
    task: impl Future<Output = Result<(), String>>,
) {
    let outcome = AssertUnwindSafe(task).catch_unwind().await;
    let asked = shutdown.is_requested();
    let reason = match outcome {
        Ok(Ok(())) if asked => return,
        Ok(Ok(())) => "it returned although nobody asked it to stop".to_owned(),
        Ok(Err(reason)) => reason,
        Err(panic) => panic_message(panic.as_ref()),
    };
    tracing::error!(task = name, reason, "an essential task ended");
    if !asked {
        let _already_told = ended.try_send(Error::Task { name, reason });
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", said.unwrap_or("without a message"))
}
