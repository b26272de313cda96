//! The router: takes A2A messages over gRPC, JSON-RPC and HTTP+JSON and delivers each to the best instance of the right
//! agent.
//!
//! Inside out: [`balance`], [`regions`], [`priority`], [`routing`], [`target`], [`measure`], [`load`], [`wire`], [`peek`], [`pages`], the
//! limits and lines of [`flow`], the algorithm and table of [`rate`] and the queue of [`admission`] are pure. [`rate`] limits callers, and
//! [`quota`] what agents take. [`fleet`] is the router's own view of who is alive, fed by the registry; [`link`] holds a connection and
//! what was measured on it per instance; [`ownership`] knows which instance owns which task, in a [`store`];
//! [`deduplication`] answers the same message once, and [`durable`] does so across routers and restarts. [`forward`] puts them
//! together and knows no binding; [`tuning`] changes within bounds what was found to be slow; [`inbox`] keeps messages whose senders do not wait, and delivers them through it, and [`calls`]
//! counts;
//! [`grpc`] and [`http`] translate.

pub mod admission;
pub mod balance;
pub mod bridge;
pub mod call;
pub mod calls;
pub mod cards;
pub mod codec;
pub mod config;
pub mod credentials;
pub mod deduplication;
pub mod durable;
pub mod error;
pub mod fleet;
pub mod flow;
pub mod forward;
pub mod frame;
pub mod grpc;
pub mod http;
pub mod inbox;
pub mod link;
pub mod load;
pub mod measure;
pub mod message;
pub mod metrics;
mod opening;
pub mod operation;
pub mod ownership;
pub mod pages;
pub mod peek;
pub mod priority;
pub mod quota;
pub mod rate;
pub mod regions;
pub mod routing;
pub mod status;
pub mod store;
pub mod target;
pub mod tuning;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cards::Front;
use jiff::SignedDuration;
use muster_a2a::card::sign::Signer;
use muster_api::FILE_DESCRIPTOR_SET;
use muster_api::router::inbox_service_server::InboxServiceServer;
use muster_api::router::router_service_server::RouterServiceServer;
use muster_rpc::breaker;
use muster_rpc::endpoint::{self, Endpoint};
use muster_rpc::outbound::Outbound;
use muster_rpc::retry_budget::RetryBudget;
use muster_runtime::background::Background;
use muster_runtime::telemetry::Optimizer;
use muster_runtime::trust::identity::Channel;
use muster_runtime::trust::{Identity, Role, Trust, Workload};
use muster_runtime::{Chassis, Error, Latch, Listeners, Shutdown, Surface, health};
use parking_lot::{Mutex, RwLock};
use tokio::time::MissedTickBehavior;

pub use config::Config;

use admission::Admission;
use credentials::Credentials;
use deduplication::Window;
use durable::Durable;
use fleet::View;
use fleet::watch::News;
use flow::Flow;
use forward::{Forwarder, Parts};
use inbox::{Inbox, Letterbox};
use link::Links;
use metrics::{AgentLoad, Meters};
use opening::Opened;
use ownership::Ownership;
use quota::Quotas;
use rate::Limiter;
use rate::charged::Charged;
use store::redis::Redis;
use tuning::service::Tuner;

pub use opening::connect;

/// How often the owners of old tasks and old answers are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// How often what there is of every agent is shown in the metrics.
const FLEET_SHOWN: Duration = Duration::from_secs(5);

/// How often the inbox is counted for the metrics.
const INBOX_COUNTED: Duration = Duration::from_secs(5);

/// How often Redis is looked at.
const REDIS_WATCH: Duration = Duration::from_secs(2);

