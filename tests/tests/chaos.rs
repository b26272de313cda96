//! Engines and Redis killed, frozen, stopped and failed over under two hundred runs in flight: `tests/run --long`.
//!
//! Each form of Redis gets a round of random faults, one after the other, from a seed that is printed (`MUSTER_CHAOS_SEED` repeats
//! it; `MUSTER_CHAOS_FAULTS` and `MUSTER_CHAOS_ONLY` say how many, and which alone). After each it is measured how long it takes until all partitions are worked on and new work is done again. At the end:
//! no run is lost, each step is recorded once, no step that was recorded is called again, and every history verifies. What
//! Redis itself may lose when it fails over to an asynchronous replica is counted apart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{
    ExplainRunRequest, GetHistoryRequest, GetRunRequest, RunStatus, StartRunRequest, VerifyRunRequest,
    start_run_request,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};
use muster_tests::Replicas;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::{JoinSet, LocalSet};
use tonic::Code;
use tonic::transport::Channel;

/// Runs that are in flight all the time.
const IN_FLIGHT: usize = 200;

/// Calls of a run.
const CALLS: usize = 6;

const PARTITIONS: usize = 64;

/// How long anything may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a frozen engine stays frozen, and Redis.
const FREEZE: Duration = Duration::from_secs(7);
const FREEZE_OF_REDIS: Duration = Duration::from_secs(3);

type Engine = WorkflowServiceClient<Channel>;

/// A call and a wait, again and again.
fn work() -> String {
    let mut text = "document: { dsl: 1.0.0, namespace: test, name: work, version: 1.0.0 }\ndo:\n".to_owned();
    for number in 0..CALLS {
        let _infallible = write!(
            text,
            "  - call-{number}:\n      call: a2a\n      with:\n        server: agent://counter\n        method: SendMessage\n        \
             parameters: {{ message: {{ parts: [ {{ text: \"${{ $workflow.id + \\\" call-{number}\\\" }}\" }} ] }} }}\n      \
             output: {{ as: \"${{ .status.state }}\" }}\n  - wait-{number}: {{ wait: {{ milliseconds: 1500 }} }}\n"
        );
    }
    text
}

const LISTENS: &str = "document: { dsl: 1.0.0, namespace: test, name: probe, version: 1.0.0 }\n\
    do:\n  - hear: { listen: { to: { one: { with: { type: never } } } } }\n";

const PASSES: &str = "document: { dsl: 1.0.0, namespace: test, name: passes, version: 1.0.0 }\n\
    do:\n  - done: { set: { done: true } }\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    EngineKilled,
    EngineKilledAndStarted,
    EngineFrozen,
    EngineStopped,
    RedisKilledAndStarted,
    RedisFrozen,
    FailoverAsked,
    PrimaryKilled,
}

impl Fault {
    const OF_ENGINES: [Self; 4] = [
        Self::EngineKilled,
        Self::EngineKilledAndStarted,
        Self::EngineFrozen,
        Self::EngineStopped,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::EngineKilled => "engine killed, its work taken over",
            Self::EngineKilledAndStarted => "engine killed and started again",
            Self::EngineFrozen => "engine frozen, its work taken over",
            Self::EngineStopped => "engine stopped in order",
            Self::RedisKilledAndStarted => "Redis killed and started again",
            Self::RedisFrozen => "Redis frozen for 3 s",
            Self::FailoverAsked => "Redis told to fail over",
            Self::PrimaryKilled => "Redis primary killed, replica promoted",
        }
    }
}

/// What is known of the load.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    /// Those that were acknowledged and are not there.
    lost: Mutex<Vec<String>>,
    ended: Mutex<Vec<String>>,
}

/// Clients of the engines that are alive.
#[derive(Clone)]
struct Clients {
    all: Vec<Engine>,
    alive: Arc<Mutex<BTreeSet<usize>>>,
}

impl Clients {
    /// One of those that are alive.
    async fn some(&self, chance: usize) -> Engine {
        let alive = self.alive.lock().await;
        let index = alive.iter().nth(chance % alive.len()).copied().unwrap();
        self.all[index].clone()
    }
}

