//! The agent around the analysis: decode, compute off the async threads, encode.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_agent_sdk::{Agent, Artifact, Card, Failure, Reply, Request, Skill, Task};
use muster_runtime::clock::SharedClock;
use tokio::sync::Semaphore;

use crate::analysis::{self, Report};
use crate::job::{Body, DATA_PROCESSING, File, Job, STATISTICAL_ANALYSIS, VISUALIZATION};
use crate::operation::Error;
use crate::sql;

/// How long one SQL statement may run.
const STATEMENT_TIME: Duration = Duration::from_millis(900);

/// Answers questions about tables.
///
/// Analyses compute, so only as many run at once as there are processors; the others wait for their turn, at most as
/// many as the SDK admits.
pub struct DataAnalysis {
    clock: SharedClock,
    processors: Arc<Semaphore>,
}

impl DataAnalysis {
    /// An agent that measures the time of statements with `clock`.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            clock,
            processors: Arc::new(Semaphore::new(processors)),
        }
    }
}

/// Ends the SQL of an analysis for which nobody waits any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Agent for DataAnalysis {
    fn card(&self) -> Card {
        let name = "Data analysis";
        let description = "Statistics, grouping, SQL and charts over a CSV or JSON table";
        Card::new("data-analysis", name, description, env!("CARGO_PKG_VERSION"))
            .input_mode("text/csv")
            .input_mode("application/x-ndjson")
            .input_mode("application/octet-stream")
            .skill(
                Skill::new(DATA_PROCESSING, "Data processing", "Groups, aggregates and queries a table (SQL over `data`)")
                    .tags(["csv", "json", "sql", "group-by"])
                    .example(r#"{"csv": "city,rain\nOslo,2\nOslo,4", "operation": {"type": "sql", "query": "SELECT city, avg(rain) AS rain FROM data GROUP BY city"}}"#)
                    .idempotent(),
            )
            .skill(
                Skill::new(STATISTICAL_ANALYSIS, "Statistical analysis", "Summary statistics, correlations and outliers of a table")
                    .tags(["statistics", "correlation", "outliers"])
                    .example(r#"{"csv": "rain,wind\n2,3\n4,5\n90,4"}"#)
                    .idempotent(),
            )
            .skill(
                Skill::new(VISUALIZATION, "Visualization", "Line, bar and scatter charts and histograms as SVG")
                    .tags(["chart", "svg"])
                    .example(r#"{"csv": "day,rain\n2014-03-01,2\n2014-03-02,4", "operation": {"type": "chart", "kind": "line", "x": "day", "y": "rain"}}"#)
                    .idempotent(),
            )
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        let body: Body = request.parse()?.unwrap_or_default();
        let files: Vec<File<'_>> = request
            .files()
            .iter()
            .map(|file| File {
                name: file.name.as_deref(),
                media_type: file.media_type.as_deref(),
                bytes: &file.bytes,
            })
            .collect();
        let job = Job::new(request.skill.as_deref(), body, request.text(), &files).map_err(refused)?;
        let Ok(turn) = Arc::clone(&self.processors).acquire_owned().await else {
            return Err(Failure::failed(
                "the agent is shutting down; send the request again",
            ));
        };
        task.working("reading the table").await;
        let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
        let (stopped, clock) = (Arc::clone(&stop.0), Arc::clone(&self.clock));
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn; // until the computation has really ended, also when the handler has not waited for it
            let (table, steps) = job.read()?;
            analysis::run(&table, &steps, &|| interrupt(&clock, &stopped))
        });
        let report = tokio::select! {
            done = work => done,
            () = task.cancelled() => return Err(Failure::failed("cancelled")),
        };
        match report {
            Ok(report) => Ok(reply(report.map_err(refused)?)),
            Err(error) => {
                tracing::error!(%error, task = task.id(), "an analysis ended abnormally");
                Err(Failure::failed(
                    "the analysis ended abnormally; the agent's log says why",
                ))
            }
        }
    }
}

fn refused(error: Error) -> Failure {
    Failure::invalid_field(error.field, error.message)
}

/// True once the statement has had its time, or nobody waits for its answer.
fn interrupt(clock: &SharedClock, stopped: &Arc<AtomicBool>) -> sql::Interrupt {
    let (clock, stopped) = (Arc::clone(clock), Arc::clone(stopped));
    let end = clock.monotonic() + STATEMENT_TIME;
    Box::new(move || stopped.load(Ordering::Relaxed) || clock.monotonic() >= end)
}

fn reply(report: Report) -> Reply {
    report.charts.into_iter().fold(
        Reply::completed(report.summary).data(report.data),
        |reply, chart| reply.artifact(Artifact::file(chart.file, "image/svg+xml", chart.svg)),
    )
}
