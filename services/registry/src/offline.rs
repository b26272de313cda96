//! Instances whose leases have ended without a goodbye, for a while: what an operator asks for after an outage.
//!
//! They are not in the lease table any more: nobody is routed to them, no limit counts them, and watchers hear of them only
//! that they left. An instance that says goodbye is not kept: it is gone because somebody wanted it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::instance::{Instance, Key, Report, Status};
use crate::reach::Reach;

/// For how long, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long an instance is kept.
    pub retention: Duration,
    /// Most instances that are kept; those that left first go first.
    pub most: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Offline {
    bounds: Bounds,
    instances: BTreeMap<Key, (Duration, Instance)>,
    line: BTreeSet<(Duration, Key)>,
    per_namespace: BTreeMap<Arc<str>, u64>,
}

impl Offline {
    /// Nobody, within these bounds.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            instances: BTreeMap::new(),
            line: BTreeSet::new(),
            per_namespace: BTreeMap::new(),
        }
    }

    /// An instance's lease ended at that time.
    pub fn add(&mut self, at: Duration, mut instance: Instance) {
        instance.report = Report {
            status: Status::Offline,
            ..instance.report
        };
        let key = instance.key().clone();
        self.remove(&key);
        self.line.insert((at, key.clone()));
        *self.per_namespace.entry(Arc::clone(&key.namespace)).or_default() += 1;
        self.instances.insert(key, (at, instance));
        while self.instances.len() > self.bounds.most {
            self.pop();
        }
    }

    /// It is back.
    pub fn remove(&mut self, key: &Key) {
        if let Some((at, _)) = self.instances.remove(key) {
            self.line.remove(&(at, key.clone()));
            if let Some(count) = self.per_namespace.get_mut(&key.namespace) {
                *count -= 1;
                if *count == 0 {
                    self.per_namespace.remove(&key.namespace);
                }
            }
        }
    }

    /// Forgets those that have been kept long enough.
    pub fn expire(&mut self, now: Duration) {
        while let Some((at, _)) = self.line.first()
            && now.saturating_sub(*at) >= self.bounds.retention
        {
            self.pop();
        }
    }

    /// How many there are, of one namespace or of all.
    #[must_use]
    pub fn count(&self, namespace: Option<&str>) -> u64 {
        match namespace {
            Some(namespace) => self.per_namespace.get(namespace).copied().unwrap_or(0),
            None => self.per_namespace.values().sum(),
        }
    }

    /// How many there are of one namespace or of all, for whoever asks.
    #[must_use]
    pub fn count_within(&self, namespace: Option<&str>, reach: &Reach) -> u64 {
        if reach.is_all() {
            return self.count(namespace);
        }
        let keys = self.instances.keys();
        keys.filter(|key| {
            namespace.is_none_or(|wanted| *wanted == *key.namespace) && reach.sees_instance(key)
        })
        .count() as u64
    }

    /// A namespace's instances by key, after those of an agent.
    pub fn namespace<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Instance> {
        let start = Key {
            namespace: Arc::clone(namespace),
            agent_id: after.unwrap_or_default().into(),
            instance_id: Uuid::max(),
        };
        self.instances
            .range((Bound::Excluded(start), Bound::Unbounded))
            .map(|(_, (_, instance))| instance)
            .take_while(move |instance| instance.key().namespace == *namespace)
    }

    fn pop(&mut self) {
        if let Some((_, key)) = self.line.first().cloned() {
            self.remove(&key);
        }
    }
}
