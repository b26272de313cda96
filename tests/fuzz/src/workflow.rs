//! Workflow documents: any text is read or refused without a panic, and what is refused is refused for a reason. What is accepted is
//! accepted again, and can be drawn.

use muster_workflow_dsl::{check, graph, parse};

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match parse(text) {
        Ok(definition) => {
            assert!(!check(text).has_errors());
            assert_eq!(definition.source.as_ref(), text);
            let _drawn = graph::mermaid(&definition.workflow);
        }
        Err(problems) => assert!(problems.has_errors(), "{problems:?}"),
    }
}
