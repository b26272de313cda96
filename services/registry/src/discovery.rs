//! Finding instances: what is asked, and the choice among candidates. Pure.
//!
//! The order is total (what is asked for, then a second measure, then the instance's id, then the agent's), so that the same
//! question about the same instances has one answer on every replica, and a page has a place at which it ends ([`Rank`]).
//!
//! Reliability is what instances report of themselves: tasks that they completed and that failed since they started. It is
//! the expected share of successes by the rule of succession, (completed + 1) / (ended + 2), so that one success out of one
//! is not better than 999 out of 1,000, and who has done nothing yet stands between the good and the bad.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_api::registry;
use uuid::Uuid;

use crate::catalogue::Term;
use crate::instance::{Card, Error, Instance, Profile, Report, Status, card, wire};
use crate::page;
use crate::reach::Reach;

/// Load up to which instances are found when nothing is said.
const DEFAULT_MAX_LOAD: f64 = 0.8;
/// Most skills in one question.
const MAX_SKILLS: usize = 32;
/// Most tags in one question.
const MAX_TAGS: usize = 32;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;
/// Longest text that is searched for, in bytes.
const MAX_TEXT: usize = 256;

/// What decides who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Least loaded first.
    Load,
    /// Fastest first; who has not answered anything yet comes last.
    Latency,
    /// Most reliable first; see the module.
    Reliability,
    /// Cheapest first; whose card states no cost comes last.
    Cost,
}

impl Sort {
    /// Every order.
    pub const ALL: [Self; 4] = [Self::Load, Self::Latency, Self::Reliability, Self::Cost];

    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Latency => "latency",
            Self::Reliability => "reliability",
            Self::Cost => "cost",
        }
    }
}

/// The numbers that instances are sorted by; the smaller the better. Numbers that are not negative have the order of their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measures {
    /// How loaded it is.
    pub load: u64,
    /// Its mean latency in nanoseconds; the largest number while there is none.
    pub latency: u64,
    /// How unreliable it is; see the module.
    pub reliability: u64,
    /// What a call costs; the largest number where the card does not say.
    pub cost: u64,
}

impl Measures {
    /// Those of an instance.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        let report = &instance.report;
        Self {
            load: Self::load(report),
            latency: Self::latency(report),
            reliability: Self::reliability(report),
            cost: instance.profile.card.cost().map_or(u64::MAX, bits),
        }
    }

    /// How loaded an instance is that says this.
    #[must_use]
    pub const fn load(report: &Report) -> u64 {
        bits(report.load.get())
    }

    /// How slow it is.
    #[must_use]
    pub fn latency(report: &Report) -> u64 {
        report.mean_latency.map_or(u64::MAX, nanoseconds)
    }

    /// How unreliable it is.
    #[must_use]
    pub fn reliability(report: &Report) -> u64 {
        u64::MAX - bits(reliability(report))
    }

    /// What an order is by, and what decides between equals.
    const fn by(&self, sort: Sort) -> (u64, u64) {
        match sort {
            Sort::Load => (self.load, self.latency),
            Sort::Latency => (self.latency, self.load),
            Sort::Reliability => (self.reliability, self.load),
            Sort::Cost => (self.cost, self.load),
        }
    }
}

/// An instance's place in an order of its namespace; the smallest is the best.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What the order is by.
    pub first: u64,
    /// What decides between equals.
    pub second: u64,
    /// What decides then. A number, because of thousands of idle instances nothing else may be different.
    pub instance_id: Uuid,
    /// What decides at last, where agents have chosen the same id for their instances.
    pub agent_id: Arc<str>,
}

impl Rank {
    /// The place of an instance.
    #[must_use]
    pub fn of(sort: Sort, instance: &Instance) -> Self {
        let (first, second) = Measures::of(instance).by(sort);
        let key = instance.key();
        Self {
            first,
            second,
            instance_id: key.instance_id,
            agent_id: Arc::clone(&key.agent_id),
        }
    }
}

/// The expected share of successes.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
pub fn reliability(report: &Report) -> f64 {
    (report.succeeded as f64 + 1.0) / (report.succeeded as f64 + report.failed as f64 + 2.0)
}

const fn bits(number: f64) -> u64 {
    (number + 0.0).to_bits()
}

fn nanoseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX - 1)
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Which agents there are for whoever asks.
    pub reach: Reach,
    /// Whose agents.
    pub namespace: Arc<str>,
    /// Skills that an instance must have, all of them; none is no filter.
    pub skills: BTreeSet<String>,
    /// Tags that its skills must have, all of them, in lower case.
    pub tags: BTreeSet<String>,
    /// Words that its card must have, all of them, in lower case.
    pub words: BTreeSet<String>,
    /// The region that it must be in.
    pub region: Option<String>,
    /// Statuses that are accepted.
    pub statuses: BTreeSet<Status>,
    /// Highest load that is accepted of a live instance.
    pub max_load: f64,
    /// Who comes first.
    pub sort: Sort,
    /// The place after which the answer begins.
    pub after: Option<Rank>,
    /// How many at most.
    pub limit: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Best first.
    pub instances: Vec<Instance>,
    /// Whether there are more behind the last.
    pub more: bool,
    /// Skills spelt like a wanted one that nobody has; only when nothing was found.
    pub nearest_skills: Vec<String>,
}

impl Query {
    /// Everything that a card must have.
    #[must_use]
    pub fn terms(&self) -> Vec<Term> {
        let skills = self.skills.iter().cloned().map(Term::Skill);
        let tags = self.tags.iter().cloned().map(Term::Tag);
        let words = self.words.iter().cloned().map(Term::Word);
        skills.chain(tags).chain(words).collect()
    }

