//! jq's functions about time. Local time is UTC, and `now` is given: an evaluation reads no clock and no time zone.

use jaq_core::ValR;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::Offset;

use super::budget;
use super::value::Value;

type Error = jaq_core::Error<Value>;

/// Longest format of `strftime` and `strptime`.
const LONGEST_FORMAT: usize = 256;

/// Seconds since 1970; an integer where there is no fraction.
pub(super) fn seconds(time: Timestamp) -> Value {
    match time.subsec_nanosecond() {
        0 => Value::Int(time.as_second()),
        _ => Value::Float(time.as_microsecond() as f64 / 1e6),
    }
}

/// The time that seconds since 1970, or jq's array of a broken-down time, mean.
fn time(value: &Value) -> Result<Timestamp, Error> {
    let fail = |reason: &str| Error::str(format!("{value} is not a time: {reason}"));
    match value {
        Value::Int(seconds) => Timestamp::from_second(*seconds).map_err(|error| fail(&error.to_string())),
        Value::Float(seconds) if seconds.is_finite() => {
            Timestamp::from_microsecond((seconds * 1e6) as i64).map_err(|error| fail(&error.to_string()))
        }
        Value::Array(parts) => {
            let date = broken_down(parts.items())
                .ok_or_else(|| fail("[year, month from 0, day, hour, minute, second] is needed"))?;
            Offset::UTC
                .to_timestamp(date)
                .map_err(|error| fail(&error.to_string()))
        }
        _ => Err(fail("a number of seconds or a broken-down time is needed")),
    }
}

fn broken_down(parts: &[Value]) -> Option<DateTime> {
    let [year, month, day, hour, minute, second, ..] = parts else {
        return None;
    };
    let small = |value: &Value| i8::try_from(value.whole()?).ok();
    let whole = second.whole()?;
    let fraction = ((second.number()? - whole as f64) * 1e9).clamp(0.0, 999_999_999.0);
    DateTime::new(
        i16::try_from(year.whole()?).ok()?,
        small(month)?.checked_add(1)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        i8::try_from(whole).ok()?,
        fraction as i32,
    )
    .ok()
}

fn parts(date: DateTime) -> Value {
    let second = match date.subsec_nanosecond() {
        0 => Value::Int(i64::from(date.second())),
        nanoseconds => Value::Float(f64::from(date.second()) + f64::from(nanoseconds) / 1e9),
    };
    let number = |number: i64| Value::Int(number);
    Value::array(vec![
        number(i64::from(date.year())),
        number(i64::from(date.month()) - 1),
        number(i64::from(date.day())),
        number(i64::from(date.hour())),
        number(i64::from(date.minute())),
        second,
        number(i64::from(date.weekday().to_sunday_zero_offset())),
        number(i64::from(date.day_of_year()) - 1),
    ])
}

fn utc(time: Timestamp) -> DateTime {
    Offset::UTC.to_datetime(time)
}

pub(super) fn gmtime(value: &Value) -> ValR<Value> {
    Ok(parts(utc(time(value)?)))
}

pub(super) fn mktime(value: &Value) -> ValR<Value> {
    match value {
        Value::Array(_) => Ok(seconds(time(value)?)),
        _ => Err(Error::typ(value.clone(), "broken-down time (array)")),
    }
}

pub(super) fn to_iso8601(value: &Value) -> ValR<Value> {
    Ok(Value::text(time(value)?.to_string()))
}

pub(super) fn from_iso8601(value: &Value) -> ValR<Value> {
    let Value::Text(text) = value else {
        return Err(Error::typ(value.clone(), "string"));
    };
    let time: Result<Timestamp, _> = text.parse();
    time.map(seconds)
        .map_err(|error| Error::str(format!("'{value}' is not a time: {error}")))
}

fn format(value: &Value) -> Result<&str, Error> {
    match value {
        Value::Text(text) if text.len() <= LONGEST_FORMAT => Ok(text),
        Value::Text(_) => Err(Error::str(format!(
            "a format of time has at most {LONGEST_FORMAT} bytes"
        ))),
        other => Err(Error::typ(other.clone(), "string")),
    }
}

pub(super) fn strftime(value: &Value, template: &Value) -> ValR<Value> {
    budget::spend(LONGEST_FORMAT as u64);
    let date = BrokenDownTime::from(time(value)?);
    date.to_string(format(template)?)
        .map(Value::text)
        .map_err(Error::str)
}

pub(super) fn strptime(value: &Value, template: &Value) -> ValR<Value> {
    budget::spend(LONGEST_FORMAT as u64);
    let Value::Text(text) = value else {
        return Err(Error::typ(value.clone(), "string"));
    };
    let fail = |error: jiff::Error| {
        Error::str(format!(
            "'{value}' is not a time of the format '{template}': {error}"
        ))
    };
    let mut parsed = BrokenDownTime::parse(format(template)?, text.as_str()).map_err(fail)?;
    if parsed.offset().is_none() {
        parsed.set_offset(Some(Offset::UTC));
    }
    if parsed.hour().is_none() {
        let date = parsed.to_date().map_err(fail)?;
        return Ok(parts(date.to_datetime(jiff::civil::Time::midnight())));
    }
    let time = parsed.to_timestamp().map_err(fail)?;
    Ok(parts(utc(time)))
}
