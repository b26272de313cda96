//! How many instances there are, of which kinds: kept as they come, change and go, so that whoever asks counts nothing.
//!
//! Loads are added up in millionths, as whole numbers: sums of floating-point numbers would drift with every heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::instance::{Instance, Status};

/// What a load of 1 adds to a sum.
const FULL: f64 = 1e6;

/// Some instances, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Agents that have a live instance.
    pub agents: u64,
    by_status: [u64; Status::ALL.len()],
    load: u64,
}

impl Counts {
    /// Instances in a status.
    #[must_use]
    pub const fn of(&self, status: Status) -> u64 {
        self.by_status[status as usize]
    }

    /// Live instances.
    #[must_use]
    pub fn live(&self) -> u64 {
        Status::REPORTED.iter().map(|status| self.of(*status)).sum()
    }

    /// The mean of what live instances report; 0 where there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn mean_load(&self) -> f64 {
        self.load as f64 / FULL / (self.live().max(1) as f64)
    }

    /// Those of somebody else as well. An agent that both have counts twice.
    pub fn merge(&mut self, other: &Self) {
        self.agents += other.agents;
        self.load += other.load;
        for (count, more) in self.by_status.iter_mut().zip(other.by_status) {
            *count += more;
        }
    }

    fn add(&mut self, instance: &Instance) {
        self.by_status[instance.report.status as usize] += 1;
        self.load += load(instance);
    }

    fn remove(&mut self, instance: &Instance) {
        self.by_status[instance.report.status as usize] -= 1;
        self.load -= load(instance);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a load is from 0 to 1"
)]
fn load(instance: &Instance) -> u64 {
    (instance.report.load.get() * FULL).round() as u64
}

/// One namespace.
#[derive(Debug, Default)]
struct Place {
    counts: Counts,
    regions: BTreeMap<String, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    total: Counts,
    namespaces: BTreeMap<Arc<str>, Place>,
}

impl Tally {
    /// All live instances.
    #[must_use]
    pub const fn total(&self) -> Counts {
        self.total
    }

    /// Those of a namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Counts {
        self.namespaces
            .get(namespace)
            .map_or_else(Counts::default, |place| place.counts)
    }

    /// Every namespace that has live instances.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, Counts)> {
        self.namespaces.iter().map(|(name, place)| (name, place.counts))
    }

    /// Live instances of a region.
    #[must_use]
    pub fn in_region(&self, namespace: &str, region: &str) -> u64 {
        let place = self.namespaces.get(namespace);
        place
            .and_then(|place| place.regions.get(region))
            .copied()
            .unwrap_or(0)
    }

    /// An instance came; whether it is its agent's first.
    pub fn add(&mut self, instance: &Instance, is_first: bool) {
        let namespace = Arc::clone(&instance.key().namespace);
        let place = self.namespaces.entry(namespace).or_default();
        for counts in [&mut self.total, &mut place.counts] {
            counts.add(instance);
            counts.agents += u64::from(is_first);
        }
        let region = &instance.profile.region;
        match place.regions.get_mut(region) {
            Some(count) => *count += 1,
            None => _ = place.regions.insert(region.clone(), 1),
        }
    }

    /// An instance went; whether it was its agent's last.
    pub fn remove(&mut self, instance: &Instance, was_last: bool) {
        let namespace = &instance.key().namespace;
        let Some(place) = self.namespaces.get_mut(namespace) else {
            return;
        };
        for counts in [&mut self.total, &mut place.counts] {
            counts.remove(instance);
            counts.agents -= u64::from(was_last);
        }
        let region = &instance.profile.region;
        if let Some(count) = place.regions.get_mut(region) {
            *count -= 1;
            if *count == 0 {
                place.regions.remove(region);
            }
        }
        if place.counts.live() == 0 {
            self.namespaces.remove(namespace);
        }
    }

    /// An instance says something else of itself.
    pub fn change(&mut self, before: &Instance, after: &Instance) {
        let Some(place) = self.namespaces.get_mut(&after.key().namespace) else {
            return;
        };
        for counts in [&mut self.total, &mut place.counts] {
            counts.remove(before);
            counts.add(after);
        }
    }
}
