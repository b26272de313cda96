//! The top of a document: who the workflow is, and how its data come in and go out.

use serde_json::Map;

use super::catch::given;
use super::cursor::{Cursor, Fields};
use super::expressions::Moment;
use super::task::List;
use super::{Reader, Resources};
use crate::document::{Header, Template, Workflow};
use crate::node::{Content, to_map};
use crate::problem::{listed, quoted};

impl Reader {
    pub(super) fn workflow(&mut self, at: &Cursor<'_>, resources: &Resources) -> Option<Workflow> {
        const ALLOWED: &[&str] = &[
            "document", "input", "use", "do", "timeout", "output", "schedule", "evaluate",
        ];
        let fields = self.fields(at, ALLOWED)?;
        // First, because it says how everything else is read.
        if let Some(section) = fields.get("evaluate") {
            self.evaluate(&section);
        }
        if let Some(section) = fields.get("use") {
            self.reusable(&section);
        }
        let header = self
            .require(&fields, "document")
            .and_then(|section| self.header(&section));
        let input = self.during(Moment::WorkflowInput, |reader| reader.input(&fields));
        let output = self.during(Moment::WorkflowOutput, |reader| reader.output(&fields));
        let schemas = self.schemas(&fields);
        let timeout = fields.get("timeout").and_then(|timeout| self.timeout(&timeout));
        let section = fields.get("schedule");
        let on = section.as_ref().filter(|section| section.child("on").is_some());
        let starts_on = on.map(|section| self.starts_on(section));
        let schedule = section.as_ref().filter(|section| section.child("on").is_none());
        let schedule = schedule.map(|section| self.schedule(section));
        let tasks = self
            .require(&fields, "do")
            .and_then(|tasks| self.tasks(&tasks, List::Sequence));
        self.obtained(resources);
        if !resources.is_empty() {
            self.check_recursion(at);
        }
        let (functions, external) = self.take_functions(resources);
        Some(Workflow {
            header: header?,
            input,
            output,
            schemas,
            timeout,
            starts_on: given(starts_on)?,
            schedule: given(schedule)?,
            extensions: std::mem::take(&mut self.reusable.extensions),
            functions,
            external,
            secrets: std::mem::take(&mut self.reusable.secrets),
            tasks: tasks?,
            raw: at.node.to_value(),
        })
    }

    fn header(&mut self, at: &Cursor<'_>) -> Option<Header> {
        const ALLOWED: &[&str] = &[
            "dsl",
            "namespace",
            "name",
            "version",
            "title",
            "summary",
            "tags",
            "metadata",
        ];
        let fields = self.fields(at, ALLOWED)?;
        let dsl = self.identity(&fields, "dsl", is_supported_dsl, "must be 1.0.x, such as '1.0.1'");
        let label = "must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
        let namespace = self.identity(&fields, "namespace", muster_api::names::is_dns_label, label);
        let name = self.identity(&fields, "name", muster_api::names::is_dns_label, label);
        let version = self.identity(
            &fields,
            "version",
            is_semantic_version,
            "must be a semantic version, such as '1.0.0'",
        );
        let title = self.optional_text(&fields, "title");
        let summary = self.optional_text(&fields, "summary");
        let tags = self.free_form(&fields, "tags");
        let metadata = self.free_form(&fields, "metadata");
        let policy = self.workflow_policy(&fields);
        Some(Header {
            dsl: dsl?,
            namespace: namespace?,
            name: name?,
            version: version?,
            title,
            summary,
            tags,
            metadata,
            policy,
        })
    }

    fn identity(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        fits: impl Fn(&str) -> bool,
        rule: &str,
    ) -> Option<String> {
        let field = self.require(fields, name)?;
        let text = self.text(&field)?;
        if !fits(text) {
            self.wrong(&field, format!("'{name}' {rule}; found {}", quoted(text)));
            return None;
        }
        Some(text.to_owned())
    }

