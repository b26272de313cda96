//! From text to a program of jaq, and from a program to a value.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jaq_core::load::lex::Token;
use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{Arena, File, Lexer, Loader, Parser, span};
use jaq_core::{Compiler, Ctx, Filter, Vars};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::budget::{self, Exceeded};
use super::check::{self, Checked, Refusal};
use super::library::{Data, Kind, LIBRARY, natives_at};
use super::shape::{self, Shape};
use super::value::Value;
use super::{Error, Variables, quoted};
use crate::stack::{self, panic_message};

/// Stack for parsing, for each byte of text: jaq's lexer, parser and compiler call themselves at most a few times for each.
const PARSER_STACK: usize = 16 * 1024;

/// Stack for parsing however short a text is: what the library's definitions need, too.
const LEAST_PARSER_STACK: usize = 1024 * 1024;

/// Stack for evaluating what nests deeply: [`check::DEEPEST`] levels, and those of a value below each other.
const EVALUATOR_STACK: usize = 128 * 1024 * 1024;

/// What nests no deeper than this, and does not recurse into a value, is evaluated on the caller's stack.
const SHALLOW: u32 = 24;

/// A compiled expression.
pub(super) struct Program {
    filter: Filter<Kind>,
    /// Free variables in the order of jaq's globals, without `$`.
    pub(super) variables: Vec<String>,
    /// What can be said of it without evaluating it.
    pub(super) shape: Shape,
    /// Whether it needs a stack of its own.
    deep: bool,
}

fn on_stack<T: Send>(size: usize, source: &str, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    stack::run(size, work).map_err(|message| Error::Internal {
        expression: quoted(source),
        message,
    })
}

/// Compiles the text of an expression.
pub(super) fn compile(source: &str) -> Result<Program, Error> {
    let source = &*joined(source);
    // The kernel takes its time over a large stack, and most expressions are short.
    let stack = LEAST_PARSER_STACK + source.len() * PARSER_STACK;
    on_stack(stack, source, || {
        let tokens = Lexer::new(source).lex().map_err(|errors| {
            let (expected, found) = errors
                .into_iter()
                .next()
                .map_or(("", source), |(expected, found)| (expected.as_str(), found));
            syntax(source, expected, Some(found))
        })?;
        let term = parse(source, &tokens)?;
        let shape = shape::of(&term);
        let checked = check::expression(term, &LIBRARY).map_err(|refusal| refused(source, refusal))?;
        assemble(source, checked, shape)
    })?
}

