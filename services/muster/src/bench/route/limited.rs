//! Overload, and a noisy caller: what the router makes of more than its agents take.
//!
//! The agents' capacity is limited by a time that each call takes and by how many each agent works on at once; what is more waits
//! in line at the agent. So the agents are what is scarce, not the machine, and the load can be a multiple of what they take.
//! In each round the peak is measured first, in a closed loop with twice as many clients as the agents have places; the rates
//! are parts and multiples of it. Every call has a deadline. What counts as goodput are answers within it, of the calls that
//! should have begun while it was measured; without a deadline a queue without an end would look as good as any.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::auth::{CALLER, Tokens};
use super::client::{self, Call, Caller, Metadata, Sent};
use super::closed::{self, Refusals};
use super::fleet::{Fleet, Limit};
use super::open::{self, Arrivals, Seen};
use super::report::median;
use crate::bench::latency::{at, number, quantiles};
use crate::bench::process::machine;
use crate::failure::Failure;
use crate::output::Output;

/// The load, as parts of the peak. The first is the one that latencies are held against.
const LOADS: [f64; 4] = [0.8, 1.0, 2.0, 3.0];

/// What is left of the peak under the highest load, at least.
const LEAST_GOODPUT: f64 = 0.9;

/// How much longer accepted calls may take, under overload and beside a noisy caller.
const MOST_LATENCY: f64 = 2.0;

/// How often a noisy caller calls where a quiet one does once.
const NOISE: f64 = 100.0;

/// The quiet caller's rate where it is not given, as a part of the peak: then the noisy one asks for twice the peak.
const QUIET: f64 = 0.02;

/// What of a quiet caller's calls must be answered in time, so that its p99 is one of calls that were.
const LEAST_ANSWERED: f64 = 0.99;

/// Connections of each caller.
const CONNECTIONS: u32 = 16;

/// Arguments of `--overload` and `--noisy`.
#[derive(Debug, Args)]
#[group(id = "limited")]
pub struct Arguments {
    /// In place of the closed loop: calls at 0.8, 1, 2 and 3 times the peak of agents whose capacity is limited.
    #[arg(long, conflicts_with_all = ["noisy", "with", "clients"])]
    overload: bool,
    /// In place of the closed loop: a quiet caller alone, and beside one with 100 times its rate, at agents whose capacity is
    /// limited.
    #[arg(long, conflicts_with_all = ["with", "clients"])]
    noisy: bool,
    /// With --overload or --noisy: agents.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    agents: u32,
    /// With --overload or --noisy: calls that an agent works on at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// With --overload or --noisy: agents say in their cards how many calls they work on at once, and the router need not find out.
    #[arg(long)]
    declared: bool,
    /// With --overload or --noisy: milliseconds that each takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    service_time: u64,
    /// With --overload or --noisy: milliseconds after which a caller gives up.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    deadline: u64,
    /// With --overload or --noisy: what the times of the calls are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With --noisy: calls a second of the quiet caller; default: a fiftieth of the peak.
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    quiet_rate: Option<u32>,
    /// With --noisy: metadata of the quiet caller, beside the token by which the router knows it; may be repeated. No caller reaches
    /// its limit of requests a minute unless you set `router.api_rate_limit`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = client::metadata)]
    quiet_metadata: Vec<Metadata>,
    /// With --noisy: metadata of the noisy one; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = client::metadata)]
    noisy_metadata: Vec<Metadata>,
}

impl Arguments {
    /// Whether this is to be measured.
    pub const fn asked_for(&self) -> bool {
        self.overload || self.noisy
    }

    const fn limit(&self) -> Limit {
        Limit {
            concurrency: self.concurrency,
            service_time: self.service_time,
            is_declared: self.declared,
        }
    }
}

/// A router in front of agents whose capacity is limited.
struct Bench<'a> {
    arguments: &'a super::Arguments,
    call: Call,
    fleet: Fleet,
    tokens: &'a Tokens,
    seeds: u64,
}

