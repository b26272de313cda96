//! Runtime expressions: where they stand, which variables they see, and values that contain them.
//!
//! The language is in strict mode: text is an expression where it is `${ … }` from end to end. Fields that can only
//! be an expression (`if`, `when`, `while`, `in`, `from`, `as`) may leave the braces away.

use super::cursor::Cursor;
use super::{Reader, embedded};
use crate::document::Template;
use crate::expression::Expression;
use crate::node::Content;
use crate::problem::{listed, quoted};

/// Variables that every expression sees.
const EVERYWHERE: [&str; 6] = ["context", "input", "output", "workflow", "task", "runtime"];

/// Variables of the language that are not there yet.
const LATER: [&str; 2] = ["secrets", "authorization"];

/// Most expressions of one document: each is compiled when the document is read.
const MOST_EXPRESSIONS: usize = 2000;

/// What an expression at the current place sees.
#[derive(Default)]
pub(super) struct Scope {
    variables: Vec<String>,
    expressions: usize,
}

impl Reader {
    /// The expression in the text at a place, with or without its braces.
    pub(super) fn expression(&mut self, at: &Cursor<'_>, text: &str) -> Option<Expression> {
        let source = embedded(text).unwrap_or(text).trim();
        if source.is_empty() {
            self.wrong(at, "an expression must not be empty; '.' is the whole value");
            return None;
        }
        self.scope.expressions += 1;
        if self.scope.expressions > MOST_EXPRESSIONS {
            if self.scope.expressions == MOST_EXPRESSIONS + 1 {
                self.wrong(
                    at,
                    format!("the document has more than {MOST_EXPRESSIONS} expressions"),
                );
            }
            return None;
        }
        match Expression::compile(source) {
            Ok(expression) => self.visible(at, expression),
            Err(error) => {
                self.wrong(at, error.to_string());
                None
            }
        }
    }

    /// The expression, if it sees every variable it uses.
    fn visible(&mut self, at: &Cursor<'_>, expression: Expression) -> Option<Expression> {
        let used = expression.variables().iter();
        let unknown: Vec<String> = used.filter(|name| !self.sees(name)).cloned().collect();
        for name in &unknown {
            let variable = format!("${name}");
            if LATER.contains(&name.as_str()) {
                self.wrong(at, format!("the variable '{variable}' is not supported yet"));
                continue;
            }
            let visible = self.visible_variables();
            let visible = || visible.iter().map(String::as_str);
            let nearest = muster_api::names::suggestion(&variable, visible());
            let message = format!(
                "no variable {} here; there are {}{nearest}",
                quoted(&variable),
                listed(visible())
            );
            self.wrong(at, message);
        }
        unknown.is_empty().then_some(expression)
    }

    fn sees(&self, name: &str) -> bool {
        EVERYWHERE.contains(&name) || self.scope.variables.iter().any(|variable| variable == name)
    }

    fn visible_variables(&self) -> Vec<String> {
        let own = self.scope.variables.iter().map(String::as_str);
        let mut names: Vec<String> = own.chain(EVERYWHERE).map(|name| format!("${name}")).collect();
        names.dedup();
        names
    }

    /// Reads with more variables in sight.
    pub(super) fn with_variables<T>(
        &mut self,
        variables: impl IntoIterator<Item = String>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.scope.variables.len();
        self.scope.variables.extend(variables);
        let value = read(self);
        self.scope.variables.truncate(before);
        value
    }

    /// The name of a variable that the author introduces.
    pub(super) fn variable(&mut self, at: &Cursor<'_>) -> Option<String> {
        const LONGEST: usize = 64;
        let name = self.text(at)?;
        let shape = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let fits = name.len() <= LONGEST
            && name.bytes().all(shape)
            && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !fits {
            let rule = "a variable is a letter or '_' and then letters, digits and '_', without '$'";
            self.wrong(at, format!("{rule}; found {}", quoted(name)));
            return None;
        }
        if EVERYWHERE.contains(&name) || LATER.contains(&name) {
            self.wrong(
                at,
                format!("'${name}' is a variable of the language; choose another name"),
            );
            return None;
        }
        Some(name.to_owned())
    }

    /// The expression in a field that can only be one.
    pub(super) fn expression_field(&mut self, at: &Cursor<'_>) -> Option<Expression> {
        let text = self.text(at)?;
        self.expression(at, text)
    }

    /// A value with expressions in it.
    pub(super) fn template(&mut self, at: &Cursor<'_>) -> Option<Template> {
        match &at.node.content {
            Content::Text(text) => match embedded(text) {
                Some(source) => self.expression(at, source).map(Template::Expression),
                None => {
                    self.doubt_braces(at, text);
                    Some(Template::Literal(at.node.to_value()))
                }
            },
            Content::Array(items) => {
                let items: Vec<Option<Template>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.template(&at.item(index, item)))
                    .collect();
                let items: Vec<Template> = items.into_iter().collect::<Option<_>>()?;
                Some(literal_if(
                    items.iter().all(is_literal),
                    at,
                    Template::Array(items),
                ))
            }
            Content::Object(entries) => {
                let mut fields = Vec::with_capacity(entries.len());
                for entry in entries {
                    let field = at.field(entry);
                    if embedded(&entry.key).is_some() {
                        self.doubtful(
                            &field,
                            "a field's name is never an expression; it is taken as it stands",
                        );
                    }
                    fields.push(self.template(&field).map(|value| (entry.key.clone(), value)));
                }
                let fields: Vec<(String, Template)> = fields.into_iter().collect::<Option<_>>()?;
                Some(literal_if(
                    fields.iter().all(|(_, value)| is_literal(value)),
                    at,
                    Template::Object(fields),
                ))
            }
            Content::Null | Content::Bool(_) | Content::Number(_) => {
                Some(Template::Literal(at.node.to_value()))
            }
        }
    }

    /// Text and expressions do not mix, which surprises authors.
    fn doubt_braces(&mut self, at: &Cursor<'_>, text: &str) {
        if text.contains("${") {
            let message = "'${' inside other text is not evaluated; make the whole text one expression, such as \
                           ${ \"Hello \\(.name)\" }";
            self.problems.warning(at.place(), &at.pointer, message);
        }
    }
}

fn is_literal(template: &Template) -> bool {
    matches!(template, Template::Literal(_))
}

fn literal_if(literal: bool, at: &Cursor<'_>, template: Template) -> Template {
    if literal {
        Template::Literal(at.node.to_value())
    } else {
        template
    }
}
