//! The README's table of metrics is the one of their definitions.

use muster_runtime::metrics::{Definition, STANDARD, rows};

/// Who has them, and which.
fn all() -> [(&'static str, &'static [Definition]); 7] {
    [
        ("Every service", STANDARD),
        (
            "Every service, of those it speaks with",
            muster_runtime::trust::metrics::DEFINITIONS,
        ),
        ("Registry", muster_registry::metrics::DEFINITIONS),
        ("Router", muster_router::metrics::DEFINITIONS),
        ("Workflow engine", muster_workflow_engine::metrics::DEFINITIONS),
        ("Every agent", muster_agent_sdk::metrics::DEFINITIONS),
        (
            "The customer-service agent",
            muster_agent_customer_service::metrics::DEFINITIONS,
        ),
    ]
}

#[test]
fn the_readme_lists_every_metric_as_it_is_defined() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let listed = readme
        .split_once("<!-- metrics:begin -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- metrics:end -->"))
        .map(|(table, _)| table)
        .expect("the README has the markers");
    let mut expected = String::new();
    for (whose, definitions) in all() {
        let table = rows(definitions);
        expected.push_str(&format!(
            "{whose}:\n\n| metric | kind (bounds) | what it says |\n|---|---|---|\n{table}\n"
        ));
    }
    assert!(listed == expected, "put this between the markers:\n{expected}");
}
