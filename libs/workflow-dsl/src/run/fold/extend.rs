//! Folding what extensions do: their tasks run inside the activation of the task that they extend, before it begins what it is
//! for, and after it has an output. Whatever ends that activation ends them with it.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::start::first_body;
use super::{Mismatch, known_output};
use crate::document::Kind;
use crate::journal::Stage;
use crate::run::Run;
use crate::run::state::{Body, Cursor, Extended};

impl Run {
    /// The next extension of a task begins.
    pub(in crate::run) fn start_extension(
        &mut self,
        (pointer, id): (&str, u64),
        (extension, stage): (usize, Stage),
        (output, raw): (Option<&Arc<Value>>, Option<&Arc<Value>>),
        context: Option<&Arc<Value>>,
        case: Option<&str>,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let activation = self.expect(id, pointer)?;
        let task = workflow
            .task(pointer)
            .ok_or_else(|| self.mismatch(format!("there is no task {pointer}")))?;
        let out_of_turn = || self.mismatch(format!("extension {extension} of {pointer} is out of turn"));
        if !activation.extensions.contains(&extension) || workflow.extension_tasks(extension, stage).is_none()
        {
            return Err(out_of_turn());
        }
        let known_case = match &task.kind {
            Kind::Switch(cases) => case.is_none_or(|name| cases.iter().any(|case| case.name == name)),
            _ => case.is_none(),
        };
        if !known_case {
            return Err(self.mismatch(format!("{pointer} has no case '{}'", case.unwrap_or_default())));
        }
        let body = match (&activation.body, stage) {
            (Body::Extended(last), _) => {
                let ended = matches!(last.cursor, Cursor::Done(_)) && !last.left;
                if !ended || last.stage != stage || last.extension >= extension {
                    return Err(out_of_turn());
                }
                let input = last.output.as_ref().unwrap_or(&activation.input);
                Extended {
                    output: last.output.clone(),
                    raw_output: last.raw_output.clone(),
                    case: last.case.clone(),
                    ..Extended::new(extension, stage, input)
                }
            }
            (_, Stage::Before) => return Err(out_of_turn()),
            (_, Stage::After) => {
                let known = known_output(activation, &task.kind);
                let raw = raw.or(known.as_ref()).or(output).map(Arc::clone);
                let output = output.cloned().or(known).ok_or_else(out_of_turn)?;
                Extended {
                    output: Some(Arc::clone(&output)),
                    raw_output: raw,
                    case: case.map(str::to_owned),
                    ..Extended::new(extension, stage, &output)
                }
            }
        };
        if let Some(context) = context {
            self.context = Arc::clone(context);
        }
        // Whatever the task still had in progress, such as the losers of a race, has ended with its output.
        let children = self.activations.get(&id).map(super::Activation::children);
        for child in children.into_iter().flatten() {
            self.remove(child);
        }
        self.change(id, |activation| activation.body = Body::Extended(body));
        Ok(())
    }

    /// The extensions before a task have ended.
    pub(in crate::run) fn end_extensions(
        &mut self,
        pointer: &str,
        id: u64,
        attempt_deadline: Option<Timestamp>,
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let ended = match &self.expect(id, pointer)?.body {
            Body::Extended(extended) => {
                extended.stage == Stage::Before
                    && !extended.left
                    && matches!(extended.cursor, Cursor::Done(_))
            }
            _ => false,
        };
        let task = workflow.task(pointer).filter(|_| ended);
        let task = task.ok_or_else(|| self.mismatch(format!("no extension before {pointer} has ended")))?;
        self.change(id, |activation| {
            activation.body = first_body(task, &activation.input, time, attempt_deadline);
        });
        Ok(())
    }

    /// `then: exit` has ended the tasks of an extension, if that is what `id` runs. After the task there is nothing left to skip.
    pub(in crate::run) fn leave_extension(&mut self, id: u64) {
        self.change(id, |activation| {
            if let Body::Extended(extended) = &mut activation.body {
                extended.left = extended.stage == Stage::Before;
            }
        });
    }
}
