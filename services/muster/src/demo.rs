//! `muster demo`: the whole system on real input, in a minute.
//!
//! Starts the fleet in a temporary directory, shows what came up with values measured at that moment, runs the
//! shipped example workflows over real data and prints their results. Nothing shown is written down here: it
//! is what the services answer.

pub mod examples;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_api::workflow::RunStatus;
use muster_runtime::Shutdown;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::cli::{DemoArguments, Ports};
use crate::connect::Endpoints;
use crate::dev::Directory;
use crate::failure::Failure;
use crate::fleet::{self, Fleet};
use crate::observe::status::Picture;
use crate::output::Output;
use crate::workflow;
use examples::Example;

const BANNER: &str = r"
  __  __           _
 |  \/  |_   _ ___| |_ ___ _ __
 | |\/| | | | / __| __/ _ \ '__|
 | |  | | |_| \__ \ ||  __/ |
 |_|  |_|\__,_|___/\__\___|_|     a control plane for fleets of AI agents
";

/// Runs the tour; fails when anything of it does.
pub async fn run(arguments: DemoArguments, output: &Output) -> Result<(), Failure> {
    let config = fleet::Config::load(None, &["telemetry.log_level=ERROR".to_owned()])?;
    config.start_telemetry();
    let directory = Directory::temporary()?;
    let shutdown = Shutdown::on_signals();
    if !output.is_json() {
        output.line(BANNER);
    }
    let mut fleet = Fleet::start(config, directory.path(), Ports::Any, false)?;
    let toured = tokio::select! {
        toured = tour(&mut fleet, output) => toured,
        () = shutdown.requested() => Err(Failure::failed("interrupted")),
    };
    if toured.is_ok() && arguments.stay && !output.is_json() {
        fleet.print_places(output);
        output.line("the fleet stays until Ctrl-C");
        tokio::select! {
            failure = fleet.ended() => return Err(failure),
            () = shutdown.requested() => {}
        }
    }
    let stopped = fleet.stop().await;
    toured.and(stopped)
}

async fn tour(fleet: &mut Fleet, output: &Output) -> Result<(), Failure> {
    come_up(fleet, output).await?;
    let endpoints = fleet.endpoints();
    if !output.is_json() {
        output.heading("The fleet, as its services answer now");
        Picture::take(&endpoints).await?.print(&endpoints, output);
    }
    let mut results = Vec::new();
    for example in examples::ALL {
        results.push(show(example, &endpoints, output).await?);
    }
    if output.is_json() {
        output.json(&Value::Array(results));
        return Ok(());
    }
    output.heading("After the work");
    Picture::take(&endpoints).await?.print(&endpoints, output);
    output.heading("Where to look next");
    for line in [
        "muster dev                                   the same fleet, with a data directory that survives kill -9",
        "muster send --skill weather_forecasting \"Seattle 2014-03-01 to 2014-03-05\"",
        "muster workflow run services/muster/examples/trip.yaml --input @services/muster/examples/trip.json --wait",
        "README.md                                    architecture, configuration, failure matrix",
    ] {
        output.line(&format!("  {line}"));
    }
    Ok(())
}

/// One spinner for each component while it starts.
async fn come_up(fleet: &mut Fleet, output: &Output) -> Result<(), Failure> {
    for name in fleet.names() {
        let spinner = spinner(&format!("starting {name}"), output);
        let outcome = fleet.component_ready(name).await;
        match outcome {
            Ok(()) => done(spinner, &format!("✔ {name} is serving"), output),
            Err(failure) => {
                done(spinner, &format!("✘ {name}"), output);
                return Err(failure);
            }
        }
    }
    let spinner = spinner("waiting until all agents are registered", output);
    fleet.ready().await?;
    done(
        spinner,
        &format!("✔ everything is up after {:.2} s", fleet.ready_in().as_secs_f64()),
        output,
    );
    Ok(())
}

async fn show(example: &Example, endpoints: &Endpoints, output: &Output) -> Result<Value, Failure> {
    if !output.is_json() {
        output.heading(example.title);
        output.line(example.about);
    }
    let clock = SystemClock::default();
    let before = clock.monotonic();
    let bar = spinner("starting the run", output);
    let input = example.input()?;
    let view = workflow::start_and_wait(example.document, &input, endpoints, |event| {
        if let Some(bar) = &bar {
            bar.set_message(format!("{} {}", event.r#type, event.task));
        } else if !output.is_json() && event.r#type.starts_with("task.") {
            output.line(&format!("  {:<16} {}", event.r#type, event.task));
        }
    })
    .await?;
    let took = clock.monotonic().saturating_sub(before);
    let run = &view.run;
    let summary = format!(
        "{} run {} {} in {:.0} ms, {} journal entries",
        if run.status() == RunStatus::Completed {
            "✔"
        } else {
            "✘"
        },
        run.run_id,
        workflow::status_name(run.status()),
        took.as_secs_f64() * 1e3,
        view.events.len()
    );
    done(bar, &summary, output);
    if run.status() != RunStatus::Completed {
        let detail = run
            .error
            .as_ref()
            .map(|error| format!(": {} ({})", error.detail, error.instance))
            .unwrap_or_default();
        return Err(Failure::failed(format!(
            "{} did not complete{detail}",
            example.title
        )));
    }
    if !output.is_json() {
        let result: Value = serde_json::from_str(&run.output_json)
            .map_err(|error| Failure::failed(format!("the output is not JSON: {error}")))?;
        for line in example.lines(&result) {
            output.line(&format!("  {line}"));
        }
    }
    Ok(workflow::run_json(run))
}

fn spinner(message: &str, output: &Output) -> Option<ProgressBar> {
    if !output.is_terminal() {
        return None;
    }
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(80));
    Some(bar)
}

fn done(bar: Option<ProgressBar>, message: &str, output: &Output) {
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if !output.is_json() {
        output.line(message);
    }
}
