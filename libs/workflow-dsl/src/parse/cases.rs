//! The cases of a dry run: see [`crate::rehearsal`]. Read as documents are, to the last mistake.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_api::names::suggestion;
use serde_json::{Value, json};

use super::cursor::{Cursor, Fields};
use super::{Reader, Resources};
use crate::cloud_event::CloudEvent;
use crate::document::Workflow;
use crate::expression::Expression;
use crate::journal::{Problem, Standard, Verdict};
use crate::node::{self, Content};
use crate::problem::{Problems, listed, quoted};
use crate::rehearsal::{Answer, Arrival, Calls, Case, Decision, Expectation, Reply, every_task, means};
use crate::run::Status;

/// Most cases of a file.
const MOST: usize = 1000;

/// Most answers of one task in one case.
const MOST_ANSWERS: usize = 1000;

/// When runs begin, unless the case says so.
const BEGINNING: &str = "2026-01-01T00:00:00Z";

/// How a run may end, or stand in the end.
const STATUSES: [(&str, Status); 4] = [
    ("completed", Status::Completed),
    ("faulted", Status::Faulted),
    ("cancelled", Status::Cancelled),
    ("running", Status::Running),
];

/// Reads the cases of a workflow.
pub(crate) fn cases(text: &str, workflow: &Workflow) -> Result<Vec<Case>, Problems> {
    let mut problems = Problems::default();
    let Some(root) = node::read(text, "a file of cases needs the list 'cases'", &mut problems) else {
        return Err(problems);
    };
    let mut script = Script {
        reader: Reader::new(problems, Resources::new()),
        workflow,
    };
    let cases = script.cases(&Cursor::root(&root));
    match cases {
        Some(cases) if !script.reader.problems.has_errors() => Ok(cases),
        _ => Err(script.reader.problems.sorted()),
    }
}

/// A reader that knows the tasks.
struct Script<'w> {
    reader: Reader,
    workflow: &'w Workflow,
}

