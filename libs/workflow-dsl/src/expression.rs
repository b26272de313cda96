//! Runtime expressions in jq, bounded in time, memory and stack.
//!
//! Documents come from strangers, and an expression runs inside the engine. jaq as it stands lets one abort the
//! process (a recursive `def`, a deep value) or keep a thread for ever (`repeat`). Here jaq's parser, compiler and
//! evaluator run under four bounds:
//!
//! - **Text**: at most [`LONGEST`] bytes, parsed on a stack that is large enough for the deepest nesting that so many
//!   bytes can write down.
//! - **Stack**: definitions that call themselves are refused, the nesting of what is left is measured (`check`), and
//!   what nests deeply is evaluated on a stack made for it.
//! - **Time**: every node that does work and every item that is produced spends from a budget of a million steps
//!   (`budget`). When it is gone, the evaluation ends in a way that `try` does not catch.
//! - **Memory**: copying spends too, and a value that is too large or too deep is never made (`value`).
//!
//! The honest limits: a step is a small amount of work, not a unit of time; a million take a fraction of a second in a
//! release build, several seconds in a debug build. One native function runs to its end before the next step is
//! charged: the most expensive are `sort` and the like on the largest value, and a regular expression (whose cost is
//! estimated and charged before). A bug in jaq that panics is caught and reported as [`Error::Internal`].
//!
//! An evaluation is a function of the input, the variables and `now`. The rejected alternatives: a child process with a
//! deadline costs milliseconds and a protocol for what is usually `.city`; interrupting a thread is not possible in
//! safe Rust; another expression language would not be the DSL's.

mod access;
mod budget;
mod calendar;
mod check;
mod functions;
mod library;
mod operators;
mod program;
mod shape;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use budget::Exceeded;
pub(crate) use budget::spent;
use program::Program;
pub(crate) use shape::Shape;

/// Longest expression, in bytes.
pub const LONGEST: usize = 8 * 1024;

/// At most so many characters of an expression are repeated in a message.
const LONGEST_QUOTE: usize = 80;

/// A compiled expression. Clones share the program.
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
    source: Arc<str>,
}

/// Values for an expression's free variables, by name without `$`.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<Arc<str>, Arc<Value>>);

/// Why there is no expression, or no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not jq.
    #[error("not a valid jq expression: {message}, at character {position} of '{expression}'")]
    Syntax {
        /// The beginning of the expression.
        expression: String,
        /// Where, in characters from 1.
        position: usize,
        /// What was expected.
        message: String,
    },
    /// The text is jq, but not allowed or not known here.
    #[error("{message}, in '{expression}'{}", position.map(|position| format!(" at character {position}")).unwrap_or_default())]
    Refused {
        /// The beginning of the expression.
        expression: String,
        /// Where, in characters from 1, if one place is to blame.
        position: Option<usize>,
        /// Why, and what to do instead.
        message: String,
    },
    /// The text is too long.
    #[error("an expression has at most {LONGEST} bytes, this one has {0}; split it over several tasks")]
    TooLong(usize),
    /// A variable was given no value.
    #[error("there is no variable ${name} here, in '{expression}'")]
    Variable {
        /// The beginning of the expression.
        expression: String,
        /// Name without `$`.
        name: String,
    },
    /// The expression failed, or called `error`.
    #[error("{message}, in '{expression}'")]
    Evaluation {
        /// The beginning of the expression.
        expression: String,
        /// jq's message.
        message: String,
    },
    /// The expression yields nothing.
    #[error("'{expression}' yields no value; it must yield exactly one (write '… // null' for a default)")]
    Nothing {
        /// The beginning of the expression.
        expression: String,
    },
    /// The expression yields more than one value.
    #[error("'{expression}' yields several values; it must yield exactly one (write '[…]' for an array)")]
    Several {
        /// The beginning of the expression.
        expression: String,
    },
    /// A bound was reached.
    #[error("'{expression}' {bound}")]
    Exceeded {
        /// The beginning of the expression.
        expression: String,
        /// Which bound.
        bound: &'static str,
    },
    /// A defect of the interpreter, not of the expression.
    #[error("evaluating '{expression}' failed inside the jq interpreter: {message}")]
    Internal {
        /// The beginning of the expression.
        expression: String,
        /// What happened.
        message: String,
    },
}

impl Expression {
    /// Compiles jq, with or without `${ }` around it.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn compile(text: &str) -> Result<Self, Error> {
        let trimmed = text.trim();
        let inner = trimmed.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let source = inner.unwrap_or(trimmed).trim();
        if source.len() > LONGEST {
            return Err(Error::TooLong(source.len()));
        }
        let program = program::compile(source)?;
        Ok(Self {
            program: Arc::new(program),
            source: Arc::from(source),
        })
    }

    /// The jq text, without `${ }`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names of the variables that must be given, without `$`, in order.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.program.variables
    }

    /// What can be said of it without evaluating it.
    pub(crate) fn shape(&self) -> &Shape {
        &self.program.shape
    }

    /// The one value that the expression yields.
    ///
    /// # Errors
    /// When it fails, yields no or several values, or exceeds a bound.
    pub fn evaluate(&self, input: &Value, variables: &Variables, now: Timestamp) -> Result<Value, Error> {
        self.program.evaluate(&self.source, input, variables, now)
    }

    /// Whether the value is true as jq has it: anything but `false` and `null`.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn is_true(&self, input: &Value, variables: &Variables, now: Timestamp) -> Result<bool, Error> {
        let value = self.evaluate(input, variables, now)?;
        Ok(!matches!(value, Value::Null | Value::Bool(false)))
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "${{ {} }}", self.source)
    }
}

impl Variables {
    /// No variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a variable its value; a later one hides an earlier one.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: Arc<Value>) {
        self.0.insert(name.into(), value);
    }

    /// As [`Self::set`], for building.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<Value>>) -> Self {
        self.set(name, value.into());
        self
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Value>> {
        self.0.get(name)
    }
}

impl Exceeded {
    fn bound(self) -> &'static str {
        match self {
            Self::Steps => "needs more than a million steps; do less at once, or let an agent do it",
            Self::Depth => "makes or reads a value that nests more than 128 deep",
            Self::Size => "makes or reads a value of more than 16 MiB",
        }
    }
}

/// The beginning of an expression, on one line.
fn quoted(source: &str) -> String {
    let mut characters = source
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character });
    let mut shown: String = characters.by_ref().take(LONGEST_QUOTE).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
