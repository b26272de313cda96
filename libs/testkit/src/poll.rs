//! Waiting for a condition, with a deadline.
//!
//! The condition is looked at once more when the deadline has passed, so that a machine under load fails a test
//! only when the condition really does not hold. With tokio's paused time the pauses cost nothing.

use std::fmt::Display;
use std::time::Duration;

/// Pause between two looks at the condition.
const INTERVAL: Duration = Duration::from_millis(10);

/// What a condition may answer: `bool`, or `Option` and `Result` to take a value out.
pub trait Outcome {
    /// The value once the condition holds.
    type Value;

    /// The value, or why there is none yet.
    fn value(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();

    fn value(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "it is false".to_owned())
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn value(self) -> Result<T, String> {
        self.ok_or_else(|| "there is none".to_owned())
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;

    fn value(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Waits until `condition` holds and returns its value; panics with `what` and the last answer once `deadline` has
/// passed. A condition that needs no await is written `async || …` as well.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(agent: muster_testkit::FakeAgent) {
/// muster_testkit::wait_for("the first call", Duration::from_secs(5), async || agent.calls().len() == 1).await;
/// # }
/// ```
pub async fn wait_for<O: Outcome>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> O,
) -> O::Value {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let looks = async {
        loop {
            ticks.tick().await;
            if let Ok(value) = condition().await.value() {
                return value;
            }
        }
    };
    if let Ok(value) = tokio::time::timeout(deadline, looks).await {
        return value;
    }
    let last_look = tokio::time::timeout(INTERVAL * 100, condition()).await;
    match last_look.map(Outcome::value) {
        Ok(Ok(value)) => value,
        Ok(Err(why)) => panic!("waited {deadline:?} for {what}: {why}"),
        Err(_) => panic!("waited {deadline:?} for {what}: the condition does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_value_comes_back_once_the_condition_holds() {
        let mut looks = 0;
        let value = wait_for("three looks", Duration::from_secs(60), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "for the impossible: still closed")]
    async fn the_panic_says_what_was_awaited_and_the_last_answer() {
        wait_for("the impossible", Duration::from_millis(30), async || {
            Err::<(), _>("still closed")
        })
        .await;
    }
}
