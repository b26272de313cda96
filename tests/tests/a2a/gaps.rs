//! What is known not to hold yet: case, subject, binding. The list is exact, see the crate; what fails by timing, and so not
//! always, is apart.

use crate::bench::Subject;
use crate::driver::Binding;

const KNOWN_GAPS: &[(&str, Subject, Binding)] = &[];

/// What holds or not by timing: how far a reader lags behind before it loses events.
const RACES: &[(&str, Subject, Binding)] = &[];

/// What is known of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It does at times.
    Races,
}

/// What is known of a case.
pub fn known(case: &str, subject: Subject, binding: Binding) -> Known {
    let listed = (case, subject, binding);
    if KNOWN_GAPS.contains(&listed) {
        Known::Fails
    } else if RACES.contains(&listed) {
        Known::Races
    } else {
        Known::Holds
    }
}

/// The cases that are listed.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN_GAPS.iter().chain(RACES).map(|(name, ..)| *name)
}
