//! Schedules: runs that begin by themselves.

use jiff::{SignedDuration, Timestamp};
use muster_api::time::{from_proto, to_proto};
use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_api::workflow::schedule_service_client::ScheduleServiceClient;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::{http, wait_for};
use muster_workflow_engine::store::embedded::Embedded;
use muster_workflow_engine::store::schedules::Schedules as _;
use muster_workflow_engine::timetable::Name;
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;

use crate::harness::{Engine, PATIENCE, reason, send};

const TASKS: &str = "  - done: {set: {done: true}}\n";

fn scheduled(version: &str, schedule: &str, tasks: &str) -> String {
    let schedule = if schedule.is_empty() {
        String::new()
    } else {
        format!("schedule: {schedule}\n")
    };
    format!(
        "document: {{dsl: '1.0.0', namespace: test, name: job, version: '{version}'}}\n{schedule}do:\n{tasks}"
    )
}

impl Engine {
    pub fn schedules(&self) -> ScheduleServiceClient<Channel> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address())).unwrap();
        ScheduleServiceClient::new(endpoint.connect_lazy())
    }

    async fn schedule(&self) -> Result<proto::Schedule, Status> {
        let request = proto::GetScheduleRequest {
            namespace: "test".into(),
            name: "job".into(),
        };
        Ok(self
            .schedules()
            .get_schedule(request)
            .await?
            .into_inner()
            .schedule
            .unwrap())
    }

    /// The runs of the workflow, the oldest first.
    async fn jobs(&self) -> Vec<proto::Run> {
        let request = proto::ListRunsRequest {
            name: "job".into(),
            page_size: 100,
            ..Default::default()
        };
        let mut runs = self
            .client
            .clone()
            .list_runs(request)
            .await
            .unwrap()
            .into_inner()
            .runs;
        runs.reverse();
        runs
    }

    async fn until_jobs(&self, count: usize) -> Vec<proto::Run> {
        wait_for(&format!("{count} runs"), PATIENCE, async || {
            let jobs = self.jobs().await;
            if jobs.len() >= count {
                Ok(jobs)
            } else {
                Err(jobs.len())
            }
        })
        .await
    }

    async fn pause_schedule(&self) -> proto::Schedule {
        let request = proto::PauseScheduleRequest {
            namespace: "test".into(),
            name: "job".into(),
            reason: "maintenance".into(),
        };
        self.schedules()
            .pause_schedule(request)
            .await
            .unwrap()
            .into_inner()
            .schedule
            .unwrap()
    }

    async fn backfill(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<proto::BackfillScheduleResponse, Status> {
        let request = proto::BackfillScheduleRequest {
            namespace: "test".into(),
            name: "job".into(),
            from: Some(to_proto(from)),
            to: Some(to_proto(to)),
            input_json: String::new(),
        };
        Ok(self.schedules().backfill_schedule(request).await?.into_inner())
    }
}

fn now() -> Timestamp {
    SystemClock::default().now()
}

fn time(time: Option<prost_types::Timestamp>) -> Timestamp {
    from_proto(&time.unwrap()).unwrap()
}

#[tokio::test]
async fn every_starts_runs_at_its_interval_and_keeps_its_phase() {
    let engine = Engine::start().await;
    engine
        .apply(&scheduled("1.0.0", "{every: {milliseconds: 200}}", TASKS))
        .await;
    let schedule = engine.schedule().await.unwrap();
    assert_eq!(
        schedule.rule,
        Some(proto::schedule::Rule::Every("PT0.200S".into()))
    );
    let since = time(schedule.since);
    let jobs = engine.until_jobs(3).await;
    for job in &jobs {
        engine.until(&job.run_id, RunStatus::Completed).await;
        let passed = time(job.scheduled_at).duration_since(since).as_millis();
        assert!(passed > 0 && passed % 200 == 0, "{passed}");
        assert_eq!(job.version, "1.0.0");
    }
    let schedule = engine.schedule().await.unwrap();
    let last = schedule.last.unwrap();
    assert!(schedule.fired_total >= 2 && !last.run_id.is_empty() && last.failure.is_empty());
    engine.pause_schedule().await;
}

#[tokio::test]
async fn after_starts_the_next_run_when_the_one_before_has_ended() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    engine
        .apply(&scheduled(
            "1.0.0",
            "{after: {milliseconds: 200}}",
            &send("worker", "x"),
        ))
        .await;
    let first = engine.until_jobs(1).await.remove(0);
    engine.until_held(1).await;
    // The run is at work before it is written down whom the schedule waits for.
    wait_for("the schedule to await its run", PATIENCE, async || {
        let awaited = engine.schedule().await.unwrap().awaits_run_id;
        (awaited == first.run_id).then_some(()).ok_or(awaited)
    })
    .await;
    // The engine is down when it ends, as far as the schedule is concerned: it is told by looking.
    engine.restart().await;
    engine.until_held(1).await;
    engine.router.release(1);
    let ended = time(engine.until(&first.run_id, RunStatus::Completed).await.ended_at);
    let second = engine.until_jobs(2).await.remove(1);
    let wait = time(second.scheduled_at).duration_since(ended).as_millis();
    assert_eq!(wait, 200);
    engine.until_held(1).await;
    engine.cancel(&second.run_id).await.unwrap();
    engine.until_jobs(3).await;
    assert_eq!(engine.jobs().await.len(), 3, "one at a time");
    engine.router.release_all();
}

