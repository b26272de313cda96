//! Commands that run a fleet on this machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which ports `dev` listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ports {
    /// The documented ones (7401 and up).
    Default,
    /// Free ones, chosen by the system; printed and written to `endpoints.json` in the data directory.
    Any,
}

/// Arguments of `muster dev`.
#[derive(Debug, Args)]
pub struct DevArguments {
    /// Where to keep what must survive; default: `muster` in the user's data directory.
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub data_dir: Option<PathBuf>,
    /// Keep nothing: a temporary directory that goes when the process ends.
    #[arg(long)]
    pub ephemeral: bool,
    /// Keep in this Redis what several of a kind would share (the engine's catalogue and runs, the registry's leases, owners of tasks,
    /// agents' tasks): redis://HOST:PORT, redis+sentinel://HOST:PORT,…/PRIMARY or redis+cluster://HOST:PORT,…
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// A configuration file (TOML, YAML or JSON).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, such as `engine.max_concurrent_workflows=10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the configuration as it results and stop.
    #[arg(long)]
    pub print_config: bool,
    /// Which ports to listen on.
    #[arg(long, value_enum, default_value_t = Ports::Default)]
    pub ports: Ports,
    /// Let the services speak mutual TLS, as they do apart from each other; the certificates are in `certificates` in the data
    /// directory, and made where there are none.
    #[arg(long, env = "MUSTER_DEV_TLS")]
    pub tls: bool,
}

/// Arguments of `muster demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Keep the fleet running after the tour, until Ctrl-C.
    #[arg(long)]
    pub stay: bool,
}