async fn start_run(clients: &Clients, id: &str, document: &str, chance: usize) -> Result<(), String> {
    let request = StartRunRequest {
        run_id: id.to_owned(),
        source: Some(start_run_request::Source::Document(document.to_owned())),
        ..Default::default()
    };
    let mut engine = clients.some(chance).await;
    engine
        .start_run(request)
        .await
        .map(|_| ())
        .map_err(|status| status.to_string())
}

/// Whether it has completed; an error: it cannot be said, or not yet.
async fn is_completed(clients: &Clients, id: &str, chance: usize) -> Result<(), tonic::Status> {
    let mut engine = clients.some(chance).await;
    let request = GetRunRequest {
        run_id: id.to_owned(),
    };
    let run = engine
        .get_run(request)
        .await?
        .into_inner()
        .run
        .unwrap_or_default();
    match run.status() {
        RunStatus::Completed => Ok(()),
        status @ (RunStatus::Faulted | RunStatus::Cancelled) => {
            panic!("{id} is {status:?}: {:?}", run.error)
        }
        status => Err(tonic::Status::unavailable(format!(
            "{status:?}: {:?}",
            run.activity
        ))),
    }
}

/// Keeps one run after the other in flight.
async fn keep_running(load: Arc<Load>, clients: Clients, worker: usize) {
    let document = work();
    for round in 0.. {
        if load.stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("run-{worker}-{round}");
        let mut tries = worker + round;
        wait_for(&format!("{id} to be accepted"), PATIENCE, async || {
            tries += 1;
            start_run(&clients, &id, &document, tries).await
        })
        .await;
        load.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut missing = 0;
        // Asked for now and then, not all the time.
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let ended = wait_for(&format!("{id} to end"), PATIENCE, async || {
            ticks.tick().await;
            tries += 1;
            match is_completed(&clients, &id, tries).await {
                Ok(()) => Ok(true),
                Err(status) if status.code() == Code::NotFound => {
                    missing += 1;
                    // Read from a primary that has just lost its place, once.
                    if missing > 3 {
                        Ok(false)
                    } else {
                        Err(status.to_string())
                    }
                }
                Err(status) => Err(status.to_string()),
            }
        })
        .await;
        let list = if ended { &load.ended } else { &load.lost };
        list.lock().await.push(id);
    }
}

/// A Redis in one of its forms.
enum Redis {
    Standalone(Box<RedisServer>),
    Sentinels(Box<RedisSentinels>),
    Cluster(RedisCluster),
}

