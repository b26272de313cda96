//! Runtime expressions: where they stand, which variables they see, and values that contain them.
//!
//! In strict mode text is an expression where it is `${ … }` from end to end. Fields that can only be an expression (`if`,
//! `when`, `while`, `in`, `from`, `as`) may leave the braces away. In loose mode any other text is tried as an expression too,
//! and what fails, when the document is read or when it is evaluated, stays text; what stands in braces is an expression in
//! either mode, and its mistakes are errors.

use super::cursor::Cursor;
use super::{Reader, embedded};
use crate::document::Template;
use crate::expression::Expression;
use crate::node::Content;
use crate::problem::{listed, quoted};

/// When an expression is evaluated, which decides about the arguments that it sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Moment {
    /// `input.from` of the workflow.
    WorkflowInput,
    /// `input.from` of a task.
    TaskInput,
    /// `if` of a task.
    Condition,
    /// Anything else in a task.
    #[default]
    Definition,
    /// `output.as` of a task.
    Output,
    /// `export.as` of a task.
    Export,
    /// `output.as` of the workflow.
    WorkflowOutput,
    /// `schedule.on`, before there is a run.
    Schedule,
}

impl Moment {
    fn name(self) -> &'static str {
        match self {
            Self::WorkflowInput => "the workflow's input.from",
            Self::TaskInput => "a task's input.from",
            Self::Condition => "a task's if",
            Self::Definition => "a task's definition",
            Self::Output => "a task's output.as",
            Self::Export => "a task's export.as",
            Self::WorkflowOutput => "the workflow's output.as",
            Self::Schedule => "the workflow's schedule",
        }
    }
}

/// The arguments of the language, and when each is there.
const ARGUMENTS: [(&str, &[Moment]); 8] = {
    use Moment::{Condition, Definition, Export, Output, TaskInput, WorkflowInput, WorkflowOutput};
    [
        (
            "context",
            &[TaskInput, Condition, Definition, Output, Export, WorkflowOutput],
        ),
        ("input", &[Condition, Definition, Output, Export]),
        ("output", &[Export]),
        (
            "workflow",
            &[
                WorkflowInput,
                TaskInput,
                Condition,
                Definition,
                Output,
                Export,
                WorkflowOutput,
            ],
        ),
        ("task", &[TaskInput, Condition, Definition, Output, Export]),
        // Only where data are made: a marker is of no use to a condition, and less to an output.
        ("secrets", &[WorkflowInput, TaskInput, Definition]),
        ("authorization", &[Definition, Output, Export]),
        (
            "runtime",
            &[
                WorkflowInput,
                TaskInput,
                Condition,
                Definition,
                Output,
                Export,
                WorkflowOutput,
            ],
        ),
    ]
};

/// Most expressions of one document: each is compiled when the document is read.
const MOST_EXPRESSIONS: usize = 2000;

/// What an expression at the current place sees.
#[derive(Default)]
pub(super) struct Scope {
    variables: Vec<String>,
    expressions: usize,
    moment: Moment,
    /// How many schemas have been read.
    pub(super) schemas: usize,
    /// How many patterns are in them.
    pub(super) patterns: usize,
}

impl Scope {
    /// When the expressions that are being read are evaluated.
    pub(super) fn moment(&self) -> Moment {
        self.moment
    }
}

