//! `muster sim`: whole lives of the workflow engine out of one seed each, with crashes and faults, on virtual time.
//!
//! Agents are called through a [`fleet`]: the registry's lease table and the router's choice, whose faults follow from the same seed.
//!
//! Seeds are independent, so they are shared among threads; what is printed does not depend on how. A seed that fails is
//! printed with the command that repeats it alone.

mod fleet;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Args;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_workflow_engine::simulation::{Figures, Outcome};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;

/// Seeds where nothing is said.
const SEEDS: u64 = 1_000;

/// Arguments of `muster sim`.
#[derive(Debug, Args)]
pub struct SimArguments {
    /// How many seeds, from the first on; default: 1,000, or the one that is named.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// The first seed; default: 0.
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Threads; default: one for each core.
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Print what happened at the end of a seed that does not fail, too.
    #[arg(long)]
    pub trace: bool,
}

/// Runs `muster sim`.
pub fn run(arguments: &SimArguments, output: &Output) -> Result<(), Failure> {
    let (first, count) = match (arguments.seed, arguments.seeds) {
        (Some(seed), None) => (seed, 1),
        (seed, seeds) => (seed.unwrap_or_default(), seeds.unwrap_or(SEEDS)),
    };
    let clock = SystemClock::default();
    let jobs = arguments.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        NonZeroUsize::get,
    );
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || -> Result<(Figures, u64, Option<Outcome>), Failure> {
        let simulation = fleet::simulation(None)?;
        let (mut figures, mut done, mut told) = (Figures::default(), 0, None);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            // Seeds before one that fails are still carried out, so that it is the first one that is told.
            if index >= count || index > found.load(Ordering::Relaxed) {
                return Ok((figures, done, told));
            }
            let outcome = simulation.run(first.saturating_add(index));
            figures += outcome.figures;
            done += 1;
            if outcome.violation.is_some() {
                found.fetch_min(index, Ordering::Relaxed);
                return Ok((figures, done, Some(outcome)));
            }
            if count == 1 {
                told = Some(outcome);
            }
        }
    };
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(Failure::failed("a simulation panicked; its message is above")))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let (mut figures, mut done, mut outcomes) = (Figures::default(), 0, Vec::new());
    for (part, seeds, outcome) in results {
        figures += part;
        done += seeds;
        outcomes.extend(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.seed);
    let failed = outcomes.iter().find(|outcome| outcome.violation.is_some());
    let shown = failed.or(outcomes.first().filter(|_| arguments.trace || output.is_json()));
    let seconds = clock.monotonic().as_secs_f64();
    print(output, first, done, seconds, figures, shown);
    match failed {
        None => Ok(()),
        Some(outcome) => Err(Failure::failed(format!("seed {} breaks a promise", outcome.seed))
            .with_remedy(format!("repeat it with: muster sim --seed {}", outcome.seed))),
    }
}

fn print(output: &Output, first: u64, done: u64, seconds: f64, figures: Figures, shown: Option<&Outcome>) {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = done as f64 / seconds.max(1e-9);
    if output.is_json() {
        output.json(&json!({
            "firstSeed": first,
            "seeds": done,
            "seconds": seconds,
            "seedsPerSecond": rate,
            "figures": figures,
            "outcome": shown.map_or(Value::Null, |outcome| json!(outcome)),
        }));
        return;
    }
    let Figures {
        runs,
        completed,
        faults,
        commits,
        calls,
        resent,
        timers,
        events,
        controls,
        starts,
        strays,
        deliveries,
        moved,
    } = figures;
    output.line(&format!(
        "{done} seeds from {first} in {seconds:.1} s, {rate:.0} a second"
    ));
    output.line(&format!(
        "{runs} runs ({completed} completed; {starts} started by schedules and events), {faults} crashes, stops and other faults, {commits} commits, {calls} calls ({resent} sent again, {strays} by engines that had lost their runs), {timers} timers, {events} events, {controls} acknowledged requests"
    ));
    output.line(&format!(
        "{deliveries} attempts of calls at instances, {moved} of them after another instance"
    ));
    let Some(outcome) = shown else {
        return;
    };
    output.heading(&format!("Seed {} (digest {:016x})", outcome.seed, outcome.digest));
    for line in &outcome.tail {
        output.line(line);
    }
    if let Some(violation) = &outcome.violation {
        output.line(&format!("{violation}"));
    }
}