/// Serves until a shutdown is asked for.
///
/// # Errors
/// When the configuration makes no sense, the data directory cannot be used, or serving fails.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    let mut chassis = Chassis::new(
        "router",
        &config.server,
        &config.trust,
        metrics::DEFINITIONS,
        shutdown,
    )?;
    let Some(opened) = opening::open(&config.router, &mut chassis, &listeners).await? else {
        return Ok(());
    };
    let letterbox = inbox::open(&config.router, &opened, Arc::clone(&chassis.clock)).await?;
    let registry = parsed("router.registry_url", &config.router.registry_url)?;
    let front = Front {
        public: public_address(&config, &chassis.trust, listeners.data_address())?,
        declared: chassis.declared(),
        signer: Signer::load(&config.router.card_signing, "router.card_signing")
            .map_err(Error::Other)?
            .map(Arc::new),
    };
    check_store(&config, &chassis, &opened);
    let ownership = ownership(&config, &chassis, &opened);
    let (durable, worker) = Durable::new(
        opened.answers(),
        config.router.durable(),
        Arc::clone(&chassis.clock),
    );
    chassis
        .tasks
        .essential("durable messages", worker.run(chassis.shutdown.clone()));
    let outbound = Outbound::new(&config.router.outbound, config::OUTBOUND)
        .map_err(|error| Error::Other(error.to_string()))?;
    let grants = opened.grants();
    let forwarder = forwarder(
        &config,
        &chassis,
        Arc::clone(&ownership),
        durable,
        outbound,
        grants,
        front,
    );
    let latch = chassis.health.latch("fleet");
    let identity = Identity::new(&config.trust.tokens, "router", Role::Service).map_err(Error::Other)?;
    let registry = identity.channel(&registry, &chassis.trust.to(Workload::Registry));
    let inbox = inbox(&config, &chassis, letterbox, &forwarder);
    let tuner = tuner(&config, &chassis, &forwarder);
    chassis
        .tasks
        .essential_until_shutdown("fleet watch", watch(Arc::clone(&forwarder), registry, latch));
    chassis
        .tasks
        .essential_until_shutdown("task sweep", sweep(ownership, Arc::clone(&forwarder)));
    chassis
        .tasks
        .essential_until_shutdown("queue", look_again(Arc::clone(&forwarder)));
    chassis
        .tasks
        .essential_until_shutdown("stalled streams", end_stalled(Arc::clone(&forwarder)));
    chassis
        .tasks
        .essential_until_shutdown("fleet gauges", show_fleet(Arc::clone(&forwarder)));
    check_freshness(&chassis, &forwarder);

    let limit = config.server.max_message_bytes;
    let a2a = grpc::A2a::new(Arc::clone(&forwarder), limit);
    let capacity = config.router.message_queue_size;
    let control = grpc::Control::new(Arc::clone(&forwarder), Arc::clone(&inbox), capacity, tuner);
    let letters = InboxServiceServer::new(inbox::Service::new(inbox)).max_decoding_message_size(limit);
    let charging = Arc::clone(&forwarder);
    let cards = http::Cards {
        forwarder: Arc::clone(&forwarder),
        max_age: Duration::from_secs(config.router.card_max_age_seconds),
    };
    let face = muster_a2a::Face {
        service: Arc::new(http::Http::new(forwarder)),
        // Base64 and escapes make JSON larger than the message, which is measured again once it is decoded.
        body_limit: limit.saturating_mul(2),
    };
    let surface = Surface::new(FILE_DESCRIPTOR_SET)
        .grpc(a2a)
        .grpc(RouterServiceServer::new(control))
        .grpc(Charged::new(letters, charging))
        .http(muster_a2a::routes(face))
        .http(http::card_routes(cards));
    chassis.serve(listeners, surface).await
}

/// The inbox, and what works on it.
fn inbox(config: &Config, chassis: &Chassis, letterbox: Letterbox, forwarder: &Arc<Forwarder>) -> Arc<Inbox> {
    let store = letterbox.supervised(chassis);
    let inbox = Inbox::new(
        store,
        Arc::clone(forwarder),
        config.router.inbox.limits(),
        chassis.tasks.clone(),
        chassis.shutdown.clone(),
    );
    let worker = inbox::worker::run(Arc::clone(&inbox), config.server.drain_timeout());
    chassis.tasks.essential("inbox worker", worker);
    chassis
        .tasks
        .essential_until_shutdown("inbox count", count(Arc::clone(&inbox)));
    inbox
}

/// What is changed about what is slow, and what looks for it.
fn tuner(config: &Config, chassis: &Chassis, forwarder: &Arc<Forwarder>) -> Arc<Tuner> {
    let mode = config.telemetry.optimizer;
    let bounds = config.router.tuning.bounds();
    let tuner = Tuner::new(Arc::clone(forwarder), mode, bounds, chassis.auditor());
    if mode != Optimizer::Off {
        let background = Background::new(
            chassis.tasks.clone(),
            chassis.metrics.clone(),
            Arc::clone(&chassis.clock),
            chassis.shutdown.clone(),
        );
        background.check(&chassis.health);
        let looking = Arc::clone(&tuner);
        background.spawn("performance", config.router.background.performance, move || {
            let tuner = Arc::clone(&looking);
            async move {
                let looked = tokio::task::spawn_blocking(move || tuner.look());
                looked.await.map_err(|error| error.to_string())?
            }
        });
    }
    tuner
}

