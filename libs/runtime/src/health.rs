//! Health: named checks, a readiness latch, and the three questions a kubelet asks.
//!
//! `/health` asks whether the process should be restarted (liveness checks only), `/ready` whether it should get
//! traffic (latches, readiness checks, not draining), `/startup` whether it has ever been ready. A check has a
//! timeout; one that does not answer or panics has failed. An informational check can only degrade, never unready.
//! What a latch still waits for is listed in all three answers, with its reason; a restart would not bring it, so that
//! `/health` says healthy all the same.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::tasks::panic_message;

/// What a failed check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process should be restarted.
    Liveness,
    /// The process should get no traffic.
    Readiness,
    /// The service does less, but serves: shown as `degraded`.
    Informational,
}

/// One of the three questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Should it be restarted?
    Alive,
    /// Should it get traffic?
    Ready,
    /// Has it started?
    Started,
}

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

struct Check {
    name: String,
    kind: Kind,
    timeout: Duration,
    run: Box<dyn Fn() -> CheckFuture + Send + Sync>,
}

struct State {
    clock: SharedClock,
    checks: RwLock<Vec<Arc<Check>>>,
    latches: RwLock<BTreeMap<String, Awaited>>,
    started: AtomicBool,
    draining: CancellationToken,
    changed: watch::Sender<()>,
}

/// What a latch waits for.
#[derive(Clone)]
struct Awaited {
    ready: Arc<AtomicBool>,
    /// Why it has not happened yet.
    reason: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The health of one service; clones share it.
#[derive(Clone)]
pub struct Health {
    state: Arc<State>,
}

/// Something that must have happened once before the service is ready.
#[derive(Debug, Clone)]
pub struct Latch {
    ready: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Latch {
    /// It has happened.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.changed.send_replace(());
    }
}

/// What `/health`, `/ready` and `/startup` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `healthy`, `degraded`, `starting`, `draining` or `unhealthy`.
    pub status: &'static str,
    /// Every check, by name.
    pub checks: BTreeMap<String, CheckReport>,
    /// When it was asked, RFC 3339.
    pub timestamp: String,
    /// Whether the answer to the question is yes.
    #[serde(skip)]
    pub ok: bool,
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// `healthy`, `degraded` or `unhealthy`.
    pub status: &'static str,
    /// When it ran, RFC 3339.
    pub timestamp: String,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Health {
    pub(crate) fn new(clock: SharedClock) -> Self {
        let state = State {
            clock,
            checks: RwLock::default(),
            latches: RwLock::default(),
            started: AtomicBool::new(false),
            draining: CancellationToken::new(),
            changed: watch::Sender::new(()),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Makes readiness wait for something that happens once.
    #[must_use]
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        self.latch_because(name, || "not yet".to_owned())
    }

    /// Like [`Health::latch`], where `reason` says why it has not happened yet. It must not block.
    #[must_use]
    pub fn latch_because(
        &self,
        name: impl Into<String>,
        reason: impl Fn() -> String + Send + Sync + 'static,
    ) -> Latch {
        let ready = Arc::new(AtomicBool::new(false));
        let awaited = Awaited {
            ready: Arc::clone(&ready),
            reason: Arc::new(reason),
        };
        self.state.latches.write().insert(name.into(), awaited);
        Latch {
            ready,
            changed: self.state.changed.clone(),
        }
    }

    /// Adds a check that may take as long as `timeout`.
    pub fn check<F>(
        &self,
        kind: Kind,
        name: impl Into<String>,
        timeout: Duration,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let run = Box::new(move || -> CheckFuture { Box::pin(check()) });
        self.state.checks.write().push(Arc::new(Check {
            name: name.into(),
            kind,
            timeout,
            run,
        }));
    }

    pub(crate) fn start_draining(&self) {
        self.state.draining.cancel();
    }

    /// Resolves when the drain has started.
    pub(crate) async fn draining(&self) {
        self.state.draining.cancelled().await;
    }

    /// Resolves whenever a latch changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.state.changed.subscribe()
    }

    /// Answers one of the three questions.
    pub async fn report(&self, question: Question) -> Report {
        let checks: Vec<Arc<Check>> = self
            .state
            .checks
            .read()
            .iter()
            .filter(|check| question != Question::Alive || check.kind == Kind::Liveness)
            .cloned()
            .collect();
        let outcomes = join_all(checks.iter().map(|check| self.run(check))).await;
        let failed = |kind| {
            checks
                .iter()
                .zip(&outcomes)
                .any(|(check, report)| check.kind == kind && report.error.is_some())
        };
        let (dead, unready, degraded) = (
            failed(Kind::Liveness),
            failed(Kind::Readiness),
            failed(Kind::Informational),
        );

        let mut listed: BTreeMap<String, CheckReport> = checks
            .iter()
            .map(|check| check.name.clone())
            .zip(outcomes.iter().cloned())
            .collect();
        let mut latched = true;
        for (name, awaited) in &*self.state.latches.read() {
            let ready = awaited.ready.load(Ordering::Acquire);
            latched &= ready;
            if ready && question == Question::Alive {
                continue;
            }
            let error = (!ready).then(|| (awaited.reason)());
            listed.insert(
                name.clone(),
                self.outcome(if ready { "healthy" } else { "unhealthy" }, error),
            );
        }
        let draining = self.state.draining.is_cancelled();
        let ready = latched && !dead && !unready && !draining;
        if ready && question != Question::Alive {
            self.state.started.store(true, Ordering::Release);
        }
        let started = self.state.started.load(Ordering::Acquire);
        let (ok, status) = match question {
            Question::Alive if dead => (false, "unhealthy"),
            Question::Alive => (true, "healthy"),
            Question::Started if started => (true, "healthy"),
            Question::Started => (false, "starting"),
            Question::Ready if draining => (false, "draining"),
            Question::Ready if !latched => (false, "starting"),
            Question::Ready if !ready => (false, "unhealthy"),
            Question::Ready if degraded => (true, "degraded"),
            Question::Ready => (true, "healthy"),
        };
        Report {
            status,
            checks: listed,
            timestamp: self.timestamp(),
            ok,
        }
    }

    async fn run(&self, check: &Check) -> CheckReport {
        // The check's own code may panic before there is a future, too.
        let asked = AssertUnwindSafe(async { (check.run)().await }).catch_unwind();
        let error = match tokio::time::timeout(check.timeout, asked).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(error),
            Ok(Err(panic)) => Some(panic_message(panic.as_ref())),
            Err(_) => Some(format!("no answer within {} s", check.timeout.as_secs_f64())),
        };
        let status = match (&error, check.kind) {
            (None, _) => "healthy",
            (Some(_), Kind::Informational) => "degraded",
            (Some(_), Kind::Liveness | Kind::Readiness) => "unhealthy",
        };
        self.outcome(status, error)
    }

