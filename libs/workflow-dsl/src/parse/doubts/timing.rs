//! Pauses and timeouts that something around them never lets come.

use std::time::Duration;

use super::super::Reader;
use super::super::cursor::Cursor;
use super::inside;
use crate::document::{Kind, Task, TaskList, Workflow};
use crate::duration::spoken;

/// The tightest timeout around a place.
#[derive(Clone, Copy)]
struct Limit<'w> {
    after: Duration,
    /// Whose it is: the pointer of a task, or none for the workflow.
    owner: Option<&'w str>,
}

impl Limit<'_> {
    fn spoken(&self) -> String {
        let whose = match self.owner {
            Some(task) => format!("the timeout of {task}"),
            None => "the timeout of the workflow".to_owned(),
        };
        format!("{whose} is {}", spoken(self.after))
    }
}

impl Reader {
    /// Warns where a fixed duration is longer than a fixed timeout around it.
    pub(super) fn doubt_timing(&mut self, workflow: &Workflow, root: &Cursor<'_>) {
        let limit = workflow.timeout.as_ref().and_then(|timeout| timeout.fixed());
        let limit = limit.map(|after| Limit { after, owner: None });
        self.doubt_timing_of(&workflow.tasks, limit, root);
        for list in workflow.extensions.iter().flat_map(|extension| extension.lists()) {
            self.doubt_timing_of(list, limit, root);
        }
    }

    fn doubt_timing_of(&mut self, list: &TaskList, limit: Option<Limit<'_>>, root: &Cursor<'_>) {
        for task in &list.tasks {
            let own = self.own_limit(task, limit, root);
            if let (Kind::Wait(pause), Some(limit)) = (&task.kind, own)
                && let Some(pause) = pause.fixed()
                && pause > limit.after
            {
                let place = inside(root, &task.pointer).descend("/wait");
                let message = format!("this pause of {} never ends: {}", spoken(pause), limit.spoken());
                self.doubtful(&place, message);
            }
            let attempt = match &task.kind {
                Kind::Try(attempt) => attempt.catch.retry.as_ref(),
                _ => None,
            };
            let attempt = attempt.and_then(|retry| retry.limit.attempt_duration.as_ref()?.fixed());
            for (index, inner) in task.lists().into_iter().enumerate() {
                // The limit of an attempt holds for what is tried, not for what is done about its error.
                let within = match attempt.filter(|_| index == 0) {
                    Some(after) if own.is_none_or(|own| after < own.after) => Some(Limit {
                        after,
                        owner: Some(&task.pointer),
                    }),
                    _ => own,
                };
                self.doubt_timing_of(inner, within, root);
            }
        }
    }

    /// The tightest of the task's own timeout and that around it.
    fn own_limit<'w>(
        &mut self,
        task: &'w Task,
        around: Option<Limit<'w>>,
        root: &Cursor<'_>,
    ) -> Option<Limit<'w>> {
        let Some(after) = task.timeout.as_ref().and_then(|timeout| timeout.fixed()) else {
            return around;
        };
        if let Some(around) = around
            && after > around.after
        {
            let place = inside(root, &task.pointer).descend("/timeout");
            let message = format!(
                "this timeout of {} never comes: {}",
                spoken(after),
                around.spoken()
            );
            self.doubtful(&place, message);
            return Some(around);
        }
        Some(Limit {
            after,
            owner: Some(&task.pointer),
        })
    }
}
