//! Brings a service up, keeps it observable, and takes it down in order.
//!
//! Up means: the ports accept, and `grpc.health.v1` says NOT_SERVING until `/ready` says yes. A service whose store is away
//! is up in this sense, and refuses everything with UNAVAILABLE: it waits and is not restarted again and again.
//!
//! Down means: the service says NOT_SERVING and `/ready` 503, the drain hooks run (an agent says goodbye to the
//! registry), requests in flight finish, then the essential tasks do. All of that shares one deadline, counted from
//! the moment that the shutdown was asked for; what is left then is cut. Health and metrics answer until the end.
//!
//! Only the process can be asked to end: a panic in a check, a hook, a request or a task is told and stays there.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use futures::FutureExt as _;
use http::{HeaderMap, StatusCode, header};
use muster_api::admin::admin_service_server::AdminServiceServer;
use tokio::time::Instant;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::Admin;
use crate::clock::{SharedClock, SystemClock};
use crate::health::{self, Health, Question};
use crate::http::{Answers, Contract, Layers, Requests, fallback, not_yet, serve};
use crate::machine::{self, Blocking};
use crate::metrics::{Definition, Metrics};
use crate::tasks::{Ended, Tasks, panic_message};
use crate::trace::Tracer;
use crate::trace::export::{Queue, Sender};
use crate::transcode::Transcoder;
use crate::trust::audit::Auditor;
use crate::trust::entrance::Entrance;
use crate::trust::gate::Gate;
use crate::trust::metrics::Meters;
use crate::trust::refusals::Refusals;
use crate::trust::{self, Declared, Trust, Workload, policy};
use crate::{Error, Listeners, Shutdown, Surface, server, telemetry};

/// How often readiness is told to `grpc.health.v1` when nothing is known to have changed.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// How long a system check may take.
const SYSTEM_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long callers of a service that is about to come up wait before they are told that it has not.
const HOLD_AFTER: Duration = Duration::from_millis(500);
/// How long answers that say so may take to be written when the service has come up. Streams that watch its health are cut.
const HOLD_DRAIN: Duration = Duration::from_millis(250);
/// How often histograms are moved into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The gRPC services that the chassis adds.
const OURS: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The contract of reflection, which it lists by itself.
const REFLECTION: [&[u8]; 2] = [
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// gRPC services that every data port has beside its own.
const ALWAYS_SERVED: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

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
    /// How this service proves who it is, and knows who the others are.
    pub trust: Trust,
    /// Makes this service's spans, where `telemetry.otlp` is on.
    pub tracer: Tracer,
    spans: Option<Queue>,
    name: &'static str,
    server: server::Config,
    gate: Arc<Gate>,
    ended: Ended,
    hooks: Vec<(String, Hook)>,
    /// When everything has to be over, once it is known.
    drained_by: Option<Instant>,
}

