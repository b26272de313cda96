//! Calls by agent and by how their callers called, for operators. Pure but for a lock.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::error::Error;
use crate::fleet::View;
use crate::metrics::Binding;
use crate::target::Target;

/// Most rows. Agents that come after are counted with those calls that reached nobody.
const ROWS: usize = 10_000;

/// What became of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Answered.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
}

/// The table.
#[derive(Debug, Default)]
pub struct Calls {
    /// By agent, in the order of [`Binding::ALL`].
    rows: Mutex<BTreeMap<String, [Counted; Binding::ALL.len()]>>,
}

impl Calls {
    /// Counts a call of an agent; empty: it reached none.
    pub fn count(&self, agent: &str, binding: Binding, is_well: bool) {
        let mut rows = self.rows.lock();
        let agent = if rows.len() >= ROWS && !rows.contains_key(agent) {
            ""
        } else {
            agent
        };
        // The name is copied for newcomers only: this is done for every call.
        if !rows.contains_key(agent) {
            rows.insert(agent.to_owned(), Default::default());
        }
        let Some(counted) = rows.get_mut(agent).and_then(|row| row.get_mut(binding as usize)) else {
            return;
        };
        if is_well {
            counted.succeeded += 1;
        } else {
            counted.failed += 1;
        }
    }

    /// All rows, by agent and binding.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, Binding, Counted)> {
        let rows = self.rows.lock();
        let each = |(agent, row): (&String, &[Counted; Binding::ALL.len()])| {
            let cells = Binding::ALL.into_iter().zip(*row);
            let counted = cells.filter(|(_, counted)| *counted != Counted::default());
            let rows = counted.map(|(binding, counted)| (agent.clone(), binding, counted));
            rows.collect::<Vec<_>>()
        };
        rows.iter().flat_map(each).collect()
    }
}

/// The agent that a failed call counts with: the one that the error is about, or that the call was for, as far as the fleet
/// knows it; else none, so that misspelt names make no rows.
#[must_use]
pub fn blamed(view: &View, error: &Error, target: Option<&Target>) -> String {
    let named = match (error, target) {
        (
            Error::Unreachable { agent, .. }
            | Error::InvalidAnswer { agent, .. }
            | Error::StreamIdle { agent, .. },
            _,
        )
        | (_, Some(Target::Agent(agent))) => agent.as_str(),
        _ => "",
    };
    if view.knows(named) {
        named.to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded() {
        let calls = Calls::default();
        for number in 0..ROWS + 5 {
            calls.count(&format!("a{number:06}"), Binding::Grpc, number % 2 == 0);
        }
        calls.count("a000000", Binding::Grpc, false);
        let rows = calls.rows();
        assert_eq!(rows.len(), ROWS + 1);
        let both = Counted {
            succeeded: 1,
            failed: 1,
        };
        assert_eq!(rows[1], ("a000000".to_owned(), Binding::Grpc, both));
        assert_eq!(rows[0].2.succeeded + rows[0].2.failed, 5, "those without a row");
    }
}
