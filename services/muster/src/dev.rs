//! `muster dev`: every service in one process, for a laptop.
//!
//! The services are the very ones that run apart in production, with their own ports, their own directories
//! under the data directory and gRPC between them: what works here works there.

use std::path::{Path, PathBuf};

use muster_runtime::Shutdown;
use muster_store::redis::Address;
use serde_json::json;
use tempfile::TempDir;

use crate::cli::DevArguments;
use crate::failure::Failure;
use crate::fleet::{self, Fleet};
use crate::output::Output;

/// Runs `muster dev` until Ctrl-C, SIGTERM, or the end of a service that must not end.
pub async fn run(arguments: DevArguments, output: &Output) -> Result<(), Failure> {
    let mut config = fleet::Config::load(arguments.config.as_deref(), &arguments.set)?;
    if let Some(url) = arguments.redis {
        // Not what was given: it may hold a password.
        let _address: Address = url
            .parse()
            .map_err(|error| Failure::usage(format!("--redis: {error}")))?;
        config.registry.redis_cluster_endpoint = Some(url.clone());
        config.router.redis_cluster_endpoint = Some(url.clone());
        config.agent.redis_cluster_endpoint = Some(url.clone());
        config.engine.redis_cluster_endpoint = Some(url);
    }
    if arguments.print_config {
        output.line(&config.printed()?);
        return Ok(());
    }
    config.start_telemetry();
    let directory = Directory::choose(arguments.data_dir, arguments.ephemeral)?;
    std::fs::create_dir_all(directory.path()).map_err(|error| {
        Failure::usage(format!("--data-dir {}: {error}", directory.path().display()))
            .with_remedy("choose another, or correct its permissions")
    })?;
    let in_redis = in_redis(&config);
    let shutdown = Shutdown::on_signals();
    let mut fleet = Fleet::start(config, directory.path(), arguments.ports, arguments.tls)?;
    tokio::select! {
        ready = fleet.ready() => ready?,
        () = shutdown.requested() => return fleet.stop().await,
    }
    // Only now: until its stores are locked, the directory may be another fleet's.
    fleet.write_endpoints(directory.path())?;
    announce(&fleet, &directory, &in_redis, output);
    tokio::select! {
        ended = fleet.ended() => Err(ended),
        () = shutdown.requested() => {
            if !output.is_json() {
                output.line("stopping: finishing what is in flight");
            }
            fleet.stop().await
        }
    }
}

/// What is kept in which Redis, by the settings. Addresses are shown without their passwords.
fn in_redis(config: &fleet::Config) -> Vec<(&'static str, String)> {
    let kept = [
        (
            "the engine's catalogue and runs",
            &config.engine.redis_cluster_endpoint,
        ),
        ("the registry's leases", &config.registry.redis_cluster_endpoint),
        ("what routers share", &config.router.redis_cluster_endpoint),
        ("the agents' tasks", &config.agent.redis_cluster_endpoint),
    ];
    let shown = |url: &String| url.parse().map(|address: Address| address.to_string()).ok();
    kept.into_iter()
        .filter_map(|(what, url)| Some((what, url.as_ref().and_then(shown)?)))
        .collect()
}

fn announce(fleet: &Fleet, directory: &Directory, in_redis: &[(&str, String)], output: &Output) {
    let ready_in = fleet.ready_in();
    if output.is_json() {
        output.json_line(&json!({
            "ready": true,
            "readyInSeconds": ready_in.as_secs_f64(),
            "dataDirectory": directory.path(),
            "certificates": fleet.certificates(),
            "redis": in_redis.first().map(|(_, address)| address),
            "services": fleet.places_json(),
        }));
        return;
    }
    fleet.print_places(output);
    output.line(&format!(
        "ready in {:.2} s; data in {}",
        ready_in.as_secs_f64(),
        directory.describe()
    ));
    for (what, address) in in_redis {
        output.line(&format!("{what} are in Redis at {address}"));
    }
    if let Some(certificates) = fleet.certificates() {
        output.line(&format!(
            "the services speak mutual TLS; the certificates are in {}",
            certificates.display()
        ));
    }
    for line in fleet.next_steps() {
        output.line(&line);
    }
    output.line("Ctrl-C stops everything");
}

/// Where the fleet keeps what must survive.
pub enum Directory {
    /// Stays.
    Kept(PathBuf),
    /// Goes with the process.
    Temporary(TempDir),
}

impl Directory {
    /// A directory that goes with the process.
    pub fn temporary() -> Result<Self, Failure> {
        tempfile::Builder::new()
            .prefix("muster-")
            .tempdir()
            .map(Self::Temporary)
            .map_err(|error| Failure::usage(format!("no temporary directory can be made: {error}")))
    }

    fn choose(given: Option<PathBuf>, ephemeral: bool) -> Result<Self, Failure> {
        if ephemeral {
            return Self::temporary();
        }
        if let Some(directory) = given {
            return Ok(Self::Kept(directory));
        }
        let base = std::env::var_os("XDG_DATA_HOME")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
            .ok_or_else(|| {
                Failure::usage("neither XDG_DATA_HOME nor HOME is set")
                    .with_remedy("name a directory with --data-dir, or use --ephemeral")
            })?;
        Ok(Self::Kept(base.join("muster")))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Kept(path) => path.display().to_string(),
            Self::Temporary(directory) => {
                format!("{} (goes when this process ends)", directory.path().display())
            }
        }
    }
}
