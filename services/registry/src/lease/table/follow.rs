//! A table that follows a store which decides elsewhere: it is told what has happened, and decides nothing.
//!
//! Its leases never end by themselves: that they have is told like everything else, and until then an instance stays, however
//! long nothing is told. Who is offline is forgotten by lease time, as in a table that decides.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Entry, Table};
use crate::instance::{Instance, Key, Report};
use crate::lease::{Change, Departure, Event};

/// The deadline of a lease that somebody else ends.
const NEVER: Duration = Duration::MAX;

/// What has happened elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// An instance is new, or has registered again.
    Upserted {
        /// The instance.
        instance: Instance,
        /// Its lease.
        lease: Uuid,
    },
    /// What an instance says of itself has changed.
    Reported {
        /// Which.
        key: Key,
        /// What it says now; a drain shows in the status.
        report: Report,
        /// When it was heard of last.
        heard_at: Timestamp,
    },
    /// An instance said goodbye.
    Deregistered(Key),
    /// A lease ended.
    Expired {
        /// Whose.
        key: Key,
        /// When, in lease time.
        at: Duration,
    },
}

impl Table {
    /// Takes over what happened as this revision. What is told of an instance that is not known changes nothing, and watchers
    /// hear that it is not there: revisions have no gaps.
    pub fn follow(&mut self, revision: u64, told: Told) {
        let change = match told {
            Told::Upserted { instance, lease } => {
                let instance = self.put(instance, lease);
                Change::Upserted(instance)
            }
            Told::Reported {
                key,
                report,
                heard_at,
            } => self.follow_report(key, report, heard_at),
            Told::Deregistered(key) => {
                let _gone = self.take(&key);
                Change::Removed(key, Departure::Deregistered)
            }
            Told::Expired { key, at } => {
                self.expired += 1;
                if let Some(entry) = self.take(&key) {
                    self.offline.add(at, entry.instance);
                }
                Change::Removed(key, Departure::Expired)
            }
        };
        self.revision = revision;
        self.events.push(Event { revision, change });
    }

