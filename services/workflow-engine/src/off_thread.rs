//! Work that may take long without waiting for anything: parsing, evaluating, reading files.

/// Does the work on the pool for such work, so that requests on the async threads are not held up. A panic of the
/// work goes on in the caller.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only work that has not begun is cancelled, when the runtime ends; nobody waits for it then.
            Err(_) => std::future::pending().await,
        },
    }
}
