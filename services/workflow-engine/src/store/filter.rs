//! Which runs to list.

use jiff::Timestamp;

use crate::run::{Status, Summary};

/// Which runs to list; what is left away admits any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these; empty: any.
    pub statuses: Vec<Status>,
    /// Only of the workflow with this name.
    pub name: Option<String>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this version.
    pub version: Option<String>,
    /// Only with these labels, all of them; without a value: with the label at all.
    pub labels: Vec<(String, Option<String>)>,
    /// Only with an error of this type: a URI, or its last part.
    pub error_type: Option<String>,
    /// Only of this caller, by its key.
    pub caller: Option<String>,
    /// Only created then.
    pub created: Span,
    /// Only ended then.
    pub ended: Span,
}

/// From one instant, which is in it, to another, which is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// The first instant; none: since ever.
    pub from: Option<Timestamp>,
    /// The first instant after it; none: for ever.
    pub to: Option<Timestamp>,
}

impl Span {
    fn is_everything(self) -> bool {
        self == Self::default()
    }

    fn contains(self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }
}

impl Filter {
    /// Whether every run is to be listed.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the run is to be listed.
    #[must_use]
    pub fn admits(&self, run: &Summary) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let labelled = |(key, value): &(String, Option<String>)| {
            let found = run.marks.labels.get(key);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        (self.statuses.is_empty() || self.statuses.contains(&run.status))
            && is(&self.name, &run.name)
            && is(&self.namespace, &run.namespace)
            && is(&self.version, &run.version)
            && (self.caller.is_none() || self.caller.as_deref() == run.caller_key())
            && self.labels.iter().all(labelled)
            && self.error_type.as_ref().is_none_or(|wanted| {
                let found = run.failure.as_ref().map(|failure| failure.kind.as_str());
                found.is_some_and(|found| is_type(found, wanted))
            })
            && self.created.contains(run.created_at)
            && (self.ended.is_everything() || run.ended_at.is_some_and(|ended| self.ended.contains(ended)))
    }
}

/// Whether `uri` is `wanted`, or ends in it.
fn is_type(uri: &str, wanted: &str) -> bool {
    uri.strip_suffix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', ':', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Failure;
    use crate::store::conformance;

    #[test]
    fn each_criterion_admits_what_it_says() {
        let mut run = conformance::run("r", 100).1;
        run.marks.labels = [("team".to_owned(), "red".to_owned())].into();
        run.status = Status::Faulted;
        run.ended_at = Some(run.created_at);
        run.failure = Some(Failure {
            kind: "https://serverlessworkflow.io/spec/1.0.0/errors/timeout".into(),
            status: 408,
            instance: String::new(),
            title: String::new(),
            detail: String::new(),
        });
        let at = |second: i64| Timestamp::from_second(second).ok();
        let none = Filter::default;
        let text = |text: &str| Some(text.to_owned());
        let label = |key: &str, value: Option<&str>| vec![(key.to_owned(), value.map(str::to_owned))];
        let span = |from, to| Span { from, to };
        for (filter, admits) in [
            (none(), true),
            (
                Filter {
                    statuses: vec![Status::Faulted],
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    statuses: vec![Status::Running],
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    namespace: text("default"),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    namespace: text("other"),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    version: text("1.0.0"),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    version: text("1.0.1"),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    labels: label("team", Some("red")),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    labels: label("team", None),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    labels: label("team", Some("blue")),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    labels: label("other", None),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    error_type: text("timeout"),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    error_type: text("https://serverlessworkflow.io/spec/1.0.0/errors/timeout"),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    error_type: text("out"),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    created: span(at(100), at(101)),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    created: span(at(101), None),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    created: span(None, at(100)),
                    ..none()
                },
                false,
            ),
            (
                Filter {
                    ended: span(at(100), None),
                    ..none()
                },
                true,
            ),
            (
                Filter {
                    ended: span(None, at(100)),
                    ..none()
                },
                false,
            ),
        ] {
            assert_eq!(filter.admits(&run), admits, "{filter:?}");
        }
        run.ended_at = None;
        let ended = Filter {
            ended: span(at(1), None),
            ..none()
        };
        assert!(!ended.admits(&run), "it has not ended");
    }
}
