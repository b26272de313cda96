//! One log line as one event: a flat set of fields and a time.
//!
//! * **JSON lines** keep their own fields. Where a usual alias is there and the name that rules use is not, the name is
//!   added: `source_ip` (`src_ip`, `client_ip`, `remote_addr`, `remote_ip`, `ip`), `user` (`username`, `user_name`),
//!   `uri` (`path`, `url`, `request_uri`). `uri_decoded` is the URI with percent signs and plus signs decoded twice, so
//!   that `%252e` does not hide a dot. The time comes from `@timestamp`, `timestamp`, `time`, `ts` or `date`: RFC 3339,
//!   or seconds or milliseconds since 1970.
//! * **Syslog** (RFC 3164 and 5424, and RFC 3339 times as rsyslog writes them) gives `host`, `program`, `pid`, `message`,
//!   `facility` and `severity`, and what [`authentication`](crate::authentication) reads out of the message. Times
//!   without a zone are UTC; a time without a year is the latest that is not in the future, or of the year given.

use chrono::Datelike;
use jiff::Timestamp;
use serde_json::{Map, Value};
use syslog_loose::{Variant, parse_message_with_year_exact_tz};

use crate::authentication;

/// Times that one line may stand for (`message repeated N times`).
const MAX_REPETITIONS: u32 = 100;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON where a line begins with a brace, else syslog.
    #[default]
    Auto,
    /// One JSON object per line.
    Jsonl,
    /// Syslog.
    Syslog,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, if it says so.
    pub time: Option<Timestamp>,
    /// Everything else, as an object.
    pub fields: Value,
    /// How often it happened.
    pub times: u32,
}

impl Event {
    /// A field that holds text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// Where it came from: the address, else the host, else the user.
    #[must_use]
    pub fn source(&self) -> String {
        let source = ["source_ip", "host", "user"]
            .iter()
            .find_map(|field| self.text(field));
        source.unwrap_or("unknown").to_owned()
    }
}

/// How to complete times that lack a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// The present.
    pub now: Timestamp,
    /// The year of such times, if it is known.
    pub year: Option<i16>,
}

impl Calendar {
    /// The year of a date without one.
    fn year(self, (month, day, ..): syslog_loose::IncompleteDate) -> i32 {
        if let Some(year) = self.year {
            return i32::from(year);
        }
        let today = jiff::tz::TimeZone::UTC.to_datetime(self.now);
        let month_and_day = (i64::from(month), i64::from(day));
        // A day of grace, for clocks and zones that are ahead of ours.
        let future = month_and_day > (i64::from(today.month()), i64::from(today.day()) + 1);
        i32::from(today.year()) - i32::from(future)
    }
}

/// Reads a line.
///
/// # Errors
/// Says why the line is no event.
pub fn parse(line: &str, format: Format, calendar: Calendar) -> Result<Event, &'static str> {
    let line = line.trim();
    match format {
        Format::Auto if line.starts_with('{') => json(line),
        Format::Jsonl => json(line),
        Format::Auto | Format::Syslog => syslog(line, calendar),
    }
}

fn json(line: &str) -> Result<Event, &'static str> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        return Err("is not a JSON object");
    };
    let time = ["@timestamp", "timestamp", "time", "ts", "date"]
        .iter()
        .find_map(|key| time(fields.get(*key)?));
    for (name, aliases) in [
        (
            "source_ip",
            &["src_ip", "client_ip", "remote_addr", "remote_ip", "ip"][..],
        ),
        ("user", &["username", "user_name"]),
        ("uri", &["path", "url", "request_uri"]),
    ] {
        let value = aliases
            .iter()
            .find_map(|alias| fields.get(*alias).filter(|value| value.is_string()).cloned());
        if let (false, Some(value)) = (fields.contains_key(name), value) {
            fields.insert(name.to_owned(), value);
        }
    }
    if let Some(uri) = fields.get("uri").and_then(Value::as_str) {
        let decoded = decoded(&decoded(uri));
        fields.insert("uri_decoded".to_owned(), Value::from(decoded));
    }
    Ok(Event {
        time,
        fields: Value::Object(fields),
        times: 1,
    })
}

