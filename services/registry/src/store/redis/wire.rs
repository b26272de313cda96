//! What is written into Redis, and read out of it: the contract's messages, and around them the few words that scripts read.
//!
//! A status stands before its report as one digit, because a script changes it when somebody drains. Nothing that is read can make
//! a replica fail: what cannot be understood is no instance, and the log says so.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::registry::{self, HeartbeatRequest};
use muster_store::redis::Value;
use prost::Message as _;
use uuid::Uuid;

use super::keys;
use crate::instance::{Instance, Profile, Report, Status, wire};
use crate::lease::Told;

/// Why something that was read is no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be read")]
pub(super) struct Unreadable {
    what: String,
}

fn unreadable(what: impl Into<String>) -> Unreadable {
    Unreadable { what: what.into() }
}

/// The digit of a status.
pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Active => "1",
        Status::Busy => "2",
        Status::Draining => "3",
        Status::Maintenance => "4",
        Status::Offline => "5",
    }
}

/// The status of a digit.
pub(super) fn parse_status(digit: &str) -> Option<Status> {
    Status::ALL.into_iter().find(|known| status(*known) == digit)
}

/// A report without its status.
pub(super) fn report(report: &Report) -> Vec<u8> {
    let message = HeartbeatRequest {
        load: report.load.get(),
        mean_latency_seconds: wire::seconds(report.mean_latency),
        succeeded_total: report.succeeded,
        failed_total: report.failed,
        ..HeartbeatRequest::default()
    };
    message.encode_to_vec()
}

fn parse_report(digit: &str, bytes: &[u8]) -> Result<Report, Unreadable> {
    let status = parse_status(digit).ok_or_else(|| unreadable(format!("status '{digit}'")))?;
    let message =
        HeartbeatRequest::decode(bytes).map_err(|error| unreadable(format!("a report ({error})")))?;
    let report = wire::report(&message).map_err(|error| unreadable(format!("a report ({error})")))?;
    Ok(Report { status, ..report })
}

/// What an instance said when it registered, with its card.
pub(super) fn profile(profile: &Arc<Profile>) -> Vec<u8> {
    let instance = Instance {
        profile: Arc::clone(profile),
        report: Report::FRESH,
        registered_at: Timestamp::UNIX_EPOCH,
        last_heartbeat_at: Timestamp::UNIX_EPOCH,
        epoch: 0,
    };
    registry::Instance::from(&instance).encode_to_vec()
}

fn parse_profile(id: &str, bytes: &[u8]) -> Result<Arc<Profile>, Unreadable> {
    let message = registry::Instance::decode(bytes)
        .map_err(|error| unreadable(format!("the profile of {id} ({error})")))?;
    let (profile, _) = wire::registration(message, Uuid::max())
        .map_err(|error| unreadable(format!("the profile of {id} ({error})")))?;
    if keys::id(&profile.key) != id {
        return Err(unreadable(format!("the profile of {id}, which names another,")));
    }
    Ok(Arc::new(profile))
}

/// A time in microseconds of Redis's clock.
pub(super) fn time(text: &str) -> Result<Timestamp, Unreadable> {
    let micros = text.parse::<i64>().ok();
    micros
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| unreadable(format!("time '{text}'")))
}

/// A lease time in milliseconds.
pub(super) fn lease_time(text: &str) -> Result<Duration, Unreadable> {
    let millis = text.parse::<u64>().ok();
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| unreadable(format!("lease time '{text}'")))
}

/// A live instance and its lease, from its entry and its profile.
pub(super) fn live(id: &str, entry: &[u8], profile: &[u8]) -> Result<(Instance, Uuid), Unreadable> {
    let bad = || unreadable(format!("the entry of {id}"));
    let mut words = entry.splitn(6, |byte| *byte == b' ');
    let mut word = || words.next().ok_or_else(bad);
    let mut text = || word().and_then(|word| std::str::from_utf8(word).map_err(|_| bad()));
    let (lease, epoch, _drain, registered, heard) = (text()?, text()?, text()?, text()?, text()?);
    let (digit, report) = word()?.split_at_checked(1).ok_or_else(bad)?;
    let instance = Instance {
        profile: parse_profile(id, profile)?,
        report: parse_report(&String::from_utf8_lossy(digit), report)?,
        registered_at: time(registered)?,
        last_heartbeat_at: time(heard)?,
        epoch: epoch.parse().map_err(|_| bad())?,
    };
    Ok((instance, Uuid::try_parse(lease).map_err(|_| bad())?))
}

