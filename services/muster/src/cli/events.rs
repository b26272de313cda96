//! Commands about events.

use clap::{Args, Subcommand};

/// `muster event …`
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Add a CloudEvent to the log; the runs that listen for it go on.
    Publish(PublishArguments),
    /// List the log, the oldest first.
    List {
        /// Which events.
        #[command(flatten)]
        filter: EventFilterArguments,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Follow the log until Ctrl-C.
    Watch {
        /// Which events.
        #[command(flatten)]
        filter: EventFilterArguments,
    },
}

/// Which events to show.
#[derive(Debug, Args)]
pub struct EventFilterArguments {
    /// Only events of this type.
    #[arg(long = "type")]
    pub r#type: Option<String>,
    /// Only events of this source.
    #[arg(long)]
    pub source: Option<String>,
    /// From this position of the log on.
    #[arg(long, value_name = "POSITION")]
    pub from: Option<u64>,
}

/// Arguments of `muster event publish`.
#[derive(Debug, Args)]
pub struct PublishArguments {
    /// The event's type.
    #[arg(long = "type", required_unless_present = "event")]
    pub r#type: Option<String>,
    /// Where it comes from; default: `/muster/cli`.
    #[arg(long)]
    pub source: Option<String>,
    /// Your own id; publishing the same source and id again is safe. Default: a new one.
    #[arg(long)]
    pub id: Option<String>,
    /// What it is about.
    #[arg(long)]
    pub subject: Option<String>,
    /// When it happened; default: now.
    #[arg(long)]
    pub time: Option<String>,
    /// The data: JSON, or `@FILE` with JSON.
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "text")]
    pub data: Option<String>,
    /// The data as text.
    #[arg(long)]
    pub text: Option<String>,
    /// What the data are; default: JSON.
    #[arg(long, value_name = "MEDIA TYPE")]
    pub content_type: Option<String>,
    /// Another attribute; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub attribute: Vec<String>,
    /// The whole event in the CloudEvents JSON format, or `@FILE` with it; other arguments go before it.
    #[arg(long, value_name = "JSON|@FILE")]
    pub event: Option<String>,
}