fn time(value: &Value) -> Option<Timestamp> {
    /// Seconds beyond it are milliseconds: as seconds they would be after the year 5000.
    const LATEST_SECOND: f64 = 1e11;
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            let seconds = number.as_f64()?;
            let milliseconds = if seconds.abs() > LATEST_SECOND {
                seconds
            } else {
                seconds * 1000.0
            };
            #[expect(
                clippy::cast_possible_truncation,
                reason = "saturates; jiff refuses what is out of range"
            )]
            Timestamp::from_millisecond(milliseconds as i64).ok()
        }
        _ => None,
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let hex = bytes
            .get(index + 1..index + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let value = hex.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, value.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(value)) => {
                decoded.push(value);
                index += 3;
            }
            (b'+', _) => {
                decoded.push(b' ');
                index += 1;
            }
            _ => {
                decoded.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn syslog(line: &str, calendar: Calendar) -> Result<Event, &'static str> {
    let year = |date| calendar.year(date);
    let message = parse_message_with_year_exact_tz(line, year, Some(chrono::Utc), Variant::Either)
        .map_err(|_| "is neither JSON nor syslog")?;
    let time = message.timestamp.filter(|time| (1..=9998).contains(&time.year()));
    let (Some(time), Some(program)) = (time, message.appname) else {
        return Err("is neither JSON nor syslog (no time, or no program's name)");
    };
    let (text, times) = authentication::unrepeated(message.msg.trim());
    let mut fields = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(key.to_owned(), value);
        }
    };
    set("host", message.hostname.map(Value::from));
    set("program", Some(Value::from(program)));
    set("pid", message.procid.map(|id| Value::from(id.to_string())));
    set("message", Some(Value::from(text)));
    set(
        "facility",
        message.facility.map(|facility| Value::from(facility.as_str())),
    );
    set(
        "severity",
        message.severity.map(|severity| Value::from(severity.as_str())),
    );
    authentication::describe(program, text, &mut fields);
    let time = Timestamp::from_millisecond(time.timestamp_millis()).ok();
    Ok(Event {
        time,
        fields: Value::Object(fields),
        times: times.clamp(1, MAX_REPETITIONS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn calendar() -> Calendar {
        Calendar {
            now: "2025-03-20T00:00:00Z".parse().unwrap(),
            year: None,
        }
    }

    fn parsed(line: &str) -> Event {
        parse(line, Format::Auto, calendar()).unwrap()
    }

    #[test]
    fn syslog_lines_have_their_parts() {
        let event = parsed(
            "Mar 14 08:14:05 gateway sshd[2210]: Failed password for root from 192.0.2.1 port 22 ssh2",
        );
        assert_eq!(event.time.unwrap().to_string(), "2025-03-14T08:14:05Z");
        for (field, value) in [
            ("host", "gateway"),
            ("program", "sshd"),
            ("pid", "2210"),
            ("user", "root"),
        ] {
            assert_eq!(event.text(field), Some(value));
        }
        assert_eq!(event.source(), "192.0.2.1");
        let event =
            parsed("2025-03-14T08:14:05.123456+01:00 gateway sudo: a : TTY=x ; USER=root ; COMMAND=/bin/sh");
        assert_eq!(event.time.unwrap().to_string(), "2025-03-14T07:14:05.123Z");
        assert_eq!(
            (event.text("event"), event.source().as_str()),
            (Some("sudo_command"), "gateway")
        );
        let event = parsed(
            "<38>1 2025-03-14T08:14:05Z gateway sshd 99 - - Accepted password for a from 192.0.2.1 port 1",
        );
        assert_eq!(
            (event.text("event"), event.text("facility")),
            (Some("login_succeeded"), Some("auth"))
        );
    }

    #[test]
    fn years_are_completed_backwards() {
        let year = |date: &str| {
            parsed(&format!("{date} 00:00:01 host cron[1]: x"))
                .time
                .unwrap()
                .to_string()
        };
        assert!(year("Mar 20").starts_with("2025-03-20"));
        assert!(
            year("Mar 21").starts_with("2025-03-21"),
            "a day ahead may be another zone"
        );
        assert!(year("Mar 22").starts_with("2024-03-22"));
        assert!(year("Dec 31").starts_with("2024-12-31"));
        let calendar = Calendar {
            year: Some(2019),
            ..calendar()
        };
        let event = parse("Dec 31 00:00:01 host cron[1]: x", Format::Auto, calendar).unwrap();
        assert!(event.time.unwrap().to_string().starts_with("2019-12-31"));
    }

    #[test]
    fn json_lines_get_the_names_that_rules_use() {
        let event =
            parsed(r#"{"ts": 1741942800, "client_ip": "192.0.2.1", "path": "/a?f=%252e%252E%2fetc+x"}"#);
        assert_eq!(event.time.unwrap().to_string(), "2025-03-14T09:00:00Z");
        assert_eq!(event.text("source_ip"), Some("192.0.2.1"));
        assert_eq!(event.text("uri_decoded"), Some("/a?f=../etc x"));
        assert_eq!(
            parsed(r#"{"time": 1741942800500, "ip": "x", "source_ip": "y"}"#).source(),
            "y"
        );
    }

    #[test]
    fn other_lines_are_malformed() {
        for line in [
            "hello",
            "{\"a\":",
            "[1]",
            "Feb 30 00:00:00 host sshd[1]: x",
            "Mar 14 08:14:05",
            "-",
        ] {
            assert!(parse(line, Format::Auto, calendar()).is_err(), "{line}");
        }
        assert!(parse("Mar 14 08:14:05 host sshd[1]: x", Format::Jsonl, calendar()).is_err());
    }

    #[test]
    fn repetitions_are_counted_and_bounded() {
        let line = "Mar 14 08:14:05 h sshd[1]: message repeated 3 times: [ Failed password for a from 192.0.2.1 port 2 ssh2]";
        let event = parsed(line);
        assert_eq!((event.times, event.text("event")), (3, Some("login_failed")));
        let event = parsed(&line.replace('3', "4000000000"));
        assert!(event.times <= MAX_REPETITIONS);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "(?s).{0,120}") {
            let _ = parse(&line, Format::Auto, calendar());
        }

        #[test]
        fn nothing_like_syslog_panics(line in "(<[0-9]{1,4}>)?(Mar|Feb|x) [0-9]{1,3} [0-9]{1,3}:[0-9]{2}:[0-9]{2} (h )?(sshd|sudo)(\\[[0-9]{1,12}\\])?:? .{0,40}") {
            let _ = parse(&line, Format::Syslog, calendar());
        }
    }
}
