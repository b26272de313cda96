//! What is run: documents of so many steps of one kind.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::bench::part;

/// Tasks that are written out one after the other; runs of more steps go through them again and again, because a document
/// has a bound on its size.
pub const WRITTEN_OUT: u32 = 10;

/// The namespace of everything that is run.
pub const NAMESPACE: &str = "bench";

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Calls an agent through the router; the payload goes there and comes back.
    Agent,
    /// Calls code outside the engine that does nothing, by a plain HTTP request without the router. It is the least that a
    /// step can do whose result is recorded before the next one begins, as a no-op side effect is elsewhere.
    Noop,
    /// Sets a value. Such steps are computed, and written in one batch.
    Set,
}

impl Kind {
    /// Its name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Noop => "noop",
            Self::Set => "set",
        }
    }

    /// Whether each step is a call, and recorded before the next one begins.
    pub const fn is_call(self) -> bool {
        !matches!(self, Self::Set)
    }

    fn task(self, health: &str) -> Value {
        match self {
            Self::Agent => json!({
                "call": "a2a",
                "with": {
                    "server": format!("agent://{}", part::AGENT),
                    "method": "SendMessage",
                    "parameters": {"message": {"parts": [{"data": "${ . }"}]}},
                },
                "output": {"as": "${ .artifacts[0].parts[0].data }"},
            }),
            Self::Noop => json!({
                "call": "http",
                "with": {"method": "get", "endpoint": format!("http://{health}/health")},
                "output": {"as": "${ {} }"},
            }),
            Self::Set => json!({"set": {"done": true}}),
        }
    }

    /// The input of a run.
    pub fn input(self, payload: usize) -> Value {
        match self {
            Self::Agent => json!({"payload": "x".repeat(payload)}),
            Self::Noop | Self::Set => json!({}),
        }
    }

    /// A document of so many steps, which is one of many where `number` differs. `health` is where an agent says how it is.
    pub fn document(self, steps: u32, number: u32, health: &str) -> Value {
        let written = steps.min(WRITTEN_OUT);
        let tasks: Vec<Value> = (0..written)
            .map(|index| json!({format!("{STEP}{index}"): self.task(health)}))
            .collect();
        let tasks = if steps > WRITTEN_OUT {
            let rounds = steps / WRITTEN_OUT;
            json!([{"rounds": {
                "for": {"each": "round", "in": format!("${{ [range({rounds})] }}")},
                "do": tasks,
            }}])
        } else {
            json!(tasks)
        };
        document(&self.workflow(number), &tasks)
    }

    /// The name of that document.
    pub fn workflow(self, number: u32) -> String {
        format!("{}-{number}", self.name())
    }
}

/// How the names of the tasks begin that are steps.
const STEP: &str = "step";

/// Whether the task at this pointer is a step.
pub fn is_step(pointer: &str) -> bool {
    pointer
        .rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with(STEP))
}

/// What runs are parked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Park {
    /// An event that never comes.
    Listen,
    /// Hours that have to pass.
    Wait,
}

impl Park {
    /// The name of its document.
    pub const fn workflow(self) -> &'static str {
        match self {
            Self::Listen => "parked-by-listen",
            Self::Wait => "parked-by-wait",
        }
    }

    /// A run that does nothing for hours.
    pub fn document(self) -> Value {
        let task = match self {
            Self::Listen => json!({"listen": {"to": {"one": {"with": {"type": "bench.never"}}}}}),
            Self::Wait => json!({"wait": {"hours": 12}}),
        };
        document(self.workflow(), &json!([{"park": task}]))
    }
}

fn document(name: &str, tasks: &Value) -> Value {
    json!({
        "document": {"dsl": "1.0.0", "namespace": NAMESPACE, "name": name, "version": "1.0.0"},
        "do": tasks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_taken_and_have_as_many_steps_as_they_say() {
        for kind in [Kind::Agent, Kind::Noop, Kind::Set] {
            for steps in [1, 10, 10_000] {
                let text = kind.document(steps, 7, "127.0.0.1:1").to_string();
                let parsed = muster_workflow_dsl::parse(&text);
                assert!(parsed.is_ok(), "{kind:?} {steps}: {parsed:?}");
            }
        }
        for park in [Park::Listen, Park::Wait] {
            let parsed = muster_workflow_dsl::parse(&park.document().to_string());
            assert!(parsed.is_ok(), "{park:?}: {parsed:?}");
        }
        assert!(is_step("/do/0/rounds/do/3/step3"));
        assert!(!is_step("/do/0/rounds"));
    }
}
