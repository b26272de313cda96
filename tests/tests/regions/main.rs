//! Three regions on one machine, each in a network of its own: the primary one is lost, work goes on in the next, and the region
//! comes back and leads again.
//!
//! ```text
//! world.rs     networks that can be cut off from each other
//! stack.rs     what runs in a region
//! agent.rs     the agent of a region: this executable, started again
//! access.rs    ways into each region, from outside
//! callers.rs   who sends messages and starts runs all the time, and what they were promised
//! ```
//!
//! What must hold is asserted: nothing is lost that had reached the other regions, a step keeps its message id, is recorded once,
//! and every history verifies. How long it took and what else was lost is printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod agent;
mod callers;
mod stack;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_api::workflow::{GetHistoryRequest, VerifyRunRequest};
use muster_testkit::wait_for;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

use access::Access;
use callers::{CALLS, Call, Ledger, Run};
use stack::{Place, REGIONS, Region};
use world::{Network, in_a_world_of_its_own};

/// How long anything may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The region that is lost, and the one that is asked meanwhile.
const PRIMARY: usize = 0;
const NEXT: usize = 1;

/// Answers to callers of each region, and ended runs, that show that things go on.
const ENOUGH: usize = 20;

struct Scenario {
    name: &'static str,
    place: Place,
    regions: Vec<Region>,
    access: Access,
    ledger: Arc<Ledger>,
    load: JoinSet<()>,
    _directory: TempDir,
}

impl Scenario {
    async fn start(name: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::make(directory.path()).await;
        let regions = Region::start_all(&place).await;
        let access = Access::to(&regions, &place);
        let ledger = Arc::new(Ledger::default());
        wait_for("the engines to share the work", PATIENCE, async || {
            for region in 0..REGIONS.len() {
                access.does_new_work(region, &format!("first-{region}")).await?;
            }
            Ok::<_, String>(())
        })
        .await;
        access.watch_partitions().await;
        let load = callers::begin(&access, &ledger);
        let mut scenario = Self {
            name,
            place,
            regions,
            access,
            ledger,
            load,
            _directory: directory,
        };
        scenario.goes_on(Duration::ZERO).await;
        scenario
    }

    fn report(&self, line: &str) {
        report(&format!("{}: {line}", self.name));
    }

    /// Waits until callers of every region have been answered since, and runs have begun and ended.
    async fn goes_on(&mut self, since: Duration) -> Vec<Call> {
        // One that failed has said why.
        while let Some(ended) = self.load.try_join_next() {
            ended.unwrap();
        }
        let ledger = &self.ledger;
        let calls = wait_for("callers of every region to be answered", PATIENCE, async || {
            let calls = ledger.calls_since(since).await;
            let of = |home: usize| calls.iter().filter(|call| call.home == home).count();
            let least = (0..REGIONS.len()).map(of).min();
            if least >= Some(ENOUGH) {
                Ok(calls)
            } else {
                Err(format!("{least:?}"))
            }
        })
        .await;
        wait_for("runs to begin and end", PATIENCE, async || {
            let runs = ledger.runs().await;
            let new = runs
                .iter()
                .filter(|run| run.completed && run.acknowledged >= since);
            new.count() >= ENOUGH
        })
        .await;
        calls
    }

    /// Waits until everything that has been acknowledged so far is in all regions; what that is.
    async fn everywhere(&self) -> BTreeSet<String> {
        let runs = self.ledger.runs().await;
        let (written, leads) = self.regions[PRIMARY].offset().await;
        assert!(leads, "the primary region leads");
        for region in &self.regions {
            wait_for("the replicas to have all", PATIENCE, async || {
                let (offset, _) = region.offset().await;
                offset >= written
            })
            .await;
        }
        runs.into_iter().map(|run| run.id).collect()
    }

