//! Finding instances: what is asked, and the choice among candidates. Pure.
//!
//! The order is total (load or latency, then the other, then the key), so that the same question about the same
//! instances has one answer on every replica.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use muster_api::registry;

use crate::instance::{Error, Instance, Status, wire};
use crate::page;

/// Load up to which instances are found when nothing is said.
const DEFAULT_MAX_LOAD: f64 = 0.8;
/// Most skills in one question.
const MAX_SKILLS: usize = 32;

/// What decides who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Least loaded first.
    Load,
    /// Fastest first; who has not answered anything yet comes last.
    Latency,
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Whose agents.
    pub namespace: Arc<str>,
    /// Skills that an instance must have, all of them; none is no filter.
    pub skills: BTreeSet<String>,
    /// Statuses that are accepted.
    pub statuses: BTreeSet<Status>,
    /// Highest load that is accepted.
    pub max_load: f64,
    /// Who comes first.
    pub sort: Sort,
    /// How many at most.
    pub limit: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Best first.
    pub instances: Vec<Instance>,
    /// Skills spelt like a wanted one that nobody has; only when nothing was found.
    pub nearest_skills: Vec<String>,
}

impl TryFrom<registry::DiscoverRequest> for Query {
    type Error = Error;

    fn try_from(request: registry::DiscoverRequest) -> Result<Self, Error> {
        if request.skills.len() > MAX_SKILLS {
            let count = request.skills.len();
            return Err(Error::new(
                "skills",
                format!("{count} skills are wanted; ask for at most {MAX_SKILLS}"),
            ));
        }
        let skills = request.skills.iter().enumerate();
        let statuses = request.statuses.iter().enumerate();
        let statuses: BTreeSet<Status> = statuses
            .map(|(index, status)| wire::status(&format!("statuses[{index}]"), *status))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            namespace: wire::namespace("namespace", &request.namespace)?,
            skills: skills
                .map(|(index, skill)| wire::skill_id(&format!("skills[{index}]"), skill))
                .collect::<Result<_, _>>()?,
            statuses: if statuses.is_empty() {
                [Status::Active].into()
            } else {
                statuses
            },
            max_load: wire::load("max_load", request.max_load.unwrap_or(DEFAULT_MAX_LOAD))?.get(),
            sort: match registry::SortOrder::try_from(request.sort) {
                Ok(registry::SortOrder::Unspecified | registry::SortOrder::Load) => Sort::Load,
                Ok(registry::SortOrder::Latency) => Sort::Latency,
                Err(_) => {
                    let message = format!("{} is no order; use load (1) or latency (2)", request.sort);
                    return Err(Error::new("sort", message));
                }
            },
            limit: page::size(request.page_size),
        })
    }
}

/// The candidates that fit, best first. Namespace and skills are the caller's part, who has an index for them.
#[must_use]
pub fn select<'a>(candidates: impl Iterator<Item = &'a Instance>, query: &Query) -> Vec<Instance> {
    let fits = |instance: &&Instance| {
        query.statuses.contains(&instance.report.status) && instance.report.load.get() <= query.max_load
    };
    let mut fitting: Vec<&Instance> = candidates.filter(fits).collect();
    let order = |a: &&Instance, b: &&Instance| compare(query.sort, a, b);
    if query.limit < fitting.len() {
        fitting.select_nth_unstable_by(query.limit, order);
        fitting.truncate(query.limit);
    }
    fitting.sort_unstable_by(order);
    fitting.into_iter().cloned().collect()
}

fn compare(sort: Sort, a: &Instance, b: &Instance) -> Ordering {
    let by_load = || a.report.load.get().total_cmp(&b.report.load.get());
    let by_latency = || match (a.report.mean_latency, b.report.mean_latency) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    let measured = match sort {
        Sort::Load => by_load().then_with(by_latency),
        Sort::Latency => by_latency().then_with(by_load),
    };
    measured.then_with(|| a.key().cmp(b.key()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_means_active_up_to_0_8_by_load() {
        let query = Query::try_from(registry::DiscoverRequest::default()).unwrap();
        assert_eq!(query.statuses, [Status::Active].into());
        assert_eq!((query.max_load, query.sort, query.limit), (0.8, Sort::Load, 50));
        assert_eq!(&*query.namespace, "default");
        assert!(query.skills.is_empty());
    }

    #[test]
    fn a_max_load_of_zero_is_not_silence() {
        let request = registry::DiscoverRequest {
            max_load: Some(0.0),
            page_size: 1000,
            ..Default::default()
        };
        let query = Query::try_from(request).unwrap();
        assert_eq!((query.max_load, query.limit), (0.0, 100));
    }

    #[test]
    fn every_bad_field_is_named() {
        let ask = registry::DiscoverRequest::default;
        let cases = [
            (
                "skills[1]",
                registry::DiscoverRequest {
                    skills: vec!["a".into(), "b c".into()],
                    ..ask()
                },
            ),
            (
                "skills",
                registry::DiscoverRequest {
                    skills: vec!["a".into(); 33],
                    ..ask()
                },
            ),
            (
                "statuses[0]",
                registry::DiscoverRequest {
                    statuses: vec![7],
                    ..ask()
                },
            ),
            (
                "max_load",
                registry::DiscoverRequest {
                    max_load: Some(1.5),
                    ..ask()
                },
            ),
            (
                "max_load",
                registry::DiscoverRequest {
                    max_load: Some(f64::NAN),
                    ..ask()
                },
            ),
            ("sort", registry::DiscoverRequest { sort: 3, ..ask() }),
            (
                "namespace",
                registry::DiscoverRequest {
                    namespace: "A".into(),
                    ..ask()
                },
            ),
        ];
        for (field, request) in cases {
            assert_eq!(Query::try_from(request).unwrap_err().field, field);
        }
    }
}
