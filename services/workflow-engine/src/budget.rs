//! Budgets of namespaces: what their runs have used in the current day or month.
//!
//! The store keeps what each run used on each day, written in the step that records it. Here is the sum of the current period,
//! in memory, for the namespaces that have a budget; it is read from the store at the start and follows what is written.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::Offset;
use muster_workflow_dsl::journal::Breach;
use muster_workflow_dsl::run::spending::{Exhausted, OPERATORS};
use muster_workflow_dsl::usage::Usage;
use parking_lot::Mutex;

use crate::config::{Budget, Engine, Period};
use crate::store::{self, Store};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    budgets: HashMap<String, Budget>,
    /// By namespace: the first day of the period, and what was used in it.
    used: Mutex<HashMap<String, (i64, Usage)>>,
}

impl Budgets {
    pub(crate) fn new(settings: &Engine) -> Self {
        let budgets = settings.namespaces.iter().filter_map(|(name, namespace)| {
            let budget = namespace.budget.clone()?;
            Some((name.clone(), budget))
        });
        Self {
            budgets: budgets.collect(),
            used: Mutex::default(),
        }
    }

    /// Reads what was used before the start.
    pub(crate) async fn recover(&self, store: &dyn Store, now: Timestamp) -> Result<(), store::Error> {
        let today = day(now);
        for (namespace, budget) in &self.budgets {
            let first = first_day(budget.per, today);
            let used = store.spent(namespace, first, today).await?;
            self.used.lock().insert(namespace.clone(), (first, used));
        }
        Ok(())
    }

    /// Takes in what was written.
    pub(crate) fn add(&self, namespace: &str, day: i64, usage: Usage) {
        let Some(budget) = self.budgets.get(namespace) else {
            return;
        };
        let first = first_day(budget.per, day);
        let mut used = self.used.lock();
        let (known, sum) = used
            .entry(namespace.to_owned())
            .or_insert((first, Usage::default()));
        if first > *known {
            (*known, *sum) = (first, Usage::default());
        }
        if first == *known {
            *sum += usage;
        }
    }

    /// By how much the namespace has used its budget up, if it has; `more` is reported and not written yet.
    pub(crate) fn exhausted(&self, namespace: &str, now: Timestamp, more: Usage) -> Option<Exhausted> {
        let budget = self.budgets.get(namespace)?;
        let first = first_day(budget.per, day(now));
        let used = self.used.lock().get(namespace).copied();
        let used = used.filter(|(known, _)| *known == first);
        let spent = used.map_or(more, |(_, used)| used + more);
        let limits = budget.limits();
        limits.reached_by(spent).then(|| Exhausted {
            breach: Breach {
                namespace: Some(namespace.to_owned()),
                spent,
                limits,
                renews: next(budget.per, first),
            },
            assignees: if budget.assignees.is_empty() {
                vec![OPERATORS.to_owned()]
            } else {
                budget.assignees.clone()
            },
        })
    }
}

fn day(time: Timestamp) -> i64 {
    time.as_second().div_euclid(DAY)
}

/// The first day of the period that this day is in.
fn first_day(per: Period, day: i64) -> i64 {
    match per {
        Period::Day => day,
        Period::Month => {
            let time = Timestamp::from_second(day.saturating_mul(DAY)).unwrap_or(Timestamp::MAX);
            day - i64::from(Offset::UTC.to_datetime(time).day() - 1)
        }
    }
}

/// When the period after that with this first day begins.
fn next(per: Period, first: i64) -> Option<Timestamp> {
    let days = match per {
        Period::Day => 1,
        Period::Month => {
            let time = Timestamp::from_second(first.saturating_mul(DAY)).ok()?;
            i64::from(Offset::UTC.to_datetime(time).date().days_in_month())
        }
    };
    Timestamp::from_second(first.saturating_add(days).saturating_mul(DAY)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespace;

    fn budgets(per: Period) -> Budgets {
        let mut settings = Engine::default();
        let namespace = Namespace {
            budget: Some(Budget {
                tokens: 10,
                per,
                ..Budget::default()
            }),
            ..Namespace::default()
        };
        settings.namespaces.insert("a".to_owned(), namespace);
        Budgets::new(&settings)
    }

    fn tokens(tokens: u64) -> Usage {
        Usage {
            tokens,
            cost_micros: 0,
        }
    }

    #[test]
    fn a_budget_is_of_its_period_and_namespace() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (late, next) = (time("2026-01-31T23:00:00Z"), time("2026-02-01T00:00:00Z"));
        for per in [Period::Day, Period::Month] {
            let budgets = budgets(per);
            budgets.add("a", day(late), tokens(9));
            budgets.add("b", day(late), tokens(100));
            assert_eq!(budgets.exhausted("a", late, tokens(0)), None);
            assert!(
                budgets.exhausted("a", late, tokens(1)).is_some(),
                "with what is on its way"
            );
            budgets.add("a", day(late), tokens(1));
            let exhausted = budgets.exhausted("a", late, tokens(0)).unwrap();
            assert_eq!(
                (exhausted.breach.spent, exhausted.assignees[0].as_str()),
                (tokens(10), OPERATORS)
            );
            assert_eq!(exhausted.breach.renews, Some(next));
            assert_eq!(budgets.exhausted("b", late, tokens(0)), None, "it has none");
            assert_eq!(budgets.exhausted("a", next, tokens(0)), None, "a new {per:?}");
            budgets.add("a", day(next), tokens(1));
            budgets.add("a", day(late), tokens(100));
            assert_eq!(
                budgets.exhausted("a", next, tokens(0)),
                None,
                "what comes late is of the last {per:?}"
            );
        }
        let month = budgets(Period::Month);
        month.add("a", day(time("2026-01-01T00:00:00Z")), tokens(10));
        assert!(month.exhausted("a", late, tokens(0)).is_some());
    }
}
