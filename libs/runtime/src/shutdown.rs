//! The wish to stop, shared by everything that should know.

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

    /// A wish that SIGTERM or Ctrl-C makes; a second signal ends the process at once, with code 130.
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
        tokio::spawn(async move {
            signal().await;
            wish.trigger();
            signal().await;
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

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = async {
        match signal(SignalKind::interrupt()) {
            Ok(mut stream) => stream.recv().await,
            Err(error) => {
                tracing::error!(%error, "SIGINT cannot be watched");
                std::future::pending().await
            }
        }
    };
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut stream) => stream.recv().await,
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be watched");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        _ = interrupt => {}
        _ = terminate => {}
    }
}
