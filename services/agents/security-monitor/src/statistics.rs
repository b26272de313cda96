//! Who did what in a log: events by type, by source and by user.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::authentication::{LOGIN_FAILED, LOGIN_SUCCEEDED};
use crate::event::Event;
use crate::log::Log;

/// Sources, users and types that are shown, the busiest first.
const SHOWN: usize = 20;
/// Different sources or users that are counted.
const MAX_COUNTED: usize = 50_000;
/// Names that are listed for one source or user.
const MAX_NAMES: usize = 10;

#[derive(Default)]
struct Tally {
    events: u64,
    failed: u64,
    succeeded: u64,
    names: BTreeSet<String>,
    times: Option<(Timestamp, Timestamp)>,
}

impl Tally {
    fn add(&mut self, event: &Event, name: Option<&str>) {
        let times = u64::from(event.times);
        self.events += times;
        match event.text("event") {
            Some(LOGIN_FAILED) => self.failed += times,
            Some(LOGIN_SUCCEEDED) => self.succeeded += times,
            _ => {}
        }
        if let Some(name) = name.filter(|_| self.names.len() < MAX_NAMES) {
            self.names
                .insert(name.chars().filter(|c| !c.is_control()).take(64).collect());
        }
        if let Some(time) = event.time {
            self.times = Some(
                self.times
                    .map_or((time, time), |(from, to)| (from.min(time), to.max(time))),
            );
        }
    }

    fn json(&self, key: &str, name: &str, names: &str) -> Value {
        let times = self
            .times
            .map(|(from, to)| (muster_api::time::rfc3339(from), muster_api::time::rfc3339(to)));
        let (first, last) = times.unzip();
        json!({key: name, "events": self.events, "failed_logins": self.failed, "successful_logins": self.succeeded,
            names: self.names, "first_seen": first, "last_seen": last})
    }
}

/// Counts a log.
#[must_use]
pub fn statistics(log: &Log<'_>) -> Value {
    let mut sources: HashMap<String, Tally> = HashMap::new();
    let mut users: HashMap<String, Tally> = HashMap::new();
    let mut types: HashMap<String, Tally> = HashMap::new();
    for (_, event) in log.events() {
        let source = event.source();
        tally(&mut sources, &source, &event, event.text("user"));
        if let Some(user) = event.text("user") {
            tally(&mut users, user, &event, Some(&source));
        }
        let kind = event
            .text("event")
            .or_else(|| event.text("program"))
            .unwrap_or("other");
        tally(&mut types, kind, &event, None);
    }
    let types: Vec<Value> = busiest(&types)
        .iter()
        .map(|(name, tally)| json!({"event": name, "count": tally.events}))
        .collect();
    let shown = |tallies: &HashMap<String, Tally>, key: &str, names: &str| {
        busiest(tallies)
            .iter()
            .map(|(name, tally)| tally.json(key, name, names))
            .collect::<Vec<_>>()
    };
    json!({"events_by_type": types, "sources": shown(&sources, "source", "users"), "source_count": sources.len(),
        "users": shown(&users, "user", "sources"), "user_count": users.len()})
}

fn tally(tallies: &mut HashMap<String, Tally>, key: &str, event: &Event, name: Option<&str>) {
    if let Some(tally) = tallies.get_mut(key) {
        tally.add(event, name);
    } else if tallies.len() < MAX_COUNTED {
        tallies.entry(key.to_owned()).or_default().add(event, name);
    }
}

fn busiest(tallies: &HashMap<String, Tally>) -> Vec<(&str, &Tally)> {
    let mut tallies: Vec<(&str, &Tally)> = tallies
        .iter()
        .map(|(name, tally)| (name.as_str(), tally))
        .collect();
    tallies.sort_by(|a, b| b.1.events.cmp(&a.1.events).then_with(|| a.0.cmp(b.0)));
    tallies.truncate(SHOWN);
    tallies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Calendar, Format};

    #[test]
    fn the_sample_is_counted_by_source_user_and_type() {
        let calendar = Calendar {
            now: "2025-03-20T00:00:00Z".parse().unwrap(),
            year: None,
        };
        let log = Log::new(include_str!("../samples/auth.log"), Format::Auto, calendar).unwrap();
        let statistics = statistics(&log);
        let source = |name: &str| {
            let sources = statistics["sources"].as_array().unwrap();
            sources
                .iter()
                .find(|source| source["source"] == name)
                .unwrap()
                .clone()
        };
        let attacker = source("192.0.2.143");
        assert_eq!(
            (&attacker["failed_logins"], &attacker["successful_logins"]),
            (&json!(20), &json!(1))
        );
        assert_eq!(attacker["users"], json!(["backup", "root"]));
        assert_eq!(source("203.0.113.77")["failed_logins"], 6);
        let users = statistics["users"].as_array().unwrap();
        let root = users.iter().find(|user| user["user"] == "root").unwrap();
        assert_eq!(
            (&root["failed_logins"], &root["sources"]),
            (&json!(14), &json!(["192.0.2.143"]))
        );
        assert_eq!(
            statistics["events_by_type"][0],
            json!({"event": "login_failed", "count": 27})
        );
    }
}
