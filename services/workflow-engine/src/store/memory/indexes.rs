//! What is found without its run: answers, approvals, schedules, what was used.

use std::collections::btree_map::Entry;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_workflow_dsl::usage::Usage;
use serde_json::Value;

use super::Memory;
use crate::approval::{Approval, ApprovalId, Filter, Position};
use crate::store::answers::Answers;
use crate::store::approvals::Approvals;
use crate::store::schedules::Schedules;
use crate::store::spending::Spending;
use crate::store::{Error, Page};
use crate::timetable::{Name, Schedule};

#[async_trait]
impl Answers for Memory {
    async fn answer(&self, key: &str, now: Timestamp) -> Result<Option<Value>, Error> {
        Ok(self.with(|state| {
            let found = state.answers.get(key).filter(|(until, _)| *until > now);
            found.map(|(_, answer)| answer.clone())
        }))
    }

    async fn keep_answer(&self, key: &str, answer: &Value, until: Timestamp) -> Result<(), Error> {
        self.with(|state| {
            state.answers.insert(key.to_owned(), (until, answer.clone()));
            state.ends.insert((until, key.to_owned()));
        });
        Ok(())
    }

    async fn forget_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<usize, Error> {
        Ok(self.with(|state| {
            let mut forgotten = 0;
            while forgotten < limit {
                let surplus = state.ends.len() > most;
                let Some((end, key)) = state.ends.pop_first() else {
                    break;
                };
                if end > now && !surplus {
                    state.ends.insert((end, key));
                    break;
                }
                // One that was replaced stands on.
                if state.answers.get(&key).is_some_and(|(until, _)| *until <= end) {
                    state.answers.remove(&key);
                }
                forgotten += 1;
            }
            forgotten
        }))
    }
}

#[async_trait]
impl Approvals for Memory {
    async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, Error> {
        let key = (id.run.clone(), id.number);
        Ok(self.with(|state| state.approvals.get(&key).cloned()))
    }

    async fn approvals(
        &self,
        filter: &Filter,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Approval, Position>, Error> {
        Ok(self.with(|state| {
            let admitted = state
                .approvals
                .values()
                .filter(|approval| filter.admits(approval));
            let mut all: Vec<&Approval> = admitted.collect();
            all.sort_by_key(|approval| approval.position());
            let is_rest = |position: &Position| {
                after.is_none_or(|after| {
                    if filter.open_only() {
                        position > after
                    } else {
                        position < after
                    }
                })
            };
            if !filter.open_only() {
                all.reverse();
            }
            let rest: Vec<&Approval> = all
                .into_iter()
                .filter(|approval| is_rest(&approval.position()))
                .take(limit + 1)
                .collect();
            let entries: Vec<Approval> = rest
                .iter()
                .take(limit)
                .map(|approval| (*approval).clone())
                .collect();
            let next = entries.last().filter(|_| rest.len() > limit);
            let next = next.map(Approval::position);
            Page { entries, next }
        }))
    }
}

#[async_trait]
impl Schedules for Memory {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        self.with(|state| {
            let conflict = || Error::Conflict(format!("the schedule of {}", schedule.name));
            let before = schedule.revision.saturating_sub(1);
            match state.schedules.entry(schedule.name.clone()) {
                Entry::Vacant(place) if before == 0 => {
                    place.insert(schedule.clone());
                }
                Entry::Occupied(mut place) if before > 0 && place.get().revision == before => {
                    place.insert(schedule.clone());
                }
                _ => return Err(conflict()),
            }
            Ok(())
        })
    }

    async fn remove_schedule(&self, name: &Name, revision: u64) -> Result<(), Error> {
        self.with(|state| {
            let known = state.schedules.get(name);
            if known.is_none_or(|known| known.revision != revision) {
                return Err(Error::Conflict(format!("the schedule of {name}")));
            }
            state.schedules.remove(name);
            Ok(())
        })
    }

    async fn schedule(&self, name: &Name) -> Result<Option<Schedule>, Error> {
        Ok(self.with(|state| state.schedules.get(name).cloned()))
    }

    async fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Page<Schedule, Name>, Error> {
        Ok(self.with(|state| {
            let all = state.schedules.values();
            let rest = all.filter(|schedule| after.is_none_or(|after| schedule.name > *after));
            let mut entries: Vec<Schedule> = rest.take(limit + 1).cloned().collect();
            let more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().filter(|_| more).map(|last| last.name.clone());
            Page { entries, next }
        }))
    }
}

#[async_trait]
impl Spending for Memory {
    async fn spent(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error> {
        Ok(self.with(|state| {
            let all = state.spending.iter();
            let those = all.filter(|((day, of, _), _)| (from..=to).contains(day) && of == namespace);
            those.map(|(_, usage)| *usage).sum()
        }))
    }

    async fn forget_spending(&self, day: i64, limit: usize) -> Result<usize, Error> {
        Ok(self.with(|state| {
            let mut forgotten = 0;
            while forgotten < limit
                && let Some(first) = state.spending.first_entry()
                && first.key().0 < day
            {
                first.remove();
                forgotten += 1;
            }
            forgotten
        }))
    }
}
