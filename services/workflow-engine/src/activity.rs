//! What a run does or waits for, for people who ask why it does not go on.
//!
//! A run at work is asked itself, because it knows what its calls are doing; one that waits for its turn is told by
//! its place in line; one that waits for time is folded from its journal.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::floor::{Command, Sent};
use crate::live::Live;
use crate::run::{RunId, Summary};
use crate::schedule::{Counts, Place};

/// How long a run at work may take to answer a question before the answer is given without it.
const QUESTION: Duration = Duration::from_secs(1);

impl Engine {
    /// What the run does or waits for, one line each.
    pub(crate) async fn activity(&self, summary: &Summary) -> Vec<String> {
        if summary.status.is_final() {
            return Vec::new();
        }
        let id = &summary.id;
        match self.floor.place(id) {
            // It has ended since its summary was read.
            None => Vec::new(),
            Some((Place::SetAside(why), _)) => vec![format!("is set aside: {why}")],
            Some((Place::Pending, ahead)) => {
                let Counts { running, slots, .. } = self.floor.counts();
                vec![format!(
                    "waits for a slot: {running} of {slots} are in use, {ahead} runs are ahead"
                )]
            }
            Some((Place::Active { .. }, _)) => self.ask(id).await,
            Some((Place::Parked(_) | Place::Ready, _)) => self.read_activity(id).await,
        }
    }

    /// Asks the run itself, which knows what its calls are doing.
    async fn ask(&self, id: &RunId) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        if self.floor.command_if_active(id, Command::Describe { reply }) == Sent::Delivered
            && let Ok(Ok(lines)) = tokio::time::timeout(QUESTION, answer).await
        {
            return lines;
        }
        self.read_activity(id).await
    }

    /// Folds the run from its journal to see what it waits for.
    async fn read_activity(&self, id: &RunId) -> Vec<String> {
        match Live::load(&*self.store, &self.definitions, id).await {
            Ok(Some(live)) => live.activity(self.clock.now()),
            Ok(None) => Vec::new(),
            Err(broken) => vec![format!("cannot be read: {broken}")],
        }
    }
}
