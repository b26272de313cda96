//! Callers who make more requests than they may. Each has a line at once, and one that says how many more there were within a minute
//! ([`super::counted`]): a flood that is refused must not become a flood of lines.

use std::sync::Arc;

use super::counted::{Counted, Kind};
use super::{Entry, Event, Log};
use crate::clock::SharedClock;
use crate::trust::caller::Caller;

/// Those who are limited, before the audit log.
pub(crate) struct Limited(Counted<Whom>);

/// Whose lines are counted together. Nobody: those that are too many to be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Whom(Option<(Arc<str>, Option<Arc<str>>)>);

impl Kind for Whom {
    fn line(&self) -> Entry {
        let (user, issuer) = match &self.0 {
            Some((subject, issuer)) => (&**subject, issuer.as_deref().unwrap_or_default()),
            None => ("several", ""),
        };
        Entry::new(Event::RateLimited)
            .with("user", user)
            .with("issuer", issuer)
            .with("reason", "more requests than the caller may make")
    }

    fn nameless(&self) -> Self {
        Self(None)
    }
}

impl Limited {
    /// Writes into this log.
    pub(crate) fn new(log: Arc<Log>, clock: SharedClock) -> Self {
        Self(Counted::new(log, clock))
    }

    /// A request of this caller's is refused. `detail` adds to the line where it is the first; whether it was.
    pub(crate) fn note(&self, caller: &Caller, detail: impl FnOnce(Entry) -> Entry) -> bool {
        let whom = Whom(Some((Arc::clone(&caller.subject), caller.issuer.clone())));
        self.0.note(whom, detail)
    }

    /// Says what was counted and is due. To be called now and then.
    pub(crate) fn sweep(&self) {
        self.0.sweep();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::super::chain;
    use super::*;
    use crate::clock::ManualClock;
    use crate::trust::caller::{Kind as CallerKind, Roles};
    use crate::trust::grants::Grants;

    #[test]
    fn a_caller_who_floods_leaves_two_lines_and_ten_thousand_callers_a_bounded_number() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
        let log = Log::open(
            directory.path(),
            "router",
            1 << 30,
            Arc::clone(&clock) as SharedClock,
        )
        .unwrap();
        let limited = Limited::new(Arc::new(log), clock);
        let caller = |name: &str| {
            Caller::new(
                CallerKind::EndUser,
                Some("us"),
                name,
                Roles::default(),
                Grants::default(),
            )
        };
        let flo = caller("flo");
        let firsts = (0..1_000).filter(|_| limited.note(&flo, |line| line.with("action", "GetTask")));
        assert_eq!(firsts.count(), 1);
        for number in 0..10_000 {
            limited.note(&caller(&format!("bot-{number}")), |line| line);
        }
        drop(limited);
        let log = directory.path().join("router");
        chain::verify(&log).unwrap();
        let text = std::fs::read_to_string(log.join(chain::file_name(1))).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(lines.len() < 200, "{}", lines.len());
        let of = |user: &str| {
            let lines = lines.iter().filter(|line| line["user"] == user);
            let counts = lines.map(|line| line["count"].as_str().unwrap().parse::<u64>().unwrap());
            counts.collect::<Vec<_>>()
        };
        assert_eq!(of("flo"), [1, 999]);
        assert_eq!(lines[0]["action"], "GetTask");
        assert_eq!(lines[0]["issuer"], "us");
        assert!(
            lines
                .iter()
                .all(|line| line["event"] == "rate_limited" && line["outcome"] == "refused")
        );
        let all: u64 = lines
            .iter()
            .map(|line| line["count"].as_str().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(all, 11_000, "nobody is forgotten");
        assert!(of("several").iter().sum::<u64>() > 9_000);
    }
}
