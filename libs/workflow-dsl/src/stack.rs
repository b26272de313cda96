//! Work on a stack of a given size: for what nests deeper than a thread of the runtime has room for.
//!
//! A thread costs far more than a short expression, so work that needs no more than is left of such a stack runs where it is:
//! a document is read on one, and its expressions there, too.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

thread_local! {
    /// The lowest address that work may come down to, on a thread of [`run`].
    static END: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a thread needs of its stack for itself, with room to spare.
const OVERHEAD: usize = 64 * 1024;

/// Runs `work` where it has a stack of this size, in bytes. Memory is only taken for what of it is used. A panic in it is an error.
pub(crate) fn run<T: Send>(size: usize, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    if left().is_some_and(|left| left >= size) {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(panic.as_ref()));
    }
    thread::scope(|scope| {
        let work = || {
            END.set(here().checked_sub(size));
            work()
        };
        let thread = thread::Builder::new()
            .name("deep".into())
            .stack_size(size + OVERHEAD)
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread could be started: {error}"))?;
        thread.join().map_err(|panic| panic_message(panic.as_ref()))
    })
}

/// How much is left of a stack that [`run`] made.
fn left() -> Option<usize> {
    here().checked_sub(END.get()?)
}

/// About where the stack is.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    std::ptr::from_ref(&local).addr()
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn thread() -> thread::ThreadId {
        thread::current().id()
    }

    #[test]
    fn what_fits_runs_where_it_is_and_what_does_not_gets_a_stack_of_its_own() {
        run(4 * MIB, || {
            let outer = thread();
            assert_eq!(run(2 * MIB, thread), Ok(outer));
            assert_ne!(run(8 * MIB, thread), Ok(outer));
            // It has its own bounds there, and they end with it.
            let inner = run(8 * MIB, || run(6 * MIB, thread) == Ok(thread()));
            assert_eq!(inner, Ok(true));
            assert_eq!(run(2 * MIB, thread), Ok(outer));
        })
        .unwrap();
        let here = thread();
        assert_ne!(run(1, thread), Ok(here));
    }

    #[test]
    fn the_whole_of_it_can_be_used() {
        /// Takes at least a KiB for each level.
        fn descend(levels: usize) -> u64 {
            let filled = std::hint::black_box([levels as u8; 1024]);
            let sum = filled.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            if levels == 0 {
                sum
            } else {
                sum.wrapping_add(descend(levels - 1))
            }
        }
        run(32 * MIB, || {
            let inline = run(16 * MIB, || descend(4 * 1024));
            assert!(inline.is_ok());
        })
        .unwrap();
    }

    #[test]
    fn a_panic_is_an_error_either_way() {
        let panic = || -> () { panic!("broken") };
        assert_eq!(run(MIB, panic), Err("broken".to_owned()));
        let inner = run(4 * MIB, || run(MIB, panic)).unwrap();
        assert_eq!(inner, Err("broken".to_owned()));
    }
}