    /// Waits until the next region has taken over what was lost since, and prints how long that took.
    async fn taken_over(&mut self, since: Duration) {
        let lost = Network::address_of(1);
        let next = &self.regions[NEXT];
        let elected = wait_for("another primary", PATIENCE, async || {
            let primary = next.primary().await.filter(|primary| *primary != lost);
            primary.map(|primary| (primary, self.ledger.now()))
        })
        .await;
        let access = &self.access;
        let mut tries = 0;
        wait_for("new work to be done", PATIENCE, async || {
            tries += 1;
            access.does_new_work(NEXT, &format!("after-{tries}")).await
        })
        .await;
        let works = self.ledger.now();
        wait_for("all partitions to be worked on", PATIENCE, async || {
            access.works_on_all(NEXT).await
        })
        .await;
        let all = self.ledger.now();
        let after = |time: Duration| time.saturating_sub(since).as_secs_f64();
        self.report(&format!(
            "another primary ({}) after {:.1} s, new runs are done after {:.1} s, all runs go on after {:.1} s",
            elected.0,
            after(elected.1),
            after(works),
            after(all)
        ));
        let calls = self.goes_on(since).await;
        let at_home: fn(&Call) -> bool = |call| call.home == PRIMARY;
        self.report_calls("callers of the lost region", &calls, at_home);
        self.report_calls("callers of the others", &calls, |call| call.home != PRIMARY);
    }

    fn report_calls(&self, who: &str, calls: &[Call], which: fn(&Call) -> bool) {
        let calls: Vec<&Call> = calls.iter().filter(|call| which(call)).collect();
        let failed: usize = calls.iter().map(|call| call.failed).sum();
        let took = calls.iter().map(|call| call.ended.saturating_sub(call.began));
        self.report(&format!(
            "{who}: {} calls answered, {failed} attempts failed, the longest took {:.1} s",
            calls.len(),
            took.max().unwrap_or_default().as_secs_f64()
        ));
    }

    /// Waits until the lost region is a part of the whole again.
    async fn is_back(&mut self) {
        let since = self.ledger.now();
        let region = &self.regions[PRIMARY];
        wait_for("its Redis to follow", PATIENCE, async || {
            let own = region.primary().await;
            let (_, takes_part) = region.offset().await;
            if takes_part && own != Some(region.network.address()) {
                Ok(())
            } else {
                Err(format!("{own:?}"))
            }
        })
        .await;
        let follows = self.ledger.now();
        let access = &self.access;
        let mut tries = 0;
        wait_for("its engine to take runs", PATIENCE, async || {
            tries += 1;
            access.does_new_work(PRIMARY, &format!("back-{tries}")).await?;
            access.works_on_all(PRIMARY).await
        })
        .await;
        let after = |time: Duration| time.saturating_sub(since).as_secs_f64();
        self.report(&format!(
            "coming back: its Redis follows after {:.1} s, its engine takes part after {:.1} s",
            after(follows),
            after(self.ledger.now())
        ));
        self.ledger.send_home();
        let now = self.ledger.now();
        let calls = self.goes_on(now).await;
        self.report_calls("callers who were sent home", &calls, |call| call.home == PRIMARY);
    }

    /// Lets the region lead again; nothing may be lost by that, says the end.
    async fn fail_back(&mut self) -> Vec<Run> {
        let before = self.ledger.runs().await;
        let since = self.ledger.now();
        self.regions[PRIMARY].lead().await;
        let led = self.ledger.now();
        let access = &self.access;
        wait_for("all to go on", PATIENCE, async || {
            access.does_new_work(PRIMARY, "led").await?;
            access.works_on_all(PRIMARY).await
        })
        .await;
        let all = self.ledger.now();
        let after = |time: Duration| time.saturating_sub(since).as_secs_f64();
        self.report(&format!(
            "failing back: it leads after {:.1} s, all runs go on after {:.1} s",
            after(led),
            after(all)
        ));
        let calls = self.goes_on(since).await;
        self.report_calls("failing back: callers", &calls, |_| true);
        before
    }

