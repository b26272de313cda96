//! Evaluating the expressions of a task: what they see, and what becomes of their errors.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::effect::after;
use super::state::{Activation, Scope};
use super::{DEEPEST_VALUE, LARGEST_VALUE, Run, Status};
use crate::document::{Period, Task, Template};
use crate::duration;
use crate::expression::{Expression, Variables};
use crate::journal::{Problem, Standard};
use crate::schema::Schema;

/// What the expressions at some point of a run see.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) run: &'a Run,
    /// The task whose expressions they are; none for those of the workflow.
    pub(super) task: Option<&'a Task>,
    pub(super) started: Timestamp,
    pub(super) raw_input: &'a Arc<Value>,
    pub(super) input: &'a Arc<Value>,
    pub(super) raw_output: Option<&'a Arc<Value>>,
    pub(super) output: Option<&'a Arc<Value>>,
    pub(super) scope: Option<&'a Arc<Scope>>,
    pub(super) now: Timestamp,
}

impl<'a> View<'a> {
    /// What the expressions of a task in progress see.
    pub(super) fn of(run: &'a Run, task: &'a Task, activation: &'a Activation, now: Timestamp) -> Self {
        Self {
            run,
            task: Some(task),
            started: activation.started,
            raw_input: &activation.raw_input,
            input: &activation.input,
            raw_output: None,
            output: None,
            scope: activation.scope.as_ref(),
            now,
        }
    }

    /// The value of an expression.
    pub(super) fn value(&self, expression: &Expression, dot: &Value) -> Result<Value, Problem> {
        let result = expression.evaluate(dot, &self.variables(expression)?, self.now);
        result.map_err(|error| Problem::standard(Standard::Expression, error.to_string()))
    }

    /// Whether the value of an expression is true.
    pub(super) fn is_true(&self, expression: &Expression, dot: &Value) -> Result<bool, Problem> {
        let result = expression.is_true(dot, &self.variables(expression)?, self.now);
        result.map_err(|error| Problem::standard(Standard::Expression, error.to_string()))
    }

    /// What a template stands for. Documents nest no deeper than the parser allows, and templates with them.
    pub(super) fn template(&self, template: &Template, dot: &Value) -> Result<Value, Problem> {
        Ok(match template {
            Template::Literal(value) => value.clone(),
            Template::Expression(expression) => self.value(expression, dot)?,
            Template::Attempt(expression, text) => self
                .value(expression, dot)
                .unwrap_or_else(|_| Value::String(text.clone())),
            Template::Array(items) => items
                .iter()
                .map(|item| self.template(item, dot))
                .collect::<Result<_, _>>()?,
            Template::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.template(value, dot)?)));
                Value::Object(fields.collect::<Result<_, Problem>>()?)
            }
        })
    }

    /// As [`Self::template`], as a value of the run: its size is checked.
    pub(super) fn shared(&self, template: &Template, dot: &Value, what: &str) -> Result<Arc<Value>, Problem> {
        bounded(self.template(template, dot)?, what)
    }

    /// The value of a duration.
    pub(super) fn period(&self, period: &Period, dot: &Value, what: &str) -> Result<Duration, Problem> {
        match period {
            Period::Fixed(duration) => Ok(*duration),
            Period::Computed(template) => duration::from_value(&self.template(template, dot)?)
                .map_err(|error| Problem::standard(Standard::Expression, format!("{what} is {error}"))),
        }
    }

    /// When something that begins at `start` times out.
    pub(super) fn deadline(
        &self,
        timeout: Option<&Period>,
        dot: &Value,
        start: Timestamp,
        what: &str,
    ) -> Result<Option<Timestamp>, Problem> {
        let Some(timeout) = timeout else { return Ok(None) };
        let duration = self.period(timeout, dot, what)?;
        if duration.is_zero() {
            let detail = format!("{what} must be above zero");
            return Err(Problem::standard(Standard::Expression, detail));
        }
        Ok(Some(after(start, duration)))
    }

    fn variables(&self, expression: &Expression) -> Result<Variables, Problem> {
        let mut variables = Variables::new();
        for name in expression.variables() {
            if let Some(value) = self.variable(name)? {
                variables.set(name.as_str(), value);
            }
        }
        Ok(variables)
    }

    fn variable(&self, name: &str) -> Result<Option<Arc<Value>>, Problem> {
        let or_null = |value: Option<&Arc<Value>>| value.cloned().unwrap_or_default();
        Ok(match name {
            "context" => Some(Arc::clone(&self.run.context)),
            "input" => Some(Arc::clone(self.input)),
            "output" => Some(or_null(self.output)),
            "workflow" => Some(self.workflow()),
            // The tasks of an extension see the task that is extended.
            "task" => Some(
                Scope::find(self.scope, EXTENDED)
                    .cloned()
                    .unwrap_or_else(|| Arc::new(self.descriptor())),
            ),
            "runtime" => Some(Arc::new(
                json!({"name": "muster", "version": env!("CARGO_PKG_VERSION"), "metadata": {}}),
            )),
            "secrets" => {
                let listed = &self.run.definition.workflow.secrets;
                let secrets = self.run.secrets.value(listed);
                Some(secrets.map_err(|why| Problem::standard(Standard::Authorization, why))?)
            }
            "authorization" => Some(Arc::new(self.authorization())),
            name => Scope::find(self.scope, name).cloned(),
        })
    }

    fn workflow(&self) -> Arc<Value> {
        let run = self.run;
        let make = |input: &Value, started| {
            Arc::new(json!({
                "id": &*run.id,
                "definition": &run.definition.workflow.raw,
                "input": input,
                "startedAt": date(started),
            }))
        };
        // What the run begins with is not part of its state yet.
        if run.status() == Status::Pending {
            return make(self.raw_input, self.now);
        }
        Arc::clone(run.descriptor.get_or_init(|| make(&run.input, run.started)))
    }

    fn descriptor(&self) -> Value {
        let Some(task) = self.task else { return Value::Null };
        descriptor(self.run, task, self.raw_input, self.raw_output, self.started)
    }
}

