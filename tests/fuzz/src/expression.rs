//! jq in documents: any text is compiled or refused without a panic, and what is compiled ends within its bounds, with a value or a
//! reason, and with the same one each time.

use std::sync::LazyLock;

use jiff::Timestamp;
use muster_workflow_dsl::expression::{Expression, Variables};
use serde_json::{Value, json};

static INPUT: LazyLock<Value> =
    LazyLock::new(|| json!({"a": [1, 2.5, "three", null], "b": {"c": true}, "d": "text"}));

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(expression) = Expression::compile(text) else {
        return;
    };
    let mut variables = Variables::new();
    for name in expression.variables() {
        variables.set(name.as_str(), std::sync::Arc::new(json!(1)));
    }
    let now = Timestamp::UNIX_EPOCH;
    let once = expression.evaluate(&INPUT, &variables, now);
    if let Ok(value) = once {
        let again = expression.evaluate(&INPUT, &variables, now);
        assert_eq!(again.ok(), Some(value), "{text}");
    }
}
