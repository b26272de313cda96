//! The `main` of every service binary: configuration, ports, run, exit code.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::config::{self, Mistakes, Settings};
use crate::{Error, Listeners, Shutdown, probe, reload, telemetry};

/// Runs a service to its end. Reads `--config FILE`, `--set section.key=value` (repeatable) and the environment;
/// `--print-config` prints the result and stops; `--check` asks a service that runs with it whether it is ready,
/// and stops. Exit codes: 0 stopped when asked, 1 failed or not ready, 2 configuration, port or data directory;
/// failures print one line on standard error.
pub fn main<C, F, R>(name: &'static str, defaults: C, run: F) -> ExitCode
where
    C: Settings,
    F: FnOnce(C, Listeners, Shutdown) -> R,
    R: Future<Output = Result<(), Error>>,
{
    let matches = Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about("One service of Muster; `muster dev` runs all of them in one process")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file: TOML, YAML or JSON"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("Set one key, such as server.data_port=7401"),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the configuration as it results and stop"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Ask the service that runs with this configuration whether it is ready, and stop"),
        )
        .get_matches();
    let file = matches.get_one::<PathBuf>("config");
    let overrides: Vec<String> = matches
        .get_many::<String>("set")
        .unwrap_or_default()
        .cloned()
        .collect();
    let base = serde_json::to_value(&defaults);
    let config = match configure(defaults, file, &overrides) {
        Ok(config) => config,
        Err(error) => return report(name, &error),
    };
    if matches.get_flag("print-config") {
        let text = serde_json::to_string_pretty(&config::redacted(&config))
            .unwrap_or_else(|error| error.to_string());
        let _closed = writeln!(std::io::stdout(), "{text}");
        return ExitCode::SUCCESS;
    }
    if matches.get_flag("check") {
        return match probe::ready(config.server()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => report(name, &Error::Other(what)),
        };
    }
    // As at the start: with the same defaults, file, environment and flags.
    let again = || {
        let base = base.as_ref().map_err(|error| Error::Other(error.to_string()))?;
        let defaults =
            serde_json::from_value(base.clone()).map_err(|error| Error::Other(error.to_string()))?;
        configure(defaults, file, &overrides)
    };
    match start(config, again, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(name, &error),
    }
}

fn configure<C: Settings>(defaults: C, file: Option<&PathBuf>, overrides: &[String]) -> Result<C, Error> {
    let mut mistakes = Mistakes::default();
    let mut pairs = Vec::new();
    for text in overrides {
        match config::parse_override(text) {
            Ok(pair) => pairs.push(pair),
            Err(what) => mistakes.add("--set", what),
        }
    }
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with(config::PREFIX) => mistakes.add(name, "is not UTF-8"),
            _ => {} // not ours
        }
    }
    config::load_beside(
        mistakes,
        defaults,
        file.map(PathBuf::as_path),
        environment.into_iter(),
        &pairs,
    )
    .map_err(Error::Config)
}

fn start<C, F, R>(config: C, again: impl Fn() -> Result<C, Error>, run: F) -> Result<(), Error>
where
    C: Settings,
    F: FnOnce(C, Listeners, Shutdown) -> R,
    R: Future<Output = Result<(), Error>>,
{
    telemetry::init(config.telemetry());
    let listeners = Listeners::bind(config.server())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Other(format!("cannot start the runtime: {error}")))?;
    let running = serde_json::to_value(&config).map_err(|error| Error::Other(error.to_string()))?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals();
        let following = async {
            if let Some(hangups) = reload::hangups() {
                reload::follow(hangups, running, again).await;
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            never = following => match never {},
            outcome = run(config, listeners, shutdown) => outcome,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

fn report(name: &str, error: &Error) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "{name}: {error}");
    ExitCode::from(error.exit_code())
}
