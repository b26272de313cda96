//! jq's order of all values.

use std::cmp::Ordering;

use super::Value;
use crate::expression::budget;

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// jq's order of all values. Unlike in jq, what is not a number equals itself: sorting needs a total order.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        budget::spend(1);
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => compare_floats(*left, *right),
            (Self::Int(left), Self::Float(right)) => compare_mixed(*left, *right),
            (Self::Float(left), Self::Int(right)) => compare_mixed(*right, *left).reverse(),
            (Self::Text(left), Self::Text(right)) => {
                budget::spend_bytes(left.len().min(right.len()));
                left.cmp(right)
            }
            (Self::Array(left), Self::Array(right)) => left.items.cmp(&right.items),
            (Self::Object(left), Self::Object(right)) => {
                budget::spend(left.fields.len().min(right.fields.len()) as u64);
                left.fields
                    .keys()
                    .cmp(right.fields.keys())
                    .then_with(|| left.fields.values().cmp(right.fields.values()))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

/// Exact, because an order that rounds is not transitive.
fn compare_mixed(left: i64, right: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if right.is_nan() || right < -LIMIT {
        return Ordering::Greater;
    }
    if right >= LIMIT {
        return Ordering::Less;
    }
    let whole = right.trunc();
    left.cmp(&(whole as i64))
        .then_with(|| compare_floats(0.0, right - whole))
}
