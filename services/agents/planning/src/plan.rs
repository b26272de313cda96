//! A plan: tasks with durations and dependencies, on a calendar. Parsed once from a [`request`]; whoever holds a
//! [`Plan`] knows that ids are unique, that dependencies exist and that nothing waits for itself.

pub mod request;

use std::collections::BTreeMap;

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::calendar::{Calendar, Minutes};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Error {
    /// Path of the field at fault.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Error {
    /// The field is wrong in the way that the message says.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Unique in the plan.
    pub id: String,
    /// For people.
    pub name: String,
    /// How much work it is.
    pub duration: Minutes,
    /// Positions of the tasks that must be finished before, without repetition.
    pub depends_on: Vec<usize>,
    /// Not before this moment.
    pub earliest_start: Minutes,
    /// Whether it must avoid the dates to be avoided.
    pub weather_sensitive: bool,
    /// How much of each resource it needs while it is worked on.
    pub demands: BTreeMap<String, u32>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// For people.
    pub name: String,
    /// When is worked.
    pub calendar: Calendar,
    /// The tasks, in the order given.
    pub tasks: Vec<Task>,
    /// How much of each resource there is.
    pub capacities: BTreeMap<String, u32>,
    /// Reserve at the end, in percent of the makespan.
    pub buffer_percent: f64,
    order: Vec<usize>,
    dependants: Vec<Vec<usize>>,
}

impl Plan {
    /// A plan of tasks whose dependencies are positions in the list; refused when tasks wait for each other in a
    /// circle, which is named.
    fn new(
        name: String,
        calendar: Calendar,
        tasks: Vec<Task>,
        capacities: BTreeMap<String, u32>,
        buffer_percent: f64,
    ) -> Result<Self, Error> {
        let mut graph = DiGraph::<(), ()>::with_capacity(tasks.len(), tasks.len());
        let nodes: Vec<NodeIndex> = tasks.iter().map(|_| graph.add_node(())).collect();
        let mut dependants = vec![Vec::new(); tasks.len()];
        for (position, task) in tasks.iter().enumerate() {
            for &before in &task.depends_on {
                graph.add_edge(nodes[before], nodes[position], ());
                dependants[before].push(position);
            }
        }
        let order = toposort(&graph, None).map_err(|_| circle(&graph, &tasks))?;
        let order = order.into_iter().map(NodeIndex::index).collect();
        Ok(Self {
            name,
            calendar,
            tasks,
            capacities,
            buffer_percent,
            order,
            dependants,
        })
    }

    /// Positions, dependencies before dependants.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Positions of the tasks that wait directly for a task.
    #[must_use]
    pub fn dependants(&self, position: usize) -> &[usize] {
        &self.dependants[position]
    }

    /// For each task, which tasks must be finished before it, directly or not.
    #[must_use]
    pub fn ancestors(&self) -> Vec<Vec<bool>> {
        let mut ancestors = vec![vec![false; self.tasks.len()]; self.tasks.len()];
        for &position in &self.order {
            let mut all = std::mem::take(&mut ancestors[position]);
            for &before in &self.tasks[position].depends_on {
                all[before] = true;
                for (mark, inherited) in all.iter_mut().zip(&ancestors[before]) {
                    *mark |= inherited;
                }
            }
            ancestors[position] = all;
        }
        ancestors
    }

    /// The ids of tasks.
    #[must_use]
    pub fn ids(&self, positions: &[usize]) -> Vec<String> {
        positions
            .iter()
            .map(|&position| self.tasks[position].id.clone())
            .collect()
    }
}

/// Names a circle of tasks: follows dependencies inside one strongly connected component until a task comes again.
fn circle(graph: &DiGraph<(), ()>, tasks: &[Task]) -> Error {
    let components = tarjan_scc(graph);
    let waits_for_itself = |component: &&Vec<NodeIndex>| {
        component.len() > 1 || component.iter().any(|node| graph.contains_edge(*node, *node))
    };
    let component: Vec<usize> = components
        .iter()
        .find(waits_for_itself)
        .map(|component| component.iter().map(|node| node.index()).collect())
        .unwrap_or_default();
    let mut path: Vec<usize> = component.iter().copied().min().into_iter().collect();
    while let Some(&last) = path.last() {
        let next = tasks[last]
            .depends_on
            .iter()
            .copied()
            .find(|before| component.contains(before));
        let Some(next) = next else { break };
        if let Some(first) = path.iter().position(|&seen| seen == next) {
            path.drain(..first);
            path.push(next);
            break;
        }
        path.push(next);
    }
    let names: Vec<&str> = path.iter().map(|&position| tasks[position].id.as_str()).collect();
    let field = path.first().map_or_else(
        || "tasks".to_owned(),
        |first| format!("tasks[{first}].depends_on"),
    );
    Error::new(
        field,
        format!(
            "tasks wait for each other in a circle: {} (each for the next); remove one dependency",
            names.join(" → ")
        ),
    )
}
