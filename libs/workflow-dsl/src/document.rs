//! The typed model of a workflow document.
//!
//! [`crate::parse`] builds it once from the source text; whoever holds a [`Definition`] holds a document that is
//! known to be right. Therefore nothing here is looked up by name again: references to `use.timeouts`,
//! `use.retries` and `use.errors` are replaced by what they name, `then` holds the index of its task, expressions
//! are compiled, durations and endpoints are values. An `Option` is there only where the author may leave a field
//! away and no default means the same.
//!
//! A task is identified by its *pointer*, the RFC 6901 JSON pointer of its definition in the document, such as
//! `/do/0/getWeather`: it is unique, it needs no numbering that an edit would shift silently, and a person finds
//! the task by it. The model is not serialized: a definition is stored as its source and parsed again, so that
//! there is one format and one validation.

mod authentication;
mod call;
mod destination;
mod event;
mod extension;
mod launch;
mod period;
pub mod policy;
mod retry;
mod schedule;
mod task;
mod template;

pub use authentication::{Authentication, AuthenticationProperties, Scheme};
pub(crate) use call::SCHEMES;
pub use call::{
    A2aCall, AsyncApiCall, AsyncApiTarget, Call, Endpoint, EndpointError, External, Function, FunctionCall,
    GrpcCall, HttpCall, McpCall, McpTransport, Method, OpenApiCall, ResponseFormat, Server,
};
pub(crate) use destination::encode;
pub use destination::{Destination, ExternalResource, Uri, UriTemplate};
pub use event::{Consume, Correlation, Each, Filter, Listen, Matcher, Read, Strategy, Until};
pub use extension::{Extension, Target};
pub use launch::{Arguments, Cleanup, Language, Launch, Launched, Process, Program, Pull, Return, Subflow};
pub use period::Period;
pub use retry::{Backoff, Jitter, LONGEST_DELAY, MOST_RETRIES, Retry, RetryLimit};
pub use schedule::{Cron, CronMistake, Schedule};
pub use task::{Case, Catch, ErrorFilter, ErrorTemplate, Flow, For, Fork, Kind, Task, TaskList, Try};
pub use template::Template;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::journal::Stage;
use crate::problem::Problems;
use crate::schema::Schema;

/// A valid document together with the text it was read from.
#[derive(Debug, Clone)]
pub struct Definition {
    /// What the document says.
    pub workflow: Arc<Workflow>,
    /// SHA-256 of the source text, in lower-case hexadecimal: runs are pinned to it.
    pub digest: String,
    /// The text as its author wrote it.
    pub source: Arc<str>,
    /// What is doubtful about it; never an error.
    pub warnings: Problems,
}

/// What a document says.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Who the workflow is.
    pub header: Header,
    /// `input.from`: shapes the input of the run before the first task sees it.
    pub input: Option<Template>,
    /// `output.as`: shapes the output of the last task into the output of the run.
    pub output: Option<Template>,
    /// `input.schema` and `output.schema`.
    pub schemas: Schemas,
    /// `timeout`: how long a run may take.
    pub timeout: Option<Period>,
    /// `schedule.on`: events that start runs, once the document is the newest of its name in a catalogue.
    pub starts_on: Option<Strategy>,
    /// `schedule`: when runs begin by themselves, once the document is the newest of its name in a catalogue.
    pub schedule: Option<Schedule>,
    /// `use.extensions`, in order.
    pub extensions: Vec<Extension>,
    /// Functions of one's own, from `use.functions` and from elsewhere.
    pub functions: Vec<Function>,
    /// What it refers to elsewhere and what has not been obtained. A run can begin when there is nothing.
    pub external: Vec<External>,
    /// `use.secrets`: the names of the secrets that it may use.
    pub secrets: Vec<String>,
    /// `do`: the tasks, in order.
    pub tasks: TaskList,
    /// The whole document as plain JSON: `$workflow.definition`, and by pointer each `$task.definition`.
    pub raw: Value,
}

/// What data must look like. Where there is no schema, anything fits.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    /// `input.schema`: the raw input.
    pub input: Option<Schema>,
    /// `output.schema`: the transformed output.
    pub output: Option<Schema>,
    /// `export.schema` of a task: the new context.
    pub export: Option<Schema>,
}

/// The section `document`: who the workflow is.
#[derive(Debug, Clone)]
pub struct Header {
    /// Version of the language, `1.0.x`.
    pub dsl: String,
    /// Namespace of the workflow, a DNS label.
    pub namespace: String,
    /// Name of the workflow, a DNS label, unique in its namespace.
    pub name: String,
    /// Semantic version of the workflow.
    pub version: String,
    /// One line for people.
    pub title: Option<String>,
    /// Markdown for people.
    pub summary: Option<String>,
    /// Labels to select by.
    pub tags: Map<String, Value>,
    /// Anything else the author wants to keep with the document; only [`policy::KEY`] in it is interpreted.
    pub metadata: Map<String, Value>,
    /// What [`policy::KEY`] in the metadata says.
    pub policy: policy::WorkflowPolicy,
}

impl Workflow {
    /// The task whose definition is at `pointer`.
    #[must_use]
    pub fn task(&self, pointer: &str) -> Option<&Task> {
        self.tasks.descendant(pointer).or_else(|| {
            let extensions = self.extensions.iter().flat_map(Extension::lists);
            let functions = self.functions.iter().map(|function| &function.tasks);
            extensions
                .chain(functions)
                .find_map(|list| list.descendant(pointer))
        })
    }

    /// The tasks of an extension before or after what it extends, if it has some.
    #[must_use]
    pub fn extension_tasks(&self, index: usize, stage: Stage) -> Option<&TaskList> {
        let extension = self.extensions.get(index)?;
        match stage {
            Stage::Before => extension.before.as_ref(),
            Stage::After => extension.after.as_ref(),
        }
    }

    /// The function of one's own with this name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// The definition of `task` as plain JSON, which expressions see as `$task.definition`.
    #[must_use]
    pub fn raw_task(&self, task: &Task) -> &Value {
        let elsewhere = || {
            self.functions.iter().find_map(|function| {
                let rest = task.pointer.strip_prefix(&function.tasks.pointer)?;
                function.raw.as_ref()?.pointer(rest)
            })
        };
        let raw = self.raw.pointer(&task.pointer).or_else(elsewhere);
        raw.unwrap_or(&Value::Null)
    }
}