    fn follow_report(&mut self, key: Key, report: Report, heard_at: Timestamp) -> Change {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Change::Removed(key, Departure::Deregistered);
        };
        entry.instance.last_heartbeat_at = heard_at;
        let (before, slot) = (entry.instance.clone(), entry.slot);
        entry.instance.report = report;
        let after = entry.instance.clone();
        self.count_report(&before, &after, slot);
        Change::Reported(after)
    }

    /// Adds an instance as it is, of which nobody is told.
    pub fn restore(&mut self, instance: Instance, lease: Uuid) {
        self.put(instance, lease);
    }

    /// Adds an instance whose lease has ended.
    pub fn restore_offline(&mut self, at: Duration, instance: Instance) {
        self.offline.add(at, instance);
    }

    /// Leases have ended without a goodbye so often.
    pub const fn restore_expired(&mut self, expired: u64) {
        self.expired = expired;
    }

    /// An instance was heard of at that time, with nothing new.
    pub fn heard(&mut self, lease: Uuid, at: Timestamp) {
        let profile = self.leases.get(&lease);
        let entry = profile.and_then(|profile| self.entries.get_mut(&profile.key));
        if let Some(entry) = entry {
            entry.instance.last_heartbeat_at = entry.instance.last_heartbeat_at.max(at);
        }
    }

    fn put(&mut self, mut instance: Instance, lease: Uuid) -> Instance {
        self.share(&mut instance.profile);
        let _replaced = self.take(instance.key());
        self.offline.remove(instance.key());
        let slot = self.catalogue.insert(&instance);
        self.insert(Entry {
            instance: instance.clone(),
            slot,
            lease,
            deadline: NEVER,
            drain_requested: false,
        });
        instance
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::instance::{Load, wire};
    use crate::lease::{Moment, Terms};
    use crate::offline::Bounds;
    use crate::reach::Reach;

    fn terms() -> Terms {
        Terms {
            time_to_live: Duration::from_secs(5),
            max_per_node: 100,
            max_instances: 100,
            offline: Bounds {
                retention: Duration::from_secs(3),
                most: 3,
            },
        }
    }

    fn profile(number: u8) -> Arc<crate::instance::Profile> {
        let message = muster_api::registry::Instance {
            agent_id: format!("a{}", number % 2),
            card: Some(muster_api::a2a::AgentCard {
                skills: vec![muster_api::a2a::AgentSkill {
                    id: format!("s{}", number % 3),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            endpoint: "http://127.0.0.1:1".to_owned(),
            ..Default::default()
        };
        let (profile, _) = wire::registration(message, Uuid::from_u128(u128::from(number) + 1)).unwrap();
        Arc::new(profile)
    }

    fn report(load: u8) -> Report {
        Report {
            load: Load::new(f64::from(load % 11) / 10.0).unwrap(),
            ..Report::FRESH
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Register(u8, u8),
        Renew(u8, u8),
        End(u8),
        Drain(u8),
        Pass(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0_u8..6, any::<u8>()).prop_map(|(who, load)| Act::Register(who, load)),
            (0_u8..6, any::<u8>()).prop_map(|(who, load)| Act::Renew(who, load)),
            (0_u8..6).prop_map(Act::End),
            (0_u8..2).prop_map(Act::Drain),
            (0_u8..4).prop_map(Act::Pass),
        ]
    }

    /// What a follower is told of a change of the table that decides.
    fn told(change: Change, now: Duration, deadlines: &[(Key, Duration)]) -> Told {
        match change {
            Change::Upserted(instance) => Told::Upserted {
                lease: instance.key().instance_id,
                instance,
            },
            Change::Reported(instance) => Told::Reported {
                key: instance.key().clone(),
                report: instance.report,
                heard_at: instance.last_heartbeat_at,
            },
            Change::Removed(key, Departure::Deregistered | Departure::Unheard) => Told::Deregistered(key),
            Change::Removed(key, Departure::Expired) => {
                let deadline = deadlines.iter().find(|(other, _)| *other == key);
                Told::Expired {
                    at: deadline.map_or(now, |(_, at)| *at),
                    key,
                }
            }
        }
    }

    proptest! {
        #[test]
        fn who_is_told_of_every_change_shows_the_same(acts in prop::collection::vec(act(), 1..60)) {
            let mut decides = Table::new(terms(), 7);
            let mut follows = Table::new(terms(), 7);
            let mut time = Duration::ZERO;
            for act in acts {
                let before: Vec<(Key, Duration)> = decides
                    .entries
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.deadline))
                    .collect();
                if let Act::Pass(seconds) = act {
                    time += Duration::from_secs(seconds.into());
                }
                let now = Moment { wall: Timestamp::UNIX_EPOCH, monotonic: time };
                // The lease is the instance's id.
                match act {
                    Act::Register(who, load) => {
                        let profile = profile(who);
                        let _ = decides.register(now, profile.key.instance_id, profile, report(load));
                    }
                    Act::Renew(who, load) => {
                        let _ = decides.renew(now, profile(who).key.instance_id, report(load));
                    }
                    Act::End(who) => decides.end(now, profile(who).key.instance_id),
                    Act::Drain(agent) => {
                        let _ = decides.drain(now, &"default".into(), &format!("a{agent}").into(), None);
                    }
                    Act::Pass(_) => { decides.expire(now); }
                }
                let events = decides.take_events();
                for event in &events {
                    follows.follow(event.revision, told(event.change.clone(), time, &before));
                }
                prop_assert_eq!(follows.take_events(), events);
                prop_assert_eq!(follows.snapshot(now), decides.snapshot(now));
                prop_assert_eq!(follows.census(now), decides.census(now));
                prop_assert_eq!(follows.statistics(now, None, 10, &Reach::All), decides.statistics(now, None, 10, &Reach::All));
            }
        }
    }
}
