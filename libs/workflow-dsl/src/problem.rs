//! What is wrong with a document, and where.
//!
//! A reader collects all problems instead of stopping at the first, because an author who fixes one mistake per
//! attempt gives up. Every problem has a place for the eye (line and column) and one for programs (JSON pointer),
//! and says what is allowed instead. The collection is bounded: a hostile document must not turn into a report
//! that is larger than itself.

use std::fmt;

/// At most so many problems are kept; the rest is counted.
const MOST_PROBLEMS: usize = 100;

/// At most so many characters of an author's text are repeated in a message.
const LONGEST_QUOTE: usize = 60;

/// A place in the text: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is accepted, but probably does not do what its author meant.
    Warning,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// RFC 6901 JSON pointer of the value, or of the field, that is wrong; empty for the whole document.
    pub pointer: String,
    /// What is wrong, what is allowed, and the nearest name where there is one.
    pub message: String,
}

/// All that is wrong with a document, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct Problems {
    problems: Vec<Problem>,
    /// How many were found beyond those that are kept.
    omitted: usize,
    has_errors: bool,
}

impl Problems {
    /// The problems that are kept, in the order of the text.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.problems
    }

    /// How many further problems were found and not kept.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the document is refused, and not only doubtful.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// The problems that refuse the document.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
    }

    pub(crate) fn error(&mut self, place: Place, pointer: &str, message: impl Into<String>) {
        self.has_errors = true;
        self.push(Severity::Error, place, pointer, message.into());
    }

    pub(crate) fn warning(&mut self, place: Place, pointer: &str, message: impl Into<String>) {
        self.push(Severity::Warning, place, pointer, message.into());
    }

    fn push(&mut self, severity: Severity, place: Place, pointer: &str, message: String) {
        if self.problems.len() >= MOST_PROBLEMS {
            // An error must not be crowded out by warnings, or the report would not say why it refuses.
            let warning = self
                .problems
                .iter()
                .rposition(|problem| problem.severity == Severity::Warning);
            match warning {
                Some(index) if severity == Severity::Error => {
                    self.problems.remove(index);
                    self.omitted += 1;
                }
                _ => {
                    self.omitted += 1;
                    return;
                }
            }
        }
        let Place { line, column } = place;
        self.problems.push(Problem {
            severity,
            line,
            column,
            pointer: pointer.to_owned(),
            message,
        });
    }

    /// Brings the problems into the order of the text; those at one place stay in the order they were found in.
    pub(crate) fn sorted(mut self) -> Self {
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        self
    }

    fn lines(&self) -> String {
        let mut lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        if self.omitted > 0 {
            lines.push(format!("and {} more", self.omitted));
        }
        lines.join("\n")
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.problems.iter()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            line,
            column,
            pointer,
            message,
        } = self;
        write!(formatter, "{line}:{column}: {severity}: {message}")?;
        if pointer.is_empty() {
            Ok(())
        } else {
            write!(formatter, " (at {pointer})")
        }
    }
}

/// The author's text in quotes, on one line and cut to a readable length.
pub(crate) fn quoted(text: &str) -> String {
    let mut characters = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character });
    let shown: String = characters.by_ref().take(LONGEST_QUOTE).collect();
    let rest = if characters.next().is_some() { "…" } else { "" };
    format!("'{shown}{rest}'")
}

/// Names in quotes, for a list of what is allowed; cut after a dozen.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST_NAMES: usize = 12;
    let mut names = names.into_iter();
    let mut shown: Vec<String> = names.by_ref().take(MOST_NAMES).map(quoted).collect();
    let rest = names.count();
    if rest > 0 {
        shown.push(format!("and {rest} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { line: 3, column: 7 };

    #[test]
    fn a_problem_reads_as_one_line() {
        let mut problems = Problems::default();
        problems.error(PLACE, "/do/0", "no such thing");
        problems.warning(Place { line: 1, column: 1 }, "", "odd");
        assert_eq!(
            problems.sorted().to_string(),
            "1:1: warning: odd\n3:7: error: no such thing (at /do/0)"
        );
    }

    #[test]
    fn the_report_is_bounded_and_errors_displace_warnings() {
        let mut problems = Problems::default();
        for _ in 0..MOST_PROBLEMS + 5 {
            problems.warning(PLACE, "", "odd");
        }
        problems.error(PLACE, "", "wrong");
        assert_eq!(problems.as_slice().len(), MOST_PROBLEMS);
        assert_eq!(problems.omitted(), 6);
        assert_eq!(problems.errors().count(), 1);
        assert!(problems.to_string().ends_with("and 6 more"));
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "'a b'");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), LONGEST_QUOTE + 3);
        assert_eq!(listed(["a", "b"]), "'a', 'b'");
        let many: Vec<String> = (0..20).map(|index| index.to_string()).collect();
        assert!(listed(many.iter().map(String::as_str)).ends_with("and 8 more"));
    }
}
