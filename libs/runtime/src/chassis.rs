//! Brings a service up, keeps it observable, and takes it down in order.
//!
//! Down means: the service says NOT_SERVING and `/ready` 503, the drain hooks run (an agent says goodbye to the
//! registry), requests in flight finish, and at the deadline what is left is cut. Health and metrics answer until
//! the end.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use sysinfo::{Disks, System};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::clock::{SharedClock, SystemClock};
use crate::health::{self, Health, Question};
use crate::http::{Layers, fallback, serve};
use crate::metrics::{Definition, Metrics};
use crate::tasks::{Ended, Tasks};
use crate::{Error, Listeners, Shutdown, Surface, server};

/// How often readiness is told to `grpc.health.v1` when nothing is known to have changed.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// How long a system check may take.
const SYSTEM_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often histograms are moved into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

type Hook = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a service is built on.
pub struct Chassis {
    /// The machine's clocks.
    pub clock: SharedClock,
    /// This service's metrics.
    pub metrics: Metrics,
    /// This service's health.
    pub health: Health,
    /// This service's background tasks.
    pub tasks: Tasks,
    /// The wish to stop.
    pub shutdown: Shutdown,
    name: &'static str,
    server: server::Config,
    ended: Ended,
    hooks: Vec<(String, Hook)>,
}

impl Chassis {
    /// A chassis for the service `name` with its metric `definitions`.
    ///
    /// # Errors
    ///
    /// When a definition is wrong.
    pub fn new(
        name: &'static str,
        server: &server::Config,
        definitions: &'static [Definition],
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let metrics = Metrics::new(definitions)?;
        let labels = [
            ("service", name.to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        metrics.gauge("agent_info", &labels).set(1.0);
        let health = Health::new(Arc::clone(&clock));
        health.check(
            health::Kind::Informational,
            "memory",
            SYSTEM_CHECK_TIMEOUT,
            || off_thread(memory_left),
        );
        let (tasks, ended) = Tasks::new(shutdown.clone());
        Ok(Self {
            clock,
            metrics,
            health,
            tasks,
            shutdown,
            name,
            server: server.clone(),
            ended,
            hooks: Vec::new(),
        })
    }

    /// Runs when a shutdown is asked for, before requests in flight are waited for; in the order added, all of
    /// them within the drain deadline.
    pub fn on_drain<F>(&mut self, name: impl Into<String>, hook: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hooks.push((name.into(), Box::new(move || Box::pin(hook()))));
    }

    /// Adds a check that the disk under `path` has more than a tenth free.
    pub fn check_disk(&self, path: impl Into<PathBuf>) {
        let path = path.into();
        self.health.check(
            health::Kind::Informational,
            "disk",
            SYSTEM_CHECK_TIMEOUT,
            move || {
                let path = path.clone();
                off_thread(move || disk_left(&path))
            },
        );
    }

    /// Serves until a shutdown is asked for or an essential task ends.
    ///
    /// # Errors
    ///
    /// [`Error::Task`] when an essential task ended; [`Error::Serve`] when a port or the contract cannot be served.
    pub async fn serve(mut self, listeners: Listeners, surface: Surface) -> Result<(), Error> {
        let address = listeners.data_address();
        let [data, health, metrics] = listeners.into_tokio()?;
        let (reporter, router) = self.router(surface)?;
        self.tasks.spawn("metrics upkeep", upkeep(self.metrics.clone()));
        let stop = Shutdown::new();
        let plain = server::Config {
            max_connections: 256,
            ..self.server.clone()
        };
        let served_health = serve(health, health_router(self.health.clone()), &plain, &stop, async {
        });
        let served_metrics = serve(
            metrics,
            metrics_router(self.metrics.clone()),
            &plain,
            &stop,
            async {},
        );
        tracing::info!(service = self.name, %address, "serving");

        let outcome = {
            let (tell, name) = (tell_health(self.health.clone(), reporter), self.name);
            let work = self.until_drained(data, router);
            tokio::pin!(work);
            tokio::select! {
                outcome = &mut work => outcome,
                () = tell => Err(Error::Serve(format!("{name}: health is no longer told"))),
                _ = async { tokio::join!(served_health, served_metrics) } => {
                    Err(Error::Serve(format!("{name}: the health and metrics ports ended")))
                }
            }
        };
        stop.trigger();
        self.tasks.stop().await;
        tracing::info!(service = self.name, "stopped");
        outcome
    }

    /// The data port's routes, and who tells `grpc.health.v1`.
    fn router(&self, surface: Surface) -> Result<(GrpcHealth, Router), Error> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let sets = [surface.descriptor_set, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let reflection = || {
            sets.iter()
                .fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                    builder.register_encoded_file_descriptor_set(set)
                })
        };
        let broken = |error: tonic_reflection::server::Error| Error::Serve(format!("reflection: {error}"));
        let v1 = reflection().build_v1().map_err(broken)?;
        let v1alpha = reflection().build_v1alpha().map_err(broken)?;

        let services = surface.services.clone();
        let (mut routes, http) = surface.into_parts();
        routes
            .add_service(health_service)
            .add_service(v1)
            .add_service(v1alpha);
        let layers = Layers::new(self.metrics.clone(), Arc::clone(&self.clock), &sets);
        let router = routes
            .routes()
            .prepare()
            .into_axum_router()
            .merge(http)
            .fallback(fallback)
            .layer(axum::extract::DefaultBodyLimit::max(
                self.server.max_message_bytes,
            ))
            .layer(axum::middleware::from_fn_with_state(layers, Layers::guard));
        Ok((GrpcHealth { reporter, services }, router))
    }

