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

/// Lines of what happened last in a seed that fails.
const LAST: usize = 60;

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
    /// Print everything that happened, and of a seed that does not fail, too; else only the end of one that fails.
    #[arg(long)]
    pub trace: bool,
}

/// Of several seeds.
#[derive(Clone, Copy, Default)]
struct Total {
    seeds: u64,
    /// Sum of the digests, modulo 2^64: the same for the same seeds, in whatever order.
    digest: u64,
    figures: Figures,
}

impl std::ops::AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.digest = self.digest.wrapping_add(other.digest);
        self.figures += other.figures;
    }
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
    let work = || -> Result<(Total, Option<Outcome>), Failure> {
        let simulation = fleet::simulation(None)?;
        let (mut total, mut told) = (Total::default(), None);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            // Seeds before one that fails are still carried out, so that it is the first one that is told.
            if index >= count || index > found.load(Ordering::Relaxed) {
                return Ok((total, told));
            }
            let outcome = simulation.run(first.saturating_add(index));
            total += Total {
                seeds: 1,
                digest: outcome.digest,
                figures: outcome.figures,
            };
            if outcome.violation.is_some() {
                found.fetch_min(index, Ordering::Relaxed);
                return Ok((total, Some(outcome)));
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
    let (mut total, mut outcomes) = (Total::default(), Vec::new());
    for (part, outcome) in results {
        total += part;
        outcomes.extend(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.seed);
    let failed = outcomes.iter().find(|outcome| outcome.violation.is_some());
    let shown = failed.or(outcomes.first().filter(|_| arguments.trace || output.is_json()));
    let seconds = clock.monotonic().as_secs_f64();
    print(output, first, &total, seconds, shown);
    if let Some(outcome) = shown.filter(|_| !output.is_json()) {
        tell(output, outcome, if arguments.trace { usize::MAX } else { LAST });
    }
    match failed {
        None => Ok(()),
        Some(outcome) => Err(Failure::failed(format!("seed {} breaks a promise", outcome.seed))
            .with_remedy(format!("repeat it with: muster sim --seed {}", outcome.seed))),
    }
}

fn print(output: &Output, first: u64, total: &Total, seconds: f64, shown: Option<&Outcome>) {
    let Total {
        seeds,
        digest,
        figures,
    } = *total;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = seeds as f64 / seconds.max(1e-9);
    if output.is_json() {
        output.json(&json!({
            "firstSeed": first,
            "seeds": seeds,
            "seconds": seconds,
            "seedsPerSecond": rate,
            "digest": digest,
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
        "{seeds} seeds from {first} in {seconds:.1} s, {rate:.0} a second; digest {digest:016x}"
    ));
    output.line(&format!(
        "{runs} runs ({completed} completed; {starts} started by schedules and events), {faults} crashes, stops and other faults, {commits} commits, {calls} calls ({resent} sent again, {strays} by engines that had lost their runs), {timers} timers, {events} events, {controls} acknowledged requests"
    ));
    output.line(&format!(
        "{deliveries} attempts of calls at instances, {moved} of them after another instance"
    ));
}

/// What happened in a seed: the last lines of it.
fn tell(output: &Output, outcome: &Outcome, lines: usize) {
    output.heading(&format!("Seed {} (digest {:016x})", outcome.seed, outcome.digest));
    for line in outcome.trace.iter().rev().take(lines).rev() {
        output.line(line);
    }
    if let Some(violation) = &outcome.violation {
        output.line(&format!("{violation}"));
    }
}
