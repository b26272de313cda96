//! The durable inbox and broadcasts, from outside.

use muster_api::a2a::{SendMessageRequest, send_message_response};
use muster_api::error::{Error, Reason};
use muster_api::router as proto;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_api::router::{DeadReason, EntryDelivery, EntryPriority, EntryStatus};
use muster_router::config::Router;
use muster_testkit::{Answer, RedisServer, http, wait_for};
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{PATIENCE, Service, Stack, error_in, message, reason_of};

fn client(stack: &Stack) -> InboxServiceClient<Channel> {
    InboxServiceClient::new(stack.channel.clone())
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn id_of(request: &SendMessageRequest) -> String {
    request.message.as_ref().expect("a message").message_id.clone()
}

fn letter(message: SendMessageRequest) -> proto::EnqueueRequest {
    proto::EnqueueRequest {
        message: Some(message),
        ..proto::EnqueueRequest::default()
    }
}

async fn enqueue(stack: &Stack, request: proto::EnqueueRequest) -> Result<proto::Entry, Status> {
    let answer = client(stack).enqueue(request).await?.into_inner();
    Ok(answer.entry.expect("an entry"))
}

async fn entry(stack: &Stack, id: &str) -> Result<proto::Entry, Status> {
    let request = proto::GetEntryRequest {
        entry_id: id.to_owned(),
    };
    let answer = client(stack).get_entry(request).await?.into_inner();
    Ok(answer.entry.expect("an entry"))
}

async fn becomes(stack: &Stack, id: &str, status: EntryStatus) -> proto::Entry {
    wait_for(&format!("{id} to be {status:?}"), PATIENCE, async || {
        let entry = entry(stack, id).await.map_err(|status| status.to_string())?;
        if entry.status() == status {
            Ok(entry)
        } else {
            Err(format!("{entry:?}"))
        }
    })
    .await
}

/// Pauses that a test can wait for.
fn hasty(router: &mut Router) {
    router.inbox.max_pause_seconds = 1;
}

#[tokio::test]
async fn a_message_waits_until_somebody_is_there_and_is_delivered_once() {
    let stack = Stack::start().await;
    let request = message("skill:forecasting", "hello");
    let id = id_of(&request);
    let taken = enqueue(&stack, letter(request.clone())).await.unwrap();
    assert_eq!(
        (taken.status(), taken.target.as_str()),
        (EntryStatus::Pending, "skill:forecasting")
    );
    let waits = stack.status().await.inbox.unwrap();
    assert_eq!((waits.pending, waits.enqueued_total), (1, 1));
    assert_eq!(waits.targets[0].target, "skill:forecasting");

    let agent = stack.agent("weather", &["forecasting"]).await;
    let done = becomes(&stack, &id, EntryStatus::Done).await;
    assert_eq!((done.agent_id.as_str(), done.attempts), ("weather", 1));
    let Some(send_message_response::Payload::Task(_)) = done.answer.unwrap().payload else {
        panic!("the answer is kept");
    };
    let calls = agent.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].message_id.as_str(), calls[0].text.as_str()),
        (id.as_str(), "hello")
    );
    assert_eq!(calls[0].skill.as_deref(), Some("forecasting"));

    // The same again is the same entry; another message under its id is refused.
    let again = client(&stack)
        .enqueue(letter(request.clone()))
        .await
        .unwrap()
        .into_inner();
    assert!(again.existed && again.entry.unwrap().status() == EntryStatus::Done);
    let mut other = request;
    other.message.as_mut().unwrap().context_id = "another".to_owned();
    assert_eq!(
        reason_of(enqueue(&stack, letter(other)).await),
        Reason::MessageIdReused
    );
    assert_eq!(agent.calls().len(), 1);

    let status = stack.status().await;
    let row = status.calls.iter().find(|row| row.agent_id == "weather").unwrap();
    assert_eq!((row.binding.as_str(), row.succeeded_total), ("inbox", 1));
    let inbox = status.inbox.unwrap();
    assert_eq!((inbox.pending, inbox.done, inbox.delivered_total), (0, 1, 1));
    let metrics = http::get(stack.router.metrics, "/metrics").await.unwrap().text();
    assert!(
        metrics.contains("router_inbox_ended_total{outcome=\"done\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_more_urgent_goes_first() {
    let stack = Stack::with(|router| router.inbox.max_in_flight = 1).await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.hold();
    let first = message("weather", "first");
    enqueue(&stack, letter(first)).await.unwrap();
    wait_for("the first to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    let mut last = String::new();
    for priority in [
        EntryPriority::Low,
        EntryPriority::Normal,
        EntryPriority::Urgent,
        EntryPriority::High,
    ] {
        let request = message("weather", &format!("{priority:?}"));
        if priority == EntryPriority::Low {
            last = id_of(&request);
        }
        let request = proto::EnqueueRequest {
            priority: priority.into(),
            ..letter(request)
        };
        enqueue(&stack, request).await.unwrap();
    }
    agent.release_all();
    becomes(&stack, &last, EntryStatus::Done).await;
    let order: Vec<String> = agent.calls().into_iter().map(|call| call.text).collect();
    assert_eq!(order, ["first", "Urgent", "High", "Normal", "Low"]);
}

#[tokio::test]
async fn a_message_that_nobody_takes_in_time_is_a_dead_letter_and_can_be_replayed() {
    let stack = Stack::start().await;
    let request = message("skill:forecasting", "late");
    let id = id_of(&request);
    let short = proto::EnqueueRequest {
        ttl: seconds(1),
        ..letter(request)
    };
    enqueue(&stack, short).await.unwrap();
    let dead = becomes(&stack, &id, EntryStatus::Dead).await;
    assert_eq!((dead.dead_reason(), dead.attempts), (DeadReason::Expired, 0));

    let agent = stack.agent("weather", &["forecasting"]).await;
    let replay = proto::ReplayEntriesRequest::default();
    let replayed = client(&stack).replay_entries(replay).await.unwrap().into_inner();
    assert_eq!((replayed.count, replayed.more), (1, false));
    becomes(&stack, &id, EntryStatus::Done).await;
    assert_eq!(agent.calls().len(), 1);

    let purge = |status: EntryStatus| proto::PurgeEntriesRequest {
        filter: Some(proto::EntryFilter {
            status: status.into(),
            target: String::new(),
        }),
        ..proto::PurgeEntriesRequest::default()
    };
    let pending = client(&stack).purge_entries(purge(EntryStatus::Pending)).await;
    assert_eq!(
        error_in(&pending.unwrap_err()).field.as_deref(),
        Some("filter.status")
    );
    let purged = client(&stack)
        .purge_entries(purge(EntryStatus::Done))
        .await
        .unwrap();
    assert_eq!(purged.into_inner().count, 1);
    assert_eq!(reason_of(entry(&stack, &id).await), Reason::EntryNotFound);
}

#[tokio::test]
async fn what_the_agent_refuses_is_dead_at_once_and_what_fails_is_tried_again() {
    let stack = Stack::with(hasty).await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.script([Answer::Status(Status::invalid_argument("no such city"))]);
    let refused = message("weather", "x");
    enqueue(&stack, letter(refused.clone())).await.unwrap();
    let dead = becomes(&stack, &id_of(&refused), EntryStatus::Dead).await;
    assert_eq!(dead.dead_reason(), DeadReason::Refused);
    let failure = dead.last_failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str()),
        ("INVALID_ARGUMENT", "no such city")
    );
    assert_eq!(agent.calls().len(), 1);

    agent.script([
        Answer::Status(Status::unavailable("not now")),
        Answer::Status(Status::internal("oh")),
    ]);
    let again = message("weather", "y");
    enqueue(&stack, letter(again.clone())).await.unwrap();
    let done = becomes(&stack, &id_of(&again), EntryStatus::Done).await;
    assert_eq!(
        (done.attempts, done.failures),
        (3, 1),
        "being absent is no failure of the message"
    );
}

