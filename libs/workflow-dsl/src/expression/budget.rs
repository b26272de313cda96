//! How much one evaluation may still do.
//!
//! Operators such as `+` and `==` reach a value through Rust's traits, which pass no context. Therefore the budget
//! lives in a thread-local for the length of one evaluation, which never leaves its thread. A step is roughly one
//! node of the expression evaluated, one item produced, or 64 bytes copied; since everything that takes time or
//! memory spends steps, one number bounds both.

use std::cell::Cell;

/// Steps of one evaluation.
pub(super) const STEPS: u64 = 1_000_000;

/// Bytes that cost one step.
const BYTES_PER_STEP: u64 = 64;

/// Deepest nesting of a value.
pub(super) const DEPTH: u32 = 128;

/// Largest value, in the measure of [`super::value::Value::size`].
pub(super) const SIZE: u64 = 16 * 1024 * 1024;

/// Which bound an evaluation ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    Steps,
    Depth,
    Size,
}

#[derive(Clone, Copy)]
struct State {
    left: u64,
    exceeded: Option<Exceeded>,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State { left: 0, exceeded: None }) };
}

thread_local! {
    static SPENT: Cell<u64> = const { Cell::new(0) };
}

/// Steps of all evaluations that this thread has asked for, wherever they were done. Only differences mean anything.
pub(crate) fn spent() -> u64 {
    SPENT.get()
}

/// Counts steps that an evaluation has used.
pub(super) fn count(steps: u64) {
    SPENT.set(SPENT.get().wrapping_add(steps));
}

/// What an evaluation used of its budget.
pub(super) struct Used {
    pub(super) steps: u64,
    /// The bound it ran into, if any.
    pub(super) exceeded: Option<Exceeded>,
}

/// Runs `evaluation` with a full budget; tells what it used.
pub(super) fn with<T>(evaluation: impl FnOnce() -> T) -> (T, Used) {
    STATE.set(State {
        left: STEPS,
        exceeded: None,
    });
    let result = evaluation();
    let state = STATE.replace(State {
        left: 0,
        exceeded: None,
    });
    let used = Used {
        steps: STEPS - state.left,
        exceeded: state.exceeded,
    };
    (result, used)
}

/// Spends `steps`; `false` if they are not there, or if any bound has been exceeded before.
pub(super) fn spend(steps: u64) -> bool {
    let state = STATE.get();
    match state.left.checked_sub(steps) {
        Some(left) if state.exceeded.is_none() => {
            STATE.set(State { left, ..state });
            true
        }
        _ => {
            exceed(Exceeded::Steps);
            false
        }
    }
}

/// Spends what it costs to copy so many bytes.
pub(super) fn spend_bytes(bytes: usize) -> bool {
    spend(1 + bytes as u64 / BYTES_PER_STEP)
}

/// Ends the evaluation: from now on nothing can be spent. The first reason is kept.
pub(super) fn exceed(what: Exceeded) {
    let state = STATE.get();
    STATE.set(State {
        left: 0,
        exceeded: state.exceeded.or(Some(what)),
    });
}
