//! The agent around the desk: decode, decide, encode.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use a2a::{Message, PartContent, Role};
use muster_agent_sdk::{Agent, Card, Failure, Reply, Request, Section, Skill, Task};
use muster_runtime::config::Mistakes;
use muster_runtime::metrics::{Definition, Metrics};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::escalation::Teams;
use crate::inquiry::{Desk, Inquiry, Outcome, Wish};
use crate::knowledge;
use crate::metrics::{DEFINITIONS, Meters};
use crate::notification::{self, Notification};
use crate::search::Library;

/// Answers questions.
pub const CUSTOMER_INQUIRY: &str = "customer_inquiry";
/// Gives the steps of known issues.
pub const ISSUE_RESOLUTION: &str = "issue_resolution";
/// Hands a case to a person.
pub const ESCALATION: &str = "escalation";
/// Writes a message to a customer.
pub const CUSTOMER_NOTIFICATION: &str = "customer_notification";

/// Longest question, in bytes.
const MAX_QUESTION_BYTES: usize = 8 * 1024;

/// What the agent can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A folder of Markdown that is answered from; Muster's own documentation if absent.
    pub knowledge_directory: Option<PathBuf>,
    /// Who takes over escalated cases, by the document (without `.md`) that they are about.
    pub teams: BTreeMap<String, String>,
    /// Who takes over all others.
    pub default_team: String,
}

impl Default for Settings {
    fn default() -> Self {
        let teams = [
            ("agents", "agent platform"),
            ("routing", "agent platform"),
            ("workflows", "workflow engineering"),
            ("durability", "workflow engineering"),
            ("configuration", "operations"),
            ("troubleshooting", "operations"),
            ("security", "security"),
        ];
        Self {
            knowledge_directory: None,
            teams: teams
                .map(|(document, team)| (document.to_owned(), team.to_owned()))
                .into(),
            default_team: "second-line support".to_owned(),
        }
    }
}

impl Section for Settings {
    fn validate(&self, mistakes: &mut Mistakes) {
        if self.default_team.trim().is_empty() {
            mistakes.add(
                "settings.default_team",
                "is empty; name who takes over escalated cases",
            );
        }
        for (document, team) in &self.teams {
            if team.trim().is_empty() {
                mistakes.add(
                    format!("settings.teams.{document}"),
                    "is empty; name a team or leave the entry out",
                );
            }
        }
    }
}

/// Answers customers from documents.
pub struct CustomerService {
    desk: Desk,
    meters: OnceLock<Meters>,
}

impl CustomerService {
    /// Reads and indexes the documents.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, muster_runtime::Error> {
        let passages = match &settings.knowledge_directory {
            None => knowledge::built_in(),
            Some(folder) => knowledge::from_folder(folder).map_err(|error| unusable(&error))?,
        };
        let library = Library::new(passages).map_err(|error| {
            muster_runtime::Error::Other(format!("the documents cannot be indexed: {error}"))
        })?;
        let teams = Teams {
            by_document: settings.teams.clone(),
            otherwise: settings.default_team.clone(),
        };
        Ok(Self {
            desk: Desk::new(library, teams),
            meters: OnceLock::new(),
        })
    }
}

fn unusable(error: &knowledge::Error) -> muster_runtime::Error {
    let mut mistakes = Mistakes::default();
    mistakes.add("settings.knowledge_directory", error.to_string());
    muster_runtime::Error::Config(mistakes)
}

/// The data part of an inquiry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, alias = "inquiry", alias = "issue")]
    question: Option<String>,
    #[serde(default)]
    customer: Option<String>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    complexity: Option<u8>,
    #[serde(default)]
    elapsed_minutes: Option<f64>,
    /// How satisfied the customer is, from 1 to 5.
    #[serde(default)]
    satisfaction: Option<f64>,
    #[serde(default)]
    compose: Option<Notification>,
}