    /// Serves the data port to the end of its drain.
    async fn until_drained(
        &mut self,
        listener: tokio::net::TcpListener,
        router: Router,
    ) -> Result<(), Error> {
        let hooks = std::mem::take(&mut self.hooks);
        let (server, shutdown, name) = (self.server.clone(), self.shutdown.clone(), self.name);
        let stop_accepting = Shutdown::new();
        let deadline = async {
            tokio::time::sleep(server.drain_timeout()).await;
        };
        let serving = serve(listener, router, &server, &stop_accepting, deadline);
        tokio::pin!(serving);
        let failure = tokio::select! {
            _ = &mut serving => return Err(Error::Serve(format!("{name}: the data port ended"))),
            failure = self.ended.recv() => failure,
            () = shutdown.requested() => None,
        };
        // From here on tasks may end: it is no failure any more.
        shutdown.trigger();
        self.health.start_draining();
        let goodbyes = run_hooks(hooks, server.drain_timeout());
        tokio::select! {
            () = goodbyes => {}
            _ = &mut serving => {}
        }
        stop_accepting.trigger();
        let cut = serving.await;
        if cut > 0 {
            tracing::warn!(service = name, cut, "connections were cut at the drain deadline");
        }
        failure.map_or(Ok(()), Err)
    }
}

async fn run_hooks(hooks: Vec<(String, Hook)>, within: Duration) {
    let all = async {
        for (name, hook) in hooks {
            tracing::debug!(hook = name, "draining");
            hook().await;
        }
    };
    if tokio::time::timeout(within, all).await.is_err() {
        tracing::warn!(seconds = within.as_secs(), "the drain hooks took too long");
    }
}

struct GrpcHealth {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

/// Tells `grpc.health.v1` what `/ready` says, for the empty name and every service.
async fn tell_health(health: Health, grpc: GrpcHealth) {
    let mut changes = health.changes();
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let ready = health.report(Question::Ready).await.ok;
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in grpc.services.iter().copied().chain(std::iter::once("")) {
            grpc.reporter.set_service_status(name, status).await;
        }
        tokio::select! {
            _ = interval.tick() => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn upkeep(metrics: Metrics) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.upkeep();
    }
}

fn health_router(health: Health) -> Router {
    let answer = |question| {
        move |State(health): State<Health>| async move {
            let report = health.report(question).await;
            let status = if report.ok {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, Json(report))
        }
    };
    Router::new()
        .route("/health", get(answer(Question::Alive)))
        .route("/ready", get(answer(Question::Ready)))
        .route("/startup", get(answer(Question::Started)))
        .fallback(fallback)
        .with_state(health)
}

fn metrics_router(metrics: Metrics) -> Router {
    let render = |State(metrics): State<Metrics>| async move {
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            metrics.render(),
        )
            .into_response()
    };
    Router::new()
        .route("/metrics", get(render))
        .fallback(fallback)
        .with_state(metrics)
}

/// Asks the system on a thread that may block.
async fn off_thread(ask: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    tokio::task::spawn_blocking(ask)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

fn memory_left() -> Result<(), String> {
    let mut system = System::new().map_err(|error| error.to_string())?;
    system.refresh_memory();
    let (used, total) = (system.used_memory(), system.total_memory());
    if total > 0 && used / 9 > total / 10 {
        return Err(format!(
            "{} of {} MiB in use, more than 90 %",
            used >> 20,
            total >> 20
        ));
    }
    Ok(())
}

fn disk_left(path: &std::path::Path) -> Result<(), String> {
    let path = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let disks = Disks::new_with_refreshed_list().map_err(|error| error.to_string())?;
    let Some(disk) = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
    else {
        return Ok(()); // a container's overlay that the system does not list
    };
    let (free, total) = (disk.available_space(), disk.total_space());
    if total > 0 && free < total / 10 {
        return Err(format!(
            "{}: {} of {} MiB free, less than 10 %",
            path.display(),
            free >> 20,
            total >> 20
        ));
    }
    Ok(())
}