impl Redis {
    fn url(&self) -> String {
        match self {
            Self::Standalone(server) => server.url(),
            Self::Sentinels(servers) => servers.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let own: &[Fault] = match self {
            Self::Standalone(_) => &[Fault::RedisKilledAndStarted, Fault::RedisFrozen],
            Self::Sentinels(_) | Self::Cluster(_) => &[Fault::FailoverAsked, Fault::PrimaryKilled],
        };
        // Engines more often than Redis: there are more of them.
        let engines = Fault::OF_ENGINES.iter().cycle().take(8);
        let all = engines.chain(own.iter().cycle().take(4)).copied();
        let only = std::env::var("MUSTER_CHAOS_ONLY").ok();
        let chosen = all.filter(|fault| only.as_ref().is_none_or(|only| *only == format!("{fault:?}")));
        chosen.collect()
    }

    fn servers(&mut self) -> Vec<&mut RedisServer> {
        match self {
            Self::Standalone(server) => vec![&mut **server],
            Self::Sentinels(servers) => vec![&mut servers.primary, &mut servers.replica],
            Self::Cluster(cluster) => cluster.nodes.iter_mut().collect(),
        }
    }

    /// One of the servers that are primary, by chance; and all that are not.
    async fn primary(&mut self, chance: usize) -> (usize, Vec<usize>) {
        let (mut primaries, mut replicas) = (Vec::new(), Vec::new());
        for (index, server) in self.servers().into_iter().enumerate() {
            let role = server.ask(&["ROLE"]).await;
            if role.starts_with("master") {
                primaries.push(index);
            } else {
                replicas.push(index);
            }
        }
        (primaries[chance % primaries.len()], replicas)
    }

    /// Waits until every replica follows its primary, as it must before the next failover is worth anything.
    async fn followed(&mut self) {
        let primaries = match self {
            Self::Standalone(_) => return,
            Self::Sentinels(_) => 1,
            Self::Cluster(_) => 3,
        };
        let mut servers = self.servers();
        wait_for("replicas to follow", PATIENCE, async || {
            let mut leading = 0;
            for server in &mut servers {
                let information = server.ask(&["INFO", "replication"]).await;
                let leads = information.contains("role:master") && information.contains("connected_slaves:1");
                if !leads && !information.contains("master_link_status:up") {
                    return Err(information);
                }
                leading += usize::from(leads);
            }
            // One that was killed and is back believes for a moment that it still leads.
            (leading == primaries)
                .then_some(())
                .ok_or(format!("{leading} lead"))
        })
        .await;
    }

    async fn fail_over(&mut self, chance: usize) {
        match self {
            Self::Standalone(_) => {}
            Self::Sentinels(servers) => servers.fail_over().await,
            Self::Cluster(_) => {
                let (_, replicas) = self.primary(chance).await;
                let replica = replicas[chance % replicas.len()];
                let answer = self.servers()[replica].ask(&["CLUSTER", "FAILOVER"]).await;
                assert_eq!(answer.trim(), "OK", "CLUSTER FAILOVER");
            }
        }
    }
}

struct Chaos {
    name: &'static str,
    redis: Redis,
    replicas: Replicas,
    clients: Clients,
    random: StdRng,
    clock: SystemClock,
    ledger: Vec<(Fault, Duration)>,
}

impl Chaos {
    async fn start(name: &'static str, redis: Redis, engines: usize, seed: u64) -> Self {
        let replicas = Replicas::start(engines, &redis.url()).await;
        let clients = Clients {
            all: (0..engines).map(|number| replicas.engine(number)).collect(),
            alive: Arc::new(Mutex::new((0..engines).collect())),
        };
        for partition in 0..PARTITIONS {
            start_run(&clients, &format!("probe.p{partition}"), LISTENS, partition)
                .await
                .unwrap();
        }
        Self {
            name,
            redis,
            replicas,
            clients,
            random: StdRng::seed_from_u64(seed),
            clock: SystemClock::default(),
            ledger: Vec::new(),
        }
    }

    fn chance(&mut self, below: usize) -> usize {
        self.random.random_range(0..below)
    }

    /// Waits until all partitions are worked on and new work is done, after a fault that began at this time.
    async fn recovered(&mut self, fault: Fault, since: Duration) {
        let number = self.ledger.len();
        let chance = self.chance(64);
        let what = format!("{} to be over ({} {number})", fault.name(), self.name);
        let probe = format!("probe-{number}");
        let clients = &self.clients;
        wait_for(&what, PATIENCE, async || {
            for partition in 0..PARTITIONS {
                let run_id = format!("probe.p{partition}");
                let mut engine = clients.some(chance).await;
                let blockers = engine.explain_run(ExplainRunRequest { run_id }).await;
                let blockers = blockers
                    .map_err(|status| status.to_string())?
                    .into_inner()
                    .blockers;
                let kinds: Vec<&str> = blockers.iter().map(|blocker| blocker.kind.as_str()).collect();
                if kinds != ["event"] {
                    return Err(format!("partition {partition}: {kinds:?}"));
                }
            }
            start_run(clients, &probe, PASSES, chance).await?;
            is_completed(clients, &probe, chance)
                .await
                .map_err(|status| status.to_string())
        })
        .await;
        let took = self.clock.monotonic().saturating_sub(since);
        report(&format!(
            "{} {number:>3}: {:<40} over after {:>5.2} s",
            self.name,
            fault.name(),
            took.as_secs_f64()
        ));
        self.ledger.push((fault, took));
    }

    async fn is_alive(&self, engine: usize, alive: bool) {
        let mut all = self.clients.alive.lock().await;
        if alive {
            all.insert(engine);
        } else {
            all.remove(&engine);
        }
    }

    async fn come_back(&mut self, engine: usize, afresh: bool) {
        self.replicas.start_again(engine, afresh);
        self.replicas.process(engine).ready().await;
        self.is_alive(engine, true).await;
    }

