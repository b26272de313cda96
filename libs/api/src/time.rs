//! Between protobuf's times and ours.

use jiff::{SignedDuration, Timestamp};

/// A timestamp on the wire.
#[must_use]
pub fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A timestamp from the wire; `None` when it is out of range.
#[must_use]
pub fn from_proto(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// A duration on the wire.
#[must_use]
pub fn duration_to_proto(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs(),
        nanos: duration.subsec_nanos(),
    }
}

/// A duration from the wire; `None` when it is out of range.
#[must_use]
pub fn duration_from_proto(duration: &prost_types::Duration) -> Option<SignedDuration> {
    SignedDuration::from_secs(duration.seconds)
        .checked_add(SignedDuration::from_nanos(i64::from(duration.nanos)))
}

/// RFC 3339 in UTC with milliseconds, as all our JSON has it.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}
