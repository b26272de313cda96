//! `run`.

use std::time::Duration;

use super::Reader;
use super::catch::given;
use super::cursor::{Cursor, Fields};
use super::function::Elsewhere;
use crate::document::{
    Cleanup, Kind, Language, Launch, Launched, Period, Process, Program, Pull, Return, Subflow, Template,
};
use crate::expression::Expression;
use crate::node::Content;
use crate::problem::{listed, quoted};

/// What can be run.
const WHAT: [&str; 4] = ["container", "script", "shell", "workflow"];

/// Longest time until a container is removed that has ended.
const LONGEST_CLEANUP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Reader {
    /// `run`: one of a container, a script, a shell command and a workflow, with `await` and `return`.
    pub(super) fn run(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let run = self.require(fields, "run")?;
        let fields = self.fields(
            &run,
            &["await", "container", "return", "script", "shell", "workflow"],
        )?;
        let awaited = fields.get("await").map(|awaited| self.boolean(&awaited));
        let returns = fields
            .get("return")
            .map(|returns| self.choice(&returns, &Return::NAMES));
        let mut named = WHAT.iter().filter(|what| fields.has(what));
        let (Some(what), None) = (named.next(), named.next()) else {
            self.wrong(&run, format!("a 'run' names one of {}", listed(WHAT)));
            return None;
        };
        let at = self.require(&fields, what)?;
        let what = match *what {
            "workflow" => {
                self.check_workflow_return(&fields, returns.flatten());
                self.subflow(&at, returns.flatten()).map(Launched::Workflow)
            }
            what => self.process(what, &at, returns.flatten().unwrap_or_default()),
        };
        given(returns)?;
        Some(Kind::Run(Launch {
            what: what?,
            awaited: given(awaited)?.unwrap_or(true),
        }))
    }

    fn check_workflow_return(&mut self, fields: &Fields<'_>, returns: Option<Return>) {
        if let (Some(at), Some(Return::Stderr | Return::Code | Return::All)) = (fields.get("return"), returns)
        {
            let message =
                "a workflow has an output only; allowed are 'stdout', which is the output, and 'none'";
            self.wrong(&at, message);
        }
    }

    fn subflow(&mut self, at: &Cursor<'_>, returns: Option<Return>) -> Option<Subflow> {
        let fields = self.fields(at, &["namespace", "name", "version", "input"])?;
        let label = "must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
        let is_label = muster_api::names::is_dns_label;
        let namespace = self.require(&fields, "namespace");
        let namespace = namespace.and_then(|at| self.known_text(&at, is_label, label));
        let name = self.require(&fields, "name");
        let name = name.and_then(|at| self.known_text(&at, is_label, label));
        let is_version = |text: &str| text == "latest" || super::workflow::is_semantic_version(text);
        let version = fields
            .get("version")
            .map(|version| self.known_text(&version, is_version, "must be a semantic version, or 'latest'"));
        let input = fields.get("input").map(|input| self.template(&input));
        Some(Subflow {
            namespace: namespace?,
            name: name?,
            version: given(version)?,
            input: given(input)?,
            returns: returns != Some(Return::None),
        })
    }

    fn process(&mut self, what: &str, at: &Cursor<'_>, returns: Return) -> Option<Launched> {
        const SHARED: [&str; 3] = ["stdin", "arguments", "environment"];
        let own: &[&str] = match what {
            "shell" => &["command"],
            "script" => &["language", "code", "source"],
            _ => &[
                "image",
                "name",
                "command",
                "ports",
                "volumes",
                "lifetime",
                "pullPolicy",
            ],
        };
        let allowed: Vec<&str> = own.iter().copied().chain(SHARED).collect();
        let fields = self.fields(at, &allowed)?;
        let program = match what {
            "shell" => self.require(&fields, "command").and_then(|command| {
                let command = self.code(&command)?;
                Some(Program::Shell { command })
            }),
            "script" => self.script(at, &fields),
            _ => self.container(&fields),
        };
        let stdin = fields.get("stdin").map(|stdin| self.template(&stdin));
        let arguments = fields.get("arguments").map(|at| self.arguments(&at));
        let environment = self.object_field(&fields, "environment");
        Some(Launched::Process(Box::new(Process {
            program: program?,
            stdin: given(stdin)?,
            arguments: given(arguments)?,
            environment: given(environment)?,
            returns,
        })))
    }

    fn script(&mut self, at: &Cursor<'_>, fields: &Fields<'_>) -> Option<Program> {
        let language = self.require(fields, "language");
        let language = language.and_then(|at| self.choice(&at, &Language::NAMES));
        let code = match (fields.get("code"), fields.get("source")) {
            (Some(code), None) => self.code(&code),
            (None, Some(source)) => self.script_elsewhere(&source),
            (Some(_), Some(source)) => {
                self.wrong_name(
                    &source,
                    "'code' and 'source' both hold the script; give one of them",
                );
                None
            }
            (None, None) => {
                self.wrong(
                    at,
                    "a script has its text in 'code', or in 'source' the address where it is",
                );
                None
            }
        };
        Some(Program::Script {
            language: language?,
            code: code?,
        })
    }

    /// A script at an address: it is obtained before a run begins, and is a program as it stands.
    fn script_elsewhere(&mut self, at: &Cursor<'_>) -> Option<Template> {
        let name = self.elsewhere(at, Elsewhere::Script)?;
        let code = self.resources.get(&name).map_or("", String::as_str);
        Some(Template::Literal(code.into()))
    }

    fn container(&mut self, fields: &Fields<'_>) -> Option<Program> {
        let image = self.require(fields, "image").and_then(|image| {
            self.known_text(
                &image,
                |text| !text.is_empty() && !text.starts_with('-'),
                "must name an image",
            )
        });
        let name = fields
            .get("name")
            .map(|name| self.known_text(&name, is_container_name, CONTAINER_NAME));
        let command = fields.get("command").map(|command| self.code(&command));
        let ports = self.object_field(fields, "ports");
        let volumes = self.object_field(fields, "volumes");
        let pull = fields
            .get("pullPolicy")
            .map(|pull| self.choice(&pull, &Pull::NAMES));
        let cleanup = fields.get("lifetime").map(|lifetime| self.lifetime(&lifetime));
        Some(Program::Container {
            image: image?,
            name: given(name)?,
            command: given(command)?,
            ports: given(ports)?,
            volumes: given(volumes)?,
            pull: given(pull)?.unwrap_or_default(),
            cleanup: given(cleanup)?.unwrap_or_default(),
        })
    }

    /// `lifetime`: when the container is removed.
    fn lifetime(&mut self, at: &Cursor<'_>) -> Option<Cleanup> {
        const POLICIES: [(&str, Option<Cleanup>); 3] = [
            ("always", Some(Cleanup::Always)),
            ("never", Some(Cleanup::Never)),
            ("eventually", None),
        ];
        let fields = self.fields(at, &["cleanup", "after"])?;
        let cleanup = self.require(&fields, "cleanup")?;
        let policy = self.choice(&cleanup, &POLICIES)?;
        match (policy, fields.get("after")) {
            (Some(policy), None) => Some(policy),
            (Some(_), Some(after)) => {
                self.wrong_name(&after, "'after' goes with 'cleanup: eventually' only");
                None
            }
            (None, None) => self.require(&fields, "after").and(None),
            (None, Some(after)) => match self.duration(&after)? {
                Period::Fixed(duration) if duration <= LONGEST_CLEANUP => Some(Cleanup::Eventually(duration)),
                _ => {
                    self.wrong(
                        &after,
                        "must be a duration of at most 30 days, without expressions",
                    );
                    None
                }
            },
        }
    }

    /// A list of texts, or names with values, or an expression that yields one of them.
    fn arguments(&mut self, at: &Cursor<'_>) -> Option<Template> {
        match &at.node.content {
            Content::Array(_) | Content::Object(_) => self.template(at),
            Content::Text(text) if super::embedded(text).is_some() || self.loose => self.template(at),
            _ => {
                self.wrong(
                    at,
                    "'arguments' is a list, an object of names with values, or one expression",
                );
                None
            }
        }
    }

    fn object_field(&mut self, fields: &Fields<'_>, name: &str) -> Option<Option<Template>> {
        let at = fields.get(name)?;
        Some(match &at.node.content {
            Content::Object(_) => self.template(&at),
            Content::Text(text) if super::embedded(text).is_some() || self.loose => self.template(&at),
            _ => {
                let name = quoted(name);
                self.wrong(
                    &at,
                    format!("{name} is an object of names with values, or one expression"),
                );
                None
            }
        })
    }

    /// Text that is checked now, unless it is an expression.
    fn known_text(&mut self, at: &Cursor<'_>, fits: impl Fn(&str) -> bool, rule: &str) -> Option<Template> {
        let text = self.text(at)?;
        if super::embedded(text).is_some() {
            return self.template(at);
        }
        if !fits(text) {
            self.wrong(at, format!("{rule}; found {}", quoted(text)));
            return None;
        }
        Some(Template::Literal(text.into()))
    }

    /// A program's text: one expression, or as it stands. That it contains `${` says nothing: shells and JavaScript have it,
    /// too. But no shell has `${ ` or `${.`.
    fn code(&mut self, at: &Cursor<'_>) -> Option<Template> {
        let text = self.text(at)?;
        if text.trim().is_empty() {
            self.wrong(at, "must not be empty");
            return None;
        }
        let one = |source: &&str| text.matches("${").count() == 1 || Expression::compile(source).is_ok();
        if let Some(source) = super::embedded(text).filter(one) {
            return self.expression(at, source).map(Template::Expression);
        }
        if ["${ ", "${.", "${$"].iter().any(|start| text.contains(start)) {
            let message = "'${ … }' inside a program is not evaluated; make the whole text one expression, such as \
                           ${ \"echo \\(.name)\" }, or better pass values as 'arguments' or 'environment'";
            self.problems.warning(at.place(), &at.pointer, message);
        }
        Some(Template::Literal(text.into()))
    }

    /// One of some names.
    pub(super) fn choice<T: Copy>(&mut self, at: &Cursor<'_>, names: &[(&str, T)]) -> Option<T> {
        let text = self.text(at)?;
        let found = names.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let known = || names.iter().map(|(name, _)| *name);
            let nearest = muster_api::names::suggestion(text, known());
            let allowed = listed(known());
            self.wrong(
                at,
                format!(
                    "{} is not allowed here; allowed are {allowed}{nearest}",
                    quoted(text)
                ),
            );
        }
        found.map(|(_, value)| *value)
    }
}

const CONTAINER_NAME: &str = "must be letters, digits, '_', '.' and '-', and begin with a letter or digit";

fn is_container_name(text: &str) -> bool {
    const LONGEST: usize = 128;
    text.len() <= LONGEST
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}