impl Chassis {
    /// A chassis for the service `name` with its metric `definitions`, which lets in whom `trust` says.
    ///
    /// # Errors
    ///
    /// When a definition is wrong, or keys or the audit log cannot be used.
    pub fn new(
        name: &'static str,
        server: &server::Config,
        trust: &trust::Config,
        definitions: &'static [Definition],
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let metrics = Metrics::new(definitions)?;
        let labels = [
            ("service", name.to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("environment", telemetry::environment().to_owned()),
        ];
        metrics.gauge("agent_info", &labels).set(1.0);
        let health = Health::new(Arc::clone(&clock));
        let memory = Blocking::new(machine::memory_left);
        health.check(
            health::Kind::Informational,
            "memory",
            SYSTEM_CHECK_TIMEOUT,
            move || memory.outcome(),
        );
        let (tasks, ended) = Tasks::new(shutdown.clone());
        let (tracer, spans) = tracing_to(name, &clock, &metrics, &tasks)?;
        let (trust, gate) = secured(trust, server, name, &clock, &metrics)?;
        let chassis = Self {
            tracer,
            spans,
            clock,
            metrics,
            health,
            tasks,
            shutdown,
            trust,
            name,
            server: server.clone(),
            gate,
            ended,
            hooks: Vec::new(),
            drained_by: None,
        };
        chassis.trust.attend(&chassis);
        Ok(chassis)
    }

    /// Secures the data port as the section `trust` says, by this chassis' clock, and keeps certificates fresh. [`Self::new`] has done
    /// it by the machine's clock; this is for who has set another.
    ///
    /// # Errors
    ///
    /// The section is wrong, or a file of it is.
    pub fn secure(&mut self, config: &trust::Config) -> Result<(), Error> {
        (self.trust, self.gate) = secured(config, &self.server, self.name, &self.clock, &self.metrics)?;
        self.trust.attend(self);
        Ok(())
    }

    /// What callers of the data port have to show, for agent cards.
    #[must_use]
    pub fn declared(&self) -> Declared {
        self.gate.declared()
    }

    /// Counts who is refused, for operators: by the gate, and by what the service itself refuses.
    fn refusals(&self) -> Refusals {
        self.gate.refusals().clone()
    }

    /// Puts into the audit log what this service changes by itself.
    #[must_use]
    pub fn auditor(&self) -> Auditor {
        Auditor::new(self.name, self.gate.audit().cloned())
    }

    /// Runs when a shutdown is asked for, before requests in flight are waited for; in the order added, all of
    /// them within the drain deadline.
    pub fn on_drain<F>(&mut self, name: impl Into<String>, hook: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hooks.push((name.into(), Box::new(move || Box::pin(hook()))));
    }

    /// Adds a check that the disk under `path` has a tenth or 4 GiB free.
    pub fn check_disk(&self, path: impl Into<PathBuf>) {
        let path = path.into();
        let disk = Blocking::new(move || machine::disk_left(&path));
        self.health.check(
            health::Kind::Informational,
            "disk",
            SYSTEM_CHECK_TIMEOUT,
            move || disk.outcome(),
        );
    }

    /// Waits for what the service cannot start without, such as its store. Where that takes longer than half a second, the
    /// ports answer meanwhile: health and metrics as ever, `grpc.health.v1` with NOT_SERVING for `services`, everything else
    /// on the data port with UNAVAILABLE. `None` where the shutdown was asked for first: there is nothing to drain then.
    ///
    /// # Errors
    ///
    /// [`Error::Task`] when an essential task ended; [`Error::Serve`] when the ports cannot be served.
    pub async fn hold<T>(
        &mut self,
        listeners: &Listeners,
        services: &'static [&'static str],
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Error> {
        let shutdown = self.shutdown.clone();
        let server = server::Config {
            workers: 0,
            ..self.server.clone()
        };
        let handshakes = self.trust.handshakes(Meters::new(self.metrics.clone()));
        let (health, metrics) = (self.health.clone(), self.metrics.clone());
        let turned_away = Arc::clone(self.gate.turned_away());
        let ended = &mut self.ended;
        let stop = Shutdown::new();
        let work = async {
            let outcome = tokio::select! {
                output = work => Ok(Some(output)),
                () = shutdown.requested() => Ok(None),
                Some(failure) = ended.recv() => Err(failure),
            };
            stop.trigger();
            outcome
        };
        tokio::pin!(work);
        tokio::select! {
            biased;
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(HOLD_AFTER) => {}
        }
        let [data_port, health_port, metrics_port] = listeners.again()?.into_tokio()?;
        let (reporter, grpc_health) = tonic_health::server::health_reporter();
        for service in services.iter().copied().chain(std::iter::once("")) {
            reporter
                .set_service_status(service, ServingStatus::NotServing)
                .await;
        }
        let refusing = tonic::service::Routes::new(grpc_health)
            .prepare()
            .into_axum_router()
            .fallback(not_yet);
        tracing::warn!(
            service = self.name,
            "up, and waiting for what it cannot start without"
        );
        let drained = || async {
            stop.requested().await;
            tokio::time::sleep(HOLD_DRAIN).await;
        };
        let (outcome, ..) = tokio::join!(
            work,
            serve(
                data_port,
                refusing,
                &server,
                handshakes,
                Some(&turned_away),
                &stop,
                drained()
            ),
            serve(
                health_port,
                health_router(health),
                &server,
                None,
                None,
                &stop,
                drained()
            ),
            serve(
                metrics_port,
                metrics_router(metrics),
                &server,
                None,
                None,
                &stop,
                drained()
            ),
        );
        outcome
    }

    /// Serves until a shutdown is asked for or an essential task ends.
    ///
    /// # Errors
    ///
    /// [`Error::Task`] when an essential task ended; [`Error::Serve`] when a port or the contract cannot be served.
    pub async fn serve(mut self, listeners: Listeners, surface: Surface) -> Result<(), Error> {
        let address = listeners.data_address();
        let [data, health, metrics] = listeners.into_tokio()?;
        self.gate.set_behind_router(surface.is_behind_router);
        if let Some(upkeep) = self.gate.upkeep() {
            self.tasks.spawn("audit log", upkeep);
        }
        let (grpc_health, answers) = self.answers(surface)?;
        // Before the first connection: tonic says SERVING for the empty name from the start.
        grpc_health.tell(ServingStatus::NotServing).await;
        self.tasks.spawn("metrics upkeep", upkeep(self.metrics.clone()));
        let stop = Shutdown::new();
        let plain = server::Config {
            max_connections: 256,
            workers: 0,
            ..self.server.clone()
        };
        let served_health = serve(
            health,
            health_router(self.health.clone()),
            &plain,
            None,
            None,
            &stop,
            async {},
        );
        let served_metrics = serve(
            metrics,
            metrics_router(self.metrics.clone()),
            &plain,
            None,
            None,
            &stop,
            async {},
        );
        tracing::info!(service = self.name, %address, "serving");

        let outcome = {
            let (tell, name) = (tell_health(self.health.clone(), grpc_health), self.name);
            let work = self.until_drained(data, answers);
            tokio::pin!(work);
            tokio::select! {
                outcome = &mut work => outcome,
                never = tell => match never {},
                _ = async { tokio::join!(served_health, served_metrics) } => {
                    Err(Error::Serve(format!("{name}: the health and metrics ports ended")))
                }
            }
        };
        if let Some(spans) = &self.spans {
            spans.flush(self.drained_by.unwrap_or_else(Instant::now)).await;
        }
        stop.trigger();
        self.tasks.stop().await;
        tracing::info!(service = self.name, "stopped");
        outcome
    }

    /// What answers on the data port, and who tells `grpc.health.v1`.
    pub(crate) fn answers(&self, surface: Surface) -> Result<(GrpcHealth, Answers), Error> {
        let requests = Requests::new(self.metrics.clone(), Arc::clone(&self.clock), self.name);
        let surface = surface.grpc(AdminServiceServer::new(Admin {
            requests: requests.clone(),
            clock: Arc::clone(&self.clock),
            tasks: self.tasks.clone(),
            health: self.health.clone(),
            refusals: self.refusals(),
        }));
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let sets = [surface.descriptor_set, tonic_health::pb::FILE_DESCRIPTOR_SET];
        // The contract describes every service; listed is what this one serves.
        let listed = surface.services.iter().copied().chain(ALWAYS_SERVED);
        let reflection = || {
            let builder = sets
                .iter()
                .fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                    builder.register_encoded_file_descriptor_set(set)
                });
            listed
                .clone()
                .fold(builder, |builder, name| builder.with_service_name(name))
        };
        let broken = |error: tonic_reflection::server::Error| Error::Serve(format!("reflection: {error}"));
        let v1 = reflection().build_v1().map_err(broken)?;
        let v1alpha = reflection().build_v1alpha().map_err(broken)?;

