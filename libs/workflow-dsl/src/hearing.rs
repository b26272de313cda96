//! Which events a strategy consumes, and when it has had enough: plain data, fed with one event after the other.
//!
//! A [`Hearing`] is how far a strategy has come. [`Hearing::offer`] says what an event would be to it, by evaluating the
//! expressions of its filters; [`Hearing::take`] moves on and evaluates nothing, so that what was decided can be recorded and
//! folded again. The same is used by a run that listens and by what starts runs on events.
//!
//! Events come from anyone: a filter whose expression fails on an event does not match it, and harms nobody.
//!
//! An [`Interest`] is what can be said of a hearing without the run: whoever keeps many runs asleep asks it first, and
//! wakes those that may care.

use std::collections::BTreeMap;

use jiff::Timestamp;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloud_event::CloudEvent;
use crate::document::{Consume, Filter, Matcher, Strategy, Until};
use crate::expression::{Expression, Variables};

/// Values of correlations, by name.
pub type Correlations = BTreeMap<String, Value>;

/// The types of the engine's own events begin with this; they are heard only where a filter names them.
pub const LIFECYCLE: &str = "io.serverlessworkflow.";

/// How far a strategy has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hearing {
    /// Which of the filters have had their event.
    heard: Vec<bool>,
    /// Which filters of the events that end it have.
    ended: Vec<bool>,
    /// Values that events must have: expected from the start, or learned from an event before.
    correlations: Correlations,
}

/// What an event is to a strategy.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Index of the filter that it matches.
    pub filter: usize,
    /// Whether that is a filter of the events that end the listening.
    pub until: bool,
    /// Values of correlations that the event is the first to have.
    pub learned: Correlations,
}

/// Evaluates an expression on a value; none where it fails.
pub type Evaluate<'a> = &'a dyn Fn(&Expression, &Value) -> Option<Value>;

impl Hearing {
    /// At the beginning, with what is expected of correlations.
    #[must_use]
    pub fn new(strategy: &Strategy, correlations: Correlations) -> Self {
        // Where there is no filter, there is one thing to hear: any event.
        let until = strategy
            .until_events()
            .map_or(0, |until| until.filters.len().max(1));
        Self {
            heard: vec![false; strategy.filters.len().max(1)],
            ended: vec![false; until],
            correlations,
        }
    }

    /// The values of correlations that are known.
    #[must_use]
    pub fn correlations(&self) -> &Correlations {
        &self.correlations
    }

    /// What the event would be; none if it is nothing to this strategy.
    #[must_use]
    pub fn offer(&self, strategy: &Strategy, event: &CloudEvent, evaluate: Evaluate<'_>) -> Option<Taken> {
        if let Some(until) = strategy.until_events()
            && let Some((filter, learned)) = self.first(&until.filters, &self.ended, until, event, evaluate)
        {
            let until = true;
            return Some(Taken {
                filter,
                until,
                learned,
            });
        }
        let (filter, learned) = self.first(&strategy.filters, &self.heard, strategy, event, evaluate)?;
        let until = false;
        Some(Taken {
            filter,
            until,
            learned,
        })
    }

    /// The first filter that matches and still waits for its event.
    fn first(
        &self,
        filters: &[Filter],
        had: &[bool],
        strategy: &Strategy,
        event: &CloudEvent,
        evaluate: Evaluate<'_>,
    ) -> Option<(usize, Correlations)> {
        if filters.is_empty() {
            return (!is_lifecycle(event)).then(|| (0, Correlations::new()));
        }
        let once = matches!(strategy.consume, Consume::All);
        filters.iter().enumerate().find_map(|(index, filter)| {
            if once && had.get(index).copied().unwrap_or(true) {
                return None;
            }
            Some((index, self.correlated(filter, event, evaluate)?))
        })
    }

