//! The wish to stop, shared by everything that should know.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks a service to stop; clones share the wish.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
}

impl Shutdown {
    /// A wish that nobody has made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A wish that SIGTERM or Ctrl-C makes; a second signal ends the process at once, with code 130. The signals
    /// are watched when this returns: one that comes right after does not kill the process.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as the process and holds nothing"
    )]
    pub fn on_signals() -> Self {
        let shutdown = Self::new();
        let wish = shutdown.clone();
        let mut interrupt = watched(SignalKind::interrupt(), "SIGINT");
        let mut terminate = watched(SignalKind::terminate(), "SIGTERM");
        tokio::spawn(async move {
            either(&mut interrupt, &mut terminate).await;
            wish.trigger();
            either(&mut interrupt, &mut terminate).await;
            std::process::exit(130);
        });
        shutdown
    }

    /// Makes the wish.
    pub fn trigger(&self) {
        self.requested.cancel();
    }

    /// Resolves when the wish is made.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Whether the wish was made.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }
}

fn watched(kind: SignalKind, name: &str) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::error!(%error, signal = name, "a signal cannot be watched"))
        .ok()
}

async fn either(interrupt: &mut Option<Signal>, terminate: &mut Option<Signal>) {
    tokio::select! {
        () = next(interrupt) => {}
        () = next(terminate) => {}
    }
}

async fn next(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        // Nothing will come: the other signal is the one to wait for.
        std::future::pending::<()>().await;
    }
}
