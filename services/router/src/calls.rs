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
        let add = |row: &mut [Counted; Binding::ALL.len()]| {
            if let Some(counted) = row.get_mut(binding as usize) {
                let count = if is_well {
                    &mut counted.succeeded
                } else {
                    &mut counted.failed
                };
                *count += 1;
            }
        };
        let mut rows = self.rows.lock();
        // This is done for every call: one look, and a copy of the name for newcomers only.
        if let Some(row) = rows.get_mut(agent) {
            return add(row);
        }
        let agent = if rows.len() >= ROWS { "" } else { agent };
        add(rows.entry(agent.to_owned()).or_default());
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