impl Bench<'_> {
    fn callers(&self, count: u32, who: Who<'_>, deadline: Option<Duration>) -> Result<Vec<Caller>, Failure> {
        let mut sent = self.arguments.sent(self.call, self.tokens.shown_by(who.subject)?);
        sent.metadata.extend_from_slice(who.metadata);
        let sent = Arc::new(Sent { deadline, ..sent });
        Caller::several(&[self.fleet.router.url()], CONNECTIONS.min(count), count, &sent)
    }

    /// Answers a second where clients wait for each other's, twice as many as there are places.
    async fn peak(&self) -> Result<f64, Failure> {
        let limited = &self.arguments.limited;
        let clients = limited
            .agents
            .saturating_mul(limited.concurrency)
            .saturating_mul(2);
        let callers = self.callers(clients, Who::ANY, None)?;
        let measured = closed::measure(callers, Refusals::Pass, self.arguments.times(), Vec::new).await?;
        Ok(number(measured.latencies.len()) / measured.window.as_secs_f64())
    }

    /// So many calls a second of one caller.
    async fn load(&self, per_second: f64, who: Who<'_>, seed: u64) -> Result<Seen, Failure> {
        let deadline = Duration::from_millis(self.arguments.limited.deadline);
        let callers = self.callers(CONNECTIONS, who, Some(deadline))?;
        let arrivals = Arrivals::new(per_second, seed);
        open::measure(callers, arrivals, deadline, self.arguments.times()).await
    }

    fn seed(&mut self) -> u64 {
        self.seeds = self.seeds.wrapping_add(1);
        self.seeds
    }
}

/// Who calls, as the router is to know it.
#[derive(Clone, Copy)]
struct Who<'a> {
    /// Whom the token is of, where there is one.
    subject: &'a str,
    /// What else goes with each call; counts where it says another thing.
    metadata: &'a [Metadata],
}

impl Who<'_> {
    /// The one caller where there are not two.
    const ANY: Self = Self {
        subject: CALLER,
        metadata: &[],
    };
}

/// Runs `muster bench route --overload` or `--noisy`.
pub async fn run(arguments: &super::Arguments, output: &Output) -> Result<(), Failure> {
    let limited = &arguments.limited;
    let directory = arguments.directory()?;
    let tokens = Tokens::new(arguments.auth, directory.path())?;
    let (settings, shown) = (tokens.settings(&arguments.set), tokens.shown_by(CALLER)?);
    let mut results = Vec::new();
    if !output.is_json() {
        output.line(&format!(
            "{} agents, each with {} {}places and {} ms for a call; a deadline of {} ms; {} × {} s after {} s; auth: {}",
            limited.agents,
            limited.concurrency,
            if limited.declared { "declared " } else { "" },
            limited.service_time,
            limited.deadline,
            arguments.rounds,
            arguments.seconds,
            arguments.warm_up,
            arguments.auth.name(),
        ));
    }
    for &call in &arguments.call {
        // Anew, so that what a router has learned of the one does not help it with the other.
        let directory = directory.path().join(call.name());
        let limit = Some(limited.limit());
        let mut bench = Bench {
            arguments,
            call,
            fleet: Fleet::start(&directory, limited.agents, limit, &settings, &shown).await?,
            tokens: &tokens,
            seeds: limited.seed,
        };
        let result = if limited.overload {
            overload(&mut bench, output).await?
        } else {
            noisy(&mut bench, output).await?
        };
        bench.fleet.stop().await;
        results.push(result);
    }
    if output.is_json() {
        output.json(&json!({
            "machine": machine(),
            "agents": limited.agents,
            "concurrency": limited.concurrency,
            "declared": limited.declared,
            "serviceMillis": limited.service_time,
            "deadlineMillis": limited.deadline,
            "payloadBytes": arguments.payload,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "warmUpSeconds": arguments.warm_up,
            "auth": arguments.auth.name(),
            "seed": limited.seed,
            "calls": results,
        }));
    }
    Ok(())
}

/// What was seen at one load, over all rounds.
struct Load {
    factor: f64,
    seen: Seen,
    /// Goodput as a part of the same round's peak.
    parts: Vec<f64>,
}

