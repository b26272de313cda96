//! What can be said of an expression without evaluating it, for warnings about what its author probably did not mean.
//!
//! Taken from jaq's syntax tree before the ticks are put in. Nothing here decides whether an expression is accepted or what
//! it yields.

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::path::{Opt, Part};

/// The form of an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// It is made of literals only: whatever it is evaluated on, it yields the same.
    pub(crate) constant: bool,
    /// Its value is that of an assignment, such as `.a = 1`.
    pub(crate) assigns: bool,
    /// It provides for values that are not there, by `//`, `?`, `try` or a comparison with `null`.
    pub(crate) provides: bool,
    /// The variables it reads, without `$`, each with the field of it that is read, if it is one.
    pub(crate) reads: BTreeSet<(String, Option<String>)>,
}

/// The form of `term`.
pub(super) fn of(term: &Term<&str>) -> Shape {
    let mut shape = Shape {
        constant: is_constant(term),
        assigns: is_assignment(term),
        ..Shape::default()
    };
    shape.walk(term);
    shape
}

fn is_constant(term: &Term<&str>) -> bool {
    match term {
        Term::Num(_) => true,
        Term::Str(None, parts) => !parts.iter().any(|part| matches!(part, StrPart::Term(_))),
        Term::Call("true" | "false" | "null", arguments) => arguments.is_empty(),
        Term::Neg(inner) => is_constant(inner),
        Term::Arr(inner) => inner.as_deref().is_none_or(is_constant),
        Term::Obj(fields) => fields
            .iter()
            .all(|(key, value)| is_constant(key) && value.as_ref().is_some_and(is_constant)),
        Term::BinOp(left, operator, right) => {
            let combines = matches!(
                operator,
                BinaryOp::Math(_) | BinaryOp::Cmp(_) | BinaryOp::And | BinaryOp::Or | BinaryOp::Comma
            );
            combines && is_constant(left) && is_constant(right)
        }
        _ => false,
    }
}

fn is_assignment(term: &Term<&str>) -> bool {
    match term {
        Term::BinOp(_, operator, right) => match operator {
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => true,
            BinaryOp::Pipe(_) => is_assignment(right),
            _ => false,
        },
        _ => false,
    }
}

impl Shape {
    fn walk(&mut self, term: &Term<&str>) {
        match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) => {}
            Term::Var(name) => self.read(name, None),
            Term::Str(_, parts) => {
                for part in parts {
                    if let StrPart::Term(term) = part {
                        self.walk(term);
                    }
                }
            }
            Term::Arr(inner) => self.walk_all(inner.as_deref()),
            Term::Obj(fields) => {
                for (key, value) in fields {
                    self.walk(key);
                    self.walk_all(value);
                }
            }
            Term::Neg(inner) | Term::Label(_, inner) => self.walk(inner),
            Term::BinOp(left, operator, right) => {
                self.provides |= matches!(operator, BinaryOp::Alt | BinaryOp::UpdateAlt);
                self.walk(left);
                self.walk(right);
            }
            Term::Fold(_, items, _, arguments) => {
                self.walk(items);
                self.walk_all(arguments);
            }
            Term::TryCatch(tried, caught) => {
                self.provides = true;
                self.walk(tried);
                self.walk_all(caught.as_deref());
            }
            Term::IfThenElse(branches, otherwise) => {
                for (condition, consequence) in branches {
                    self.walk(condition);
                    self.walk(consequence);
                }
                self.walk_all(otherwise.as_deref());
            }
            Term::Def(definitions, body) => {
                self.walk_all(definitions.iter().map(|definition| &definition.body));
                self.walk(body);
            }
            Term::Call(name, arguments) => {
                self.provides |= *name == "null";
                self.walk_all(arguments);
            }
            Term::Path(head, path) => {
                let optional = |(_, opt): &(Part<Term<&str>>, Opt)| matches!(opt, Opt::Optional);
                self.provides |= path.0.iter().any(optional);
                match (&**head, path.0.first()) {
                    (Term::Var(name), Some((Part::Index(index), _))) => self.read(name, literal(index)),
                    _ => self.walk(head),
                }
                for (part, _) in &path.0 {
                    match part {
                        Part::Index(index) => self.walk(index),
                        Part::Range(from, to) => self.walk_all(from.iter().chain(to)),
                    }
                }
            }
        }
    }

    fn walk_all<'t, 's: 't>(&mut self, terms: impl IntoIterator<Item = &'t Term<&'s str>>) {
        for term in terms {
            self.walk(term);
        }
    }

    fn read(&mut self, variable: &str, field: Option<&str>) {
        let name = variable.trim_start_matches('$').to_owned();
        self.reads.insert((name, field.map(str::to_owned)));
    }
}

/// The text of a literal, if it is one without escapes.
fn literal<'s>(term: &Term<&'s str>) -> Option<&'s str> {
    match term {
        Term::Str(None, parts) => match parts.as_slice() {
            [StrPart::Str(text)] => Some(text),
            _ => None,
        },
        _ => None,
    }
}
