//! Why a run does not go on: everything it does or waits for, each as a [`Blocker`].
//!
//! A run at work is asked itself, because it knows what its calls are doing; one that waits for its turn is told by
//! its place in line; one that waits for time is folded from its journal.

use std::time::Duration;

use muster_workflow_dsl::run::{Blocker, BlockerKind};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::error::Error;
use crate::floor::{Command, Sent};
use crate::live::{Broken, Live};
use crate::run::{RunId, Status, Summary};
use crate::schedule::{Hindrance, Place};
use crate::store;

/// How long a run at work may take to answer a question before the answer is given without it.
const QUESTION: Duration = Duration::from_secs(1);

/// What is said of a child that is not there.
const NOT_STARTED: &str = "which is not started yet: while the line of runs is full, it is tried again";

impl Engine {
    /// Everything that the run does or waits for; for one that has ended, how it ended.
    ///
    /// # Errors
    /// There is no such run.
    pub async fn explain(&self, id: &RunId) -> Result<Vec<Blocker>, Error> {
        let summary = self.summary(id).await?;
        let blockers = self.blockers(&summary).await;
        if !blockers.is_empty() {
            return Ok(blockers);
        }
        // It may have ended, or begun, since its summary was read.
        let summary = self.summary(id).await?;
        Ok(match summary.status.is_final() {
            true => vec![ended(&summary)],
            false => self.blockers(&summary).await,
        })
    }

    /// What the run does or waits for, one sentence each.
    pub(crate) async fn activity(&self, summary: &Summary) -> Vec<String> {
        let blockers = self.blockers(summary).await.into_iter();
        blockers.map(|blocker| blocker.message).collect()
    }

    /// The same of one that was accepted a moment ago; nobody is asked.
    pub(crate) fn activity_of_new(&self, id: &RunId) -> Vec<String> {
        let hindrance = match self.floor.place(id) {
            Some((Place::Pending, hindrance)) => hindrance,
            _ => None,
        };
        vec![queued(hindrance).message]
    }

    async fn blockers(&self, summary: &Summary) -> Vec<Blocker> {
        if summary.status.is_final() {
            return Vec::new();
        }
        let id = &summary.id;
        if self.placement.check(id).is_err() {
            let message =
                "is about to go on: no engine works on it at this moment, and another takes it over";
            return vec![Blocker::new(BlockerKind::OwnerLost, message)];
        }
        match self.floor.place(id) {
            // It has ended since its summary was read.
            None => Vec::new(),
            Some((Place::SetAside(why), _)) => vec![set_aside(&why)],
            Some((Place::Pending, hindrance)) => vec![Blocker {
                since: Some(summary.created_at),
                ..queued(hindrance)
            }],
            Some((Place::Active { .. }, _)) => self.with_children(id, self.ask(id).await).await,
            Some((Place::Ready, hindrance)) => {
                self.with_children(id, self.in_line(id, hindrance).await).await
            }
            Some((Place::Parked(_), _)) if self.waits_for_others(summary) => vec![elsewhere(summary)],
            Some((Place::Parked(_), _)) => self.with_children(id, self.read_blockers(id).await).await,
        }
    }

    /// Whether the run has not begun because runs of its groups are under way in other engines.
    fn waits_for_others(&self, summary: &Summary) -> bool {
        let is_shared = self.placement.replicas().is_some();
        is_shared && summary.status == Status::Pending && !summary.claim.limits.is_empty()
    }

    /// Adds where the runs stand that a run waits for.
    async fn with_children(&self, parent: &RunId, mut blockers: Vec<Blocker>) -> Vec<Blocker> {
        for blocker in &mut blockers {
            if blocker.kind != BlockerKind::ChildRun {
                continue;
            }
            let child: Option<RunId> = blocker
                .details
                .get("run")
                .and_then(|id| id.as_str()?.parse().ok());
            let Some(child) = child else { continue };
            let id = self.placement.beside(parent, child);
            blocker.details.insert("run".to_owned(), id.as_str().into());
            let (status, told) = match (self.store.summary(&id).await, self.floor.place(&id)) {
                (_, Some((Place::SetAside(why), _))) => ("set-aside", format!("which is set aside: {why}")),
                (Ok(Some(child)), _) => (child.status.name(), format!("which is {}", child.status.name())),
                (Ok(None), _) => ("absent", NOT_STARTED.to_owned()),
                (Err(_), _) => continue,
            };
            blocker.message.push_str(&format!("; {told}"));
            blocker.details.insert("status".to_owned(), status.into());
        }
        blockers
    }

    /// Asks the run itself, which knows what its calls are doing.
    async fn ask(&self, id: &RunId) -> Vec<Blocker> {
        let (reply, answer) = oneshot::channel();
        if self.floor.command_if_active(id, Command::Describe { reply }) == Sent::Delivered
            && let Ok(Ok(blockers)) = tokio::time::timeout(QUESTION, answer).await
        {
            return blockers;
        }
        self.read_blockers(id).await
    }

