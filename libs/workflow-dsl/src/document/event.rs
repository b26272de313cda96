//! `emit`, `listen` and `schedule.on`: events that a workflow makes, and those that it waits for.

use regex::Regex;
use serde_json::Value;

use super::{Schemas, TaskList, Template};
use crate::expression::Expression;

/// `listen`: waits for events.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `to`: for which.
    pub to: Strategy,
    /// `read`: what of an event is the data of the workflow.
    pub read: Read,
    /// `foreach`: what is done for each event, one after the other.
    pub each: Option<Each>,
}

impl Listen {
    /// Whether a condition on the events as they were read ends it, while a `foreach` keeps something else of them.
    #[must_use]
    pub fn judges_events(&self) -> bool {
        self.each.is_some() && matches!(self.to.consume, Consume::Any(Until::Condition(_)))
    }
}

/// What of an event becomes data of the workflow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Read {
    /// Its data.
    #[default]
    Data,
    /// All of it, attributes and data.
    Envelope,
    /// Its data as text.
    Raw,
}

/// `foreach` of a `listen`.
#[derive(Debug, Clone)]
pub struct Each {
    /// `item`: name of the variable that holds the event, without `$`.
    pub item: String,
    /// `at`: name of the variable that holds its index, without `$`.
    pub at: String,
    /// `do`: what is done for each event.
    pub tasks: Option<TaskList>,
    /// `output.as`: shapes what the task keeps of the event.
    pub output: Option<Template>,
    /// `export.as`: the new `$context`.
    pub export: Option<Template>,
    /// `output.schema` and `export.schema`.
    pub schemas: Schemas,
}

/// Which events are consumed, and when that is enough.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// How many of the filters must have had their event.
    pub consume: Consume,
    /// What events must be like. Empty only where any event will do.
    pub filters: Vec<Filter>,
}

/// How many of the filters must have had their event.
#[derive(Debug, Clone)]
pub enum Consume {
    /// The one that there is.
    One,
    /// Each of them.
    All,
    /// Any of them, for as long as this says.
    Any(Until),
}

/// How long events are consumed.
#[derive(Debug, Clone)]
pub enum Until {
    /// Until the first one.
    First,
    /// For ever.
    Never,
    /// Until this is true of the list of those that were consumed.
    Condition(Expression),
    /// Until others have come.
    Events(Box<Strategy>),
}

/// What an event must be like.
#[derive(Debug, Clone)]
pub struct Filter {
    /// `with`: the attributes that it must have.
    pub with: Vec<(String, Matcher)>,
    /// `correlate`: what it must have in common with the run, or with the other events.
    pub correlate: Vec<Correlation>,
}

/// What an attribute, or the data, must be like.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// This value. Text is compared as text; of objects the given fields, of lists all items.
    Value(Value),
    /// Text that this matches from end to end.
    Pattern(Regex),
    /// Evaluated on the value: true or false decides, anything else must equal the value.
    Expression(Expression),
    /// Object fields, each with a matcher.
    Fields(Vec<(String, Matcher)>),
}

/// What an event must have in common with the run, or with the other events.
#[derive(Debug, Clone)]
pub struct Correlation {
    /// Its name. Filters of one strategy that name the same correlation must agree on its value.
    pub name: String,
    /// `from`: takes the value from the event.
    pub from: Expression,
    /// `expect`: the value, known when listening begins; without it, that of the first event counts.
    pub expect: Option<Template>,
}

impl Strategy {
    /// The filters, and those of the events that end it.
    pub fn all_filters(&self) -> impl Iterator<Item = &Filter> {
        let until = self.until_events().map(|until| until.filters.iter());
        self.filters.iter().chain(until.into_iter().flatten())
    }

    /// The events that end it, if events do.
    #[must_use]
    pub fn until_events(&self) -> Option<&Strategy> {
        match &self.consume {
            Consume::Any(Until::Events(until)) => Some(until),
            Consume::One | Consume::All | Consume::Any(_) => None,
        }
    }
}
