//! `run`: processes and other workflows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Template;

/// `run`: something of its own that is started, and by default waited for.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What is started.
    pub what: Launched,
    /// `await`: whether the task waits for the end. If not, its output is its input.
    pub awaited: bool,
}

/// What a task starts.
#[derive(Debug, Clone)]
pub enum Launched {
    /// `workflow`: a run of a document of the catalogue.
    Workflow(Subflow),
    /// `shell`, `script` or `container`.
    Process(Box<Process>),
}

/// A run of a document of the catalogue.
#[derive(Debug, Clone)]
pub struct Subflow {
    /// `namespace`.
    pub namespace: Template,
    /// `name`.
    pub name: Template,
    /// `version`; without one, or with `latest`, the newest at the time of the start.
    pub version: Option<Template>,
    /// `input`; without one an empty object.
    pub input: Option<Template>,
    /// Whether the run's output is the task's: not with `return: none`.
    pub returns: bool,
}

/// A process of the operating system.
#[derive(Debug, Clone)]
pub struct Process {
    /// What is executed.
    pub program: Program,
    /// `stdin`: text as it is, anything else as JSON.
    pub stdin: Option<Template>,
    /// `arguments`: a list of texts, or names with values.
    pub arguments: Option<Template>,
    /// `environment`: names with values.
    pub environment: Option<Template>,
    /// `return`: what of it is the output.
    pub returns: Return,
}

/// What a process executes.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "a document has few tasks, and its runs share them"
)]
pub enum Program {
    /// `shell`: a command of the shell.
    Shell {
        /// `command`.
        command: Template,
    },
    /// `script`: code in a language.
    Script {
        /// `language`.
        language: Language,
        /// `code`.
        code: Template,
    },
    /// `container`: an image.
    Container {
        /// `image`.
        image: Template,
        /// `name`; without one, a name is made of the step's id.
        name: Option<Template>,
        /// `command`, for the image's shell; without one the image's own.
        command: Option<Template>,
        /// `ports`: of this machine, with those of the container.
        ports: Option<Template>,
        /// `volumes`: paths of this machine, with those in the container.
        volumes: Option<Template>,
        /// `pullPolicy`.
        pull: Pull,
        /// `lifetime`.
        cleanup: Cleanup,
    },
}

/// A language of scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// ES2024, as a module.
    Js,
    /// Python 3.
    Python,
}

/// When the image of a container is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pull {
    /// If it is not there.
    #[default]
    IfNotPresent,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// When a container is removed that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cleanup {
    /// At once.
    #[default]
    Always,
    /// Not at all.
    Never,
    /// After a while.
    Eventually(Duration),
}

/// What of a process is the output of its task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Return {
    /// What it wrote to standard output.
    #[default]
    Stdout,
    /// What it wrote to standard error.
    Stderr,
    /// Its exit code.
    Code,
    /// An object with `code`, `stdout` and `stderr`.
    All,
    /// Nothing: `null`.
    None,
}

/// The values of a process's `arguments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Arguments {
    /// In order.
    Listed(Vec<String>),
    /// By name.
    Named(BTreeMap<String, Value>),
}

impl Launch {
    /// The task's raw output, given the answer to its request and its input.
    #[must_use]
    pub fn output(&self, answer: Value, input: &Arc<Value>) -> Value {
        match &self.what {
            _ if !self.awaited => input.as_ref().clone(),
            Launched::Workflow(subflow) if !subflow.returns => Value::Null,
            Launched::Workflow(_) | Launched::Process(_) => answer,
        }
    }
}

impl Language {
    /// The names of the language with what they mean.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("js", Self::Js),
        ("javascript", Self::Js),
        ("python", Self::Python),
    ];
}

impl Pull {
    /// The names of the language with what they mean.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("ifNotPresent", Self::IfNotPresent),
        ("always", Self::Always),
        ("never", Self::Never),
    ];
}

impl Return {
    /// The names of the language with what they mean.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("stdout", Self::Stdout),
        ("stderr", Self::Stderr),
        ("code", Self::Code),
        ("all", Self::All),
        ("none", Self::None),
    ];

    /// Whether the task goes on when the process exits with another code than 0: only where it sees the code.
    #[must_use]
    pub fn sees_code(self) -> bool {
        matches!(self, Self::Code | Self::All)
    }
}