    /// An object that is kept and never interpreted; empty if it is left away.
    pub(super) fn free_form(&mut self, fields: &Fields<'_>, name: &str) -> Map<String, serde_json::Value> {
        let Some(field) = fields.get(name) else {
            return Map::new();
        };
        self.object(&field)
            .map(|fields| to_map(fields.entries))
            .unwrap_or_default()
    }

    /// `evaluate`: the language is jq; the mode says whether any text may be an expression.
    fn evaluate(&mut self, at: &Cursor<'_>) {
        let Some(fields) = self.fields(at, &["language", "mode"]) else {
            return;
        };
        for (name, allowed) in [("language", &["jq"] as &[&str]), ("mode", &["strict", "loose"])] {
            let Some(field) = fields.get(name) else { continue };
            let Some(text) = self.text(&field) else { continue };
            if !allowed.contains(&text) {
                let nearest = muster_api::names::suggestion(text, allowed.iter().copied());
                let message = format!(
                    "{} is no {name} of expressions here; allowed is {}{nearest}",
                    quoted(text),
                    listed(allowed.iter().copied())
                );
                self.wrong(&field, message);
            }
            self.loose |= text == "loose";
        }
    }

    /// `input.from` of the workflow or of a task.
    pub(super) fn input(&mut self, fields: &Fields<'_>) -> Option<Template> {
        self.shaped(fields, "input", "from")
    }

    /// `output.as` of the workflow or of a task.
    pub(super) fn output(&mut self, fields: &Fields<'_>) -> Option<Template> {
        self.shaped(fields, "output", "as")
    }

    /// `export.as` of a task.
    pub(super) fn export(&mut self, fields: &Fields<'_>) -> Option<Template> {
        self.shaped(fields, "export", "as")
    }

    fn shaped(&mut self, fields: &Fields<'_>, section: &str, by: &str) -> Option<Template> {
        let section = fields.get(section)?;
        let fields = self.fields(&section, &[by, "schema"])?;
        let shape = fields.get(by)?;
        match &shape.node.content {
            Content::Text(text) => self.expression(&shape, text).map(Template::Expression),
            Content::Object(_) => self.template(&shape),
            _ => {
                let found = shape.node.kind();
                self.wrong(
                    &shape,
                    format!("'{by}' must be an expression or an object, found {found}"),
                );
                None
            }
        }
    }
}

fn is_supported_dsl(text: &str) -> bool {
    text.strip_prefix("1.0.").is_some_and(is_numeric_identifier)
}

/// Whether `text` is `MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]` after Semantic Versioning 2.0.
pub(super) fn is_semantic_version(text: &str) -> bool {
    const LONGEST: usize = 128;
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, prerelease) = match rest.split_once('-') {
        Some((core, prerelease)) => (core, Some(prerelease)),
        None => (rest, None),
    };
    let numbers: Vec<&str> = core.split('.').collect();
    text.len() <= LONGEST
        && numbers.len() == 3
        && numbers.into_iter().all(is_numeric_identifier)
        && build.is_none_or(|build| build.split('.').all(is_identifier))
        && prerelease.is_none_or(|prerelease| {
            let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            prerelease
                .split('.')
                .all(|part| is_identifier(part) && (!numeric(part) || is_numeric_identifier(part)))
        })
}

fn is_numeric_identifier(text: &str) -> bool {
    text == "0"
        || !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for good in [
            "0.0.0",
            "1.2.3",
            "10.20.30",
            "1.0.0-alpha.1",
            "1.0.0-0a",
            "1.0.0+001",
            "1.0.0-x-y.z+b-1.2",
        ] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3+",
            "v1.2.3",
            "1.2.3 ",
            "1.2.3-a..b",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }

    #[test]
    fn the_language_is_1_0() {
        assert!(is_supported_dsl("1.0.0") && is_supported_dsl("1.0.3"));
        for bad in ["1.1.0", "1.0", "1.0.", "1.0.0-alpha1", "0.8"] {
            assert!(!is_supported_dsl(bad), "{bad}");
        }
    }
}
