//! Commands that send messages and follow their tasks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `muster send`.
#[derive(Debug, Args)]
pub struct SendArguments {
    /// The agent to send to.
    #[arg(
        long,
        value_name = "ID",
        required_unless_present_any = ["skill", "task"],
        conflicts_with = "skill"
    )]
    pub agent: Option<String>,
    /// Any agent that has this skill.
    #[arg(long, value_name = "SKILL")]
    pub skill: Option<String>,
    /// Continue this task; the router knows whose it is.
    #[arg(long, value_name = "ID")]
    pub task: Option<String>,
    /// Print updates as they come.
    #[arg(long)]
    pub stream: bool,
    /// Attach a file.
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// A JSON value, or `@FILE` with one.
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Write the answer's files into this directory.
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// The text.
    #[arg(required_unless_present_any = ["data", "file"])]
    pub text: Option<String>,
}

/// `muster task …`
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Read a task.
    Get {
        /// The task's id.
        id: String,
    },
    /// Ask the agent to stop a task.
    Cancel {
        /// The task's id.
        id: String,
    },
    /// Follow a task until it ends.
    Watch {
        /// The task's id.
        id: String,
    },
}
