//! Walks a parsed expression: refuses what cannot be bounded and puts `__tick` in front of what can repeat.
//!
//! jaq's syntax tree is checked, not the text, because what counts is what jaq understood. The walk
//! - resolves every function, so that the missing ones are named with the reason and the nearest name;
//! - refuses definitions that call themselves: such calls nest on the stack, without a bound;
//! - measures how deep evaluating nests, with definitions expanded, since that is what fills the stack;
//! - collects the free variables;
//! - turns each node that does work into `__tick | node`, so that no combination of generators runs without spending.
//!
//! Leaves (`.`, literals, variables, paths of literals) need no tick: what they yield is paid for by the value that
//! is read, or by the node around them.

mod names;

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::path::{Part, Path};

use super::library::{Entry, Library, Needs};

/// Deepest nesting of an evaluation.
pub(super) const DEEPEST: u32 = 400;

/// Why an expression is refused, and the part of its text that is to blame.
#[derive(Debug)]
pub(super) struct Refusal<'s> {
    pub(super) message: String,
    pub(super) at: Option<&'s str>,
}

fn refuse<'s, T>(at: impl Into<Option<&'s str>>, message: impl Into<String>) -> Result<T, Refusal<'s>> {
    Err(Refusal {
        message: message.into(),
        at: at.into(),
    })
}

/// An expression that may be compiled.
pub(super) struct Checked<'s> {
    pub(super) term: Term<&'s str>,
    /// How deep evaluating it nests.
    pub(super) depth: u32,
    /// Whether evaluating it may recurse as deep as a value is nested.
    pub(super) recursive: bool,
    /// Its free variables, with `$`.
    pub(super) variables: BTreeSet<&'s str>,
    /// What it needs of the library.
    pub(super) needs: Needs,
}

/// Checks an author's expression.
pub(super) fn expression<'s>(term: Term<&'s str>, library: &Library) -> Result<Checked<'s>, Refusal<'s>> {
    let mut walk = Walk::new(library, false);
    let (term, depth) = walk.term(term, 0)?;
    Ok(Checked {
        term,
        depth,
        recursive: walk.recursive,
        variables: walk.free,
        needs: walk.needs,
    })
}

/// Checks a definition of the library.
pub(super) fn definition(
    definition: Def<&'static str>,
    library: &Library,
) -> Result<Entry, Refusal<'static>> {
    let mut walk = Walk::new(library, true);
    let (definition, depth) = walk.definition(definition, 0)?;
    Ok(Entry {
        definition,
        depth,
        recursive: walk.recursive,
        needs: walk.needs,
    })
}

/// A function that the expression itself defines.
struct Function<'s> {
    name: &'s str,
    arity: usize,
    depth: u32,
}

struct Walk<'s, 'l> {
    library: &'l Library,
    /// The library's own definitions may call themselves and use its inner functions.
    trusted: bool,
    functions: Vec<Function<'s>>,
    /// Definitions whose bodies are being walked.
    open: Vec<(&'s str, usize)>,
    bound: Vec<&'s str>,
    labels: Vec<&'s str>,
    free: BTreeSet<&'s str>,
    needs: Needs,
    recursive: bool,
}

type BoxedTerm<'s> = Box<Term<&'s str>>;

type Walked<'s> = Result<(Term<&'s str>, u32), Refusal<'s>>;

fn ticked(term: Term<&str>) -> Term<&str> {
    before("__tick", term)
}

fn before<'s>(name: &'static str, term: Term<&'s str>) -> Term<&'s str> {
    Term::BinOp(
        Box::new(Term::Call(name, Vec::new())),
        BinaryOp::Pipe(None),
        Box::new(term),
    )
}

impl<'s, 'l> Walk<'s, 'l> {
    fn new(library: &'l Library, trusted: bool) -> Self {
        Self {
            library,
            trusted,
            functions: Vec::new(),
            open: Vec::new(),
            bound: Vec::new(),
            labels: Vec::new(),
            free: BTreeSet::new(),
            needs: Needs::of_ticks(library),
            recursive: false,
        }
    }

    /// The term with its ticks, and how deep evaluating it nests. `level` is how deep the term itself is nested.
    fn term(&mut self, term: Term<&'s str>, level: u32) -> Walked<'s> {
        if level > DEEPEST {
            return refuse(
                None,
                format!("the expression nests more than {DEEPEST} deep; split it over several tasks"),
            );
        }
        let leaf = is_leaf(&term);
        let (term, depth) = self.node(term, level + 1)?;
        if depth > DEEPEST {
            let message = format!(
                "evaluating the expression nests more than {DEEPEST} deep; split it over several tasks"
            );
            return refuse(None, message);
        }
        Ok((if leaf { term } else { ticked(term) }, depth))
    }

    fn boxed(&mut self, term: Term<&'s str>, level: u32) -> Result<(BoxedTerm<'s>, u32), Refusal<'s>> {
        let (term, depth) = self.term(term, level)?;
        Ok((Box::new(term), depth))
    }

