//! From text to a [`Definition`], or to everything that is wrong with it.
//!
//! Reading goes in two steps: text to a tree with places ([`crate::node`]), and tree to the typed model. The second
//! step never stops at a mistake: what cannot be read is reported and left out, and reading goes on beside it; only
//! if nothing was wrong does a definition come out. A field that the language has and this runtime has not yet is
//! refused by its name, because a workflow that silently does less than it says is worse than none.
//!
//! Rejected: deserializing with serde and validating with the language's JSON Schema. Both stop early or report
//! places of their own, neither knows the scope of a variable or the tasks of a list, and a `oneOf` over thirteen kinds of
//! tasks explains a slip of the finger with thirteen complaints.

mod authentication;
mod call;
mod cases;
mod catch;
mod compensation;
mod control;
mod cursor;
mod destination;
mod doubts;
mod duration;
mod error;
mod event;
mod expressions;
mod extension;
mod flow;
mod function;
mod launch;
mod policy;
mod reuse;
mod schedule;
mod schema;
mod secrets;
mod task;
mod workflow;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::document::{Definition, Workflow};
use crate::node;
use crate::problem::{Place, Problems};
use crate::stack;
pub(crate) use cases::cases;
use cursor::Cursor;
use doubts::Reading;
use expressions::Scope;
use reuse::Reusable;

/// Reads a document in YAML or JSON.
///
/// # Errors
/// Everything that is wrong with it, if anything is; warnings among it. The warnings of a document that is accepted
/// are in [`Definition::warnings`].
pub fn parse(text: &str) -> Result<Definition, Problems> {
    parse_with(text, &Resources::new())
}

/// What was obtained from elsewhere, by how the document names it.
pub type Resources = BTreeMap<String, String>;

/// As [`parse()`], with the functions from elsewhere that have been obtained. [`Workflow::external`] names those that have not.
///
/// # Errors
/// As [`parse()`]; also what is wrong with the functions.
pub fn parse_with(text: &str, resources: &Resources) -> Result<Definition, Problems> {
    let (workflow, problems) = read(text, resources);
    match workflow {
        Some(workflow) if !problems.has_errors() => Ok(Definition {
            workflow: Arc::new(workflow),
            digest: digest(text),
            source: Arc::from(text),
            warnings: problems,
        }),
        _ => Err(problems),
    }
}

/// Everything that is wrong or doubtful about a document in YAML or JSON.
#[must_use]
pub fn check(text: &str) -> Problems {
    read(text, &Resources::new()).1
}

/// The digest that [`Definition::digest`] holds for this text.
#[must_use]
pub fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut hexadecimal, byte| {
            write!(hexadecimal, "{byte:02x}").expect("writing to a String cannot fail");
            hexadecimal
        })
}

/// The expression in text of the form `${ … }`, and nothing around it.
pub(crate) fn embedded(text: &str) -> Option<&str> {
    text.trim().strip_prefix("${")?.strip_suffix('}').map(str::trim)
}

/// Stack for reading: expressions of up to two KiB are compiled on it, longer ones get their own.
const STACK: usize = 32 * 1024 * 1024;

fn read(text: &str, resources: &Resources) -> (Option<Workflow>, Problems) {
    stack::run(STACK, || read_here(text, resources)).unwrap_or_else(|message| {
        let mut problems = Problems::default();
        problems.error(
            Place { line: 1, column: 1 },
            "",
            format!("reading the document failed: {message}"),
        );
        (None, problems)
    })
}

fn read_here(text: &str, resources: &Resources) -> (Option<Workflow>, Problems) {
    let mut problems = Problems::default();
    let Some(root) = node::read(text, "a workflow needs 'document' and 'do'", &mut problems) else {
        return (None, problems);
    };
    let mut reader = Reader::new(problems, resources.clone());
    let root = Cursor::root(&root);
    let workflow = reader.workflow(&root, resources);
    if let Some(workflow) = workflow.as_ref().filter(|_| !reader.problems.has_errors()) {
        reader.doubt_workflow(workflow, &root);
    }
    (workflow, reader.problems.sorted())
}

/// What is known while a tree is read.
struct Reader {
    problems: Problems,
    reusable: Reusable,
    scope: Scope,
    /// Whether any text may be an expression.
    loose: bool,
    /// Whether what is read is part of a compensation.
    compensating: bool,
    /// The expressions that read the context.
    readings: Vec<Reading>,
    /// What was obtained from elsewhere.
    resources: Resources,
}

impl Reader {
    fn new(problems: Problems, resources: Resources) -> Self {
        Self {
            problems,
            reusable: Reusable::default(),
            scope: Scope::default(),
            loose: false,
            readings: Vec::new(),
            resources,
            compensating: false,
        }
    }
}

#[cfg(test)]
mod tests;
