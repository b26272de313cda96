//! A performance of an example: its lives, on one store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::clock::Clock as _;
use muster_workflow_dsl::Resources;
use muster_workflow_dsl::journal::{Event, EventKind};
use parking_lot::Mutex;

use super::super::chance::Seeded;
use super::super::clock::Virtual;
use super::super::disk::Disk;
use super::super::fleet::Direct;
use super::super::life::{Ingredients, made_of, runtime, tell_stuck, violated};
use super::super::plan::{End, Plan};
use super::super::world::World;
use super::Example;
use super::library::Library;
use super::mishap::{Mishap, Step};
use super::outcome::{Ended, Outcome};
use super::people::{self, People};
use crate::caller::Caller;
use crate::config;
use crate::definitions::Definitions;
use crate::engine::Engine;
use crate::events::Events;
use crate::off_thread::Inline;
use crate::outbound::{self, Outbound};
use crate::placement::Placement;
use crate::run::{Record, RunId, Status, Summary};
use crate::secrets::Secrets;
use crate::store::{Step as Written, Store as _};

/// By then everything has ended, or never will.
const HORIZON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// How long nobody lives between two lives: long enough that what follows from the time, by the second, is not as before, and
/// shorter than any deadline of the examples.
const DOWN: Duration = Duration::from_secs(2);

/// So many runs that none waits for its turn: turns are not what is asked about here.
const SLOTS: usize = 64;

/// What all performances share, none of which remembers any of them.
pub(crate) struct Ground {
    outbound: Outbound,
    definitions: Arc<Definitions>,
    settings: config::Engine,
    /// Secrets, and documents that runs are pinned to.
    _directory: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let login = serde_json::json!({
            "authority": format!("{}/realm", super::LIBRARY),
            "grant": "client_credentials",
            "client": {"id": "library", "secret": "open-sesame"},
        });
        write("secrets/examples/libraryLogin", &login.to_string());
        write("secrets/examples/demo-token", "a-secret-value\n");
        let log = format!(
            "call: http\nwith: {{ method: post, endpoint: '{}/log', body: {{ message: '${{ .message }}' }} }}\n",
            super::LIBRARY
        );
        write("functions/log/1.0.0/function.yaml", &log);
        let settings = config::Engine {
            max_concurrent_workflows: SLOTS,
            workflow_timeout_seconds: 30 * 24 * 60 * 60,
            call_timeout_seconds: 60,
            // Runs are short, and are to be put away and taken up all the same.
            snapshot_entries: 2,
            secrets: crate::secrets::Config {
                directory: Some(directory.path().join("secrets")),
                environment_prefix: None,
            },
            resource_directory: Some(directory.path().to_owned()),
            ..config::Engine::default()
        };
        Self {
            outbound: Outbound::new(&outbound::Config::default(), crate::outbound::SETTING).unwrap(),
            definitions: Arc::new(Definitions::new(settings.workflow_timeout())),
            settings,
            _directory: directory,
        }
    }
}

/// See the module.
pub(crate) struct Performance<'g> {
    ground: &'g Ground,
    world: Arc<World>,
    people: People,
    mishap: Mishap,
    lives: usize,
    /// Each step that has called, with the number of its attempts.
    asked: Arc<Mutex<BTreeMap<Step, u32>>>,
}

impl<'g> Performance<'g> {
    /// Performs the example without any kill.
    pub(crate) fn whole(ground: &'g Ground, example: &Example, mishap: &Mishap) -> Self {
        let mut performance = Self::new(ground, example, mishap);
        performance.live(End::Done);
        performance
    }

    /// Performs the example in lives that end so, and in one more; nothing, where its work is done in the first one.
    pub(crate) fn killed(
        ground: &'g Ground,
        example: &Example,
        mishap: &Mishap,
        ends: &[End],
    ) -> Option<Self> {
        let mut performance = Self::new(ground, example, mishap);
        let mut is_done = false;
        for end in ends.iter().chain([&End::Done]) {
            is_done = is_done || performance.live(*end);
            if is_done && performance.lives == 1 {
                return None;
            }
        }
        Some(performance)
    }

    fn new(ground: &'g Ground, example: &Example, mishap: &Mishap) -> Self {
        let plan = Plan {
            seed: 7,
            catalogue: Vec::new(),
            runs: Vec::new(),
            names: Vec::new(),
            lives: Vec::new(),
            engines: Vec::new(),
            outages: Vec::new(),
            slots: SLOTS,
            share: SLOTS,
        };
        Self {
            ground,
            world: Arc::new(World::new(Arc::new(plan), None, &|_| Arc::new(Direct), false)),
            people: People::of(example, mishap),
            mishap: mishap.clone(),
            lives: 0,
            asked: Arc::default(),
        }
    }