/// The text with each pair of escapes of one character, such as `\ud83d\ude00`, replaced by the character: jaq reads escapes one by
/// one. As in jq, half of a pair stands for the replacement character.
fn joined(source: &str) -> Cow<'_, str> {
    if !source.contains("\\u") {
        return Cow::Borrowed(source);
    }
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('\\') {
        let (before, escape) = rest.split_at(start);
        text.push_str(before);
        let first = unit(escape);
        let second = first.and_then(|_| unit(escape.get(ESCAPE..)?));
        let (replaced, length) = match (first, second) {
            (Some(first @ 0xD800..=0xDBFF), Some(second @ 0xDC00..=0xDFFF)) => {
                let pair = char::decode_utf16([first, second]).next();
                (pair.and_then(Result::ok), 2 * ESCAPE)
            }
            (Some(0xD800..=0xDFFF), _) => (Some(char::REPLACEMENT_CHARACTER), ESCAPE),
            // Whatever follows a backslash belongs to it, another backslash too.
            _ => (None, 1 + escape.chars().nth(1).map_or(0, char::len_utf8)),
        };
        let (kept, behind) = escape.split_at_checked(length).unwrap_or((escape, ""));
        match replaced {
            Some(character) => text.push(character),
            None => text.push_str(kept),
        }
        rest = behind;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Length of an escape such as `\ud83d`.
const ESCAPE: usize = 6;

/// The unit of UTF-16 that the escape at the beginning of the text stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

fn parse<'s>(source: &'s str, tokens: &[Token<&'s str>]) -> Result<Term<&'s str>, Error> {
    if let Some(Token(word @ ("import" | "include" | "module"), _)) = tokens.first() {
        let message = format!("there is no '{word}': expressions cannot read files");
        return Err(refused(
            source,
            Refusal {
                message,
                at: Some(word),
            },
        ));
    }
    Parser::new(tokens)
        .parse(|parser| parser.term())
        .map_err(|errors| {
            let first = errors.into_iter().next();
            let found = first.as_ref().and_then(|(_, found)| found.map(Token::as_str));
            syntax(
                source,
                first.as_ref().map_or("", |(expected, _)| expected.as_str()),
                found,
            )
        })
}

fn syntax(source: &str, expected: &str, found: Option<&str>) -> Error {
    let found = found.filter(|found| !found.is_empty());
    let message = match found {
        Some(found) => format!("expected {expected}, found '{}'", quoted(found)),
        None => format!("expected {expected}, found the end"),
    };
    let position = found.map_or(source.chars().count() + 1, |found| position(source, found));
    Error::Syntax {
        expression: quoted(source),
        position,
        message,
    }
}

fn refused(source: &str, Refusal { message, at }: Refusal<'_>) -> Error {
    Error::Refused {
        expression: quoted(source),
        position: at.map(|part| position(source, part)),
        message,
    }
}

/// Where `part`, a slice of `source`, begins, in characters from 1.
fn position(source: &str, part: &str) -> usize {
    let start = span(source, part).start;
    source.get(..start).map_or(1, |before| before.chars().count() + 1)
}

fn assemble(source: &str, checked: Checked<'_>, shape: Shape) -> Result<Program, Error> {
    const MAIN: &str = "__main";
    let internal = |message: String| Error::Internal {
        expression: quoted(source),
        message,
    };
    let needed = checked.needs.definitions.iter();
    let needed = needed.map(|position| LIBRARY.entries[*position].definition.clone());
    let main = Def {
        name: MAIN,
        args: Vec::new(),
        body: checked.term,
    };
    let arena = Arena::default();
    let file = File { code: MAIN, path: () };
    let modules = Loader::new(needed.chain([main])).load(&arena, file);
    let modules = modules.map_err(|_| internal("the program could not be assembled".to_owned()))?;
    let variables: Vec<&str> = checked.variables.iter().copied().collect();
    let compiler = Compiler::<_, Kind>::default().with_funs(natives_at(&checked.needs.natives));
    let filter = compiler
        .with_global_vars(variables.iter().copied())
        .compile(modules)
        .map_err(|errors| {
            let names = errors
                .iter()
                .flat_map(|(_, errors)| errors)
                .map(|(name, kind)| format!("{} {name}", kind.as_str()));
            internal(format!("unresolved: {}", names.collect::<Vec<_>>().join(", ")))
        })?;
    let variables = variables
        .into_iter()
        .map(|name| name.trim_start_matches('$').to_owned())
        .collect();
    Ok(Program {
        filter,
        variables,
        shape,
        deep: checked.depth > SHALLOW || checked.recursive,
    })
}

/// What came of running a program.
enum Outcome {
    One(Json),
    Nothing,
    Several,
    Failed(String),
}

impl Program {
    /// The one value that the program yields.
    pub(super) fn evaluate(
        &self,
        source: &str,
        input: &Json,
        variables: &Variables,
        now: Timestamp,
    ) -> Result<Json, Error> {
        let expression = || quoted(source);
        let missing = |name: &String| Error::Variable {
            expression: expression(),
            name: name.clone(),
        };
        let values: Result<Vec<&Arc<Json>>, _> = self
            .variables
            .iter()
            .map(|name| variables.get(name).ok_or_else(|| missing(name)))
            .collect();
        let values = values?;
        let work = || budget::with(|| self.outcome(input, &values, now));
        let (outcome, used) = if self.deep {
            on_stack(EVALUATOR_STACK, source, work)?
        } else {
            let message = |panic: Box<dyn std::any::Any + Send>| panic_message(panic.as_ref());
            catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Error::Internal {
                expression: expression(),
                message: message(panic),
            })?
        };
        budget::count(used.steps);
        if let Some(exceeded) = used.exceeded {
            return Err(Error::Exceeded {
                expression: expression(),
                bound: exceeded.bound(),
            });
        }
        match outcome {
            Outcome::One(value) => Ok(value),
            Outcome::Nothing => Err(Error::Nothing {
                expression: expression(),
            }),
            Outcome::Several => Err(Error::Several {
                expression: expression(),
            }),
            Outcome::Failed(message) => Err(Error::Evaluation {
                expression: expression(),
                message,
            }),
        }
    }

    fn outcome(&self, input: &Json, variables: &[&Arc<Json>], now: Timestamp) -> Outcome {
        let value = |json: &Json| {
            let value = Value::from_json(json);
            if value.is_none() {
                budget::exceed(Exceeded::Depth);
            }
            value.unwrap_or(Value::Null)
        };
        let input = value(input);
        let variables: Vec<Value> = variables.iter().map(|json| value(json)).collect();
        let context = Ctx::<Kind>::new(
            Data {
                lut: &self.filter.lut,
                now,
            },
            Vars::new(variables),
        );
        let mut outputs = self.filter.id.run((context, input));
        let first = match outputs.next() {
            None => return Outcome::Nothing,
            Some(Err(exception)) => return failed(exception),
            Some(Ok(first)) => first,
        };
        match outputs.next() {
            None => Outcome::One(first.to_json()),
            Some(Err(exception)) => failed(exception),
            Some(Ok(_)) => Outcome::Several,
        }
    }
}

fn failed(exception: jaq_core::Exn<'_, Value>) -> Outcome {
    // Anything but an error is the exhausted budget, which its own flag reports.
    Outcome::Failed(
        exception
            .get_err()
            .map_or_else(|_| "it was ended".to_owned(), |error| error.to_string()),
    )
}