impl Agent for CustomerService {
    fn card(&self) -> Card {
        let name = "Customer service";
        let description = "Answers from documents with the passage quoted, resolves known issues, escalates, and \
                           writes messages to customers";
        let skill = |id, name, description: &str| Skill::new(id, name, description).idempotent();
        Card::new("customer-service", name, description, env!("CARGO_PKG_VERSION"))
            .skill(
                skill(
                    CUSTOMER_INQUIRY,
                    "Customer inquiry",
                    "Answers a question, or asks back below a confidence of 0.8",
                )
                .tags(["question", "documentation"])
                .example("How does the router choose an instance?")
                .example(r#"{"question": "Which workflow tasks are supported?", "customer": "Ada"}"#),
            )
            .skill(
                skill(
                    ISSUE_RESOLUTION,
                    "Issue resolution",
                    "Finds a known issue and gives the steps that resolve it",
                )
                .tags(["troubleshooting", "steps"])
                .example("The port is already in use"),
            )
            .skill(
                skill(
                    ESCALATION,
                    "Escalation",
                    "Hands a case to a person: reason, complexity, priority, team",
                )
                .tags(["escalation", "handover"])
                .example(r#"{"question": "Our runs are lost", "complexity": 9, "attempts": 2}"#),
            )
            .skill(
                skill(
                    CUSTOMER_NOTIFICATION,
                    "Customer notification",
                    "Renders facts as a message that a customer can read",
                )
                .tags(["message", "template"])
                .example(r#"{"customer": "Ada", "subject": "Your event", "facts": {"rainy_days": 3}}"#),
            )
    }

    fn metrics(&self) -> &'static [Definition] {
        DEFINITIONS
    }

    fn measure(&self, metrics: &Metrics) {
        let _once = self.meters.set(Meters::new(metrics.clone()));
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        let wish = match request.skill.as_deref() {
            Some(CUSTOMER_NOTIFICATION) => return notify(&notification(&request)?),
            Some(ISSUE_RESOLUTION) => Wish::Steps,
            Some(ESCALATION) => Wish::Person,
            _ => Wish::Answer,
        };
        let body: Body = request.parse()?.unwrap_or_default();
        if let Some(compose) = &body.compose {
            return notify(compose);
        }
        if let Some(satisfaction) = body.satisfaction {
            if !(1.0..=5.0).contains(&satisfaction) {
                return Err(Failure::invalid_field("satisfaction", "must lie within 1 and 5"));
            }
            if let Some(meters) = self.meters.get() {
                meters.rated(satisfaction);
            }
            if body.question.is_none() {
                return Ok(Reply::completed("Thank you.").data(json!({"status": "recorded"})));
            }
        }
        let (complexity, elapsed) = (body.complexity, body.elapsed_minutes);
        let inquiry = inquiry(wish, body, request.text(), task.history())?;
        let outcome = self
            .desk
            .handle(&inquiry)
            .map_err(|error| Failure::failed(format!("the search failed: {error}")))?;
        if let (Outcome::Done(..), Some(minutes), Some(meters)) = (&outcome, elapsed, self.meters.get()) {
            let kind = request.skill.as_deref().unwrap_or(CUSTOMER_INQUIRY);
            meters.resolved(kind, complexity, minutes * 60.0);
        }
        Ok(match outcome {
            Outcome::Done(data, text) => Reply::completed(text).data(data),
            Outcome::Question(data, text) => Reply::input_required(text).data(data),
        })
    }
}

fn notification(request: &Request) -> Result<Notification, Failure> {
    let missing = "is missing; send a data part such as {\"customer\": …, \"subject\": …, \"facts\": {…}}";
    request
        .parse()?
        .ok_or_else(|| Failure::invalid_field("data", missing))
}

fn notify(wanted: &Notification) -> Result<Reply, Failure> {
    let message =
        notification::compose(wanted).map_err(|error| Failure::invalid_field(error.field, error.message))?;
    let text = format!("Subject: {}\n\n{}", message.subject, message.body);
    Ok(Reply::completed(text).data(json!({"status": "composed", "message": message})))
}

fn inquiry(wish: Wish, body: Body, text: &str, history: &[Message]) -> Result<Inquiry, Failure> {
    let question = body.question.unwrap_or_else(|| text.to_owned());
    let question = question.trim();
    if question.is_empty() {
        return Err(Failure::invalid_field(
            "question",
            "is missing; ask in plain text or as 'question' in a data part",
        ));
    }
    if question.len() > MAX_QUESTION_BYTES {
        let message = format!(
            "has {} bytes; at most {MAX_QUESTION_BYTES} are read",
            question.len()
        );
        return Err(Failure::invalid_field("question", message));
    }
    if body
        .complexity
        .is_some_and(|complexity| !(1..=10).contains(&complexity))
    {
        return Err(Failure::invalid_field("complexity", "must lie within 1 and 10"));
    }
    if body
        .elapsed_minutes
        .is_some_and(|minutes| !(0.0..=1e9).contains(&minutes))
    {
        return Err(Failure::invalid_field(
            "elapsed_minutes",
            "must be a number of minutes, 0 or more",
        ));
    }
    let earlier: Vec<String> = history
        .iter()
        .filter(|message| message.role == Role::User)
        .map(said)
        .filter(|said| !said.is_empty())
        .collect();
    let asked = history
        .iter()
        .filter(|message| message.role == Role::Agent && is_question(message))
        .count();
    Ok(Inquiry {
        wish,
        question: question.to_owned(),
        earlier,
        asked: u32::try_from(asked).unwrap_or(u32::MAX),
        customer: body.customer,
        attempts: body.attempts,
        complexity: body.complexity,
        elapsed_minutes: body.elapsed_minutes,
    })
}

/// What a customer wrote in an earlier message: its text, or the question of its data part.
fn said(message: &Message) -> String {
    let parts = message.parts.iter().filter_map(|part| match &part.content {
        PartContent::Text(text) => Some(text.as_str()),
        PartContent::Data(data) => ["question", "inquiry", "issue"]
            .iter()
            .find_map(|key| data.get(key).and_then(Value::as_str)),
        _ => None,
    });
    parts
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

/// Whether one of our own earlier messages asked back.
fn is_question(message: &Message) -> bool {
    message.parts.iter().any(|part| match &part.content {
        PartContent::Data(data) => data.get("status").and_then(Value::as_str) == Some("needs_input"),
        _ => false,
    })
}
