//! `emit`, `listen` and what both say of events.

use regex::RegexBuilder;
use serde_json::{Value, json};

use super::Reader;
use super::catch::given;
use super::cursor::{Cursor, Fields};
use super::expressions::Moment;
use super::task::List;
use crate::cloud_event::{CloudEvent, SPECVERSION, is_attribute_name};
use crate::document::{
    Consume, Correlation, Each, Filter, Kind, Listen, Matcher, Read, Strategy, Template, Until,
};
use crate::node::Content;
use crate::problem::{listed, quoted};

/// Most filters of one strategy.
const MOST_FILTERS: usize = 100;

/// Most correlations of one filter.
const MOST_CORRELATIONS: usize = 16;

/// Most patterns in the filters of one document.
const MOST_PATTERNS: usize = 100;

/// Largest compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 256 << 10;

/// Characters without which text is no pattern. The dot is none of them: types and sources are full of dots.
const PATTERN: &[char] = &['*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\'];

/// What `read` may say.
const READS: [(&str, Read); 3] = [
    ("data", Read::Data),
    ("envelope", Read::Envelope),
    ("raw", Read::Raw),
];

/// Attributes of an event that are text, of which an emitted one may be computed as another scalar.
const BECOME_TEXT: [&str; 6] = ["id", "source", "type", "subject", "datacontenttype", "dataschema"];

/// Attributes of an event that are text.
const TEXTS: [&str; 8] = [
    "id",
    "source",
    "type",
    "subject",
    "datacontenttype",
    "dataschema",
    "time",
    "specversion",
];

/// The strategies of the language.
const STRATEGIES: [&str; 3] = ["one", "all", "any"];

impl Reader {
    /// `emit`.
    pub(super) fn emit(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let emit = self.require(fields, "emit")?;
        let fields = self.fields(&emit, &["event"])?;
        let event = self.require(&fields, "event")?;
        let fields = self.fields(&event, &["with"])?;
        let with = self.require(&fields, "with")?;
        let properties = self.object(&with)?;
        let mut complete = true;
        for required in ["source", "type"] {
            complete &= self.require(&properties, required).is_some();
        }
        for (name, field) in properties.iter() {
            complete &= self.property(name, &field) && self.emitted(name, &field);
        }
        let event = self.template(&with)?;
        complete.then_some(Kind::Emit(event))
    }

    /// Whether an event can have a property of this name, with this value as far as it is known.
    fn property(&mut self, name: &str, at: &Cursor<'_>) -> bool {
        if !is_attribute_name(name) {
            let message = format!(
                "an event's attributes are named by lower-case letters and digits; {} belongs into 'data'",
                quoted(name)
            );
            self.wrong_name(at, message);
            return false;
        }
        if name == "data" {
            return true;
        }
        match &at.node.content {
            Content::Array(_) | Content::Object(_) | Content::Null => {
                self.wrong(
                    at,
                    format!("{} must be text, a number, true or false", quoted(name)),
                );
                false
            }
            Content::Text(text) if text.is_empty() => {
                self.wrong(at, format!("{} must not be empty", quoted(name)));
                false
            }
            _ => true,
        }
    }

    /// Whether an event that is emitted can have this value, if that is written down.
    fn emitted(&mut self, name: &str, at: &Cursor<'_>) -> bool {
        let written = match &at.node.content {
            _ if name == "data" => return true,
            Content::Text(text) if super::embedded(text).is_some() || self.loose => return true,
            _ => at.node.to_value(),
        };
        let value = match written {
            Value::Number(_) | Value::Bool(_) if BECOME_TEXT.contains(&name) => {
                self.doubt_text(name, &written, at);
                Value::from(written.to_string())
            }
            Value::String(text) => {
                if matches!(name, "source" | "dataschema") && text.contains('{') {
                    let message = "this stays as it is: an event has no variables in braces; make it one expression, such as \
                                   ${ \"https://example.com/\" + .id }";
                    self.doubtful(at, message);
                }
                Value::from(text)
            }
            other => other,
        };
        // The other attributes are those of an event that is right.
        let mut event = json!({"specversion": SPECVERSION, "id": "id", "source": "/", "type": "type"});
        event[name] = value;
        match CloudEvent::check(event) {
            Ok(_) => true,
            Err(error) => {
                self.wrong(at, error.to_string());
                false
            }
        }
    }

    /// Warns of what is no text where an event has text.
    fn doubt_text(&mut self, name: &str, written: &Value, at: &Cursor<'_>) {
        let message = format!(
            "{} of an event is text, which {written} is not; write '{written}' in quotes",
            quoted(name)
        );
        self.doubtful(at, message);
    }

    /// `listen`, with its `foreach`.
    pub(super) fn listen(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let each = fields.get("foreach").map(|each| self.for_each_event(&each));
        let listen = self.require(fields, "listen")?;
        let listen = self.fields(&listen, &["to", "read"])?;
        let read = listen.get("read").map(|read| self.read(&read));
        let to = self.require(&listen, "to").and_then(|to| self.strategy(&to));
        Some(Kind::Listen(Box::new(Listen {
            to: to?,
            read: given(read)?.unwrap_or_default(),
            each: given(each)?,
        })))
    }

    fn read(&mut self, at: &Cursor<'_>) -> Option<Read> {
        let text = self.text(at)?;
        let found = READS.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names = || READS.iter().map(|(name, _)| *name);
            let nearest = muster_api::names::suggestion(text, names());
            let message = format!(
                "events are read as {}; found {}{nearest}",
                listed(names()),
                quoted(text)
            );
            self.wrong(at, message);
        }
        found.map(|(_, read)| *read)
    }

    fn for_each_event(&mut self, at: &Cursor<'_>) -> Option<Each> {
        let fields = self.fields(at, &["item", "at", "do", "output", "export"])?;
        let name = |reader: &mut Self, field: &str, default: &str| match fields.get(field) {
            Some(name) => reader.variable(&name),
            None => Some(default.to_owned()),
        };
        let item = name(self, "item", "item");
        let index = name(self, "at", "index");
        if item.is_some() && item == index {
            self.wrong(at, "'item' and 'at' must name different variables");
        }
        let names = [item.clone(), index.clone()];
        let variables = names.into_iter().zip(["item", "index"]);
        let variables: Vec<String> = variables
            .map(|(name, default)| name.unwrap_or_else(|| default.to_owned()))
            .collect();
        let (tasks, output, export) = self.with_variables(variables, |reader| {
            let tasks = fields.get("do").map(|tasks| reader.tasks(&tasks, List::Sequence));
            let output = reader.during(Moment::Output, |reader| reader.output(&fields));
            let export = reader.during(Moment::Export, |reader| reader.export(&fields));
            (tasks, output, export)
        });
        let schemas = self.schemas(&fields);
        Some(Each {
            item: item?,
            at: index?,
            tasks: given(tasks)?,
            output,
            export,
            schemas,
        })
    }

    /// `schedule.on`.
    pub(super) fn starts_on(&mut self, at: &Cursor<'_>) -> Option<Strategy> {
        let fields = self.fields(at, &["on", "after", "cron", "every"])?;
        let times = fields.iter().filter(|(name, _)| *name != "on");
        for (name, field) in times.collect::<Vec<_>>() {
            self.wrong_name(
                &field,
                format!("'{name}' cannot stand beside 'on': a schedule says one of 'every', 'cron', 'after' and 'on'; make two workflows"),
            );
        }
        let on = self.require(&fields, "on")?;
        self.during(Moment::Schedule, |reader| reader.strategy(&on))
    }

    /// `one`, `all` or `any` with its `until`.
    pub(super) fn strategy(&mut self, at: &Cursor<'_>) -> Option<Strategy> {
        let strategy = self.strategy_of(at, true)?;
        self.agree_on_correlations(at, &strategy).then_some(strategy)
    }

    fn strategy_of(&mut self, at: &Cursor<'_>, outermost: bool) -> Option<Strategy> {
        let fields = self.fields(at, &["one", "all", "any", "until"])?;
        let given: Vec<&str> = STRATEGIES.into_iter().filter(|name| fields.has(name)).collect();
        let [name] = given.as_slice() else {
            let message = format!(
                "events are consumed by exactly one of 'one', 'all' and 'any'; found {}",
                if given.is_empty() {
                    "none".to_owned()
                } else {
                    listed(given.iter().copied())
                }
            );
            self.wrong(at, message);
            return None;
        };
        let until = fields.get("until");
        if let Some(until) = until.as_ref().filter(|_| *name != "any" || !outermost) {
            let message = if outermost {
                "'until' belongs to 'any': 'one' and 'all' end by themselves"
            } else {
                "the events of an 'until' have no 'until' of their own"
            };
            self.wrong_name(until, message);
            return None;
        }
        let filters = self.require(&fields, name)?;
        if *name == "one" {
            return Some(Strategy {
                filters: vec![self.filter(&filters)?],
                consume: Consume::One,
            });
        }
        let read = self.filters(&filters);
        let until = until.map(|until| self.until(&until));
        let read = read?;
        if read.is_empty() && (*name == "all" || until.is_none() && outermost) {
            let message = if *name == "all" {
                "at least one filter is needed"
            } else {
                "without a filter any event is consumed: say 'until' when that is enough"
            };
            self.wrong(&filters, message);
            return None;
        }
        let consume = match *name {
            "all" => Consume::All,
            _ => Consume::Any(given_until(until)?),
        };
        Some(Strategy {
            consume,
            filters: read,
        })
    }

    fn filters(&mut self, at: &Cursor<'_>) -> Option<Vec<Filter>> {
        let items = self.items(at)?;
        if items.len() > MOST_FILTERS {
            self.wrong(at, format!("at most {MOST_FILTERS} filters are allowed"));
            return None;
        }
        let filters: Vec<Option<Filter>> = items.iter().map(|item| self.filter(item)).collect();
        filters.into_iter().collect()
    }

    fn until(&mut self, at: &Cursor<'_>) -> Option<Until> {
        match &at.node.content {
            Content::Bool(false) => Some(Until::Never),
            Content::Text(text) => {
                let condition = self.expression(at, text)?;
                Some(match condition.source() {
                    "false" => Until::Never,
                    _ => Until::Condition(condition),
                })
            }
            Content::Object(_) => {
                let strategy = self.strategy_of(at, false)?;
                Some(Until::Events(Box::new(strategy)))
            }
            _ => {
                self.wrong(
                    at,
                    "'until' is an expression on the list of events, or the events that end the listening",
                );
                None
            }
        }
    }

    fn filter(&mut self, at: &Cursor<'_>) -> Option<Filter> {
        let fields = self.fields(at, &["with", "correlate"])?;
        let with = self
            .require(&fields, "with")
            .and_then(|with| self.attributes(&with));
        let correlate = fields.get("correlate").map(|section| self.correlations(&section));
        Some(Filter {
            with: with?,
            correlate: given(correlate)?.unwrap_or_default(),
        })
    }

    fn attributes(&mut self, at: &Cursor<'_>) -> Option<Vec<(String, Matcher)>> {
        let fields = self.object(at)?;
        if fields.entries.is_empty() {
            self.wrong(
                at,
                "a filter names at least one attribute, such as {type: com.example.order.placed.v1}",
            );
            return None;
        }
        let mut matchers = Vec::with_capacity(fields.entries.len());
        for (name, field) in fields.iter() {
            let fits = self.property(name, &field);
            if TEXTS.contains(&name)
                && let Content::Number(_) | Content::Bool(_) = field.node.content
            {
                self.doubt_text(name, &field.node.to_value(), &field);
            }
            let matcher = self.matcher(&field, name == "data").filter(|_| fits);
            matchers.push(matcher.map(|matcher| (name.to_owned(), matcher)));
        }
        matchers.into_iter().collect()
    }

    /// Inside data, text is compared as it stands.
    fn matcher(&mut self, at: &Cursor<'_>, data: bool) -> Option<Matcher> {
        match &at.node.content {
            Content::Text(text) => {
                if let Some(source) = super::embedded(text) {
                    return self.expression(at, source).map(Matcher::Expression);
                }
                if data || !text.contains(PATTERN) {
                    return Some(Matcher::Value(Value::from(text.as_str())));
                }
                self.pattern(at, text)
            }
            Content::Object(entries) => {
                let mut fields = Vec::with_capacity(entries.len());
                for entry in entries {
                    let matcher = self.matcher(&at.field(entry), data);
                    fields.push(matcher.map(|matcher| (entry.key.clone(), matcher)));
                }
                fields.into_iter().collect::<Option<_>>().map(Matcher::Fields)
            }
            _ => Some(Matcher::Value(at.node.to_value())),
        }
    }

    fn pattern(&mut self, at: &Cursor<'_>, text: &str) -> Option<Matcher> {
        self.scope.patterns += 1;
        if self.scope.patterns > MOST_PATTERNS {
            self.wrong(at, format!("a document has at most {MOST_PATTERNS} patterns"));
            return None;
        }
        let pattern = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(LARGEST_PATTERN)
            .build();
        match pattern {
            Ok(pattern) => Some(Matcher::Pattern(pattern)),
            // A source with a query is text that merely looks like a pattern.
            Err(regex::Error::Syntax(_)) if text.contains("://") => Some(Matcher::Value(Value::from(text))),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim();
                self.wrong(at, format!("{} is no regular expression: {reason}", quoted(text)));
                None
            }
        }
    }

    fn correlations(&mut self, at: &Cursor<'_>) -> Option<Vec<Correlation>> {
        let fields = self.object(at)?;
        if fields.entries.len() > MOST_CORRELATIONS {
            self.wrong(
                at,
                format!("at most {MOST_CORRELATIONS} correlations are allowed"),
            );
            return None;
        }
        let correlations: Vec<Option<Correlation>> = fields
            .iter()
            .map(|(name, field)| self.correlation(name, &field))
            .collect();
        correlations.into_iter().collect()
    }

    fn correlation(&mut self, name: &str, at: &Cursor<'_>) -> Option<Correlation> {
        let fields = self.fields(at, &["from", "expect"])?;
        let from = self
            .require(&fields, "from")
            .and_then(|from| self.expression_field(&from));
        let expect = fields.get("expect").map(|expect| self.template(&expect));
        Some(Correlation {
            name: name.to_owned(),
            from: from?,
            expect: given(expect)?,
        })
    }

    /// Filters that name the same correlation share its value, so that only one of them may say what it is.
    fn agree_on_correlations(&mut self, at: &Cursor<'_>, strategy: &Strategy) -> bool {
        let mut expected: Vec<(&str, &Template)> = Vec::new();
        for correlation in strategy.all_filters().flat_map(|filter| &filter.correlate) {
            let Some(expect) = &correlation.expect else {
                continue;
            };
            let known = expected.iter().find(|(name, _)| *name == correlation.name);
            if known.is_some_and(|(_, known)| *known != expect) {
                let message = format!(
                    "two filters expect different values of the correlation {}; give them different names",
                    quoted(&correlation.name)
                );
                self.wrong(at, message);
                return false;
            }
            expected.push((&correlation.name, expect));
        }
        true
    }
}

/// `until` of an `any`; none given means that the first event is enough.
fn given_until(until: Option<Option<Until>>) -> Option<Until> {
    match until {
        None => Some(Until::First),
        Some(until) => until,
    }
}