    /// Whether what the question wants of a card is on it.
    #[must_use]
    pub fn wants(&self, card: &Card) -> bool {
        self.skills.is_subset(card.skills())
            && self.tags.is_subset(card.tags())
            && (self.words.is_empty() || self.words.is_subset(&card.words()))
    }

    /// Whether an instance is what is wanted, but for its card.
    #[must_use]
    pub fn fits(&self, instance: &Instance) -> bool {
        let report = &instance.report;
        let is_loaded = report.status != Status::Offline && report.load.get() > self.max_load;
        self.statuses.contains(&report.status) && !is_loaded && self.admits(&instance.profile)
    }

    /// Whether what an instance has said once is what is wanted, but for its card: what does not change with heartbeats. And whether
    /// there is such an instance at all for whoever asks, so that no way of searching forgets to look.
    #[must_use]
    pub fn admits(&self, profile: &Profile) -> bool {
        let region = self.region.as_ref();
        region.is_none_or(|region| *region == profile.region) && self.reach.sees_instance(&profile.key)
    }
}

impl TryFrom<registry::DiscoverRequest> for Query {
    type Error = Error;

    /// Reads everything but who asks and the page's token, whose form is the list's own.
    fn try_from(request: registry::DiscoverRequest) -> Result<Self, Error> {
        if request.skills.len() > MAX_SKILLS {
            let count = request.skills.len();
            return Err(Error::new(
                "skills",
                format!("{count} skills are wanted; ask for at most {MAX_SKILLS}"),
            ));
        }
        let skills = request.skills.iter().enumerate();
        let statuses = statuses(&request.statuses)?;
        Ok(Self {
            reach: Reach::All,
            namespace: wire::namespace("namespace", &request.namespace)?,
            skills: skills
                .map(|(index, skill)| wire::skill_id(&format!("skills[{index}]"), skill))
                .collect::<Result<_, _>>()?,
            tags: tags(&request.tags)?,
            words: words(&request.text)?,
            region: Some(wire::label("region", request.region)?).filter(|region| !region.is_empty()),
            statuses: if statuses.is_empty() {
                [Status::Active].into()
            } else {
                statuses
            },
            max_load: wire::load("max_load", request.max_load.unwrap_or(DEFAULT_MAX_LOAD))?.get(),
            sort: match registry::SortOrder::try_from(request.sort) {
                Ok(registry::SortOrder::Unspecified | registry::SortOrder::Load) => Sort::Load,
                Ok(registry::SortOrder::Latency) => Sort::Latency,
                Ok(registry::SortOrder::Reliability) => Sort::Reliability,
                Ok(registry::SortOrder::Cost) => Sort::Cost,
                Err(_) => {
                    let message = format!(
                        "{} is no order; use load (1), latency (2), reliability (3) or cost (4)",
                        request.sort
                    );
                    return Err(Error::new("sort", message));
                }
            },
            after: None,
            limit: page::size(request.page_size),
        })
    }
}

/// Reads the statuses that are asked for.
pub fn statuses(given: &[i32]) -> Result<BTreeSet<Status>, Error> {
    let statuses = given.iter().enumerate();
    statuses
        .map(|(index, status)| wire::any_status(&format!("statuses[{index}]"), *status))
        .collect()
}

fn tags(given: &[String]) -> Result<BTreeSet<String>, Error> {
    if given.len() > MAX_TAGS {
        let count = given.len();
        return Err(Error::new(
            "tags",
            format!("{count} tags are wanted; ask for at most {MAX_TAGS}"),
        ));
    }
    let tags = given.iter().enumerate().map(|(index, tag)| {
        let tag = card::folded(tag);
        if tag.is_empty() || tag.len() > MAX_TAG {
            let message = format!("has {} bytes; use 1 to {MAX_TAG}", tag.len());
            return Err(Error::new(format!("tags[{index}]"), message));
        }
        Ok(tag)
    });
    tags.collect()
}

fn words(text: &str) -> Result<BTreeSet<String>, Error> {
    if text.len() > MAX_TEXT {
        let message = format!("has {} bytes; search for at most {MAX_TEXT}", text.len());
        return Err(Error::new("text", message));
    }
    let words: BTreeSet<String> = card::words(text).collect();
    if words.is_empty() && !text.trim().is_empty() {
        return Err(Error::new(
            "text",
            "has no word; search for letters or digits, or leave it empty",
        ));
    }
    Ok(words)
}

/// Of the candidates those that fit and come after the question's place, best first: one more than is asked for, where
/// there are more. What is wanted of cards is the caller's part, who has an index for it.
#[must_use]
pub fn select<'a>(candidates: impl Iterator<Item = &'a Instance>, query: &Query) -> Vec<Instance> {
    let fitting = candidates.filter(|instance| query.fits(instance));
    let ranked = fitting.map(|instance| (Rank::of(query.sort, instance), instance));
    let mut ranked: Vec<_> = ranked
        .filter(|(rank, _)| query.after.as_ref().is_none_or(|after| rank > after))
        .collect();
    let most = query.limit.saturating_add(1);
    if most < ranked.len() {
        ranked.select_nth_unstable_by(most, |(a, _), (b, _)| a.cmp(b));
        ranked.truncate(most);
    }
    ranked.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().map(|(_, instance)| instance.clone()).collect()
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
            ("sort", registry::DiscoverRequest { sort: 9, ..ask() }),
            (
                "tags[0]",
                registry::DiscoverRequest {
                    tags: vec![" ".into()],
                    ..ask()
                },
            ),
            (
                "text",
                registry::DiscoverRequest {
                    text: "?!".into(),
                    ..ask()
                },
            ),
            (
                "region",
                registry::DiscoverRequest {
                    region: "a\nb".into(),
                    ..ask()
                },
            ),
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