    fn optional(
        &mut self,
        term: Option<BoxedTerm<'s>>,
        level: u32,
    ) -> Result<(Option<BoxedTerm<'s>>, u32), Refusal<'s>> {
        match term {
            None => Ok((None, 0)),
            Some(term) => self.boxed(*term, level).map(|(term, depth)| (Some(term), depth)),
        }
    }

    fn node(&mut self, term: Term<&'s str>, level: u32) -> Walked<'s> {
        Ok(match term {
            leaf @ (Term::Id | Term::Num(_)) => (leaf, 1),
            Term::Recurse => {
                self.recursive = true;
                (Term::Recurse, 1)
            }
            Term::Var(name) => (self.variable(name)?, 1),
            Term::Break(label) if self.labels.contains(&label) => (Term::Break(label), 1),
            Term::Break(label) => {
                return refuse(
                    label,
                    format!("there is no 'label {label}' around 'break {label}'"),
                );
            }
            Term::Str(format, parts) => self.text(format, parts, level)?,
            Term::Arr(inner) => {
                let (inner, depth) = self.optional(inner, level)?;
                (Term::Arr(inner), depth + 1)
            }
            Term::Obj(fields) => self.object(fields, level)?,
            Term::Neg(inner) => {
                let (inner, depth) = self.boxed(*inner, level)?;
                (Term::Neg(inner), depth + 1)
            }
            Term::BinOp(left, operator, right) => self.binary(*left, operator, *right, level)?,
            Term::Label(label, inner) => {
                self.labels.push(label);
                let (inner, depth) = self.boxed(*inner, level)?;
                self.labels.pop();
                (Term::Label(label, inner), depth + 1)
            }
            Term::Fold(name, items, pattern, arguments) => {
                self.fold(name, *items, pattern, arguments, level)?
            }
            Term::TryCatch(tried, caught) => {
                let (tried, first) = self.boxed(*tried, level)?;
                let (caught, second) = self.optional(caught, level)?;
                (Term::TryCatch(tried, caught), first.max(second) + 1)
            }
            Term::IfThenElse(branches, otherwise) => {
                let count = u32::try_from(branches.len()).unwrap_or(u32::MAX);
                let mut deepest = 0;
                let mut walked = Vec::with_capacity(branches.len());
                for (condition, consequence) in branches {
                    let (condition, first) = self.term(condition, level)?;
                    let (consequence, second) = self.term(consequence, level)?;
                    deepest = deepest.max(first).max(second);
                    walked.push((condition, consequence));
                }
                let (otherwise, last) = self.optional(otherwise, level)?;
                (
                    Term::IfThenElse(walked, otherwise),
                    deepest.max(last).saturating_add(count),
                )
            }
            Term::Def(definitions, body) => self.definitions(definitions, *body, level)?,
            Term::Call(name, arguments) => self.call(name, arguments, level)?,
            Term::Path(head, path) => {
                let (head, mut deepest) = self.boxed(*head, level)?;
                let mut parts = Vec::with_capacity(path.0.len());
                for (part, opt) in path.0 {
                    let (part, depth) = self.part(part, level)?;
                    deepest = deepest.max(depth);
                    parts.push((part, opt));
                }
                let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                (Term::Path(head, Path(parts)), deepest.saturating_add(count))
            }
        })
    }

    fn part(
        &mut self,
        part: Part<Term<&'s str>>,
        level: u32,
    ) -> Result<(Part<Term<&'s str>>, u32), Refusal<'s>> {
        let mut bound = |bound: Option<Term<&'s str>>| match bound {
            None => Ok((None, 0)),
            Some(term) => self.term(term, level).map(|(term, depth)| (Some(term), depth)),
        };
        Ok(match part {
            Part::Index(term) => {
                let (term, depth) = bound(Some(term))?;
                (Part::Index(term.unwrap_or_default()), depth)
            }
            Part::Range(from, to) => {
                let ((from, first), (to, second)) = (bound(from)?, bound(to)?);
                (Part::Range(from, to), first.max(second))
            }
        })
    }

    fn text(
        &mut self,
        format: Option<&'s str>,
        parts: Vec<StrPart<&'s str, Term<&'s str>>>,
        level: u32,
    ) -> Walked<'s> {
        let mut deepest = match format {
            Some(name) => self.function(name, 0)?,
            None => 0,
        };
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let mut walked = Vec::with_capacity(parts.len());
        for part in parts {
            walked.push(match part {
                StrPart::Term(term) => {
                    let (term, depth) = self.term(term, level)?;
                    deepest = deepest.max(depth);
                    StrPart::Term(term)
                }
                other => other,
            });
        }
        Ok((
            Term::Str(format, walked),
            deepest.saturating_add(count).saturating_add(1),
        ))
    }

    fn object(&mut self, fields: Vec<(Term<&'s str>, Option<Term<&'s str>>)>, level: u32) -> Walked<'s> {
        let count = u32::try_from(fields.len()).unwrap_or(u32::MAX);
        let mut deepest = 0;
        let mut walked = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            // `{$x}` and `{"a"}` are read as they stand: jaq looks at the form of the key.
            let plain = value.is_none() && matches!(key, Term::Var(_) | Term::Str(..));
            let (key, first) = if plain {
                self.node(key, level + 1)?
            } else {
                self.term(key, level)?
            };
            let (value, second) = match value {
                Some(value) => self
                    .term(value, level)
                    .map(|(value, depth)| (Some(value), depth))?,
                None => (None, 0),
            };
            deepest = deepest.max(first).max(second);
            walked.push((key, value));
        }
        Ok((Term::Obj(walked), deepest.saturating_add(count).saturating_add(1)))
    }

    fn binary(
        &mut self,
        left: Term<&'s str>,
        operator: BinaryOp<&'s str>,
        right: Term<&'s str>,
        level: u32,
    ) -> Walked<'s> {
        let (left, first) = self.boxed(left, level)?;
        let bound = self.bound.len();
        let operator = match operator {
            BinaryOp::Pipe(Some(pattern)) => {
                let pattern = self.pattern(pattern, level)?;
                self.bind(&pattern);
                BinaryOp::Pipe(Some(pattern))
            }
            other => other,
        };
        let (right, second) = self.boxed(right, level)?;
        self.bound.truncate(bound);
        Ok((Term::BinOp(left, operator, right), first.max(second) + 1))
    }

    fn pattern(&mut self, pattern: Pattern<&'s str>, level: u32) -> Result<Pattern<&'s str>, Refusal<'s>> {
        if level > DEEPEST {
            return refuse(None, format!("the pattern nests more than {DEEPEST} deep"));
        }
        Ok(match pattern {
            Pattern::Var(name) => Pattern::Var(name),
            Pattern::Arr(items) => {
                let items: Result<_, _> = items
                    .into_iter()
                    .map(|item| self.pattern(item, level + 1))
                    .collect();
                Pattern::Arr(items?)
            }
            Pattern::Obj(fields) => {
                let field =
                    |(key, pattern)| Ok((self.term(key, level + 1)?.0, self.pattern(pattern, level + 1)?));
                Pattern::Obj(fields.into_iter().map(field).collect::<Result<_, _>>()?)
            }
        })
    }

    fn bind(&mut self, pattern: &Pattern<&'s str>) {
        match pattern {
            Pattern::Var(name) => self.bound.push(name),
            Pattern::Arr(items) => items.iter().for_each(|item| self.bind(item)),
            Pattern::Obj(fields) => fields.iter().for_each(|(_, pattern)| self.bind(pattern)),
        }
    }

    fn fold(
        &mut self,
        name: &'s str,
        items: Term<&'s str>,
        pattern: Pattern<&'s str>,
        arguments: Vec<Term<&'s str>>,
        level: u32,
    ) -> Walked<'s> {
        let allowed: &[usize] = if name == "reduce" { &[2] } else { &[2, 3] };
        if !allowed.contains(&arguments.len()) {
            let message = format!(
                "'{name}' takes {allowed:?} arguments in parentheses, not {}",
                arguments.len()
            );
            return refuse(name, message);
        }
        let (items, mut deepest) = self.term(items, level)?;
        let pattern = self.pattern(pattern, level)?;
        let bound = self.bound.len();
        let mut walked = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.into_iter().enumerate() {
            if index == 1 {
                self.bind(&pattern);
            }
            let (argument, depth) = self.term(argument, level)?;
            deepest = deepest.max(depth);
            // An assignment through a fold would nest once for each item.
            walked.push(if index == 0 {
                argument
            } else {
                before("__step", argument)
            });
        }
        self.bound.truncate(bound);
        Ok((
            Term::Fold(name, Box::new(items), pattern, walked),
            deepest.saturating_add(2),
        ))
    }
}

fn is_leaf(term: &Term<&str>) -> bool {
    match term {
        Term::Id | Term::Num(_) | Term::Var(_) | Term::Recurse | Term::Break(_) | Term::Arr(None) => true,
        Term::Def(..) => true,
        Term::Str(format, parts) => {
            format.is_none() && !parts.iter().any(|part| matches!(part, StrPart::Term(_)))
        }
        Term::Obj(fields) => fields.is_empty(),
        Term::Path(head, path) => {
            let literal = |part: &Part<Term<&str>>| match part {
                Part::Index(index) => is_leaf(index),
                Part::Range(from, to) => from.iter().chain(to).all(is_leaf),
            };
            is_leaf(head) && path.0.iter().all(|(part, _)| literal(part))
        }
        _ => false,
    }
}