#[tokio::test]
async fn a_message_that_is_too_large_for_its_agent_is_dead_at_once_and_keeps_nobody_waiting() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let too_large = Error::new(Reason::MessageTooLarge, "send less");
    agent.script([Answer::Status(too_large.into())]);
    let refused = message("weather", "x");
    enqueue(&stack, letter(refused.clone())).await.unwrap();
    let dead = becomes(&stack, &id_of(&refused), EntryStatus::Dead).await;
    assert_eq!(dead.dead_reason(), DeadReason::Refused);
    assert_eq!(dead.last_failure.unwrap().reason, "MESSAGE_TOO_LARGE");
    let next = message("weather", "y");
    enqueue(&stack, letter(next.clone())).await.unwrap();
    let done = becomes(&stack, &id_of(&next), EntryStatus::Done).await;
    assert_eq!((done.attempts, agent.calls().len()), (1, 2));
}

#[tokio::test]
async fn messages_for_a_thousand_who_are_not_there_keep_nobody_waiting() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let urgent = |number: u32| proto::EnqueueRequest {
        target: format!("not-there-{number}"),
        priority: EntryPriority::Urgent.into(),
        ..letter(message("", "x"))
    };
    let letters = (0..1_100).map(|number| enqueue(&stack, urgent(number)));
    futures::future::try_join_all(letters).await.unwrap();
    let wanted = message("weather", "y");
    let low = proto::EnqueueRequest {
        priority: EntryPriority::Low.into(),
        ..letter(wanted.clone())
    };
    enqueue(&stack, low).await.unwrap();
    becomes(&stack, &id_of(&wanted), EntryStatus::Done).await;
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test]
async fn a_message_that_always_fails_is_given_up() {
    let stack = Stack::with(|router| {
        hasty(router);
        router.inbox.max_failures = 2;
    })
    .await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.fall_back_to(Answer::Status(Status::internal("oh")));
    let poison = message("weather", "x");
    enqueue(&stack, letter(poison.clone())).await.unwrap();
    let dead = becomes(&stack, &id_of(&poison), EntryStatus::Dead).await;
    assert_eq!((dead.dead_reason(), dead.failures), (DeadReason::Failed, 2));
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_again() {
    let stack = Stack::with(|router| router.inbox.max_entries = 2).await;
    for _ in 0..2 {
        enqueue(&stack, letter(message("skill:absent", "x")))
            .await
            .unwrap();
    }
    let more = message("skill:absent", "x");
    let error = error_in(&enqueue(&stack, letter(more.clone())).await.unwrap_err());
    assert_eq!(error.reason, Reason::InboxFull);
    assert!(error.retry_after.is_some());
    enqueue(&stack, letter(message("skill:other", "x")))
        .await
        .unwrap();

    let listed = client(&stack)
        .list_entries(proto::ListEntriesRequest {
            page_size: 2,
            ..proto::ListEntriesRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.entries.len(), 2);
    let first = listed.entries[0].entry_id.clone();
    let rest = client(&stack)
        .list_entries(proto::ListEntriesRequest {
            page_token: listed.next_page_token,
            ..proto::ListEntriesRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((rest.entries.len(), rest.next_page_token.as_str()), (1, ""));

    // One that is cancelled makes room.
    let cancel = proto::CancelEntryRequest { entry_id: first };
    let cancelled = client(&stack)
        .cancel_entry(cancel)
        .await
        .unwrap()
        .into_inner()
        .entry
        .unwrap();
    assert_eq!(cancelled.dead_reason(), DeadReason::Cancelled);
    enqueue(&stack, letter(more)).await.unwrap();
}

#[tokio::test]
async fn a_delayed_message_is_delivered_after_its_time() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let later = message("weather", "later");
    let delayed = proto::EnqueueRequest {
        delay: seconds(2),
        ..letter(later.clone())
    };
    let taken = enqueue(&stack, delayed).await.unwrap();
    let sooner = message("weather", "sooner");
    enqueue(&stack, letter(sooner)).await.unwrap();
    let done = becomes(&stack, &id_of(&later), EntryStatus::Done).await;
    let order: Vec<String> = agent.calls().into_iter().map(|call| call.text).collect();
    assert_eq!(order, ["sooner", "later"]);
    let not_before = taken.not_before.unwrap();
    let ended = done.ended_at.unwrap();
    assert!((ended.seconds, ended.nanos) >= (not_before.seconds, not_before.nanos));
}

#[tokio::test]
async fn malformed_letters_are_refused_by_field() {
    let stack = Stack::start().await;
    let field = async |request: proto::EnqueueRequest| {
        error_in(&enqueue(&stack, request).await.unwrap_err())
            .field
            .unwrap_or_default()
    };
    assert_eq!(field(proto::EnqueueRequest::default()).await, "message");
    let two = proto::EnqueueRequest {
        target: "planning".to_owned(),
        ..letter(message("weather", "x"))
    };
    assert_eq!(field(two).await, "target");
    let long = proto::EnqueueRequest {
        ttl: seconds(1 << 40),
        ..letter(message("weather", "x"))
    };
    assert_eq!(field(long).await, "ttl");
    let negative = proto::EnqueueRequest {
        delay: seconds(-1),
        ..letter(message("weather", "x"))
    };
    assert_eq!(field(negative).await, "delay");
    let nobody = enqueue(&stack, letter(message("", "x"))).await;
    assert_eq!(reason_of(nobody), Reason::TargetMissing);
    let page = proto::ListEntriesRequest {
        page_token: "nonsense".to_owned(),
        ..proto::ListEntriesRequest::default()
    };
    let refused = client(&stack).list_entries(page).await.unwrap_err();
    assert_eq!(error_in(&refused).reason, Reason::InvalidPageToken);
}

#[tokio::test]
async fn a_consumer_fetches_prolongs_gives_back_and_acknowledges() {
    let stack = Stack::start().await;
    // An agent of that name is there, and is not asked.
    let agent = stack.agent("printer", &["printing"]).await;
    let request = message("printer", "page");
    let id = id_of(&request);
    let pull = proto::EnqueueRequest {
        delivery: EntryDelivery::Pull.into(),
        ..letter(request)
    };
    enqueue(&stack, pull).await.unwrap();
    let receive = |lease: i64| proto::ReceiveRequest {
        target: "printer".to_owned(),
        limit: 10,
        lease: seconds(lease),
        consumer: "spooler".to_owned(),
        wait: None,
    };
    let received = client(&stack)
        .receive(receive(1))
        .await
        .unwrap()
        .into_inner()
        .entries;
    let [first] = received.as_slice() else {
        panic!("one entry: {received:?}");
    };
    let got = first.entry.as_ref().unwrap();
    assert_eq!(
        (got.leased_by.as_str(), got.status()),
        ("spooler", EntryStatus::Delivering)
    );
    assert!(got.message.is_some());

    // Its lease runs out, and somebody else gets it.
    let second = wait_for("the lease to run out", PATIENCE, async || {
        let received = client(&stack)
            .receive(receive(60))
            .await
            .unwrap()
            .into_inner()
            .entries;
        received.into_iter().next()
    })
    .await;
    let late = client(&stack)
        .acknowledge(proto::AcknowledgeRequest {
            entry_id: id.clone(),
            lease_token: first.lease_token.clone(),
            answer: None,
        })
        .await;
    assert_eq!(reason_of(late), Reason::EntryLeaseLost);
    client(&stack)
        .extend_lease(proto::ExtendLeaseRequest {
            entry_id: id.clone(),
            lease_token: second.lease_token.clone(),
            lease: seconds(120),
        })
        .await
        .unwrap();
    let released = client(&stack)
        .release(proto::ReleaseRequest {
            entry_id: id.clone(),
            lease_token: second.lease_token,
            reason: "out of paper".to_owned(),
            ..proto::ReleaseRequest::default()
        })
        .await
        .unwrap()
        .into_inner()
        .entry
        .unwrap();
    assert_eq!(released.last_failure.unwrap().message, "out of paper");
    let third = client(&stack)
        .receive(receive(60))
        .await
        .unwrap()
        .into_inner()
        .entries;
    let token = third[0].lease_token.clone();
    assert_eq!(third[0].entry.as_ref().unwrap().attempts, 3);
    let done = client(&stack)
        .acknowledge(proto::AcknowledgeRequest {
            entry_id: id.clone(),
            lease_token: token,
            answer: None,
        })
        .await
        .unwrap();
    assert_eq!(done.into_inner().entry.unwrap().status(), EntryStatus::Done);
    assert!(
        client(&stack)
            .receive(receive(60))
            .await
            .unwrap()
            .into_inner()
            .entries
            .is_empty()
    );
    assert!(agent.calls().is_empty());
}

#[tokio::test]
async fn what_was_taken_in_is_delivered_by_the_next_router_on_the_same_directory() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Service::registry(0);
    let at = |directory: &std::path::Path| {
        let directory = directory.to_owned();
        move |config: &mut muster_router::Config| config.router.data_directory = directory
    };
    let first = Stack::over(registry, at(directory.path())).await;
    let request = message("skill:forecasting", "kept");
    let id = id_of(&request);
    enqueue(&first, letter(request)).await.unwrap();
    let Stack { registry, router, .. } = first;
    router.stop().await;

    let second = Stack::over(registry.unwrap(), at(directory.path())).await;
    let agent = second.agent("weather", &["forecasting"]).await;
    becomes(&second, &id, EntryStatus::Done).await;
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test]
async fn what_is_with_an_agent_when_the_router_stops_has_not_failed_and_is_delivered_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let at = |config: &mut muster_router::Config| {
        config.router.data_directory = directory.path().to_owned();
        config.router.inbox.lease_seconds = 600;
    };
    let first = Stack::over(Service::registry(0), at).await;
    let agent = first.agent("weather", &["forecasting"]).await;
    agent.hold();
    let request = message("weather", "cut off");
    let id = id_of(&request);
    enqueue(&first, letter(request)).await.unwrap();
    wait_for("the message to be with the agent", PATIENCE, async || {
        agent.held() == 1
    })
    .await;
    let Stack { registry, router, .. } = first;
    router.stop().await;
    agent.release_all();

    let second = Stack::over(registry.unwrap(), at).await;
    let done = becomes(&second, &id, EntryStatus::Done).await;
    assert_eq!((done.attempts, done.failures), (2, 0));
}

#[tokio::test]
async fn a_consumer_may_wait_and_one_who_has_left_loses_nothing() {
    let stack = Stack::start().await;
    let receive = |wait: i64| proto::ReceiveRequest {
        target: "printer".to_owned(),
        wait: seconds(wait),
        ..proto::ReceiveRequest::default()
    };
    let put = async |text: &str| {
        let pull = proto::EnqueueRequest {
            delivery: EntryDelivery::Pull.into(),
            ..letter(message("printer", text))
        };
        enqueue(&stack, pull).await.unwrap().entry_id
    };
    let refused = client(&stack).receive(receive(61)).await;
    assert_eq!(reason_of(refused), Reason::InvalidField);
    let none = client(&stack).receive(receive(0)).await.unwrap().into_inner();
    assert!(none.entries.is_empty());

    let mut client_of_one = client(&stack);
    let mut waiting = Box::pin(client_of_one.receive(receive(60)));
    let left = futures::poll!(&mut waiting);
    assert!(left.is_pending());
    drop(waiting);
    let mut client_of_other = client(&stack);
    let waiting = client_of_other.receive(receive(60));
    let (received, id) = tokio::join!(waiting, put("a page"));
    let entries = received.unwrap().into_inner().entries;
    assert_eq!(entries[0].entry.as_ref().unwrap().entry_id, id);
    let status = stack.status().await.inbox.unwrap();
    assert_eq!((status.pending, status.delivering), (0, 1));
}

#[tokio::test]
async fn without_its_redis_nothing_is_taken_in_and_nothing_is_lost() {
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let stack = Stack::with(|router| {
        router.redis_cluster_endpoint = Some(url);
        router.redis.patience_seconds = 1;
        router.redis.answer_within_seconds = 1;
    })
    .await;
    let kept = message("skill:forecasting", "kept");
    enqueue(&stack, letter(kept.clone())).await.unwrap();
    redis.kill().await;
    let refused = enqueue(&stack, letter(message("skill:forecasting", "refused"))).await;
    let error = error_in(&refused.unwrap_err());
    assert_eq!(error.reason, Reason::StoreUnavailable);
    assert!(error.retry_after.is_some(), "{error:?}");
    // What needs no inbox goes on.
    let agent = stack.agent("weather", &["forecasting"]).await;
    agent.fall_back_to(Answer::Message("fine".to_owned()));
    stack.send(message("weather", "direct")).await.unwrap();

    redis.restart().await;
    becomes(&stack, &id_of(&kept), EntryStatus::Done).await;
    let texts: Vec<String> = agent.calls().into_iter().map(|call| call.text).collect();
    assert_eq!(texts, ["direct", "kept"]);
}

#[tokio::test]
async fn a_broadcast_reaches_every_agent_once_and_counts_who_answered() {
    let stack = Stack::with(|router| router.inbox.max_broadcast_agents = 3).await;
    let agents = [
        stack.agent("a", &["watching", "other"]).await,
        stack.agent("b", &["watching"]).await,
        stack.agent("c", &["watching"]).await,
    ];
    let _not_meant = stack.agent("d", &["other"]).await;
    agents[1].script([Answer::Status(Status::invalid_argument("not today"))]);
    let broadcast = |skill: &str| proto::BroadcastRequest {
        skill: skill.to_owned(),
        message: Some(message("", "all")),
        timeout: seconds(20),
    };
    let said = client(&stack)
        .broadcast(broadcast("watching"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((said.matched, said.answered, said.failed), (3, 2, 1));
    let names: Vec<&str> = said.answers.iter().map(|one| one.agent_id.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let Some(proto::broadcast_answer::Outcome::Failure(failure)) = &said.answers[1].outcome else {
        panic!("a failure: {:?}", said.answers[1]);
    };
    assert_eq!(failure.message, "not today");
    for agent in &agents {
        let calls = agent.calls();
        assert_eq!(calls.len(), 1, "{}", agent.id());
        assert_eq!(calls[0].skill.as_deref(), Some("watching"));
    }
    let status = stack.status().await;
    assert_eq!((status.broadcast_total, status.matched_total), (1, 3));

    let unknown = client(&stack).broadcast(broadcast("flying")).await;
    assert_eq!(reason_of(unknown), Reason::SkillNotFound);
    let _fourth = stack.agent("e", &["watching"]).await;
    let error = error_in(&client(&stack).broadcast(broadcast("watching")).await.unwrap_err());
    assert_eq!(error.reason, Reason::TooManyAgents);
    assert_eq!(error.metadata["matched"], "4");
}

#[tokio::test]
async fn a_broadcast_ends_in_time_with_the_answers_that_are_there() {
    let stack = Stack::start().await;
    let quick = stack.agent("quick", &["watching"]).await;
    let slow = stack.agent("slow", &["watching"]).await;
    slow.hold();
    let request = proto::BroadcastRequest {
        skill: "watching".to_owned(),
        message: Some(message("", "all")),
        timeout: seconds(1),
    };
    let said = client(&stack).broadcast(request).await.unwrap().into_inner();
    assert_eq!((said.matched, said.answered, said.failed), (2, 1, 1));
    let Some(proto::broadcast_answer::Outcome::Failure(failure)) = &said.answers[1].outcome else {
        panic!("a failure: {:?}", said.answers[1]);
    };
    assert_eq!(failure.code, "DEADLINE_EXCEEDED");
    assert_eq!(quick.calls().len(), 1);
}

#[tokio::test]
async fn the_inbox_is_there_over_plain_http() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let body = json!({
        "target": "weather",
        "message": {"message": {"messageId": "http-1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}},
        "ttl": "60s",
        "priority": "ENTRY_PRIORITY_HIGH"
    });
    let headers = [("content-type", "application/json")];
    let address = stack.router.address;
    let sent = http::send(
        address,
        http::Method::POST,
        "/v1/inbox",
        &headers,
        body.to_string().into(),
    )
    .await;
    let sent = sent.unwrap();
    assert_eq!(sent.status, 200, "{}", sent.text());
    becomes(&stack, "http-1", EntryStatus::Done).await;
    assert_eq!(agent.calls().len(), 1);
    let got = http::get(address, "/v1/inbox/http-1").await.unwrap().text();
    assert!(got.contains("ENTRY_STATUS_DONE"), "{got}");
    let listed = http::get(address, "/v1/inbox?filter.status=ENTRY_STATUS_DONE")
        .await
        .unwrap()
        .text();
    assert!(listed.contains("http-1"), "{listed}");
    let missing = http::get(address, "/v1/inbox/nothing").await.unwrap();
    assert_eq!(missing.status, 404, "{}", missing.text());
}

#[tokio::test]
async fn statistics_tell_agents_and_bindings_apart() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    stack.send(message("weather", "x")).await.unwrap();
    agent.script([Answer::Status(Status::internal("oh"))]);
    stack.send(message("weather", "y")).await.unwrap_err();
    stack
        .send(message("nobody-has-this-name", "z"))
        .await
        .unwrap_err();
    let status = stack.status().await;
    assert_eq!((status.received_total, status.sent_total), (3, 2));
    let rows: Vec<(&str, &str, u64, u64)> = status
        .calls
        .iter()
        .map(|row| {
            (
                row.agent_id.as_str(),
                row.binding.as_str(),
                row.succeeded_total,
                row.failed_total,
            )
        })
        .collect();
    assert_eq!(rows, [("", "grpc", 0, 1), ("weather", "grpc", 1, 1)]);
}
