//! Schedules: a keyspace of their own, with the revision as a key beside each, because the condition of a write must
//! not depend on how a schedule happens to be serialized.

use std::ops::Bound;

use async_trait::async_trait;
use muster_store::Batch;

use super::{Embedded, damaged, encode};
use crate::store::schedules::Schedules;
use crate::store::{Error, Page};
use crate::timetable::{Name, Schedule};

/// First byte of a key.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Key {
    Revision = b'r',
    Schedule = b's',
}

impl Key {
    /// Names are DNS labels and contain no NUL.
    fn of(self, name: &Name) -> Vec<u8> {
        let mut bytes = vec![self as u8];
        bytes.extend(name.namespace.as_bytes());
        bytes.push(0);
        bytes.extend(name.name.as_bytes());
        bytes
    }
}

#[async_trait]
impl Schedules for Embedded {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        let name = &schedule.name;
        let mut batch = Batch::new();
        match schedule.revision.checked_sub(1) {
            None | Some(0) => batch.expect_absent(&self.schedules, Key::Revision.of(name)),
            Some(before) => batch.expect_value(&self.schedules, Key::Revision.of(name), before.to_be_bytes()),
        }
        batch.put(
            &self.schedules,
            Key::Revision.of(name),
            schedule.revision.to_be_bytes(),
        );
        batch.put(&self.schedules, Key::Schedule.of(name), encode(schedule)?);
        self.commit(batch, &format!("the schedule of {name}")).await
    }

    async fn remove_schedule(&self, name: &Name, revision: u64) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.expect_value(&self.schedules, Key::Revision.of(name), revision.to_be_bytes());
        batch.remove(&self.schedules, Key::Revision.of(name));
        batch.remove(&self.schedules, Key::Schedule.of(name));
        self.commit(batch, &format!("the schedule of {name}")).await
    }

    async fn schedule(&self, name: &Name) -> Result<Option<Schedule>, Error> {
        let name = name.clone();
        self.read(move |store| {
            store.get(&store.schedules, Key::Schedule.of(&name), || {
                format!("the schedule of {name}")
            })
        })
        .await
    }

    async fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Page<Schedule, Name>, Error> {
        let start = match after {
            Some(name) => Bound::Excluded(Key::Schedule.of(name)),
            None => Bound::Included(vec![Key::Schedule as u8]),
        };
        self.read(move |store| {
            let end = Bound::Excluded(vec![Key::Schedule as u8 + 1]);
            let mut page = Page {
                entries: Vec::new(),
                next: None,
            };
            for entry in store.schedules.range((start, end)) {
                let (_, bytes) = entry.map_err(damaged)?;
                if page.entries.len() >= limit {
                    page.next = page.entries.last().map(|last: &Schedule| last.name.clone());
                    break;
                }
                page.entries.push(store.decode("a schedule", &bytes)?);
            }
            Ok(page)
        })
        .await
    }
}
