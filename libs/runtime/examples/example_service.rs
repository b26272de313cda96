//! The smallest service: `GET /` greets. The tests start it as a process of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use muster_runtime::config::{Mistakes, Settings};
use muster_runtime::{
    Chassis, Error, Listeners, Shutdown, Surface, data_directory, server, telemetry, trust,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    server: server::Config,
    telemetry: telemetry::Config,
    trust: trust::Config,
    example: Example,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Example {
    greeting: String,
    data_directory: Option<PathBuf>,
    /// Lets the service's essential task fail with this reason.
    fail_with: Option<String>,
    token: Option<String>,
}

impl Default for Example {
    fn default() -> Self {
        Self {
            greeting: "hello".to_owned(),
            data_directory: None,
            fail_with: None,
            token: None,
        }
    }
}

impl Settings for Config {
    fn server(&self) -> &server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn trust(&self) -> Option<&trust::Config> {
        Some(&self.trust)
    }

    fn validate(&self, mistakes: &mut Mistakes) {
        if self.example.greeting.is_empty() {
            mistakes.add("example.greeting", "must not be empty");
        }
    }

    fn secrets() -> &'static [&'static str] {
        &["example.token"]
    }
}

fn main() -> ExitCode {
    muster_runtime::main("example", Config::default(), run)
}

async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    let Example {
        greeting,
        data_directory,
        fail_with,
        ..
    } = config.example;
    let _directory = data_directory
        .map(|path| data_directory::open(&path))
        .transpose()?;
    let chassis = Chassis::new("example", &config.server, &config.trust, &[], shutdown.clone())?;
    chassis.tasks.essential("example work", async move {
        if let Some(reason) = fail_with {
            return Err(reason);
        }
        shutdown.requested().await;
        Ok(())
    });
    let routes = Router::new()
        .route("/", get(|| async { greeting }))
        .route(
            "/panic",
            get(|| async {
                assert!(!std::hint::black_box(true), "on purpose");
            }),
        )
        .route(
            "/held",
            get(|| {
                tracing::info!("a request is held");
                std::future::pending::<()>()
            }),
        );
    let surface = Surface::new(tonic_health::pb::FILE_DESCRIPTOR_SET).http(routes);
    chassis.serve(listeners, surface).await
}
