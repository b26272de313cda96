//! What a handler gives back: a reply, a failure, and the artifacts in between.

use a2a::{Message, Part, Role, new_artifact_id};
use serde_json::{Value, json};

/// Name of the artifact that holds an answer's structured result; always the first.
pub(crate) const RESULT: &str = "result";

/// A file or another piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) part: Part,
}

impl Artifact {
    /// A file, for instance a chart.
    #[must_use]
    pub fn file(name: impl Into<String>, media_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let name = name.into();
        let part = Part::raw(bytes.into())
            .with_media_type(media_type)
            .with_filename(name.clone());
        Self::new(name, part)
    }

    /// Text.
    #[must_use]
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(name.into(), Part::text(text).with_media_type("text/plain"))
    }

    /// JSON.
    #[must_use]
    pub fn data(name: impl Into<String>, data: Value) -> Self {
        Self::new(name.into(), Part::data(data).with_media_type("application/json"))
    }

    /// Says what it is.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    fn new(name: String, part: Part) -> Self {
        Self {
            name,
            description: None,
            part,
        }
    }

    pub(crate) fn into_a2a(self) -> a2a::Artifact {
        a2a::Artifact {
            artifact_id: new_artifact_id(),
            name: Some(self.name),
            description: self.description,
            parts: vec![self.part],
            metadata: None,
            extensions: None,
        }
    }
}

/// How a handler ends when nothing went wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
    pub(crate) data: Option<Value>,
    pub(crate) artifacts: Vec<Artifact>,
}

/// What a reply does to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    InputRequired,
    AuthRequired,
}

impl Reply {
    /// The task is done; `summary` is for people.
    #[must_use]
    pub fn completed(summary: impl Into<String>) -> Self {
        Self::new(Outcome::Completed, summary.into())
    }

    /// The agent asks back. The next message on the task continues it, with [`Task::history`](crate::Task::history).
    #[must_use]
    pub fn input_required(question: impl Into<String>) -> Self {
        Self::new(Outcome::InputRequired, question.into())
    }

    /// The agent needs credentials that it does not have; the text says which, and how to give them. The next message on
    /// the task continues it.
    #[must_use]
    pub fn auth_required(demand: impl Into<String>) -> Self {
        Self::new(Outcome::AuthRequired, demand.into())
    }

    /// The structured result, or what a program needs to answer the question.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// Adds an artifact after the result.
    #[must_use]
    pub fn artifact(mut self, artifact: Artifact) -> Self {
        self.artifacts.push(artifact);
        self
    }

    fn new(outcome: Outcome, text: String) -> Self {
        Self {
            outcome,
            text,
            data: None,
            artifacts: Vec::new(),
        }
    }

    /// The artifact `result`. A reply without data still has one, so that a workflow can rely on its place.
    pub(crate) fn result_artifact(&self) -> a2a::Artifact {
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| json!({ "summary": self.text }));
        a2a::Artifact {
            artifact_id: RESULT.to_owned(),
            name: Some(RESULT.to_owned()),
            description: None,
            parts: vec![
                Part::data(data).with_media_type("application/json"),
                Part::text(&self.text),
            ],
            metadata: None,
            extensions: None,
        }
    }

    /// The message of the status that the reply sets.
    pub(crate) fn status_message(&self) -> Message {
        let mut parts = vec![Part::text(&self.text)];
        if let (Outcome::InputRequired | Outcome::AuthRequired, Some(data)) = (self.outcome, &self.data) {
            parts.push(Part::data(data.clone()).with_media_type("application/json"));
        }
        Message::new(Role::Agent, parts)
    }
}

/// How a handler ends when it cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) field: Option<String>,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rejected,
    Failed,
}

impl Failure {
    /// The request cannot be served as it is; the message says why and what would be. The task ends REJECTED.
    #[must_use]
    pub fn rejected(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Rejected,
            message: message.into(),
            field: None,
        }
    }

    /// The work was begun and failed. The task ends FAILED.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failed,
            ..Self::rejected(message)
        }
    }

    /// A field of the input is missing or malformed; the message says what is allowed. The task ends REJECTED.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = field.into();
        Self {
            message: format!("{field}: {}", message.into()),
            field: Some(field),
            ..Self::rejected("")
        }
    }

    /// Path of the input field at fault.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The message of the status that the failure sets; its metadata names the reason and the field for programs.
    pub(crate) fn status_message(&self) -> Message {
        let mut message = Message::new(Role::Agent, vec![Part::text(&self.message)]);
        message.metadata = self.field.as_ref().map(|field| {
            let reason = muster_api::error::Reason::InvalidField.name();
            [
                ("reason".to_owned(), json!(reason)),
                ("field".to_owned(), json!(field)),
            ]
            .into()
        });
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use a2a::PartContent;

    #[test]
    fn a_result_has_data_first_and_the_summary_second() {
        let artifact = Reply::completed("two days of rain")
            .data(json!({ "rainy": 2 }))
            .result_artifact();
        assert_eq!(artifact.name.as_deref(), Some("result"));
        assert_eq!(
            artifact.parts[0].content,
            PartContent::Data(json!({ "rainy": 2 }))
        );
        assert_eq!(artifact.parts[1].as_text(), Some("two days of rain"));
    }

    #[test]
    fn a_reply_without_data_keeps_the_shape() {
        let artifact = Reply::completed("done").result_artifact();
        assert_eq!(
            artifact.parts[0].content,
            PartContent::Data(json!({ "summary": "done" }))
        );
    }

    #[test]
    fn an_invalid_field_is_named_for_people_and_programs() {
        let failure = Failure::invalid_field("cities[6]", "at most 5 are compared");
        assert_eq!(failure.to_string(), "cities[6]: at most 5 are compared");
        assert_eq!(
            failure.status_message().metadata.unwrap()["field"],
            json!("cities[6]")
        );
    }
}
