//! Beginning a `run`: what it starts, with everything evaluated.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::current::{Current, Fault};
use super::evaluate::bounded;
use crate::document::{Arguments, Kind, Launch, Launched, Process, Program, Subflow, Template};
use crate::journal::{EventKind, Problem, Standard};
use crate::request::{self, Request};

/// What names the newest version.
const LATEST: &str = "latest";

impl Current<'_> {
    /// The raw output of a task whose request has this answer.
    pub(super) fn answered(&self, answer: Value) -> Value {
        match &self.task.kind {
            Kind::Run(launch) => launch.output(answer, &self.activation.input),
            _ => answer,
        }
    }

    pub(super) fn launch(&self, launch: &Launch) -> Result<EventKind, Fault> {
        let request = match &launch.what {
            Launched::Workflow(subflow) => Request::Workflow(self.child(subflow, launch.awaited)?),
            Launched::Process(process) => Request::Process(self.process(process, launch.awaited)?),
        };
        Ok(EventKind::CallStarted {
            task: self.pointer(),
            activation: self.id,
            request,
        })
    }

    fn child(&self, subflow: &Subflow, awaited: bool) -> Result<request::Child, Fault> {
        let version = subflow.version.as_ref();
        let version = version
            .map(|version| self.text(version, "the workflow's version"))
            .transpose()?;
        let input = match &subflow.input {
            Some(input) => self
                .view
                .shared(input, &self.activation.input, "the workflow's input")?,
            None => Arc::new(Value::Object(Map::new())),
        };
        Ok(request::Child {
            namespace: self.text(&subflow.namespace, "the workflow's namespace")?,
            name: self.text(&subflow.name, "the workflow's name")?,
            version: version.filter(|version| version != LATEST),
            input,
            awaited,
        })
    }

    fn process(&self, process: &Process, awaited: bool) -> Result<request::Process, Fault> {
        let optional = |template: &Option<Template>, what| {
            template
                .as_ref()
                .map(|template| self.text(template, what))
                .transpose()
        };
        let program = match &process.program {
            Program::Shell { command } => request::Program::Shell {
                command: self.text(command, "the command")?,
            },
            Program::Script { language, code } => request::Program::Script {
                language: *language,
                code: self.text(code, "the code")?,
            },
            Program::Container {
                image,
                name,
                command,
                ports,
                volumes,
                pull,
                cleanup,
            } => request::Program::Container {
                image: self.text(image, "the image")?,
                name: optional(name, "the container's name")?,
                command: optional(command, "the command")?,
                ports: self.texts(ports.as_ref(), "the ports")?,
                volumes: self.texts(volumes.as_ref(), "the volumes")?,
                pull: *pull,
                cleanup: *cleanup,
            },
        };
        let stdin = process
            .stdin
            .as_ref()
            .map(|stdin| self.given(stdin, "the standard input"));
        let arguments = process
            .arguments
            .as_ref()
            .map(|arguments| self.process_arguments(arguments));
        Ok(request::Process {
            program,
            stdin: stdin.transpose()?.map(|stdin| plain(&stdin)),
            arguments: arguments.transpose()?,
            environment: self.texts(process.environment.as_ref(), "the environment")?,
            returns: process.returns,
            awaited,
        })
    }

    fn process_arguments(&self, template: &Template) -> Result<Arguments, Fault> {
        match self.given(template, "the arguments")?.as_ref() {
            Value::Array(items) => Ok(Arguments::Listed(items.iter().map(plain).collect())),
            Value::Object(fields) => Ok(Arguments::Named(fields.clone().into_iter().collect())),
            _ => Err(invalid(
                "the arguments must be a list, or an object of names with values",
            )),
        }
    }

    fn given(&self, template: &Template, what: &str) -> Result<Arc<Value>, Fault> {
        bounded(self.view.template(template, &self.activation.input)?, what)
    }

    fn text(&self, template: &Template, what: &str) -> Result<String, Fault> {
        match self.given(template, what)?.as_ref() {
            Value::String(text) => Ok(text.clone()),
            _ => Err(invalid(&format!("{what} must be text"))),
        }
    }

    /// An object of names with texts; numbers and truth values are written as such.
    fn texts(&self, template: Option<&Template>, what: &str) -> Result<BTreeMap<String, String>, Fault> {
        let Some(template) = template else {
            return Ok(BTreeMap::new());
        };
        match self.given(template, what)?.as_ref() {
            Value::Object(fields) => Ok(fields
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect()),
            _ => Err(invalid(&format!("{what} must be an object of names with values"))),
        }
    }
}

/// Text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::standard(Standard::Validation, detail)
}
