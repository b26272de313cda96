//! The workflow engine: durable runs of CNCF Serverless Workflow documents.
//!
//! ```text
//! gRPC ── engine ──┬── catalogue ──┐
//!                  ├── timetable ──┤
//!                  ├── watching ───┤
//!                  └── floor       ├── store (journals, fsync before every answer)
//!                        │         │
//!                     driver ── executor ── interpreter (libs/workflow-dsl, pure)
//!                                  │
//!                                calls ── caller ── router ── agents
//! ```
//!
//! What is relied upon:
//!
//! - **The journal is the run.** The interpreter is a pure function of the document the run is pinned to and the
//!   journal. After a crash the journal is folded again, nothing in it is evaluated or called again, and calls that
//!   were in flight are sent again under the same message ids.
//! - **Nothing is acknowledged or acted upon before it is on disk.** One write per step holds what ended and what
//!   begins; runs that write at the same time share an fsync.
//! - **A run costs what it does.** It holds one of the slots only while it works, and no memory beyond an entry in
//!   the schedule while it waits.
//! - **A damaged run harms no other.** It is set aside with the reason, which its readers and the log are told.

mod activity;
mod approving;
pub mod behalf;
mod budget;
mod calls;
mod children;
mod driver;
mod erasing;
mod executor;
mod externals;
mod feed;
mod floor;
mod folding;
mod history;
mod life;
mod lifecycle;
mod listening;
mod live;
mod news;
mod off_thread;
mod opening;
pub mod optimize;
mod pace;
mod peers;
mod placement;
mod replicas;
mod retention;
mod snapshot;
mod stalled;
mod starters;
mod subscriptions;

pub mod again;
pub mod approval;
pub mod backup;
pub mod bulk;
pub mod caller;
pub mod catalogue;
pub mod config;
pub mod controls;
pub mod definitions;
pub mod engine;
pub mod error;
pub mod events;
pub mod grpc;
pub mod http;
pub mod labels;
pub mod metrics;
pub mod outbound;
pub mod page;
pub mod partition;
pub mod random;
pub mod run;
pub mod schedule;
pub mod secrets;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod store;
pub mod timetable;
mod trail;
pub mod verify;
pub mod version;
pub mod watching;

use std::sync::Arc;
use std::time::Duration;

use muster_api::workflow::approval_service_server::ApprovalServiceServer;
use muster_api::workflow::backup_service_server::BackupServiceServer;
use muster_api::workflow::event_service_server::EventServiceServer;
use muster_api::workflow::optimization_service_server::OptimizationServiceServer;
use muster_api::workflow::schedule_service_server::ScheduleServiceServer;
use muster_api::workflow::workflow_service_server::WorkflowServiceServer;
use muster_runtime::clock::SharedClock;
use muster_runtime::trust::{Identity, Role, Workload};
use muster_runtime::{Chassis, Error, Listeners, Shutdown, Surface, health};

pub use config::Config;

use backup::Backups;
use caller::Callers;
use caller::caching::Caching;
use caller::direct::Direct;
use caller::emit::Emitter;
use caller::grpc::Grpc;
use caller::mcp::Mcp;
use caller::process::Processes;
use caller::router::Router;
use caller::web::Web;
use engine::{Engine, Parts};
use events::Events;
use opening::{InRedis, Opened};
use outbound::Outbound;
use placement::Placement;
use random::SystemRandom;
use secrets::Secrets;

/// How long the store may take to say that it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the engine until `shutdown`. The router need not be there yet.
///
/// # Errors
/// The store cannot be used, or an essential task ended.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    run_by(None, config, listeners, shutdown).await
}

