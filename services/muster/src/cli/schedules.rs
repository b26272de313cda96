//! Commands about schedules.

use clap::Subcommand;

/// `muster schedule …`; a workflow is `NAME`, or `NAMESPACE/NAME`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the schedules: what they say, when they fire next.
    List,
    /// Show one schedule.
    Get {
        /// The workflow.
        name: String,
    },
    /// Let a schedule fire no more until it is resumed; runs that it has started go on.
    Pause {
        /// The workflow.
        name: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a schedule fire again, from now on.
    Resume {
        /// The workflow.
        name: String,
    },
    /// Start a run now.
    Trigger {
        /// The workflow.
        name: String,
        /// The input: JSON, or `@FILE` with JSON.
        #[arg(long, value_name = "JSON|@FILE")]
        input: Option<String>,
        /// Your own id for the run; triggering it again with the same id is safe.
        #[arg(long)]
        id: Option<String>,
    },
    /// Start the runs for the instants of a past time; those that have fired are not started again.
    Backfill {
        /// The workflow.
        name: String,
        /// The first instant, such as 2026-03-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: String,
        /// After the last instant.
        #[arg(long, value_name = "TIME")]
        to: String,
        /// The input: JSON, or `@FILE` with JSON.
        #[arg(long, value_name = "JSON|@FILE")]
        input: Option<String>,
    },
}
