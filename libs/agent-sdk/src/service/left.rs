//! Work that processes have left which have ended.

use std::collections::VecDeque;
use std::sync::Arc;

use a2a_pb::pbconv;
use a2a_pb::proto as pb;
use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::execution::Work;
use crate::tasks::record::Record;
use crate::tasks::whose::conversation;
use crate::tasks::{Left, MOST_ATTEMPTS};
use crate::{Agent, Failure};

impl<A: Agent> Desk<A> {
    /// Goes on with what processes left at work that have ended: again where that does no harm, as failed where it might. What
    /// fails does so at once; what is worked on again waits for a place.
    pub(crate) async fn take_up(self: Arc<Self>, mut left: Left) {
        let mut again = VecDeque::new();
        let mut is_open = true;
        while is_open || !again.is_empty() {
            tokio::select! {
                record = left.recv(), if is_open => match record {
                    None => is_open = false,
                    Some(record) => again.extend(self.begin_again(record).await),
                },
                run = self.executor.running.wait(), if !again.is_empty() => {
                    let Some(run) = run else { return };
                    if let Some(work) = again.pop_front() {
                        self.executor.start(work, run);
                    }
                }
            }
        }
    }

    /// Work that is to be done again; `None` where it is not, because it has failed or is another's.
    async fn begin_again(&self, record: Record) -> Option<Work> {
        let task = record.task?;
        let message = task.history.last().cloned()?;
        let errand = record.errand.unwrap_or_default();
        let read = crate::Request::read(
            pbconv::from_proto_message(&message),
            errand.metadata.as_ref().map(pbconv::from_proto_struct),
            &errand,
            &self.executor.card,
        );
        let skill = read.ok().and_then(|request| request.skill);
        let is_repeatable = skill.is_some_and(|skill| self.executor.card.is_idempotent(&skill));
        let cancellation = CancellationToken::new();
        self.executor.tasks.revive(&task.id, cancellation.clone()).await?;
        if !is_repeatable || errand.attempts >= MOST_ATTEMPTS {
            self.fail(&task, errand.attempts).await;
            return None;
        }
        tracing::info!(task_id = task.id, "working again on what an earlier process left");
        let mut earlier = task.history.clone();
        earlier.pop();
        Some(Work {
            conversation: conversation(&record.caller, &task.context_id),
            task_id: task.id,
            context_id: task.context_id,
            earlier,
            message,
            errand,
            cancellation,
            is_follow_up: false,
        })
    }

    async fn fail(&self, task: &pb::Task, attempts: u32) {
        let executor = &self.executor;
        let mut events = executor.events(&task.id, &task.context_id);
        let why = if attempts >= MOST_ATTEMPTS {
            format!(
                "the agent ended {attempts} times while it worked on the task; send it again if that was not its fault"
            )
        } else {
            "the agent ended while it worked on the task, which may have had effects; see what it did, and send it again"
                .to_owned()
        };
        let closing = events.closing(Err(Failure::failed(why)));
        executor.tasks.settle(&task.id, closing).await;
    }
}
