//! One inquiry: answer it, ask back, or hand it to a person.
//!
//! The desk answers at a confidence of [`ANSWER_FROM`] or more, with the passage quoted. Below, it asks back and names
//! the topics that might be meant; the customer's reply, a topic's number or name or more words, is judged together
//! with what was said before. Each question back that did not help counts as a failed attempt, so that the third
//! leads to a person. The rules of [`escalation`](crate::escalation) come first: a confident answer does not keep a
//! person away from a case that needs one.

use serde_json::{Value, json};
use tantivy::TantivyError;

use crate::escalation::{self, Case, Record, Teams};
use crate::passage::Passage;
use crate::search::{Finding, Library};

/// Confidence from which an inquiry is answered.
pub const ANSWER_FROM: f64 = 0.8;
/// Topics that a question back names.
const TOPICS: usize = 3;

/// What the customer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// An answer from the documentation.
    Answer,
    /// The steps of a known issue.
    Steps,
    /// A person.
    Person,
}

/// What is known about an inquiry.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// What the customer wants.
    pub wish: Wish,
    /// The present message.
    pub question: String,
    /// The customer's earlier messages on the same matter, oldest first.
    pub earlier: Vec<String>,
    /// Questions back so far.
    pub asked: u32,
    /// The customer's name.
    pub customer: Option<String>,
    /// Failed attempts elsewhere.
    pub attempts: u32,
    /// 1 to 10, if judged already.
    pub complexity: Option<u8>,
    /// Minutes since the case was opened.
    pub elapsed_minutes: Option<f64>,
}

/// What the desk does.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The inquiry is answered, or handed over: the structured result and the text for people.
    Done(Value, String),
    /// The desk needs to know more: what it knows and what it asks.
    Question(Value, String),
}

/// Answers inquiries from a library.
pub struct Desk {
    library: Library,
    teams: Teams,
}

impl Desk {
    /// A desk.
    #[must_use]
    pub fn new(library: Library, teams: Teams) -> Self {
        Self { library, teams }
    }

    /// Handles one inquiry.
    ///
    /// # Errors
    /// When the search fails.
    pub fn handle(&self, inquiry: &Inquiry) -> Result<Outcome, TantivyError> {
        let accept = |passage: &Passage| inquiry.wish != Wish::Steps || !passage.steps.is_empty();
        let text = whole(inquiry);
        let finding = self.find(inquiry, &text, accept)?;
        let case = Case {
            text: &text,
            complexity: inquiry.complexity,
            attempts: inquiry.attempts.max(inquiry.asked),
            elapsed_minutes: inquiry.elapsed_minutes,
            requested: inquiry.wish == Wish::Person,
        };
        let about = finding.hits.first().map(|hit| hit.passage.file.as_str());
        if let Some(record) = escalation::judge(&case, about, &self.teams) {
            return Ok(escalated(inquiry, &text, &record));
        }
        match finding.hits.first() {
            Some(best) if finding.confidence >= ANSWER_FROM => Ok(match inquiry.wish {
                Wish::Steps => resolved(inquiry, &text, best.passage, finding.confidence),
                Wish::Answer | Wish::Person => answered(inquiry, &text, best.passage, &finding),
            }),
            _ => Ok(self.question(inquiry, &text, &finding)),
        }
    }

    /// The better of what the whole conversation finds and what the last message alone finds; certain when the
    /// customer chose one of the topics named before.
    fn find(
        &self,
        inquiry: &Inquiry,
        whole: &str,
        accept: impl Fn(&Passage) -> bool,
    ) -> Result<Finding<'_>, TantivyError> {
        if !inquiry.earlier.is_empty() {
            let before = self.library.search(&inquiry.earlier.join("\n"), &accept)?;
            if let Some(passage) = chosen(&inquiry.question, &topics(&before)) {
                let hits = before
                    .hits
                    .into_iter()
                    .filter(|hit| std::ptr::eq(hit.passage, passage))
                    .collect();
                return Ok(Finding {
                    hits,
                    confidence: 1.0,
                });
            }
        }
        let together = self.library.search(whole, &accept)?;
        if inquiry.earlier.is_empty() {
            return Ok(together);
        }
        let alone = self.library.search(&inquiry.question, &accept)?;
        Ok(if alone.confidence > together.confidence {
            alone
        } else {
            together
        })
    }

    fn question(&self, inquiry: &Inquiry, text: &str, finding: &Finding<'_>) -> Outcome {
        let candidates = topics(finding);
        let question = if candidates.is_empty() {
            let what = if inquiry.wish == Wish::Steps {
                "no known issue like this"
            } else {
                "nothing about this"
            };
            format!(
                "I found {what} in the documentation. Which part is it about, and what do you see, for instance an \
                 error message? The documentation covers: {}.",
                self.documents().join(", ")
            )
        } else {
            let list: Vec<String> = (1..)
                .zip(&candidates)
                .map(|(number, passage)| format!("{number}. {} ({})", passage.topic(), passage.file))
                .collect();
            format!(
                "I am not sure what you need. Is it one of these?\n{}\nReply with a number, or add details, for \
                 instance the error message that you see.",
                list.join("\n")
            )
        };
        let named: Vec<Value> = candidates.iter().map(|passage| source(passage)).collect();
        let mut data = base(inquiry, text, "needs_input");
        set(&mut data, "confidence", rounded(finding.confidence));
        set(&mut data, "candidates", Value::from(named));
        set(&mut data, "questions_asked", Value::from(inquiry.asked + 1));
        Outcome::Question(data, question)
    }

    /// The titles of the documents.
    fn documents(&self) -> Vec<String> {
        const SHOWN: usize = 12;
        let mut titles: Vec<String> = Vec::new();
        for passage in self.library.passages() {
            let title = passage.headings.first().unwrap_or(&passage.file);
            if !titles.contains(title) && titles.len() < SHOWN {
                titles.push(title.clone());
            }
        }
        titles
    }
}

