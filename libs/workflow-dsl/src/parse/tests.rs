//! Documents, good and bad, and what is said of them.

mod bounds;
mod calls;
mod doubts;
mod events;
mod good;
mod launching;
mod others;
mod policies;
mod random;
mod structure;
mod values;

use super::*;
use crate::problem::Severity;

/// A document with these tasks, which begin at line 3.
fn with_tasks(tasks: &str) -> String {
    format!("document: {{dsl: '1.0.1', namespace: default, name: sample, version: '1.0.0'}}\ndo:\n{tasks}")
}

/// One document that uses every part of the language that is supported.
const WHOLE: &str = include_str!("tests/whole.yaml");

/// What is wrong, as `line:column pointer`, with the message.
fn complaints(text: &str) -> Vec<(String, String)> {
    check(text)
        .into_iter()
        .map(|problem| {
            let warning = if problem.severity == Severity::Warning {
                "warning "
            } else {
                ""
            };
            let place = format!("{warning}{}:{} {}", problem.line, problem.column, problem.pointer);
            (place, problem.message.clone())
        })
        .collect()
}

/// Asserts that exactly one thing is wrong, at this place and with each of these words in its message.
fn refuses(text: &str, place: &str, words: &[&str]) {
    let complaints = complaints(text);
    let [(actual, message)] = complaints.as_slice() else {
        panic!("expected one complaint at {place}, found {complaints:#?}\nin\n{text}");
    };
    assert_eq!(actual, place, "{message}\nin\n{text}");
    for word in words {
        assert!(
            message.contains(word),
            "{word:?} is not in {message:?}\nin\n{text}"
        );
    }
}

/// One thing wrong among the tasks.
fn refuses_tasks(tasks: &str, place: &str, words: &[&str]) {
    refuses(&with_tasks(tasks), place, words);
}
