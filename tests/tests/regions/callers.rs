//! Callers from outside of all regions, who send messages and start runs all the time, and write down what they were promised.
//!
//! Each has a home, and turns to the next region when a call fails or is not answered in time, as callers do who are led by names
//! with health checks. There it stays until it is sent home.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use muster_api::workflow::RunStatus;
use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Code;

use crate::access::Access;
use crate::agent;
use crate::stack::REGIONS;

/// Calls of a run.
pub const CALLS: usize = 4;

/// Of each kind, for each region.
const CALLERS: usize = 2;
const RUNNERS: usize = 6;

/// Between two calls of a caller, and two looks at a run.
const PAUSE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(500);

/// After so many looks at which nobody knows a run, it is lost. One engine may not know yet that its Redis leads no more.
const LOOKS: usize = 10;

/// A call and a wait, again and again.
fn work() -> String {
    let mut text = "document: { dsl: 1.0.0, namespace: test, name: work, version: 1.0.0 }\ndo:\n".to_owned();
    for number in 0..CALLS {
        let _infallible = write!(
            text,
            "  - call-{number}:\n      call: a2a\n      with:\n        server: agent://{}\n        method: SendMessage\n        \
             parameters: {{ message: {{ parts: [ {{ text: \"${{ $workflow.id + \\\" call-{number}\\\" }}\" }} ] }} }}\n      \
             output: {{ as: \"${{ .status.state }}\" }}\n  - wait-{number}: {{ wait: {{ milliseconds: 500 }} }}\n",
            agent::ID
        );
    }
    text
}

/// A message that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub home: usize,
    pub began: Duration,
    pub ended: Duration,
    /// Attempts that failed before.
    pub failed: usize,
}

/// A run that was acknowledged.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: String,
    pub acknowledged: Duration,
    /// Whether it was seen to have completed; else, once all have ended, it is lost.
    pub completed: bool,
}

/// What all callers have written down.
#[derive(Default)]
pub struct Ledger {
    over: AtomicBool,
    sent_home: AtomicUsize,
    calls: Mutex<Vec<Call>>,
    runs: Mutex<BTreeMap<String, Run>>,
    clock: SystemClock,
}

impl Ledger {
    /// The time of its entries.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// From now on callers turn to their homes first.
    pub fn send_home(&self) {
        self.sent_home.fetch_add(1, Ordering::Relaxed);
    }

    /// Whoever ends its call or run begins no other.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The calls that have been answered since.
    pub async fn calls_since(&self, since: Duration) -> Vec<Call> {
        let calls = self.calls.lock().await;
        calls.iter().filter(|call| call.ended >= since).copied().collect()
    }

    /// The runs that have been acknowledged.
    pub async fn runs(&self) -> Vec<Run> {
        self.runs.lock().await.values().cloned().collect()
    }
}

/// Sends callers of each region on their way.
pub fn begin(access: &Access, ledger: &Arc<Ledger>) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for home in 0..REGIONS.len() {
        for number in 0..CALLERS {
            all.spawn(keep_calling(access.clone(), Arc::clone(ledger), home, number));
        }
        for number in 0..RUNNERS {
            all.spawn(keep_running(access.clone(), Arc::clone(ledger), home, number));
        }
    }
    all
}

/// Where a caller turns to.
struct Turn {
    home: usize,
    at: usize,
    sent_home: usize,
}

impl Turn {
    const fn home(home: usize) -> Self {
        Self {
            home,
            at: home,
            sent_home: 0,
        }
    }

    fn look(&mut self, ledger: &Ledger) {
        let sent_home = ledger.sent_home.load(Ordering::Relaxed);
        if sent_home != self.sent_home {
            *self = Self {
                sent_home,
                ..Self::home(self.home)
            };
        }
    }

    const fn next(&mut self) {
        self.at = (self.at + 1) % REGIONS.len();
    }
}

fn ticks(pause: Duration) -> Interval {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn keep_calling(access: Access, ledger: Arc<Ledger>, home: usize, caller: usize) {
    let (mut turn, mut ticks) = (Turn::home(home), ticks(PAUSE));
    for number in 0.. {
        if ledger.is_over() {
            return;
        }
        turn.look(&ledger);
        let (began, mut failed) = (ledger.now(), 0);
        let text = format!("call {home} {caller} {number}");
        loop {
            ticks.tick().await;
            if access.send(turn.at, &text).await.is_ok() {
                break;
            }
            failed += 1;
            turn.next();
        }
        let call = Call {
            home,
            began,
            ended: ledger.now(),
            failed,
        };
        ledger.calls.lock().await.push(call);
    }
}

async fn keep_running(access: Access, ledger: Arc<Ledger>, home: usize, runner: usize) {
    let (document, mut turn, mut ticks) = (work(), Turn::home(home), ticks(LOOK));
    for number in 0.. {
        if ledger.is_over() {
            return;
        }
        turn.look(&ledger);
        let id = format!("run-{home}-{runner}-{number}");
        while access.start(turn.at, &id, &document).await.is_err() {
            turn.next();
            ticks.tick().await;
        }
        let mut run = Run {
            id: id.clone(),
            acknowledged: ledger.now(),
            completed: false,
        };
        ledger.runs.lock().await.insert(id.clone(), run.clone());
        let mut missed = 0;
        while missed < LOOKS {
            ticks.tick().await;
            match access.status(turn.at, &id).await {
                Ok(RunStatus::Completed) => {
                    run.completed = true;
                    break;
                }
                Ok(_) => {}
                Err(status) if status.code() == Code::NotFound => missed += 1,
                Err(_) => turn.next(),
            }
        }
        ledger.runs.lock().await.insert(id, run);
    }
}
