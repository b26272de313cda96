//! Why a task or a run failed: an RFC 7807 problem, as the DSL has it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// At most so many bytes of text from outside are kept in an error.
const LONGEST_TEXT: usize = 4 * 1024;

/// An error of a task or a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// URI of the kind of error.
    #[serde(rename = "type")]
    pub kind: String,
    /// Status, as in HTTP.
    pub status: u16,
    /// JSON pointer of the task that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// One line, the same for all errors of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What happened this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The kinds of errors that the DSL defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// The document or the engine's configuration does not allow it.
    Configuration,
    /// Data are not as they must be.
    Validation,
    /// An expression failed.
    Expression,
    /// Who calls is not known.
    Authentication,
    /// Who calls may not do this.
    Authorization,
    /// It took too long.
    Timeout,
    /// The other side did not answer, or answered with a failure.
    Communication,
    /// The engine could not go on.
    Runtime,
}

/// The kinds of errors that this runtime adds to those of the DSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// People have said no.
    ApprovalRejected,
    /// People have not decided in time.
    ApprovalExpired,
    /// A loop has taken as many iterations as it may.
    TooManyIterations,
    /// A budget is used up, and people have refused more.
    BudgetExceeded,
}

impl Own {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ApprovalRejected,
        Self::ApprovalExpired,
        Self::TooManyIterations,
        Self::BudgetExceeded,
    ];

    /// The URI of the kind.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::ApprovalRejected => "urn:muster:error:approval-rejected",
            Self::ApprovalExpired => "urn:muster:error:approval-expired",
            Self::TooManyIterations => "urn:muster:error:too-many-iterations",
            Self::BudgetExceeded => "urn:muster:error:budget-exceeded",
        }
    }

    /// Its usual status and title.
    const fn usual(self) -> (u16, &'static str) {
        match self {
            Self::ApprovalRejected => (403, "Approval Rejected"),
            Self::ApprovalExpired => (408, "Approval Expired"),
            Self::TooManyIterations => (508, "Too Many Iterations"),
            Self::BudgetExceeded => (402, "Budget Exceeded"),
        }
    }
}

impl Standard {
    const ALL: [(Self, &'static str, u16, &'static str); 8] = [
        (Self::Configuration, "configuration", 400, "Configuration Error"),
        (Self::Validation, "validation", 400, "Validation Error"),
        (Self::Expression, "expression", 400, "Expression Error"),
        (
            Self::Authentication,
            "authentication",
            401,
            "Authentication Error",
        ),
        (Self::Authorization, "authorization", 403, "Authorization Error"),
        (Self::Timeout, "timeout", 408, "Timeout Error"),
        (Self::Communication, "communication", 500, "Communication Error"),
        (Self::Runtime, "runtime", 500, "Runtime Error"),
    ];

    /// What the URIs of the kinds begin with.
    pub(crate) const BASE: &'static str = "https://serverlessworkflow.io/spec/1.0.0/errors/";

    /// What they began with before the language was released; documents that were written then, and the scenarios of the
    /// language's conformance kit, still name the kinds so.
    const FORMER_BASE: &'static str = "https://serverlessworkflow.io/dsl/errors/types/";

    fn row(self) -> (&'static str, u16, &'static str) {
        let row = Self::ALL.iter().find(|(kind, ..)| *kind == self);
        row.map_or(("runtime", 500, "Runtime Error"), |(_, name, status, title)| {
            (*name, *status, *title)
        })
    }

    /// The URI of the kind.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{}{}", Self::BASE, self.row().0)
    }

    /// The last part of the URI.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The last parts of all URIs.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|(_, name, ..)| *name)
    }

    /// The kind whose URI ends so.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known, ..)| *known == name)
            .map(|(kind, ..)| *kind)
    }

    /// The kind with this URI, or with the one it had before the language was released.
    #[must_use]
    pub fn by_uri(uri: &str) -> Option<Self> {
        let name = uri
            .strip_prefix(Self::BASE)
            .or_else(|| uri.strip_prefix(Self::FORMER_BASE))?;
        Self::by_name(name)
    }
}

impl Problem {
    /// A standard error with its usual status and title.
    #[must_use]
    pub fn standard(kind: Standard, detail: impl Into<String>) -> Self {
        let (_, status, title) = kind.row();
        Self {
            kind: kind.uri(),
            status,
            instance: None,
            title: Some(title.to_owned()),
            detail: Some(detail.into()),
        }
        .shortened()
    }

    /// An error that this runtime adds, with its usual status and title.
    #[must_use]
    pub fn own(kind: Own, detail: impl Into<String>) -> Self {
        let (status, title) = kind.usual();
        Self {
            kind: kind.uri().to_owned(),
            status,
            instance: None,
            title: Some(title.to_owned()),
            detail: Some(detail.into()),
        }
        .shortened()
    }

    /// With another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With the task that failed, unless one is named already.
    #[must_use]
    pub fn at(mut self, pointer: &str) -> Self {
        self.instance.get_or_insert_with(|| pointer.to_owned());
        self
    }

    /// With its texts cut to a bounded length.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let texts = [&mut self.instance, &mut self.title, &mut self.detail];
        for text in texts.into_iter().flatten().chain([&mut self.kind]) {
            if text.len() > LONGEST_TEXT {
                text.truncate(text.floor_char_boundary(LONGEST_TEXT));
                text.push('…');
            }
        }
        self
    }

    /// As expressions see it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let texts = [
            ("instance", &self.instance),
            ("title", &self.title),
            ("detail", &self.detail),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::from(text.clone()?))));
        let fixed = [
            ("type".to_owned(), Value::from(self.kind.clone())),
            ("status".to_owned(), Value::from(self.status)),
        ];
        fixed.into_iter().chain(texts).collect()
    }
}

/// One line for people.
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.title.as_deref().unwrap_or(&self.kind))?;
        if let Some(detail) = &self.detail {
            write!(formatter, ": {detail}")?;
        }
        match &self.instance {
            Some(instance) => write!(formatter, " (at {instance})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_errors_have_uris_that_are_found_again() {
        for (kind, ..) in Standard::ALL {
            assert_eq!(Standard::by_uri(&kind.uri()), Some(kind));
        }
        assert_eq!(Standard::by_uri("https://example.com/errors/timeout"), None);
    }

    #[test]
    fn expressions_see_what_the_journal_has() {
        let problem = Problem::standard(Standard::Communication, "x")
            .at("/do/0/a")
            .with_status(503);
        assert_eq!(problem.to_value(), serde_json::to_value(&problem).unwrap());
        assert_eq!(problem.to_string(), "Communication Error: x (at /do/0/a)");
    }

    #[test]
    fn texts_are_bounded() {
        let problem = Problem::standard(Standard::Runtime, "ä".repeat(10_000));
        assert!(problem.detail.unwrap().len() <= LONGEST_TEXT + 3);
    }
}
