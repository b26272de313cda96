//! Things that are done evenly, so many a second.

use std::ops::Range;
use std::time::Duration;

use muster_runtime::clock::{Clock as _, SystemClock};

use crate::failure::Failure;

/// How often things are done, all that are due together.
const TICK: Duration = Duration::from_millis(10);

/// Does what has these numbers, so many a second: `act` gets the numbers of all that are due, and is waited for. Where it takes
/// too long, more are due the next time.
pub async fn evenly(
    rate: u32,
    numbers: Range<u64>,
    mut act: impl AsyncFnMut(Range<u64>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let clock = SystemClock::default();
    let began = clock.monotonic();
    let mut tick = tokio::time::interval(TICK);
    let mut done = numbers.start;
    while done < numbers.end {
        tick.tick().await;
        let due = due(rate, &numbers, clock.monotonic().saturating_sub(began));
        act(done..due).await?;
        done = due;
    }
    Ok(())
}

/// The first number that is not due yet.
fn due(rate: u32, numbers: &Range<u64>, passed: Duration) -> u64 {
    let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    let due = passed.saturating_mul(rate.into()) / 1_000;
    numbers.start.saturating_add(due).min(numbers.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_due_as_the_rate_says_and_no_more_than_there_are() {
        let due = |millis| due(3_333, &(1..10_000), Duration::from_millis(millis));
        assert_eq!([due(0), due(10), due(1_000), due(60_000)], [1, 34, 3_334, 10_000]);
    }

    #[tokio::test]
    async fn every_number_comes_once_in_order() {
        let mut next = 5;
        let ended = evenly(1_000_000, 5..2_000, async |numbers| {
            assert_eq!(numbers.start, next);
            next = numbers.end;
            Ok(())
        });
        ended.await.unwrap();
        assert_eq!(next, 2_000);
    }
}