async fn overload(bench: &mut Bench<'_>, output: &Output) -> Result<Value, Failure> {
    let mut peaks = Vec::new();
    let mut loads = Vec::new();
    for factor in LOADS {
        loads.push(Load {
            factor,
            seen: Seen::nothing()?,
            parts: Vec::new(),
        });
    }
    for _ in 0..bench.arguments.rounds {
        let peak = bench.peak().await?;
        peaks.push(peak);
        for load in &mut loads {
            let seed = bench.seed();
            let seen = bench.load(load.factor * peak, Who::ANY, seed).await?;
            load.parts.push(goodput(&seen) / peak);
            load.seen.add(&seen)?;
        }
    }
    let verdict = Verdict::of_overload(&loads);
    if !output.is_json() {
        output.heading(&format!(
            "Overload, {}: the peak is {:.0} calls a second",
            bench.call.name(),
            median(&peaks)
        ));
        let header = [
            "LOAD",
            "OFFERED/S",
            "GOODPUT/S",
            "OF PEAK",
            "REFUSED/S",
            "LATE/S",
            "P50 MS",
            "P99 MS",
            "SENT LATE P99",
        ];
        let table = loads.iter().map(|load| {
            let seen = &load.seen;
            [
                format!("{:.1} ×", load.factor),
                format!("{:.0}", per_second(seen, seen.offered())),
                format!("{:.0}", goodput(seen)),
                format!("{:.2}", median(&load.parts)),
                format!("{:.0}", per_second(seen, seen.refused)),
                format!("{:.0}", per_second(seen, seen.late)),
                figure(at(&seen.accepted, 0.5)),
                figure(at(&seen.accepted, 0.99)),
                figure(at(&seen.lag, 0.99)),
            ]
        });
        output.table(header, table.collect());
        verdict.print(output);
    }
    let rows = loads.iter().map(|load| {
        let mut row = json_of(&load.seen);
        row["load"] = json!(load.factor);
        row["goodputOfPeak"] = json!(median(&load.parts));
        row
    });
    Ok(json!({
        "call": bench.call.name(),
        "peakPerSecond": median(&peaks),
        "peakPerSecondOfRounds": peaks,
        "loads": rows.collect::<Vec<_>>(),
        "verdict": verdict.json(),
    }))
}

async fn noisy(bench: &mut Bench<'_>, output: &Output) -> Result<Value, Failure> {
    let limited = &bench.arguments.limited;
    let (mut alone, mut beside, mut noise) = (Seen::nothing()?, Seen::nothing()?, Seen::nothing()?);
    let mut rates = Vec::new();
    let quiet = Who {
        subject: "quiet",
        metadata: &limited.quiet_metadata,
    };
    let noisy = Who {
        subject: "noisy",
        metadata: &limited.noisy_metadata,
    };
    for _ in 0..bench.arguments.rounds {
        let rate = match limited.quiet_rate {
            Some(rate) => f64::from(rate),
            None => QUIET * bench.peak().await?,
        };
        rates.push(rate);
        let seeds = [bench.seed(), bench.seed(), bench.seed()];
        alone.add(&bench.load(rate, quiet, seeds[0]).await?)?;
        let (hushed, loud) = tokio::try_join!(
            bench.load(rate, quiet, seeds[1]),
            bench.load(NOISE * rate, noisy, seeds[2]),
        )?;
        beside.add(&hushed)?;
        noise.add(&loud)?;
    }
    let verdict = Verdict::of_noise(&alone, &beside);
    let rows = [
        ("quiet, alone", &alone),
        ("quiet, beside", &beside),
        ("noisy", &noise),
    ];
    if !output.is_json() {
        output.heading(&format!(
            "A noisy caller, {}: {NOISE:.0} times {:.1} calls a second",
            bench.call.name(),
            median(&rates)
        ));
        let header = [
            "CALLER",
            "OFFERED/S",
            "ANSWERED/S",
            "REFUSED/S",
            "LATE/S",
            "P50 MS",
            "P99 MS",
            "SENT LATE P99",
        ];
        let table = rows.map(|(name, seen)| {
            [
                name.to_owned(),
                format!("{:.1}", per_second(seen, seen.offered())),
                format!("{:.1}", goodput(seen)),
                format!("{:.1}", per_second(seen, seen.refused)),
                format!("{:.1}", per_second(seen, seen.late)),
                figure(at(&seen.accepted, 0.5)),
                figure(at(&seen.accepted, 0.99)),
                figure(at(&seen.lag, 0.99)),
            ]
        });
        output.table(header, table.into());
        verdict.print(output);
    }
    Ok(json!({
        "call": bench.call.name(),
        "quietPerSecond": median(&rates),
        "quietAlone": json_of(&alone),
        "quietBeside": json_of(&beside),
        "noisy": json_of(&noise),
        "verdict": verdict.json(),
    }))
}

fn per_second(seen: &Seen, count: u64) -> f64 {
    number(count) / seen.window.as_secs_f64()
}

fn goodput(seen: &Seen) -> f64 {
    per_second(seen, seen.answered)
}

fn figure(millis: Option<f64>) -> String {
    millis.map_or_else(|| "–".to_owned(), |millis| format!("{millis:.2}"))
}

fn json_of(seen: &Seen) -> Value {
    json!({
        "offeredPerSecond": per_second(seen, seen.offered()),
        "goodputPerSecond": goodput(seen),
        "refusedPerSecond": per_second(seen, seen.refused),
        "latePerSecond": per_second(seen, seen.late),
        "acceptedMillis": quantiles(&seen.accepted),
        "sentLateMillis": quantiles(&seen.lag),
    })
}

