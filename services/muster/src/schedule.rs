//! `muster schedule`: runs that begin by themselves.

use jiff::Timestamp;
use muster_api::time::to_proto;
use muster_api::workflow::{
    BackfillScheduleRequest, GetScheduleRequest, ListSchedulesRequest, PauseScheduleRequest,
    ResumeScheduleRequest, Schedule, TriggerScheduleRequest, WorkflowReference, schedule::Rule,
};
use serde_json::{Value, json};

use crate::cli::ScheduleCommand;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::send::json_argument;
use crate::workflow::{reference, run_json, status_name, time, time_json};

/// Runs `muster schedule …`.
pub async fn run(command: ScheduleCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    match command {
        ScheduleCommand::List => list(endpoints, output).await,
        ScheduleCommand::Get { name } => {
            let (namespace, name) = schedule_name(&name)?;
            let request = GetScheduleRequest { namespace, name };
            let answer = endpoints.schedules()?.get_schedule(request).await;
            print(
                endpoints,
                output,
                answer.map(|answer| answer.into_inner().schedule),
            )
        }
        ScheduleCommand::Pause { name, reason } => {
            let (namespace, name) = schedule_name(&name)?;
            let request = PauseScheduleRequest {
                namespace,
                name,
                reason,
            };
            let answer = endpoints.schedules()?.pause_schedule(request).await;
            print(
                endpoints,
                output,
                answer.map(|answer| answer.into_inner().schedule),
            )
        }
        ScheduleCommand::Resume { name } => {
            let (namespace, name) = schedule_name(&name)?;
            let request = ResumeScheduleRequest { namespace, name };
            let answer = endpoints.schedules()?.resume_schedule(request).await;
            print(
                endpoints,
                output,
                answer.map(|answer| answer.into_inner().schedule),
            )
        }
        ScheduleCommand::Trigger { name, input, id } => trigger(&name, input, id, endpoints, output).await,
        ScheduleCommand::Backfill {
            name,
            from,
            to,
            input,
        } => {
            let (from, to) = (instant("--from", &from)?, instant("--to", &to)?);
            backfill(&name, (from, to), input, endpoints, output).await
        }
    }
}

/// The namespace and name of a schedule, which all versions of a workflow share.
fn schedule_name(text: &str) -> Result<(String, String), Failure> {
    let WorkflowReference {
        namespace,
        name,
        version,
    } = reference(text);
    if version.is_empty() {
        return Ok((namespace, name));
    }
    Err(Failure::usage(format!(
        "'{text}': a workflow has one schedule, that of its newest version; leave '@{version}' away"
    )))
}

async fn list(endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.schedules()?;
    let mut schedules = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client
            .list_schedules(ListSchedulesRequest {
                page_size: 100,
                page_token,
            })
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        schedules.extend(page.schedules);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if output.is_json() {
        output.json(&json!({"schedules": schedules.iter().map(schedule_json).collect::<Vec<_>>()}));
    } else if schedules.is_empty() {
        output.line("no schedules; apply a document that has `schedule`");
    } else {
        let rows = schedules
            .iter()
            .map(|schedule| {
                let last = schedule.last.as_ref().and_then(|last| last.fired_at.as_ref());
                [
                    format!("{}/{}@{}", schedule.namespace, schedule.name, schedule.version),
                    rule(schedule),
                    state(schedule),
                    time(last),
                    schedule.fired_total.to_string(),
                ]
            })
            .collect();
        output.table(["WORKFLOW", "RUNS", "NEXT", "LAST", "FIRED"], rows);
    }
    Ok(())
}

async fn trigger(
    name: &str,
    input: Option<String>,
    id: Option<String>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let (namespace, name) = schedule_name(name)?;
    let request = TriggerScheduleRequest {
        namespace,
        name,
        run_id: id.unwrap_or_default(),
        input_json: input_json(input)?,
    };
    let run = endpoints
        .schedules()?
        .trigger_schedule(request)
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner()
        .run
        .ok_or_else(|| Failure::failed("the engine answered without a run"))?;
    if output.is_json() {
        output.json(&run_json(&run));
    } else {
        output.line(&format!("run {}: {}", run.run_id, status_name(run.status())));
    }
    Ok(())
}