    async fn inflict(&mut self, fault: Fault) {
        let engine = self.chance(self.replicas.count());
        let (chance, afresh) = (self.chance(1_000), self.chance(2) == 0);
        let since = self.clock.monotonic();
        match fault {
            Fault::EngineKilled => {
                self.is_alive(engine, false).await;
                self.replicas.kill(engine).await;
                self.recovered(fault, since).await;
                self.come_back(engine, afresh).await;
            }
            Fault::EngineKilledAndStarted => {
                self.is_alive(engine, false).await;
                self.replicas.kill(engine).await;
                self.come_back(engine, afresh).await;
                self.recovered(fault, since).await;
            }
            Fault::EngineFrozen => {
                self.is_alive(engine, false).await;
                self.replicas.process(engine).signal("STOP").await;
                self.recovered(fault, since).await;
                until(&self.clock, since + FREEZE).await;
                self.replicas.process(engine).signal("CONT").await;
                self.is_alive(engine, true).await;
            }
            Fault::EngineStopped => {
                self.is_alive(engine, false).await;
                self.replicas.process(engine).signal("TERM").await;
                self.recovered(fault, since).await;
                self.replicas.stopped(engine).await;
                self.come_back(engine, afresh).await;
            }
            Fault::RedisKilledAndStarted => {
                for server in self.redis.servers() {
                    server.restart().await;
                }
                self.recovered(fault, since).await;
            }
            Fault::RedisFrozen => {
                for server in self.redis.servers() {
                    server.signal("STOP").await;
                }
                until(&self.clock, since + FREEZE_OF_REDIS).await;
                for server in self.redis.servers() {
                    server.signal("CONT").await;
                }
                self.recovered(fault, since).await;
            }
            Fault::FailoverAsked => {
                self.redis.followed().await;
                let since = self.clock.monotonic();
                self.redis.fail_over(chance).await;
                self.recovered(fault, since).await;
                self.redis.followed().await;
            }
            Fault::PrimaryKilled => {
                self.redis.followed().await;
                let (primary, _) = self.redis.primary(chance).await;
                let since = self.clock.monotonic();
                self.redis.servers()[primary].kill().await;
                self.recovered(fault, since).await;
                self.redis.servers()[primary].restart().await;
                self.redis.followed().await;
            }
        }
    }

    async fn run(self, faults: usize) {
        LocalSet::new().run_until(self.run_here(faults)).await;
    }

    async fn run_here(mut self, faults: usize) {
        let load = Arc::new(Load::default());
        let mut workers = JoinSet::new();
        for worker in 0..IN_FLIGHT {
            workers.spawn_local(keep_running(Arc::clone(&load), self.clients.clone(), worker));
        }
        let choice = self.redis.faults();
        while self.ledger.len() < faults {
            // One that failed has said why.
            while let Some(ended) = workers.try_join_next() {
                ended.unwrap();
            }
            let fault = choice[self.chance(choice.len())];
            self.inflict(fault).await;
        }
        load.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        self.judge(&load).await;
    }

    /// Compares what was promised with what is there.
    async fn judge(&mut self, load: &Load) {
        let ended = load.ended.lock().await.clone();
        let mut lost = load.lost.lock().await.clone();
        let may_lose = !matches!(self.redis, Redis::Standalone(_));
        assert!(may_lose || lost.is_empty(), "lost: {lost:?}");
        let mut recorded: BTreeMap<String, i128> = BTreeMap::new();
        for (index, run_id) in ended.iter().enumerate() {
            let mut engine = self.clients.some(index).await;
            let request = GetHistoryRequest {
                run_id: run_id.clone(),
                page_size: 100,
                ..Default::default()
            };
            let history = match engine.get_history(request).await {
                // It has completed on a primary that had lost its place, and went with what that had taken since.
                Err(status) if may_lose && status.code() == Code::NotFound => {
                    lost.push(run_id.clone());
                    continue;
                }
                history => history.unwrap().into_inner(),
            };
            for event in history.events {
                let Some(step) = event
                    .task
                    .rsplit('/')
                    .next()
                    .filter(|step| step.starts_with("call-"))
                else {
                    continue;
                };
                if event.r#type != "task.completed" {
                    continue;
                }
                let data: Value = serde_json::from_str(&event.data_json).unwrap();
                let time: jiff::Timestamp = data["time"].as_str().unwrap().parse().unwrap();
                let again = recorded.insert(format!("{run_id} {step}"), time.as_nanosecond());
                assert_eq!(again, None, "{run_id} {step} was recorded twice");
            }
            let verified = engine
                .verify_run(VerifyRunRequest {
                    run_id: run_id.clone(),
                })
                .await;
            let problems = verified.unwrap().into_inner().problems;
            assert_eq!(problems, Vec::<String>::new(), "{run_id}");
        }
        let left = ended.iter().filter(|run_id| !lost.contains(run_id)).count();
        assert_eq!(recorded.len(), left * CALLS);

