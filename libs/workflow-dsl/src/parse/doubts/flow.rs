//! Tasks that no flow reaches, and tasks that no flow leaves.

use super::super::Reader;
use super::super::cursor::Cursor;
use crate::document::{Flow, Kind, Task, TaskList};

impl Reader {
    /// Warns of each task of a sequence that no flow reaches, and of a circle that none leaves.
    pub(super) fn doubt_flow(&mut self, tasks: &[Task], definitions: &[&Cursor<'_>]) {
        let ways: Vec<Ways> = tasks
            .iter()
            .enumerate()
            .map(|(index, task)| ways(task, index))
            .collect();
        let reached = reached(&ways);
        for (definition, _) in definitions.iter().zip(&reached).filter(|(_, reached)| !**reached) {
            self.doubtful(
                definition,
                "no flow reaches this task: the tasks before it always go elsewhere",
            );
        }
        let leaving = leaving(&ways);
        let mut each = definitions.iter().zip(reached.iter().zip(&leaving));
        if let Some((definition, _)) = each.find(|(_, (reached, leaving))| **reached && !**leaving) {
            self.doubtful(
                definition,
                "from here the flow goes round for ever: no 'then' leads out, so that only an error, a timeout or a cancel ends \
                 it; let a 'switch' leave, or loop with 'for'",
            );
        }
    }
}

/// Where the flow can go from a task of a sequence.
struct Ways {
    /// To the tasks with these indexes; beyond the last one is out of the list.
    next: Vec<usize>,
    /// Out of the list by `exit`.
    exits: bool,
    /// Nowhere: the run ends, or the task fails or is never done.
    stops: bool,
}

fn ways(task: &Task, index: usize) -> Ways {
    let mut ways = Ways {
        next: Vec::new(),
        exits: false,
        stops: false,
    };
    let mut follow = |flow: Flow| match flow {
        Flow::Continue => ways.next.push(index + 1),
        Flow::Task(target) => ways.next.push(target),
        Flow::Exit => ways.exits = true,
        Flow::End => ways.stops = true,
    };
    let mut leaves_by_case = false;
    if let Kind::Switch(cases) = &task.kind {
        cases.iter().for_each(|case| follow(case.then));
        leaves_by_case = cases.iter().any(|case| case.when.is_none());
    }
    let completes = completes(task);
    if !leaves_by_case && completes {
        follow(task.then);
    }
    // A task that is skipped does not send the flow where its cases would have.
    if task.condition.is_some() {
        follow(Flow::Continue);
        follow(task.then);
    }
    ways.stops |= !completes;
    ways
}

/// Which tasks of a sequence the flow comes to from its first one.
fn reached(ways: &[Ways]) -> Vec<bool> {
    let mut reached = vec![false; ways.len()];
    let mut open = vec![0];
    while let Some(index) = open.pop() {
        let Some((ways, seen)) = ways.get(index).zip(reached.get_mut(index)) else {
            continue;
        };
        if !std::mem::replace(seen, true) {
            open.extend(&ways.next);
        }
    }
    reached
}

/// From which tasks of a sequence the flow can get out of it, or stop.
fn leaving(ways: &[Ways]) -> Vec<bool> {
    let count = ways.len();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut open = Vec::new();
    for (index, ways) in ways.iter().enumerate() {
        if ways.exits || ways.stops || ways.next.iter().any(|next| *next >= count) {
            open.push(index);
        }
        for next in &ways.next {
            if let Some(before) = before.get_mut(*next) {
                before.push(index);
            }
        }
    }
    let mut leaving = vec![false; count];
    while let Some(index) = open.pop() {
        let Some((before, known)) = before.get(index).zip(leaving.get_mut(index)) else {
            continue;
        };
        if !std::mem::replace(known, true) {
            open.extend(before);
        }
    }
    leaving
}

/// Whether the task can end well; if not, it fails, ends the run or never ends.
fn completes(task: &Task) -> bool {
    match &task.kind {
        Kind::Raise(_) => false,
        Kind::Do(list) => passes(list),
        Kind::Fork(fork) => {
            let mut branches = fork.branches.tasks.iter();
            // A branch that is skipped counts as completed.
            let completes = |branch: &Task| branch.condition.is_some() || completes(branch);
            if fork.compete {
                branches.any(completes)
            } else {
                branches.all(completes)
            }
        }
        Kind::Try(attempt) => passes(&attempt.tasks) || attempt.catch.tasks.as_ref().is_none_or(passes),
        _ => true,
    }
}

/// Whether the flow can get through a list and out of it.
fn passes(list: &TaskList) -> bool {
    let ways: Vec<Ways> = list
        .tasks
        .iter()
        .enumerate()
        .map(|(index, task)| ways(task, index))
        .collect();
    let out = |ways: &Ways| ways.exits || ways.next.iter().any(|next| *next >= list.tasks.len());
    reached(&ways)
        .into_iter()
        .zip(&ways)
        .any(|(reached, ways)| reached && out(ways))
}
