//! JSON as it crosses A2A.
//!
//! `google.protobuf.Value` knows only doubles, so the integer `5` arrives as `5.0`, which no integer field
//! accepts. Both sides that hand values to programs (the agent SDK, the workflow engine) restore integers with
//! [`restore_integers`]; a value that was written `5.0` becomes `5` too, which JSON does not tell apart.

use serde::Serialize;
use serde_json::{Number, Value};

/// Largest magnitude up to which every integer is a double of its own.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// Turns every whole double within ±(2⁵³−1) into an integer, in place. Iterative, so that depth is no danger.
pub fn restore_integers(value: &mut Value) {
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        match value {
            Value::Number(number) if number.is_f64() => {
                if let Some(whole) = number
                    .as_f64()
                    .filter(|double| double.fract() == 0.0 && double.abs() <= EXACT)
                {
                    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
                    let whole = whole as i64;
                    *value = Value::Number(Number::from(whole));
                }
            }
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => pending.extend(fields.values_mut()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// Bytes of the value as JSON, without writing it anywhere; the most there is where it has no JSON form.
pub fn length(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).map_or(usize::MAX, |()| counter.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_length_is_that_of_the_text() {
        let value = json!({"a": [1, 2.5, "é"], "b": null});
        assert_eq!(length(&value), value.to_string().len());
    }

    #[test]
    fn whole_doubles_become_integers_and_others_stay() {
        let mut value = json!({"a": 5.0, "b": [1.5, -3.0, {"c": 0.0}], "d": "5.0", "e": 1e300, "f": 9_007_199_254_740_993.0});
        restore_integers(&mut value);
        assert_eq!(
            value.to_string(),
            r#"{"a":5,"b":[1.5,-3,{"c":0}],"d":"5.0","e":1e+300,"f":9007199254740992.0}"#
        );
    }
}