    /// What is learned from an event that the filter admits; none if it does not.
    fn correlated(
        &self,
        filter: &Filter,
        event: &CloudEvent,
        evaluate: Evaluate<'_>,
    ) -> Option<Correlations> {
        let matched = filter.with.iter().all(|(name, matcher)| {
            let value = match name.as_str() {
                "data" => event.data(),
                name => event.get(name).cloned().unwrap_or_default(),
            };
            matcher.admits(&value, evaluate)
        });
        if !matched {
            return None;
        }
        let mut learned = Correlations::new();
        if filter.correlate.is_empty() {
            return Some(learned);
        }
        let envelope = event.to_value();
        for correlation in &filter.correlate {
            let value = evaluate(&correlation.from, &envelope).filter(|value| !value.is_null())?;
            let known = self.correlations.get(&correlation.name);
            match known.or_else(|| learned.get(&correlation.name)) {
                Some(known) if text_of(known) == text_of(&value) => {}
                Some(_) => return None,
                None => {
                    learned.insert(correlation.name.clone(), value);
                }
            }
        }
        Some(learned)
    }

    /// An event has been consumed.
    pub fn take(&mut self, taken: &Taken) {
        let had = if taken.until {
            &mut self.ended
        } else {
            &mut self.heard
        };
        if let Some(had) = had.get_mut(taken.filter) {
            *had = true;
        }
        let learned = taken.learned.iter();
        self.correlations
            .extend(learned.map(|(name, value)| (name.clone(), value.clone())));
    }

    /// Whether the strategy has had enough, as far as that depends on no condition.
    #[must_use]
    pub fn is_done(&self, strategy: &Strategy) -> bool {
        match &strategy.consume {
            Consume::One | Consume::Any(Until::First) => self.heard.contains(&true),
            Consume::All => self.heard.iter().all(|heard| *heard),
            Consume::Any(Until::Never | Until::Condition(_)) => false,
            Consume::Any(Until::Events(until)) => match &until.consume {
                Consume::All => self.ended.iter().all(|ended| *ended),
                Consume::One | Consume::Any(_) => self.ended.contains(&true),
            },
        }
    }

    /// What may concern this hearing, known without the run.
    #[must_use]
    pub fn interests(&self, strategy: &Strategy) -> Vec<Interest> {
        let mut interests = Vec::new();
        let mut add = |strategy: &Strategy, had: &[bool]| {
            if strategy.filters.is_empty() {
                interests.push(Interest::default());
            }
            let once = matches!(strategy.consume, Consume::All);
            for (filter, had) in strategy.filters.iter().zip(had) {
                if !(once && *had) {
                    interests.push(self.interest(filter));
                }
            }
        };
        add(strategy, &self.heard);
        if let Some(until) = strategy.until_events() {
            add(until, &self.ended);
        }
        interests
    }

    fn interest(&self, filter: &Filter) -> Interest {
        let text = |wanted: &str| {
            filter.with.iter().find_map(|(name, matcher)| match matcher {
                Matcher::Value(Value::String(text)) if name == wanted => Some(text.clone()),
                _ => None,
            })
        };
        let correlations = filter.correlate.iter().filter_map(|correlation| {
            // Only what depends on the event alone can be told without the run.
            let free = correlation.from.variables().is_empty();
            let known = self.correlations.get(&correlation.name).filter(|_| free)?;
            Some((correlation.from.clone(), text_of(known)))
        });
        Interest {
            named: !filter.with.is_empty(),
            kind: text("type"),
            source: text("source"),
            subject: text("subject"),
            correlations: correlations.collect(),
        }
    }

    /// What is waited for, for people.
    #[must_use]
    pub fn describe(&self, strategy: &Strategy) -> String {
        let waits = |strategy: &Strategy, had: &[bool]| {
            let once = matches!(strategy.consume, Consume::All);
            let open = strategy.filters.iter().zip(had);
            let open: Vec<String> = open
                .filter(|(_, had)| !(once && **had))
                .map(|(filter, _)| self.describe_filter(filter))
                .collect();
            match (open.as_slice(), &strategy.consume) {
                ([], _) => "any event".to_owned(),
                (all, Consume::All) => all.join(" and for "),
                (any, _) => any.join(" or "),
            }
        };
        let mut text = waits(strategy, &self.heard);
        match &strategy.consume {
            Consume::Any(Until::Condition(condition)) => {
                text.push_str(&format!(", until {condition} is true of those heard"));
            }
            Consume::Any(Until::Events(until)) => {
                text.push_str(&format!(", until {}", waits(until, &self.ended)));
            }
            Consume::Any(Until::Never) => text.push_str(", without end"),
            Consume::One | Consume::All | Consume::Any(Until::First) => {}
        }
        text
    }

