//! What survives the end of the process, asked for or not.

use std::path::Path;

use a2a_pb::proto as pb;
use a2a_pb::proto::TaskState;
use muster_testkit::wait_for;
use tempfile::TempDir;
use tonic::{Code, Request};

use crate::stage::{PATIENCE, Stage, said, say, say_and_go, state, task};

async fn open(directory: &Path) -> Stage {
    let directory = directory.to_owned();
    Stage::open(|config| config.agent.data_directory = directory).await
}

/// The files as a process that is killed now leaves them.
fn as_killed(directory: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    copy_all(directory, copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn get(id: &str) -> pb::GetTaskRequest {
    pb::GetTaskRequest {
        id: id.to_owned(),
        ..Default::default()
    }
}

async fn read(stage: &Stage, id: &str) -> pb::Task {
    stage.client().get_task(get(id)).await.unwrap().into_inner()
}

/// A message for a skill, answered at once.
fn for_skill(text: &str, skill: &str) -> Request<pb::SendMessageRequest> {
    let mut request = Request::new(say_and_go(text));
    request
        .metadata_mut()
        .insert("muster-skill", skill.parse().unwrap());
    request
}

#[tokio::test]
async fn ended_tasks_and_open_questions_survive_a_restart() {
    let directory = TempDir::new().unwrap();
    let stage = open(directory.path()).await;
    let done = task(stage.client().send_message(say("artifacts")).await.unwrap());
    let asking = task(stage.client().send_message(say("ask")).await.unwrap());
    stage.close().await;

    let stage = open(directory.path()).await;
    assert_eq!(read(&stage, &done.id).await, done);
    let listed = stage
        .client()
        .list_tasks(pb::ListTasksRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.total_size, 2);
    let mut answer = say("Seattle");
    answer.message.as_mut().unwrap().task_id = asking.id;
    let answered = task(stage.client().send_message(answer).await.unwrap());
    assert_eq!(state(&answered), TaskState::Completed);
    assert_eq!(answered.history.len(), 3);
    stage.close().await;
}

#[tokio::test]
async fn what_was_at_work_when_the_process_was_killed_fails_unless_it_may_be_repeated() {
    let directory = TempDir::new().unwrap();
    let stage = open(directory.path()).await;
    let mut client = stage.client();
    let once = task(client.send_message(for_skill("wait", "order")).await.unwrap());
    let again = task(client.send_message(for_skill("wait", "act")).await.unwrap());
    let killed = as_killed(directory.path());
    stage.close().await;

    let stage = open(killed.path()).await;
    wait_for("the end of the task with effects", PATIENCE, async || {
        state(&read(&stage, &once.id).await) == TaskState::Failed
    })
    .await;
    let failed = read(&stage, &once.id).await;
    assert!(
        said(&failed).contains("the agent ended while"),
        "{}",
        said(&failed)
    );
    wait_for("the repeatable task to work again", PATIENCE, async || {
        said(&read(&stage, &again.id).await) == "waiting"
    })
    .await;
    let cancel = pb::CancelTaskRequest {
        id: again.id,
        ..Default::default()
    };
    let cancelled = stage.client().cancel_task(cancel).await.unwrap().into_inner();
    assert_eq!(state(&cancelled), TaskState::Canceled);
    stage.close().await;
}

#[tokio::test]
async fn a_task_that_kills_its_process_is_not_worked_on_for_ever() {
    let mut directory = TempDir::new().unwrap();
    let mut stage = open(directory.path()).await;
    let deadly = task(
        stage
            .client()
            .send_message(for_skill("wait", "act"))
            .await
            .unwrap(),
    );
    for _ in 0..3 {
        let killed = as_killed(directory.path());
        stage.close().await;
        directory = killed;
        stage = open(directory.path()).await;
        wait_for("the task to be taken up", PATIENCE, async || {
            said(&read(&stage, &deadly.id).await) == "waiting"
        })
        .await;
    }
    let killed = as_killed(directory.path());
    stage.close().await;
    let stage = open(killed.path()).await;
    wait_for("the end", PATIENCE, async || {
        state(&read(&stage, &deadly.id).await) == TaskState::Failed
    })
    .await;
    let failed = read(&stage, &deadly.id).await;
    assert!(said(&failed).contains("ended 3 times"), "{}", said(&failed));
    stage.close().await;
}

#[tokio::test]
async fn without_a_directory_a_restart_forgets() {
    let stage = Stage::open(|_| {}).await;
    let done = task(stage.client().send_message(say("hello")).await.unwrap());
    stage.close().await;
    let stage = Stage::open(|_| {}).await;
    let status = stage.client().get_task(get(&done.id)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    stage.close().await;
}

#[tokio::test]
async fn another_agents_directory_is_refused() {
    let directory = TempDir::new().unwrap();
    let own = directory.path().join("puppet");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("format"), "weather 1\n").unwrap();
    let path = directory.path().to_owned();
    let refused = Stage::try_open(move |config| config.agent.data_directory = path).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains(&directory.path().display().to_string()), "{error}");
}
