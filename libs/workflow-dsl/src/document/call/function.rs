//! Functions of one's own: tasks that are defined once and called by name.

use serde_json::Value;

use crate::document::{Destination, TaskList, Template};

/// A call of a function of one's own.
#[derive(Debug, Clone)]
pub struct FunctionCall {
    /// The name of the function among those of the workflow.
    pub function: String,
    /// `with`: the input of the function; an empty object if there is none.
    pub arguments: Option<Template>,
}

/// A function of one's own.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its name: that in `use.functions`, or how it is called where it comes from a catalog or an address.
    pub name: String,
    /// Its one task.
    pub tasks: TaskList,
    /// Its definition, where that is not part of the document.
    pub raw: Option<Value>,
}

/// Something that the document refers to and does not contain, a function or a schema. It has to be obtained before a run can
/// begin.
#[derive(Debug, Clone)]
pub struct External {
    /// What it is known by: how a function is called, such as `log:1.0.0@catalog`, or the address of a schema.
    pub name: String,
    /// Where it is; without expressions and variables.
    pub endpoint: Destination,
}
