//! Values of a document in which some places are runtime expressions.

use serde_json::Value;

use crate::expression::Expression;

/// A value in which some places are runtime expressions, parsed once. A subtree without any is one literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// Stands for itself.
    Literal(Value),
    /// Stands for what it evaluates to.
    Expression(Expression),
    /// Loose mode: what the expression evaluates to, or the text if it fails.
    Attempt(Expression, String),
    /// An array with an expression somewhere in it.
    Array(Vec<Template>),
    /// An object with an expression somewhere in it. Keys are never expressions.
    Object(Vec<(String, Template)>),
}

impl Template {
    /// The value, if it contains no expression.
    #[must_use]
    pub fn literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Expression(_) | Self::Attempt(..) | Self::Array(_) | Self::Object(_) => None,
        }
    }
}
