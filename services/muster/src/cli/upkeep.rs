//! Commands for whoever looks after a running system.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::connect::Service;

/// `muster optimize …`.
#[derive(Debug, Subcommand)]
pub enum OptimizeCommand {
    /// Show bottlenecks and improvements, each with its evidence, and what was changed.
    Report,
    /// Take back what the router and the engine have changed by themselves; what it was about is left alone until they start again.
    Revert(RevertArguments),
}

/// Arguments of `muster optimize revert`.
#[derive(Debug, Args)]
pub struct RevertArguments {
    /// Changes, as the report names them: `router-3`, `engine-1`. Later ones of the same place are taken back with them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `muster log-level`.
#[derive(Debug, Args)]
pub struct LogLevelArguments {
    /// Whose logs; in `muster dev` all services are one process, and share them.
    #[arg(value_enum)]
    pub service: Service,
    /// TRACE, DEBUG, INFO, WARN or ERROR, or a filter such as `info,muster_router=debug`; empty for what is configured. Not given:
    /// what is logged is shown.
    pub filter: Option<String>,
    /// After how many seconds what is configured is logged again.
    #[arg(long, value_name = "SECONDS", requires = "filter")]
    pub revert_after: Option<u64>,
}

/// Arguments of `muster backup`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The file to write; `-` for standard output.
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Replace the file if it is there.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `muster restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: String,
    /// The directory to make: one that is not there yet, or empty.
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}