    fn describe_filter(&self, filter: &Filter) -> String {
        let with = filter
            .with
            .iter()
            .map(|(name, matcher)| format!("{name} {}", matcher.describe()));
        let mut text = format!("an event with {}", with.collect::<Vec<_>>().join(", "));
        for correlation in &filter.correlate {
            let known = self.correlations.get(&correlation.name);
            let value = known.map_or_else(|| "that of the first event".to_owned(), |known| known.to_string());
            text.push_str(&format!(
                ", correlation {} ({}) = {value}",
                correlation.name,
                correlation.from.source()
            ));
        }
        text
    }
}

impl Matcher {
    fn admits(&self, value: &Value, evaluate: Evaluate<'_>) -> bool {
        match self {
            Self::Value(wanted) => includes(value, wanted),
            // Text with a query is text that merely looks like a pattern.
            Self::Pattern(pattern) => value
                .as_str()
                .is_some_and(|text| text == written(pattern) || pattern.is_match(text)),
            Self::Expression(expression) => match evaluate(expression, value) {
                Some(Value::Bool(decision)) => decision,
                Some(wanted) => !wanted.is_null() && includes(value, &wanted),
                None => false,
            },
            Self::Fields(fields) => fields.iter().all(|(name, matcher)| {
                value
                    .get(name)
                    .is_some_and(|value| matcher.admits(value, evaluate))
            }),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Value(value) => value.to_string(),
            Self::Pattern(pattern) => format!("like {}", written(pattern)),
            Self::Expression(expression) => expression.to_string(),
            Self::Fields(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, matcher)| format!("{name}: {}", matcher.describe()));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The pattern as its author wrote it.
fn written(pattern: &Regex) -> &str {
    let text = pattern.as_str();
    let inner = text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$"));
    inner.unwrap_or(text)
}

/// Whether a value is what is wanted: scalars by their text, objects by the wanted fields, lists item by item.
fn includes(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(fields), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| fields.get(name).is_some_and(|value| includes(value, wanted))),
        (Value::Array(items), Value::Array(wanted)) => {
            items.len() == wanted.len()
                && items
                    .iter()
                    .zip(wanted)
                    .all(|(item, wanted)| includes(item, wanted))
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        (Value::Null, wanted) => wanted.is_null(),
        (value, wanted) => text_of(value) == text_of(wanted),
    }
}

/// A value as text, so that `17` and `'17'` are the same wherever they come from.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_lifecycle(event: &CloudEvent) -> bool {
    event.kind().starts_with(LIFECYCLE)
}

/// What may concern a hearing: events that this does not admit do not concern it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interest {
    /// Whether anything is asked of an event.
    named: bool,
    /// The type that an event must have, where that is known.
    kind: Option<String>,
    /// The source that it must have.
    source: Option<String>,
    /// The subject that it must have.
    subject: Option<String>,
    /// What must be taken from it, and the text that this must be.
    correlations: Vec<(Expression, String)>,
}

impl Interest {
    /// The type that an event must have, where that is known.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// What can be looked up: how to take a text from an event, and the text that it must be.
    #[must_use]
    pub fn key(&self) -> Option<(&Expression, &str)> {
        self.correlations
            .first()
            .map(|(from, wanted)| (from, wanted.as_str()))
    }

    /// Whether the event may concern the hearing.
    #[must_use]
    pub fn admits(&self, event: &CloudEvent, now: Timestamp) -> bool {
        let same =
            |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        (self.named || !is_lifecycle(event))
            && same(&self.kind, event.kind())
            && same(&self.source, event.source())
            && same(&self.subject, event.text("subject"))
            && self
                .correlations
                .iter()
                .all(|(from, wanted)| extract(from, event, now).as_ref() == Some(wanted))
    }
}

/// The text that the expression takes from an event; none where there is none.
#[must_use]
pub fn extract(from: &Expression, event: &CloudEvent, now: Timestamp) -> Option<String> {
    let value = from.evaluate(&event.to_value(), &Variables::new(), now).ok()?;
    (!value.is_null()).then(|| text_of(&value))
}

#[cfg(test)]
mod tests;
