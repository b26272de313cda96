//! A plan as a person types it: an indented list, by fixed rules and without guessing.
//!
//! ```text
//! Roof repair from 2014-03-03        the name, and the first day
//! avoid 2014-03-05, 2014-03-06       settings stand on lines of their own
//! - Preparation                      a line with deeper lines below is a group
//!   - Survey (1d)
//!   - Order material (4h) after Survey
//! - Shingles (3d, weather, @crew) after Preparation
//! 1. Paint (1d)                      numbered lines follow each other, bullets do not
//! 2. Clean up (2h)
//! ```
//!
//! The same on one line, with semicolons: `Roof from 2014-03-03: survey 1d; order 4h after survey`. Waiting for a
//! group means waiting for its last tasks; a group that waits makes its first tasks wait. An id may stand before the
//! name (`s1: Survey (1d)`); else the name's words make it.

mod entry;
mod setting;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use muster_api::names;
use serde::Serialize;

use crate::plan::Error;
use crate::plan::request::{Demands, MAX_TASKS, PlanRequest, TaskRequest};
use entry::{Duration, Item};

/// Longest text.
const MAX_TEXT: usize = 256 * 1024;
/// Most entries, groups included.
const MAX_ENTRIES: usize = 2 * MAX_TASKS;
/// Deepest nesting.
const MAX_DEPTH: usize = 20;
/// Most dependencies of single tasks that waiting for and as groups may come to.
const MAX_DEPENDENCIES: usize = 100_000;
/// Columns of a tab.
const TAB: usize = 4;

/// A list that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// The plan: settings, and the list's leaves as tasks.
    pub request: PlanRequest,
    /// The list's inner lines.
    pub groups: Vec<Group>,
}

/// A line with lines below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Made like a task's id.
    pub id: String,
    /// What the line says.
    pub name: String,
    /// The tasks below it, at any depth.
    pub tasks: Vec<String>,
}

/// A line of the list in its place.
struct Node {
    line: usize,
    id: String,
    item: Item,
    parent: Option<usize>,
    is_group: bool,
    /// The numbered line before it under the same parent.
    predecessor: Option<usize>,
}

/// Reads a list; `field` is where the text came from.
pub fn parse(field: &str, text: &str) -> Result<Outline, Error> {
    if text.len() > MAX_TEXT {
        return Err(Error::new(
            field,
            format!("has {} bytes; at most {MAX_TEXT} are read", text.len()),
        ));
    }
    let mut request = PlanRequest::default();
    let mut nodes: Vec<Node> = Vec::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut ids: HashSet<String> = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let at = |message: String| Error::new(field, format!("line {}: {message}", number + 1));
        let indent = indentation(line);
        for piece in pieces(line, &mut request, nodes.is_empty()) {
            let (marker, rest) = entry::marker(&piece);
            let is_first = nodes.is_empty();
            if marker.is_none() && setting::read(rest, is_first, &mut request).map_err(at)? {
                continue;
            }
            let item = entry::read(rest).map_err(at)?;
            if nodes.len() >= MAX_ENTRIES {
                return Err(at(format!("more than {MAX_ENTRIES} entries")));
            }
            open.retain(|(column, _)| *column < indent);
            if open.len() >= MAX_DEPTH {
                return Err(at(format!("nested deeper than {MAX_DEPTH} levels")));
            }
            let parent = open.last().map(|(_, node)| *node);
            let numbered = marker == Some(entry::Marker::Number);
            let predecessor = nodes
                .iter()
                .enumerate()
                .rev()
                .find(|(_, node)| node.parent == parent)
                .filter(|(_, node)| numbered && node.item.numbered)
                .map(|(index, _)| index);
            if let Some(parent) = parent {
                nodes[parent].is_group = true;
            }
            open.push((indent, nodes.len()));
            nodes.push(Node {
                line: number + 1,
                id: unique_id(&item, &mut ids).map_err(at)?,
                item: Item { numbered, ..item },
                parent,
                is_group: false,
                predecessor,
            });
        }
    }
    if nodes.is_empty() {
        return Err(Error::new(
            field,
            "names no task; write lines such as `- Survey (1d)` and `- Order (4h) after Survey`",
        ));
    }
    request.tasks = tasks(field, &nodes)?;
    Ok(Outline {
        groups: groups(&nodes),
        request,
    })
}

fn indentation(line: &str) -> usize {
    let blank = line.chars().take_while(|c| c.is_whitespace());
    blank.map(|c| if c == '\t' { TAB } else { 1 }).sum()
}

