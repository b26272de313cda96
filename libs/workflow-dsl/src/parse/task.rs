//! Lists of tasks, and what every task has.

use super::Reader;
use super::catch::given;
use super::cursor::{Cursor, Fields};
use super::expressions::Moment;
use super::flow::Targets;
use crate::document::{Flow, Kind, Task, TaskList, Template};
use crate::node::Content;
use crate::problem::{listed, quoted};

/// Fields that every task may have.
const COMMON: [&str; 7] = ["if", "input", "output", "export", "timeout", "then", "metadata"];

/// The kinds of tasks: the field that makes a task of this kind, and the other fields of the kind.
const KINDS: [(&str, &[&str]); 12] = [
    ("call", &["with"]),
    // Before `do`, which is a field of `for` too.
    ("for", &["while", "do"]),
    ("do", &[]),
    ("emit", &[]),
    ("fork", &[]),
    ("listen", &["foreach"]),
    ("raise", &[]),
    ("run", &[]),
    ("set", &[]),
    ("switch", &[]),
    ("try", &["catch"]),
    ("wait", &[]),
];

/// Longest name of a task, in bytes: names end up in pointers, and those in every event of a run.
const LONGEST_NAME: usize = 128;

/// How the tasks of a list stand to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// One after the other.
    Sequence,
    /// At the same time.
    Branches,
}

impl Reader {
    /// A list of tasks, each under its name.
    pub(super) fn tasks(&mut self, at: &Cursor<'_>, list: List) -> Option<TaskList> {
        let items = self.items(at)?;
        if items.is_empty() {
            self.wrong(
                at,
                "at least one task is needed, such as `- greet: {set: {text: hello}}`",
            );
            return None;
        }
        let mut names = Vec::with_capacity(items.len());
        let named: Vec<Option<(String, Cursor<'_>)>> = items
            .iter()
            .map(|item| self.named(item, "task", &mut names))
            .collect();
        let order: Vec<Option<&str>> = named
            .iter()
            .map(|task| task.as_ref().map(|(name, _)| name.as_str()))
            .collect();
        let targets = Targets { names: &order, list };
        let tasks: Vec<Option<Task>> = named
            .iter()
            .map(|task| {
                task.as_ref()
                    .and_then(|(name, definition)| self.task(name, definition, &targets))
            })
            .collect();
        let tasks: Vec<Task> = tasks.into_iter().collect::<Option<_>>()?;
        let definitions: Vec<&Cursor<'_>> =
            named.iter().flatten().map(|(_, definition)| definition).collect();
        if list == List::Sequence {
            self.doubt_list(&tasks, &definitions);
        }
        Some(TaskList {
            pointer: at.pointer.clone(),
            tasks,
        })
    }

    /// The one name of an item of a list, and what is under it. `names` are those of the items before.
    pub(super) fn named<'n>(
        &mut self,
        item: &Cursor<'n>,
        what: &str,
        names: &mut Vec<String>,
    ) -> Option<(String, Cursor<'n>)> {
        let fields = self.object(item)?;
        let mut entries = fields.iter();
        let (Some((name, definition)), None) = (entries.next(), entries.next()) else {
            let message = format!(
                "each item is one {what} under its name, `- name: {{…}}`; this one has {} fields: {}",
                fields.entries.len(),
                listed(fields.iter().map(|(name, _)| name))
            );
            self.wrong(item, message);
            return None;
        };
        if name.is_empty() || name.len() > LONGEST_NAME {
            self.wrong_name(
                &definition,
                format!("the name of a {what} must have 1 to {LONGEST_NAME} bytes"),
            );
            return None;
        }
        if names.iter().any(|earlier| earlier == name) {
            self.wrong_name(
                &definition,
                format!("there is already a {what} {} in this list", quoted(name)),
            );
        }
        names.push(name.to_owned());
        Some((name.to_owned(), definition))
    }