        let (services, descriptor_set) = (surface.services.clone(), surface.descriptor_set);
        let (mut routes, http, direct) = surface.into_parts();
        routes
            .add_service(health_service)
            .add_service(v1)
            .add_service(v1alpha);
        let grpc = routes.routes().prepare().into_axum_router();
        let transcoder = Transcoder::new(
            descriptor_set,
            &services,
            grpc.clone(),
            self.server.max_message_bytes,
        )?;
        let entrance = Entrance::new(&self.trust, Arc::clone(self.gate.turned_away()));
        let contract = Contract::new(
            services.iter().copied().chain(OURS),
            &[&sets[..], &REFLECTION].concat(),
        );
        if let Some(path) = contract.served().find(|path| policy::of_method(path).is_none()) {
            return Err(Error::Serve(format!(
                "{path} has no policy; say in the table of `trust::policy` who may call it"
            )));
        }
        let methods = contract.served().filter_map(|path| {
            let (service, _) = path.strip_prefix('/')?.split_once('/')?;
            let (_, service) = direct.iter().find(|(name, _)| *name == service)?;
            Some((path.to_owned(), Arc::clone(service)))
        });
        let methods = methods.collect();
        let layers = Arc::new(Layers::new(
            requests,
            self.tracer.clone(),
            Arc::clone(&self.clock),
            contract,
            transcoder,
            (entrance, Arc::clone(&self.gate)),
            &self.server,
        ));
        let routes = grpc
            .merge(http)
            .fallback(fallback)
            .layer(axum::extract::DefaultBodyLimit::disable()); // the layers bound every body
        let answers = Answers::new(&layers, routes, methods);
        Ok((GrpcHealth { reporter, services }, answers))
    }

    /// Serves the data port to the end of its drain, and sees the essential tasks to their end.
    async fn until_drained(
        &mut self,
        listener: tokio::net::TcpListener,
        answers: Answers,
    ) -> Result<(), Error> {
        let hooks = std::mem::take(&mut self.hooks);
        let (server, shutdown, name) = (self.server.clone(), self.shutdown.clone(), self.name);
        let turned_away = Arc::clone(self.gate.turned_away());
        let (stop_accepting, cut_off) = (Shutdown::new(), Shutdown::new());
        let serving = serve(
            listener,
            answers,
            &server,
            self.trust.handshakes(Meters::new(self.metrics.clone())),
            Some(&turned_away),
            &stop_accepting,
            cut_off.requested(),
        );
        tokio::pin!(serving);
        let failure = tokio::select! {
            _ = &mut serving => return Err(Error::Serve(format!("{name}: the data port ended"))),
            failure = self.ended.recv() => failure,
            () = shutdown.requested() => None,
        };
        let deadline = Instant::now() + server.drain_timeout();
        self.drained_by = Some(deadline);
        // From here on tasks may end: it is no failure any more.
        shutdown.trigger();
        self.health.start_draining();
        let drain = async {
            run_hooks(hooks, deadline).await;
            stop_accepting.trigger();
            tokio::time::sleep_until(deadline).await;
            cut_off.trigger();
            std::future::pending::<Infallible>().await
        };
        let cut = tokio::select! {
            cut = &mut serving => cut,
            never = drain => match never {},
        };
        if cut > 0 {
            tracing::warn!(service = name, cut, "connections were cut at the drain deadline");
        }
        self.tasks.finish(deadline).await;
        failure.map_or(Ok(()), Err)
    }
}