/// A silent instance and when its lease ended.
pub(super) fn offline(id: &str, value: &[u8], profile: &[u8]) -> Result<(Duration, Instance), Unreadable> {
    let space = value.iter().position(|byte| *byte == b' ');
    let (at, entry) = space
        .and_then(|space| value.split_at_checked(space))
        .ok_or_else(|| unreadable(format!("the silent entry of {id}")))?;
    let at = lease_time(&String::from_utf8_lossy(at))?;
    let (instance, _) = live(id, entry.strip_prefix(b" ").unwrap_or_default(), profile)?;
    Ok((at, instance))
}

/// A change in the feed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The revision that it made.
    pub(super) revision: u64,
    /// Which write made it.
    pub(super) token: String,
    /// Which write made the change before.
    pub(super) before: String,
    /// What has happened.
    pub(super) told: Told,
}

/// The changes in what `XREAD` or `XRANGE` answered, in order.
pub(super) fn entries(answer: Value) -> Result<Vec<Entry>, Unreadable> {
    let list = match answer {
        Value::Nil => return Ok(Vec::new()),
        other => items(other)?,
    };
    list.into_iter().map(entry).collect()
}

/// The entries of the only stream that `XREAD` was asked for.
pub(super) fn only_stream(answer: Value) -> Result<Value, Unreadable> {
    let pair = match answer {
        Value::Nil => return Ok(Value::Nil),
        Value::Map(mut streams) => return streams.pop().map_or(Ok(Value::Nil), |(_, entries)| Ok(entries)),
        streams => items(streams)?.pop(),
    };
    match pair.map(items).transpose()? {
        None => Ok(Value::Nil),
        Some(mut pair) => pair.pop().ok_or_else(|| unreadable("a stream")),
    }
}

fn items(value: Value) -> Result<Vec<Value>, Unreadable> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(unreadable(format!("{other:?} in place of a list"))),
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, Unreadable> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        other => Err(unreadable(format!("{other:?} in place of bytes"))),
    }
}