/// Shows what the inbox holds.
async fn count(inbox: Arc<Inbox>) -> Result<(), Error> {
    let mut interval = tokio::time::interval(INBOX_COUNTED);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = inbox.observe().await {
            tracing::debug!(%error, "the inbox cannot be counted");
        }
    }
}

fn forwarder(
    config: &Config,
    chassis: &Chassis,
    ownership: Arc<Ownership>,
    durable: Arc<Durable>,
    outbound: Outbound,
    grants: Option<Arc<dyn rate::Grants>>,
    front: Front,
) -> Arc<Forwarder> {
    let router = &config.router;
    let grace = Duration::from_secs(router.unconfirmed_grace_seconds);
    let clock = Arc::clone(&chassis.clock);
    let view = Arc::new(RwLock::new(View::new(router.namespace.clone(), grace)));
    let flow = Flow::new(
        router.max_messages_in_flight,
        router.lines(),
        Arc::clone(&clock),
        Arc::clone(&view),
    );
    let meters = Meters::new(chassis.metrics.clone());
    let limiter = |kind| Limiter::new(kind, grants.clone(), Arc::clone(&clock), meters.clone());
    let callers = rate::Callers::new(limiter("callers"), router.api_rate_limit, router.api_rate_burst);
    let quotas = Quotas::new(router.quotas.clone(), limiter("agents"));
    let mode = chassis.trust.mode();
    let credentials = Credentials::new(&router.credentials, mode, outbound.clone(), Arc::clone(&clock));
    Forwarder::new(Parts {
        front,
        limits: router.limits(config.server.max_message_bytes),
        clock,
        view,
        links: Arc::new(
            Links::new(router.breaker())
                .with_certificates(credentials.certificates())
                .with_trust(chassis.trust.clone())
                .with_connections(router.connections_per_instance)
                .with_workers(config.server.workers)
                .with_outbound(
                    outbound,
                    router.limits(config.server.max_message_bytes).answer_bytes,
                ),
        ),
        credentials,
        callers,
        quotas,
        flow,
        operations: Admission::new(router.max_operations_in_flight, router.message_queue_size),
        window: Arc::new(Window::new(router.deduplication())),
        durable,
        ownership,
        budget: Mutex::new(RetryBudget::new(router.retry_budget(), chassis.clock.monotonic())),
        meters,
        tracer: chassis.tracer.clone(),
        random: Box::new(|below| rand::random_range(0..below.max(1))),
    })
}

/// A store that takes no writes puts the router out of service where the store is the router's own. One in Redis is that of
/// all routers, none of which would be left; and what needs no store still goes through.
fn check_store(config: &Config, chassis: &Chassis, opened: &Opened) {
    let kind = match opened {
        Opened::Memory(..) => return,
        Opened::Embedded(..) => {
            chassis.check_disk(&config.router.data_directory);
            health::Kind::Readiness
        }
        Opened::Redis(store) => {
            let store = Arc::clone(store);
            chassis
                .tasks
                .essential_until_shutdown("redis watch", watch_redis(store));
            health::Kind::Informational
        }
    };
    let opened = opened.clone();
    chassis
        .health
        .check(kind, "store", Duration::from_secs(1), move || {
            let health = opened.health();
            async move { health }
        });
}

/// Finds out when Redis takes writes again, and who the primary is.
async fn watch_redis(store: Arc<Redis>) -> Result<(), Error> {
    let mut interval = tokio::time::interval(REDIS_WATCH);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        store.connection().confirm().await;
        store.probe().await;
    }
}

fn ownership(config: &Config, chassis: &Chassis, opened: &Opened) -> Arc<Ownership> {
    let seconds = i64::try_from(config.router.task_retention_seconds).unwrap_or(i64::MAX);
    let retention = SignedDuration::from_secs(seconds);
    let (ownership, writer) =
        Ownership::new(opened.owners(), retention, config.router.max_tasks).with_writer();
    let shutdown = chassis.shutdown.clone();
    chassis.tasks.essential("owner writer", writer.run(shutdown));
    Arc::new(ownership)
}