/// The entries of a line: more than one where it has semicolons. A title before a colon is taken from the first.
fn pieces(line: &str, request: &mut PlanRequest, is_first: bool) -> Vec<String> {
    let line = line.trim();
    if !line.contains(';') {
        return [line]
            .into_iter()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
    }
    let mut rest = line;
    if let Some((title, entries)) = line.split_once(':')
        && is_first
        && title.trim().contains(' ')
        && !title.contains(';')
    {
        setting::title(title, request);
        rest = entries;
    }
    rest.split(';')
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The words of a name as an id.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() {
            slug.extend(c.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

fn unique_id(item: &Item, ids: &mut HashSet<String>) -> Result<String, String> {
    let id = match &item.id {
        Some(id) if ids.contains(id) => return Err(format!("the id '{id}' is given twice")),
        Some(id) => id.clone(),
        None => {
            let base = slug(&item.name);
            if base.is_empty() {
                return Err(format!(
                    "'{}' has no letter or digit to name the task by",
                    item.name
                ));
            }
            let numbered = (2..=ids.len() + 2).map(|number| format!("{base}-{number}"));
            let mut names = std::iter::once(base.clone()).chain(numbered);
            names.find(|id| !ids.contains(id)).unwrap_or(base)
        }
    };
    ids.insert(id.clone());
    Ok(id)
}

fn is_below(nodes: &[Node], node: usize, group: usize) -> bool {
    std::iter::successors(nodes[node].parent, |&parent| nodes[parent].parent).any(|parent| parent == group)
}

fn leaves(nodes: &[Node], group: usize) -> Vec<usize> {
    if !nodes[group].is_group {
        return vec![group];
    }
    (0..nodes.len())
        .filter(|&node| !nodes[node].is_group && is_below(nodes, node, group))
        .collect()
}

fn groups(nodes: &[Node]) -> Vec<Group> {
    let of = |(index, node): (usize, &Node)| Group {
        id: node.id.clone(),
        name: node.item.name.clone(),
        tasks: leaves(nodes, index)
            .into_iter()
            .map(|leaf| nodes[leaf].id.clone())
            .collect(),
    };
    nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.is_group)
        .map(of)
        .collect()
}

/// What each line waits for: the lines it names, else the numbered line before it.
fn waits(field: &str, nodes: &[Node]) -> Result<Vec<Vec<usize>>, Error> {
    // Ids stand over names, and earlier lines over later ones.
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate().rev() {
        by_name.insert(slug(&node.item.name), index);
    }
    for (index, node) in nodes.iter().enumerate().rev() {
        by_name.insert(slug(&node.id), index);
    }
    let mut waits = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut before = Vec::new();
        for name in &node.item.after {
            before.push(*by_name.get(&slug(name)).ok_or_else(|| {
                let known = nodes.iter().map(|other| other.item.name.as_str());
                let nearest = names::suggestion(name, known);
                Error::new(
                    field,
                    format!(
                        "line {}: after '{name}': no line has that name{nearest}",
                        node.line
                    ),
                )
            })?);
        }
        if before.is_empty() {
            before.extend(node.predecessor);
        }
        waits.push(before);
    }
    Ok(waits)
}

/// For each line that is a task, the tasks that it waits for.
fn dependencies(field: &str, nodes: &[Node]) -> Result<Vec<BTreeSet<usize>>, Error> {
    let waits = waits(field, nodes)?;
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes.len()];
    let mut count = 0;
    // Single tasks first, so that it is known which tasks of a group are its first and last.
    for groups in [false, true] {
        for (index, targets) in waits
            .iter()
            .enumerate()
            .filter(|(index, _)| nodes[*index].is_group == groups)
        {
            let wanted: BTreeSet<usize> = targets
                .iter()
                .flat_map(|&target| last_tasks(nodes, &before, target))
                .collect();
            for leaf in leaves(nodes, index) {
                let waits_inside = groups && before[leaf].iter().any(|&other| is_below(nodes, other, index));
                if !waits_inside {
                    count += wanted.len();
                    before[leaf].extend(&wanted);
                }
                if count > MAX_DEPENDENCIES {
                    let message = format!(
                        "line {}: waiting for groups comes to more than {MAX_DEPENDENCIES} dependencies; wait for \
                         single tasks",
                        nodes[index].line
                    );
                    return Err(Error::new(field, message));
                }
            }
        }
    }
    Ok(before)
}

fn tasks(field: &str, nodes: &[Node]) -> Result<Vec<TaskRequest>, Error> {
    let before = dependencies(field, nodes)?;
    let mut tasks = Vec::new();
    for (node, before) in nodes.iter().zip(before) {
        if !node.is_group {
            tasks.push(task(
                node,
                before.iter().map(|&other| nodes[other].id.clone()).collect(),
            ));
        } else if node.item.duration.is_some() {
            let message = format!(
                "line {}: '{}' has parts; give them the durations",
                node.line, node.item.name
            );
            return Err(Error::new(field, message));
        }
    }
    Ok(tasks)
}

/// The tasks of a group that no other task of the group waits for; of a task, itself.
fn last_tasks(nodes: &[Node], before: &[BTreeSet<usize>], target: usize) -> Vec<usize> {
    let all = leaves(nodes, target);
    let waited_for: HashSet<usize> = all.iter().flat_map(|&leaf| &before[leaf]).copied().collect();
    let last: Vec<usize> = all
        .iter()
        .copied()
        .filter(|leaf| !waited_for.contains(leaf))
        .collect();
    if last.is_empty() { all } else { last }
}

fn task(node: &Node, depends_on: Vec<String>) -> TaskRequest {
    let (duration_days, duration_hours) = match node.item.duration {
        Some(Duration::Days(days)) => (Some(days), None),
        Some(Duration::Hours(hours)) => (None, Some(hours)),
        None => (None, None),
    };
    let amounts: BTreeMap<String, u32> = node.item.resources.clone();
    TaskRequest {
        id: node.id.clone(),
        name: Some(node.item.name.clone()),
        duration_days,
        duration_hours,
        depends_on,
        resources: if amounts.is_empty() {
            Demands::default()
        } else {
            Demands::Amounts(amounts)
        },
        earliest_start: node.item.earliest_start.clone(),
        weather_sensitive: node.item.weather_sensitive,
    }
}

#[cfg(test)]
mod tests;