impl Script<'_> {
    fn cases(&mut self, at: &Cursor<'_>) -> Option<Vec<Case>> {
        let fields = self.reader.fields(at, &["cases"])?;
        let list = self.reader.require(&fields, "cases")?;
        let items = self.reader.items(&list)?;
        if items.is_empty() || items.len() > MOST {
            self.reader
                .wrong(&list, format!("there must be 1 to {MOST} cases"));
            return None;
        }
        let cases: Vec<Option<Case>> = items.iter().map(|item| self.case(item)).collect();
        let cases: Vec<Case> = cases.into_iter().collect::<Option<_>>()?;
        for (index, case) in cases.iter().enumerate() {
            if let Some(item) = items.get(index)
                && cases.iter().take(index).any(|earlier| earlier.name == case.name)
            {
                let message = format!("there is already a case {}", quoted(&case.name));
                self.reader.wrong(&item.descend("/name"), message);
            }
        }
        Some(cases)
    }

    fn case(&mut self, at: &Cursor<'_>) -> Option<Case> {
        const ALLOWED: &[&str] = &[
            "name",
            "input",
            "start",
            "secrets",
            "answers",
            "decisions",
            "events",
            "cancel",
            "expect",
        ];
        let fields = self.reader.fields(at, ALLOWED)?;
        let name = self
            .reader
            .require(&fields, "name")
            .and_then(|name| self.reader.text(&name));
        let start = match fields.get("start") {
            None => BEGINNING.parse().ok(),
            Some(start) => self.instant(&start),
        };
        let answers = match fields.get("answers") {
            None => Some(BTreeMap::new()),
            Some(answers) => self.by_task(&answers, Self::answers),
        };
        let decisions = match fields.get("decisions") {
            None => Some(BTreeMap::new()),
            Some(decisions) => self.by_task(&decisions, Self::decisions),
        };
        let events = match fields.get("events") {
            None => Some(Vec::new()),
            Some(events) => self.events(&events),
        };
        let secrets = match fields.get("secrets") {
            None => Some(BTreeMap::new()),
            Some(secrets) => self.secrets(&secrets),
        };
        let cancel = match fields.get("cancel") {
            None => Some(None),
            Some(cancel) => self.cancel(&cancel).map(Some),
        };
        let expect = match fields.get("expect") {
            None => Some(Expectation::default()),
            Some(expect) => self.expectation(&expect),
        };
        Some(Case {
            name: name?.to_owned(),
            line: at.named_at.line,
            input: value(&fields, "input").unwrap_or_default(),
            start: start?,
            secrets: secrets?,
            answers: answers?,
            decisions: decisions?,
            events: events?,
            cancel: cancel?,
            expect: expect?,
        })
    }

    /// Events that come from outside, each after a time, or at once.
    fn events(&mut self, at: &Cursor<'_>) -> Option<Vec<Arrival>> {
        let items = self.reader.items(at)?;
        if items.len() > MOST_ANSWERS {
            self.reader
                .wrong(at, format!("a case has at most {MOST_ANSWERS} events"));
            return None;
        }
        let read = items.iter().enumerate();
        let events: Vec<Option<Arrival>> = read.map(|(index, item)| self.event(index, item)).collect();
        events.into_iter().collect()
    }

    fn event(&mut self, index: usize, at: &Cursor<'_>) -> Option<Arrival> {
        let fields = self.reader.fields(at, &["after", "event"])?;
        let after = match fields.get("after") {
            None => Duration::ZERO,
            Some(after) => self.duration(&after)?,
        };
        let place = self.reader.require(&fields, "event")?;
        let mut event = place.node.to_value();
        if let Value::Object(fields) = &mut event {
            fields.entry("specversion").or_insert_with(|| "1.0".into());
            fields
                .entry("id")
                .or_insert_with(|| format!("case-{index}").into());
            fields.entry("source").or_insert_with(|| "/case".into());
        }
        let event = CloudEvent::check(event);
        let event = event
            .map_err(|error| self.reader.wrong(&place, error.to_string()))
            .ok()?;
        Some(Arrival { after, event })
    }

    fn instant(&mut self, at: &Cursor<'_>) -> Option<jiff::Timestamp> {
        let text = self.reader.text(at)?;
        let instant = text.parse();
        instant
            .map_err(|_| {
                let message = format!("{} is not an instant, such as {BEGINNING}", quoted(text));
                self.reader.wrong(at, message);
            })
            .ok()
    }

    fn duration(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        let duration = self.reader.duration(at)?.fixed();
        if duration.is_none() {
            self.reader
                .wrong(at, "a duration of a case must be written down, not computed");
        }
        duration
    }

    /// Secrets, which the document must list.
    fn secrets(&mut self, at: &Cursor<'_>) -> Option<BTreeMap<String, Value>> {
        let fields = self.reader.object(at)?;
        for (name, field) in fields.iter() {
            let listed = || self.workflow.secrets.iter().map(String::as_str);
            if !listed().any(|known| known == name) {
                let nearest = suggestion(name, listed());
                let message = format!(
                    "the workflow lists no secret {} in 'use.secrets'{nearest}",
                    quoted(name)
                );
                self.reader.wrong_name(&field, message);
            }
        }
        Some(
            fields
                .iter()
                .map(|(name, field)| (name.to_owned(), field.node.to_value()))
                .collect(),
        )
    }

    fn cancel(&mut self, at: &Cursor<'_>) -> Option<Duration> {
        let fields = self.reader.fields(at, &["after"])?;
        let after = self.reader.require(&fields, "after")?;
        self.duration(&after)
    }

    /// An object whose fields are tasks.
    fn by_task<T>(
        &mut self,
        at: &Cursor<'_>,
        mut read: impl FnMut(&mut Self, &Cursor<'_>) -> Option<T>,
    ) -> Option<BTreeMap<String, T>> {
        let fields = self.reader.object(at)?;
        let mut found = BTreeMap::new();
        for (task, field) in fields.iter() {
            self.check_task(task, &field);
            found.insert(task.to_owned(), read(self, &field)?);
        }
        Some(found)
    }

    /// That there is such a task.
    fn check_task(&mut self, reference: &str, at: &Cursor<'_>) {
        let tasks = every_task(self.workflow);
        if tasks.iter().any(|task| means(reference, &task.pointer)) {
            return;
        }
        let names = || tasks.iter().map(|task| task.name.as_str());
        let message = format!(
            "the workflow has no task {}; there are {}{}",
            quoted(reference),
            listed(names()),
            suggestion(reference, names())
        );
        self.reader.wrong_name(at, message);
    }

    /// One decision, or one for each time the task asks.
    fn decisions(&mut self, at: &Cursor<'_>) -> Option<Vec<Decision>> {
        let items = match &at.node.content {
            Content::Array(_) => self.reader.items(at)?,
            _ => vec![at.clone()],
        };
        let decisions: Vec<Option<Decision>> = items.iter().map(|item| self.decision(item)).collect();
        decisions.into_iter().collect()
    }

    fn decision(&mut self, at: &Cursor<'_>) -> Option<Decision> {
        let fields = self.reader.fields(at, &["approve", "by", "comment", "after"])?;
        let approve = self.reader.require(&fields, "approve")?;
        let approved = self.reader.boolean(&approve)?;
        let after = match fields.get("after") {
            None => Some(Duration::ZERO),
            Some(after) => self.duration(&after),
        };
        let by = self.reader.optional_text(&fields, "by");
        let comment = self.reader.optional_text(&fields, "comment");
        Some(Decision {
            after: after?,
            verdict: Verdict {
                approved,
                by: by.unwrap_or_else(|| "somebody".to_owned()),
                comment: comment.unwrap_or_default(),
                raise: None,
            },
        })
    }

    /// One answer, or one for each call in turn.
    fn answers(&mut self, at: &Cursor<'_>) -> Option<Vec<Answer>> {
        let items = match &at.node.content {
            Content::Array(_) => self.reader.items(at)?,
            _ => vec![at.clone()],
        };
        if items.is_empty() || items.len() > MOST_ANSWERS {
            self.reader
                .wrong(at, format!("there must be 1 to {MOST_ANSWERS} answers"));
            return None;
        }
        let answers: Vec<Option<Answer>> = items.iter().map(|item| self.answer(item)).collect();
        answers.into_iter().collect()
    }

    fn answer(&mut self, at: &Cursor<'_>) -> Option<Answer> {
        const REPLIES: &str = "an answer is one of 'output' (the raw output of the task), 'data' and 'text' (what an agent \
                               answers), 'error' and 'silent: true'";
        let fields = self
            .reader
            .fields(at, &["output", "data", "text", "error", "silent", "after"])?;
        let after = match fields.get("after") {
            None => Some(Duration::ZERO),
            Some(after) => self.duration(&after),
        };
        let agent = fields.has("data") || fields.has("text");
        let silent = match fields.get("silent") {
            None => Some(false),
            Some(silent) => self.reader.boolean(&silent),
        }?;
        let given = [fields.has("output"), agent, fields.has("error"), silent];
        if given.into_iter().filter(|given| *given).count() != 1 {
            self.reader.wrong(at, REPLIES);
            return None;
        }
        let reply = if silent {
            Reply::Silence
        } else if let Some(error) = fields.get("error") {
            Reply::Failure(self.error(&error)?)
        } else if agent {
            Reply::Output(task_of_agent(&fields))
        } else {
            Reply::Output(value(&fields, "output").unwrap_or_default())
        };
        Some(Answer { after: after?, reply })
    }

    /// An error: its type as a URI, or as the last part of one of the language's.
    fn error(&mut self, at: &Cursor<'_>) -> Option<Problem> {
        let fields = self
            .reader
            .fields(at, &["type", "status", "title", "detail", "instance"])?;
        let kind = self
            .reader
            .require(&fields, "type")
            .and_then(|kind| self.reader.text(&kind))?;
        let status = match fields.get("status") {
            None => None,
            Some(status) => Some(self.reader.integer(&status, 100, 599)?),
        };
        let status = status.and_then(|status| u16::try_from(status).ok());
        let title = self.reader.optional_text(&fields, "title");
        let detail = self.reader.optional_text(&fields, "detail");
        let instance = self.reader.optional_text(&fields, "instance");
        let standard = Standard::by_name(kind).or_else(|| Standard::by_uri(kind));
        let problem = match standard {
            Some(standard) => Problem::standard(standard, "as the case says"),
            None => Problem {
                kind: kind.to_owned(),
                status: 500,
                instance: None,
                title: None,
                detail: None,
            },
        };
        Some(Problem {
            status: status.unwrap_or(problem.status),
            title: title.or(problem.title),
            detail: detail.or(problem.detail),
            instance,
            ..problem
        })
    }

    fn expectation(&mut self, at: &Cursor<'_>) -> Option<Expectation> {
        const ALLOWED: &[&str] = &[
            "status", "output", "includes", "error", "ran", "skipped", "calls", "takes", "that",
        ];
        let fields = self.reader.fields(at, ALLOWED)?;
        let status = match fields.get("status") {
            None => Some(None),
            Some(status) => self.status(&status).map(Some),
        };
        let error = match fields.get("error") {
            None => Some(None),
            Some(error) => {
                let known = &["type", "status", "title", "detail", "instance"];
                let fields = self.reader.fields(&error, known);
                fields.map(|fields| Some(node::to_map(fields.entries)))
            }
        };
        let ran = self.tasks(&fields, "ran");
        let skipped = self.tasks(&fields, "skipped");
        let calls = match fields.get("calls") {
            None => Some(BTreeMap::new()),
            Some(calls) => self.by_task(&calls, Self::calls),
        };
        let takes = match fields.get("takes") {
            None => Some(None),
            Some(takes) => self.duration(&takes).map(Some),
        };
        let that = match fields.get("that") {
            None => Some(Vec::new()),
            Some(that) => self.conditions(&that),
        };
        Some(Expectation {
            status: status?,
            output: value(&fields, "output"),
            includes: value(&fields, "includes"),
            error: error?,
            ran: ran?,
            skipped: skipped?,
            calls: calls?,
            takes: takes?,
            that: that?,
        })
    }

    fn status(&mut self, at: &Cursor<'_>) -> Option<Status> {
        let text = self.reader.text(at)?;
        let status = STATUSES.iter().find(|(name, _)| *name == text);
        if status.is_none() {
            let names = || STATUSES.iter().map(|(name, _)| *name);
            let message = format!(
                "no such status {}; there are {}{}",
                quoted(text),
                listed(names()),
                suggestion(text, names())
            );
            self.reader.wrong(at, message);
        }
        status.map(|(_, status)| *status)
    }

    fn tasks(&mut self, fields: &Fields<'_>, name: &str) -> Option<Vec<String>> {
        let Some(list) = fields.get(name) else {
            return Some(Vec::new());
        };
        let items = self.reader.items(&list)?;
        let mut tasks = Vec::with_capacity(items.len());
        for item in &items {
            let task = self.reader.text(item)?;
            self.check_task(task, item);
            tasks.push(task.to_owned());
        }
        Some(tasks)
    }

    /// How many calls, or what is asked in each.
    fn calls(&mut self, at: &Cursor<'_>) -> Option<Calls> {
        match &at.node.content {
            Content::Array(items) => Some(Calls::Requests(items.iter().map(node::Node::to_value).collect())),
            Content::Number(_) => self.reader.integer(at, 0, 1_000_000).map(Calls::Count),
            _ => {
                self.reader
                    .wrong(at, "calls are their number, or a list of what is asked in each");
                None
            }
        }
    }

    /// One condition, or several.
    fn conditions(&mut self, at: &Cursor<'_>) -> Option<Vec<Expression>> {
        let items = match &at.node.content {
            Content::Array(_) => self.reader.items(at)?,
            _ => vec![at.clone()],
        };
        let conditions: Vec<Option<Expression>> = items
            .iter()
            .map(|item| self.reader.expression_field(item))
            .collect();
        let conditions: Vec<Expression> = conditions.into_iter().collect::<Option<_>>()?;
        for (item, condition) in items.iter().zip(&conditions) {
            if let Some(name) = condition.variables().first() {
                let message = format!("there is no variable '${name}' here; '.' is the output of the run");
                self.reader.wrong(item, message);
                return None;
            }
        }
        Some(conditions)
    }
}

fn value(fields: &Fields<'_>, name: &str) -> Option<Value> {
    fields.get(name).map(|field| field.node.to_value())
}

/// The task that an agent answers with, completed, with data, text or both as its result.
fn task_of_agent(fields: &Fields<'_>) -> Value {
    let part = |name: &'static str| value(fields, name).map(|value| json!({ name: value }));
    let parts: Vec<Value> = ["data", "text"].into_iter().filter_map(part).collect();
    json!({
        "id": "rehearsal",
        "contextId": "rehearsal",
        "status": {"state": "TASK_STATE_COMPLETED"},
        "artifacts": [{"artifactId": "rehearsal", "parts": parts}],
    })
}