/// Who makes the spans of a service, and where they are put; what sends them is spawned.
fn tracing_to(
    name: &'static str,
    clock: &SharedClock,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<(Tracer, Option<Queue>), Error> {
    let Some(config) = telemetry::traced() else {
        return Ok((Tracer::off(), None));
    };
    let (queue, spans) = Queue::new(config.max_queued_spans, config.max_batch_spans, metrics);
    let sender = Sender::new(name, telemetry::environment(), config, spans, metrics)?;
    tasks.spawn("trace export", sender.run());
    let tracer = Tracer::new(config.sample_ratio, Arc::clone(clock), queue.clone());
    Ok((tracer, Some(queue)))
}

/// How the service `name` knows peers and callers, as the section `trust` says.
fn secured(
    config: &trust::Config,
    server: &server::Config,
    name: &str,
    clock: &SharedClock,
    metrics: &Metrics,
) -> Result<(Trust, Arc<Gate>), Error> {
    let trust = Trust::open(config, server, Workload::of_service(name), Arc::clone(clock))?;
    let meters = Meters::new(metrics.clone());
    let gate = Gate::new(config, server, &trust, name, Arc::clone(clock), meters)?;
    Ok((trust, Arc::new(gate)))
}

async fn run_hooks(hooks: Vec<(String, Hook)>, deadline: Instant) {
    let all = async {
        for (name, hook) in hooks {
            tracing::debug!(hook = name, "draining");
            if let Err(panic) = AssertUnwindSafe(async { hook().await }).catch_unwind().await {
                let reason = panic_message(panic.as_ref());
                tracing::error!(hook = name, reason, "a drain hook panicked");
            }
        }
    };
    if tokio::time::timeout_at(deadline, all).await.is_err() {
        tracing::warn!("the drain hooks took until the drain deadline");
    }
}

pub(crate) struct GrpcHealth {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl GrpcHealth {
    /// Says it for the empty name and every service.
    async fn tell(&self, status: ServingStatus) {
        for name in self.services.iter().copied().chain(std::iter::once("")) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// Tells `grpc.health.v1` what `/ready` says, and NOT_SERVING as soon as the drain starts, whatever a check still
/// waits for. Nobody else tells it after the start, so that a late answer cannot undo the drain.
async fn tell_health(health: Health, grpc: GrpcHealth) -> Infallible {
    let follow = async {
        let mut changes = health.changes();
        let mut interval = tokio::time::interval(HEALTH_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Watchers hear of changes, not of every look.
        let mut told = ServingStatus::NotServing;
        loop {
            let status = if health.report(Question::Ready).await.ok {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            if status != told {
                grpc.tell(status).await;
                told = status;
            }
            tokio::select! {
                _ = interval.tick() => {}
                // `health` holds the sender.
                _changed = changes.changed() => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = health.draining() => {}
        never = follow => match never {},
    }
    grpc.tell(ServingStatus::NotServing).await;
    std::future::pending().await
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
    let render = |State(metrics): State<Metrics>, headers: HeaderMap| async move {
        let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let (kind, text) = if accepted.is_some_and(|kinds| kinds.contains("application/openmetrics-text")) {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (kind, metrics.render_open())
        } else {
            ("text/plain; version=0.0.4", metrics.render())
        };
        ([(header::CONTENT_TYPE, kind)], text).into_response()
    };
    Router::new()
        .route("/metrics", get(render))
        .fallback(fallback)
        .with_state(metrics)
}
