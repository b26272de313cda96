//! What work costs: the tokens and the money that agents say they have used, and budgets of them.
//!
//! An agent reports what it used for an answer in the metadata of its task or message, under [`KEY`]:
//! `{"tokens": 1200, "cost": 0.018}`. Instead of `tokens` it may give `inputTokens` and `outputTokens`. Money has one currency
//! for the whole fleet, which is the operator's choice; it is counted in millionths, so that sums are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// Key of the report in an answer's metadata.
pub const KEY: &str = "urn:muster:a2a:usage:v1";

/// Parts of which one unit of money is made.
const MILLIONTHS: f64 = 1_000_000.0;

/// Most money that is counted: sums of it stay exact.
const MOST_MONEY: f64 = 1e12;

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Tokens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// Money, in millionths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_micros: u64,
}

/// How much may be used. What is not given is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// So much money in millionths, if it is an amount: not negative, finite and not beyond counting.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between zero and 10^18"
)]
pub fn micros(money: f64) -> Option<u64> {
    (0.0..=MOST_MONEY)
        .contains(&money)
        .then(|| (money * MILLIONTHS).round() as u64)
}

/// So many millionths as money.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^53 millionths")]
pub fn money(micros: u64) -> f64 {
    micros as f64 / MILLIONTHS
}

impl Usage {
    /// What an answer reports, if it reports something. A report that makes no sense is none. Of the events of a stream the
    /// last report counts: it is of the whole answer.
    #[must_use]
    pub fn reported(answer: &Value) -> Option<Self> {
        if let Value::Array(events) = answer {
            let parts = |event: &Value| {
                let part = |kind| event.get(kind).and_then(Self::reported_of);
                ["task", "message", "statusUpdate"].into_iter().find_map(part)
            };
            return events.iter().rev().find_map(parts);
        }
        Self::reported_of(answer)
    }

    fn reported_of(answer: &Value) -> Option<Self> {
        let metadata = |value: Option<&Value>| value?.get("metadata")?.get(KEY).cloned();
        let report = metadata(Some(answer)).or_else(|| metadata(answer.pointer("/status/message")))?;
        Self::of(&report)
    }

    /// What a report says.
    #[must_use]
    pub fn of(report: &Value) -> Option<Self> {
        let count = |name: &str| match report.get(name) {
            None | Some(Value::Null) => Some(None),
            Some(value) => whole(value).map(Some),
        };
        let tokens = match count("tokens")? {
            Some(tokens) => tokens,
            None => {
                let parts = [count("inputTokens")?, count("outputTokens")?];
                parts.into_iter().flatten().fold(0, u64::saturating_add)
            }
        };
        let cost_micros = match report.get("cost") {
            None | Some(Value::Null) => 0,
            Some(cost) => micros(cost.as_f64()?)?,
        };
        let usage = Self { tokens, cost_micros };
        (usage != Self::default()).then_some(usage)
    }

    /// As expressions and people see it.
    #[must_use]
    pub fn to_value(self) -> Value {
        Limits::from(self).to_value()
    }
}

/// A whole number, also as the double that ProtoJSON makes of it.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0)
            .then(|| micros(number))
            .flatten()
            .map(|millionths| millionths / 1_000_000)
    })
}

impl Limits {
    /// Whether nothing may be used any more.
    #[must_use]
    pub fn reached_by(&self, usage: Usage) -> bool {
        self.tokens.is_some_and(|most| usage.tokens >= most)
            || self.cost_micros.is_some_and(|most| usage.cost_micros >= most)
    }

    /// These limits, higher by what `more` says.
    #[must_use]
    pub fn raised(self, more: Self) -> Self {
        let raise = |limit: Option<u64>, more: Option<u64>| {
            limit.map(|limit| limit.saturating_add(more.unwrap_or(0)))
        };
        Self {
            tokens: raise(self.tokens, more.tokens),
            cost_micros: raise(self.cost_micros, more.cost_micros),
        }
    }

    /// So much more than what has been used.
    #[must_use]
    pub fn beyond(self, usage: Usage) -> Self {
        self.raised(Self::from(usage))
    }

