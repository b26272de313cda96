//! Work that may take long without waiting for anything: parsing, evaluating, reading files.

use std::cell::Cell;

thread_local! {
    static INLINE: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, such work of this thread is done where it is asked for: a pool's threads finish in an order that no
/// seed repeats. Only a simulation wants that.
#[cfg(any(test, feature = "simulation"))]
pub(crate) struct Inline(());

#[cfg(any(test, feature = "simulation"))]
impl Inline {
    pub(crate) fn begin() -> Self {
        INLINE.set(true);
        Self(())
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Drop for Inline {
    fn drop(&mut self) {
        INLINE.set(false);
    }
}

/// Does the work on the pool for such work, so that requests on the async threads are not held up. A panic of the
/// work goes on in the caller.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if INLINE.get() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only work that has not begun is cancelled, when the runtime ends; nobody waits for it then.
            Err(_) => std::future::pending().await,
        },
    }
}
