//! What a task in progress does by itself: how it begins, and the event with which it ends.

use std::sync::Arc;

use serde_json::Value;

use super::effect::after;
use super::evaluate::{View, bounded, fits};
use super::fold::known_output;
use super::retry;
use super::state::{Activation, Body, Extended};
use crate::document::{Case, ErrorTemplate, Kind, Task, Template, Uri};
use crate::journal::{EventKind, Problem, Stage, Standard};

/// Why there is no event where one must be: the task fails with this.
pub(super) type Fault = Problem;

/// A task in progress, with what is needed to decide about it.
pub(super) struct Current<'a> {
    pub(super) id: u64,
    pub(super) task: &'a Task,
    pub(super) activation: &'a Activation,
    pub(super) view: View<'a>,
}

impl Current<'_> {
    pub(super) fn pointer(&self) -> Arc<str> {
        Arc::clone(&self.activation.pointer)
    }

    pub(super) fn fault(&self, error: Problem) -> EventKind {
        EventKind::TaskFaulted {
            task: self.pointer(),
            activation: self.id,
            error: error.at(&self.task.pointer),
        }
    }

    /// The task ends with this raw output. `known` says that the state holds it already.
    pub(super) fn complete(&self, raw_output: &Arc<Value>, known: bool, case: Option<String>) -> EventKind {
        self.transformed(raw_output, known, case)
            .unwrap_or_else(|fault| self.fault(fault))
    }

    fn transformed(
        &self,
        raw_output: &Arc<Value>,
        known: bool,
        case: Option<String>,
    ) -> Result<EventKind, Fault> {
        debug_assert!(
            !known || known_output(self.activation, &self.task.kind).is_some(),
            "the fold knows it too"
        );
        let view = |output| View {
            raw_output: Some(raw_output),
            output,
            ..View::of(self.view.run, self.task, self.activation, self.view.now)
        };
        let shaped = self
            .task
            .output
            .as_ref()
            .map(|template| view(None).shared(template, raw_output, "the output"));
        let shaped = shaped.transpose()?;
        let output = shaped.as_ref().unwrap_or(raw_output);
        fits(self.task.schemas.output.as_ref(), output, "the output")?;
        let export = self
            .task
            .export
            .as_ref()
            .map(|template| view(Some(output)).shared(template, output, "the context"));
        let context = export.transpose()?;
        if let Some(context) = &context {
            fits(self.task.schemas.export.as_ref(), context, "the exported context")?;
        }
        let recorded = if known {
            shaped.clone()
        } else {
            Some(Arc::clone(output))
        };
        let (task, activation) = (self.pointer(), self.id);
        let extension = match &self.activation.body {
            // Only `then: exit` leads from here to the end of the task, past the extensions after it.
            Body::Extended(_) => None,
            _ => self.next_extension(Stage::After, None),
        };
        Ok(match extension {
            None => EventKind::TaskCompleted {
                task,
                activation,
                output: recorded,
                context,
                case,
            },
            Some(extension) => EventKind::ExtensionStarted {
                task,
                activation,
                extension,
                stage: Stage::After,
                output: recorded,
                raw: shaped.filter(|_| !known).map(|_| Arc::clone(raw_output)),
                context,
                case,
            },
        })
    }

    /// The first extension, or the first after another one, that applies and has tasks of this stage.
    fn next_extension(&self, stage: Stage, last: Option<usize>) -> Option<usize> {
        let workflow = &self.view.run.definition.workflow;
        let applies = self.activation.extensions.iter().copied();
        applies
            .filter(|index| last.is_none_or(|last| *index > last))
            .find(|index| workflow.extension_tasks(*index, stage).is_some())
    }

    /// What follows when the tasks of an extension have ended.
    pub(super) fn after_extension(&self, extended: &Extended, output: &Arc<Value>) -> EventKind {
        let (task, activation) = (self.pointer(), self.id);
        if extended.stage == Stage::Before && extended.left {
            return self.complete(output, true, None);
        }
        if let Some(extension) = self.next_extension(extended.stage, Some(extended.extension)) {
            return EventKind::ExtensionStarted {
                task,
                activation,
                extension,
                stage: extended.stage,
                output: None,
                raw: None,
                context: None,
                case: None,
            };
        }
        if extended.stage == Stage::After {
            return EventKind::TaskCompleted {
                task,
                activation,
                output: None,
                context: None,
                case: extended.case.clone(),
            };
        }
        match retry::first_deadline(&self.view, self.task, &self.activation.input) {
            Ok(attempt_deadline) => EventKind::ExtensionsEnded {
                task,
                activation,
                attempt_deadline,
            },
            Err(problem) => self.fault(problem),
        }
    }

    /// What a task that has just started does.
    pub(super) fn begin(&self) -> Result<EventKind, Fault> {
        let input = &self.activation.input;
        let (task, activation) = (self.pointer(), self.id);
        match &self.task.kind {
            Kind::Set(template) => {
                let output = self.view.shared(template, input, "the value")?;
                self.transformed(&output, false, None)
            }
            Kind::Raise(template) => Err(self.raised(template)?),
            Kind::Switch(cases) => {
                let case = self.chosen(cases)?.map(|case| case.name.clone());
                self.transformed(input, true, case)
            }
            Kind::Wait(period) => Ok(EventKind::WaitStarted {
                task,
                activation,
                until: after(
                    self.view.now,
                    self.view.period(period, input, "the time to wait")?,
                ),
            }),
            Kind::For(each) => {
                let items = self.view.value(&each.items, input)?;
                if !items.is_array() {
                    let detail = format!("'in' must yield an array; {} yields something else", each.items);
                    return Err(Problem::standard(Standard::Expression, detail));
                }
                Ok(EventKind::LoopStarted {
                    task,
                    activation,
                    items: bounded(items, "the collection")?,
                })
            }
            Kind::Call(call) => self.call(call),
            Kind::Emit(event) => self.emit(event),
            Kind::Listen(listen) => self.listen(listen),
            Kind::Run(launch) => self.launch(launch),
            Kind::Do(_) | Kind::Fork(_) | Kind::Try(_) => Err(Problem::standard(
                Standard::Runtime,
                "the task has begun before it was ready",
            )),
        }
    }

    /// The first case that holds, or the default.
    fn chosen<'c>(&self, cases: &'c [Case]) -> Result<Option<&'c Case>, Fault> {
        for case in cases {
            if let Some(when) = &case.when
                && self.view.is_true(when, &self.activation.input)?
            {
                return Ok(Some(case));
            }
        }
        Ok(cases.iter().find(|case| case.when.is_none()))
    }

    fn raised(&self, template: &ErrorTemplate) -> Result<Problem, Fault> {
        let text = |template: &Template| {
            Ok(match self.view.template(template, &self.activation.input)? {
                Value::String(text) => text,
                other => other.to_string(),
            })
        };
        let optional = |template: &Option<Template>| template.as_ref().map(text).transpose();
        let problem = Problem {
            kind: match &template.kind {
                Uri::Template(kind) => kind.expand(&self.activation.input).map_err(|what| {
                    Problem::standard(Standard::Expression, format!("the type of the error: {what}"))
                })?,
                Uri::Computed(kind) => text(kind)?,
            },
            status: template.status,
            instance: optional(&template.instance)?,
            title: optional(&template.title)?,
            detail: optional(&template.detail)?,
        };
        Ok(problem.shortened())
    }
}