async fn backfill(
    name: &str,
    (from, to): (Timestamp, Timestamp),
    input: Option<String>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let (namespace, name) = schedule_name(name)?;
    let request = BackfillScheduleRequest {
        namespace,
        name,
        from: Some(to_proto(from)),
        to: Some(to_proto(to)),
        input_json: input_json(input)?,
    };
    let done = endpoints
        .schedules()?
        .backfill_schedule(request)
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner();
    if output.is_json() {
        output.json(&json!({"runs": done.run_ids, "alreadyStarted": done.already_started}));
    } else {
        for id in &done.run_ids {
            output.line(&format!("run {id}"));
        }
        output.line(&format!(
            "{} instants, {} of them had fired before",
            done.run_ids.len(),
            done.already_started
        ));
    }
    Ok(())
}

fn print(
    endpoints: &Endpoints,
    output: &Output,
    answer: Result<Option<Schedule>, tonic::Status>,
) -> Result<(), Failure> {
    let schedule = answer
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .ok_or_else(|| Failure::failed("the engine answered without a schedule"))?;
    if output.is_json() {
        output.json(&schedule_json(&schedule));
        return Ok(());
    }
    let Schedule {
        namespace,
        name,
        version,
        ..
    } = &schedule;
    output.line(&format!(
        "schedule of {namespace}/{name}@{version}: {}",
        rule(&schedule)
    ));
    output.line(&format!("  next   {}", state(&schedule)));
    if let Some(last) = &schedule.last {
        let came = if last.run_id.is_empty() {
            last.failure.clone()
        } else {
            format!("run {}", last.run_id)
        };
        output.line(&format!("  last   {}  {came}", time(last.fired_at.as_ref())));
    }
    output.line(&format!("  fired  {} times", schedule.fired_total));
    Ok(())
}

fn rule(schedule: &Schedule) -> String {
    match &schedule.rule {
        Some(Rule::Every(interval)) => format!("every {interval}"),
        Some(Rule::Cron(cron)) => format!("cron {cron}"),
        Some(Rule::After(delay)) => format!("{delay} after the run before"),
        None => "–".to_owned(),
    }
}

/// When it fires next, or why it does not.
fn state(schedule: &Schedule) -> String {
    if schedule.paused_at.is_some() {
        let reason = &schedule.pause_reason;
        return if reason.is_empty() {
            "paused".to_owned()
        } else {
            format!("paused: {reason}")
        };
    }
    if schedule.awaits_run_id.is_empty() {
        time(schedule.next_at.as_ref())
    } else {
        format!("when run {} has ended", schedule.awaits_run_id)
    }
}

fn schedule_json(schedule: &Schedule) -> Value {
    let (kind, rule) = match &schedule.rule {
        Some(Rule::Every(interval)) => ("every", interval.as_str()),
        Some(Rule::Cron(cron)) => ("cron", cron.as_str()),
        Some(Rule::After(delay)) => ("after", delay.as_str()),
        None => ("none", ""),
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let last = schedule.last.as_ref().map(|last| {
        json!({
            "scheduledAt": time_json(last.scheduled_at.as_ref()),
            "firedAt": time_json(last.fired_at.as_ref()),
            "run": text(&last.run_id),
            "failure": text(&last.failure),
        })
    });
    let paused = schedule
        .paused_at
        .as_ref()
        .map(|since| json!({"since": time_json(Some(since)), "reason": text(&schedule.pause_reason)}));
    json!({
        "namespace": schedule.namespace,
        "name": schedule.name,
        "version": schedule.version,
        "rule": {kind: rule},
        "nextAt": time_json(schedule.next_at.as_ref()),
        "awaitsRun": text(&schedule.awaits_run_id),
        "paused": paused,
        "last": last,
        "fired": schedule.fired_total,
        "since": time_json(schedule.since.as_ref()),
    })
}

fn input_json(input: Option<String>) -> Result<String, Failure> {
    Ok(match input {
        Some(text) => json_argument("--input", &text)?.to_string(),
        None => String::new(),
    })
}

fn instant(flag: &str, text: &str) -> Result<Timestamp, Failure> {
    text.parse().map_err(|error| {
        Failure::usage(format!(
            "{flag}: '{text}' is no time such as 2026-03-01T00:00:00Z: {error}"
        ))
    })
}
