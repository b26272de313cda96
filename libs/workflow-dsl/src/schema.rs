//! JSON Schemas for the data of a workflow, bounded in time, memory and stack.
//!
//! Schemas come from strangers as documents do, and the standard lets a small one ask for exponential work: alternatives
//! that refer to each other, patterns that explode, references that go in circles. Therefore:
//!
//! - **Text**: a schema has at most [`MOST_PARTS`] subschemas and [`MOST_PATTERNS`] patterns; regular expressions run on an
//!   engine without backtracking, under a limit of size, so that `(a+)+$` is linear and lookarounds are refused.
//! - **References** lead to places in the same schema. Anything else is refused by name: nothing is fetched. A schema may
//!   contain itself further down in the value, as a tree does; one that refers to itself at the same place is refused.
//! - **Time**: with its references expanded a schema has at most [`MOST_EXPANDED`] subschemas, and that times the size of the
//!   value is at most [`MOST_WORK`]; what recurses is remembered by the validator for each place of the value. Finding the words for
//!   a violation looks at all alternatives, so there each subschema spends from a budget, through a keyword of ours; when it is gone
//!   the search unwinds, and the answer does without the words.
//! - **Stack**: what recurses, or nests deeply, is checked on a stack made for it.
//!
//! `format` is an annotation, as the current draft has it, and asserts nothing. The rejected alternative: writing a
//! validator of our own with a budget in its loop, which would be a second implementation of a large standard.

mod survey;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use crate::stack;
use survey::Survey;

/// Most subschemas of one schema.
pub const MOST_PARTS: usize = 2000;

/// Most patterns of one schema.
pub const MOST_PATTERNS: usize = 50;

/// Most subschemas of one schema when its references are expanded.
pub const MOST_EXPANDED: u64 = 10_000;

/// Most work of one validation: subschemas of the expanded schema, times the values in the value.
pub const MOST_WORK: u64 = 50_000_000;

/// What finding the words for a violation may spend: the validator then collects what is wrong with every alternative.
const MOST_EXPLANATION: u64 = 20_000;

/// Stack for schemas that recurse or nest deeply.
const DEEP_STACK: usize = 256 * 1024 * 1024;

/// Largest compiled pattern, and the most that matching it caches, in bytes.
const LARGEST_PATTERN: usize = 256 * 1024;

/// The keyword that spends from the budget of an explanation.
const WORK: &str = "x-muster-work";

/// A compiled schema. Clones share it.
#[derive(Clone)]
pub struct Schema {
    validator: Arc<Validator>,
    deep: bool,
    /// Subschemas, with references expanded.
    expanded: u64,
    patterns: usize,
}

/// Why a value is not a schema that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// JSON pointer of what is wrong, in the schema.
    pub pointer: String,
    /// What is wrong, and what to do instead.
    pub message: String,
}

/// Why a value does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A rule is broken.
    #[error("at {}: {message} (rule {rule})", place(pointer))]
    Rule {
        /// JSON pointer of the place in the value; empty for the whole value.
        pointer: String,
        /// JSON pointer of the rule in the schema.
        rule: String,
        /// What the rule says.
        message: String,
    },
    /// Checking it would take too long.
    #[error(
        "the value is too large for a schema with so many parts; make the schema simpler, or pass a reference to the value"
    )]
    Exceeded,
    /// A defect of the validator, not of the value.
    #[error("the schema could not be checked: {0}")]
    Internal(String),
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn compile(schema: &Value) -> Result<Self, Refusal> {
        let survey = survey::survey(schema)?;
        let work = || compile(schema, &survey);
        let compiled = stack::run(DEEP_STACK, work).map_err(|message| Refusal {
            pointer: String::new(),
            message: format!("the schema could not be read: {message}"),
        });
        let validator = compiled??;
        Ok(Self {
            validator: Arc::new(validator),
            deep: survey.deep,
            expanded: survey.expanded,
            patterns: survey.patterns,
        })
    }

    /// How many regular expressions it contains.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.patterns
    }

    /// Whether the value fits.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, value: &Value) -> Result<(), Violation> {
        if self.expanded.saturating_mul(count(value)) > MOST_WORK {
            return Err(Violation::Exceeded);
        }
        if self.deep {
            stack::run(DEEP_STACK, || self.judge(value)).map_err(Violation::Internal)?
        } else {
            self.judge(value)
        }
    }

    /// First whether the value fits, which stops at the first contradiction, and only then why not.
    fn judge(&self, value: &Value) -> Result<(), Violation> {
        if spending(u64::MAX, || self.validator.is_valid(value))? {
            return Ok(());
        }
        let explained = spending(MOST_EXPLANATION, || {
            let error = self.validator.validate(value).err();
            error.map(|error| violation(&error))
        });
        Err(explained.ok().flatten().unwrap_or_else(|| Violation::Rule {
            pointer: String::new(),
            rule: String::new(),
            message: "it fits none of the alternatives, which are too many to say why".to_owned(),
        }))
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Schema").finish_non_exhaustive()
    }
}