/// A figure that has a bound.
struct Aim {
    what: &'static str,
    name: &'static str,
    is: f64,
    bound: f64,
    at_least: bool,
}

impl Aim {
    /// A figure that is no number reaches nothing.
    fn is_reached(&self) -> bool {
        if self.at_least {
            self.is >= self.bound
        } else {
            self.is < self.bound
        }
    }
}

/// Whether the router does what it should.
struct Verdict(Vec<Aim>);

impl Verdict {
    fn of_overload(loads: &[Load]) -> Self {
        let p99 = |load: Option<&Load>| {
            load.and_then(|load| at(&load.seen.accepted, 0.99))
                .unwrap_or(f64::NAN)
        };
        let highest = loads.last();
        Self(vec![
            Aim {
                what: "goodput at 3 × the peak, as a part of the peak",
                name: "goodputOfPeak",
                is: highest.map_or(f64::NAN, |load| median(&load.parts)),
                bound: LEAST_GOODPUT,
                at_least: true,
            },
            Aim {
                what: "p99 of accepted calls at 3 × the peak, as a multiple of that at 0.8 ×",
                name: "p99Ratio",
                is: p99(highest) / p99(loads.first()),
                bound: MOST_LATENCY,
                at_least: false,
            },
        ])
    }

    fn of_noise(alone: &Seen, beside: &Seen) -> Self {
        let p99 = |seen: &Seen| at(&seen.accepted, 0.99).unwrap_or(f64::NAN);
        Self(vec![
            Aim {
                what: "p99 of the quiet caller's accepted calls, as a multiple of that alone",
                name: "p99Ratio",
                is: p99(beside) / p99(alone),
                bound: MOST_LATENCY,
                at_least: false,
            },
            Aim {
                what: "the quiet caller's calls that are answered in time, as a part of all",
                name: "answered",
                is: number(beside.answered) / number(beside.offered()),
                bound: LEAST_ANSWERED,
                at_least: true,
            },
        ])
    }

    fn print(&self, output: &Output) {
        for aim in &self.0 {
            output.line(&format!(
                "{}: {:.2}, which must be {} {}: {}",
                aim.what,
                aim.is,
                if aim.at_least { "at least" } else { "below" },
                aim.bound,
                if aim.is_reached() {
                    "reached"
                } else {
                    "not reached"
                }
            ));
        }
    }

    fn json(&self) -> Value {
        let aims = self.0.iter().map(|aim| {
            let bound = if aim.at_least { "atLeast" } else { "below" };
            let aimed = json!({"is": aim.is, bound: aim.bound, "reached": aim.is_reached()});
            (aim.name.to_owned(), aimed)
        });
        Value::Object(aims.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::latency::add;

    fn seen(millis: &[u64], refused: u64) -> Seen {
        let mut seen = Seen::nothing().expect("histograms");
        seen.window = Duration::from_secs(1);
        for &millis in millis {
            add(&mut seen.accepted, Duration::from_millis(millis));
            seen.answered += 1;
        }
        seen.refused = refused;
        seen
    }

    fn reached(verdict: &Verdict) -> Vec<bool> {
        verdict.0.iter().map(Aim::is_reached).collect()
    }

    #[test]
    fn goodput_and_latency_under_overload_are_judged_apart() {
        let load = |factor, part, millis| Load {
            factor,
            seen: seen(&[millis], 0),
            parts: vec![part],
        };
        let judged = |part, millis| {
            let loads = [load(0.8, 0.8, 10), load(3.0, part, millis)];
            reached(&Verdict::of_overload(&loads))
        };
        assert_eq!(judged(0.95, 15), [true, true]);
        assert_eq!(judged(0.85, 15), [false, true]);
        assert_eq!(judged(0.95, 25), [true, false]);
    }

    #[test]
    fn what_was_not_measured_reaches_nothing() {
        let nothing = seen(&[], 0);
        assert_eq!(reached(&Verdict::of_noise(&nothing, &nothing)), [false, false]);
        assert_eq!(reached(&Verdict::of_overload(&[])), [false, false]);
    }

    #[test]
    fn a_quiet_caller_that_is_refused_is_not_served_well() {
        let alone = seen(&[10], 0);
        assert_eq!(reached(&Verdict::of_noise(&alone, &seen(&[12], 0))), [true, true]);
        assert_eq!(
            reached(&Verdict::of_noise(&alone, &seen(&[12], 1))),
            [true, false]
        );
    }
}
