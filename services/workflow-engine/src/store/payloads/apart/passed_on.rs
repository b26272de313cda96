//! What holds no values of runs, and goes to the store as it is.

use async_trait::async_trait;
use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::usage::Usage;
use serde_json::Value;

use super::Apart;
use crate::approval::{self, Approval, ApprovalId};
use crate::store::answers::Answers;
use crate::store::approvals::Approvals;
use crate::store::events::{self, Added, EventLog, Logged, StarterState};
use crate::store::schedules::Schedules;
use crate::store::spending::Spending;
use crate::store::{Error, Page};
use crate::timetable::{Name, Schedule};

#[async_trait]
impl Answers for Apart {
    async fn answer(&self, key: &str, now: Timestamp) -> Result<Option<Value>, Error> {
        self.store.answer(key, now).await
    }

    async fn keep_answer(&self, key: &str, answer: &Value, until: Timestamp) -> Result<(), Error> {
        self.store.keep_answer(key, answer, until).await
    }

    async fn forget_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<usize, Error> {
        self.store.forget_answers(now, most, limit).await
    }
}

#[async_trait]
impl Approvals for Apart {
    async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, Error> {
        self.store.approval(id).await
    }

    async fn approvals(
        &self,
        filter: &approval::Filter,
        after: Option<&approval::Position>,
        limit: usize,
    ) -> Result<Page<Approval, approval::Position>, Error> {
        self.store.approvals(filter, after, limit).await
    }
}

#[async_trait]
impl EventLog for Apart {
    async fn add_events(
        &self,
        events: Vec<CloudEvent>,
        now: Timestamp,
        room: events::Room,
    ) -> Result<Vec<Added>, Error> {
        self.store.add_events(events, now, room).await
    }

    async fn events(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        self.store.events(from, kinds, limit).await
    }

    async fn next_position(&self) -> Result<u64, Error> {
        self.store.next_position().await
    }

    async fn forget_events(&self, time: Timestamp, limit: usize) -> Result<usize, Error> {
        self.store.forget_events(time, limit).await
    }

    async fn starter(&self, name: &str) -> Result<Option<StarterState>, Error> {
        self.store.starter(name).await
    }

    async fn keep_starter(&self, name: &str, state: Option<&StarterState>) -> Result<(), Error> {
        self.store.keep_starter(name, state).await
    }
}

#[async_trait]
impl Schedules for Apart {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        self.store.put_schedule(schedule).await
    }

    async fn remove_schedule(&self, name: &Name, revision: u64) -> Result<(), Error> {
        self.store.remove_schedule(name, revision).await
    }

    async fn schedule(&self, name: &Name) -> Result<Option<Schedule>, Error> {
        self.store.schedule(name).await
    }

    async fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Page<Schedule, Name>, Error> {
        self.store.schedules(after, limit).await
    }
}

#[async_trait]
impl Spending for Apart {
    async fn spent(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error> {
        self.store.spent(namespace, from, to).await
    }

    async fn forget_spending(&self, day: i64, limit: usize) -> Result<usize, Error> {
        self.store.forget_spending(day, limit).await
    }
}
