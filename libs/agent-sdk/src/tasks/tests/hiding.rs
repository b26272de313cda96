//! What has come to an end and is not durable yet, before a store that writes when it is told to.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, poll};
use muster_runtime::clock::SystemClock;
use muster_runtime::metrics::Metrics;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::store::{Draft, Outcome, Store, Stored};
use super::super::{Journal, Tasks, Until};
use super::*;
use crate::metrics::{DEFINITIONS, Meters};
use crate::push::Pushes;
use crate::running::Running;
use crate::sent::Window;

/// A disk that is slow: each round of writes waits until it is let through.
struct Slow {
    let_through: Semaphore,
    states: Mutex<Vec<TaskState>>,
}

#[async_trait]
impl Store for Slow {
    async fn write(&self, drafts: Vec<Draft>) -> Vec<Result<Outcome, Error>> {
        self.let_through.acquire().await.unwrap().forget();
        let records = drafts
            .iter()
            .filter_map(|draft| draft.keep.as_ref()?.record.as_deref());
        let states = records.map(|record| Record::decode(record).unwrap().state());
        self.states.lock().extend(states);
        drafts.iter().map(|_| Ok(Outcome::Done)).collect()
    }

    async fn read(&self, _id: &str) -> Result<Option<Stored>, Error> {
        Ok(None)
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn recovers(&self) -> bool {
        false
    }
}

struct Scene {
    tasks: Tasks,
    disk: Arc<Slow>,
    _writer: JoinSet<()>,
}

impl Scene {
    /// With a task `t` at work, of which a caller knows.
    async fn with_task() -> Self {
        let disk = Arc::new(Slow {
            let_through: Semaphore::new(1),
            states: Mutex::default(),
        });
        let clock = Arc::new(SystemClock::default());
        let running = Running::new("puppet", 1, clock.clone());
        let meters = Meters::new(Metrics::new(DEFINITIONS).unwrap(), clock.clone(), running);
        let table = Arc::new(Mutex::new(table(10)));
        let (journal, writer) = Journal::new(Arc::clone(&disk) as Arc<dyn Store>, Arc::clone(&table));
        let mut running = JoinSet::new();
        running.spawn(writer.run());
        let tasks = Tasks {
            table,
            journal,
            pushes: Pushes::new(None, meters),
            clock,
            told: Arc::default(),
            sent: Window::default(),
            closing: CancellationToken::new(),
            shared: None,
        };
        let record = Record::new(task("t", TaskState::Working, 1), Errand::default(), "ada");
        tasks
            .create(record, CancellationToken::new(), true)
            .await
            .unwrap();
        Self {
            tasks,
            disk,
            _writer: running,
        }
    }

    async fn state(&self) -> TaskState {
        let record = self.tasks.find("t").await.unwrap().unwrap();
        record.task.unwrap().status.unwrap().state()
    }

    async fn answer(&self) -> Result<super::super::Resumed, tonic::Status> {
        let status = status(TaskState::Working, 3);
        let message = message("Seattle");
        self.tasks
            .resume("t", &message, Errand::default(), status, CancellationToken::new())
            .await
    }
}

#[tokio::test]
async fn an_end_is_seen_when_it_is_durable_and_not_before() {
    let scene = Scene::with_task().await;
    let tasks = &scene.tasks;
    let mut settling = Box::pin(tasks.settle("t", vec![update("t", TaskState::Completed, 2)]));
    assert!(poll!(&mut settling).is_pending());
    let all = pb::ListTasksRequest::default();
    let (mut reading, mut listing) = (Box::pin(scene.state()), Box::pin(tasks.list(&all, Whose::All)));
    let mut cancelling = Box::pin(tasks.cancel("t", |_| update("t", TaskState::Canceled, 3)));
    let mut following = Box::pin(tasks.follow("t", Until::Ended));
    // Whoever asks now would hear of it.
    assert!(poll!(&mut reading).is_pending() && poll!(&mut listing).is_pending());
    assert!(poll!(&mut cancelling).is_pending() && poll!(&mut following).is_pending());
    assert!(
        scene
            .disk
            .states
            .lock()
            .iter()
            .all(|state| *state == TaskState::Working)
    );

    scene.disk.let_through.add_permits(1);
    assert!(settling.await);
    assert_eq!(scene.disk.states.lock().last(), Some(&TaskState::Completed));
    assert_eq!(reading.await, TaskState::Completed);
    let page = listing.await.unwrap();
    assert_eq!(
        page.tasks[0].status.as_ref().unwrap().state(),
        TaskState::Completed
    );
    let refused = cancelling.await.unwrap_err();
    assert_eq!(
        ProtocolError::of(&refused),
        Some(ProtocolError::TaskNotCancelable)
    );
    assert!(following.await.is_err());
}

#[tokio::test]
async fn an_answer_waits_until_the_question_is_told() {
    let scene = Scene::with_task().await;
    let tasks = &scene.tasks;
    let mut events = tasks.follow("t", Until::Ended).await.unwrap();
    events.next().await.unwrap().unwrap();
    let mut settling = Box::pin(tasks.settle("t", vec![update("t", TaskState::InputRequired, 2)]));
    assert!(poll!(&mut settling).is_pending());
    let mut answering = Box::pin(scene.answer());
    assert!(poll!(&mut answering).is_pending());
    assert!(events.next().now_or_never().is_none(), "nobody is told");
    scene.disk.let_through.add_permits(2);
    assert!(settling.await);
    answering.await.unwrap();
    for state in [TaskState::InputRequired, TaskState::Working] {
        let event = events.next().await.unwrap().unwrap();
        let Some(pb::stream_response::Payload::StatusUpdate(update)) = event.payload else {
            panic!("a status is due")
        };
        assert_eq!(update.status.unwrap().state(), state);
    }
}

#[tokio::test]
async fn who_cancels_and_leaves_has_cancelled() {
    let scene = Scene::with_task().await;
    let tasks = &scene.tasks;
    let mut events = tasks.follow("t", Until::Ended).await.unwrap();
    events.next().await.unwrap().unwrap();
    let mut cancelling = Box::pin(tasks.cancel("t", |_| update("t", TaskState::Canceled, 2)));
    assert!(poll!(&mut cancelling).is_pending());
    drop(cancelling);
    scene.disk.let_through.add_permits(1);
    assert_eq!(events.count().await, 1, "the end");
    assert_eq!(scene.state().await, TaskState::Canceled);
}

#[tokio::test]
async fn what_is_said_after_the_end_is_not_pushed() {
    let scene = Scene::with_task().await;
    let tasks = &scene.tasks;
    scene.disk.let_through.add_permits(2);
    let config = pb::TaskPushNotificationConfig {
        id: "p".to_owned(),
        ..Default::default()
    };
    tasks.put_push("t", config).await.unwrap();
    tasks.publish("t", update("t", TaskState::Working, 2));
    assert!(tasks.pushes.are_under_way("t", "p"));
    tasks
        .cancel("t", |_| update("t", TaskState::Canceled, 3))
        .await
        .unwrap();
    tasks.pushes.forget_all("t");
    tasks.publish("t", update("t", TaskState::Working, 4));
    assert!(!tasks.pushes.are_under_way("t", "p"));
}