/// The best passages, one per heading.
fn topics<'a>(finding: &Finding<'a>) -> Vec<&'a Passage> {
    let mut topics: Vec<&Passage> = Vec::new();
    for hit in &finding.hits {
        if topics.len() < TOPICS && topics.iter().all(|topic| topic.headings != hit.passage.headings) {
            topics.push(hit.passage);
        }
    }
    topics
}

/// The topic that a reply names by its number or its name.
fn chosen<'a>(reply: &str, topics: &[&'a Passage]) -> Option<&'a Passage> {
    let reply = reply.trim().trim_end_matches('.');
    match reply.parse::<usize>() {
        Ok(number) => topics.get(number.checked_sub(1)?).copied(),
        Err(_) => topics
            .iter()
            .find(|passage| passage.topic().eq_ignore_ascii_case(reply))
            .copied(),
    }
}

fn whole(inquiry: &Inquiry) -> String {
    let messages = inquiry
        .earlier
        .iter()
        .map(String::as_str)
        .chain([inquiry.question.as_str()]);
    messages
        .map(str::trim)
        .filter(|message| !message.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn answered(inquiry: &Inquiry, text: &str, passage: &Passage, finding: &Finding<'_>) -> Outcome {
    let mut data = base(inquiry, text, "answered");
    let mut quoted = source(passage);
    set(&mut quoted, "quote", Value::from(passage.markdown.as_str()));
    let related: Vec<Value> = topics(finding)
        .into_iter()
        .filter(|other| other.headings != passage.headings)
        .map(source)
        .collect();
    set(&mut data, "answer", Value::from(passage.markdown.as_str()));
    set(&mut data, "confidence", rounded(finding.confidence));
    set(&mut data, "source", quoted);
    set(&mut data, "related", Value::from(related));
    let said = format!(
        "{}\n\n(from {}, \"{}\")",
        passage.markdown,
        passage.file,
        passage.heading()
    );
    Outcome::Done(data, said)
}

fn resolved(inquiry: &Inquiry, text: &str, passage: &Passage, confidence: f64) -> Outcome {
    let mut data = base(inquiry, text, "resolved");
    let mut quoted = source(passage);
    set(&mut quoted, "quote", Value::from(passage.markdown.as_str()));
    set(&mut data, "issue", Value::from(passage.topic()));
    set(&mut data, "steps", Value::from(passage.steps.clone()));
    set(&mut data, "confidence", rounded(confidence));
    set(&mut data, "source", quoted);
    let steps: Vec<String> = (1..)
        .zip(&passage.steps)
        .map(|(number, step)| format!("{number}. {step}"))
        .collect();
    Outcome::Done(
        data,
        format!(
            "{}\n{}\n\n(from {})",
            passage.topic(),
            steps.join("\n"),
            passage.file
        ),
    )
}

fn escalated(inquiry: &Inquiry, text: &str, record: &Record) -> Outcome {
    let mut data = base(inquiry, text, "escalated");
    set(&mut data, "escalation", json!(record));
    let said = format!(
        "Handed to {} with {} priority: {}.",
        record.suggested_team,
        priority(record),
        record.reason
    );
    Outcome::Done(data, said)
}

fn priority(record: &Record) -> &'static str {
    match record.priority {
        escalation::Priority::Normal => "normal",
        escalation::Priority::High => "high",
        escalation::Priority::Urgent => "urgent",
    }
}

fn base(inquiry: &Inquiry, text: &str, status: &str) -> Value {
    json!({"status": status, "question": text, "customer": inquiry.customer})
}

fn source(passage: &Passage) -> Value {
    json!({"file": passage.file, "heading": passage.heading(), "topic": passage.topic()})
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn rounded(confidence: f64) -> Value {
    Value::from((confidence * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests;