    /// Compares what was promised with what is there: `kept` may not be lost, nor what was acknowledged
    /// after the region was gone.
    async fn judge(mut self, kept: &BTreeSet<String>, gone: Duration) {
        self.ledger.end();
        let ended = async {
            while let Some(ended) = self.load.join_next().await {
                ended.unwrap()
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            let runs = self.ledger.runs().await;
            let stuck: Vec<_> = runs.iter().filter(|run| !run.completed).collect();
            let warnings: String = self.regions.iter().map(Region::warnings).collect();
            panic!("these do not end: {stuck:?}\n{warnings}");
        }
        let runs = self.ledger.runs().await;
        let (mut lost, mut recorded) = (Vec::new(), BTreeSet::new());
        for run in &runs {
            match self.steps(&run.id).await {
                Some(steps) => {
                    assert!(run.completed, "{run:?} is there and has not ended");
                    assert_eq!(steps.len(), CALLS, "{}", run.id);
                    recorded.extend(steps);
                }
                None => lost.push(run),
            }
        }
        for run in &lost {
            assert!(!kept.contains(&run.id), "{run:?} was everywhere and is lost");
            assert!(run.acknowledged <= gone, "{run:?} is lost without a fault");
        }
        let mut again = 0;
        let sent = agent::sent(&self.place.ledgers());
        for (text, (ids, count)) in sent.iter().filter(|(text, _)| recorded.contains(*text)) {
            assert_eq!(ids.len(), 1, "{text} was sent under several ids");
            again += count - 1;
        }
        let oldest = lost.iter().map(|run| gone.saturating_sub(run.acknowledged)).max();
        self.report(&format!(
            "{} runs acknowledged, {} lost (acknowledged at most {:.3} s before), {} steps recorded once each, {again} worked on again \
             under the same id",
            runs.len(),
            lost.len(),
            oldest.unwrap_or_default().as_secs_f64(),
            recorded.len()
        ));
    }

    /// The steps that are recorded of a run, unless it is lost.
    async fn steps(&self, id: &str) -> Option<BTreeSet<String>> {
        let mut engine = self.access.engine(PRIMARY);
        let request = GetHistoryRequest {
            run_id: id.to_owned(),
            page_size: 100,
            ..Default::default()
        };
        let history = match engine.get_history(request).await {
            Err(status) if status.code() == Code::NotFound => return None,
            history => history.unwrap().into_inner(),
        };
        let mut steps = BTreeSet::new();
        for event in history.events {
            let step = event.task.rsplit('/').next().unwrap_or_default();
            if event.r#type == "task.completed" && step.starts_with("call-") {
                assert!(
                    steps.insert(format!("{id} {step}")),
                    "{id} {step} is recorded twice"
                );
            }
        }
        let run_id = id.to_owned();
        let verified = engine.verify_run(VerifyRunRequest { run_id }).await;
        assert_eq!(
            verified.unwrap().into_inner().problems,
            Vec::<String>::new(),
            "{id}"
        );
        Some(steps)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_region_is_killed_and_the_next_goes_on() {
    in_a_world_of_its_own("the_primary_region_is_killed_and_the_next_goes_on", async || {
        let mut scenario = Scenario::start("killed").await;
        let mut kept = scenario.everywhere().await;
        let fault = scenario.ledger.now();
        scenario.regions[PRIMARY].kill().await;
        let gone = scenario.ledger.now();
        scenario.taken_over(fault).await;
        scenario.regions[PRIMARY].start().await;
        scenario.is_back().await;
        // What was acknowledged since is lost neither by coming back nor by failing back.
        kept.extend(since(scenario.fail_back().await, gone));
        scenario.judge(&kept, gone).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_region_is_cut_off_and_the_next_goes_on() {
    in_a_world_of_its_own("the_primary_region_is_cut_off_and_the_next_goes_on", async || {
        let mut scenario = Scenario::start("cut off").await;
        let mut kept = scenario.everywhere().await;
        let fault = scenario.ledger.now();
        scenario.regions[PRIMARY].network.cut_off().await;
        let gone = scenario.ledger.now();
        scenario.taken_over(fault).await;
        scenario.refuses_inside().await;
        scenario.regions[PRIMARY].network.join().await;
        scenario.is_back().await;
        kept.extend(since(scenario.fail_back().await, gone));
        scenario.judge(&kept, gone).await;
    })
    .await;
}

fn since(runs: Vec<Run>, gone: Duration) -> impl Iterator<Item = String> {
    runs.into_iter()
        .filter(move |run| run.acknowledged > gone)
        .map(|run| run.id)
}

impl Scenario {
    /// Asks for a run in the region that is cut off, whose Redis leads there still: what it took would be lost.
    async fn refuses_inside(&self) {
        const DOCUMENT: &str = "document: { dsl: 1.0.0, namespace: test, name: inside, version: 1.0.0 }\n\
            do:\n  - done: { set: { done: true } }\n";
        let file = self.place.file("inside.yaml", DOCUMENT);
        let region = &self.regions[PRIMARY];
        assert_eq!(region.primary().await, Some(region.network.address()));
        for number in 0..3 {
            let id = format!("inside-{number}");
            let run = ["workflow", "run", &file, "--id", &id, "-o", "json"];
            let (done, said, complained) = region.muster(&self.place, &run).await;
            assert!(!done, "{said}{complained}");
        }
        self.report("3 runs asked for inside of the region while it was cut off: all refused");
    }
}

#[expect(clippy::print_stdout, reason = "the long suite's measurements are its output")]
fn report(line: &str) {
    println!("MEASURED {line}");
}
