//! Deadlines: how much time a call has left, carried between hosts as remaining time in `grpc-timeout`.
//!
//! A deadline is a point on this process's monotonic clock; wall-clock instants never travel, because two hosts
//! need not agree on the time of day. What is left rides along with every further call.
//!
//! [`enforce`] answers DEADLINE_EXCEEDED when time runs out. That needs saying because tonic's own timer for the
//! same header answers CANCELLED, which callers take for their own wish; where tonic's timer wins the race, its
//! answer is replaced.

use std::future::Future;
use std::time::Duration;

use muster_api::error::{Error as ApiError, Reason};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

/// The header that carries the remaining time.
pub const HEADER: &str = "grpc-timeout";

/// The protocol allows eight digits.
const MAX_DIGITS: usize = 8;
const MAX_VALUE: u128 = 99_999_999;

/// A timer may fire this much before the instant that it stands for.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// Why a `grpc-timeout` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a timeout; expected one to eight digits and a unit of H, M, S, m, u or n, such as 30S")]
pub struct Error(pub String);

/// Reads the value of `grpc-timeout`.
///
/// # Errors
/// When it is not one to eight digits and a unit.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let refused = || Error(text.chars().take(32).collect());
    let unit = text.chars().next_back().ok_or_else(refused)?;
    let digits = text.strip_suffix(unit).unwrap_or_default();
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let value: u64 = digits.parse().map_err(|_| refused())?;
    match unit {
        'H' => Ok(Duration::from_secs(value * 3600)),
        'M' => Ok(Duration::from_secs(value * 60)),
        'S' => Ok(Duration::from_secs(value)),
        'm' => Ok(Duration::from_millis(value)),
        'u' => Ok(Duration::from_micros(value)),
        'n' => Ok(Duration::from_nanos(value)),
        _ => Err(refused()),
    }
}

/// Writes a duration as `grpc-timeout`, in the finest unit that fits and rounded down: the callee must not
/// believe that it has longer than its caller waits.
#[must_use]
pub fn format(duration: Duration) -> String {
    let units = [
        (duration.as_nanos(), 'n'),
        (duration.as_micros(), 'u'),
        (duration.as_millis(), 'm'),
        (u128::from(duration.as_secs()), 'S'),
        (u128::from(duration.as_secs() / 60), 'M'),
    ];
    match units.into_iter().find(|(value, _)| *value <= MAX_VALUE) {
        Some((value, unit)) => format!("{value}{unit}"),
        None => format!("{}H", u128::from(duration.as_secs() / 3600).min(MAX_VALUE)),
    }
}

/// When a call must have ended, on the monotonic clock of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Duration);

impl Deadline {
    /// A deadline that long after `now`; one beyond the clock's end is never reached.
    #[must_use]
    pub const fn after(now: Duration, allowed: Duration) -> Self {
        Self(now.saturating_add(allowed))
    }

    /// The deadline that the metadata asks for; `None` when it asks for none.
    ///
    /// # Errors
    /// When `grpc-timeout` is malformed.
    pub fn from_metadata(metadata: &MetadataMap, now: Duration) -> Result<Option<Self>, Error> {
        let Some(value) = metadata.get(HEADER) else {
            return Ok(None);
        };
        let text = value
            .to_str()
            .map_err(|_| Error(String::from_utf8_lossy(value.as_bytes()).into_owned()))?;
        parse(text).map(|allowed| Some(Self::after(now, allowed)))
    }

    /// The earlier of two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        self.min(other)
    }

    /// How much time is left; `None` when none is.
    #[must_use]
    pub fn remaining(self, now: Duration) -> Option<Duration> {
        self.0.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Tells the callee how much time is left.
    pub fn apply<T>(self, request: &mut tonic::Request<T>, now: Duration) {
        let left = self.remaining(now).unwrap_or(Duration::ZERO);
        let value = AsciiMetadataValue::try_from(format(left)).expect("digits and a letter are ASCII");
        request.metadata_mut().insert(HEADER, value);
    }
}

/// The status of a call that ran out of time.
#[must_use]
pub fn exceeded(what: &str) -> Status {
    ApiError::new(
        Reason::DeadlineExceeded,
        format!("{what} took longer than the caller allowed"),
    )
    .into()
}