    fn outcome(&self, status: &'static str, error: Option<String>) -> CheckReport {
        CheckReport {
            status,
            timestamp: self.timestamp(),
            error,
        }
    }

    fn timestamp(&self) -> String {
        muster_api::time::rfc3339(self.state.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn health() -> Health {
        Health::new(Arc::new(ManualClock::default()))
    }

    #[tokio::test]
    async fn ready_waits_for_the_latch_and_started_stays() {
        let health = health();
        let latch = health.latch_because("store", || "Redis is away".to_owned());
        let alive = health.report(Question::Alive).await;
        assert!(alive.ok && alive.checks["store"].error.as_deref() == Some("Redis is away"));
        assert!(!health.report(Question::Started).await.ok);
        assert_eq!(health.report(Question::Ready).await.status, "starting");
        latch.ready();
        assert!(health.report(Question::Alive).await.checks.is_empty());
        assert!(health.report(Question::Ready).await.ok);
        health.start_draining();
        assert_eq!(health.report(Question::Ready).await.status, "draining");
        assert!(health.report(Question::Started).await.ok);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed_after_its_timeout() {
        let health = health();
        health.check(
            Kind::Readiness,
            "stuck",
            Duration::from_secs(3),
            std::future::pending,
        );
        let report = health.report(Question::Ready).await;
        assert!(!report.ok);
        assert_eq!(
            report.checks["stuck"].error.as_deref(),
            Some("no answer within 3 s")
        );
    }

    #[tokio::test]
    async fn a_check_that_panics_has_failed_with_what_it_said() {
        let health = health();
        health.check(Kind::Readiness, "early", Duration::from_secs(1), || {
            assert!(!std::hint::black_box(true), "no future");
            std::future::ready(Ok(()))
        });
        health.check(Kind::Readiness, "late", Duration::from_secs(1), || async {
            assert!(!std::hint::black_box(true), "no answer");
            Ok(())
        });
        let report = health.report(Question::Ready).await;
        assert!(!report.ok);
        let error = |name: &str| report.checks[name].error.clone().unwrap();
        assert_eq!(error("early"), "panicked: no future");
        assert_eq!(error("late"), "panicked: no answer");
    }

    #[tokio::test]
    async fn an_informational_check_only_degrades() {
        let health = health();
        health.check(
            Kind::Informational,
            "registry",
            Duration::from_secs(1),
            || async { Err("down".to_owned()) },
        );
        let report = health.report(Question::Ready).await;
        assert_eq!((report.ok, report.status), (true, "degraded"));
    }

    #[tokio::test]
    async fn a_failed_liveness_check_asks_for_a_restart() {
        let health = health();
        health.check(Kind::Liveness, "memory", Duration::from_secs(1), || async {
            Err("full".to_owned())
        });
        assert!(!health.report(Question::Alive).await.ok);
        assert!(!health.report(Question::Ready).await.ok);
    }
}
