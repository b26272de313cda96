//! Durations as documents write them: ISO 8601 text, or an object of whole units.
//!
//! Years and months are refused: how long they are depends on the day they begin on, and a pause must mean the same
//! whenever a run is replayed.

use std::time::Duration;

/// The longest duration a document may ask for.
pub const LONGEST: Duration = Duration::from_secs(3650 * SECONDS_PER_DAY);

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The fields of the object form, with the milliseconds that one of them is.
pub const UNITS: [(&str, u64); 5] = [
    ("days", SECONDS_PER_DAY * 1000),
    ("hours", 60 * 60 * 1000),
    ("minutes", 60 * 1000),
    ("seconds", 1000),
    ("milliseconds", 1),
];

/// Why text or an object is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the form of an ISO 8601 duration.
    #[error(
        "not an ISO 8601 duration; write for example PT30S, PT1H30M or P2D, or an object such as {{seconds: 30}}"
    )]
    Form,
    /// Years or months.
    #[error("years and months have no fixed length; write days, such as P30D")]
    Calendar,
    /// Longer than [`LONGEST`].
    #[error("longer than ten years")]
    TooLong,
}

/// The duration of `amount` units of `milliseconds` each, added to `sum`.
///
/// # Errors
/// [`Error::TooLong`].
pub fn add(sum: Duration, amount: u64, milliseconds: u64) -> Result<Duration, Error> {
    let added = amount.checked_mul(milliseconds).map(Duration::from_millis);
    let sum = added
        .and_then(|added| sum.checked_add(added))
        .ok_or(Error::TooLong)?;
    if sum > LONGEST {
        Err(Error::TooLong)
    } else {
        Ok(sum)
    }
}

/// Reads an ISO 8601 duration: `P`, weeks and days, then `T`, hours, minutes and seconds; only the seconds may have
/// a fraction, to the millisecond.
///
/// # Errors
/// See [`Error`].
pub fn parse(text: &str) -> Result<Duration, Error> {
    let rest = text.strip_prefix('P').ok_or(Error::Form)?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return Err(Error::Form),
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    if date.is_empty() && time.is_empty() {
        return Err(Error::Form);
    }
    if date.ends_with(['Y', 'M']) || date.contains('Y') || date.contains('M') {
        return Err(Error::Calendar);
    }
    let sum = components(
        date,
        &[('W', 7 * SECONDS_PER_DAY * 1000), ('D', SECONDS_PER_DAY * 1000)],
        Duration::ZERO,
    )?;
    components(time, &[('H', 60 * 60 * 1000), ('M', 60 * 1000), ('S', 1000)], sum)
}

/// A duration as ISO 8601 text that [`parse`] reads, to the millisecond.
#[must_use]
pub fn iso8601(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    let mut text = String::from("P");
    let (days, rest) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    if days > 0 {
        text.push_str(&format!("{days}D"));
    }
    if rest > 0 || milliseconds > 0 || days == 0 {
        text.push('T');
    }
    let (hours, minutes, seconds) = (rest / 3600, rest % 3600 / 60, rest % 60);
    if hours > 0 {
        text.push_str(&format!("{hours}H"));
    }
    if minutes > 0 {
        text.push_str(&format!("{minutes}M"));
    }
    match milliseconds {
        0 if seconds > 0 || (days == 0 && rest == 0) => text.push_str(&format!("{seconds}S")),
        0 => {}
        _ => text.push_str(&format!("{seconds}.{milliseconds:03}S")),
    }
    text
}

/// Reads what an expression yielded for a duration: ISO 8601 text, or an object of whole units.
///
/// # Errors
/// See [`Error`].
pub fn from_value(value: &serde_json::Value) -> Result<Duration, Error> {
    match value {
        serde_json::Value::String(text) => parse(text.trim()),
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            fields.iter().try_fold(Duration::ZERO, |sum, (name, amount)| {
                let (_, milliseconds) = UNITS.iter().find(|(unit, _)| unit == name).ok_or(Error::Form)?;
                add(sum, amount.as_u64().ok_or(Error::Form)?, *milliseconds)
            })
        }
        _ => Err(Error::Form),
    }
}

