//! What `run` asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{Arguments, Cleanup, Language, Pull, Return};

/// A run of a document of the catalogue. Whoever carries it out does not stay with it: the run goes on by itself, and
/// its end is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// `document.namespace`.
    pub namespace: String,
    /// `document.name`.
    pub name: String,
    /// `document.version`; none is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its input.
    pub input: Arc<Value>,
    /// Whether the end is waited for. If not, the request is done once the run is durable.
    #[serde(rename = "await")]
    pub awaited: bool,
}

/// A process of the operating system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// What is executed.
    #[serde(flatten)]
    pub program: Program,
    /// Its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Arguments>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// What of it is the answer.
    pub returns: Return,
    /// Whether the end is waited for. If not, the request is done once the process has begun.
    #[serde(rename = "await")]
    pub awaited: bool,
}

/// What a process executes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "program", rename_all = "lowercase")]
pub enum Program {
    /// A command of the shell.
    Shell {
        /// The command.
        command: String,
    },
    /// Code in a language.
    Script {
        /// Which language.
        language: Language,
        /// The code.
        code: String,
    },
    /// An image.
    Container {
        /// Which image.
        image: String,
        /// Name of the container; none is to be made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// A command for the image's shell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// Ports of this machine, with those of the container.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        ports: BTreeMap<String, String>,
        /// Paths of this machine, with those in the container.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        volumes: BTreeMap<String, String>,
        /// When the image is fetched.
        pull: Pull,
        /// When the container is removed.
        cleanup: Cleanup,
    },
}

impl Child {
    /// Which document, for people.
    #[must_use]
    pub fn target(&self) -> String {
        let Self { namespace, name, .. } = self;
        match &self.version {
            Some(version) => format!("{namespace}/{name}@{version}"),
            None => format!("{namespace}/{name}"),
        }
    }
}

impl Process {
    /// Which kind of process, as the language calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.program {
            Program::Shell { .. } => "shell",
            Program::Script { .. } => "script",
            Program::Container { .. } => "container",
        }
    }

    /// What is executed, for people: the beginning of it.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.program {
            Program::Shell { command } => format!("shell command `{}`", beginning(command)),
            Program::Script { language, code } => {
                let language = match language {
                    Language::Js => "JavaScript",
                    Language::Python => "Python",
                };
                format!("{language} script `{}`", beginning(code))
            }
            Program::Container { image, .. } => format!("container of {image}"),
        }
    }
}

/// The first line of a text, cut to a length that fits into a sentence.
fn beginning(text: &str) -> String {
    const LONGEST: usize = 60;
    let text = text.trim();
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(LONGEST).collect();
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut
    }
}
