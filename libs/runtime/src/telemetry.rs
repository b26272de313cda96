//! The section `telemetry`: structured logs, for people on a terminal and as JSON otherwise; and where traces go.
//!
//! What belongs to the process and not to a service is started here, once: the log subscriber, the hook that logs
//! panics, the name of the environment, and the collector of traces. What is logged can be changed while the process runs
//! ([`logs`]).

pub mod logs;
pub mod otlp;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use muster_api::names::is_dns_label;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;

use crate::config::Mistakes;
use crate::tasks::panic_message;

/// The environment of a process that was not told another.
const DEVELOPMENT: &str = "development";

/// The environment of this process: several services in one process are in the same.
static ENVIRONMENT: OnceLock<String> = OnceLock::new();

/// Where this process sends its traces: several services in one process send them to the same place.
static OTLP: OnceLock<otlp::Config> = OnceLock::new();

/// Whether this process measures nothing.
static UNMEASURED: OnceLock<bool> = OnceLock::new();

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people when standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What a service does about what it finds slow in what it measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// It does not look.
    Off,
    /// It says what it would change.
    #[default]
    Report,
    /// It changes what is safe, within the bounds of its own section.
    Apply,
}

impl Optimizer {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Apply => "apply",
        }
    }
}

/// The section `telemetry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`, or a filter such as `info,muster_router=debug`.
    pub log_level: String,
    /// How logs are written.
    pub log_format: Format,
    /// Which deployment this is, such as `production`: a label of the metric `agent_info`.
    pub environment: String,
    /// Whether anything is measured. Off only to find out what that costs.
    pub metrics: bool,
    /// Where traces go.
    pub otlp: otlp::Config,
    /// What is done about what is slow.
    pub optimizer: Optimizer,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: "INFO".to_owned(),
            log_format: Format::Auto,
            environment: DEVELOPMENT.to_owned(),
            metrics: true,
            otlp: otlp::Config::default(),
            optimizer: Optimizer::default(),
        }
    }
}

impl Config {
    /// Adds what is wrong.
    pub fn validate(&self, mistakes: &mut Mistakes) {
        if let Err(what) = logs::parsed(&self.log_level) {
            mistakes.add("telemetry.log_level", what);
        }
        self.otlp.validate(mistakes);
        if !is_dns_label(&self.environment) {
            mistakes.add(
                "telemetry.environment",
                format!(
                    "'{}' is not a name; allowed: up to 63 lower-case letters, digits and '-', such as production",
                    self.environment
                ),
            );
        }
    }
}

/// Starts the logs of this process, on standard error, and has panics logged like everything else. The first call
/// wins: several services share one process.
pub fn init(config: &Config) {
    // An invalid filter was refused by `validate`; a caller that skipped it gets INFO.
    let filter = logs::parsed(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let human = match config.log_format {
        Format::Human => true,
        Format::Json => false,
        Format::Auto => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false) // it would tell them on the same broken standard error, and panic
        .with_writer(|| LossyStderr);
    let outcome = if human {
        let builder = builder.with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        builder
            .try_init()
            .map(|()| logs::started(&config.log_level, move |filter| handle.reload(filter)))
    } else {
        let json = format().json().flatten_event(true).with_current_span(true);
        let builder = builder.json().event_format(logs::Identified(json));
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        builder
            .try_init()
            .map(|()| logs::started(&config.log_level, move |filter| handle.reload(filter)))
    };
    let _first_wins = OTLP.set(config.otlp.clone());
    let _first_wins = UNMEASURED.set(!config.metrics);
    let environment = ENVIRONMENT.get_or_init(|| config.environment.clone());
    if outcome.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    } else {
        tracing::debug!(environment, "logs were started before");
    }
}

/// Standard error, where what cannot be written is dropped: a full disk or a closed pipe behind the logs must not end
/// the service.
struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _dropped = std::io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The environment of this process.
pub(crate) fn environment() -> &'static str {
    ENVIRONMENT.get().map_or(DEVELOPMENT, String::as_str)
}

/// Whether this process measures anything.
pub(crate) fn measured() -> bool {
    UNMEASURED.get() != Some(&true)
}

/// Where this process sends its traces, if it does.
pub(crate) fn traced() -> Option<&'static otlp::Config> {
    OTLP.get().filter(|otlp| otlp.is_on())
}

/// One event a panic, in place of the default hook's lines, which no log pipeline can read.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture(); // only where RUST_BACKTRACE asks for it
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        reason = panic_message(panic.payload()),
        location = panic.location().map(tracing::field::display),
        thread = thread.name(),
        backtrace,
        "panic"
    );
}