        let (mut ids, mut again, mut late) = (BTreeMap::new(), 0, Vec::new());
        for call in self.replicas.agent.calls() {
            let Some(done) = recorded.get(&call.text) else {
                continue;
            };
            let received = call.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            if i128::try_from(received.as_nanos()).unwrap() > *done {
                late.push(call.text.clone());
            }
            match ids.insert(call.text.clone(), call.message_id.clone()) {
                Some(first) => {
                    assert_eq!(
                        first, call.message_id,
                        "{} was sent again under another id",
                        call.text
                    );
                    again += 1;
                }
                None => continue,
            }
        }
        assert!(late.is_empty(), "called although recorded: {late:?}");
        self.report(left, &lost, again);
    }

    fn report(&self, completed: usize, lost: &[String], again: usize) {
        let mut kinds: BTreeMap<Fault, Vec<f64>> = BTreeMap::new();
        for (fault, took) in &self.ledger {
            kinds.entry(*fault).or_default().push(took.as_secs_f64());
        }
        for (fault, mut times) in kinds {
            times.sort_by(f64::total_cmp);
            report(&format!(
                "{}: {:<40} {:>3} times, over after {:.2} s (median), {:.2} s (longest)",
                self.name,
                fault.name(),
                times.len(),
                times[times.len() / 2],
                times[times.len() - 1]
            ));
        }
        report(&format!(
            "{}: {} engines, {} faults, {} runs of {CALLS} calls completed, {} lost, 0 recorded steps called again, {again} calls in \
             flight sent again under the same id",
            self.name,
            self.replicas.count(),
            self.ledger.len(),
            completed,
            lost.len(),
        ));
    }
}

/// Waits until the clock shows this time.
async fn until(clock: &SystemClock, time: Duration) {
    wait_for("the time", PATIENCE, async || clock.monotonic() >= time).await;
}

fn seed() -> u64 {
    let seed = std::env::var("MUSTER_CHAOS_SEED").ok();
    let seed = seed.map_or(20_140_301, |seed| seed.parse().unwrap());
    report(&format!("MUSTER_CHAOS_SEED={seed}"));
    seed
}

/// As many faults as are asked for, to try out less.
fn faults(usual: usize) -> usize {
    let faults = std::env::var("MUSTER_CHAOS_FAULTS").ok();
    faults.map_or(usual, |faults| faults.parse().unwrap())
}

#[tokio::test]
async fn two_engines_over_one_redis_survive() {
    let redis = Redis::Standalone(Box::new(RedisServer::start().await));
    Chaos::start("standalone", redis, 2, seed())
        .await
        .run(faults(90))
        .await;
}

#[tokio::test]
async fn two_engines_over_sentinels_survive() {
    let redis = Redis::Sentinels(Box::new(RedisSentinels::start().await));
    Chaos::start("Sentinel", redis, 2, seed())
        .await
        .run(faults(60))
        .await;
}

#[tokio::test]
async fn three_engines_over_a_cluster_survive() {
    let redis = Redis::Cluster(RedisCluster::start_with_replicas().await);
    Chaos::start("Cluster 3 + 3", redis, 3, seed())
        .await
        .run(faults(60))
        .await;
}

#[expect(clippy::print_stdout, reason = "the long suite's measurements are its output")]
fn report(line: &str) {
    println!("MEASURED {line}");
}