/// Name of the variable that holds the descriptor of an extended task: no author can write it.
pub(super) const EXTENDED: &str = "task";

/// What `$task` is for a task.
fn descriptor(
    run: &Run,
    task: &Task,
    raw_input: &Arc<Value>,
    raw_output: Option<&Arc<Value>>,
    started: Timestamp,
) -> Value {
    json!({
        "name": task.name,
        "reference": task.pointer,
        "definition": run.definition.workflow.raw_task(task),
        "input": &**raw_input,
        "output": raw_output.map(|output| &**output),
        "startedAt": date(started),
    })
}

/// What `$task` is for an extension of a task. The language's own examples read the fields of its definition right there.
pub(super) fn extended_descriptor(
    run: &Run,
    task: &Task,
    raw_input: &Arc<Value>,
    output: Option<&Arc<Value>>,
    started: Timestamp,
) -> Value {
    let mut descriptor = descriptor(run, task, raw_input, output, started);
    if let (Value::Object(fields), Value::Object(definition)) =
        (&mut descriptor, run.definition.workflow.raw_task(task))
    {
        for (name, value) in definition {
            fields.entry(name).or_insert_with(|| value.clone());
        }
    }
    descriptor
}

/// Refuses a value that does not fit its schema.
pub(super) fn fits(schema: Option<&Schema>, value: &Value, what: &str) -> Result<(), Problem> {
    let Some(schema) = schema else { return Ok(()) };
    schema.check(value).map_err(|violation| {
        let detail = format!("{what} does not fit its schema: {violation}");
        Problem::standard(Standard::Validation, detail)
    })
}

/// An instant as the DSL describes it to expressions.
fn date(time: Timestamp) -> Value {
    json!({
        "iso8601": muster_api::time::rfc3339(time),
        "epoch": {"seconds": time.as_second(), "milliseconds": time.as_millisecond()},
    })
}

/// The value, if it is within the bounds of a run.
pub(super) fn bounded(value: Value, what: &str) -> Result<Arc<Value>, Problem> {
    match excess(&value) {
        None => Ok(Arc::new(value)),
        Some(excess) => Err(Problem::standard(Standard::Runtime, format!("{what} {excess}"))),
    }
}

/// Refuses an object that is out of the bounds of a run.
pub(super) fn within(fields: &Map<String, Value>, what: &str) -> Result<(), Problem> {
    let sizes = fields.iter().map(|(name, value)| {
        let levels = DEEPEST_VALUE - 1;
        size(value, levels).map(|size| size.saturating_add(name.len() + 3))
    });
    let bytes = sizes.sum::<Option<usize>>();
    if bytes.is_some_and(|bytes| bytes <= LARGEST_VALUE) {
        return Ok(());
    }
    let detail =
        format!("{what} must have at most {LARGEST_VALUE} bytes and nest at most {DEEPEST_VALUE} deep");
    Err(Problem::standard(Standard::Runtime, detail))
}

/// How the value exceeds the bounds of a run, if it does.
pub(super) fn excess(value: &Value) -> Option<String> {
    match size(value, DEEPEST_VALUE) {
        None => Some(format!("nests more than {DEEPEST_VALUE} deep")),
        Some(bytes) if bytes > LARGEST_VALUE => Some(format!(
            "has about {bytes} bytes; {LARGEST_VALUE} is the most, so pass a reference instead"
        )),
        Some(_) => None,
    }
}

/// Length as JSON, roughly, of a value that is within the bounds.
pub(super) fn weight(value: &Value) -> usize {
    size(value, DEEPEST_VALUE).unwrap_or(usize::MAX)
}

/// Length as JSON, roughly; none if it is nested too deeply.
fn size(value: &Value, levels: usize) -> Option<usize> {
    let levels = levels.checked_sub(1)?;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(8),
        Value::String(text) => Some(text.len() + 2),
        Value::Array(items) => items.iter().try_fold(2, |sum: usize, item| {
            Some(sum.saturating_add(size(item, levels)?))
        }),
        Value::Object(fields) => fields.iter().try_fold(2, |sum: usize, (name, value)| {
            Some(
                sum.saturating_add(name.len() + 3)
                    .saturating_add(size(value, levels)?),
            )
        }),
    }
}