    /// What a run waits for that is due again: its turn, and what else has not come. Times that have come do not hold it
    /// up any more, and none of its calls is made before it has its turn.
    async fn in_line(&self, id: &RunId, hindrance: Option<Hindrance>) -> Vec<Blocker> {
        let (now, mut blockers) = (self.clock.now(), self.read_blockers(id).await);
        let is_due = |blocker: &Blocker| match blocker.kind {
            BlockerKind::Timer | BlockerKind::Retry => blocker.until.is_some_and(|until| until <= now),
            _ => false,
        };
        let due = blockers.iter().filter(|blocker| is_due(blocker));
        let turn = match hindrance {
            None => Blocker::new(BlockerKind::Queued, "is about to go on"),
            hindrance => Blocker {
                since: due.filter_map(|blocker| blocker.until).min(),
                ..queued(hindrance)
            },
        };
        let is_call = |kind| matches!(kind, BlockerKind::Call | BlockerKind::Process);
        blockers.retain(|blocker| !is_due(blocker) && !is_call(blocker.kind));
        blockers.insert(0, turn);
        blockers
    }

    /// Folds the run from its journal to see what it waits for.
    async fn read_blockers(&self, id: &RunId) -> Vec<Blocker> {
        match Live::load(&*self.store, &self.definitions, id).await {
            Ok(Some(live)) => live.waiting(self.clock.now()),
            Ok(None) => Vec::new(),
            // The store may be well again in a moment.
            Err(Broken::Store(error @ store::Error::Unavailable(_))) => {
                let why = error.to_string();
                let blocker = Blocker::new(BlockerKind::SetAside, format!("cannot be read: {why}"));
                vec![blocker.with("reason", why)]
            }
            // Whoever goes on with it finds the same.
            Err(broken) => vec![set_aside(&broken.to_string())],
        }
    }
}

fn set_aside(why: &str) -> Blocker {
    Blocker::new(BlockerKind::SetAside, format!("is set aside: {why}")).with("reason", why)
}

/// Behind which limit a run waits that has not begun, and at which place.
fn queued(hindrance: Option<Hindrance>) -> Blocker {
    let blocker = |message: String| Blocker::new(BlockerKind::Queued, message);
    match hindrance {
        // Between two looks it has begun.
        None => blocker("is about to begin".to_owned()),
        Some(Hindrance::Slots {
            held,
            slots,
            kept,
            ahead,
        }) => blocker(format!(
            "waits for a slot: {held} of {slots} are in use{}, {ahead} runs are ahead",
            match kept {
                0 => String::new(),
                kept => format!(", the last {kept} are kept for namespaces that hold less than half of their share"),
            }
        ))
        .with("limit", "engine.max_concurrent_workflows")
        .with("used", held)
        .with("most", slots)
        .with("ahead", ahead),
        Some(Hindrance::Namespace {
            namespace,
            most,
            ahead,
        }) => blocker(format!(
            "waits for a slot of namespace '{namespace}': all {most} that it may have are in use, {ahead} runs are ahead"
        ))
        .with(
            "limit",
            format!("engine.namespaces.{namespace}.max_concurrent_workflows"),
        )
        .with("used", most)
        .with("most", most)
        .with("ahead", ahead),
        Some(Hindrance::Group { limit, used, ahead }) => blocker(format!(
            "waits for its turn in '{}': {used} of {} runs are under way, {ahead} are ahead",
            limit.group, limit.most
        ))
        .with("limit", "document.metadata.muster.concurrency")
        .with("group", &*limit.group)
        .with("used", used)
        .with("most", limit.most)
        .with("ahead", ahead),
    }
}

/// Behind which limits a run waits of which runs of other engines use up one.
fn elsewhere(summary: &Summary) -> Blocker {
    let limits = summary.claim.limits.iter();
    let limits: Vec<String> = limits
        .map(|limit| format!("'{}' (at most {})", limit.group, limit.most))
        .collect();
    let message = format!(
        "waits for its turn in {}: runs of other engines are under way",
        limits.join(" and ")
    );
    Blocker {
        since: Some(summary.created_at),
        ..Blocker::new(BlockerKind::Queued, message).with("limit", "document.metadata.muster.concurrency")
    }
}

fn ended(summary: &Summary) -> Blocker {
    let mut message = format!("has ended: {}", summary.status.name());
    if let (Status::Faulted, Some(failure)) = (summary.status, &summary.failure) {
        message.push_str(&format!(", {} {}", failure.title, failure.detail));
    }
    Blocker {
        since: summary.ended_at,
        ..Blocker::new(BlockerKind::Ended, message).with("status", summary.status.name())
    }
}