#[tokio::test]
async fn the_newest_document_decides() {
    let engine = Engine::start().await;
    assert_eq!(
        reason(&engine.schedule().await.unwrap_err()),
        "SCHEDULE_NOT_FOUND"
    );
    engine
        .apply(&scheduled("1.1.0", "{cron: '0 0 * * *'}", TASKS))
        .await;
    let first = engine.schedule().await.unwrap();
    assert_eq!(first.rule, Some(proto::schedule::Rule::Cron("0 0 * * *".into())));
    let next = time(first.next_at);
    assert!(next > now() && next.as_second() % 86_400 == 0);

    // The same again, or an older version, changes nothing.
    engine
        .apply(&scheduled("1.1.0", "{cron: '0 0 * * *'}", TASKS))
        .await;
    engine.apply(&scheduled("1.0.0", "{every: PT1H}", TASKS)).await;
    assert_eq!(engine.schedule().await.unwrap(), first);

    // A newer one with the same rule keeps what was begun; a pause stays.
    engine.pause_schedule().await;
    engine
        .apply(&scheduled(
            "1.2.0",
            "{cron: '0 0 * * *'}",
            "  - done: {set: {done: 2}}\n",
        ))
        .await;
    let second = engine.schedule().await.unwrap();
    assert_eq!((second.version.as_str(), second.since), ("1.2.0", first.since));
    assert!(second.paused_at.is_some() && second.next_at.is_none() && second.pause_reason == "maintenance");

    engine.apply(&scheduled("2.0.0", "{every: PT1H}", TASKS)).await;
    let third = engine.schedule().await.unwrap();
    assert_eq!(third.rule, Some(proto::schedule::Rule::Every("PT1H".into())));
    engine.apply(&scheduled("3.0.0", "", TASKS)).await;
    assert_eq!(
        reason(&engine.schedule().await.unwrap_err()),
        "SCHEDULE_NOT_FOUND"
    );
    assert!(engine.jobs().await.is_empty());
}

#[tokio::test]
async fn a_paused_schedule_fires_no_more_but_when_it_is_triggered() {
    let mut engine = Engine::start().await;
    engine
        .apply(&scheduled("1.0.0", "{every: {milliseconds: 100}}", TASKS))
        .await;
    engine.until_jobs(1).await;
    let paused = engine.pause_schedule().await;
    assert!(paused.next_at.is_none());
    let before = engine.jobs().await.len();
    engine.restart().await;
    assert_eq!(engine.jobs().await.len(), before);

    let request = proto::TriggerScheduleRequest {
        namespace: "test".into(),
        name: "job".into(),
        run_id: "by-hand".into(),
        input_json: r#"{"n": 1}"#.into(),
    };
    let run = engine
        .schedules()
        .trigger_schedule(request.clone())
        .await
        .unwrap()
        .into_inner()
        .run
        .unwrap();
    assert_eq!(run.run_id, "by-hand");
    assert_eq!(
        engine.until("by-hand", RunStatus::Completed).await.input_json,
        r#"{"n":1}"#
    );
    engine.schedules().trigger_schedule(request).await.unwrap();
    assert_eq!(
        engine.jobs().await.len(),
        before + 1,
        "the same id is the same run"
    );

    let request = proto::ResumeScheduleRequest {
        namespace: "test".into(),
        name: "job".into(),
    };
    let resumed = engine
        .schedules()
        .resume_schedule(request)
        .await
        .unwrap()
        .into_inner()
        .schedule
        .unwrap();
    assert!(resumed.paused_at.is_none() && time(resumed.next_at) > time(resumed.last.unwrap().fired_at));
    engine.until_jobs(before + 2).await;
    engine.pause_schedule().await;
}