    /// As expressions and people see it.
    #[must_use]
    pub fn to_value(self) -> Value {
        let tokens = self
            .tokens
            .map(|tokens| ("tokens".to_owned(), Value::from(tokens)));
        let cost = self
            .cost_micros
            .and_then(|micros| Some(("cost".to_owned(), Value::Number(Number::from_f64(money(micros))?))));
        tokens.into_iter().chain(cost).collect()
    }
}

impl From<Usage> for Limits {
    fn from(usage: Usage) -> Self {
        Self {
            tokens: Some(usage.tokens),
            cost_micros: Some(usage.cost_micros),
        }
    }
}

impl From<Limits> for Usage {
    fn from(limits: Limits) -> Self {
        Self {
            tokens: limits.tokens.unwrap_or(0),
            cost_micros: limits.cost_micros.unwrap_or(0),
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost_micros: self.cost_micros.saturating_sub(other.cost_micros),
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// Such as `1200 tokens and 0.018 of money`.
impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} tokens and {} of money",
            self.tokens,
            money(self.cost_micros)
        )
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tokens, self.cost_micros) {
            (Some(tokens), Some(micros)) => {
                write!(formatter, "{tokens} tokens and {} of money", money(micros))
            }
            (Some(tokens), None) => write!(formatter, "{tokens} tokens"),
            (None, Some(micros)) => write!(formatter, "{} of money", money(micros)),
            (None, None) => formatter.write_str("anything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_report_in_their_metadata() {
        let usage = |tokens, cost_micros| Some(Usage { tokens, cost_micros });
        for (report, expected) in [
            (json!({"tokens": 1200, "cost": 0.018}), usage(1200, 18_000)),
            (json!({"inputTokens": 3, "outputTokens": 4.0}), usage(7, 0)),
            (json!({"cost": 0.1}), usage(0, 100_000)),
            (json!({}), None),
            (json!({"tokens": 0}), None),
            (json!({"tokens": -1}), None),
            (json!({"tokens": 1.5}), None),
            (json!({"tokens": "many"}), None),
            (json!({"cost": -0.1}), None),
            (json!({"cost": 1e300}), None),
            (json!([]), None),
        ] {
            let task = json!({"id": "t", "metadata": {KEY: report}});
            assert_eq!(Usage::reported(&task), expected, "{task}");
            let spoken = json!({"id": "t", "status": {"message": {"metadata": {KEY: report}}}});
            assert_eq!(Usage::reported(&spoken), expected, "{spoken}");
            let earlier = json!({"task": {"id": "t"}});
            for kind in ["task", "message", "statusUpdate"] {
                let later = json!({kind: {"metadata": {KEY: report}}});
                let streamed = json!([earlier, later, {"artifactUpdate": {}}]);
                assert_eq!(Usage::reported(&streamed), expected, "{streamed}");
            }
        }
        let growing = json!([
            {"statusUpdate": {"metadata": {KEY: {"tokens": 1}}}},
            {"statusUpdate": {"metadata": {KEY: {"tokens": 3}}}},
        ]);
        assert_eq!(Usage::reported(&growing), usage(3, 0));
        for answer in [
            json!(null),
            json!("x"),
            json!({"metadata": []}),
            json!({"metadata": {"other": 1}}),
        ] {
            assert_eq!(Usage::reported(&answer), None, "{answer}");
        }
    }

    #[test]
    fn sums_are_exact_and_limits_are_reached() {
        let tenth = Usage {
            tokens: 1,
            cost_micros: micros(0.1).unwrap(),
        };
        let ten: Usage = std::iter::repeat_n(tenth, 10).sum();
        assert_eq!(ten.cost_micros, 1_000_000);
        let limits = Limits {
            tokens: None,
            cost_micros: micros(1.0),
        };
        assert!(limits.reached_by(ten) && !limits.reached_by(ten - tenth));
        assert!(!limits.raised(limits).reached_by(ten));
        assert_eq!(limits.beyond(ten).cost_micros, Some(2_000_000));
        assert!(!Limits::default().reached_by(ten));
        assert_eq!(limits.to_string(), "1 of money");
    }
}
