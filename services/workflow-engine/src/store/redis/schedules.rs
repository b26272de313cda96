//! Schedules: a sorted set by namespace and name, and hashes by the same place; the revision is a field of its own, because the
//! condition of a write must not depend on how a schedule happens to be serialized.

use async_trait::async_trait;
use muster_store::redis::{Script, Slot, cmd};

use super::keys::slots;
use super::steps::token;
use super::{Redis, decode, encode};
use crate::store::schedules::Schedules;
use crate::store::{Error, Page};
use crate::timetable::{Name, Schedule};

static PUT: Script = Script::new(include_str!("schedule_put.lua"));
static REMOVE: Script = Script::new(include_str!("schedule_remove.lua"));

const ORDER: &str = "order";
const SCHEDULES: &str = "schedules";
const REVISIONS: &str = "revisions";
const TOKENS: &str = "tokens";

impl Redis {
    pub(crate) fn timetable(&self) -> Slot {
        Slot::named(self.prefix(), slots::SCHEDULES)
    }

    async fn schedules_at(&self, places: &[String]) -> Result<Vec<Schedule>, Error> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("HMGET");
        command.arg(self.timetable().key(SCHEDULES)).arg(places);
        let texts: Vec<Option<Vec<u8>>> = self.run(&command).await?;
        let texts = texts.into_iter().flatten();
        texts.map(|text| decode("a schedule", &text)).collect()
    }
}

#[async_trait]
impl Schedules for Redis {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        let slot = self.timetable();
        let before = match schedule.revision.checked_sub(1) {
            None | Some(0) => String::new(),
            Some(before) => before.to_string(),
        };
        let call = PUT
            .call()
            .key(slot.key(ORDER))
            .key(slot.key(SCHEDULES))
            .key(slot.key(REVISIONS))
            .key(slot.key(TOKENS))
            .arg(place(&schedule.name))
            .arg(token())
            .arg(before)
            .number(schedule.revision)
            .arg(encode(schedule)?);
        self.check_size(&call)?;
        done(self.call(&call).await?, &schedule.name)
    }

    async fn remove_schedule(&self, name: &Name, revision: u64) -> Result<(), Error> {
        let slot = self.timetable();
        // Longer than the call is repeated.
        let told_for = 2 * self.connection().options().patience;
        let call = REMOVE
            .call()
            .key(slot.key(ORDER))
            .key(slot.key(SCHEDULES))
            .key(slot.key(REVISIONS))
            .key(slot.key(TOKENS))
            .key(slot.key_of("removed", &token()))
            .arg(place(name))
            .number(revision)
            .number(u64::try_from(told_for.as_millis()).unwrap_or(u64::MAX).max(1));
        done(self.call(&call).await?, name)
    }

    async fn schedule(&self, name: &Name) -> Result<Option<Schedule>, Error> {
        Ok(self.schedules_at(&[place(name)]).await?.into_iter().next())
    }

    async fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Page<Schedule, Name>, Error> {
        let start = after.map_or_else(|| "-".to_owned(), |after| format!("({}", place(after)));
        let mut command = cmd("ZRANGE");
        command.arg(self.timetable().key(ORDER)).arg(start).arg("+");
        command
            .arg("BYLEX")
            .arg("LIMIT")
            .arg(0)
            .arg(limit.saturating_add(1));
        let mut places: Vec<String> = self.run(&command).await?;
        let is_more = places.len() > limit;
        places.truncate(limit);
        let next = places
            .last()
            .filter(|_| is_more)
            .map(|last| named(last))
            .transpose()?;
        // One that was removed since the order was read is absent.
        let entries = self.schedules_at(&places).await?;
        Ok(Page { entries, next })
    }
}

fn done(done: bool, name: &Name) -> Result<(), Error> {
    if done {
        Ok(())
    } else {
        Err(Error::Conflict(format!("the schedule of {name}")))
    }
}

/// Names are DNS labels and contain no NUL.
fn place(name: &Name) -> String {
    format!("{}\0{}", name.namespace, name.name)
}

fn named(place: &str) -> Result<Name, Error> {
    let (namespace, name) = place.split_once('\0').ok_or_else(|| {
        Error::Damaged(format!(
            "no schedule is named by place '{}'",
            place.escape_debug()
        ))
    })?;
    Ok(Name {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
