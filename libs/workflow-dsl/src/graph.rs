//! A workflow as a picture: Mermaid text for documents that render it, SVG for everything else.
//!
//! Both are drawn from one [`Diagram`]. A workflow is a tree of lists with jumps only inside a list, so that a picture of it
//! needs no general layout: tasks stand below each other, branches side by side, and what a task contains stands inside it.
//! That takes time and room in proportion to the document, whoever wrote it; the general layouts of graphs do not.

mod mermaid;
mod note;
mod size;
mod svg;

use crate::document::{Flow, Kind, Task, TaskList, Workflow};
use note::note;

/// The workflow as a Mermaid flowchart.
#[must_use]
pub fn mermaid(workflow: &Workflow) -> String {
    mermaid::draw(&Diagram::of(workflow))
}

/// The workflow as an SVG image.
#[must_use]
pub fn svg(workflow: &Workflow) -> String {
    svg::draw(&Diagram::of(workflow))
}

/// What is drawn.
struct Diagram {
    title: String,
    tasks: Chart,
    /// The extensions that have tasks, each with where these run.
    extensions: Vec<(String, Chart)>,
}

/// The tasks of a list.
struct Chart {
    /// What the list is for, where its owner has several.
    caption: Option<&'static str>,
    shapes: Vec<Shape>,
    /// Empty for branches, which stand side by side.
    arrows: Vec<Arrow>,
    side_by_side: bool,
}

/// A task.
struct Shape {
    /// A number that no other task has.
    id: usize,
    /// Its name, its kind, and what is worth knowing at a glance; each on one short line.
    lines: Vec<String>,
    kind: &'static str,
    inside: Vec<Chart>,
}

/// A way from one task of a list.
struct Arrow {
    from: usize,
    to: To,
    /// Of a switch, which cases lead there.
    label: Option<String>,
}

/// Where a way leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// To this task of the list.
    Task(usize),
    /// Out of the list.
    Out,
    /// To the end of the run.
    End,
}

impl Diagram {
    fn of(workflow: &Workflow) -> Self {
        let mut next = 0;
        let header = &workflow.header;
        let mut extensions = Vec::new();
        for extension in &workflow.extensions {
            for (when, list) in [("before", &extension.before), ("after", &extension.after)] {
                if let Some(list) = list {
                    let caption = format!("{} {when} tasks that it extends", extension.name);
                    extensions.push((caption, Chart::of(list, None, &mut next)));
                }
            }
        }
        Self {
            title: header
                .title
                .clone()
                .unwrap_or_else(|| format!("{}/{}@{}", header.namespace, header.name, header.version)),
            tasks: Chart::of(&workflow.tasks, None, &mut next),
            extensions,
        }
    }
}

impl Chart {
    fn of(list: &TaskList, caption: Option<&'static str>, next: &mut usize) -> Self {
        let shapes = list.tasks.iter().map(|task| Shape::of(task, next)).collect();
        let tasks = list.tasks.iter().enumerate();
        let arrows = tasks.flat_map(|(index, task)| arrows(task, index, list.tasks.len()));
        Self {
            caption,
            shapes,
            arrows: arrows.collect(),
            side_by_side: false,
        }
    }

    fn branches(list: &TaskList, next: &mut usize) -> Self {
        Self {
            caption: None,
            shapes: list.tasks.iter().map(|task| Shape::of(task, next)).collect(),
            arrows: Vec::new(),
            side_by_side: true,
        }
    }
}

impl Shape {
    fn of(task: &Task, next: &mut usize) -> Self {
        let id = *next;
        *next += 1;
        let inside = match &task.kind {
            Kind::Fork(fork) => vec![Chart::branches(&fork.branches, next)],
            Kind::Try(attempt) => {
                let mut charts = vec![Chart::of(&attempt.tasks, Some("try"), next)];
                charts.extend(
                    attempt
                        .catch
                        .tasks
                        .as_ref()
                        .map(|tasks| Chart::of(tasks, Some("catch"), next)),
                );
                charts
            }
            _ => task
                .lists()
                .into_iter()
                .map(|list| Chart::of(list, None, next))
                .collect(),
        };
        let mut lines = vec![short(&task.name)];
        lines.extend(note(task).iter().map(|line| short(line)));
        Self {
            id,
            lines,
            kind: task.kind.name(),
            inside,
        }
    }
}

/// The ways from a task, those to one place as one.
fn arrows(task: &Task, index: usize, count: usize) -> Vec<Arrow> {
    let to = |flow: Flow| match flow {
        Flow::Continue if index + 1 < count => To::Task(index + 1),
        Flow::Continue | Flow::Exit => To::Out,
        Flow::End => To::End,
        Flow::Task(target) => To::Task(target),
    };
    let mut arrows: Vec<Arrow> = Vec::new();
    let mut lead = |to: To, label: Option<&str>| match (arrows.iter_mut().find(|arrow| arrow.to == to), label)
    {
        (Some(Arrow { label: Some(all), .. }), Some(label)) => {
            if all.len() < LONGEST {
                *all = short(&format!("{all}, {label}"));
            }
        }
        (Some(_), _) => {}
        (None, label) => arrows.push(Arrow {
            from: index,
            to,
            label: label.map(short),
        }),
    };
    let mut decided = false;
    if let Kind::Switch(cases) = &task.kind {
        for case in cases {
            lead(to(case.then), Some(&case.name));
        }
        decided = cases.iter().any(|case| case.when.is_none());
        if !decided {
            lead(to(task.then), Some("else"));
        }
    } else if !matches!(task.kind, Kind::Raise(_)) {
        lead(to(task.then), None);
    }
    if task.condition.is_some() && decided {
        lead(to(task.then), Some("skipped"));
    }
    arrows
}

/// Longest line of a picture, in characters.
const LONGEST: usize = 44;

/// Text on one line, cut to what a picture has room for.
fn short(text: &str) -> String {
    let mut letters = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line: String = letters.by_ref().take(LONGEST).collect();
    if letters.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