fn entry(value: Value) -> Result<Entry, Unreadable> {
    let [place, fields]: [Value; 2] = items(value)?
        .try_into()
        .map_err(|_| unreadable("an entry of the feed"))?;
    let place = String::from_utf8_lossy(&bytes(place)?).into_owned();
    let bad = || unreadable(format!("change {place} of the feed"));
    let revision = place
        .split_once('-')
        .and_then(|(revision, _)| revision.parse().ok());
    let fields = items(fields)?
        .into_iter()
        .map(bytes)
        .collect::<Result<Vec<_>, _>>()?;
    let (pairs, _) = fields.as_chunks::<2>();
    let field = |name: &str| {
        let found = pairs.iter().find(|[key, _]| key == name.as_bytes());
        found.map(|[_, value]| value.as_slice()).ok_or_else(bad)
    };
    let text = |name: &str| field(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let id = text("i")?;
    let key = keys::key(&id).ok_or_else(bad)?;
    let revision = revision.ok_or_else(bad)?;
    let told = match text("k")?.as_str() {
        "u" => {
            let heard = time(&text("h")?)?;
            let read = parse_profile(&id, field("c")?).and_then(|profile| {
                Ok(Told::Upserted {
                    instance: Instance {
                        profile,
                        report: parse_report(&text("s")?, field("r")?)?,
                        registered_at: heard,
                        last_heartbeat_at: heard,
                        epoch: revision,
                    },
                    lease: Uuid::try_parse(&text("l")?).map_err(|_| bad())?,
                })
            });
            // Written by a newer registry that allows more. It is not shown here.
            read.unwrap_or_else(|error| {
                tracing::warn!(%error, "an instance is left out");
                Told::Deregistered(key)
            })
        }
        "r" => Told::Reported {
            key,
            report: parse_report(&text("s")?, field("r")?)?,
            heard_at: time(&text("h")?)?,
        },
        "g" => Told::Deregistered(key),
        "x" => Told::Expired {
            key,
            at: lease_time(&text("d")?)?,
        },
        _ => return Err(bad()),
    };
    Ok(Entry {
        revision,
        token: text("t")?,
        before: text("b")?,
        told,
    })
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{AgentCard, AgentSkill};
    use proptest::prelude::*;

    use super::*;
    use crate::instance::Load;

    fn given(node: &str) -> Arc<Profile> {
        let message = registry::Instance {
            agent_id: "a".to_owned(),
            card: Some(AgentCard {
                skills: vec![AgentSkill {
                    id: "s".to_owned(),
                    ..AgentSkill::default()
                }],
                ..AgentCard::default()
            }),
            endpoint: "http://127.0.0.1:1/path".to_owned(),
            binding: "JSONRPC".to_owned(),
            node: node.to_owned(),
            weight: Some(0),
            ..registry::Instance::default()
        };
        Arc::new(wire::registration(message, Uuid::from_u128(7)).unwrap().0)
    }

    fn bulk(text: impl Into<Vec<u8>>) -> Value {
        Value::BulkString(text.into())
    }

    proptest! {
        #[test]
        fn instances_come_back_as_they_were(
            load in 0.0..=1.0_f64, latency in 0_u64..86_400_000_000_000, succeeded: u64, failed: u64,
            which in 0_usize..4, micros in 0_i64..4_000_000_000_000_000, epoch: u64,
        ) {
            let said = Report {
                status: Status::REPORTED[which],
                load: Load::new(load).unwrap(),
                mean_latency: Some(Duration::from_nanos(latency)).filter(|latency| !latency.is_zero()),
                succeeded,
                failed,
            };
            let profile_given = given("n 1");
            let id = keys::id(&profile_given.key);
            let lease = Uuid::from_u128(9);
            let mut entry = format!("{lease} {epoch} 1 {micros} {} {}", micros + 1, status(said.status)).into_bytes();
            entry.extend(report(&said));
            let written = profile(&profile_given);
            let (instance, read) = live(&id, &entry, &written).unwrap();
            prop_assert_eq!(read, lease);
            prop_assert_eq!(&instance.profile, &profile_given);
            prop_assert_eq!(instance.report, said);
            prop_assert_eq!(instance.registered_at.as_microsecond(), micros);
            prop_assert_eq!(instance.last_heartbeat_at.as_microsecond(), micros + 1);
            prop_assert_eq!(instance.epoch, epoch);
            let mut silent = b"1234 ".to_vec();
            silent.extend(&entry);
            prop_assert_eq!(offline(&id, &silent, &written).unwrap(), (Duration::from_millis(1234), instance));
        }

        #[test]
        fn nothing_that_is_read_panics(entry_given: Vec<u8>, profile_given: Vec<u8>) {
            let id = "default/a/00000000-0000-0000-0000-000000000007";
            let _ = live(id, &entry_given, &profile_given);
            let _ = offline(id, &entry_given, &profile_given);
            let _ = entries(bulk(entry_given));
        }
    }

    #[test]
    fn changes_are_read_and_what_is_unknown_is_told() {
        let id = "default/a/00000000-0000-0000-0000-000000000007";
        let made = |fields: &[(&str, &str)]| {
            let fields = fields
                .iter()
                .flat_map(|(name, value)| [bulk(*name), bulk(*value)]);
            Value::Array(vec![Value::Array(vec![
                bulk("12-0"),
                Value::Array(fields.collect()),
            ])])
        };
        let fields = [("t", "T"), ("b", "B"), ("k", "x"), ("i", id), ("d", "77")];
        let read = entries(made(&fields)).unwrap();
        let key = keys::key(id).unwrap();
        assert_eq!(
            read,
            [Entry {
                revision: 12,
                token: "T".to_owned(),
                before: "B".to_owned(),
                told: Told::Expired {
                    key: key.clone(),
                    at: Duration::from_millis(77)
                },
            }]
        );
        let undecodable = [
            ("t", "T"),
            ("b", "B"),
            ("k", "u"),
            ("i", id),
            ("h", "1"),
            ("c", "\u{1}"),
        ];
        assert_eq!(
            entries(made(&undecodable)).unwrap()[0].told,
            Told::Deregistered(key)
        );
        assert!(entries(made(&[("t", "T"), ("b", "B"), ("k", "?"), ("i", id)])).is_err());
        assert_eq!(entries(Value::Nil), Ok(vec![]));
        let stream = Value::Array(vec![Value::Array(vec![bulk("feed"), made(&fields)])]);
        assert_eq!(entries(only_stream(stream).unwrap()).unwrap(), read);
        assert_eq!(only_stream(Value::Nil), Ok(Value::Nil));
    }
}
