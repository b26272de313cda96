//! The example workflows that ship with the binary, and how their results are shown.
//!
//! The same files stand in `examples/` for `muster workflow run FILE`.

use serde_json::Value;

use crate::failure::Failure;

/// A workflow with an input.
pub struct Example {
    /// Its name for people.
    pub title: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The document.
    pub document: &'static str,
    /// The input, JSON.
    input: &'static str,
    /// Pointers into the output that are worth showing.
    shown: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const ALL: &[Example] = &[
    Example {
        title: "A trip around the rain",
        about: "weather for two cities → statistics and a chart → a plan around the rainy days → a message to the customer",
        document: include_str!("../../examples/trip.yaml"),
        input: include_str!("../../examples/trip.json"),
        shown: &[
            ("city", "/city"),
            ("rainy days", "/rainy_dates"),
            ("critical path", "/plan/critical_path"),
            ("finishes", "/plan/finish_date"),
            ("message", "/message"),
        ],
    },
    Example {
        title: "An incident",
        about: "findings from a log file → triage → response plan and notice",
        document: include_str!("../../examples/incident.yaml"),
        input: include_str!("../../examples/incident.json"),
        shown: &[
            ("risk", "/risk"),
            ("findings", "/findings"),
            ("response", "/response"),
            ("notice", "/notice"),
        ],
    },
    Example {
        title: "When things fail",
        about: "a failing step retried and caught, two branches in parallel, a choice by result",
        document: include_str!("../../examples/resilience.yaml"),
        input: include_str!("../../examples/resilience.json"),
        shown: &[
            ("attempts", "/attempts"),
            ("branches", "/branches"),
            ("outcome", "/outcome"),
        ],
    },
];

impl Example {
    /// The input.
    pub fn input(&self) -> Result<Value, Failure> {
        serde_json::from_str(self.input)
            .map_err(|error| Failure::failed(format!("{}: input: {error}", self.title)))
    }

    /// The output's interesting parts, for people.
    pub fn lines(&self, output: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, pointer) in self.shown {
            match output.pointer(pointer) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => {
                    lines.push(format!("{name}:"));
                    lines.extend(text.lines().map(|line| format!("    {line}")));
                }
                Some(Value::Array(items)) if items.iter().any(Value::is_object) => {
                    lines.push(format!("{name}:"));
                    lines.extend(items.iter().map(|item| format!("    {item}")));
                }
                Some(value) => lines.push(format!("{name}: {value}")),
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_valid_document_with_a_json_input() {
        for example in ALL {
            let problems = muster_workflow_dsl::check(example.document);
            assert!(problems.is_empty(), "{}: {problems}", example.title);
            example.input().unwrap();
        }
    }
}
