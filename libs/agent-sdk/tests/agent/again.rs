//! Messages that are sent again.

use a2a_pb::proto as pb;
use a2a_pb::proto::TaskState;
use a2a_pb::proto::stream_response::Payload;
use futures::StreamExt as _;
use muster_api::error::{Error, Reason};
use muster_testkit::wait_for;
use tempfile::TempDir;
use tonic::Code;

use crate::stage::{PATIENCE, Stage, say, say_and_go, state, task, text_part};

async fn tasks(stage: &Stage) -> Vec<pb::Task> {
    let listed = stage.client().list_tasks(pb::ListTasksRequest::default()).await;
    listed.unwrap().into_inner().tasks
}

fn saying(mut request: pb::SendMessageRequest, text: &str) -> pb::SendMessageRequest {
    request.message.as_mut().unwrap().parts = vec![text_part(text)];
    request
}

#[tokio::test]
async fn the_same_message_is_worked_on_once_at_work_and_afterwards() {
    let stage = Stage::open(|_| {}).await;
    let waiting = say("wait");
    let (mut one, mut other, mut third) = (stage.client(), stage.client(), stage.client());
    let cancelling = async {
        let begun = wait_for("the task to be at work", PATIENCE, async || {
            let tasks = tasks(&stage).await;
            let at_work = tasks.into_iter().find(|task| state(task) == TaskState::Working);
            at_work.ok_or("not yet")
        })
        .await;
        let followed = stage.client().send_streaming_message(waiting.clone()).await;
        let mut followed = followed.unwrap().into_inner();
        let Some(Payload::Task(task)) = followed.next().await.unwrap().unwrap().payload else {
            panic!("a stream begins with the task")
        };
        assert_eq!(task.id, begun.id);
        let cancel = pb::CancelTaskRequest {
            id: begun.id,
            ..Default::default()
        };
        third.cancel_task(cancel).await.unwrap();
        let last = followed.map(Result::unwrap).collect::<Vec<_>>().await.pop();
        assert!(matches!(last.unwrap().payload, Some(Payload::StatusUpdate(_))));
    };
    let (first, second, ()) = tokio::join!(
        one.send_message(waiting.clone()),
        other.send_message(waiting.clone()),
        cancelling
    );
    let first = task(first.unwrap());
    assert_eq!(state(&first), TaskState::Canceled);
    assert_eq!(task(second.unwrap()), first);
    assert_eq!(task(one.send_message(waiting.clone()).await.unwrap()), first);
    let events: Vec<_> = one
        .send_streaming_message(waiting.clone())
        .await
        .unwrap()
        .into_inner()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(events.len(), 1, "the task as it has ended: {events:?}");
    assert_eq!(tasks(&stage).await.len(), 1);
    stage.close().await;
}

#[tokio::test]
async fn an_answer_that_is_sent_again_is_taken_once() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let asking = task(client.send_message(say("ask")).await.unwrap());
    let mut answer = say("Seattle");
    answer.message.as_mut().unwrap().task_id.clone_from(&asking.id);
    let done = task(client.send_message(answer.clone()).await.unwrap());
    assert_eq!(state(&done), TaskState::Completed);
    assert_eq!(task(client.send_message(answer).await.unwrap()), done);
    stage.close().await;
}

#[tokio::test]
async fn another_message_of_the_same_id_is_refused_and_one_that_made_no_task_is_not_remembered() {
    let stage = Stage::open(|_| {}).await;
    let mut client = stage.client();
    let mut wrong = say("hello");
    wrong.message.as_mut().unwrap().task_id = "nobody's".to_owned();
    let refused = client.send_message(wrong.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let mut right = wrong;
    right.message.as_mut().unwrap().task_id.clear();
    let done = task(client.send_message(right.clone()).await.unwrap());
    assert_eq!(state(&done), TaskState::Completed);

    let other = saying(right, "goodbye");
    let refused = client.send_message(other.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    let error = Error::from_status(&refused).unwrap();
    assert_eq!(error.reason, Reason::MessageIdReused);
    let refused = client.send_streaming_message(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(tasks(&stage).await.len(), 1);
    stage.close().await;
}

#[tokio::test]
async fn it_is_known_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let open =
        |directory: std::path::PathBuf| Stage::open(move |config| config.agent.data_directory = directory);
    let request = say_and_go("hello");
    let stage = open(directory.path().to_owned()).await;
    let begun = task(stage.client().send_message(request.clone()).await.unwrap());
    stage.close().await;
    let stage = open(directory.path().to_owned()).await;
    let again = task(stage.client().send_message(request.clone()).await.unwrap());
    assert_eq!(again.id, begun.id);
    let refused = stage
        .client()
        .send_message(saying(request, "goodbye"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    stage.close().await;
}
