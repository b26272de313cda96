//! Work on a stack of a given size: for what nests deeper than a thread of the runtime has room for.

use std::any::Any;
use std::thread;

/// Runs `work` on a stack of this size, in bytes. Memory is only taken for what of it is used. A panic in it is an error.
pub(crate) fn run<T: Send>(size: usize, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("deep".into())
            .stack_size(size)
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread could be started: {error}"))?;
        thread.join().map_err(|panic| panic_message(panic.as_ref()))
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}
