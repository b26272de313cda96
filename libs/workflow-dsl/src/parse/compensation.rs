//! `metadata.muster.compensation`: the task that takes back what another did.

use super::Reader;
use super::cursor::Fields;
use super::flow::Targets;
use super::task::List;
use crate::document::TaskList;
use crate::run::compensate::VARIABLE;

/// Name of the task that compensates, in its list of one.
const NAME: &str = "compensation";

impl Reader {
    /// The compensation among the fields of a task's policy, if there is one.
    pub(super) fn compensation(&mut self, fields: &Fields<'_>) -> Option<Box<TaskList>> {
        let field = fields.get(NAME)?;
        if self.compensating {
            self.wrong_name(
                &field,
                "a compensation is not compensated itself; what must be taken back together belongs into one compensation",
            );
            return None;
        }
        self.compensating = true;
        let targets = Targets {
            names: &[Some(NAME)],
            list: List::Sequence,
        };
        let task = self.with_variables([VARIABLE.to_owned()], |reader| {
            reader.task(NAME, &field, &targets)
        });
        self.compensating = false;
        Some(Box::new(TaskList {
            pointer: fields.at.pointer.clone(),
            tasks: vec![task?],
        }))
    }
}