/// As [`run`], by another clock than the machine's.
///
/// # Errors
/// As [`run`].
pub async fn run_by(
    clock: Option<SharedClock>,
    config: Config,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let settings = config.engine;
    let mut chassis = Chassis::new(
        "workflow-engine",
        &config.server,
        &config.trust,
        metrics::DEFINITIONS,
        shutdown,
    )?;
    if let Some(clock) = clock {
        chassis.clock = clock;
    }
    let identity =
        Identity::new(&config.trust.tokens, "workflow-engine", Role::Service).map_err(Error::Other)?;
    let Some(opened) = opening::open(&settings, &identity, &mut chassis, &listeners).await? else {
        return Ok(());
    };
    let Opened {
        store,
        database,
        in_redis,
        bucket,
        ..
    } = opened;
    let placement = match &in_redis {
        None => Placement::alone(),
        Some(in_redis) => {
            let redis = in_redis.redis.clone();
            let relay = async move { redis.keep_relaying().await };
            chassis.tasks.spawn("events on their way", relay);
            Placement::shared(Arc::clone(&in_redis.replicas))
        }
    };
    if let Some(bucket) = bucket {
        let shutdown = chassis.shutdown.clone();
        chassis.tasks.spawn(
            "the object store",
            async move { bucket.keep_asking(shutdown).await },
        );
    }
    if let Some(database) = &database {
        let grouped = metrics::Grouped::new(&chassis.metrics);
        database.observe(move |batches, took| grouped.written(batches, took));
    }
    let backups = Backups::new(database, Arc::clone(&chassis.clock), chassis.shutdown.clone());
    let outbound = Outbound::new(&settings.outbound, crate::outbound::SETTING)
        .map_err(|error| Error::Other(error.to_string()))?;
    let secrets = Arc::new(Secrets::new(settings.secrets.clone()));
    let web = Arc::new(Web::new(
        outbound,
        Arc::clone(&secrets),
        Arc::clone(&chassis.clock),
        &settings,
    ));
    let events = Arc::new(Events::new(
        Arc::clone(&store),
        Arc::clone(&chassis.clock),
        settings.events.clone(),
        chassis.tasks.clone(),
        chassis.shutdown.clone(),
    ));
    let engine = Arc::new(Engine::new(Parts {
        store: Arc::clone(&store),
        placement,
        events: Arc::clone(&events),
        caller: Arc::new(Caching {
            inner: Arc::new(Callers {
                router: router(&settings, &identity, &chassis)?,
                direct: Direct::new(
                    Arc::clone(&web),
                    Arc::clone(&chassis.clock),
                    settings.max_payload_bytes,
                ),
                grpc: Grpc::new(
                    Arc::clone(&web),
                    Arc::clone(&chassis.clock),
                    settings.max_payload_bytes,
                ),
                mcp: Mcp::new(
                    Arc::clone(&web),
                    settings.mcp_stdio_commands.clone(),
                    settings.max_payload_bytes,
                ),
                web: Arc::clone(&web),
                emitter: Emitter::new(Arc::clone(&events)),
                processes: Processes::new(
                    settings.run.clone(),
                    Arc::clone(&secrets),
                    Arc::clone(&chassis.clock),
                    chassis.tasks.clone(),
                    chassis.shutdown.clone(),
                ),
            }),
            store: Arc::clone(&store),
            clock: Arc::clone(&chassis.clock),
        }),
        clock: Arc::clone(&chassis.clock),
        random: Arc::new(SystemRandom),
        settings: settings.clone(),
        secrets,
        web,
        metrics: chassis.metrics.clone(),
        tracer: chassis.tracer.clone(),
        optimizer: config.telemetry.optimizer,
        auditor: chassis.auditor(),
        tasks: chassis.tasks.clone(),
        shutdown: chassis.shutdown.clone(),
    }));
    // Where the store is shared, runs are brought back with their partitions.
    if in_redis.is_none() {
        let recovered = driver::recover(&engine).await;
        recovered.map_err(|error| Error::DataDirectory {
            path: settings.data_directory.clone(),
            what: error.to_string(),
        })?;
    }

    let checked = Arc::clone(&store);
    chassis
        .health
        .check(health::Kind::Readiness, "store", HEALTH_TIMEOUT, move || {
            let healthy = checked.health();
            async move { healthy }
        });
    chassis.check_disk(settings.data_directory.clone());
    engine.background.check(&chassis.health);
    life::begin(&engine);
    if let Some(InRedis { replicas, .. }) = in_redis {
        tokio::select! {
            () = replicas.settled() => {}
            () = chassis.shutdown.requested() => {}
        }
    }

    let most_bytes = config.server.max_message_bytes;
    let surface = Surface::new(muster_api::FILE_DESCRIPTOR_SET)
        .grpc(
            WorkflowServiceServer::new(grpc::Service::new(Arc::clone(&engine)))
                .max_decoding_message_size(most_bytes),
        )
        .grpc(
            EventServiceServer::new(grpc::EventLog::new(Arc::clone(&events)))
                .max_decoding_message_size(most_bytes),
        )
        .grpc(
            ScheduleServiceServer::new(grpc::Schedules::new(Arc::clone(&engine)))
                .max_decoding_message_size(most_bytes),
        )
        .grpc(
            OptimizationServiceServer::new(grpc::Optimization::new(Arc::clone(&engine)))
                .max_decoding_message_size(most_bytes),
        )
        .grpc(BackupServiceServer::new(grpc::Backups::new(backups)).max_decoding_message_size(most_bytes))
        .grpc(ApprovalServiceServer::new(grpc::Approvals::new(engine)).max_decoding_message_size(most_bytes))
        .http(http::routes(events));
    chassis.serve(listeners, surface).await
}

fn router(settings: &config::Engine, identity: &Identity, chassis: &Chassis) -> Result<Router, Error> {
    let endpoint = muster_rpc::endpoint::parse(&settings.router_url)
        .map_err(|error| Error::Other(format!("engine.router_url: {error}")))?;
    Ok(Router::new(
        identity.channel(&endpoint, &chassis.trust.to(Workload::Router)),
        Arc::clone(&chassis.clock),
        settings.agent_wait(),
        settings.max_payload_bytes,
    ))
}