/// How many values there are in a value, the text counted by its length.
fn count(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() as u64 / 1024,
        Value::Array(items) => 1 + items.iter().map(count).sum::<u64>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<u64>(),
    }
}

fn place(pointer: &str) -> &str {
    if pointer.is_empty() { "the top" } else { pointer }
}

fn compile(schema: &Value, survey: &Survey) -> Result<Validator, Refusal> {
    let metered = survey.metered(schema, WORK);
    let pattern = PatternOptions::regex()
        .size_limit(LARGEST_PATTERN)
        .dfa_size_limit(LARGEST_PATTERN);
    jsonschema::options()
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(pattern)
        .with_keyword(WORK, |parent, _, _| Ok(Box::new(Work::of(parent))))
        .build(&metered)
        .map_err(|error| Refusal {
            pointer: error.instance_path().as_str().to_owned(),
            message: format!("not a valid JSON Schema: {}", described(&error)),
        })
}

/// The violation without the value in it, which may be large, or nobody else's business.
fn violation(error: &ValidationError<'_>) -> Violation {
    Violation::Rule {
        pointer: error.instance_path().as_str().to_owned(),
        rule: error.schema_path().as_str().to_owned(),
        message: described(error),
    }
}

fn described(error: &ValidationError<'_>) -> String {
    const LONGEST: usize = 400;
    let shown = match &**error.instance() {
        Value::Array(_) => "the list".to_owned(),
        Value::Object(_) => "the object".to_owned(),
        Value::String(text) if text.len() > 60 => "the text".to_owned(),
        scalar => scalar.to_string(),
    };
    let mut message = match error.kind() {
        // Its own message repeats every alternative, and those repeat the value.
        ValidationErrorKind::AnyOf { .. } => format!("{shown} fits none of the alternatives of 'anyOf'"),
        _ => error.masked_with(shown).to_string(),
    };
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    message
}

thread_local! {
    /// What is left of the budget of the validation that runs on this thread.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// How a validation ends whose budget is used up.
struct Spent;

/// Runs a validation with a budget.
fn spending<T>(budget: u64, work: impl FnOnce() -> T) -> Result<T, Violation> {
    LEFT.set(budget);
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result),
        Err(panic) if panic.is::<Spent>() => Err(Violation::Exceeded),
        Err(panic) => Err(Violation::Internal(stack::panic_message(panic.as_ref()))),
    }
}

/// Spends for one subschema, each time it is applied.
struct Work {
    /// For the keywords beside it.
    fixed: u64,
    /// For each item, field or character of the value.
    each: u64,
}

impl Work {
    fn of(parent: &Map<String, Value>) -> Self {
        let length = |value: &Value| match value {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 1,
        };
        let patterns = parent.get("patternProperties").map_or(0, length);
        Self {
            fixed: parent.values().map(|value| length(value) as u64).sum(),
            each: 1 + patterns as u64,
        }
    }

    fn spend(&self, value: &Value) {
        let size = match value {
            Value::String(text) => text.len() / 8,
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        };
        let cost = self.fixed + self.each.saturating_mul(size as u64);
        match LEFT.get().checked_sub(cost) {
            Some(left) => LEFT.set(left),
            None => resume_unwind(Box::new(Spent)),
        }
    }
}

impl<'i> Keyword<'i> for Work {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        self.spend(value);
        Ok(())
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        self.spend(value);
        true
    }
}

#[cfg(test)]
mod tests;