#[tokio::test]
async fn what_was_due_while_the_engine_was_down_fires_once_and_what_fired_before_a_crash_not_again() {
    let mut engine = Engine::start().await;
    engine.apply(&scheduled("1.0.0", "{every: PT1H}", TASKS)).await;
    let name = Name {
        namespace: "test".into(),
        name: "job".into(),
    };
    // As if three instants had passed while the engine was down.
    engine.stop().await;
    let missed = now() - SignedDuration::from_hours(3) - SignedDuration::from_mins(1);
    let change = async |engine: &Engine, next: Timestamp| {
        let directory = muster_runtime::data_directory::open(engine.data_directory()).unwrap();
        let store = Embedded::open(directory).unwrap();
        let mut schedule = store.schedule(&name).await.unwrap().unwrap();
        schedule.anchor = missed - SignedDuration::from_hours(1);
        schedule.next = Some(next);
        schedule.revision += 1;
        store.put_schedule(&schedule).await.unwrap();
    };
    change(&engine, missed).await;
    engine.launch().await;
    let job = engine.until_jobs(1).await.remove(0);
    engine.until(&job.run_id, RunStatus::Completed).await;
    assert_eq!(time(job.scheduled_at).as_microsecond(), missed.as_microsecond());
    let schedule = wait_for("the firing to be written", PATIENCE, async || {
        let schedule = engine.schedule().await.unwrap();
        if schedule.fired_total == 1 {
            Ok(schedule)
        } else {
            Err(format!("{schedule:?}"))
        }
    })
    .await;
    assert!(time(schedule.next_at) > now());
    assert_eq!(engine.jobs().await.len(), 1, "once for all that was missed");

    // As if it had crashed after the start of the run and before the schedule was written.
    engine.stop().await;
    change(&engine, missed).await;
    engine.launch().await;
    wait_for("the firing to be written again", PATIENCE, async || {
        let schedule = engine.schedule().await.unwrap();
        if schedule.fired_total == 2 {
            Ok(())
        } else {
            Err(format!("{schedule:?}"))
        }
    })
    .await;
    assert_eq!(engine.jobs().await.len(), 1, "the same run");
}

#[tokio::test]
async fn a_backfill_starts_each_instant_once() {
    let engine = Engine::start().await;
    engine
        .apply(&scheduled("1.0.0", "{cron: '0 * * * *'}", TASKS))
        .await;
    let hour = Timestamp::from_second(now().as_second() / 3600 * 3600).unwrap();
    let (from, to) = (
        hour - SignedDuration::from_hours(5),
        hour - SignedDuration::from_hours(2),
    );
    let done = engine.backfill(from, to).await.unwrap();
    assert_eq!((done.run_ids.len(), done.already_started), (3, 0));
    for (number, id) in done.run_ids.iter().enumerate() {
        let run = engine.until(id, RunStatus::Completed).await;
        assert_eq!(
            time(run.scheduled_at),
            from + SignedDuration::from_hours(i64::try_from(number).unwrap())
        );
    }
    let again = engine.backfill(from, hour).await.unwrap();
    assert_eq!((again.run_ids.len(), again.already_started), (5, 3));
    assert_eq!(again.run_ids[..3], done.run_ids[..]);
    assert_eq!(engine.until_jobs(5).await.len(), 5);

    let refused = engine
        .backfill(from, hour + SignedDuration::from_hours(2))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
    let long = engine
        .backfill(hour - SignedDuration::from_hours(2000), hour)
        .await
        .unwrap_err();
    assert!(long.message().contains("more than 1000 times"), "{long:?}");
}

#[tokio::test]
async fn a_run_that_cannot_start_is_told_and_the_next_one_tried() {
    let engine = Engine::start_with(|settings| {
        settings.max_concurrent_workflows = 1;
        settings.max_queued_runs = 1;
    })
    .await;
    engine.router.hold();
    let busy = crate::harness::document(&send("worker", "x"));
    for id in ["a", "b"] {
        engine.start_run(&busy, id, "").await.unwrap();
    }
    engine.until_held(1).await;
    engine
        .apply(&scheduled("1.0.0", "{every: {milliseconds: 100}}", TASKS))
        .await;
    let due = time(engine.schedule().await.unwrap().next_at);
    wait_for("the time to come", PATIENCE, async || {
        if now() > due { Ok(()) } else { Err("not yet") }
    })
    .await;
    // The line is full: the instant is kept until there is a place.
    engine.router.release_all();
    let job = engine.until_jobs(1).await.remove(0);
    assert_eq!(time(job.scheduled_at), due);
    engine.until(&job.run_id, RunStatus::Completed).await;
    engine.pause_schedule().await;
}

#[tokio::test]
async fn schedules_are_listed_in_pages_and_over_http() {
    let engine = Engine::start().await;
    for name in ["c", "a", "b"] {
        let text = scheduled("1.0.0", "{after: PT1H}", TASKS).replace("name: job", &format!("name: {name}"));
        engine.apply(&text).await;
    }
    let mut names = Vec::new();
    let mut request = proto::ListSchedulesRequest {
        page_size: 2,
        page_token: String::new(),
    };
    loop {
        let page = engine
            .schedules()
            .list_schedules(request.clone())
            .await
            .unwrap()
            .into_inner();
        names.extend(page.schedules.into_iter().map(|schedule| schedule.name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);

    let answer = http::get(engine.address(), "/v1/schedules/a?namespace=test")
        .await
        .unwrap();
    assert_eq!(answer.json()["schedule"]["after"], "PT1H");
    let answer = http::post(
        engine.address(),
        "/v1/schedules/a:pause",
        &json!({"namespace": "test"}),
    )
    .await
    .unwrap();
    assert!(
        answer.json()["schedule"]["pausedAt"].is_string(),
        "{}",
        answer.text()
    );
}