/// A duration for people, in the largest unit that gives a whole number.
pub(crate) fn spoken(duration: Duration) -> String {
    const SECONDS: [(&str, u64); 3] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("min", 60)];
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    if milliseconds == 0 && seconds > 0 {
        for (unit, length) in SECONDS {
            if seconds.is_multiple_of(length) {
                return format!("{} {unit}", seconds / length);
            }
        }
        return format!("{seconds} s");
    }
    if seconds == 0 {
        return format!("{milliseconds} ms");
    }
    format!("{} s", duration.as_secs_f64())
}

/// Adds numbers with their designators, which stand in the order of `units`, each at most once.
fn components(mut text: &str, units: &[(char, u64)], mut sum: Duration) -> Result<Duration, Error> {
    let mut units = units.iter();
    while !text.is_empty() {
        let end = text
            .find(|character: char| character.is_ascii_uppercase())
            .ok_or(Error::Form)?;
        let (number, rest) = text.split_at(end);
        let mut characters = rest.chars();
        let designator = characters.next().ok_or(Error::Form)?;
        let (_, milliseconds) = units
            .by_ref()
            .find(|(unit, _)| *unit == designator)
            .ok_or(Error::Form)?;
        sum = match number.split_once('.') {
            Some((whole, fraction)) if designator == 'S' => {
                let sum = add(sum, digits(whole)?, *milliseconds)?;
                add(sum, thousandths(fraction)?, 1)?
            }
            _ => add(sum, digits(number)?, *milliseconds)?,
        };
        text = characters.as_str();
    }
    Ok(sum)
}

fn digits(text: &str) -> Result<u64, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Form);
    }
    text.parse().map_err(|_| Error::TooLong)
}

/// The first three digits after the point; what is finer is cut off.
fn thousandths(fraction: &str) -> Result<u64, Error> {
    digits(fraction)?;
    let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
    digits(&padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (milliseconds, text) in [
            (0, "PT0S"),
            (1_500, "PT1.500S"),
            (90_000, "PT1M30S"),
            (3_600_000, "PT1H"),
            (86_400_000, "P1D"),
            (90_061_001, "P1DT1H1M1.001S"),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(iso8601(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
    }

    #[test]
    fn iso_durations_are_read() {
        for (text, milliseconds) in [
            ("PT0S", 0),
            ("PT5S", 5_000),
            ("PT1.5S", 1_500),
            ("PT0.0019S", 1),
            ("PT1M", 60_000),
            ("PT1H30M", 5_400_000),
            ("P1D", 86_400_000),
            ("P2W", 1_209_600_000),
            ("P1DT2H3M4.005S", 93_784_005),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_says_why() {
        for text in [
            "", "P", "PT", "P1", "PT5", "5s", "pt5s", "PTS", "PT1S1M", "PT1S1S", "P1H", "PT1.5M", "PT1.S",
            "PT-1S", "P1DT", "PT1é",
        ] {
            assert_eq!(parse(text), Err(Error::Form), "{text}");
        }
        for text in ["P1Y", "P1M", "P1Y2M3D"] {
            assert_eq!(parse(text), Err(Error::Calendar), "{text}");
        }
        for text in ["P3651D", "PT99999999999999999999S", "P3650DT1S"] {
            assert_eq!(parse(text), Err(Error::TooLong), "{text}");
        }
        assert_eq!(parse("P3650D"), Ok(LONGEST));
    }

    #[test]
    fn durations_are_spoken_in_the_largest_unit_that_fits() {
        for (duration, text) in [
            (Duration::from_secs(7200), "2 h"),
            (Duration::from_secs(90), "90 s"),
            (Duration::from_secs(86_400), "1 d"),
            (Duration::from_millis(1500), "1.5 s"),
            (Duration::from_millis(20), "20 ms"),
            (Duration::ZERO, "0 ms"),
        ] {
            assert_eq!(spoken(duration), text);
        }
    }
}