/// Keeps the view up to date; the router is ready once it has one.
async fn watch(forwarder: Arc<Forwarder>, registry: Channel, latch: Latch) -> Result<(), Error> {
    let parts = forwarder.parts();
    let observe = || {
        let view = parts.view.read();
        // A call that was choosing while its instance left has made a link that nobody drops. There are never more of
        // them than there are instances.
        if parts.links.count() > view.count() {
            parts.links.prune(|key| view.instance(key).is_some());
        }
        parts
            .meters
            .view(view.age(parts.clock.monotonic()), view.is_stale());
        let (messages, operations) = (&parts.flow, &parts.operations);
        let meters = &parts.meters;
        meters.load("messages", messages.waiting(), messages.in_flight());
        meters.load("operations", operations.waiting(), operations.in_flight());
        meters.taken_over(parts.durable.taken_over());
    };
    let changed = |news: News<'_>| match news {
        News::Lost(key) => {
            tracing::warn!(agent = key.agent, instance = key.instance, "an instance is lost");
            parts.links.lose(key);
        }
        News::Left(key) => parts.links.forget(key),
        News::Came => parts.flow.arrived(),
        News::View => {
            parts.flow.arrived();
            let view = parts.view.read();
            if view.is_known() {
                latch.ready();
            }
            parts.links.prune(|key| view.instance(key).is_some());
            drop(view);
            observe();
        }
        News::Swept => observe(),
    };
    fleet::watch::follow(
        Arc::clone(&parts.view),
        registry,
        Arc::clone(&parts.clock),
        changed,
    )
    .await;
    Ok(())
}

async fn sweep(ownership: Arc<Ownership>, forwarder: Arc<Forwarder>) -> Result<(), Error> {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        if let Err(error) = ownership.sweep(forwarder.parts().clock.now()).await {
            tracing::warn!(%error, "old tasks are not forgotten");
        }
        if let Err(error) = forwarder.parts().durable.sweep().await {
            tracing::warn!(%error, "old answers are not forgotten");
        }
    }
}

/// Shows what there is of every agent.
async fn show_fleet(forwarder: Arc<Forwarder>) -> Result<(), Error> {
    let mut interval = tokio::time::interval(FLEET_SHOWN);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let parts = forwarder.parts();
        let now = parts.clock.monotonic();
        let mut agents: BTreeMap<String, AgentLoad> = BTreeMap::new();
        for instance in parts.view.read().instances() {
            let link = parts.links.to(instance, now);
            let (places, in_flight) = link.places();
            let load = agents.entry(instance.id.agent.clone()).or_default();
            load.in_flight += u64::from(in_flight);
            load.places += u64::from(places);
            let place = match link.measured().breaker(now) {
                breaker::State::Closed => 0,
                breaker::State::Open => 1,
                breaker::State::HalfOpen => 2,
            };
            load.breakers[place] += 1;
        }
        parts.meters.forget_others(|agent| agents.contains_key(agent));
        parts.meters.fleet(&agents);
    }
}

/// Gives places to those who wait, where what has changed is no place that came free.
async fn look_again(forwarder: Arc<Forwarder>) -> Result<(), Error> {
    let flow = &forwarder.parts().flow;
    flow.look_again(|waiter| forwarder.look(waiter)).await;
    Ok(())
}

/// Ends streams whose callers have stopped reading.
async fn end_stalled(forwarder: Arc<Forwarder>) -> Result<(), Error> {
    forwarder.end_stalled().await;
    Ok(())
}

/// A stale view degrades the router and does not take it out of service.
fn check_freshness(chassis: &Chassis, forwarder: &Arc<Forwarder>) {
    let forwarder = Arc::clone(forwarder);
    chassis.health.check(
        health::Kind::Informational,
        "registry",
        Duration::from_secs(1),
        move || {
            let parts = forwarder.parts();
            let view = parts.view.read();
            let outcome = if view.is_stale() {
                let age = view.age(parts.clock.monotonic()).unwrap_or_default().as_secs();
                Err(format!(
                    "does not answer; routing from a view that is {age} s old"
                ))
            } else {
                Ok(())
            };
            async move { outcome }
        },
    );
}

fn public_address(config: &Config, trust: &Trust, listening: SocketAddr) -> Result<Endpoint, Error> {
    if config.router.public_url.is_empty() {
        parsed(
            "the address that it listens on",
            &format!("{}://{listening}", trust.scheme()),
        )
    } else {
        parsed("router.public_url", &config.router.public_url)
    }
}

fn parsed(key: &str, url: &str) -> Result<Endpoint, Error> {
    endpoint::parse(url).map_err(|error| Error::Other(format!("{key}: {error}")))
}