    pub(super) fn task(&mut self, name: &str, at: &Cursor<'_>, targets: &Targets<'_>) -> Option<Task> {
        let (kind, fields) = self.kind_of(at)?;
        self.doubt_name(name, at);
        let condition = fields
            .get("if")
            .map(|condition| self.during(Moment::Condition, |reader| reader.expression_field(&condition)));
        let input = self.during(Moment::TaskInput, |reader| reader.input(&fields));
        let output = self.during(Moment::Output, |reader| reader.output(&fields));
        let export = self.during(Moment::Export, |reader| reader.export(&fields));
        let schemas = self.schemas(&fields);
        let timeout = fields.get("timeout").and_then(|timeout| self.timeout(&timeout));
        let then = fields.get("then").map(|then| self.flow(&then, targets));
        let metadata = self.free_form(&fields, "metadata");
        let kind = self.kind(kind, &fields, targets);
        let policy = self.task_policy(&fields, kind.as_ref());
        let kind = kind?;
        let extensions = self.extensions_of(&kind);
        let task = Task {
            name: name.to_owned(),
            pointer: at.pointer.clone(),
            line: at.named_at.line,
            condition: given(condition)?,
            input,
            output,
            export,
            timeout,
            then: given(then)?.unwrap_or(Flow::Continue),
            metadata,
            policy,
            schemas,
            extensions,
            kind,
        };
        self.doubt_task(&task, at);
        Some(task)
    }

    /// The kind of a task by its fields, once they are known to be of this kind.
    fn kind_of<'n>(&mut self, at: &Cursor<'n>) -> Option<(&'static str, Fields<'n>)> {
        let fields = self.object(at)?;
        let Some((kind, own)) = KINDS.into_iter().find(|(kind, _)| fields.has(kind)) else {
            self.explain_kind(&fields);
            return None;
        };
        let others = KINDS.iter().map(|(other, _)| *other);
        let second = others
            .filter(|other| *other != kind && !own.contains(other))
            .find(|other| fields.has(other));
        if let Some(second) = second {
            let field = self.require(&fields, second)?;
            self.wrong_name(
                &field,
                format!("a task does one thing; this one has '{kind}' and '{second}'"),
            );
            return None;
        }
        let mut allowed = vec![kind];
        allowed.extend(own);
        allowed.extend(COMMON);
        let fields = self.fields(at, &allowed)?;
        Some((kind, fields))
    }

    /// Says why a task is of no known kind.
    fn explain_kind(&mut self, fields: &Fields<'_>) {
        let kinds = || KINDS.iter().map(|(kind, _)| *kind);
        let is_field_of_a_kind = |name: &str| KINDS.iter().any(|(_, own)| own.contains(&name));
        let mut strangers = fields
            .iter()
            .filter(|(name, _)| !COMMON.contains(name) && !is_field_of_a_kind(name))
            .peekable();
        if strangers.peek().is_none() {
            let message = format!(
                "the task does not say what it does; add one of {}",
                listed(kinds())
            );
            self.wrong_name(&fields.at, message);
            return;
        }
        for (name, field) in strangers {
            let nearest = muster_api::names::suggestion(name, kinds().chain(COMMON));
            let kinds = listed(kinds());
            self.wrong_name(
                &field,
                format!(
                    "no such kind of task {}; there are {kinds}{nearest}",
                    quoted(name)
                ),
            );
        }
    }

    fn kind(&mut self, kind: &str, fields: &Fields<'_>, targets: &Targets<'_>) -> Option<Kind> {
        match kind {
            "call" => self.call(fields),
            "emit" => self.emit(fields),
            "for" => self.each(fields),
            "fork" => self.fork(fields),
            "listen" => self.listen(fields),
            "raise" => self.raise(fields),
            "run" => self.run(fields),
            "set" => self.set(fields),
            "switch" => self.switch(fields, targets),
            "try" => self.attempt(fields),
            "wait" => {
                let wait = self.require(fields, "wait")?;
                self.duration(&wait).map(Kind::Wait)
            }
            _ => {
                let tasks = self.require(fields, "do")?;
                self.tasks(&tasks, List::Sequence).map(Kind::Do)
            }
        }
    }

    /// `set`: an object with at least one field, or one expression.
    fn set(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let set = self.require(fields, "set")?;
        match &set.node.content {
            Content::Object(entries) if !entries.is_empty() => {}
            Content::Text(text)
                if super::embedded(text).is_some() || self.loose && !text.trim().is_empty() => {}
            _ => {
                self.wrong(
                    &set,
                    "'set' must be an object with at least one field, or one expression ${ … }",
                );
                return None;
            }
        }
        let template: Option<Template> = self.template(&set);
        template.map(Kind::Set)
    }
}
