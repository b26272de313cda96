//! What a service does by itself again and again: collects, cleans up, looks for what is slow.
//!
//! Each has a rhythm of its own and a shorter or longer one after an error, counts how often it ran and failed, and is named by
//! an informational check as long as it fails: a service that cannot clean up still serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::config::Mistakes;
use crate::health::{Health, Kind};
use crate::metrics::{BACKGROUND_LAST, BACKGROUND_RUNS, BACKGROUND_SECONDS, Metrics};
use crate::{Shutdown, Tasks};

/// How often something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rhythm {
    /// Seconds between two times that it went well.
    pub every_seconds: u64,
    /// Seconds until it is tried again after an error.
    pub after_error_seconds: u64,
}

impl Rhythm {
    /// Every so many seconds, and after so many where it fails.
    #[must_use]
    pub const fn new(every_seconds: u64, after_error_seconds: u64) -> Self {
        Self {
            every_seconds,
            after_error_seconds,
        }
    }

    /// Adds what is wrong of the section `key`.
    pub fn validate(&self, key: &str, mistakes: &mut Mistakes) {
        for (part, seconds) in [
            ("every_seconds", self.every_seconds),
            ("after_error_seconds", self.after_error_seconds),
        ] {
            if !(1..=86_400).contains(&seconds) {
                mistakes.add(format!("{key}.{part}"), "must be from 1 to 86400 seconds");
            }
        }
    }
}

/// Does such things. Clones share what is known of them.
#[derive(Clone)]
pub struct Background {
    tasks: Tasks,
    metrics: Metrics,
    clock: SharedClock,
    shutdown: Shutdown,
    failing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Background {
    /// With these parts of a service.
    #[must_use]
    pub fn new(tasks: Tasks, metrics: Metrics, clock: SharedClock, shutdown: Shutdown) -> Self {
        Self {
            tasks,
            metrics,
            clock,
            shutdown,
            failing: Arc::default(),
        }
    }

    /// Does it now and then in its rhythm, until the shutdown.
    pub fn spawn<F>(&self, name: &'static str, rhythm: Rhythm, mut work: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let this = self.clone();
        self.tasks.spawn(name, async move {
            while !this.shutdown.is_requested() {
                let outcome = this.once(name, work()).await;
                let seconds = if outcome {
                    rhythm.every_seconds
                } else {
                    rhythm.after_error_seconds
                };
                tokio::select! {
                    biased;
                    () = this.shutdown.requested() => {}
                    () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                }
            }
        });
    }

    /// Does it once, and counts that. For work that keeps a rhythm of its own, and says itself how it stands.
    ///
    /// # Errors
    /// What the work failed of.
    pub async fn measured<T, E>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let start = self.clock.monotonic();
        let outcome = work.await;
        let took = self.clock.monotonic().saturating_sub(start);
        let service = || ("background", name.to_owned());
        self.metrics
            .histogram(BACKGROUND_SECONDS, &[service()])
            .record(took.as_secs_f64());
        let word = if outcome.is_ok() { "success" } else { "failure" };
        self.metrics
            .counter(BACKGROUND_RUNS, &[service(), ("outcome", word.to_owned())])
            .increment(1);
        if outcome.is_ok() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds since 1970 fit a double's 53 bits"
            )]
            let now = self.clock.now().as_second() as f64;
            self.metrics.gauge(BACKGROUND_LAST, &[service()]).set(now);
        }
        outcome
    }

    /// Does it once; whether it went well.
    async fn once(&self, name: &'static str, work: impl Future<Output = Result<(), String>>) -> bool {
        let outcome = self.measured(name, work).await;
        let before = match &outcome {
            Ok(()) => self.failing.lock().remove(name),
            Err(why) => self.failing.lock().insert(name, why.clone()),
        };
        // What fails for an hour is told once.
        match (&outcome, before) {
            (Err(why), None) => tracing::warn!(background = name, why, "fails, and is tried again"),
            (Ok(()), Some(_)) => tracing::info!(background = name, "goes well again"),
            _ => {}
        }
        outcome.is_ok()
    }

    /// Has health name what fails.
    pub fn check(&self, health: &Health) {
        let failing = Arc::clone(&self.failing);
        health.check(
            Kind::Informational,
            "background",
            Duration::from_secs(1),
            move || {
                let failing: Vec<String> = failing
                    .lock()
                    .iter()
                    .map(|(name, why)| format!("{name}: {why}"))
                    .collect();
                std::future::ready(if failing.is_empty() {
                    Ok(())
                } else {
                    Err(failing.join("; "))
                })
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::clock::ManualClock;
    use crate::health::Question;

    #[tokio::test(start_paused = true)]
    async fn it_keeps_its_rhythm_and_says_when_it_fails() {
        let clock: SharedClock = Arc::new(ManualClock::default());
        let shutdown = Shutdown::new();
        let metrics = Metrics::new(&[]).unwrap();
        let tasks = Tasks::unsupervised(shutdown.clone());
        let background = Background::new(tasks, metrics.clone(), Arc::clone(&clock), shutdown.clone());
        let health = Health::new(clock);
        background.check(&health);
        let (times, start) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let counted = Arc::clone(&times);
        background.spawn("cleanup", Rhythm::new(300, 60), move || {
            let time = counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(if time == 1 {
                Err("the store is away".to_owned())
            } else {
                Ok(())
            })
        });
        for (time, at) in [(1, 0), (2, 300), (3, 360), (4, 660)] {
            while times.load(Ordering::SeqCst) < time {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let after = start.elapsed().as_secs();
            assert!((at..=at + 1).contains(&after), "{time}: {after}");
            let report = health.report(Question::Ready).await;
            let error = report.checks["background"].error.clone();
            let expected = (time == 2).then(|| "cleanup: the store is away".to_owned());
            assert_eq!((report.ok, error), (true, expected));
        }
        let text = metrics.render();
        let failed = r#"background_runs_total{background="cleanup",outcome="failure"} 1"#;
        assert!(text.contains(failed), "{text}");
        shutdown.trigger();
    }
}