/// Awaits a call no longer than `left`. `what` names the call in the message, such as `agent 'weather'`.
///
/// # Errors
/// The call's own error, or DEADLINE_EXCEEDED with the reason of the same name.
pub async fn enforce<T>(
    left: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(left, call).await {
        Ok(Err(status)) if is_timer_of_tonic(&status) => Err(exceeded(what)),
        Ok(outcome) => outcome,
        Err(_) => Err(exceeded(what)),
    }
}

/// Whether a status is what tonic's timer answers, here or at the peer, when `grpc-timeout` has passed.
#[must_use]
pub fn is_timer_of_tonic(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == tonic::TimeoutExpired(()).to_string()
}

/// Whether so little time is left that a timer for it may already have fired.
#[must_use]
pub fn is_spent(left: Option<Duration>) -> bool {
    left.is_none_or(|left| left <= TIMER_SLACK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, duration) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("30S", Duration::from_secs(30)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text), Ok(duration), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "S",
            "5",
            "5s",
            "-5S",
            "+5S",
            "1.5S",
            "123456789S",
            "5 S",
            "５S",
            "5Sé",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_remaining_time_rides_on_the_next_call() {
        let start = Duration::from_secs(100);
        let deadline = Deadline::after(start, Duration::from_secs(30));
        let mut request = tonic::Request::new(());
        deadline.apply(&mut request, start + Duration::from_secs(10));
        let later = Deadline::from_metadata(request.metadata(), Duration::ZERO).expect("well formed");
        assert_eq!(
            later,
            Some(Deadline::after(Duration::ZERO, Duration::from_secs(20)))
        );
        assert_eq!(deadline.remaining(start + Duration::from_secs(30)), None);
        assert_eq!(deadline.remaining(start + Duration::from_secs(300)), None);
    }

    #[test]
    fn no_header_is_no_deadline_and_a_bad_one_is_an_error() {
        let mut metadata = MetadataMap::new();
        assert_eq!(Deadline::from_metadata(&metadata, Duration::ZERO), Ok(None));
        metadata.insert(HEADER, "soon".parse().expect("ascii"));
        assert!(Deadline::from_metadata(&metadata, Duration::ZERO).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_time_is_deadline_exceeded() {
        let hung = std::future::pending::<Result<(), Status>>();
        let status = enforce(Duration::from_secs(5), "agent 'weather'", hung)
            .await
            .expect_err("it hangs");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let error = ApiError::from_status(&status).expect("ours");
        assert_eq!(error.reason, Reason::DeadlineExceeded);
        assert!(error.message.contains("agent 'weather'"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_of_tonics_timer_is_replaced_and_others_are_kept() {
        let timer = async { Err::<(), _>(Status::cancelled(tonic::TimeoutExpired(()).to_string())) };
        let status = enforce(Duration::from_secs(5), "x", timer)
            .await
            .expect_err("fails");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let wish = async { Err::<(), _>(Status::cancelled("by the caller")) };
        let status = enforce(Duration::from_secs(5), "x", wish)
            .await
            .expect_err("fails");
        assert_eq!(status.code(), Code::Cancelled);
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in ".{0,16}") {
            let _ = parse(&text);
        }

        #[test]
        fn formatting_never_adds_time_and_loses_little(nanos in any::<u64>()) {
            let duration = Duration::from_nanos(nanos);
            let read = parse(&format(duration)).expect("own format");
            prop_assert!(read <= duration);
            // Eight digits hold at least a hundred-thousandth, where the unit changes by 60.
            let lost = (duration - read).as_secs_f64();
            prop_assert!(lost <= duration.as_secs_f64() * 1e-4, "{duration:?} became {read:?}");
        }

        #[test]
        fn formatting_never_adds_time_for_long_durations(seconds in any::<u64>()) {
            let duration = Duration::from_secs(seconds);
            prop_assert!(parse(&format(duration)).expect("own format") <= duration);
        }

        #[test]
        fn time_left_never_grows(allowed in 0u64..1_000_000, steps in proptest::collection::vec(0u64..1000, 1..20)) {
            let deadline = Deadline::after(Duration::ZERO, Duration::from_millis(allowed));
            let mut now = Duration::ZERO;
            let mut before = deadline.remaining(now);
            for step in steps {
                now += Duration::from_millis(step);
                let left = deadline.remaining(now);
                prop_assert!(left <= before);
                before = left;
            }
        }
    }
}
