//! Supervised background tasks: named, panics told, the end of an essential one ends the service.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Error, Shutdown};

/// Spawns tasks that the chassis watches and stops.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    shutdown: Shutdown,
    ended: mpsc::Sender<Error>,
}

/// Where the chassis hears of essential tasks that ended.
pub(crate) type Ended = mpsc::Receiver<Error>;

impl Tasks {
    pub(crate) fn new(shutdown: Shutdown) -> (Self, Ended) {
        // One place: the first end of an essential task ends the service; later ones add nothing.
        let (ended, receiver) = mpsc::channel(1);
        (
            Self {
                tracker: TaskTracker::new(),
                stop: CancellationToken::new(),
                shutdown,
                ended,
            },
            receiver,
        )
    }

    /// Spawns a task without which the service is not one. It is to return only after a shutdown was asked for;
    /// when it returns, fails or panics before, the service ends with its name and reason.
    pub fn essential<E: Display>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (name, shutdown, ended) = (name.into(), self.shutdown.clone(), self.ended.clone());
        self.supervise(async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            let reason = match outcome {
                Ok(Ok(())) => "it returned although nobody asked it to stop".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic_message(panic.as_ref()),
            };
            if shutdown.is_requested() {
                return;
            }
            tracing::error!(task = name, reason, "an essential task ended");
            let _already_told = ended.try_send(Error::Task { name, reason });
        });
    }

    /// Spawns a task that may end; its panic is logged.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        self.supervise(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(
                    task = name,
                    reason = panic_message(panic.as_ref()),
                    "a task panicked"
                );
            }
        });
    }

    fn supervise(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Stops what still runs; a task that does not yield is left behind after a second.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(Duration::from_secs(1), self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(remaining = self.tracker.len(), "tasks did not stop");
        }
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