impl Reader {
    /// The expression in the text at a place, with or without its braces.
    pub(super) fn expression(&mut self, at: &Cursor<'_>, text: &str) -> Option<Expression> {
        let source = embedded(text).unwrap_or(text).trim();
        if source.is_empty() {
            self.wrong(at, "an expression must not be empty; '.' is the whole value");
            return None;
        }
        if !self.count_expression(at) {
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

    /// Whether there may be one more expression.
    fn count_expression(&mut self, at: &Cursor<'_>) -> bool {
        self.scope.expressions += 1;
        if self.scope.expressions == MOST_EXPRESSIONS + 1 {
            let message = format!(
                "the document has more than {MOST_EXPRESSIONS} expressions; split the work over several workflows"
            );
            self.wrong(at, message);
        }
        self.scope.expressions <= MOST_EXPRESSIONS
    }

    /// The expression, if it sees every variable it uses.
    fn visible(&mut self, at: &Cursor<'_>, expression: Expression) -> Option<Expression> {
        let used = expression.variables().iter();
        let unknown: Vec<String> = used.filter(|name| !self.sees(name)).cloned().collect();
        for name in &unknown {
            let variable = format!("${name}");
            if let Some((_, moments)) = ARGUMENTS.iter().find(|(known, _)| known == name) {
                let moments: Vec<&str> = moments.iter().map(|moment| moment.name()).collect();
                let here = self.scope.moment.name();
                let remedy = match name.as_str() {
                    "input" => "; '.' is what the expression is evaluated on",
                    "output" => "; '.' is the output where it is transformed",
                    _ => "",
                };
                let message = format!(
                    "'{variable}' is not available in {here}, only in {}{remedy}",
                    moments.join(", ")
                );
                self.wrong(at, message);
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
        let listed = self.check_secrets(at, expression.source());
        if !unknown.is_empty() || !listed {
            return None;
        }
        self.note_reading(at, &expression);
        self.note_secrets(&expression);
        Some(expression)
    }

    fn sees(&self, name: &str) -> bool {
        is_argument(name, self.scope.moment) || self.scope.variables.iter().any(|variable| variable == name)
    }

    fn visible_variables(&self) -> Vec<String> {
        let own = self.scope.variables.iter().map(String::as_str);
        let moment = self.scope.moment;
        let arguments = ARGUMENTS.iter().map(|(name, _)| *name);
        let arguments = arguments.filter(|name| is_argument(name, moment));
        let mut names: Vec<String> = own.chain(arguments).map(|name| format!("${name}")).collect();
        names.dedup();
        names
    }

    /// Reads expressions that are evaluated at another moment.
    pub(super) fn during<T>(&mut self, moment: Moment, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.scope.moment, moment);
        let value = read(self);
        self.scope.moment = before;
        value
    }

    /// The text as an expression, if it is one that could be evaluated here: loose mode.
    pub(super) fn tentative(&mut self, at: &Cursor<'_>, text: &str) -> Option<Expression> {
        if text.trim().is_empty() || !self.count_expression(at) {
            return None;
        }
        let expression = Expression::compile(text).ok()?;
        let visible = expression.variables().iter().all(|name| self.sees(name));
        visible.then_some(expression)
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
        if ARGUMENTS.iter().any(|(argument, _)| *argument == name) {
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
                // What fails in loose mode stands for itself, with braces as without.
                Some(source) if self.loose => {
                    let expression = self.expression(at, source)?;
                    Some(Template::Attempt(expression, text.clone()))
                }
                Some(source) => self.expression(at, source).map(Template::Expression),
                None if self.loose => Some(match self.tentative(at, text) {
                    Some(expression) => Template::Attempt(expression, text.clone()),
                    None => Template::Literal(at.node.to_value()),
                }),
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
        } else if self.looks_evaluated(text) {
            let message =
                format!("this is text and stays as it is; to have it evaluated, write ${{ {text} }}");
            self.problems.warning(at.place(), &at.pointer, message);
        }
    }

    /// Whether text looks like a path, such as `.customer.name` or `$item.id`, whose author forgot the braces.
    fn looks_evaluated(&self, text: &str) -> bool {
        let starts = |rest: &str| rest.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let head = match text.strip_prefix('$') {
            Some(rest) => starts(rest) && self.sees(rest.split(['.', '[']).next().unwrap_or_default()),
            None => text.strip_prefix('.').is_some_and(starts),
        };
        let path =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '$' | '.' | '_' | '[' | ']');
        head && text.chars().all(path) && Expression::compile(text).is_ok()
    }
}

fn is_argument(name: &str, moment: Moment) -> bool {
    ARGUMENTS
        .iter()
        .any(|(argument, moments)| *argument == name && moments.contains(&moment))
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