    /// Lives until the life ends, and says whether its work was done then.
    pub(crate) fn live(&mut self, end: End) -> bool {
        let runtime = runtime().unwrap();
        let _inline = Inline::begin();
        let (world, number) = (&self.world, self.lives);
        self.lives += 1;
        let begin = world.progress.lock().now;
        let (now, is_done) = runtime.block_on(async {
            let clock = Virtual::showing(begin);
            world.witness.begin_life(begin, number);
            let disk = Disk::new(
                Arc::clone(world),
                clock,
                Arc::clone(&self.ground.definitions),
                number,
                end,
                None,
            );
            let disk = Arc::new(disk);
            let engine = self.engine(&disk, clock, number);
            let is_done = tokio::select! {
                biased;
                () = violated(world) => true,
                () = disk.over() => false,
                () = people::work(world, &self.people, &engine, clock) => true,
                () = tokio::time::sleep(HORIZON) => {
                    tell_stuck(world, &engine, clock.now()).await;
                    true
                }
            };
            (clock.now(), is_done)
        });
        drop(runtime);
        world.progress.lock().now = now + DOWN;
        world.memory.with(|state| world.witness.verify(now, state));
        is_done
    }

    fn engine(&self, disk: &Arc<Disk>, clock: Virtual, life: usize) -> Arc<Engine> {
        let library = |secrets: &Arc<Secrets>, events: &Arc<Events>| {
            let library = Library::new(
                Arc::clone(&self.world),
                clock,
                Arc::clone(secrets),
                Arc::clone(events),
                self.mishap.clone(),
                Arc::clone(&self.asked),
            );
            Arc::new(library) as Arc<dyn Caller>
        };
        let engine = made_of(Ingredients {
            settings: self.ground.settings.clone(),
            disk,
            clock,
            random: Seeded::new(self.world.plan.seed, life),
            outbound: &self.ground.outbound,
            placement: Placement::alone(),
            caller: &library,
        });
        engine.unwrap()
    }

    /// What has come of it.
    ///
    /// # Errors
    /// The promise that was broken, and the last things that happened.
    pub(crate) fn outcome(&self) -> Result<Outcome, String> {
        let seen = self.world.witness.outcome(self.world.plan.seed);
        if let Some(violation) = seen.violation {
            return Err(format!("{violation}\n{}", seen.trace.join("\n")));
        }
        let refusal = self.people.refusal();
        Ok(self.world.memory.with(|state| Outcome::of(state, refusal)))
    }

    /// Each step that has called, with the number of its attempts.
    pub(crate) fn asked(&self) -> BTreeMap<Step, u32> {
        self.asked.lock().clone()
    }

    /// How the run with this id has ended.
    pub(crate) fn ended(&self, id: &RunId) -> Option<Ended> {
        self.world.memory.with(|state| state.runs.get(id).map(Ended::of))
    }

    /// Makes each beginning of the run's journal the journal of a run of its own, as if the engine had been killed there; entries
    /// that were written in one step are cut apart, too. Their ids.
    ///
    /// Left out are beginnings whose run waits for people: for their decision, which is kept beside the journal, and for their
    /// wish to cancel it, which they do not have twice.
    pub(crate) fn cut(&self, id: &RunId) -> Vec<RunId> {
        let now = self.world.progress.lock().now;
        let (record, summary, entries) = self.world.memory.with(|state| {
            let run = &state.runs[id];
            assert_eq!(run.first, 0, "the journal is there from its beginning");
            (run.record.clone(), run.summary.clone(), run.entries.clone())
        });
        let kinds: Vec<EventKind> = entries
            .iter()
            .map(|bytes| serde_json::from_slice::<Event>(bytes).unwrap().kind)
            .collect();
        let cancelled = kinds
            .iter()
            .position(|kind| matches!(kind, EventKind::RunCancelling { .. }));
        let first = cancelled.map_or(0, |wish| wish + 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inline = Inline::begin();
        let mut cuts = Vec::new();
        for length in first..entries.len() {
            let asks = kinds.iter().take(length).fold(0_i32, |asks, kind| match kind {
                EventKind::ApprovalOpened { .. } => asks + 1,
                EventKind::ApprovalDecided { .. } | EventKind::ApprovalExpired { .. } => asks - 1,
                _ => asks,
            });
            if asks > 0 {
                continue;
            }
            let id: RunId = format!("{id}.{length}").parse().unwrap();
            runtime.block_on(self.begin(&id, &record, &summary, &entries[..length], now));
            cuts.push(id);
        }
        cuts
    }

    /// Makes a run durable with this journal.
    async fn begin(&self, id: &RunId, record: &Record, whole: &Summary, entries: &[Vec<u8>], now: Timestamp) {
        let (memory, witness) = (&self.world.memory, &self.world.witness);
        let record = Record {
            id: id.clone(),
            ..record.clone()
        };
        let beginning = Summary {
            id: id.clone(),
            status: Status::Pending,
            failure: None,
            started_at: None,
            ended_at: None,
            history_length: 0,
            // That of the whole journal is not that of its beginnings.
            chain: None,
            // A schedule, or an event, has started the whole run, and not this one.
            origin: None,
            ..whole.clone()
        };
        memory.create_run(&record, &beginning).await.unwrap();
        let resources: &Resources = &record.resources;
        let pinned = self.ground.definitions.pinned(&record.document, resources).await;
        witness.created(now, &beginning, record.hears_from, pinned.unwrap().definition);
        if entries.is_empty() {
            return;
        }
        let step = Written {
            entries: entries.to_vec(),
            ..Written::to(Summary {
                status: Status::Running,
                started_at: whole.started_at,
                history_length: entries.len() as u64,
                ..beginning
            })
        };
        memory.append(step.clone()).await.unwrap();
        witness.committed(now, &step);
        witness.told(id);
    }
}
