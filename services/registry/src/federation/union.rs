//! This registry's own instances and those of other regions as one: what is shown of whom, and one history of it. Pure.
//!
//! An instance that several registries name is shown once: as this registry's own, else as that of the first in the order of
//! the configuration. (Agents are different: one that is in several regions is one agent with instances here and there.)
//!
//! The changes have revisions of their own, each one more than the one before, so that whoever follows them can tell whether
//! something is missing, whichever of the registries it came from. What is shown of each peer is also in a table of its own,
//! which is searched and counted like that of the own instances, and to which the limits of leases do not apply.
//!
//! Rejected: writing foreign instances into the own store. Over Redis all replicas would have to agree on who of them does,
//! limits on own instances would have to tell them apart, and a peer could not be told the own ones without looking at each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::mirror::{Bounds, Mirror};
use crate::instance::{Instance, Key, Origin};
use crate::lease::{Change, Departure, Event, Moment, Table, Terms, Told};
use crate::offline;

/// See the module.
#[derive(Debug)]
pub struct Union {
    own: BTreeMap<Key, Instance>,
    peers: Vec<Peer>,
    revision: u64,
    events: Vec<Event>,
    /// Tables know instances by leases; foreign ones have made-up ones.
    leases: u128,
}

/// What is known of one peer's agents.
#[derive(Debug)]
struct Peer {
    origin: Arc<Origin>,
    mirror: Mirror,
    /// Those that are shown.
    table: Table,
}

/// Who names an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Own,
    Peer(usize),
}

impl Union {
    /// Nobody yet; the next change has the revision after this one.
    #[must_use]
    pub fn new(origins: Vec<Arc<Origin>>, bounds: Bounds, revision: u64, now: Duration) -> Self {
        let peers = origins.into_iter().map(|origin| Peer {
            origin,
            mirror: Mirror::new(bounds, now),
            table: Table::new(FOLLOWED, revision),
        });
        Self {
            own: BTreeMap::new(),
            peers: peers.collect(),
            revision,
            events: Vec::new(),
            leases: 0,
        }
    }

    /// Something has changed in the own store.
    pub fn own_changed(&mut self, change: Change) {
        match &change {
            Change::Upserted(instance) | Change::Reported(instance) => {
                self.own.insert(instance.key().clone(), instance.clone());
            }
            Change::Removed(key, _) => {
                self.own.remove(key);
            }
        }
        self.changed(Source::Own, change);
    }

    /// The own store was read anew. What is told is the difference.
    pub fn own_replaced(&mut self, instances: Vec<Instance>) {
        let mut before = std::mem::take(&mut self.own);
        let mut changes = Vec::new();
        for instance in instances {
            let known = before.remove(instance.key());
            if known.as_ref() != Some(&instance) {
                changes.push(Change::Upserted(instance.clone()));
            }
            self.own.insert(instance.key().clone(), instance);
        }
        let gone = before.into_keys();
        // Why is not known; an agent that is gone may still finish what it had.
        changes.extend(gone.map(|key| Change::Removed(key, Departure::Deregistered)));
        for change in changes {
            self.changed(Source::Own, change);
        }
    }

    /// A peer has told something.
    pub fn peer<C>(&mut self, peer: usize, told: impl FnOnce(&mut Mirror) -> C)
    where
        C: IntoIterator<Item = Change>,
    {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        for change in told(&mut known.mirror) {
            self.changed(Source::Peer(peer), change);
        }
    }

    /// What is known of a peer.
    #[must_use]
    pub fn mirror(&mut self, peer: usize) -> Option<&mut Mirror> {
        self.peers.get_mut(peer).map(|peer| &mut peer.mirror)
    }

    /// How many peers there are.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// The tables of what is shown of each peer, with where it is from.
    pub fn tables(&mut self) -> impl Iterator<Item = (&Arc<Origin>, &mut Table)> {
        self.peers.iter_mut().map(|peer| (&peer.origin, &mut peer.table))
    }

    /// All instances by key, and the revision at which they are so.
    pub fn snapshot(&mut self, now: Moment) -> (u64, Vec<Instance>) {
        let mut all: Vec<Instance> = self.own.values().cloned().collect();
        for peer in &mut self.peers {
            all.extend(peer.table.snapshot(now).1);
        }
        // Each part is in order already.
        all.sort_by(|one, other| one.key().cmp(other.key()));
        (self.revision, all)
    }

    /// The revision of the last change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The changes since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What was taken over of a source is shown, unless somebody before it names the same instance.
    fn changed(&mut self, source: Source, change: Change) {
        let key = match &change {
            Change::Upserted(instance) | Change::Reported(instance) => instance.key().clone(),
            Change::Removed(key, _) => key.clone(),
        };
        let first_behind = match source {
            Source::Own => 0,
            Source::Peer(peer) => {
                let before = self.peers.iter().take(peer);
                if self.own.contains_key(&key)
                    || before.into_iter().any(|peer| peer.mirror.get(&key).is_some())
                {
                    return;
                }
                peer + 1
            }
        };
        let mut behind = self.peers.iter().enumerate().skip(first_behind);
        let next = behind.find_map(|(index, peer)| Some((index, peer.mirror.get(&key)?.clone())));
        match change {
            Change::Upserted(_) | Change::Reported(_) => {
                if let Some((hidden, _)) = next {
                    self.tell(Source::Peer(hidden), Told::Deregistered(key));
                }
                self.show(source, change);
            }
            Change::Removed(key, departure) => {
                self.tell(source, Told::Deregistered(key.clone()));
                match next {
                    Some((uncovered, instance)) => {
                        self.show(Source::Peer(uncovered), Change::Upserted(instance));
                    }
                    None => self.publish(Change::Removed(key, departure)),
                }
            }
        }
    }

    /// Shows what an instance is now.
    fn show(&mut self, source: Source, change: Change) {
        let told = match &change {
            Change::Upserted(instance) => {
                self.leases += 1;
                Some(Told::Upserted {
                    instance: instance.clone(),
                    lease: Uuid::from_u128(self.leases),
                })
            }
            Change::Reported(instance) => Some(Told::Reported {
                key: instance.key().clone(),
                report: instance.report,
                heard_at: instance.last_heartbeat_at,
            }),
            Change::Removed(..) => None,
        };
        if let Some(told) = told {
            self.tell(source, told);
        }
        self.publish(change);
    }

    /// Tells the table of a source. The own store has its own.
    fn tell(&mut self, source: Source, told: Told) {
        if let Source::Peer(peer) = source
            && let Some(peer) = self.peers.get_mut(peer)
        {
            peer.table.follow(self.revision, told);
            // Watchers hear of it by the union's own events.
            let _told = peer.table.take_events();
        }
    }

    fn publish(&mut self, change: Change) {
        self.revision += 1;
        self.events.push(Event {
            revision: self.revision,
            change,
        });
    }
}

/// Tables that follow grant nothing, and keep nobody whose lease ended: that is the home registry's part.
const FOLLOWED: Terms = Terms {
    time_to_live: Duration::MAX,
    max_per_node: usize::MAX,
    max_instances: usize::MAX,
    offline: offline::Bounds {
        retention: Duration::ZERO,
        most: 0,
    },
};
